"""The phantom after surgery: shapes, halos, their truth, and the image they give."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from spineimg.errors import SpineImgError
from spineimg.geometry import Geometry
from spineimg.phantom import (
    Beam,
    Change,
    Imaging,
    Lucency,
    Phantom,
    PostopSpec,
    RodSpec,
    ScrewSpec,
    SpineSpec,
    Storage,
    truth_json,
    varied_postop,
)
from spineimg.phantom.hybrid import HybridScrew, HybridSettings, with_implants
from spineimg.phantom.implant_truth import equivalent_diameter_mm
from spineimg.phantom.implants import Shaft, Tube, bent_rod
from spineimg.phantom.samples import Points
from spineimg.volume import ArraySource, CTVolume

BEAM = Beam(views=240)
SCREWS = (
    ScrewSpec("L2", "left", 6.5, lucency=Lucency(2.0)),
    ScrewSpec("L2", "right", 6.5, gap_mm=3.0, kink_deg=4.0),
    ScrewSpec("L3", "left", 6.5, lucency=Lucency(2.0, "half", facing_deg=90.0)),
    ScrewSpec("L3", "right", 6.5, lucency=Lucency(2.0, "tip cone", rim_mm=0.8)),
)


def phantom(screws: tuple[ScrewSpec, ...] = SCREWS, seed: int = 0, margin_mm: float = -16.0, **more: object) -> Phantom:
    spine = SpineSpec(("L1", "L2", "L3", "L4"), {level: Change(hu=150.0) for level in ("L2", "L3")}, seed)
    imaging = Imaging((112, 112), 0.8, spacing_mm=2.0, thickness_mm=2.0, margin_mm=margin_mm, offset_mm=(0.0, 14.0))
    metal = PostopSpec(screws, **{"beam": BEAM, "rods": (RodSpec("left"), RodSpec("right", gap_mm=4.0)), **more})  # type: ignore[arg-type]
    return Phantom(spine, imaging, Storage(intercept=-8192, bits=16), ("L2", "L2"), metal, seed, "small")


@pytest.fixture(scope="module")
def made() -> Phantom:
    return phantom(margin_mm=-7.0)


@pytest.fixture(scope="module")
def image(made: Phantom) -> np.ndarray:
    return made.hu(noise=False)


@pytest.fixture(scope="module")
def truth(made: Phantom) -> dict[str, dict]:
    return {s["id"]: s for s in json.loads(json.dumps(truth_json(made, {})))["screws"]}


def along(shaft: Shaft, depth_mm: float, away_mm: np.ndarray, angle_deg: float) -> np.ndarray:
    """(n, 3) points at a depth, distances from the axis and an angle."""
    axis, left, cranial = shaft.axes
    turn = np.radians(angle_deg)
    across = np.cos(turn) * left + np.sin(turn) * cranial
    return shaft.head_lps_mm + depth_mm * axis + away_mm[:, None] * across


# -- shapes -----------------------------------------------------------------------------------------------------------


def test_a_thread_has_the_volume_of_its_equivalent_cylinder() -> None:
    """Planted: the thread's root taken for its depth. Occupied fraction of a cylinder against the stated diameter."""
    shaft = Shaft(np.zeros(3), np.array([3.0, -40.0, 5.0]), 6.5, 0.8, 2.7, 0.3)
    random = np.random.default_rng(0)
    depth, away = random.uniform(5, 5 + 8 * 2.7, 40_000), 3.3 * np.sqrt(random.random(40_000))
    angle = random.uniform(0, 360, 40_000)
    axis, left, cranial = shaft.axes
    turn = np.radians(angle)[:, None]
    points = depth[:, None] * axis + away[:, None] * (np.cos(turn) * left + np.sin(turn) * cranial)
    inside = (shaft.distances(Points(points))[0] < 0).mean() * 3.3**2
    assert 2 * np.sqrt(inside) == pytest.approx(equivalent_diameter_mm(shaft), abs=0.03)
    assert 5.3 < equivalent_diameter_mm(shaft) < 5.8
    assert equivalent_diameter_mm(replace(shaft, thread_mm=0.0)) == pytest.approx(6.5)


def test_distance_outside_a_shaft_is_true_distance() -> None:
    """Planted: the cone's distance measured across the axis, 20 % too far. Against points on the surface."""
    shaft = Shaft(np.zeros(3), np.array([0.0, -40.0, 0.0]), 6.0)
    depth = np.concatenate([np.linspace(0, 40, 4001), np.full(200, 40.0)]).astype(np.float32)
    radius = np.concatenate([shaft.envelope(depth[:4001]), np.linspace(0, 0.8, 200)])
    for at, away in ((20.0, 4.5), (37.0, 3.5), (41.5, 0.2), (39.5, 2.5), (41.0, 2.0)):
        nearest = np.hypot(depth - at, radius - away).min()
        found = shaft.outside(np.array([at], np.float32), np.array([away], np.float32))
        assert found[0] == pytest.approx(nearest, abs=0.02), (at, away)


def test_a_rod_runs_through_its_seats_and_breaks_with_a_kink() -> None:
    """Planted: the gap counted from one side only."""
    seats = [np.array([30.0, y, z]) for y, z in ((0.0, 60.0), (3.0, 30.0), (1.0, 0.0))]
    whole = Tube(bent_rod(seats, RodSpec("left")).lines[0], 5.5)
    np.testing.assert_allclose(whole.distances(Points(np.array(seats)))[0], -2.75, atol=0.05)
    broken = bent_rod(seats, RodSpec("left", gap_mm=2.0, gap_after=1, kink_deg=10.0))
    assert broken.gap is not None
    upper, lower = broken.lines
    assert np.linalg.norm(upper[-1] - lower[0]) == pytest.approx(2.0, abs=0.02)
    first, second = upper[-1] - upper[-2], lower[1] - lower[0]
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert np.degrees(np.arccos(cosine)) == pytest.approx(10, abs=0.5)
    for line in (upper, lower):
        middle = Points(broken.gap.center_lps_mm[None])
        assert Tube(line, 5.5).distances(middle)[0][0] == pytest.approx(1.0, abs=0.03)
    with pytest.raises(SpineImgError, match="cannot break"):
        bent_rod(seats, RodSpec("left", gap_mm=2.0, gap_after=3))
    with pytest.raises(SpineImgError, match="two screws"):
        bent_rod(seats[:1], RodSpec("left"))


# -- halos ------------------------------------------------------------------------------------------------------------


def test_the_painted_zone_ends_where_the_truth_says(made: Phantom) -> None:
    """Planted: the width measured from the core of the thread. Half level of the blurred field, without metal."""
    assert made.implants is not None
    screw = made.implants.screws[0]
    away = np.arange(3.4, 7.0, 0.05)
    for depth in (26.0, 30.0):
        hu = made.blurred_hu(along(screw.shaft, depth, away, 180.0))
        bone = hu[-12:].mean()
        edge = np.interp((40 + bone) / 2, hu, away)
        assert hu[(away > 4) & (away < 4.4)].mean() == pytest.approx(40, abs=4)
        assert edge == pytest.approx(3.25 + 2.0, abs=0.12)


def test_map_follows_the_form_of_the_halo(truth: dict[str, dict]) -> None:
    """Planted: depth counted from the tip; and the angle turned the wrong way."""
    uniform, half, cone = (truth[name]["halo"] for name in ("L2-left", "L3-left", "L3-right"))
    width, bone = np.array(uniform["width_map_mm"]), np.array(uniform["in_bone"], bool)
    assert np.median(width[bone]) == pytest.approx(2.0, abs=0.03)
    assert uniform["coverage_over_1mm"] > 0.7
    assert uniform["axial_extent_mm"] > 15
    width, angle = np.array(half["width_map_mm"]), np.array(half["angles_deg"])
    body = np.array(half["depths_mm"]) > 25
    assert (width[body][:, (angle > 110) & (angle < 160)] > 1.8).all()
    assert (width[:, (angle > 200) & (angle < 340)] < 0.05).all()
    width, depth = np.array(cone["width_map_mm"]), np.array(cone["depths_mm"])
    free = (depth > 25) & (depth < 36)
    length = truth["L3-right"]["length_mm"]
    np.testing.assert_allclose(np.median(width[free], axis=1), 2.0 * depth[free] / length, atol=0.05)
    assert truth["L2-right"]["halo"]["width_median_mm"] == 0


def test_screws_lie_in_bone(made: Phantom, truth: dict[str, dict]) -> None:
    for screw in truth.values():
        inside = np.array(screw["halo"]["in_bone"])
        assert inside[np.array(screw["halo"]["depths_mm"]) > 18].mean() > 0.9, screw["id"]
    with pytest.raises(SpineImgError, match="no screws for T5"):
        _ = phantom((ScrewSpec("T5", "left"),)).parts


# -- image ------------------------------------------------------------------------------------------------------------


def test_metal_lies_where_the_truth_says(made: Phantom, image: np.ndarray, truth: dict[str, dict]) -> None:
    """Planted: rows and columns of the projection swapped; the metal lay mirrored. Centroids across the shaft."""
    from scipy.ndimage import map_coordinates

    assert made.implants is not None
    shaft = made.implants.screws[0].shaft
    grid = np.linspace(-6, 6, 61)
    away = []
    # The thread pulls the middle of one cross-section aside; over one turn it does not.
    for depth in 14.0 + 2.75 * np.arange(8) / 4:
        _, left, cranial = shaft.axes
        center = shaft.head_lps_mm + depth * shaft.axes[0]
        points = center + grid[:, None, None] * left + grid[None, :, None] * cranial
        index = made.geometry.index_at(points.reshape(-1, 3))
        hu = map_coordinates(image, index.T, order=1).reshape(61, 61)
        weight = np.clip(hu - 1000, 0, None)
        away.append([weight.sum(axis=1) @ grid / weight.sum(), weight.sum(axis=0) @ grid / weight.sum()])
        assert 5500 < hu[28:33, 28:33].mean() < 8000
    assert np.abs(np.mean(away, axis=0)).max() < 0.1
    assert truth["L2-left"]["length_mm"] == pytest.approx(shaft.length_mm, abs=0.01)


def test_a_broken_screw_has_a_gap(made: Phantom, image: np.ndarray, truth: dict[str, dict]) -> None:
    """Planted: both parts ran through."""
    from scipy.ndimage import map_coordinates

    assert made.implants is not None
    screw = made.implants.screws[1]
    depth = screw.shaft.length_mm * np.array([0.3, 0.5])
    points = screw.shaft.head_lps_mm + depth[:, None] * screw.shaft.axes[0]
    whole, gap = map_coordinates(image, made.geometry.index_at(points).T, order=1)
    assert gap < 0.55 * whole
    assert truth["L2-right"]["gaps"][0]["width_mm"] == 3.0
    turned = np.array(truth["L2-right"]["tip"]) - screw.shaft.tip_lps_mm
    assert np.linalg.norm(turned) == pytest.approx(2 * np.sin(np.radians(2)) * screw.shaft.length_mm / 2, abs=0.02)


def test_slices_far_from_metal_are_those_without(made: Phantom) -> None:
    """Planted: a profile twice as wide; and one seed, one image."""
    assert made.metal_scene is not None
    few = replace(made, metal=PostopSpec((ScrewSpec("L2", "left"),), (), beam=BEAM))
    assert few.metal_scene is not None
    seen = [p is not None for p in few.metal_scene.projections(noise=False)]
    positions = made.geometry.origins_lps_mm[:, 2]
    z = [s.bounds_lps_mm[:, 2] for s in few.implants.shapes["titanium"]]  # type: ignore[union-attr]
    low, high = min(b[0] for b in z), max(b[1] for b in z)
    for position, some in zip(positions, seen, strict=True):
        if position < low - 2 or position > high + 2:
            assert not some
    assert any(seen)


def test_one_seed_one_image_and_kernels_that_overshoot() -> None:
    """Planted: noise drawn without the seed. One slice's worth of spine keeps this quick."""
    kinds = ((1, 0.0), (1, 0.0), (2, 0.0), (1, 0.4))
    specs = [phantom(SCREWS[:1], seed, sharpen=gain, rods=()) for seed, gain in kinds]
    first, again, other, sharp = (next(p.slices()) for p in specs)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert sharp.max() > first.max() + 200
    assert sharp.min() < first.min() - 200
    assert specs[3].acquisition.sharpness != specs[0].acquisition.sharpness


def test_artefact_reduction_takes_streaks_and_detail() -> None:
    """Planted: metal voxels not put back."""
    screws = (ScrewSpec("L2", "left", 6.5, lucency=Lucency(2.0)), ScrewSpec("L2", "right", 6.5))
    plain, reduced = (phantom(screws, reduction=on, rods=(), margin_mm=-14.5) for on in (False, True))
    one, two = (next(p.slices(noise=False)) for p in (plain, reduced))
    metal = one > 2000
    assert metal.any()
    np.testing.assert_allclose(two[metal], one[metal])
    assert two.min() > one.min() + 150


# -- at random --------------------------------------------------------------------------------------------------------


def test_random_phantoms_follow_their_seed_and_vary() -> None:
    """Planted: the generator ignored its seed."""
    some = [varied_postop(seed) for seed in range(60)]
    specs = [p.metal for p in some]
    again = varied_postop(7)
    assert again.metal == specs[7]
    assert again.imaging == some[7].imaging
    assert all(isinstance(spec, PostopSpec) for spec in specs)
    screws = [s for spec in specs if isinstance(spec, PostopSpec) for s in spec.screws]
    assert 0.35 < np.mean([s.lucency.width_mm == 0 for s in screws]) < 0.65
    assert len({spec.material for spec in specs if isinstance(spec, PostopSpec)}) == 3
    assert {s.lucency.form for s in screws} == {"uniform", "tip cone", "head cone", "double cone", "half"}
    assert {p.storage.clip_high for p in some} == {True, False}


# -- in a real CT -----------------------------------------------------------------------------------------------------


def test_a_screw_put_into_a_volume() -> None:
    """Planted: head and tip swapped with the halo's cone; and the halo painted over slices it does not touch."""
    random = np.random.default_rng(5)
    hu = np.full((14, 128, 128), -1000.0, np.float32)
    row, column = np.mgrid[:128, :128] - 63.5
    hu[:, np.hypot(row, column * 0.8) < 50] = 120.0
    hu += random.normal(0, 8, hu.shape).astype(np.float32)
    geometry = Geometry.from_affine(hu.shape, [[0, 0, 1.0, -60.0], [0, 1.0, 0, -60.0], [1.5, 0, 0, 10.0], [0, 0, 0, 1]])
    volume = CTVolume(geometry, ArraySource(hu))
    spec = ScrewSpec("L3", "left", 6.5, lucency=Lucency(2.5))
    screw = HybridScrew(spec, (8.0, 20.0, 21.0), (2.0, -22.0, 20.0))
    settings = HybridSettings(BEAM, noise_sd_hu=8.0)
    steps: list[int] = []
    made = with_implants(volume, [screw], settings=settings, progress=lambda done, _: steps.append(done))
    after = np.stack([made.volume.read(k) for k in range(14)])
    assert steps == list(range(1, 15))
    assert after.max() == 3071
    np.testing.assert_allclose(after[13], np.rint(hu[13]), atol=1)
    truth = made.truth["screws"][0]
    assert truth["halo"]["width_median_mm"] == pytest.approx(2.5, abs=0.05)
    assert np.mean(truth["halo"]["in_bone"]) > 0.95
    at = geometry.index_at(np.array([[5.0, -1.0, 20.5 + 4.6]]))[0].round().astype(int)
    assert after[at[0], at[1], at[2]] < hu[at[0], at[1], at[2]]
    with pytest.raises(SpineImgError, match="outside the volume"):
        with_implants(volume, [replace(screw, tip_lps_mm=(0.0, -22.0, 200.0))], settings=settings)
    with pytest.raises(SpineImgError, match="no diameter"):
        with_implants(volume, [replace(screw, spec=ScrewSpec("L3", "left"))], settings=settings)
