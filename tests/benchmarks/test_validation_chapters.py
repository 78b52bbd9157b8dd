"""The functions behind docs/validation.md, on a case or two each, against the goals of their chapters."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from benchmarks import flag_table, hu_accuracy, metal_accuracy, real_data, validate
from benchmarks.chapters import number, table
from spineimg.rois import Ellipse

CELLS = [
    hu_accuracy.Cell("straight", 1.0, 3.0, 3.0),
    pytest.param(hu_accuracy.Cell("tilt 15°", 1.0, 1.25, 1.0), marks=pytest.mark.slow),
]


# -- HU ---------------------------------------------------------------------------------------------------------------


def test_quadrature_integrates_polynomials_over_the_ellipse() -> None:
    """Mean of x² and y² over an ellipse are a²/4 and b²/4. Planted: weights of the rings without the squared radius."""
    ellipse = Ellipse("mid", np.array([3.0, -2.0, 5.0]), np.array([0, 1.0, 0]), np.array([0, 0, 1.0]), (12.0, 7.0))
    points, weights = hu_accuracy.ellipse_rule(ellipse)
    offset = points - ellipse.center_lps_mm
    assert weights.sum() == pytest.approx(1)
    assert weights @ offset == pytest.approx([0, 0, 0], abs=1e-12)
    assert weights @ offset**2 == pytest.approx([0, 36.0, 12.25])
    assert weights @ offset[:, 1] ** 4 == pytest.approx(12.0**4 / 8)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.scan)
def test_bias_on_original_slices_stays_below_the_goal(cell: hu_accuracy.Cell) -> None:
    """Bias without noise and with it. Planted: an ellipse of twice the semi-axes; the slice beside the nearest."""
    [reading] = hu_accuracy.read_cell(cell, planes=("scanner",), noisy_scans=6)
    assert abs(reading.bias_hu) < hu_accuracy.GOAL_HU
    assert abs(reading.worst_plane_hu) < 3 * hu_accuracy.GOAL_HU
    assert reading.within_noise
    assert 0.02 < reading.standard_error_hu < 2
    assert reading.parts_hu is None


@pytest.mark.slow
def test_error_above_the_goal_is_interpolation_and_nothing_else() -> None:
    """A plane that crosses 3 mm slices is smoothed: SciPy's interpolation gives the same."""
    cell = hu_accuracy.Cell("straight", 1.0, 3.0, 3.0, level="L5")
    scan = hu_accuracy.Scan(cell, cell.phantom())
    own = scan.rois("endplate").vertebrae[0].ellipses
    truth = np.array([hu_accuracy.true_hu(scan.phantom, one) for one in own])
    clean = scan.volume(None)
    errors = hu_accuracy.means_hu(hu_accuracy.measured(clean, scan.rois("endplate"))) - truth
    centres, between, rest = hu_accuracy.take_apart(scan, clean, own, truth, errors)
    assert abs(rest) < 0.05
    assert centres + between + rest == pytest.approx(errors.mean())


@pytest.mark.slow
def test_files_give_the_same_number_as_memory() -> None:
    """Write, load, measure. Planted: the shear ignored, as the peer does; spacing taken from SliceThickness."""
    cell = hu_accuracy.Cell("tilt 15°", 1.0, 3.0, 3.0)
    [reading] = hu_accuracy.read_files(cell, planes=("scanner",))
    assert reading.error_hu is not None
    assert abs(reading.error_hu) < hu_accuracy.GOAL_HU
    assert reading.from_memory_hu == pytest.approx(0, abs=1e-6)
    assert reading.peer_error_hu is not None
    assert abs(reading.peer_error_hu) > 1


# -- metal ------------------------------------------------------------------------------------------------------------


def test_liv_beside_clipped_screws_reads_true() -> None:
    """Screws beside the circles leave room for numbers. Planted: a margin of 0 mm around metal."""
    beside = metal_accuracy.read_case(metal_accuracy.Case("titanium", "clipped at 3071", 2.5, 2.0, 12.0))
    assert beside.within_goal
    assert len([name for name, hu in beside.own_hu.items() if hu is not None]) >= 2
    assert set(beside.flags.values()) == {"not_assessed"}
    assert beside.peers_hu["eroded mean"] > 200


@pytest.mark.slow
@pytest.mark.parametrize("scale", metal_accuracy.SCALES)
def test_liv_crossed_by_screws_reads_true_or_not_at_all(scale: str) -> None:
    """Screws in the circles. Planted: metal kept."""
    crossed = metal_accuracy.read_case(metal_accuracy.Case("titanium", scale, 2.5, 2.0, 24.0))
    assert crossed.within_goal
    assert set(crossed.flags.values()) == {"not_assessed"}
    assert crossed.peers_hu["circle"] > 200
    assert crossed.peers_hu["eroded mean"] > 400


def test_numbers_off_the_goal_are_seen() -> None:
    """The verdict itself: 116 HU misses 110 ± 5, no number does not."""
    case = metal_accuracy.CASES[0]
    reading = metal_accuracy.Reading(case, {"a": 114.9, "b": None}, {}, {}, {}, {})
    assert reading.within_goal
    assert not replace(reading, own_hu={"a": 116.0}).within_goal


# -- flags ------------------------------------------------------------------------------------------------------------


def test_flags_follow_the_rules() -> None:
    """Around every boundary. Planted: 127.27 in place of 127.273; contrast unknown taken for none."""
    around = [flag_table.CUTOFF_HU + Fraction(thousandths, 1000) for thousandths in (-1, 0, 1)]
    means = [Fraction(100), Fraction(111), Fraction(112), *around, Fraction(143), Fraction(144)]
    rows = list(flag_table.rows(means))
    assert len(rows) == 6 * 3 * len(means)
    assert not [row for row in rows if row.differs]
    plain = {row.mean_hu: row.call for row in rows if row.kvp == 120 and row.contrast is False}
    assert plain[Fraction(111)] == "below"
    assert plain[Fraction(112)] == plain[Fraction(143)] == "indeterminate"
    assert plain[Fraction(144)] == "not_below"


def test_a_difference_is_seen() -> None:
    row = flag_table.ask(Fraction(120), 120.0, False)
    assert not row.differs
    assert replace(row, call="below").differs
    assert replace(row, below_cutoff=False).differs
    assert replace(row, interval_hu=None).differs
    assert replace(row, interval_hu=(104.0, 137.0)).differs


# -- real scans -------------------------------------------------------------------------------------------------------


def _data() -> None:
    if real_data.data_folder() is None:
        pytest.skip("SPINEIMG_DATA is not set: no real scans")


def test_ellipses_on_a_real_scan_read_the_same_twice() -> None:
    """Planted: the slice beside the nearest; the mean of all voxels in place of the mean of the slice means."""
    _data()
    folder = real_data.data_folder()
    assert folder is not None
    lines = list(real_data.ellipse_lines(folder / real_data.CT))
    assert len(lines) == 8
    assert not [line for line in lines if line.differs]


def test_label_on_a_real_scan_reads_the_same_twice() -> None:
    """Planted: 3 voxels eroded in place of 3 mm; planes at 20, 50 and 80 % of the height."""
    _data()
    folder = real_data.data_folder()
    assert folder is not None
    reading = real_data.read_label(folder / real_data.L3)
    assert [line.what for line in reading.lines] == ["L3 superior", "L3 mid", "L3 inferior", "**L3**"]
    assert not [line for line in reading.lines if line.differs]
    (whole_hu, whole_codes), (three_hu, three_codes) = reading.others.values()
    assert whole_hu == pytest.approx(reading.whole_hu[0], abs=15)
    assert "placed_in_label" in whole_codes
    assert (three_hu, three_codes) == (None, ("mask_misplaced",))


# -- page -------------------------------------------------------------------------------------------------------------


def test_numbers_and_tables_as_text() -> None:
    assert [number(x, 2, sign=True) for x in (-0.001, 0.126, -3.0, None)] == ["0.00", "+0.13", "−3.00", "–"]
    assert table(["a", "b"], [[1, None], ["x|y", 2.5]]) == "| a | b |\n|---|---|\n| 1 |  |\n| x\\|y | 2.5 |"


# -- the page ---------------------------------------------------------------------------------------------------------


def test_chapters_that_are_not_measured_again_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a chapter ended at the first heading of any depth; its sections were lost."""
    made = [validate.Chapter("One", lambda figures, progress: "1\n\n### Section\n\na"), validate.Chapter("Two", _two)]
    monkeypatch.setattr(validate, "CHAPTERS", tuple(made))
    whole = validate.document(tmp_path, str, frozenset(), "")
    assert whole.endswith("## 1. One\n\n1\n\n### Section\n\na\n\n## 2. Two\n\nthe first time\n")
    monkeypatch.setattr(validate, "CHAPTERS", (made[0], validate.Chapter("Two", lambda figures, progress: "new")))
    again = validate.document(tmp_path, str, frozenset({2}), whole)
    assert again == whole.replace("the first time", "new")


def _two(figures: Path, progress: object) -> str:
    return "the first time"
