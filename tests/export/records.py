"""Made-up results and volumes that the tests of the exports share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from spineimg.anatomy import Role
from spineimg.geometry import Geometry, unit
from spineimg.notes import Note
from spineimg.results import CaseResult, VertebraResult
from spineimg.vertebra.flags import Call, Flag
from spineimg.vertebra.hu import SliceHU, VertebraHU
from spineimg.volume import Acquisition, ArraySource, CTVolume, SeriesInfo

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FLAG = Flag(Call.INDETERMINATE, False, 127.273, (104.25, 146.5), "Lee 2024", "130.5 HU lies within 16 HU of the cutoff")


def slice_hu(position: str = "mid", mean: float | None = 130.5, **changes: object) -> SliceHU:
    fields = {
        "position": position,
        "mean_hu": mean,
        "sd_hu": None if mean is None else 21.25,
        "median_hu": None if mean is None else mean - 1,
        "n_voxels": 0 if mean is None else 412,
        "area_mm2": None if mean is None else 311.5,
        "kept_fraction": 1.0 if mean is not None else 0.25,
        "center_lps_mm": (1.5, -22.0, 310.0),
        "u_lps": (1.0, 0.0, 0.0),
        "v_lps": (0.0, 1.0, 0.0),
        "semi_axes_mm": (12.0, 10.0),
        "slices": (4,),
        "resampled": False,
        "sop_instance_uids": ("1.2.3.4",),
    }
    return SliceHU(**(fields | changes))  # type: ignore[arg-type]


def vertebra(
    level: str = "T12",
    role: Role | None = Role.LIV,
    slices: tuple[SliceHU, ...] | None = None,
    flag: Flag | None = FLAG,
    notes: tuple[Note, ...] = (),
) -> VertebraResult:
    planes = (slice_hu("superior", 131.5), slice_hu(), slice_hu("inferior", 129.5)) if slices is None else slices
    means = [one.mean_hu for one in planes if one.mean_hu is not None]
    measured = bool(means) and len(means) == len(planes)
    mean = float(np.mean(means)) if measured else None
    hu = VertebraHU(
        mean_hu=mean,
        pooled_mean_hu=mean,
        median_hu=mean,
        sd_hu=21.5 if measured else None,
        n_voxels=sum(one.n_voxels for one in planes) if measured else 0,
        kept_fraction=1.0 if measured else None,
        slices=planes,
    )
    return VertebraResult(level, role, True, hu, flag, notes)


def case(*vertebrae: VertebraResult, **changes: object) -> CaseResult:
    fields = {
        "series": SeriesInfo("1.2.840.1", None, "SPINE 1.0 B30f"),
        "n_slices": 290,
        "spacing_mm": (1.0, 0.7, 0.7),
        "acquisition": Acquisition(
            kvp=120.0, contrast=False, kernel="B30f", slice_thickness_mm=1.0, manufacturer="Maker"
        ),
        "vertebrae": vertebrae or (vertebra(),),
        "notes": (Note("gantry_tilt", "the gantry is tilted by 12.0°"),),
        "settings": {"hu": {"min_kept_fraction": 0.5}},
    }
    return CaseResult(**(fields | changes))  # type: ignore[arg-type]


# -- volumes ------------------------------------------------------------------------------------------------------

Field = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
"""(..., 3) LPS mm -> (...,) HU."""


def filled(geometry: Geometry, field: Field) -> CTVolume:
    """A volume whose voxels hold the value of `field` at their places."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in geometry.shape), indexing="ij"), axis=-1)
    return CTVolume(geometry, ArraySource(field(geometry.lps_at(index)).astype(np.float32)))


def lattice(name: str, spacing: tuple[float, float, float] = (2.0, 1.5, 1.0), reach_mm: float = 66.0) -> Geometry:
    """A lattice around the origin as a scanner would make it; `name` is one of LATTICES."""
    column, row, step = (np.array(axis, dtype=float) for axis in LATTICES[name])
    steps = np.stack([step * spacing[0], unit(row) * spacing[1], unit(column) * spacing[2]], axis=1)
    shape = tuple(round(2 * reach_mm / s) + 1 for s in spacing)
    affine = np.eye(4)
    affine[:3, :3] = steps
    affine[:3, 3] = -steps @ ((np.array(shape) - 1) / 2)
    return Geometry.from_affine(shape, affine)  # type: ignore[arg-type]


_T = np.radians(16.0)
_C, _S = np.cos(_T), np.sin(_T)
LATTICES = {
    # column direction, row direction, way from slice to slice (per mm along it)
    "head first supine": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "feet first supine": ((1, 0, 0), (0, 1, 0), (0, 0, -1)),
    "prone": ((-1, 0, 0), (0, -1, 0), (0, 0, 1)),
    "prone feet first": ((-1, 0, 0), (0, -1, 0), (0, 0, -1)),
    "gantry tilt": ((1, 0, 0), (0, _C, _S), (0, 0, 1)),
    "left-handed": ((-1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "oblique": ((_C, _S, 0), (-_S, _C, 0), (0, 0, 1)),
    "sagittal slices": ((0, 1, 0), (0, 0, -1), (1, 0, 0)),
}
