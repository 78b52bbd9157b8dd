"""The lucent zone against screws whose zone is known."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from spineimg.geometry import FloatArray, Geometry
from spineimg.implants.halo import _SHIFTS_MM, HaloFit, _interval, fit_halo
from spineimg.implants.halo_settings import HaloSettings
from spineimg.implants.halo_trials import Trial, odds, part_odds, starts
from spineimg.implants.hardening import Cylinder, Metal, hardening_basis
from spineimg.implants.lucency import Solution
from spineimg.implants.metal_map import Windows
from spineimg.implants.model import Loosening, Shaft
from spineimg.implants.profile import Blur, DiscTables, blurred_disc, cross_axes
from spineimg.implants.psf import Psf
from spineimg.implants.unrolled import Cells, ShaftFrame, shell_voxels
from spineimg.implants.verdict import Conditions, judge
from spineimg.volume import ArraySource, CTVolume, Sharpness
from tests.implants.halo_cases import around, volume_with_screw


@cache
def _fit(width_mm: float, **options: object) -> HaloFit:
    volume, shaft = volume_with_screw(width_mm, **options)  # type: ignore[arg-type]
    fit = fit_halo(Windows(volume), shaft, around(shaft), Blur.from_fwhm(0.8, 1.0))
    assert fit is not None
    return fit


def _median(fit: HaloFit) -> float:
    return float(np.median(fit.width_mm))


@pytest.mark.parametrize(("width_mm", "clipped"), [(1.0, False), (1.5, True), (2.5, False)])
def test_width_is_the_true_one(width_mm: float, clipped: bool) -> None:
    """Planted: widths counted from the axis's fitted radius less the thread (0.35 mm too wide)."""
    assert _median(_fit(width_mm, clipped=clipped)) == pytest.approx(width_mm, abs=0.15)


def test_no_zone_is_no_millimetre() -> None:
    fit = _fit(0.0)
    assert _median(fit) + max(fit.shift_mm[1], 0) < 1.0


@pytest.mark.parametrize(
    ("width_mm", "options", "verdict"),
    [
        (0.0, {}, Loosening.ABSENT),
        (0.5, {}, Loosening.ABSENT),
        (1.5, {"bone_hu": 75.0}, Loosening.PRESENT),
        (1.5, {}, Loosening.PRESENT),
    ],
)
def test_clear_screws_get_a_plain_verdict(width_mm: float, options: dict[str, float], verdict: Loosening) -> None:
    """Planted: evidence counted from the wide form's misfit less the narrow one's."""
    shaft = volume_with_screw(width_mm, **options)[1]  # type: ignore[arg-type]
    conditions = Conditions(0.8, Sharpness.SOFT, False, Psf(0.8, 1.0, (True, True)))
    halo, found = judge(_fit(width_mm, **options), shaft, conditions)
    assert found is verdict
    assert halo.interval_mm is not None
    assert halo.interval_mm[0] <= width_mm <= halo.interval_mm[1]
    assert halo.coverage_over_1mm == pytest.approx(float(width_mm > 1), abs=0.1)


def test_a_zone_beside_cortex() -> None:
    """A pedicle's walls 3 mm from the thread and fat beyond them change neither width nor verdict. Planted: a map that
    the whole screw contradicts shown as it is (a fixed screw reads 0.48 mm)."""
    for width_mm, verdict in ((0.0, Loosening.ABSENT), (2.0, Loosening.PRESENT)):
        volume, shaft = volume_with_screw(width_mm, walls_mm=3.0)
        fit = fit_halo(Windows(volume), shaft, around(shaft), Blur.from_fwhm(0.8, 1.0))
        assert fit is not None
        conditions = Conditions(0.8, Sharpness.SOFT, False, Psf(0.8, 1.0, (True, True)))
        halo, found = judge(fit, shaft, conditions)
        assert found is verdict
        assert halo.width_median_mm == pytest.approx(width_mm, abs=0.2)


@pytest.mark.parametrize("width_mm", [0.3, 1.6])
def test_a_bright_rim_does_not_widen_a_narrow_zone(width_mm: float) -> None:
    """Planted: rims around zones from 0.8 mm only (0.3 mm reads 0.85, 0.6 mm 0.88)."""
    assert _median(_fit(width_mm, rim_mm=0.8)) == pytest.approx(width_mm, abs=0.2)


def test_a_rim_near_the_screw_passes_for_cortex() -> None:
    """With a blur of 0.8 mm a zone of 0.6 mm is not seen before its rim: it reads 0.2 mm, as beside a pedicle's wall,
    and not wider than it is."""
    assert 0.0 < _median(_fit(0.6, rim_mm=0.8)) < 0.8


def test_soft_bone_widens_the_interval() -> None:
    clear, faint = _fit(1.5), _fit(1.5, bone_hu=75.0)
    assert np.ptp(faint.shift_mm) >= np.ptp(clear.shift_mm)
    assert np.median(faint.sd_mm) > np.median(clear.sd_mm)


@pytest.mark.parametrize(("bone_hu", "noise_hu"), [(64.0, 110.0), (75.0, 110.0), (58.0, 110.0)])
def test_a_fixed_screw_foretells_the_evidence_of_a_loose_one(bone_hu: float, noise_hu: float) -> None:
    """Planted: the zone as bright as the bone around it; the scan's own noise left in the image."""
    fixed, loose = (_fit(width, bone_hu=bone_hu, noise_hu=noise_hu) for width in (0.0, 2.0))
    assert abs(fixed.evidence) < 2
    assert fixed.evidence_if_loose == pytest.approx(loose.evidence, rel=0.5)
    assert _fit(0.0).evidence_if_loose == np.inf


def _streaked(width_mm: float, streak_hu: float) -> tuple[CTVolume, Shaft]:
    """A scan whose sides, in the slice plane, are brighter by so much, zone and bone alike; hardly so beyond 9 mm."""
    volume, shaft = volume_with_screw(width_mm, bone_hu=110.0)
    shape = volume.geometry.shape
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, 3)
    frame = ShaftFrame.of(shaft, volume.geometry.normal_lps)
    way = volume.geometry.lps_at(index) - frame.head_lps_mm
    x, y = way @ frame.b1, way @ frame.b2
    away = np.maximum(np.hypot(x, y), 0.1)
    streak = streak_hu * (x / away) ** 4 * np.exp(-((away / 9.0) ** 4))
    hu = np.stack([volume.read(k) for k in range(shape[0])]) + streak.reshape(shape)
    return replace(volume, source=ArraySource(hu.astype(np.float32))), shaft


def test_streaks_in_the_slice_plane_do_not_narrow_a_zone() -> None:
    """Planted: streaks left out of the model (a zone of 2.5 mm beside +250 HU reads 2.28 mm)."""
    volume, shaft = _streaked(2.5, 250.0)
    fit = fit_halo(Windows(volume), shaft, around(shaft), Blur.from_fwhm(0.8, 1.0))
    assert fit is not None
    assert _median(fit) == pytest.approx(2.5, abs=0.12)


def test_another_map_that_fits_as_well_widens_the_interval() -> None:
    """Planted: the better map's interval alone."""
    settings = HaloSettings()
    costs = 40.0 * np.square(np.array(_SHIFTS_MM)) * settings.together
    near = _interval(costs, [(1.5, 1e-9)], settings)
    assert near == pytest.approx((-1.645 / np.sqrt(40), 0.0, 1.645 / np.sqrt(40)), abs=0.05)
    low, middle, high = _interval(costs, [(1.5, 1.0)], settings)
    assert low == pytest.approx(near[0], abs=0.08)
    assert middle == pytest.approx(0.0, abs=0.02)
    assert high == pytest.approx(1.5 + 1.28 / np.sqrt(40), abs=0.05)


def _trial(cost: float, *, even: bool, wide: bool, prior: float = 0.25, covered: float = 0.0) -> Trial:
    solution = Solution(cost, np.zeros(0), 150.0, 30.0, 0.0, np.zeros(0))
    return Trial(np.zeros(1), solution, even, covered, wide, float(np.log(prior)))


def test_odds_are_those_of_all_forms_together() -> None:
    """Half a difference of misfit, damped, with what was likely before. Planted: the best form of each kind alone."""
    forms = [
        _trial(10.0, even=True, wide=False),
        _trial(16.0, even=True, wide=True),
        _trial(16.0, even=False, wide=True, prior=0.5),
    ]
    assert odds(forms, 1.5) == pytest.approx(-6 / 3 + np.log(3))
    assert odds(forms[:1], 1.5) < -100
    assert odds(forms[1:], 1.5) > 100


def test_odds_of_a_part_are_those_of_the_best_forms() -> None:
    """Planted: what is wide over half the surface left out of them."""
    none, part = _trial(16.0, even=True, wide=False), _trial(13.0, even=False, wide=False, covered=0.2)
    much = _trial(10.0, even=False, wide=True, covered=0.6)
    assert part_odds([none, part], 1.5) == pytest.approx(1.0)
    assert part_odds([none, part, much], 1.5) == pytest.approx(2.0)
    assert part_odds([none], 1.5) < -100
    assert part_odds([much], 1.5) > 100


def test_a_zone_around_a_quarter_of_the_screw_is_seen_in_the_odds() -> None:
    """Noise keeps most of it out of the map. Planted: the quarters not tried (0.4)."""

    def quarter(depth: FloatArray, angle: FloatArray) -> FloatArray:
        return np.where((depth > 20) & (np.abs(angle - 2.3) < 1.2), 2.0, 0.0)

    assert _fit(0.0, noise_hu=110.0, width_of=quarter).part_evidence > 5
    assert _fit(0.0, noise_hu=110.0).part_evidence < 0


def test_the_fit_begins_from_both_kinds_of_forms_unless_one_is_far_likelier() -> None:
    """Planted: the form that is as wide everywhere left out."""
    narrow = _trial(10.0, even=True, wide=False)
    wide, even = _trial(12.0, even=False, wide=True), _trial(14.0, even=True, wide=True)
    assert starts([narrow, even, wide], 0.0) == [(narrow, narrow), (wide, wide), (even, wide)]
    assert starts([narrow, even], 0.0) == [(narrow, narrow), (even, even)]
    assert starts([narrow, even, wide], 20.0) == [(wide, wide), (even, wide)]
    assert starts([narrow, even, wide], -20.0) == [(narrow, narrow)]


def test_cortex_that_ends_a_zone_does_not_speak_for_a_narrow_one() -> None:
    """Walls 1.2 mm from the thread end the zone at two sides of the rear half; elsewhere it is 2 mm wide.

    Planted: pieces beside those walls left in the fit (the evidence is 21).
    """

    def zone(depth: FloatArray, angle: FloatArray) -> FloatArray:
        to_the_wall = 4.2 / np.maximum(np.abs(np.cos(angle)), 0.1) - 3.0
        return np.where(depth < 20, np.minimum(2.0, to_the_wall), 2.0)

    def fit(noise_hu: float) -> HaloFit:
        volume, shaft = volume_with_screw(2.0, walls_mm=1.2, bone_hu=90.0, noise_hu=noise_hu, width_of=zone)
        found = fit_halo(Windows(volume), shaft, around(shaft), Blur.from_fwhm(0.8, 1.0))
        assert found is not None
        return found

    quiet = fit(40.0)
    assert np.median(quiet.width_mm[quiet.known]) == pytest.approx(2.0, abs=0.12)
    assert fit(60.0).evidence > 28


def test_a_zone_that_widens_towards_the_tip() -> None:
    """Planted: rows of the map counted from the tip."""
    fit = _fit(0.0, width_of=lambda depth, angle: np.clip(3.0 * depth / 40.0, 0, 3))
    rows = np.median(fit.width_mm, axis=1)
    front = fit.cells.centers_mm > 18
    assert rows[front] == pytest.approx(3.0 * fit.cells.centers_mm[front] / 40.0, abs=0.35)


def test_a_zone_on_the_cranial_side_lies_at_90_degrees() -> None:
    """Planted: left and cranial swapped in the map."""
    fit = _fit(0.0, width_of=lambda depth, angle: np.where(np.abs(angle - np.pi / 2) < 1.3, 2.0, 0.0))
    front = fit.cells.centers_mm > 18
    around_it = np.median(fit.width_mm[front], axis=0)
    angles = fit.cells.centers_deg
    assert np.median(around_it[np.abs(angles - 90) <= 45]) == pytest.approx(2.0, abs=0.4)
    assert np.median(around_it[np.abs(angles - 270) <= 45]) < 0.8


def test_bone_around_the_screw() -> None:
    assert _fit(1.0, bone_hu=180.0).trajectory_hu == pytest.approx(180.0, abs=5)


def test_no_fit_without_voxels() -> None:
    volume, shaft = volume_with_screw(1.0)
    wall = Metal((*around(shaft).cylinders, Cylinder(np.array([0.0, 0, 0]), np.array([30.0, 50, 30]), 40.0)))
    assert fit_halo(Windows(volume), shaft, wall, Blur.from_fwhm(0.8, 1.0)) is None


def test_blurred_disc_against_a_blurred_picture() -> None:
    """Planted: both standard deviations swapped."""
    step, s1, s2, radius = 0.05, 0.35, 0.8, 2.5
    line = (np.arange(241) - 120) * step
    solid = (np.hypot(line[:, None], line[None]) < radius).astype(float)
    picture = ndimage.gaussian_filter(solid, [s1 / step, s2 / step])
    x, y = np.array([0.0, 2.4, 2.9, 0.3, 0.0, 2.0]), np.array([0.0, 0.0, 0.5, 2.6, 3.4, 2.0])
    row, column = np.round(x / step).astype(int) + 120, np.round(y / step).astype(int) + 120
    assert blurred_disc(radius, x, y, s1, s2) == pytest.approx(picture[row, column], abs=0.01)
    tables = DiscTables.build(np.array([2.0, 2.5, 3.0]), (0.0, 4.0), s1, s2)
    assert tables.at(radius, x, y) == pytest.approx(picture[row, column], abs=0.015)


def test_back_projection_of_short_paths_is_the_metal_itself() -> None:
    """For paths much shorter than l, l (1 - exp(-L/l)) is L, whose back-projection is the blurred metal.

    Planted: the ramp without its factor pi / views.
    """
    from spineimg.implants.hardening import HardeningSettings

    geometry = Geometry.from_affine(
        (40, 100, 100), np.array([[0, 0, 0.4, -20], [0, 0.4, 0, -20], [1.0, 0, 0, -20], [0, 0, 0, 1]])
    )
    cylinder = Cylinder(np.array([4.0, 20, -2]), np.array([-3.0, -22, 2]), 3.0)
    blur = Blur.from_fwhm(0.9, 1.2)
    axis = cylinder.end_lps_mm - cylinder.start_lps_mm
    b1, b2 = cross_axes(axis, geometry.normal_lps)
    x, y = np.array([0.0, 1.0, 2.9, 0.0, 5.0]), np.array([0.0, 1.0, 0.3, 3.1, 2.0])
    middle = (cylinder.start_lps_mm + cylinder.end_lps_mm) / 2
    points = middle + x[:, None] * b1 + y[:, None] * b2
    long = HardeningSettings(lengths_mm=(1e5,), ray_mm=0.2)
    found = 1e5 * hardening_basis(points, Metal((cylinder,)), geometry, blur, long)[:, 0]
    sds = blur.along(b1, geometry.normal_lps), blur.along(b2, geometry.normal_lps)
    assert found == pytest.approx(blurred_disc(3.0, x, y, *sds), abs=0.06)


def test_voxels_of_other_metal_count_like_a_cylinder() -> None:
    """Planted: each voxel's area left out."""
    geometry = Geometry.from_affine(
        (40, 100, 100), np.array([[0, 0, 0.4, -20], [0, 0.4, 0, -20], [1.0, 0, 0, -20], [0, 0, 0, 1]])
    )
    upright = Cylinder(np.array([3.0, 2, -15]), np.array([3.0, 2, 15]), 2.75)
    grid = np.stack(np.meshgrid(np.arange(40), np.arange(100), np.arange(100), indexing="ij"), axis=-1).reshape(-1, 3)
    places = geometry.lps_at(grid)
    inside = (np.hypot(places[:, 0] - 3, places[:, 1] - 2) < 2.75) & (np.abs(places[:, 2]) < 15)
    points = np.array([[3.0, 2, 0], [3.0, 3, 0], [4.0, 2, 1]])
    blur = Blur.from_fwhm(0.9, 1.2)
    solid = hardening_basis(points, Metal((upright,)), geometry, blur)
    voxels = hardening_basis(points, Metal((), places[inside], 0.16, 1.0), geometry, blur)
    assert voxels == pytest.approx(solid, rel=0.08)


def test_shell_voxels_lie_where_they_say() -> None:
    volume, shaft = volume_with_screw(0.0)
    frame = ShaftFrame.of(shaft, volume.geometry.normal_lps)
    found = shell_voxels(Windows(volume), shaft, frame, (3.0, 5.0), (5.0, 30.0))
    way = found.points_lps_mm - frame.head_lps_mm
    depth = way @ frame.axis
    assert depth == pytest.approx(found.depth_mm)
    assert np.linalg.norm(way - depth[:, None] * frame.axis, axis=1) == pytest.approx(found.distance_mm)
    assert found.distance_mm.min() >= 3
    assert found.distance_mm.max() <= 5
    index = np.round(volume.geometry.index_at(found.points_lps_mm)).astype(int)
    assert found.hu[::100] == pytest.approx([volume.read(k)[r, c] for k, r, c in index[::100]])
    up = np.array([0.0, 0.0, 1.0])
    cranial = way @ up - depth * (frame.axis @ up) > 2.5
    assert np.abs(np.degrees(found.angle_rad[cranial]) - 90).max() < 62


def test_cells_number_and_spread_agree() -> None:
    cells = Cells.cover((1.5, 35.0), 4.0, 12)
    depth, angle = np.meshgrid(cells.centers_mm, np.radians(cells.centers_deg), indexing="ij")
    assert np.array_equal(cells.number(depth.ravel(), angle.ravel()), np.arange(cells.count))
    values = np.random.default_rng(3).random((cells.depths, cells.sectors))
    assert cells.spread(values, depth.ravel(), angle.ravel()) == pytest.approx(values.ravel())
