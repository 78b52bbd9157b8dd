"""Screws, rods and zones put into real CT: anatomy, noise and neighbours are real, the metal's truth is known.

    SPINEIMG_DATA=... python -m benchmarks.implant_hybrids

Bodies are found from one click each; screws go through where pedicles lie beside a body of such a size. The abdomen is
also resampled to slices of 1 mm, since at its own 3 mm no zone can be judged: between its slices the anatomy is
interpolated, the metal and the zones are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.chapters import number, table
from benchmarks.implant_cases import ScrewReading, pairs, screw_reading
from benchmarks.real_data import data_folder
from spineimg.implants.screen import screen_implants
from spineimg.io.opening import load
from spineimg.phantom.hybrid import HybridScrew, HybridSettings, with_implants
from spineimg.phantom.implants import Lucency, RodSpec, ScrewSpec
from spineimg.phantom.projection import Beam
from spineimg.vertebra.body import Body
from spineimg.vertebra.click import body_of_click
from spineimg.volume import ArraySource, CTVolume

_BEYOND_MM = 26.0
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """One hybrid. clicks: level and a point (LPS mm) in its body; widths_mm: of the zones, level by level, left first.
    slice_mm: to which it is resampled, None to keep its own slices. aside_mm: of the heads from the midline."""

    name: str
    folder: str
    clicks: tuple[tuple[str, tuple[float, float, float]], ...]
    widths_mm: tuple[float, ...]
    diameter_mm: float
    aside_mm: float
    slice_mm: float | None = None
    clip_hu: float | None = 3071.0
    kilovolt: str = "120 kV"


_ABDOMEN = "tcga_ov_abdomen_ce"
_L2, _L3 = ("L2", (-13.9, 42.6, 1323.1)), ("L3", (-14.0, 37.0, 1290.2))
_T11, _T12 = ("T11", (-12.2, 66.9, 1409.7)), ("T12", (-12.2, 60.4, 1383.7))
PLANS = (
    Plan("lumbar, own slices", _ABDOMEN, (_L2, _L3), (0, 2.0, 0, 0), 6.5, 19.0),
    Plan("lumbar, 1 mm", _ABDOMEN, (_L2, _L3), (0, 2.0, 2.5, 0), 6.5, 19.0, 1.0),
    Plan("lumbar, 1 mm, extended scale", _ABDOMEN, (_L2, _L3), (1.5, 0, 0, 0), 7.0, 19.0, 1.0, None, "100 kV"),
    Plan("thoracic, 1 mm", _ABDOMEN, (_T11, _T12), (0, 0, 0, 2.0), 5.5, 15.0, 1.0),
    Plan("thoracic, 1 mm, extended scale", _ABDOMEN, (_T11, _T12), (0, 3.0, 0, 0), 5.5, 15.0, 1.0, None, "140 kV"),
)


@dataclass(frozen=True)
class HybridReading:
    """What the screen made of one hybrid."""

    plan: Plan
    screws: tuple[ScrewReading, ...]
    false_screws: int
    rods_found: int


def read(plan: Plan, data: Path) -> HybridReading:
    """One hybrid made, and screened."""
    volume = load(data / plan.folder)
    bodies = [(level, body_of_click(volume, np.array(at))) for level, at in plan.clicks]
    scan = between(volume, [body.center_lps_mm for _, body in bodies])
    scan = scan if plan.slice_mm is None else resliced(scan, plan.slice_mm)
    screws = [
        _screw(body, level, side, width, plan)
        for (level, body), widths in zip(bodies, np.reshape(plan.widths_mm, (-1, 2)), strict=True)
        for side, width in zip(("left", "right"), widths, strict=True)
    ]
    settings = HybridSettings(Beam(plan.kilovolt), thickness_mm=plan.slice_mm, clip_hu=plan.clip_hu)
    made = with_implants(scan, screws, (RodSpec("left", 5.5), RodSpec("right", 5.5)), settings)
    screen = screen_implants(made.volume)
    paired = pairs(made.truth["screws"], screen.screws)
    matched = {id(found) for _, found in paired if found}
    readings = [screw_reading(made.volume, truth, found, seed=0, bone_hu=np.nan) for truth, found in paired]
    false = sum(id(screw) not in matched for screw in screen.screws)
    return HybridReading(plan, tuple(readings), false, len(screen.rods))


def _screw(body: Body, level: str, side: str, width_mm: float, plan: Plan) -> HybridScrew:
    """A screw that enters behind the pedicle and converges in the front half of the body."""
    out = body.left_lps if side == "left" else -body.left_lps
    rise = 0.15 * body.height_mm * body.cranial_lps
    head = body.center_lps_mm + (body.depth_mm / 2 + 22.0) * body.posterior_lps + plan.aside_mm * out + rise
    tip = body.center_lps_mm - 0.25 * body.depth_mm * body.posterior_lps + 0.4 * plan.aside_mm * out + rise
    spec = ScrewSpec(level, side, plan.diameter_mm, lucency=Lucency(width_mm) if width_mm else Lucency())
    return HybridScrew(spec, _point(head), _point(tip))


def _point(at: FloatArray) -> tuple[float, float, float]:
    return float(at[0]), float(at[1]), float(at[2])


def between(volume: CTVolume, places_lps_mm: Sequence[FloatArray]) -> CTVolume:
    """The slices of a scan up to `_BEYOND_MM` above and below some places."""
    index = volume.geometry.index_at(np.array(places_lps_mm))[:, 0]
    room = _BEYOND_MM / volume.geometry.spacing_mm[0]
    first = max(0, int(index.min() - room))
    last = min(volume.geometry.shape[0], int(index.max() + room) + 1)
    hu = np.stack([np.asarray(volume.read(k)) for k in range(first, last)])
    geometry = replace(volume.geometry, shape=hu.shape, origins_lps_mm=volume.geometry.origins_lps_mm[first:last])
    return replace(volume, geometry=geometry, source=ArraySource(hu))


def resliced(volume: CTVolume, slice_mm: float) -> CTVolume:
    """The same scan with slices `slice_mm` apart, cubic between its own; its thickness is said to be the same."""
    from scipy.ndimage import zoom

    hu = np.stack([np.asarray(volume.read(k), np.float32) for k in range(volume.geometry.shape[0])])
    old = volume.geometry
    count = int((len(hu) - 1) * old.spacing_mm[0] / slice_mm) + 1
    at = np.arange(count) * slice_mm / old.spacing_mm[0]
    fine = zoom(hu, (count / len(hu), 1, 1), order=3, grid_mode=False)
    way = (old.origins_lps_mm[-1] - old.origins_lps_mm[0]) / (len(hu) - 1)
    geometry = replace(old, shape=fine.shape, origins_lps_mm=old.origins_lps_mm[0] + at[:, None] * way)
    acquisition = replace(volume.acquisition, slice_thickness_mm=slice_mm)
    return replace(
        volume, geometry=geometry, acquisition=acquisition, source=ArraySource(np.rint(fine).astype(np.int16))
    )


def text(readings: Sequence[HybridReading]) -> str:
    """The part of the report on hybrids: one row a scan, and the zones one by one."""
    rows = []
    for one in readings:
        found = [screw for screw in one.screws if screw.verdict != "not found"]
        fixed = [screw for screw in one.screws if screw.planted_mm == 0]
        rows.append(
            [
                one.plan.name,
                f"{len(found)} of {len(one.screws)}, {one.false_screws} false",
                f"{one.rods_found} of 2",
                *(_worst(found, name) for name in ("offset_mm", "angle_deg", "tip_mm", "diameter_mm", "length_mm")),
                f"{sum(screw.verdict == 'present' for screw in fixed)} of {len(fixed)}",
                "; ".join(_zone(screw) for screw in one.screws if screw.planted_mm > 0) or "none",
            ]
        )
    head = ("hybrid", "screws", "rods", "axis, mm", "angle, °", "tip, mm", "diameter, mm", "length, mm")
    return table((*head, "fixed called `present`", "zones: true, read, verdict"), rows)


def _worst(screws: Sequence[ScrewReading], name: str) -> str:
    errors = [abs(error) for screw in screws if (error := getattr(screw, name)) is not None]
    return number(max(errors), 2) if errors else "none"


def _zone(screw: ScrewReading) -> str:
    read = "none" if screw.width_mm is None else number(screw.width_mm, 2)
    if screw.interval_mm is not None:
        read += f" ({screw.interval_mm[0]:.1f}-{screw.interval_mm[1]:.1f})"
    return f"{screw.fair_mm:.1f}, {read}, {screw.verdict}"


def main() -> None:
    data = data_folder()
    if data is None:
        raise SystemExit("SPINEIMG_DATA does not say where the public scans are")
    print(text([read(plan, data) for plan in PLANS]))


if __name__ == "__main__":
    main()
