"""Parts of the search against formulas: the seen edge, steps of the canal's path, kept slices, odd fits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from spineimg.geometry import Geometry
from spineimg.rois import Ellipse, VertebraRoi
from spineimg.vertebra.body import BodyNotFoundError
from spineimg.vertebra.canal import best_beside, place_beside
from spineimg.vertebra.candidates import Candidate, SpineSettings
from spineimg.vertebra.chain import ChainSettings, _disc_scores, _Evidence
from spineimg.vertebra.click import Clicks
from spineimg.vertebra.endplate_model import Start, edge_of
from spineimg.vertebra.endplates import EndplateFit
from spineimg.vertebra.hu import measure
from spineimg.vertebra.naming import name_spine
from spineimg.vertebra.neighbours import _witnessed
from spineimg.volume import ArraySource, CTVolume, keeping
from tests.vertebra.spine_phantoms import WHOLE, spine


@pytest.mark.parametrize(("half", "blur"), [(0.3, 0.5), (1.5, 0.45), (2.5, 0.6)])
def test_an_edge_is_a_step_averaged_over_slice_and_blur(half: float, blur: float) -> None:
    """Planted: the whole thickness taken for half of it."""
    depth = np.linspace(-6, 6, 41)
    across = np.linspace(-half, half, 4001)
    wanted = norm.cdf((depth[:, None] + across) / blur).mean(axis=1)
    seen = edge_of(half, blur).at(depth)
    np.testing.assert_allclose(seen.value, wanted, atol=5e-4)
    np.testing.assert_allclose(seen.rate, np.gradient(wanted, depth), atol=0.06)


def test_a_step_sideways_is_the_best_of_nine() -> None:
    """Planted: the column's step taken from the row that is left; the cost of a row's step left out of the place's."""
    draw = np.random.default_rng(2)
    sums = draw.normal(0, 5, (7, 9)).astype(np.float32)
    padded = np.pad(sums, 1, constant_values=-1e6)
    moves = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
    options = np.stack([padded[1 + a : 8 + a, 1 + b : 10 + b] - np.float32(3.0 * (abs(a) + abs(b))) for a, b in moves])
    np.testing.assert_allclose(best_beside(sums), options.max(axis=0), atol=1e-5)
    for place in np.ndindex(7, 9):
        value, found = place_beside(sums, place)
        assert value == pytest.approx(options[:, *place].max(), abs=1e-5)
        assert moves[options[:, *place].argmax()] == (found[0] - place[0], found[1] - place[1])


def test_slices_are_decoded_once() -> None:
    """Planted: the volume wrapped a second time."""

    reads: list[int] = []

    class Counted(ArraySource):
        def read(self, k: int) -> Any:
            reads.append(k)
            return super().read(k)

    volume = spine()[1]
    stack = np.zeros(volume.geometry.shape, np.int16)
    kept = keeping(replace(volume, source=Counted(stack)))
    assert keeping(kept) is kept
    for k in (3, 4, 3, 3):
        kept.read(k)
    assert reads == [3, 4]


def fit(**changed: Any) -> EndplateFit:
    usual: dict[str, Any] = {
        "height_mm": 10.0, "rise_left": 0.0, "rise_posterior": 0.1, "concavity_mm": 1.5, "residual_hu": 20.0,
        "explained": 0.9, "shell_hu": 800.0, "bone_hu": 140.0, "disc_hu": 80.0, "tilt_sd_deg": 0.4,
        "height_sd_mm": 0.1, "facing": Start(16.0, 0.0, 0.1), "facing_shell_hu": 800.0,
    }  # fmt: skip
    return EndplateFit(**(usual | changed))


def test_numbers_that_no_endplate_has_are_counted() -> None:
    """Planted: the ridge held against the disc alone."""
    assert fit().oddities == 0
    assert fit(shell_hu=150.0, bone_hu=140.0, disc_hu=85.0).oddities == 1
    assert fit(shell_hu=90.0, bone_hu=160.0, disc_hu=80.0).oddities == 0  # no shell, but an edge
    assert fit(disc_hu=340.0).oddities == 1
    assert fit(facing_shell_hu=-600.0).oddities == 1
    assert fit(facing=Start(10.5, 0.0, 0.1)).oddities == 1
    assert fit(facing=Start(16.0, 0.5, 0.1)).oddities == 1
    assert fit(concavity_mm=-1.5).oddities == 1
    assert fit(shell_hu=140.0, disc_hu=110.0).oddities == 1
    assert fit(shell_hu=140.0, disc_hu=110.0, plain=True).oddities == 0
    assert fit(disc_hu=340.0).worth < fit().worth
    assert fit(tilt_sd_deg=50.0).worth < fit().worth


def test_neighbours_that_lean_on_others_are_no_witnesses() -> None:
    """Those are believed that have two clear ones within three levels. Planted: leaning ones counted."""
    for held, believed in (
        ((False, True, False), (True, True, True)),
        ((False, True, True), (True, False, False)),
        ((False, True, True, True, True, False), (True, False, True, True, False, True)),
    ):
        nothing: Any = None
        row = [Candidate(nothing, nothing, fit(), None, held=one) for one in held]  # type: ignore[arg-type]
        found = _witnessed(row, SpineSettings())
        assert tuple(one.reason is None for one in found) == believed


def test_a_body_that_a_click_at_its_centre_does_not_give_ends_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the list read from head to foot when it is cut."""
    phantom, volume = spine()
    lost = phantom.vertebra("L1").frame.center_lps_mm
    real = Clicks.body

    def clicked(clicks: Clicks, click: Any) -> Any:
        if np.linalg.norm(click - lost) < 5:
            raise BodyNotFoundError("uncertain", "not this one")
        return real(clicks, click)

    monkeypatch.setattr(Clicks, "body", clicked)
    center = phantom.vertebra("L3").frame.center_lps_mm
    named = name_spine(volume, {"L3": center})
    assert [one.level for one in named.vertebrae] == ["L2", "L3", "L4", "L5"]
    (end,) = [note for note in named.notes if note.code == "stopped_above"]
    assert (end.about, "not_found_again" in end.text) == ("L2", True)
    with pytest.raises(BodyNotFoundError):
        name_spine(volume, {"L1": lost})


def test_every_listed_body_is_found_from_its_centre() -> None:
    phantom, volume = spine()
    named = name_spine(volume, {"L3": phantom.vertebra("L3").frame.center_lps_mm})
    assert [one.level for one in named.vertebrae] == list(WHOLE[::-1])
    for roi, one in zip(named.rois().vertebrae, named.vertebrae, strict=True):
        found = measure(volume, roi).body
        assert found is not None
        assert float(np.linalg.norm(found.center_lps_mm - one.body.center_lps_mm)) < 1.5


def test_a_coarse_grid_needs_an_area_instead_of_many_voxels() -> None:
    """Voxels of 3 mm: 17 of them are 153 mm2, 9 are too few. Planted: the area in voxels."""
    affine = np.diag([3.0, 3.0, 3.0, 1.0])[:, [2, 1, 0, 3]]
    geometry = Geometry.from_affine((20, 30, 30), affine)
    volume = CTVolume(geometry, ArraySource(np.full(geometry.shape, 100, np.int16)))
    x, y = np.eye(3)[:2]
    for radius, expected in ((7.0, 100.0), (5.0, None)):
        ellipse = Ellipse("mid", geometry.lps_at([10, 15, 15]), x, y, (radius, radius))
        got = measure(volume, VertebraRoi("L1", ellipses=(ellipse,)))
        assert got.mean_hu == expected
        assert ("too_few_voxels" in {note.code for note in got.notes}) == (expected is None)


def test_a_column_shorter_than_a_disc_holds_none_so_high() -> None:
    """A canal that is in view over a few mm only. Planted: negative lengths; a click beside a body then crashed."""
    settings, steps = ChainSettings(), 5
    faces = np.full((3, steps), 2.0)
    evidence = _Evidence(faces, faces, {2: faces}, np.zeros((3, 2)), np.zeros(steps))
    heights, scores = _disc_scores(evidence, 1.0, settings)
    none = -9.0 - settings.least_score
    assert scores.shape == (len(heights), steps)
    assert (scores[heights >= steps] == none).all()
    np.testing.assert_allclose(scores[heights == 4][0], [4.0 - settings.least_score, *[none] * 4])
