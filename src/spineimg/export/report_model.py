"""What the report shows, taken from result files: plain frozen records, nothing formatted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spineimg.cutoffs import Cutoff
from spineimg.export.report_values import Vector
from spineimg.implants.model import Loosening
from spineimg.notes import Note
from spineimg.vertebra.flags import BLOCKING, Call


@dataclass(frozen=True, slots=True)
class SliceView:
    position: str
    mean_hu: float | None
    sd_hu: float | None
    area_mm2: float | None
    kept_fraction: float | None
    n_voxels: int
    center: Vector
    u: Vector | None
    v: Vector | None
    semi_axes_mm: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class FlagView:
    call: Call
    cutoff_hu: float
    interval_hu: tuple[float, float] | None
    source: str
    text: str


@dataclass(frozen=True, slots=True)
class VertebraView:
    level: str
    role: str | None
    confirmed: bool | None
    mean_hu: float | None
    pooled_mean_hu: float | None
    sd_hu: float | None
    kept_fraction: float | None
    slices: tuple[SliceView, ...]
    flag: FlagView | None
    notes: tuple[Note, ...]


@dataclass(frozen=True, slots=True)
class HaloMapView:
    """width_mm: (depths, angles), nan where nothing could be said."""

    depths_mm: tuple[float, ...]
    angles_deg: tuple[float, ...]
    width_mm: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class ScrewView:
    id: str
    level: str | None
    side: str | None
    head: Vector
    tip: Vector
    diameter_mm: float | None
    length_mm: float | None
    loosening: Loosening
    reason: str
    width_median_mm: float | None
    width_p90_mm: float | None
    interval_mm: tuple[float, float] | None
    coverage: float | None
    extent_mm: float | None
    shape: str | None
    trajectory_hu: float | None
    n_gaps: int
    map: HaloMapView | None
    notes: tuple[Note, ...]


@dataclass(frozen=True, slots=True)
class RodView:
    id: str
    points: tuple[Vector, ...]
    n_gaps: int


@dataclass(frozen=True, slots=True)
class GradeView:
    silva_type: int | None
    text: str
    reasons: tuple[str, ...]
    not_judged: tuple[str, ...]
    construct: tuple[str | None, str | None]


@dataclass(frozen=True, slots=True)
class ScanView:
    """One series that was measured. `uid` and `description` are shown only on request."""

    uid: str | None
    description: str | None
    n_slices: int | None
    spacing_mm: tuple[float | None, ...]
    kvp: float | None
    contrast: bool | None
    kernel: str | None
    sharpness: str | None
    slice_thickness_mm: float | None
    stated: tuple[str, ...]
    version: str
    created: str
    settings: Mapping[str, Any]
    patient: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Everything of a report. The two scans are the same record when one result holds both."""

    vertebrae: tuple[VertebraView, ...]
    screws: tuple[ScrewView, ...]
    rods: tuple[RodView, ...]
    grade: GradeView | None
    cutoff: Cutoff | None
    notes: tuple[Note, ...]
    hu_scan: ScanView | None
    screw_scan: ScanView | None

    def role(self, role: str) -> VertebraView | None:
        return next((one for one in self.vertebrae if one.role == role), None)

    @property
    def scans(self) -> tuple[ScanView, ...]:
        found = [one for one in (self.hu_scan, self.screw_scan) if one is not None]
        return tuple(found[:1] if len(found) == 2 and found[0] is found[1] else found)

    @property
    def one_series(self) -> bool:
        """Whether all places are in one frame: one result, or two of the same series."""
        uids = {scan.uid for scan in self.scans}
        return len(self.scans) == 1 or (len(uids) == 1 and None not in uids)

    @property
    def overview_screws(self) -> tuple[ScrewView, ...]:
        """The screws that share a frame with the vertebrae; none when they come from another series."""
        return self.screws if self.one_series else ()

    @property
    def construct(self) -> tuple[str | None, str | None]:
        """UIV and LIV, from the roles or else from the implant screen."""
        upper, lower = self.role("UIV"), self.role("LIV")
        named = self.grade.construct if self.grade is not None else (None, None)
        return (upper.level if upper else named[0], lower.level if lower else named[1])

    @property
    def other_ends(self) -> tuple[str | None, str | None] | None:
        """The ends that the implant screen found, where they contradict those of the vertebrae."""
        found = self.grade.construct if self.grade is not None else (None, None)
        differ = any(one is not None and one != told for one, told in zip(found, self.construct, strict=True))
        return found if differ else None


def blocking(note: Note) -> bool:
    """Whether a note forbids holding a mean against a cutoff."""
    return note.code in BLOCKING
