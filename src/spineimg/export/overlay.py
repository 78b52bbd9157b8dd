"""Screws, rods, halos and other metal as a label volume on the CT's grid, for viewers and for checking by eye."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from spineimg.errors import GeometryError, SpineImgError
from spineimg.export.files import replacing
from spineimg.geometry import FloatArray, Geometry
from spineimg.implants.model import HaloMap, ImplantScreen, Rod, Screw
from spineimg.metal import MetalSettings
from spineimg.volume import CTVolume

METAL, SCREW, ROD, HALO = 1, 2, 3, 4
"""Labels: metal that is neither screw nor rod, screws, rods, lucent zones wider than 0.5 mm."""
_LEAST_MM = 0.5
"""A lucent zone narrower than this is not drawn: no scan resolves it. Engineering choice."""
_WIDEST_MM = 6.0
_ENDINGS = (".nii", ".nii.gz")

Labels = npt.NDArray[np.uint8]


def write_overlay(volume: CTVolume, screen: ImplantScreen, path: str | os.PathLike[str]) -> None:
    """Writes a NIfTI label volume, whole or not at all. Its affine is the CT's, tilted gantries included.

    Raises SpineImgError for another ending, for slices at uneven steps, which NIfTI cannot describe, and for a place
    that cannot be written.
    """
    if not str(path).lower().endswith(_ENDINGS):
        raise SpineImgError(f"an overlay is written as .nii or .nii.gz, found {Path(path).name!r}: change its ending")
    try:
        lps_from_index = volume.geometry.lps_from_index
    except GeometryError as error:
        raise SpineImgError(f"{path}: no overlay, a NIfTI volume cannot describe this series: {error}") from error
    import nibabel

    labels = label_volume(volume, screen)
    lps = lps_from_index[:, [2, 1, 0, 3]]  # NIfTI counts columns, rows, slices
    image = nibabel.Nifti1Image(labels.transpose(2, 1, 0), np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps)
    image.header.set_xyzt_units("mm")
    content = image.to_bytes()
    if str(path).lower().endswith(".gz"):
        import gzip

        content = gzip.compress(content, compresslevel=4, mtime=0)
    with replacing(path) as handle:
        handle.write(content)


def label_volume(volume: CTVolume, screen: ImplantScreen) -> Labels:
    """(slices, rows, columns) of METAL, SCREW, ROD, HALO and 0. Later ones of screws and rods lie over metal."""
    labels = np.zeros(volume.geometry.shape, dtype=np.uint8)
    least_hu = MetalSettings().seed_hu
    for k in range(volume.geometry.shape[0]):
        hu = volume.read(k)
        labels[k][(hu >= least_hu) & volume.valid(k, hu)] = METAL
    for screw in screen.screws:
        _draw_screw(labels, volume.geometry, screw)
    for rod in screen.rods:
        _draw_rod(labels, volume.geometry, rod)
    return labels


def _draw_screw(labels: Labels, geometry: Geometry, screw: Screw) -> None:
    """The shaft's cylinder, and around it the lucent zone as wide as the map says."""
    shaft = screw.shaft
    ends = np.array([shaft.head_lps_mm, shaft.tip_lps_mm])
    radius = shaft.diameter_mm / 2
    index, points = _around(geometry, ends, radius + _WIDEST_MM)
    depth = (points - ends[0]) @ shaft.direction_lps
    off = points - ends[0] - depth[:, None] * shaft.direction_lps
    away = np.linalg.norm(off, axis=1)
    along = (depth >= 0) & (depth <= shaft.length_mm)
    if screw.halo.map is not None:
        width = _width_at(screw.halo.map, depth, _angle_deg(off, shaft.direction_lps))
        _set(labels, index[along & (away > radius) & (width > _LEAST_MM) & (away <= radius + width)], HALO)
    _set(labels, index[along & (away <= radius)], SCREW)


def _draw_rod(labels: Labels, geometry: Geometry, rod: Rod) -> None:
    points = np.array(rod.points_lps_mm)
    for a, b in pairwise(points):
        index, places = _around(geometry, np.array([a, b]), rod.diameter_mm / 2)
        way = b - a
        part = np.clip((places - a) @ way / max(float(way @ way), 1e-9), 0, 1)
        away = np.linalg.norm(places - a - part[:, None] * way, axis=1)
        _set(labels, index[away <= rod.diameter_mm / 2], ROD)


def _angle_deg(off: FloatArray, along: FloatArray) -> FloatArray:
    """(n,) direction of places around a shaft, as HaloMap counts it: 0 the patient's left, 90 cranial."""
    left = np.array([1.0, 0.0, 0.0])
    left = left - (left @ along) * along
    left /= np.linalg.norm(left)
    cranial = np.cross(along, left)
    cranial = cranial if cranial[2] >= 0 else -cranial
    return np.asarray(np.degrees(np.arctan2(off @ cranial, off @ left)) % 360)


def _width_at(halo: HaloMap, depth: FloatArray, angle_deg: FloatArray) -> FloatArray:
    """(n,) width in the nearest cell of the map, 0 where nothing could be said."""
    depths, angles = np.asarray(halo.depths_mm), np.asarray(halo.angles_deg)
    row = np.abs(depths[None, :] - depth[:, None]).argmin(axis=1)
    turn = np.abs(angles[None, :] % 360 - angle_deg[:, None])
    column = np.minimum(turn, 360 - turn).argmin(axis=1)
    return np.asarray(np.nan_to_num(np.asarray(halo.width_mm)[row, column], nan=0.0))


def _around(geometry: Geometry, ends: FloatArray, reach_mm: float) -> tuple[npt.NDArray[np.intp], FloatArray]:
    """((n, 3) indices, (n, 3) LPS mm) of the voxels in a box around a line."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * reach_mm
    at = geometry.index_at((ends[:, None, :] + corners[None]).reshape(-1, 3))
    low = np.clip(np.floor(at.min(axis=0)).astype(int), 0, None)
    high = np.clip(np.ceil(at.max(axis=0)).astype(int) + 1, 0, geometry.shape)
    grid = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"), axis=-1)
    index = grid.reshape(-1, 3)
    return index, geometry.lps_at(index) if len(index) else np.zeros((0, 3))


def _set(labels: Labels, index: npt.NDArray[np.intp], value: int) -> None:
    labels[tuple(index.T)] = value
