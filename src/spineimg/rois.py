"""What a reader hands in: where to measure. Points are LPS mm."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from spineimg.anatomy import Construct, Status
from spineimg.errors import RoiError
from spineimg.geometry import FloatArray, Geometry
from spineimg.volume import SliceSource

POSITIONS = ("superior", "mid", "inferior")


@dataclass(frozen=True, eq=False, slots=True)
class Ellipse:
    """One ROI on one plane. A point p belongs if ((p-c)·u/a)² + ((p-c)·v/b)² <= 1.

    center_lps_mm, u_lps, v_lps: (3,); u and v are orthogonal unit vectors; semi_axes_mm: (a, b).
    """

    position: str
    center_lps_mm: FloatArray
    u_lps: FloatArray
    v_lps: FloatArray
    semi_axes_mm: tuple[float, float]

    def __post_init__(self) -> None:
        for name in ("center_lps_mm", "u_lps", "v_lps"):
            value = np.array(getattr(self, name), dtype=np.float64)
            if value.shape != (3,) or not np.isfinite(value).all():
                raise RoiError(
                    f"{name} of the {self.position} ellipse must be three finite numbers, found {value.tolist()}"
                )
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        lengths = np.linalg.norm(self.u_lps), np.linalg.norm(self.v_lps)
        if max(abs(length - 1) for length in lengths) > 1e-3 or abs(self.u_lps @ self.v_lps) > 1e-3:
            raise RoiError(
                f"u and v of the {self.position} ellipse must be unit vectors at right angles, "
                f"found {self.u_lps.tolist()} and {self.v_lps.tolist()}"
            )
        a, b = self.semi_axes_mm
        if not (0.1 <= a <= 100 and 0.1 <= b <= 100):
            raise RoiError(f"semi_axes_mm of the {self.position} ellipse must lie in 0.1-100 mm, found {[a, b]}")

    @property
    def normal_lps(self) -> FloatArray:
        normal = np.cross(self.u_lps, self.v_lps)
        return np.asarray(normal / np.linalg.norm(normal))


@dataclass(frozen=True, eq=False)
class LabelVolume:
    """A label map: its own geometry, slices of whole numbers. `name` is the file's name, for messages."""

    geometry: Geometry
    source: SliceSource
    name: str

    @cached_property
    def spans(self) -> dict[int, tuple[int, int]]:
        """First and last slice of every label: the map is read through once, not once a label. Raises PixelError."""
        found: dict[int, tuple[int, int]] = {}
        for k in range(self.geometry.shape[0]):
            for label in np.unique(self.source.read(k)).astype(int).tolist():
                found[label] = (found.get(label, (k, k))[0], k)
        return found


@dataclass(frozen=True, eq=False, slots=True)
class MaskRoi:
    """The voxels of one label of a label map."""

    labels: LabelVolume
    label: int


@dataclass(frozen=True, eq=False, slots=True)
class VertebraRoi:
    """Where to measure one vertebra: a click, one to three ellipses, or a label; with none it was asked for only.

    `center_lps_mm` is kept beside `ellipses` when a file spells both.
    """

    level: str
    center_lps_mm: FloatArray | None = None
    ellipses: tuple[Ellipse, ...] = ()
    mask: MaskRoi | None = None
    confirmed: bool | None = None
    status: Status | None = None


@dataclass(frozen=True, eq=False, slots=True)
class RoiSet:
    """The ROIs of one reader on one case."""

    vertebrae: tuple[VertebraRoi, ...]
    construct: Construct = field(default_factory=Construct)
    reader: str | None = None
