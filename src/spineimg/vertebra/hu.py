"""Trabecular HU of one vertebra."""

from __future__ import annotations

from dataclasses import dataclass

from spineimg.notes import Note

Vector = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class SliceHU:
    """One ROI on one plane. Numbers are None when they could not be measured; `n_voxels` counts what was averaged."""

    position: str
    mean_hu: float | None
    sd_hu: float | None
    median_hu: float | None
    n_voxels: int
    area_mm2: float | None
    kept_fraction: float | None
    center_lps_mm: Vector
    u_lps: Vector | None
    v_lps: Vector | None
    semi_axes_mm: tuple[float, float] | None
    slices: tuple[int, ...]
    """Indices of the original slices that the plane touches."""
    resampled: bool
    sop_instance_uids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VertebraHU:
    """`mean_hu` is the mean of the slice means (Schreiber 2011, Lee 2024); `pooled_mean_hu` weighs every voxel alike."""

    mean_hu: float | None = None
    pooled_mean_hu: float | None = None
    median_hu: float | None = None
    sd_hu: float | None = None
    n_voxels: int = 0
    kept_fraction: float | None = None
    slices: tuple[SliceHU, ...] = ()
    notes: tuple[Note, ...] = ()
