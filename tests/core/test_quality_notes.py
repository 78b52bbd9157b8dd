"""Every reason to distrust a vertebral HU: present when it should be, absent when not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from spineimg.geometry import Geometry
from spineimg.metal import MetalNear
from spineimg.rois import VertebraRoi
from spineimg.sampling import PlaneSamples
from spineimg.vertebra.hu import VertebraHU, measure
from spineimg.vertebra.noise import noise_hu
from spineimg.vertebra.quality import PlaneFacts, QualitySettings, acquisition_notes, content_notes
from spineimg.volume import Acquisition, Sharpness
from tests.core.volumes import (
    GAP_PLACES,
    UNENHANCED_120,
    all_points,
    ellipse,
    filled,
    geometry,
    linear,
    three,
    tilted,
)


def found(got: VertebraHU) -> set[tuple[str, str]]:
    return {(note.code, note.about) for note in got.notes}


def codes(got: VertebraHU) -> set[str]:
    return {note.code for note in got.notes}


# -- acquisition --------------------------------------------------------------------------------------------------


def acquisition_codes(acquisition: Acquisition, where: Geometry | None = None) -> list[str]:
    notes = acquisition_notes(acquisition, where or geometry(), "T12", QualitySettings())
    assert all(note.about == "T12" and note.text and not note.text.endswith(".") for note in notes)
    return [note.code for note in notes]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"contrast": True}, "contrast_given"),
        ({"contrast": None}, "contrast_unknown"),
        ({"kvp": 100.0}, "kvp_not_120"),
        ({"kvp": 140.0}, "kvp_not_120"),
        ({"kvp": None}, "kvp_unknown"),
        ({"kernel": "B70f", "sharpness": Sharpness.SHARP}, "sharp_kernel"),
        ({"kernel": None, "sharpness": None}, "kernel_unknown"),
        ({"kernel": "XYZ", "sharpness": None}, "kernel_unknown"),
        ({"slice_thickness_mm": 3.1}, "thick_slices"),
        ({"slice_thickness_mm": 5.0}, "thick_slices"),
        ({"slice_thickness_mm": 5.1}, "slices_too_thick"),
        ({"monoenergetic_kev": 70.0}, "monoenergetic"),
        ({"monoenergetic_kev": 0.0}, "monoenergetic"),
        ({"metal_artifact_reduction": True}, "artifact_reduction"),
    ],
)
def test_each_doubt_about_the_acquisition_has_its_note(change: dict[str, object], code: str) -> None:
    """Planted: unknown contrast taken for none; energy 0 (not told) taken for no mono-energetic image."""
    assert acquisition_codes(replace(UNENHANCED_120, **change)) == [code]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [{}, {"kvp": 120.4}, {"slice_thickness_mm": 3.0}, {"metal_artifact_reduction": False}, {"manufacturer": None}],
)
def test_a_sound_acquisition_has_none(change: dict[str, object]) -> None:
    assert acquisition_codes(replace(UNENHANCED_120, **change)) == []  # type: ignore[arg-type]


def test_without_a_thickness_the_spacing_counts() -> None:
    unknown = replace(UNENHANCED_120, slice_thickness_mm=None)
    assert acquisition_codes(unknown, geometry(steps_mm=(2.5, 1, 1))) == []
    assert acquisition_codes(unknown, geometry(steps_mm=(4.0, 1, 1))) == ["thick_slices"]
    assert acquisition_codes(unknown, geometry(steps_mm=(6.0, 1, 1))) == ["slices_too_thick"]
    assert acquisition_codes(UNENHANCED_120, geometry(steps_mm=(6.0, 1, 1))) == []


# -- place --------------------------------------------------------------------------------------------------------


def test_a_good_measurement_has_no_notes() -> None:
    rng = np.random.default_rng(5)
    where = geometry(shape=(24, 200, 200), steps_mm=(1.5, 0.8, 0.8))
    hu = rng.normal(50, 15, where.shape)
    bone = np.linalg.norm(all_points(where) - where.lps_at([12, 99.5, 99.5]), axis=-1) < 25
    hu[bone] = rng.normal(150, 30, np.count_nonzero(bone))
    got = measure(filled(where, hu), three(where, (15, 12, 9)))
    assert got.mean_hu == pytest.approx(150, abs=4)
    assert got.notes == ()


@pytest.mark.parametrize(
    ("slices", "ends"), [((23, 12, 1), {"superior"}), ((22, 12, 0), {"inferior"}), ((22, 12, 1), set())]
)
def test_a_roi_on_the_first_or_last_slice_is_noted(slices: tuple[int, int, int], ends: set[str]) -> None:
    where = geometry()
    got = measure(filled(where, 100), three(where, slices))
    assert found(got) == {("roi_at_volume_end", f"T12 {end}") for end in ends}
    assert got.mean_hu == 100


def test_a_roi_beside_a_gap_is_noted_and_measured() -> None:
    where = geometry(places_mm=GAP_PLACES)
    got = measure(filled(where, 100), three(where, (13, 12, 11)))
    assert found(got) == {("roi_at_gap", "T12 mid"), ("roi_at_gap", "T12 inferior")}
    assert got.mean_hu == 100
    assert "gap of 6.0 mm between slices 11 and 12" in got.notes[0].text


def test_a_resampled_plane_that_touches_the_last_slice_is_noted() -> None:
    where = geometry()
    one = tilted(ellipse(where, (21.5, 30, 36)), 15)
    got = measure(filled(where, 100), VertebraRoi("T12", ellipses=(one,)))
    assert ("roi_at_volume_end", "T12 mid") in found(got)


def test_parts_outside_the_volume_are_noted() -> None:
    where = geometry()
    one = ellipse(where, (12, 5, 36))
    got = measure(filled(where, 100), VertebraRoi("T12", ellipses=(one,)))
    assert ("roi_outside_volume", "T12 mid") in found(got)
    assert "padding_in_roi" not in codes(got)
    assert got.mean_hu == 100


def test_padding_in_the_roi_is_noted() -> None:
    where = geometry()
    hu = np.full(where.shape, 100.0)
    hu[12, 30, 36] = np.nan
    got = measure(filled(where, hu), three(where, (15, 12, 9)))
    assert ("padding_in_roi", "T12 mid") in found(got)
    assert got.mean_hu == 100


@pytest.mark.parametrize(
    ("level", "axes", "small"),
    [
        ("T12", (5.5, 5.5), True),
        ("T12", (6.0, 6.0), False),
        ("C4", (5.5, 5.5), True),
        ("L1", (7.5, 7.5), True),
        ("L1", (8.5, 8.5), False),
        ("S1", (7.5, 7.5), True),
        ("T13", (7.5, 7.5), False),
    ],
)
def test_small_rois_are_noted_by_region(level: str, axes: tuple[float, float], small: bool) -> None:
    """100 mm² down to T13, 200 mm² below. Planted: the lumbar limit for every level."""
    where = geometry(steps_mm=(1.5, 0.5, 0.5))
    got = measure(filled(where, 100), three(where, (15, 12, 9), axes, level))
    assert ("roi_small" in codes(got)) is small


def test_fewer_than_three_planes_are_noted() -> None:
    where = geometry()
    roi = three(where, (15, 12, 9))
    for count in (1, 2, 3):
        got = measure(filled(where, 100), replace(roi, ellipses=roi.ellipses[:count]))
        assert ("fewer_than_three_slices" in codes(got)) is (count < 3)
        assert got.mean_hu == 100


# -- content ------------------------------------------------------------------------------------------------------


def with_slices(means: tuple[float, float, float]) -> VertebraHU:
    where = geometry()
    hu = np.full(where.shape, 100.0)
    for k, mean in zip((15, 12, 9), means, strict=True):
        hu[k] = mean
    return measure(filled(where, hu), three(where, (15, 12, 9)))


@pytest.mark.parametrize(
    ("means", "differ"),
    [
        ((115, 100, 86), False),
        ((115, 100, 84), True),
        ((100, 131, 100), False),
        ((100, 134, 100), True),
        ((2, 0, -2), True),
    ],
)
def test_slice_means_that_differ_by_more_than_30_percent_are_noted(
    means: tuple[float, float, float], differ: bool
) -> None:
    """Range against the mean. Planted: the largest deviation from the mean in place of the range."""
    got = with_slices(means)
    assert ("slices_differ" in codes(got)) is differ
    assert got.mean_hu == pytest.approx(np.mean(means))


@pytest.mark.parametrize(("mean", "implausible"), [(-160, True), (-140, False), (790, False), (810, True)])
def test_means_that_are_not_bone_are_noted(mean: float, implausible: bool) -> None:
    assert ("implausible_hu" in codes(with_slices((mean, mean, mean)))) is implausible


def scan(noise: float, texture: float = 0.0, seed: int = 3) -> tuple[Geometry, npt.NDArray[np.float64]]:
    """Soft tissue of 50 HU around bone of 150 HU, white noise everywhere, texture in the bone."""
    rng = np.random.default_rng(seed)
    where = geometry(shape=(9, 200, 200), steps_mm=(1.5, 0.8, 0.8))
    hu = np.full(where.shape, 50.0)
    offset = all_points(where) - where.lps_at([4, 99, 99])
    bone = np.hypot(offset[..., 0], offset[..., 1]) < 20
    hu[bone] = 150 + rng.normal(0, texture, np.count_nonzero(bone))
    hu[np.hypot(offset[..., 0] - 45, offset[..., 1]) < 18] = -850
    return where, hu + rng.normal(0, noise, where.shape)


def noise_of(hu: npt.NDArray[np.float64], center: tuple[float, float] = (99, 99), pixel: float = 0.8) -> float | None:
    return noise_hu(lambda rows, columns: hu[rows, columns].astype(np.float32), center, hu.shape, (pixel, pixel))


@pytest.mark.parametrize("noise", [5.0, 15.0, 40.0])
def test_noise_is_found_beside_bone_and_lung(noise: float) -> None:
    _, hu = scan(noise, texture=60.0)
    assert noise_of(hu[4]) == pytest.approx(noise, rel=0.06)


def test_noise_is_found_where_most_windows_hold_an_edge() -> None:
    """Planted: the median of all local SDs."""
    rows, columns = np.mgrid[:200, :200]
    organs = np.where((rows // 9 + columns // 9) % 2, 20.0, 110.0)
    organs[120:] = 50
    noisy = organs + np.random.default_rng(6).normal(0, 12, organs.shape)
    assert noise_of(noisy) == pytest.approx(12, rel=0.08)


def test_the_local_sd_is_that_of_a_sample() -> None:
    """A chequerboard of 50 ± 10 HU: every window of 7 x 7 has one pixel more of one colour. Planted: n for n - 1."""
    rows, columns = np.mgrid[:200, :200]
    assert noise_of(np.where((rows + columns) % 2, 40.0, 60.0), pixel=0.9) == pytest.approx(
        10 * np.sqrt((49 - 1 / 49) / 48)
    )


def test_noise_of_fine_pixels_is_found_in_a_thinned_image() -> None:
    hu = np.random.default_rng(4).normal(50, 20, (500, 500))
    taken = []

    def read(rows: slice, columns: slice) -> npt.NDArray[np.float32]:
        taken.append((rows, columns))
        return hu[rows, columns].astype(np.float32)

    assert noise_hu(read, (250.0, 20.0), (500, 500), (0.8, 0.3)) == pytest.approx(20, rel=0.06)
    assert taken == [(slice(150, 351, 1), slice(0, 287, 2))]


def test_the_bone_itself_is_no_noise() -> None:
    """Planted: the ROI's own surroundings searched too."""
    _, hu = scan(10.0, texture=100.0)
    hu[hu < 100] = -850
    assert noise_of(hu[4]) is None


def test_noise_is_unknown_without_soft_tissue() -> None:
    assert noise_of(np.full((200, 200), -850.0)) is None
    assert noise_of(np.full((4, 4), 50.0), (2, 2)) is None
    _, hu = scan(10.0)
    hu[4, :, :60] = np.nan
    assert noise_of(hu[4]) == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize(
    ("noise", "texture", "beyond"),
    [
        (10, 30, False),
        (10, 60, True),
        (20, 45, False),
        (20, 75, True),
        (40, 30, False),
        (40, 110, True),
        (3, 36, False),
    ],
)
def test_an_sd_beyond_noise_and_texture_is_noted(noise: float, texture: float, beyond: bool) -> None:
    """More than sqrt((2.5 noise)² + 40²). Planted: 2.5 times the noise alone; noise and texture added plainly."""
    where, hu = scan(noise, texture)
    got = measure(filled(where, hu), VertebraRoi("T12", ellipses=(ellipse(where, (4, 99, 99)),)))
    assert got.sd_hu == pytest.approx(np.hypot(noise, texture), rel=0.15)
    assert (("sd_beyond_noise", "T12 mid") in found(got)) is beyond


def test_a_lesion_in_the_roi_is_noted() -> None:
    """A lytic hole of 10 mm in a quarter of the ROI, at usual noise."""
    where, hu = scan(12.0, 25.0)
    offset = all_points(where) - where.lps_at([4, 99, 99])
    hole = np.hypot(offset[..., 0] - 3, offset[..., 1]) < 5
    hu[hole] -= 130
    got = measure(filled(where, hu), VertebraRoi("T12", ellipses=(ellipse(where, (4, 99, 99)),)))
    assert "sd_beyond_noise" in codes(got)


def test_with_unknown_noise_a_usual_noise_is_assumed() -> None:
    where, hu = scan(0.0)
    for texture, beyond in ((70.0, False), (100.0, True)):
        again = np.where(hu == 150, 150 + np.random.default_rng(2).normal(0, texture, hu.shape), -850)
        got = measure(filled(where, again), VertebraRoi("T12", ellipses=(ellipse(where, (4, 99, 99)),)))
        assert ("sd_beyond_noise" in codes(got)) is beyond


def test_cortex_along_the_border_is_noted_and_a_bright_middle_is_not() -> None:
    """Planted: bright voxels counted anywhere in the ROI."""
    where, hu = scan(10.0, 20.0)
    offset = all_points(where) - where.lps_at([4, 99, 99])
    one = VertebraRoi("T12", ellipses=(ellipse(where, (4, 99, 99)),))
    shell = np.abs(np.hypot(offset[..., 0], offset[..., 1]) - 10.5) < 0.5
    middle = np.hypot(offset[..., 0], offset[..., 1]) < 3
    assert "touches_cortex" in codes(measure(filled(where, np.where(shell, 500, hu)), one))
    assert "touches_cortex" not in codes(measure(filled(where, np.where(middle, 500, hu)), one))
    assert "touches_cortex" not in codes(measure(filled(where, hu), one))


def facts_of(hu: npt.NDArray[np.float64], noise: Callable[[], float | None]) -> PlaneFacts:
    """A ROI of 1 mm² samples, every third of them along its border, without metal."""
    count = len(hu)
    inside = np.ones(count, dtype=bool)
    samples = PlaneSamples(np.zeros((count, 3)), hu, inside, (4,), 4, False, 1.0)
    metal = MetalNear(np.zeros(count, dtype=bool), None)
    return PlaneFacts("T12 mid", "T12", samples, np.arange(count) % 3 == 0, metal, noise)


@pytest.mark.parametrize("noise", [None, 0.0, 10.0, 30.0, 60.0, 100.0])
def test_noise_is_asked_only_where_a_note_hangs_on_it(noise: float | None) -> None:
    """The notes are those of noise that is always known, by their formulas. Planted: the cortex left out of the
    question whether to ask; the notes of bright borders with an SD below 40 HU were then missing."""
    rng = np.random.default_rng(7)
    seen = set()
    for _ in range(300):
        hu = rng.normal(150, rng.uniform(5, 130), 300)
        hu[::3] += np.where(rng.random(100) < rng.choice([0.0, 0.05, 0.1]), rng.uniform(100, 600), 0)
        asked: list[bool] = []
        facts = facts_of(hu, lambda asked=asked: asked.append(True) or noise)
        notes = content_notes(facts, hu.std(), QualitySettings())
        usual = 30.0 if noise is None else noise
        bright = np.mean(hu[::3] > np.median(hu) + max(200.0, 4 * usual))
        expected = {"sd_beyond_noise"} if hu.std() > np.hypot(2.5 * usual, 40) else set()
        expected |= {"touches_cortex"} if bright > 0.03 else set()
        assert {note.code for note in notes} == expected
        possible = hu.std() > 40 or np.mean(hu[::3] > np.median(hu) + 200) > 0.03
        assert bool(asked) == possible
        seen.add((*sorted(expected), possible))
    assert len(seen) >= 3


# -- metal --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns_away", "expected"), [(6, {"metal_near", "metal_excluded"}), (26, {"metal_near"}), (45, set())]
)
def test_metal_beside_or_in_the_roi_is_noted(columns_away: int, expected: set[str]) -> None:
    where = geometry(shape=(24, 60, 140), steps_mm=(1.5, 0.9, 0.9))
    hu = np.full(where.shape, 100.0)
    hu[12, 29, 69 + columns_away] = 6000
    got = measure(filled(where, hu), three(where, (15, 12, 9)))
    assert found(got) == {(code, "T12") for code in expected}
    assert got.mean_hu == 100


def test_a_linear_ramp_is_no_cause_for_a_note() -> None:
    where = geometry()
    assert codes(measure(linear(where), three(where, (12, 11, 10), (8.0, 6.0)))) <= set()
