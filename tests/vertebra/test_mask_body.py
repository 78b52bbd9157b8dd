"""Labels of whole vertebrae: the body is found in the image, and the label is held against it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from spineimg import assess
from spineimg.errors import RoiError
from spineimg.geometry import Geometry
from spineimg.phantom import body_truth
from spineimg.phantom.assembly import arch
from spineimg.phantom.parts import Part
from spineimg.phantom.samples import Points
from spineimg.rois import LabelVolume, MaskRoi, RoiSet, VertebraRoi
from spineimg.vertebra.hu import VertebraHU, measure
from spineimg.volume import ArraySource
from tests.vertebra.spine_phantoms import spine

LABELS = {"T12": 32, "L1": 31, "L2": 30, "L3": 29, "L4": 28, "L5": 27}


def grid(step_mm: float, turn_deg: float) -> Geometry:
    """A lattice around the phantom's image: slices to the right, rows downwards, columns backwards, then turned."""
    own = spine()[1].geometry
    ends = own.lps_at(np.array(list(np.ndindex(2, 2, 2))) * (np.array(own.shape) - 1))
    axes = np.array([[-1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])
    axes = axes @ Rotation.from_rotvec(np.radians(turn_deg) * np.array([0.5, 0.7, 0.51])).as_matrix()
    count = np.ceil(np.abs(axes) @ np.ptp(ends, axis=0) / step_mm).astype(int) + 1
    affine = np.eye(4)
    affine[:3, :3] = axes.T * step_mm
    affine[:3, 3] = ends.mean(axis=0) - affine[:3, :3] @ ((count - 1) / 2)
    return Geometry.from_affine((int(count[0]), int(count[1]), int(count[2])), affine)


@lru_cache(maxsize=4)
def labelled(step_mm: float = 1.5, turn_deg: float = 0.0, struts: int | None = None) -> LabelVolume:
    """All vertebrae with their arches (the first `struts` parts of these), numbered as TotalSegmentator has it."""
    phantom, _ = spine()
    where = grid(step_mm, turn_deg)
    index = np.moveaxis(np.indices(where.shape), 0, -1).reshape(-1, 3)
    samples = Points(where.lps_at(index))
    labels = np.zeros(len(index), np.int16)
    for vertebra in phantom.layout:
        if vertebra.level in LABELS:
            part = Part(
                "", [vertebra.body, *arch(vertebra, phantom.spine)[:struts]], lambda points: np.zeros(points.shape)
            )
            labels[part.distances(samples)[0] < 0] = LABELS[vertebra.level]
    return LabelVolume(where, ArraySource(labels.reshape(where.shape)), "map.nii.gz")


def voxels(labels: LabelVolume) -> npt.NDArray[np.int16]:
    return np.stack([labels.source.read(k) for k in range(labels.geometry.shape[0])]).astype(np.int16)


def of(labels: LabelVolume, changed: npt.NDArray[np.int16]) -> LabelVolume:
    return LabelVolume(labels.geometry, ArraySource(changed), labels.name)


def measured(labels: LabelVolume, level: str) -> VertebraHU:
    return measure(spine()[1], VertebraRoi(level, mask=MaskRoi(labels, LABELS[level])))


def three(labels: LabelVolume) -> RoiSet:
    return RoiSet(tuple(VertebraRoi(level, mask=MaskRoi(labels, LABELS[level])) for level in ("L2", "L3", "L4")))


def codes(found: VertebraHU) -> set[str]:
    return {note.code for note in found.notes}


@pytest.mark.parametrize(("step_mm", "turn_deg", "struts"), [(1.5, 0.0, None), (1.3, 20.0, None), (1.5, 0.0, 2)])
def test_a_label_gives_the_planes_of_a_click(step_mm: float, turn_deg: float, struts: int | None) -> None:
    """On any grid, without most of the arch too. Planted: quartiles of the label, pedicles in them."""
    labels, (phantom, volume) = labelled(step_mm, turn_deg, struts), spine()
    for level in ("T12", "L4"):
        got = measured(labels, level)
        truth = body_truth(phantom.vertebra(level)).frame.center_lps_mm
        click = measure(volume, VertebraRoi(level, truth))
        assert "placed_in_label" in codes(got)
        assert got.body is not None
        assert np.linalg.norm(got.body.center_lps_mm - truth) < 1.5
        assert got.mean_hu == pytest.approx(click.mean_hu, abs=2.5)
        for own, other in zip(got.slices, click.slices, strict=True):
            np.testing.assert_allclose(own.center_lps_mm, other.center_lps_mm, atol=2.5)
            assert own.semi_axes_mm is not None


def test_a_label_a_voxel_too_large_or_small_or_with_holes_gives_the_same() -> None:
    labels = labelled()
    plain, whole = measured(labels, "L3"), voxels(labels)
    assert plain.mean_hu is not None
    draw = np.random.default_rng(1)
    own = whole == LABELS["L3"]
    larger = np.where(ndimage.binary_dilation(own) & (whole == 0), LABELS["L3"], whole)
    smaller = np.where(own & ~ndimage.binary_erosion(own), 0, whole)
    holed = np.where(own & (draw.random(own.shape) < 0.05), 0, whole)
    for changed in (larger, smaller, holed):
        got = measured(of(labels, changed.astype(np.int16)), "L3")
        assert "placed_in_label" in codes(got)
        assert got.mean_hu == pytest.approx(plain.mean_hu, abs=1.5)


def test_what_is_not_of_the_label_is_not_measured() -> None:
    """A lesion with a label of its own is left out of the ROI. Planted: the ellipse measured as it lies."""
    labels = labelled()
    plain = measured(labels, "L3")
    index = np.moveaxis(np.indices(labels.geometry.shape), 0, -1)
    center = np.array(plain.slices[0].center_lps_mm)
    lesion = np.linalg.norm(labels.geometry.lps_at(index) - center, axis=-1) < 5
    got = measured(of(labels, np.where(lesion, 99, voxels(labels)).astype(np.int16)), "L3")
    assert "clipped_to_mask" in codes(got)
    part = np.pi * 25 / (np.pi * np.prod(plain.slices[0].semi_axes_mm or (1, 1)))
    assert got.slices[0].n_voxels == pytest.approx((1 - part) * plain.slices[0].n_voxels, rel=0.1)
    assert got.slices[2].n_voxels == pytest.approx(plain.slices[2].n_voxels, rel=0.1)


@pytest.mark.parametrize("shift_mm", [(0.0, 0.0, 6.0), (14.0, 0.0, 0.0)])
def test_a_map_that_slipped_or_is_of_another_scan_is_refused(shift_mm: tuple[float, ...]) -> None:
    """Along the spine too. Planted: the fit believed though the label ends elsewhere."""
    labels = labelled()
    where = labels.geometry
    moved = Geometry(where.shape, where.origins_lps_mm + shift_mm, where.row_step_lps_mm, where.column_step_lps_mm)
    with pytest.raises(RoiError, match=r"map\.nii\.gz: none of its labels fits a vertebra"):
        assess(spine()[1], three(LabelVolume(moved, labels.source, labels.name)))


@pytest.mark.parametrize(("axis", "way"), [(1, "head to feet"), (2, "front to back")])
def test_a_mirrored_map_is_named(axis: int, way: str) -> None:
    labels = labelled()
    with pytest.raises(RoiError, match=f"when mirrored {way}"):
        assess(spine()[1], three(of(labels, np.flip(voxels(labels), axis))))


def test_one_label_that_contradicts_the_image_is_not_measured() -> None:
    """L3's label takes the disc above it in, and some of L2. Planted: ends not compared."""
    labels, truth = labelled(), body_truth(spine()[0].vertebra("L3"))
    index = np.moveaxis(np.indices(labels.geometry.shape), 0, -1)
    local = (labels.geometry.lps_at(index) - truth.superior.point_lps_mm) @ truth.frame.axes.T
    above = (np.abs(local[..., 0]) < 18) & (np.abs(local[..., 1]) < 13) & (local[..., 2] > -2) & (local[..., 2] < 13)
    got = measured(of(labels, np.where(above, LABELS["L3"], voxels(labels)).astype(np.int16)), "L3")
    assert (got.mean_hu, got.slices) == (None, ())
    assert "mask_misplaced" in codes(got)
