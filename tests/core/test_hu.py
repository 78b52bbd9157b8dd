"""HU of a vertebra from ellipses and from label masks."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from spineimg.geometry import Geometry
from spineimg.rois import POSITIONS, Ellipse, LabelVolume, MaskRoi, VertebraRoi
from spineimg.vertebra.hu import HuSettings, SliceHU, VertebraHU, measure
from spineimg.volume import ArraySource, CTVolume
from tests.core.volumes import (
    GAP_PLACES,
    UNFRIENDLY,
    Source,
    all_points,
    ellipse,
    filled,
    geometry,
    linear,
    linear_hu,
    three,
    tilted,
)

every_geometry = pytest.mark.parametrize("where", UNFRIENDLY.values(), ids=UNFRIENDLY.keys())


def codes(found: VertebraHU) -> set[tuple[str, str]]:
    return {(note.code, note.about) for note in found.notes}


# -- ellipses -----------------------------------------------------------------------------------------------------


@every_geometry
def test_vertebral_hu_is_the_mean_of_the_slice_means(where: Geometry) -> None:
    """Planted: the pooled mean returned as the mean; slices averaged in the wrong order of position."""
    roi = three(where, (15, 9, 4), (8.0, 5.0))
    big = ellipse(where, (15, 29, 35), (12.0, 9.0), "superior")
    roi = replace(roi, ellipses=(big, *roi.ellipses[1:]))
    got = measure(linear(where), roi)
    expected = [float(linear_hu(one.center_lps_mm)) for one in roi.ellipses]
    assert [one.mean_hu for one in got.slices] == pytest.approx(expected, abs=5e-3)
    assert got.mean_hu == pytest.approx(np.mean(expected), abs=5e-3)
    weights = [one.n_voxels for one in got.slices]
    assert got.pooled_mean_hu == pytest.approx(np.average(expected, weights=weights), abs=5e-3)
    assert got.pooled_mean_hu != pytest.approx(got.mean_hu, abs=0.5)
    assert [one.position for one in got.slices] == list(POSITIONS)
    assert [one.slices for one in got.slices] == [(15,), (9,), (4,)]


@every_geometry
def test_spread_counts_and_area_follow_from_the_voxels(where: Geometry) -> None:
    """Planted: SD with n for n - 1; median of the slice means; area in voxels; n of the bounding box."""
    roi = three(where, (15, 9, 4))
    volume = linear(where)
    got = measure(volume, roi)
    every = []
    for one, k in zip(roi.ellipses, (15, 9, 4), strict=True):
        offset = all_points(where)[k] - one.center_lps_mm
        inside = (offset @ one.u_lps / 11) ** 2 + (offset @ one.v_lps / 8) ** 2 <= 1
        every.append(volume.read(k)[inside].astype(float))
    area = where.spacing_mm[1] * where.spacing_mm[2]
    for one, hu in zip(got.slices, every, strict=True):
        assert one.n_voxels == len(hu)
        assert one.sd_hu == pytest.approx(np.sqrt(((hu - hu.mean()) ** 2).sum() / (len(hu) - 1)), rel=1e-6)
        assert one.median_hu == pytest.approx(np.median(hu))
        assert one.area_mm2 == pytest.approx(len(hu) * area)
        assert one.area_mm2 == pytest.approx(np.pi * 88, rel=0.02)
        assert one.kept_fraction == 1.0
    pooled = np.concatenate(every)
    assert got.n_voxels == len(pooled)
    assert got.sd_hu == pytest.approx(pooled.std(ddof=1), rel=1e-6)
    assert got.median_hu == pytest.approx(np.median(pooled))
    assert got.kept_fraction == 1.0


def test_a_tilted_vertebra_is_measured_in_its_own_planes() -> None:
    where = geometry()
    flat = three(where, (15, 11, 7), (9.0, 6.0))
    roi = replace(flat, ellipses=tuple(tilted(one, 14) for one in flat.ellipses))
    got = measure(linear(where), roi)
    expected = [float(linear_hu(one.center_lps_mm)) for one in roi.ellipses]
    assert [one.mean_hu for one in got.slices] == pytest.approx(expected, abs=5e-3)
    assert all(one.resampled for one in got.slices)
    assert [one.area_mm2 for one in got.slices] == pytest.approx([np.pi * 54] * 3, rel=0.03)
    refused = measure(linear(where), roi, plane="scanner")
    assert refused.mean_hu is None
    assert codes(refused) >= {("roi_tilted", f"T12 {position}") for position in POSITIONS}


def test_the_record_of_a_slice_names_its_place_and_its_images() -> None:
    where = geometry()
    roi = three(where, (15, 9, 4))
    got = measure(filled(where, 100, uids=True), roi)
    for one, asked in zip(got.slices, roi.ellipses, strict=True):
        assert one.center_lps_mm == pytest.approx(tuple(asked.center_lps_mm))
        assert (one.u_lps, one.v_lps) == (tuple(asked.u_lps), tuple(asked.v_lps))
        assert one.semi_axes_mm == (11.0, 8.0)
        assert one.sop_instance_uids == tuple(f"1.2.3.{k}" for k in one.slices)
    tilted_roi = replace(roi, ellipses=(tilted(roi.ellipses[1], 10),))
    one = measure(filled(where, 100, uids=True), tilted_roi).slices[0]
    assert one.sop_instance_uids == tuple(f"1.2.3.{k}" for k in one.slices)
    assert len(one.slices) > 1
    assert measure(filled(where, 100), roi).slices[0].sop_instance_uids == ()


def with_padding(share_columns: int) -> tuple[CTVolume, VertebraRoi]:
    """A volume of 100 HU whose slice 9 is padding left of the middle of the ROI plus this many columns."""
    where = geometry(steps_mm=(1.5, 0.5, 0.5))
    hu = np.full(where.shape, 100.0)
    hu[9, :, : 35 + share_columns] = -2000
    return filled(where, hu, padding=(-2000, -2000)), three(where, (15, 9, 4), (8.0, 6.0))


def test_what_is_left_is_averaged_and_its_share_told() -> None:
    """Planted: padding averaged; kept_fraction over valid voxels alone; kept_fraction of the first slice taken."""
    volume, roi = with_padding(-3)
    got = measure(volume, roi)
    assert got.mean_hu == 100
    total = measure(filled(volume.geometry, 100), roi)
    fractions = [one.kept_fraction for one in got.slices]
    assert fractions[0] == fractions[2] == 1.0
    assert fractions[1] == pytest.approx(got.slices[1].n_voxels / total.slices[1].n_voxels)
    assert fractions[1] is not None
    assert 0.5 < fractions[1] < 0.7
    assert got.kept_fraction == pytest.approx(got.n_voxels / total.n_voxels)
    assert got.slices[1].area_mm2 == pytest.approx(got.slices[1].n_voxels * 0.25)
    assert ("padding_in_roi", "T12 mid") in codes(got)


def test_with_less_than_half_left_in_any_plane_there_is_no_number() -> None:
    """Planted: the limit held against the whole vertebra; the mean of the other planes returned."""
    volume, roi = with_padding(2)
    got = measure(volume, roi)
    assert (got.mean_hu, got.pooled_mean_hu, got.median_hu, got.sd_hu, got.n_voxels) == (None, None, None, None, 0)
    assert got.kept_fraction is not None
    assert got.kept_fraction > 0.5
    one = got.slices[1]
    assert (one.mean_hu, one.sd_hu, one.median_hu, one.area_mm2, one.n_voxels) == (None, None, None, None, 0)
    assert one.kept_fraction is not None
    assert 0.3 < one.kept_fraction < 0.5
    assert got.slices[0].mean_hu == got.slices[2].mean_hu == 100
    assert ("too_little_left", "T12 mid") in codes(got)
    lenient = measure(volume, roi, HuSettings(min_kept_fraction=0.3))
    assert lenient.mean_hu == 100


def test_a_roi_beyond_the_image_has_no_number_and_no_zero() -> None:
    where = geometry()
    roi = VertebraRoi("T12", ellipses=(ellipse(where, (9, 300, 36)),))
    got = measure(filled(where, 100), roi)
    assert got.mean_hu is None
    assert got.slices[0].kept_fraction == 0.0
    assert codes(got) >= {("roi_outside_volume", "T12 mid"), ("too_little_left", "T12 mid")}


def test_fewer_than_thirty_voxels_give_no_number() -> None:
    where = geometry(steps_mm=(1.0, 1.0, 1.0))
    for axes, expected in (((3.0, 3.0), None), ((3.2, 3.2), 100.0)):
        got = measure(filled(where, 100), VertebraRoi("T12", ellipses=(ellipse(where, (9, 30, 36), axes),)))
        assert got.mean_hu == expected
        assert (("too_few_voxels", "T12 mid") in codes(got)) == (expected is None)


def test_a_slice_that_cannot_be_read_takes_only_its_vertebra() -> None:
    where = geometry()
    volume = filled(where, 100, broken=9)
    lost = measure(volume, three(where, (15, 9, 4)))
    assert lost.mean_hu is None
    assert [one.mean_hu for one in lost.slices] == [100.0, None, 100.0]
    assert "slice 9 is cut short" in next(note.text for note in lost.notes if note.code == "undecodable")
    assert measure(volume, three(where, (20, 17, 14))).mean_hu == 100
    # A slice within reach of metal counts as needed: whether it holds a screw is not known.
    assert measure(volume, three(where, (20, 17, 11))).mean_hu is None


def test_a_plane_in_a_gap_leaves_the_vertebra_without_a_number() -> None:
    where = geometry(places_mm=GAP_PLACES)
    got = measure(linear(where), three(where, (15, 11.5, 8)))
    assert got.mean_hu is None
    assert got.kept_fraction is None
    assert ("roi_in_gap", "T12 mid") in codes(got)
    assert got.slices[0].mean_hu == pytest.approx(
        float(linear_hu(three(where, (15, 9, 4)).ellipses[0].center_lps_mm)), abs=5e-3
    )


def test_each_slice_is_read_once_a_vertebra_and_only_around_the_planes() -> None:
    where = geometry(shape=(80, 60, 72), steps_mm=(1.0, 0.7, 0.9))
    volume = filled(where, 100)
    measure(volume, three(where, (60, 40, 20)))
    assert isinstance(volume.source, Source)
    near = [k for middle in (20, 40, 60) for k in range(middle - 3, middle + 4)]
    assert sorted(volume.source.reads) == near


def test_without_a_roi_there_is_no_number_but_a_reason() -> None:
    where = geometry()
    nothing = measure(linear(where), VertebraRoi("T12"))
    assert codes(nothing) == {("no_roi", "T12")}


# -- masks --------------------------------------------------------------------------------------------------------


def label_of(where: Geometry, voxels: npt.NDArray[np.bool_], label: int = 28) -> MaskRoi:
    values = np.where(voxels, label, 3).astype(np.int16)
    return MaskRoi(LabelVolume(where, ArraySource(values), "labels.nii.gz"), label)


def box(where: Geometry, size_mm: tuple[float, float, float] = (30, 28, 20)) -> npt.NDArray[np.bool_]:
    """A box (across, front to back, along the normal) in the middle of the lattice, whole voxels by their centres."""
    offset = all_points(where) - where.lps_at((np.array(where.shape) - 1) / 2)
    across = where.column_step_lps_mm / np.linalg.norm(where.column_step_lps_mm)
    axes = (across, np.cross(where.normal_lps, across), where.normal_lps)
    return np.all([np.abs(offset @ axis) <= size / 2 for axis, size in zip(axes, size_mm, strict=True)], axis=0)


def test_a_mask_is_measured_in_three_planes_below_its_surface() -> None:
    """Planted: erosion by 3 voxels; planes at 10 and 90 %; superior and inferior swapped."""
    where = geometry(shape=(40, 60, 60), steps_mm=(1.0, 0.5, 0.8))
    got = measure(linear(where), VertebraRoi("L2", mask=label_of(where, box(where))))
    # Along z the box is 20 slices, 10 to 29, so the planes are nearest to 14.75, 19.5 and 24.25.
    assert [one.slices for one in got.slices] == [(24,), (19,), (15,)]
    assert [one.position for one in got.slices] == list(POSITIONS)
    # 38 columns of 0.8 mm and 56 rows of 0.5 mm; 4 columns (2.8 mm would stay out) and 6 rows go at each side.
    rows, columns = 56 - 2 * 6, 38 - 2 * 4
    for one in got.slices:
        assert one.n_voxels == rows * columns
        assert one.area_mm2 == pytest.approx(rows * columns * 0.4)
        assert one.mean_hu == pytest.approx(float(linear_hu(one.center_lps_mm)), abs=5e-3)
        assert one.u_lps is one.v_lps is one.semi_axes_mm is None
        np.testing.assert_allclose(one.center_lps_mm[:2], where.lps_at([19.5, 29.5, 29.5])[:2])
    assert got.mean_hu == pytest.approx(np.mean([one.mean_hu for one in got.slices]))


def test_a_mask_is_eroded_along_the_slices_too() -> None:
    """Of 8 slices of 1 mm only the middle two lie 3 mm deep. Planted: erosion in the slice plane alone."""
    where = geometry(shape=(40, 60, 60), steps_mm=(1.0, 0.5, 0.8))
    got = measure(filled(where, 100), VertebraRoi("L2", mask=label_of(where, box(where, (30, 28, 8)))))
    assert [one.mean_hu for one in got.slices] == [None, 100.0, None]
    assert got.mean_hu is None
    assert {("mask_too_small", "L2 superior"), ("mask_too_small", "L2 inferior")} <= codes(got)


@pytest.mark.parametrize("name", [name for name in UNFRIENDLY if name != "with a gap"])
def test_erosion_is_in_mm_on_any_lattice(name: str) -> None:
    """Against distances to the label's own surface, by brute force."""
    where = UNFRIENDLY[name]
    voxels = box(where, (16, 15, 14))
    got = measure(linear(where), VertebraRoi("L2", mask=label_of(where, voxels)))
    at = np.argwhere(np.pad(voxels, 1)) - 1
    inside = {tuple(one) for one in at.tolist()}
    steps = [(d, 0, 0) for d in (-1, 1)] + [(0, d, 0) for d in (-1, 1)] + [(0, 0, d) for d in (-1, 1)]
    faces = [
        (np.array(one) + np.array(one) + step) / 2
        for one in inside
        for step in steps
        if tuple(np.add(one, step).tolist()) not in inside
    ]
    surface = where.lps_at(np.array(faces))
    for one in got.slices:
        mine = at[at[:, 0] == one.slices[0]]
        away = np.linalg.norm(where.lps_at(mine)[:, None] - surface, axis=2).min(axis=1)
        assert one.n_voxels == np.count_nonzero(away >= 3 - 1e-6)
        assert one.mean_hu == pytest.approx(float(linear_hu(one.center_lps_mm)), abs=5e-3)
    heights = [one.center_lps_mm[2] for one in got.slices]
    assert heights == sorted(heights, reverse=True)


def test_a_label_on_another_grid_is_looked_up_at_each_voxel_of_the_ct() -> None:
    """Planted: the label's index used for the CT; the nearest label voxel by truncation."""
    where = geometry(shape=(40, 60, 60), steps_mm=(1.0, 0.6, 0.6))
    own = geometry(
        shape=(30, 45, 50), steps_mm=(1.3, 1.1, 1.0), column=(-1, 0.1, 0), row=(0.1, 1, 0.05), descending=True
    )
    voxels = box(own)
    got = measure(linear(where), VertebraRoi("L2", mask=label_of(own, voxels)))
    index = own.index_at(all_points(where))
    nearest = np.rint(index).astype(int)
    within = ((nearest >= 0) & (nearest < own.shape)).all(axis=-1)
    there = np.zeros(where.shape, dtype=bool)
    there[within] = voxels[tuple(nearest[within].T)]
    same = measure(linear(where), VertebraRoi("L2", mask=label_of(where, there)))
    assert got.mean_hu is not None
    assert got.mean_hu == pytest.approx(same.mean_hu)
    assert got.slices == same.slices


def test_a_mask_of_few_slices_gives_as_many_planes_as_it_has() -> None:
    where = geometry(shape=(12, 40, 40), steps_mm=(6.0, 0.8, 0.8))
    voxels = box(where, (24, 24, 7))
    got = measure(filled(where, 100), VertebraRoi("L2", mask=label_of(where, voxels)))
    assert [one.position for one in got.slices] == ["superior", "inferior"]
    assert got.mean_hu == 100
    assert ("fewer_than_three_slices", "L2") in codes(got)


@pytest.mark.parametrize(
    ("size", "label", "shift_mm", "code"),
    [
        ((5, 5, 5), 28, 0, "mask_too_small"),
        ((30, 28, 20), 29, 0, "label_missing"),
        ((30, 28, 20), 28, 500, "roi_outside_volume"),
    ],
)
def test_a_mask_that_cannot_be_measured_says_why(
    size: tuple[float, float, float], label: int, shift_mm: float, code: str
) -> None:
    where = geometry(shape=(40, 60, 60), steps_mm=(1.0, 0.8, 0.8))
    roi = label_of(where, box(where, size))
    moved = Geometry(where.shape, where.origins_lps_mm + shift_mm, where.row_step_lps_mm, where.column_step_lps_mm)
    labels = LabelVolume(moved, roi.labels.source, roi.labels.name)
    got = measure(filled(where, 100), VertebraRoi("L2", mask=MaskRoi(labels, label)))
    assert (got.mean_hu, got.slices) == (None, ())
    assert codes(got) == {(code, "L2")}


def test_where_no_body_is_fitted_it_is_taken_out_of_a_whole_vertebra_by_its_thickness() -> None:
    """In sacrum and neck. Arch and processes reach lower than the body and are denser; only the body's voxels count.

    Planted: planes at the quartiles of the whole label moved the lowest one into the arch.
    """
    where = geometry(shape=(40, 110, 60), steps_mm=(1.0, 0.8, 0.8))
    body = np.roll(box(where, (22, 28, 20)), 6, axis=0)
    arch = np.roll(box(where, (30, 40, 8)), 40, axis=1)
    apart = np.roll(box(where, (14, 14, 20)), 28, axis=1)
    hu = np.where(body, 100, 900).astype(np.int16)
    volume = CTVolume(where, ArraySource(hu))
    alone = measure(volume, VertebraRoi("L2", mask=label_of(where, body)))
    assert not {"mask_reduced_to_body", "mask_not_only_body"} & {code for code, _ in codes(alone)}
    for more in (arch, apart):
        got = measure(volume, VertebraRoi("S1", mask=label_of(where, body | more)))
        assert ("mask_reduced_to_body", "S1") in codes(got)
        assert got.mean_hu == 100
        assert [one.slices for one in got.slices] == [one.slices for one in alone.slices]


def test_a_mask_that_holds_more_than_a_body_and_cannot_be_reduced_is_noted() -> None:
    where = geometry(shape=(30, 110, 60), steps_mm=(1.0, 0.8, 0.8))
    for level, code in (("S1", "mask_not_only_body"), ("L2", "mask_without_body")):
        got = measure(filled(where, 100), VertebraRoi(level, mask=label_of(where, box(where, (22, 60, 20)))))
        assert (code, level) in codes(got)
        assert (got.mean_hu is None) is (level == "L2"), "an image without a vertebra there"


def test_a_label_that_holds_two_bodies_is_not_reduced_to_one_of_them() -> None:
    """Planted: the larger one taken, silently."""
    where = geometry(shape=(60, 60, 60), steps_mm=(1.0, 0.8, 0.8))
    one = box(where, (22, 28, 20))
    two = np.roll(one, 14, axis=0) | np.roll(one, -14, axis=0)
    got = measure(filled(where, 100), VertebraRoi("S1", mask=label_of(where, two)))
    assert ("mask_not_only_body", "S1") in codes(got)


def test_a_tilted_plane_across_thick_slices_is_noted() -> None:
    for step, noted in ((3.0, False), (4.0, True)):
        where = geometry(shape=(24, 60, 72), steps_mm=(step, 0.7, 0.9))
        middle = where.lps_at([12, 30, 36])
        tilt = np.radians(20)
        u, v = np.array([1.0, 0, 0]), np.array([0, np.cos(tilt), np.sin(tilt)])
        roi = VertebraRoi("L5", ellipses=(Ellipse("mid", middle, u, v, (12.0, 8.0)),))
        got = measure(filled(where, 100), roi)
        assert (("resampled_thick_slices", "L5 mid") in codes(got)) is noted
        assert got.mean_hu == 100


def test_a_mask_cut_off_by_the_volume_or_over_a_gap_is_noted() -> None:
    where = geometry(shape=(40, 60, 60), steps_mm=(1.0, 0.8, 0.8))
    high = np.roll(box(where, (30, 28, 20)), 10, axis=0)
    got = measure(filled(where, 100), VertebraRoi("L2", mask=label_of(where, high)))
    assert ("roi_at_volume_end", "L2") in codes(got)
    gapped = geometry(places_mm=GAP_PLACES)
    got = measure(filled(gapped, 100), VertebraRoi("L2", mask=label_of(gapped, box(gapped, (25, 25, 22)))))
    assert ("roi_at_gap", "L2") in codes(got)


# -- real data ----------------------------------------------------------------------------------------------------

DATA = os.environ.get("SPINEIMG_DATA")
real = pytest.mark.skipif(not DATA, reason="SPINEIMG_DATA is not set: no real scans")


def sitk_volume(folder: Path) -> tuple[CTVolume, object]:
    """A DICOM folder as SimpleITK reads it, independent of this project's reader."""
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    size, step = image.GetSize(), np.diag(image.GetSpacing())
    axes = np.array(image.GetDirection()).reshape(3, 3) @ step
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes[:, ::-1], image.GetOrigin()
    hu = sitk.GetArrayFromImage(image).astype(np.int16)
    return CTVolume(Geometry.from_affine(size[::-1], affine), ArraySource(hu)), image


@real
def test_on_a_real_scan_the_numbers_are_those_of_simpleitk() -> None:
    """T12 and L4 of the abdomen CT: SimpleITK's own points and pixels, gathered voxel by voxel."""
    assert DATA is not None
    volume, image = sitk_volume(Path(DATA) / "tcga_ov_abdomen_ce")
    file = json.loads((Path(__file__).parents[1] / "data" / "tcga_ov_abdomen_ce.rois.json").read_text())
    for vertebra in file["vertebrae"]:
        ellipses = tuple(
            Ellipse(one["position"], one["center"], one["u"], one["v"], tuple(one["semi_axes_mm"]))
            for one in vertebra["slices"]
        )
        got = measure(volume, VertebraRoi(vertebra["level"], ellipses=ellipses))
        expected = [_sitk_mean(image, one) for one in ellipses]
        assert [one.mean_hu for one in got.slices] == pytest.approx([mean for mean, _ in expected])
        assert [one.n_voxels for one in got.slices] == [count for _, count in expected]
        assert got.mean_hu is not None
        assert 80 < got.mean_hu < 300


def _sitk_mean(image: object, one: Ellipse) -> tuple[float, int]:
    column, row, k = image.TransformPhysicalPointToIndex([float(x) for x in one.center_lps_mm])  # type: ignore[attr-defined]
    values = []
    for r in range(row - 25, row + 26):
        for c in range(column - 25, column + 26):
            offset = np.array(image.TransformIndexToPhysicalPoint((c, r, k))) - one.center_lps_mm  # type: ignore[attr-defined]
            x, y = offset @ one.u_lps / one.semi_axes_mm[0], offset @ one.v_lps / one.semi_axes_mm[1]
            if x * x + y * y <= 1 + 1e-9:
                values.append(image.GetPixel(c, r, k))  # type: ignore[attr-defined]
    return float(np.mean(values)), len(values)


@real
def test_on_real_masks_rois_in_whole_vertebrae_lie_in_their_bodies() -> None:
    """TotalSegmentator labels L5 to L1 (27 to 31) at 3 mm; a label of the bodies tells how many samples lie in them."""
    import SimpleITK as sitk  # noqa: N813
    from scipy import ndimage

    assert DATA is not None
    folder = Path(DATA) / "totalseg_example"
    report = folder / "spine_report" / "example_ct_report"
    image, labels, bodies = (
        sitk.ReadImage(str(path))
        for path in (
            folder / "example_ct.nii.gz",
            report / "totalseg.nii.gz",
            report / "totalseg_vertebrae_body.nii.gz",
        )
    )
    axes = np.array(image.GetDirection()).reshape(3, 3) @ np.diag(image.GetSpacing())
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes[:, ::-1], image.GetOrigin()
    where = Geometry.from_affine(image.GetSize()[::-1], affine)
    hu = sitk.GetArrayFromImage(image).astype(np.float32)
    volume = CTVolume(where, ArraySource(hu))
    whole = sitk.GetArrayFromImage(labels).astype(np.int16)
    alone = np.where(sitk.GetArrayFromImage(bodies) > 0, whole, 0).astype(np.int16)
    for label, level in zip(range(27, 32), ("L5", "L4", "L3", "L2", "L1"), strict=True):
        found = [
            measure(volume, VertebraRoi(level, mask=MaskRoi(LabelVolume(where, ArraySource(one), "labels"), label)))
            for one in (alone, whole)
        ]
        assert found[0].mean_hu is not None
        assert 100 < found[0].mean_hu < 150
        assert found[1].mean_hu is not None
        assert ("mask_reduced_to_body", level) not in codes(found[0])
        assert ("placed_in_label", level) in codes(found[1])
        if level == "L1":  # a bone island at its upper half: a small ROI beside it, or the reason to look at it
            assert {"roi_small", "sd_beyond_noise"} & {code for code, _ in codes(found[1])}
        else:
            assert "sd_beyond_noise" not in {code for code, _ in codes(found[1])}
        index = np.rint(where.index_at(np.concatenate([_inside(one) for one in found[1].slices]))).astype(int)
        assert (alone[tuple(index.T)] == label).mean() > 0.99
        # Of the body's label all that lies 6 mm below its surface: its slices hold L1's bone island and L5's endplates.
        interior = ndimage.binary_erosion(alone == label, iterations=2)
        assert abs(found[1].mean_hu - float(hu[interior].mean())) < 16, "the least significant change"
        if level not in ("L1", "L5"):
            assert abs(found[1].mean_hu - found[0].mean_hu) < 16


def _inside(one: SliceHU) -> npt.NDArray[np.float64]:
    """(n, 3) LPS mm all over the ellipse of a slice."""
    assert one.u_lps is not None
    assert one.v_lps is not None
    assert one.semi_axes_mm is not None
    x, y = (ticks.ravel() for ticks in np.meshgrid(np.linspace(-1, 1, 41), np.linspace(-1, 1, 41)))
    kept = np.hypot(x, y) <= 1
    steps = np.array([one.u_lps, one.v_lps]) * np.array(one.semi_axes_mm)[:, None]
    return np.asarray(np.array(one.center_lps_mm) + np.stack([x, y], axis=-1)[kept] @ steps)
