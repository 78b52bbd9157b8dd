"""The spine's truth against formulas and against the image."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from spineimg.anatomy import Construct
from spineimg.errors import SpineImgError
from spineimg.phantom import (
    RECIPES,
    Change,
    Imaging,
    Phantom,
    SpineSpec,
    Storage,
    body_truth,
    ellipses,
    make_phantom,
    roi_json,
    roi_set,
    truth_json,
    varied_phantom,
)
from spineimg.phantom.metal import MetalSpec, screws
from spineimg.phantom.parts import Body, Endplate
from spineimg.phantom.samples import Frame, Points
from spineimg.phantom.spine import body_outline, rim_plane, rim_points
from spineimg.phantom.truth import endplate_plane
from tests.phantom.plain_shapes import SMALL

SCAN = Imaging(size=(120, 110), pixel_mm=0.7, noise_sd_hu=0.0, spacing_mm=1.5, thickness_mm=2.0, margin_mm=3.0)


@pytest.fixture(scope="module")
def small() -> Phantom:
    return Phantom(SMALL, SCAN, cover=("L3", "L3"))


@pytest.fixture(scope="module")
def image(small: Phantom) -> np.ndarray:
    return small.hu()


def _body(superior: Endplate, inferior: Endplate) -> Body:
    frame = Frame(np.array([5.0, -80.0, 200.0]), *np.eye(3))
    return Body(frame, body_outline(44, 34, dent=0.0), 12.0, superior, inferior, 0.88, 0.3)


# -- planes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concavity", [0.0, 1.5, 3.0])
def test_endplate_plane_of_a_known_hollow(concavity: float) -> None:
    """The hollow c (1 - q²) has the mean 0.65 c over the central 70 % of the area (0 <= q² <= 0.7).

    Planted: the central 70 % of the radius (mean 0.755 c).
    """
    plane = endplate_plane(_body(Endplate(12.0, concavity_mm=concavity), Endplate(12.0)), superior=True)
    at_center = plane.point_lps_mm[2] - 200.0
    lean = plane.normal_lps[:2]
    # The outline is squarer behind than in front, which leans the plane of a hollow a little.
    assert np.degrees(np.abs(lean)).max() < 1.0 if concavity else np.abs(lean).max() < 1e-6
    assert at_center == pytest.approx(12.0 - 0.65 * concavity, abs=0.02)


def test_endplate_plane_leans_as_its_rim() -> None:
    superior = Endplate(12.0, tilt_left=0.05, tilt_posterior=0.12)
    plane = endplate_plane(_body(superior, Endplate(12.0)), superior=True)
    expected = np.array([-0.05, -0.12, 1.0]) / np.sqrt(1 + 0.05**2 + 0.12**2)
    np.testing.assert_allclose(plane.normal_lps, expected, atol=1e-5)
    below = endplate_plane(_body(superior, Endplate(11.0, tilt_posterior=0.1)), superior=False)
    np.testing.assert_allclose(below.normal_lps, [0, 0.1 / np.sqrt(1.01), 1 / np.sqrt(1.01)], atol=1e-5)


def test_wedge_and_height_of_a_body() -> None:
    """Front lower by 0.1 + 0.08 per mm of depth: wedge = atan 0.1 + atan 0.08. Planted: the wedge's sign."""
    vertebra = Phantom(SMALL).vertebra("L3")
    body = _body(Endplate(12.0, tilt_posterior=0.1), Endplate(11.0, tilt_posterior=0.08))
    truth = body_truth(replace(vertebra, body=body))
    assert truth.wedge_deg == pytest.approx(np.degrees(np.arctan(0.1) + np.arctan(0.08)), abs=1e-3)
    assert truth.height_mm == pytest.approx(23.0, abs=0.02)
    assert truth.width_mm == pytest.approx(44.0, abs=0.1)
    half = (np.arctan(0.1) - np.arctan(0.08)) / 2
    assert truth.frame.cranial_lps[1] == pytest.approx(-np.sin(half), abs=1e-4)


def test_planes_match_the_surface_in_the_image(small: Phantom) -> None:
    """The outer surface, found as the zero of the body's signed distance, gives the same planes as the truth."""
    vertebra = small.vertebra("L3")
    truth = body_truth(vertebra)
    random = np.random.default_rng(1)
    angle, part = random.uniform(-np.pi, np.pi, 4000), np.sqrt(random.uniform(0, 0.7, 4000))
    index = ((angle + np.pi) / (2 * np.pi) * 4096).astype(int) % 4096
    radius = vertebra.body.outline.radius_mm[index] * part
    weight = vertebra.body.outline.radius_mm[index] ** 2
    across = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    heights = np.linspace(6, 16, 201)
    local = np.concatenate([np.repeat(across, 201, axis=0), np.tile(heights, 4000)[:, None]], axis=1)
    outside = vertebra.body.surfaces(Points(vertebra.frame.lps(local)))[1].reshape(4000, 201)
    surface = heights[np.argmax(outside > 0, axis=1)]
    columns = np.column_stack([across, np.ones(4000)]) * np.sqrt(weight)[:, None]
    fit, *_ = np.linalg.lstsq(columns, surface * np.sqrt(weight), rcond=None)
    normal = np.array([-fit[0], -fit[1], 1]) @ vertebra.frame.axes
    cosine = normal @ truth.superior.normal_lps / np.linalg.norm(normal)
    assert np.degrees(np.arccos(min(1.0, cosine))) < 0.2
    on_axis = vertebra.frame.lps([0, 0, fit[2]])
    assert (on_axis - truth.superior.point_lps_mm) @ truth.superior.normal_lps == pytest.approx(0, abs=0.06)


# -- layout -----------------------------------------------------------------------------------------------------------


def _all_phantoms() -> list[Phantom]:
    return [make_phantom(name, seed=2) for name in RECIPES] + [varied_phantom(seed) for seed in range(30)]


def test_bodies_never_touch() -> None:
    for phantom in _all_phantoms():
        for upper, lower in zip(phantom.layout, phantom.layout[1:], strict=False):
            point, normal = rim_plane(lower.body, superior=True)
            assert ((rim_points(upper.body, superior=False) - point) @ normal).min() > 0.35, phantom.name


def test_discs_have_their_height_and_state() -> None:
    """The disc is as high between the planes as its level's table says; a narrow one 2.5 mm."""
    phantom = Phantom(replace(SMALL, changes={"L3": Change(disc_below="narrow")}, lordosis=0.3))
    first, second = truth_json(phantom, {})["discs"]
    assert first["between"] == ["L2", "L3"]
    assert first["height_mm"] == pytest.approx(9.0, abs=0.2)
    assert (first["state"], second["state"]) == ("normal", "narrow")
    assert second["height_mm"] == pytest.approx(2.5, abs=0.8)


def test_anatomy_lies_where_it_should() -> None:
    """Left is +x, the canal behind, pedicles at the upper half, levels from head to foot."""
    phantom = make_phantom("preop")
    centers = np.array([body_truth(v).frame.center_lps_mm for v in phantom.layout])
    assert (np.diff(centers[:, 2]) < 0).all()
    truth = truth_json(phantom, {})
    canal = np.array(truth["canal"])
    assert ((canal - centers)[:-3, 1] > 15).all()
    l2 = phantom.vertebra("L2")
    inside = {
        "canal": phantom.blurred_hu(l2.frame.lps([0.0, 25.0, 0.0])),
        "pedicle": phantom.blurred_hu(l2.frame.lps([16.3, 21.0, 4.5])),
        "below the pedicle": phantom.blurred_hu(l2.frame.lps([16.3, 21.0, -9.5])),
    }
    assert inside["canal"] == pytest.approx(20, abs=1)
    assert inside["pedicle"] > 150
    assert inside["below the pedicle"] < 100


def test_scoliosis_tilts_bodies_up_to_25_degrees() -> None:
    phantom = make_phantom("scoliosis")
    tilts = [np.degrees(np.arcsin(v.frame.cranial_lps[0])) for v in phantom.layout]
    assert max(tilts) == pytest.approx(25, abs=1)
    assert min(tilts) == pytest.approx(-25, abs=1)


def test_fracture_lowers_the_front() -> None:
    whole = body_truth(Phantom(SMALL).vertebra("L3"))
    broken = body_truth(Phantom(replace(SMALL, changes={"L3": Change(wedge=0.25)})).vertebra("L3"))
    assert broken.wedge_deg - whole.wedge_deg == pytest.approx(np.degrees(np.arctan(0.25 * 23.8 / 35.2)), abs=0.7)
    assert whole.height_mm - broken.height_mm == pytest.approx(0.125 * 23.8, abs=0.3)


@pytest.mark.parametrize(
    ("levels", "reason"),
    [((), "none"), (("L3", "L1"), "head to foot"), (("T12", "L2"), "gap"), (("C7", "T1"), "C7"), (("L9",), "L9")],
)
def test_impossible_spines_are_refused(levels: tuple[str, ...], reason: str) -> None:
    with pytest.raises(SpineImgError, match=reason):
        SpineSpec(levels)


def test_changes_for_strangers_are_refused() -> None:
    with pytest.raises(SpineImgError, match="T3"):
        SpineSpec(("L1", "L2"), {"T3": Change(hu=100)})


def test_odd_numbers_of_vertebrae_are_allowed() -> None:
    for levels in [("T11", "L1"), ("T12", "T13", "L1"), ("L5", "L6"), ("T1", "T2")]:
        assert [v.level for v in Phantom(SpineSpec(levels)).layout][: len(levels)] == list(levels)


# -- HU ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hu", [50.0, 127.0, 240.0])
def test_interior_has_the_planted_mean(hu: float) -> None:
    """Planted: the texture's own mean left in (2-4 HU off)."""
    phantom = Phantom(replace(SMALL, changes={"L3": Change(hu=hu)}), SCAN, cover=("L3", "L3"))
    assert phantom.tissue_mean_hu("L3") == pytest.approx(hu, abs=0.01)
    assert phantom.region_mean_hu("L3") == pytest.approx(hu, abs=0.01 * hu)


def test_voxels_of_a_roi_have_the_true_mean(small: Phantom, image: np.ndarray) -> None:
    """The image's voxels in a scanner ellipse against the continuous model. Planted: ellipse axes swapped."""
    geometry = small.geometry
    row, column = np.mgrid[: image.shape[1], : image.shape[2]]
    for ellipse in ellipses(small, "L3", "scanner"):
        k, away = geometry.nearest_slice(ellipse.center_lps_mm)
        assert away < 1e-6
        points = geometry.lps_at(np.stack([np.full(row.shape, k), row, column], axis=-1)) - ellipse.center_lps_mm
        a, b = ellipse.semi_axes_mm
        inside = (points @ ellipse.u_lps / a) ** 2 + (points @ ellipse.v_lps / b) ** 2 <= 1
        assert image[k][inside].mean() == pytest.approx(small.true_mean_hu(ellipse), abs=0.3)
        assert small.true_mean_hu(ellipse) == pytest.approx(small.tissue_mean_hu("L3", ellipse), abs=0.5)


def test_no_region_has_one_single_value(small: Phantom, image: np.ndarray) -> None:
    """Trabecular bone varies by 10-15 % before noise, disc and muscle too."""
    filling = small.filling("L3")
    inside = filling(filling.interior_points())
    assert 0.10 < inside.std() / inside.mean() < 0.18
    for patch in np.array_split(image[len(image) // 2].ravel(), 40):
        values, counts = np.unique(patch[patch > -900], return_counts=True)
        assert not len(values) or counts.max() < 0.5 * counts.sum()


def test_vein_and_lesions_are_there() -> None:
    changes = {"L3": Change(hu=150.0, lytic_radius_mm=5.0)}
    phantom = Phantom(replace(SMALL, changes=changes), SCAN, cover=("L3", "L3"))
    vertebra, filling = phantom.vertebra("L3"), phantom.filling("L3")
    (lytic,) = filling.spots
    assert filling(Points(vertebra.frame.lps([lytic.center_mm])))[0] == pytest.approx(45, abs=1)
    assert filling(Points(vertebra.frame.lps([[0, vertebra.wall_posterior_mm * 0.75, 0]])))[0] == pytest.approx(
        20, abs=3
    )


def test_osteoporotic_bone_is_as_soft_as_the_disc() -> None:
    phantom = make_phantom("osteoporotic")
    assert phantom.filling("L3").mean_hu < phantom.spine.disc_hu


def test_contrast_is_in_the_aorta_and_not_in_the_vein() -> None:
    """The aorta lies in front on the patient's left. Planted: the aorta mirrored."""
    phantom = make_phantom("enhanced")
    l3 = phantom.vertebra("L3")
    assert phantom.blurred_hu(l3.frame.lps([14.0, -30.0, 0.0])) == pytest.approx(165, abs=2)
    assert phantom.filling("L3").vein is not None
    assert phantom.filling("L3").vein.hu > 100
    assert phantom.acquisition.contrast is True


def test_screws_run_through_the_pedicles_into_the_body() -> None:
    spec = replace(SMALL, origin_lps_mm=(0.0, 0.0, 0.0))
    phantom = Phantom(spec, SCAN, Storage(-8192, 16), ("L3", "L3"), MetalSpec(("L3", "L4")))
    placed = screws(phantom.metal, phantom.layout, spec)
    assert [s.side for s in placed] == ["left", "right"] * 2
    for screw in placed:
        vertebra = phantom.vertebra(screw.level)
        outer, _ = vertebra.body.distances(Points(screw.tip_lps_mm[None]))
        assert outer[0] < -3
        assert (screw.tip_lps_mm[0] > 0) == (screw.side == "left")
        assert 35 < screw.length_mm < 60
        middle = (screw.head_lps_mm + screw.tip_lps_mm) / 2
        assert phantom.blurred_hu(middle) == pytest.approx(7000, rel=0.002)
        along = (screw.tip_lps_mm - screw.head_lps_mm) / screw.length_mm
        edge = middle + screw.diameter_mm / 2 * np.cross(along, [0, 0, 1]) / np.linalg.norm(np.cross(along, [0, 0, 1]))
        assert 2500 < phantom.blurred_hu(edge)[0] < 4500
    with pytest.raises(SpineImgError, match="T4"):
        Phantom(spec, SCAN, metal=MetalSpec(("T4",))).parts  # noqa: B018


# -- files' content ---------------------------------------------------------------------------------------------------


def test_roi_file_follows_the_contract(small: Phantom) -> None:
    content = json.loads(json.dumps(roi_json(roi_set(small, Construct("L2", "L4"), "endplate"))))
    assert content["schema"] == "spineimg.rois/1"
    assert content["construct"] == {"uiv": "L2", "liv": "L4"}
    assert [v["level"] for v in content["vertebrae"]] == ["L2", "L4"]
    for vertebra in content["vertebrae"]:
        assert [s["position"] for s in vertebra["slices"]] == ["superior", "mid", "inferior"]
        for piece in vertebra["slices"]:
            assert np.dot(piece["u"], piece["v"]) == pytest.approx(0, abs=1e-5)
            assert min(piece["semi_axes_mm"]) > 3


def test_rois_lie_in_plain_trabecular_bone() -> None:
    for name in ("preop", "scoliosis", "sclerotic", "oblique"):
        phantom = make_phantom(name)
        construct = RECIPES[name].construct
        for plane in ("endplate", "scanner"):
            for ellipse in ellipses(phantom, construct.liv or "", plane):
                turn = np.linspace(0, 2 * np.pi, 90)
                a, b = ellipse.semi_axes_mm
                edge = np.cos(turn)[:, None] * a * ellipse.u_lps + np.sin(turn)[:, None] * b * ellipse.v_lps
                wall, top, bottom = phantom.filling(construct.liv or "").body.surfaces(
                    Points(ellipse.center_lps_mm + edge)
                )
                assert wall.max() < -2.9
                assert max(top.max(), bottom.max()) < -2.0


def test_truth_is_plain_json_and_names_what_is_cut() -> None:
    phantom = make_phantom("cut")
    truth = json.loads(json.dumps(truth_json(phantom, {})))
    whole = {level["level"]: level["whole"] for level in truth["levels"]}
    assert whole == {
        "T10": False, "T11": False, "T12": True, "L1": True, "L2": True, "L3": True, "L4": True, "L5": False,
    }  # fmt: skip
    assert truth["sacrum"][0]["level"] == "S1"
    assert truth["schema"] == "spineimg.truth/1"


def test_recipes_describe_themselves() -> None:
    for recipe in RECIPES.values():
        assert recipe.description
        assert "\n" not in recipe.description
        assert recipe.construct.liv in recipe.spine.levels
    with pytest.raises(SpineImgError, match="choose one of preop"):
        make_phantom("unknown")


def test_seeds() -> None:
    """Planted: noise from an unseeded generator."""
    scan = replace(SCAN, noise_sd_hu=12.0, margin_mm=-8.0)
    phantoms = [Phantom(replace(SMALL, seed=s), scan, cover=("L3", "L3"), seed=s) for s in (4, 4, 5)]
    first, again, other = (next(phantom.slices()) for phantom in phantoms)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
