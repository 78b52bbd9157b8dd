"""Vertebral HU of real scans, once by the program and once by code that shares nothing with it.

The second reading uses SimpleITK for files and positions and NumPy for what belongs to a ROI, from the written
definitions alone: an ellipse takes the voxel centres of the nearest slice inside it, a label the voxels at least 3 mm
below its surface at a quarter, half and three quarters of its height.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.chapters import number, table
from spineimg.results import VertebraResult
from spineimg.vertebra.hu import SliceHU

FloatArray = npt.NDArray[np.float64]

GOAL_HU = 0.01
ROI_FILE = Path(__file__).parents[1] / "tests" / "data" / "tcga_ov_abdomen_ce.rois.json"
CT = "tcga_ov_abdomen_ce"
L3 = "tptbox_L3_labels"
L3_CT = "sub-ct_label-22_ct.nii.gz"
L3_PARTS, L3_LEVELS = "sub-ct_seg-subreg_label-22_msk.nii.gz", "sub-ct_seg-vert_label-22_msk.nii.gz"
INTERIOR, L3_NUMBER = 50, 22
"""Label of the interior of bodies, without their shell, in the map of parts; label of L3 in the map of levels."""


@dataclass(frozen=True)
class Line:
    """One ROI or vertebra by both readings, and what the program noted."""

    what: str
    own_hu: float | None
    own_sd_hu: float | None
    own_voxels: int
    other_hu: float
    other_sd_hu: float
    other_voxels: int
    notes: tuple[str, ...] = ()

    @property
    def differs(self) -> bool:
        if self.own_hu is None or self.own_sd_hu is None:
            return True
        apart = max(abs(self.own_hu - self.other_hu), abs(self.own_sd_hu - self.other_sd_hu))
        return apart > GOAL_HU or self.own_voxels != self.other_voxels


def data_folder() -> Path | None:
    """Where the public scans are; None when SPINEIMG_DATA does not say."""
    told = os.environ.get("SPINEIMG_DATA")
    return Path(told).resolve() if told else None


# -- ellipses on DICOM ------------------------------------------------------------------------------------------------


def ellipse_lines(ct: Path, roi_file: Path = ROI_FILE) -> Iterator[Line]:
    """Every ROI of a ROI file on a DICOM folder, and the vertebral HU."""
    from spineimg import assess, load, read_rois

    result = assess(load(ct), read_rois(roi_file))
    hu, origin, steps = _series(ct)
    for asked, found in zip(json.loads(roi_file.read_text())["vertebrae"], result.vertebrae, strict=True):
        others = [_in_ellipse(hu, origin, steps, one) for one in asked["slices"]]
        for own, other in zip(found.hu.slices, others, strict=True):
            yield _line(found.level, own, other)
        yield _sum(found.level, found, others)


def _line(level: str, own: SliceHU, other: FloatArray) -> Line:
    """One ROI by both readings."""
    mean, sd = float(other.mean()), float(other.std(ddof=1))
    return Line(f"{level} {own.position}", own.mean_hu, own.sd_hu, own.n_voxels, mean, sd, len(other))


def _sum(level: str, found: VertebraResult, others: Sequence[FloatArray]) -> Line:
    """The vertebra: mean of the slice means, SD over all voxels."""
    pooled = np.concatenate(others)
    mean, sd = float(np.mean([other.mean() for other in others])), float(pooled.std(ddof=1))
    notes = tuple(dict.fromkeys(note.code for note in (*found.hu.notes, *found.notes)))
    own = found.hu
    return Line(f"**{level}**", own.mean_hu, own.sd_hu, own.n_voxels, mean, sd, len(pooled), notes)


def _series(ct: Path) -> tuple[FloatArray, FloatArray, FloatArray]:
    """HU (slices, rows, columns), LPS of voxel 0, and the steps along slice, row and column as rows (3, 3)."""
    import SimpleITK

    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(ct))
    return _plain(SimpleITK.ReadImage(names, SimpleITK.sitkFloat64))


def _plain(image: Any) -> tuple[FloatArray, FloatArray, FloatArray]:
    import SimpleITK

    steps = (np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())).T[::-1]
    return SimpleITK.GetArrayFromImage(image).astype(np.float64), np.array(image.GetOrigin()), steps


def _in_ellipse(hu: FloatArray, origin: FloatArray, steps: FloatArray, roi: dict[str, Any]) -> FloatArray:
    """HU of the voxels of the nearest slice whose centres satisfy (x/a)² + (y/b)² <= 1."""
    center, u, v = (np.array(roi[key], dtype=np.float64) for key in ("center", "u", "v"))
    a, b = roi["semi_axes_mm"]
    k = int(np.rint(np.linalg.solve(steps.T, center - origin)[0]))
    rows, columns = np.indices(hu.shape[1:])
    offset = origin + k * steps[0] + rows[..., None] * steps[1] + columns[..., None] * steps[2] - center
    return np.asarray(hu[k][(offset @ u / a) ** 2 + (offset @ v / b) ** 2 <= 1])


# -- a label ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelReading:
    """L3 by a label. whole_hu: mean, SD and number of all its voxels. others: L3 by labels of other extent."""

    lines: tuple[Line, ...]
    whole_hu: tuple[float, float, int]
    others: dict[str, tuple[float | None, tuple[str, ...]]]


def read_label(folder: Path) -> LabelReading:
    """L3 by the interior of its body, and what the program says when the vertebrae are not told apart."""
    import SimpleITK

    from spineimg import RoiSet, VertebraRoi, assess, load
    from spineimg.io.masks import open_labels, rois_from_mask
    from spineimg.rois import MaskRoi

    levels = SimpleITK.ReadImage(str(folder / L3_LEVELS))
    bodies = SimpleITK.Mask(levels, SimpleITK.ReadImage(str(folder / L3_PARTS)) == INTERIOR)
    volume = load(folder / L3_CT)
    with tempfile.TemporaryDirectory() as temporary:
        SimpleITK.WriteImage(bodies, f"{temporary}/bodies.nii.gz")
        found = assess(volume, rois_from_mask(f"{temporary}/bodies.nii.gz", "verse", ["L3"])).vertebrae[0]
    hu, inside, spacing = _from_the_head(SimpleITK.ReadImage(str(folder / L3_CT)), bodies)
    others = list(_label_planes(hu, inside, spacing))
    lines = [_line("L3", own, other) for own, other in zip(found.hu.slices, others, strict=True)]
    whole = hu[inside]
    wider = {
        "the whole vertebra with its arch": (L3_LEVELS, L3_NUMBER),
        "the interiors of three bodies in one label": (L3_PARTS, INTERIOR),
    }
    found_wider = {}
    for name, (file, number_) in wider.items():
        roi = VertebraRoi("L3", mask=MaskRoi(open_labels(folder / file), number_))
        one = assess(volume, RoiSet((roi,))).vertebrae[0].hu
        found_wider[name] = (one.mean_hu, tuple(dict.fromkeys(note.code for note in one.notes)))
    size = (float(whole.mean()), float(whole.std(ddof=1)), len(whole))
    return LabelReading((*lines, _sum("L3", found, others)), size, found_wider)


def _from_the_head(ct: Any, bodies: Any) -> tuple[FloatArray, npt.NDArray[np.bool_], FloatArray]:
    """HU and L3 with slices from head to foot first, and the spacing in that order."""
    hu, _, steps = _plain(ct)
    label, _, _ = _plain(bodies)
    along_z = int(np.argmax(np.abs(steps[:, 2])))
    steps = steps[[along_z, *(axis for axis in range(3) if axis != along_z)]]
    way = -1 if steps[0, 2] > 0 else 1
    hu, inside = (np.moveaxis(one, along_z, 0)[::way] for one in (hu, label == L3_NUMBER))
    return hu, inside, np.linalg.norm(steps, axis=1)


def _label_planes(hu: FloatArray, inside: npt.NDArray[np.bool_], spacing_mm: FloatArray) -> Iterator[FloatArray]:
    """HU of the three planes, head to foot. hu, inside: slices from head to foot first.

    The depth of a voxel is its distance to the nearest face between a voxel in and a voxel out of the label.
    """
    hu, inside = np.pad(hu, 1), np.pad(inside, 1)
    at = np.argwhere(inside)
    faces = []
    for axis in range(3):
        for way in (-1, 1):
            beside = at.copy()
            beside[:, axis] += way
            bare = ~inside[tuple(beside.T)]
            faces.append((at[bare] + beside[bare]) / 2)
    surface = np.concatenate(faces) * spacing_mm
    first, last = int(at[:, 0].min()), int(at[:, 0].max())
    # From head to foot 0.75, 0.5 and 0.25 of the height are a quarter, half and three quarters of the way.
    for part in (0.25, 0.5, 0.75):
        # Halfway between two slices the lower one counts.
        k = int(np.floor(first + part * (last - first) + 0.5))
        mine = at[at[:, 0] == k]
        depth = np.array([np.sqrt((((voxel * spacing_mm) - surface) ** 2).sum(axis=1).min()) for voxel in mine])
        deep = mine[depth >= 3.0 - 1e-6]
        yield hu[tuple(deep.T)]


# -- chapter ----------------------------------------------------------------------------------------------------------


def chapter(figures: Path, progress: Callable[[str], None] = print) -> str:
    """The chapter as Markdown."""
    data = data_folder()
    if data is None or not (data / CT).is_dir() or not (data / L3).is_dir():
        return (
            f"Not run: the public scans are not at hand. Set SPINEIMG_DATA to the folder that holds `{CT}` and `{L3}`."
        )
    ellipses, label = list(ellipse_lines(data / CT)), read_label(data / L3)
    progress("real scans: done")
    lines = (*ellipses, *label.lines)
    differ = sum(one.differs for one in lines)
    mean, sd, count = label.whole_hu
    wider = [
        [name, number(hu, 2), ", ".join(f"`{code}`" for code in codes)] for name, (hu, codes) in label.others.items()
    ]
    return f"""\
Nothing here is a truth: it shows that the program reads what stands in the files, where a ROI says. T12 and L4 of an
abdominal CT with contrast agent (TCGA-OV, CC BY 3.0), three ellipses each placed by eye on 3 mm slices; L3 of a
public segmentation example (TPTBox, Apache-2.0; 1.5 mm, osteoporotic), by the label of the body's interior. Beside it a
second reading with SimpleITK and NumPy from the written definitions alone.

Goal: the same voxels, and mean and SD to {GOAL_HU} HU. Reached: {differ} of {len(lines)} rows differ.

{_table(ellipses)}

{_table(label.lines)}

Mean over every voxel of the L3 label, its rim included: {number(mean, 1)} HU ({count} voxels, SD {number(sd, 0)} HU).
What the program says of labels that hold more:

{table(["label", "spineimg: mean, HU", "notes"], wider)}"""


def _table(lines: Sequence[Line]) -> str:
    rows = [
        [
            one.what,
            number(one.own_hu, 2),
            number(one.own_sd_hu, 2),
            one.own_voxels,
            number(one.other_hu, 2),
            number(one.other_sd_hu, 2),
            one.other_voxels,
            "**differs**" if one.differs else "same",
            ", ".join(f"`{code}`" for code in one.notes),
        ]
        for one in lines
    ]
    head = [
        "ROI", "spineimg: mean, HU", "SD", "voxels", "SimpleITK and NumPy: mean, HU", "SD", "voxels", "", "notes",
    ]  # fmt: skip
    return table(head, rows)
