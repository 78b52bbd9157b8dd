"""Shafts that neither a tulip nor a rod holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spineimg.implants.detect import Metal, find_metal
from spineimg.volume import ArraySource, CTVolume
from tests.implants.implant_cases import Build, construct, errors
from tests.implants.metal_scenes import hold, screw


def _bare(way: tuple[float, float, float] = (-0.3, -1.0, -0.1), length: float = 42.0, diameter: float = 6.0) -> Build:
    return hold({"one": screw([18.0, 10.0, 0.0], way, length, diameter, tulip=False)}, [])


def _among(volume: CTVolume, tissue_hu: float) -> CTVolume:
    """The same metal in tissue of another HU than the scenes' 150."""
    hu = np.stack([volume.read(k) for k in range(volume.geometry.shape[0])]).astype(np.int64)
    shifted = np.where(hu < 1000, hu + int(tissue_hu) - 150, hu)
    return replace(volume, source=ArraySource(shifted.astype(np.int16)))


def _codes(metal: Metal) -> list[str]:
    return [note.code for screw in metal.screws for note in screw.notes]


@pytest.mark.parametrize("clip", [None, 3071.0])
def test_a_bare_shaft_in_bone_is_a_screw_with_a_note(clip: float | None) -> None:
    """Planted: a tulip or a rod asked of every screw (none found)."""
    build = _bare()
    metal = find_metal(build.volume(clip))
    found = errors(build, metal)["one"]
    assert len(metal.screws) == 1
    assert abs(found["length_mm"]) <= 1.2
    assert abs(found["diameter_mm"]) <= 0.3
    assert "no_head" in _codes(metal)


def test_a_screw_with_its_tulip_has_no_such_note() -> None:
    """But one that no rod was found. Planted: that note on every screw."""
    metal = find_metal(hold({"one": screw([18.0, 10.0, 0.0], [-0.3, -1.0, -0.1], 42.0, 6.0)}, []).volume())
    assert len(metal.screws) == 1
    assert "no_rod" in _codes(metal)
    assert "no_head" not in _codes(metal)
    assert "no_rod" not in _codes(find_metal(construct(2).volume()))


@pytest.mark.parametrize("tissue_hu", [-100.0, 50.0])
def test_a_bare_shaft_outside_bone_is_none(tissue_hu: float) -> None:
    """In fat and in muscle. Planted: the ring around it not looked at."""
    assert find_metal(_among(_bare().volume(), tissue_hu)).screws == ()


@pytest.mark.parametrize(
    ("way", "length", "diameter"),
    [((-1.0, -0.4, 0.1), 42.0, 6.0), ((-0.3, -1.0, -0.1), 80.0, 6.0), ((-0.3, -1.0, -0.1), 42.0, 3.0)],
    ids=["inward", "long", "thin"],
)
def test_other_bare_metal_in_bone_is_none(way: tuple[float, float, float], length: float, diameter: float) -> None:
    """A sacroiliac screw, a nail, a guide wire. Planted: each of the three limits taken off."""
    assert find_metal(_bare(way, length, diameter).volume()).screws == ()
