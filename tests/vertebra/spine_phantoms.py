"""A lumbar spine down to the sacrum, painted fast, for the finder of whole spines."""

from __future__ import annotations

from functools import lru_cache

from spineimg.phantom import Change, Imaging, Phantom, SpineSpec
from spineimg.volume import Acquisition, ArraySource, CTVolume
from tests.core.body_phantoms import painted

LEVELS = ("T11", "T12", "L1", "L2", "L3", "L4", "L5")
WHOLE = ("L5", "L4", "L3", "L2", "L1", "T12")
"""From feet to head; T11 is cut."""


@lru_cache(maxsize=1)
def spine() -> tuple[Phantom, CTVolume]:
    """T12 to L5 whole, with half of T11 and of S1; one narrow and one bridged disc, one wedge; noise SD 15 HU."""
    changes = {"L1": Change(disc_below="bridged"), "L2": Change(wedge=0.15), "L3": Change(disc_below="narrow")}
    spec = SpineSpec(LEVELS, changes, seed=4, scoliosis_deg=6.0, rotation_deg=4.0)
    imaging = Imaging(size=(140, 140), pixel_mm=1.1, spacing_mm=2.5, thickness_mm=2.5, margin_mm=24.0)
    phantom = Phantom(spec, imaging, cover=("T12", "L5"))
    hu = painted(phantom, 15.0)
    return phantom, CTVolume(phantom.geometry, ArraySource(hu), Acquisition(kvp=120.0, slice_thickness_mm=2.5))
