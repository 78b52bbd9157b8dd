"""What the implant screen is about: shafts, rods, halos, verdicts. Frozen records; points are LPS mm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from spineimg.anatomy import Side
from spineimg.geometry import FloatArray
from spineimg.notes import Note

Vector = tuple[float, float, float]

Progress = Callable[[float, str], None]
"""Called with the part that is done (0-1) and what is under way. It cancels the screen by raising."""


class Loosening(StrEnum):
    """A halo wider than 1 mm over the coverage and length that the settings ask for (Sandén 2004; Nam 2025)."""

    PRESENT = "present"
    ABSENT = "absent"
    INDETERMINATE = "indeterminate"
    NOT_ASSESSED = "not_assessed"


@dataclass(frozen=True, slots=True)
class Shaft:
    """A screw's shaft as a cylinder of the outer thread's diameter.

    head_lps_mm: where the shaft meets the tulip. metal_hu: level of the metal that the fit used; clipped: the scale
    ends below the metal's own HU; smear_mm: how much farther it stands out in the slice plane, smeared by starved rays.
    """

    head_lps_mm: Vector
    tip_lps_mm: Vector
    diameter_mm: float
    metal_hu: float
    clipped: bool
    notes: tuple[Note, ...] = ()
    smear_mm: float = 0.0

    @property
    def length_mm(self) -> float:
        return float(np.linalg.norm(np.subtract(self.tip_lps_mm, self.head_lps_mm)))

    @property
    def direction_lps(self) -> FloatArray:
        """(3,) unit vector from head to tip."""
        along = np.subtract(self.tip_lps_mm, self.head_lps_mm)
        return np.asarray(along / np.linalg.norm(along))


@dataclass(frozen=True, slots=True)
class Gap:
    """A break in a rod or screw: where, and how long along the axis. kink_deg, step_mm: between the two ends."""

    center_lps_mm: Vector
    width_mm: float
    kink_deg: float
    step_mm: float


@dataclass(frozen=True, slots=True)
class Rod:
    """id: "left", "right", … points_lps_mm: centre line from head to foot."""

    id: str
    points_lps_mm: tuple[Vector, ...]
    diameter_mm: float
    gaps: tuple[Gap, ...] = ()
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class OtherMetal:
    """Metal that is neither screw nor rod, or cement. kind: one word; why: a sentence."""

    center_lps_mm: Vector
    volume_mm3: float
    kind: str
    why: str


@dataclass(frozen=True, eq=False, slots=True)
class HaloMap:
    """The unrolled surface of a shaft. All arrays are (depths, angles), nan where nothing could be said.

    depths_mm: (depths,) from the head. angles_deg: (angles,); 0 is the patient's left as far as that is at right
    angles to the shaft, 90 is cranial. width_mm, sd_mm: width of the lucent zone and its standard error.
    """

    depths_mm: FloatArray
    angles_deg: FloatArray
    width_mm: FloatArray
    sd_mm: FloatArray

    @property
    def judged_part(self) -> float:
        """Part of the surface over which something is said."""
        return float(np.mean(np.isfinite(self.width_mm)))


@dataclass(frozen=True, eq=False, slots=True)
class Halo:
    """The lucent zone around one screw. Numbers are None when there is nothing to give; then `reason` says why.

    Widths are over the assessed sectors that lie in bone. interval_mm: 90 % interval of the median width.
    regions: the same numbers by region ("head", "pedicle", "body", "tip").
    """

    assessable: bool
    width_median_mm: float | None = None
    width_p90_mm: float | None = None
    coverage_over_1mm: float | None = None
    axial_extent_mm: float | None = None
    interval_mm: tuple[float, float] | None = None
    reason: str = ""
    regions: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    shape: str | None = None
    """"uniform", "one-sided", "double cone", "widest at the tip", "widest at the head"; None without a halo."""
    rim: bool | None = None
    """A sclerotic rim around the halo; None when it was not looked for."""
    map: HaloMap | None = None


@dataclass(frozen=True, slots=True)
class Breach:
    """How far a shaft's surface lies beyond its vertebra. mm: the most; side: where, None when nothing is outside.

    sides: the same for each side that could be judged, 0 where nothing is outside: "anterior", "left", "right",
    "superior endplate", "inferior endplate", and with a label of the whole vertebra "medial pedicle", "lateral
    pedicle", "cranial pedicle", "caudal pedicle". basis: the outline it rests on; resolution_mm: how well that is
    known.
    """

    mm: float
    side: str | None
    sides: Mapping[str, float]
    basis: str
    resolution_mm: float


@dataclass(frozen=True, eq=False, slots=True)
class Screw:
    """One screw. id: "T12-left", or "screw-3" where the level is unknown. trajectory_hu: bone in a shell around it."""

    id: str
    shaft: Shaft
    halo: Halo
    loosening: Loosening
    level: str | None = None
    side: Side | None = None
    trajectory_hu: float | None = None
    breach_mm: float | None = None
    """The most that the shaft stands beyond its vertebra, 0 when it does not; None when the outline is not known."""
    breach: Breach | None = None
    gaps: tuple[Gap, ...] = ()
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class Grade:
    """Silva's implant failure scale (2021) with Nam's verdicts (2025) beside it, and what one scan cannot tell."""

    silva_type: int | None
    text: str
    nam_loosening: Loosening = Loosening.NOT_ASSESSED
    nam_breakage: Loosening = Loosening.NOT_ASSESSED
    reasons: tuple[str, ...] = ()
    not_judged: tuple[str, ...] = ()
    construct: Mapping[str, Any] = field(default_factory=dict)
    """uiv, liv, n_screws, fixation_length, screw_density (Nam 2025), each None when unknown."""


@dataclass(frozen=True, eq=False, slots=True)
class ImplantScreen:
    """Everything that the screen found on one scan."""

    screws: tuple[Screw, ...]
    rods: tuple[Rod, ...]
    other_metal: tuple[OtherMetal, ...]
    grade: Grade
    notes: tuple[Note, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
