"""What comes out. Frozen records that mirror the result file; a number that could not be measured is None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spineimg.anatomy import Role, Status
from spineimg.implants.model import ImplantScreen
from spineimg.notes import Note
from spineimg.vertebra.flags import Flag
from spineimg.vertebra.hu import VertebraHU
from spineimg.volume import Acquisition, SeriesInfo


@dataclass(frozen=True, slots=True)
class VertebraResult:
    """One vertebra that was asked for, measured or not.

    `notes` are those on its acquisition and its name; those on its own voxels are in `hu.notes`.
    """

    level: str
    role: Role | None
    confirmed: bool | None
    hu: VertebraHU
    flag: Flag | None
    notes: tuple[Note, ...] = ()
    status: Status | None = None


@dataclass(frozen=True, slots=True)
class CaseResult:
    """All results of one case. `settings` are plain values: those used, the plane, and the cutoffs.

    implants: None when they were not screened.
    """

    series: SeriesInfo
    n_slices: int
    spacing_mm: tuple[float, float, float]
    acquisition: Acquisition
    vertebrae: tuple[VertebraResult, ...]
    notes: tuple[Note, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    implants: ImplantScreen | None = None
    reader: str | None = None
