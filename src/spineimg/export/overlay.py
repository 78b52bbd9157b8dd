"""Screws, rods, halos and other metal as a label volume on the CT's grid, for viewers and for checking by eye."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from spineimg.errors import GeometryError, SpineImgError
from spineimg.export.files import replacing
from spineimg.export.implant_voxels import Index, halo_index, metal_index, rod_index, shaft_index
from spineimg.implants.model import ImplantScreen
from spineimg.volume import CTVolume

METAL, SCREW, ROD, HALO = 1, 2, 3, 4
"""Labels: metal that is neither screw nor rod, screws, rods, lucent zones wider than 0.5 mm."""
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
    geometry = volume.geometry
    labels = np.zeros(geometry.shape, dtype=np.uint8)
    _set(labels, metal_index(volume), METAL)
    for screw in screen.screws:
        _set(labels, halo_index(geometry, screw), HALO)
    for screw in screen.screws:
        _set(labels, shaft_index(geometry, screw.shaft), SCREW)
    for rod in screen.rods:
        _set(labels, rod_index(geometry, rod), ROD)
    return labels


def _set(labels: Labels, index: Index, value: int) -> None:
    labels[tuple(index.T)] = value
