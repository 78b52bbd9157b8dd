"""Verdicts, Silva's type, Nam's definitions and the construct's numbers."""

from dataclasses import replace

import numpy as np
import pytest

from spineimg.anatomy import Side
from spineimg.implants.grade import construct_summary, grade
from spineimg.implants.halo import HaloFit
from spineimg.implants.model import Gap, Halo, Loosening, Rod, Screw, Shaft
from spineimg.implants.psf import Psf
from spineimg.implants.unrolled import Cells
from spineimg.implants.verdict import Conditions, judge, notes_on
from spineimg.volume import Sharpness

SHAFT = Shaft((20.0, 30.0, 0.0), (20.0, -10.0, 0.0), 6.5, 7000.0, False)
GAP = Gap((0.0, 0.0, 0.0), 2.0, 4.0, 0.5)
P, A, I, N = Loosening.PRESENT, Loosening.ABSENT, Loosening.INDETERMINATE, Loosening.NOT_ASSESSED  # noqa: E741


def fit(width_mm: object, spread_mm: float = 0.1, **changes: object) -> HaloFit:
    """A fit that found `width_mm` (one number, or (depths, angles)) to ± `spread_mm` in bone of 150 HU."""
    cells = Cells.cover((1.5, 34.5), 4.0, 12)
    shape = (cells.depths, cells.sectors)
    widths = np.broadcast_to(np.asarray(width_mm, dtype=float), shape)
    middle = float(np.median(widths))
    values: dict[str, object] = {
        "width_mm": widths,
        "sd_mm": np.full(shape, 0.2),
        "bone_hu": np.full(shape, 150.0),
        "voxels": np.full(shape, 50),
        "in_bone": np.ones(shape, dtype=bool),
        "cortex_mm": np.full(shape, 9.0),
        "known": np.ones(shape, dtype=bool),
        "cement": 0.0,
        "shift_mm": (-spread_mm, spread_mm),
        "evidence": 40.0 * (middle - 1.0),
        "part_evidence": 40.0 * (middle - 1.0),
        "evidence_if_loose": 100.0,
        "halo_hu": 35.0,
        "rim_hu": 0.0,
        "noise_hu": 20.0,
        "trajectory_hu": 150.0,
    }
    return HaloFit(cells=cells, **{**values, **changes})  # type: ignore[arg-type]


def conditions(**changes: object) -> Conditions:
    values: dict[str, object] = {
        "slice_mm": 0.8,
        "sharpness": Sharpness.SOFT,
        "artifact_reduction": False,
        "psf": Psf(0.8, 0.7, (True, True)),
    }
    return Conditions(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("width_mm", "spread_mm", "verdict"),
    [(2.0, 0.2, P), (0.2, 0.3, A), (1.1, 0.4, I), (0.8, 0.5, I), (0.7, 0.3, I)],
)
def test_the_limit_is_one_millimetre(width_mm: float, spread_mm: float, verdict: Loosening) -> None:
    """Planted: `present` decided by the best width instead of the interval's lower end; `absent` with an interval that
    goes on beyond the limit."""
    halo, found = judge(fit(width_mm, spread_mm), SHAFT, conditions())
    assert found is verdict
    assert halo.interval_mm is not None
    assert halo.interval_mm[0] <= width_mm <= halo.interval_mm[1]
    assert bool(halo.reason) is (verdict is I)


def test_present_is_not_said_where_the_interval_holds_no_zone_too() -> None:
    """Planted: the interval's lower end left out of account."""
    for spread_mm, verdict in ((0.4, P), (0.8, I)):
        halo, found = judge(fit(1.3, spread_mm, evidence=60.0), SHAFT, conditions())
        assert found is verdict
        assert halo.interval_mm is not None
        assert (halo.interval_mm[0] == 0) is (verdict is I)
        assert bool(halo.reason) is (verdict is I)


def test_present_is_not_said_within_the_error_of_radius_and_blur() -> None:
    """A zone of 0.8 mm that read 1.07 mm. Planted: the limit alone."""
    for width_mm, verdict in ((1.07, I), (1.3, P)):
        halo, found = judge(fit(width_mm, 0.2, evidence=60.0), SHAFT, conditions())
        assert found is verdict
        assert bool(halo.reason) is (verdict is I)


def test_coverage_and_extent() -> None:
    """Planted: coverage over the whole map instead of its part in bone."""
    widths = np.zeros((8, 12))
    widths[4:] = 2.0
    halo, verdict = judge(fit(widths, evidence=60.0), SHAFT, conditions())
    assert halo.coverage_over_1mm == pytest.approx(0.5)
    # Four depths, and half of what is not looked at towards the tip.
    assert halo.axial_extent_mm == pytest.approx(4 * 33 / 8 + 5.5 / 2)
    assert halo.shape == "widest at the tip"
    assert verdict is P
    soft = np.full((8, 12), 150.0)
    soft[:4] = 50.0
    halo, _ = judge(fit(widths, bone_hu=soft, in_bone=soft > 100), SHAFT, conditions())
    assert halo.coverage_over_1mm == pytest.approx(1.0)
    assert np.isnan(halo.map.width_mm[:4]).all()  # type: ignore[union-attr]


def test_a_short_zone_is_no_loosening() -> None:
    widths = np.zeros((8, 12))
    widths[[0, 2, 4, 6]] = 2.0
    halo, verdict = judge(fit(widths), SHAFT, conditions())
    # One depth, and what lies between the first one and the head.
    assert halo.axial_extent_mm == pytest.approx(33 / 8 + 1.5)
    assert verdict is not P


def test_streaks_in_the_slice_plane_are_no_zone() -> None:
    """Planted: the pieces above and below the screw not asked for."""
    beside = np.isin(np.arange(12), (0, 1, 5, 6, 7, 11))
    halo, verdict = judge(fit(np.where(beside, 2.0, 0.0) * np.ones((8, 1)), evidence=60.0), SHAFT, conditions())
    assert verdict is I
    assert "streak" in halo.reason
    assert judge(fit(np.where(beside, 0.0, 2.0) * np.ones((8, 1)), evidence=60.0), SHAFT, conditions())[1] is P


def test_around_cement_no_zone_is_not_said() -> None:
    """A zone may run between cement and bone. Planted: cement counted as bone without room for one."""
    assert judge(fit(0.2, 0.3), SHAFT, conditions())[1] is A
    cemented = fit(0.2, 0.3, cement=0.3)
    halo, verdict = judge(cemented, SHAFT, conditions())
    assert verdict is I
    assert "30 % of the shaft's surface stands in cement" in halo.reason
    (note,) = notes_on(cemented, halo, "L4-left")
    assert (note.code, note.about) == ("cement", "L4-left")
    hidden = fit(0.2, 0.3, cement=0.9, known=np.arange(12) * np.ones((8, 1)) < 1)
    halo, verdict = judge(hidden, SHAFT, conditions())
    assert verdict is N
    assert "90 % in cement" in halo.reason


def test_a_wide_map_alone_is_not_enough() -> None:
    """Planted: the evidence of the whole screw not asked for. Nor is a narrow map against that evidence `absent`."""
    assert judge(fit(2.0, evidence=2.0), SHAFT, conditions())[1] is I
    assert judge(fit(0.1, evidence=5.0), SHAFT, conditions())[1] is I


@pytest.mark.parametrize(
    ("changes", "noise_hu", "clipped", "strained"),
    [
        ({"smear_mm": 0.9}, 20.0, True, True),
        ({"smear_mm": 0.7}, 20.0, True, False),
        ({"brightest_hu": 12000.0}, 20.0, False, True),
        ({"brightest_hu": 8000.0}, 140.0, False, False),
        ({}, 140.0, True, True),
        ({}, 120.0, True, False),
    ],
)
def test_in_streaks_of_heavy_metal_a_zone_needs_clear_evidence_and_none_is_never_plain(
    changes: dict[str, float], noise_hu: float, clipped: bool, strained: bool
) -> None:
    """Planted: each of the three signs left out; noise asked for on every scale; `absent` said all the same; a width
    told that such streaks make around fixed screws (2 mm, "1.5-2.5"), or a map of it drawn."""
    shaft = replace(SHAFT, clipped=clipped)
    now = conditions(slice_mm=0.8, **changes)
    halo, verdict = judge(fit(2.0, noise_hu=noise_hu, evidence=25.0), shaft, now)
    assert verdict is (N if strained else P)
    assert (halo.width_median_mm is None) is strained
    assert (halo.map is None) is strained
    assert ("cobalt-chrome" in halo.reason) is strained
    assert judge(fit(2.0, noise_hu=noise_hu, evidence=61.0), shaft, now)[1] is P
    halo, verdict = judge(fit(0.1, noise_hu=noise_hu), shaft, now)
    assert verdict is (I if strained else A)
    assert ("cobalt-chrome" in halo.reason) is strained


def test_an_interval_that_holds_the_limit_needs_clear_evidence() -> None:
    """Planted: the odds alone (`present`)."""
    halo, verdict = judge(fit(1.3, 0.2, evidence=10.0), SHAFT, conditions())
    assert halo.interval_mm is not None
    assert halo.interval_mm[0] < 1.0
    assert verdict is I
    assert "likelier than none" in halo.reason
    assert judge(fit(1.3, 0.2, evidence=61.0), SHAFT, conditions())[1] is P
    assert judge(fit(2.0, 0.2, evidence=10.0), SHAFT, conditions())[1] is P


def test_a_zone_over_a_part_that_the_map_does_not_show_is_not_absent() -> None:
    """Planted: only the evidence of the whole screw asked for."""
    assert judge(fit(0.1, part_evidence=0.9), SHAFT, conditions())[1] is A
    halo, verdict = judge(fit(0.1, part_evidence=1.1), SHAFT, conditions())
    assert verdict is I
    assert "over a part of it" in halo.reason


def test_soft_bone_is_not_called_free_of_a_zone() -> None:
    """Planted: `absent` in any bone."""
    halo, verdict = judge(fit(0.1, trajectory_hu=62.0), SHAFT, conditions())
    assert verdict is I
    assert "62 HU" in halo.reason
    assert judge(fit(2.0, trajectory_hu=62.0), SHAFT, conditions())[1] is P
    assert judge(fit(2.0, trajectory_hu=45.0), SHAFT, conditions())[1] is N


def test_nothing_is_said_where_even_a_wide_zone_would_not_be_told() -> None:
    """80 % of normal odds of mean m and variance 2 m reach 4 from m = 7.2 on. Planted: the mean alone held against 4;
    a plain `absent` withheld."""
    for mean, verdict in ((7.0, N), (7.5, I), (np.inf, I)):
        halo, found = judge(fit(1.0, evidence=1.0, evidence_if_loose=mean), SHAFT, conditions())
        assert found is verdict
        assert ("2 mm all along" in halo.reason) is (verdict is N)
        assert halo.assessable is (verdict is I)
    assert judge(fit(0.1, evidence_if_loose=1.0), SHAFT, conditions())[1] is A
    assert judge(fit(2.0, evidence=7.0, evidence_if_loose=1.0), SHAFT, conditions())[1] is P


def test_pieces_that_are_not_known_do_not_count() -> None:
    """Planted: judged part over pieces beside cortex too; coverage counted beyond cortex, or not beside it."""
    known, cortex = np.ones((8, 12), dtype=bool), np.full((8, 12), 9.0)
    known[:, :4] = False
    cortex[:, :2], cortex[:, 2:4] = 1.6, 0.9
    halo, verdict = judge(fit(2.0, known=known, cortex_mm=cortex, evidence=60.0), SHAFT, conditions())
    assert verdict is P
    assert halo.coverage_over_1mm == pytest.approx(10 / 12)
    assert [one["coverage_over_1mm"] for one in halo.regions.values()] == pytest.approx([10 / 12] * 4)
    assert halo.map is not None
    assert np.isnan(halo.map.width_mm[:, :4]).all()
    known[:, 1:] = False
    halo, verdict = judge(fit(2.0, known=known), SHAFT, conditions())
    assert verdict is N
    assert "% of the shaft's surface" in halo.reason


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"slice_mm": 3.0}, "thick"),
        ({"sharpness": Sharpness.SHARP}, "sharp"),
        ({"texture": -0.2}, "sharp"),
        ({"texture": -0.08, "sharpness": None}, "does not name the kernel"),
        ({"artifact_reduction": True}, "artefact reduction"),
        ({"psf": Psf(1.7, 0.7)}, "blurred"),
    ],
)
def test_scans_that_cannot_tell(changes: dict[str, object], word: str) -> None:
    halo, verdict = judge(fit(2.0), SHAFT, conditions(**changes))
    assert verdict is N
    assert not halo.assessable
    assert halo.width_median_mm is None
    assert word in halo.reason


def test_fits_that_cannot_tell() -> None:
    shape = (8, 12)
    for bad, word in (
        (fit(2.0, noise_hu=300.0), "streaks"),
        (fit(2.0, bone_hu=np.full(shape, 55.0)), "brighter"),
        (None, "few voxels"),
    ):
        halo, verdict = judge(bad, SHAFT, conditions())
        assert verdict is N
        assert word in halo.reason
    dark = Shaft(SHAFT.head_lps_mm, SHAFT.tip_lps_mm, 6.5, 3900.0, False)
    assert judge(fit(2.0), dark, conditions())[1] is N
    assert judge(fit(1.0), SHAFT, conditions(psf=Psf(1.3, 0.7)))[1] is N
    assert judge(fit(2.5), SHAFT, conditions(psf=Psf(1.3, 0.7)))[1] is P


def test_the_name_of_a_soft_kernel_counts_more_than_the_grain() -> None:
    """Planted: one line for both; fixed screws of soft scans were refused for their streaks' grain."""
    assert judge(fit(2.0), SHAFT, conditions(texture=-0.08))[1] is P
    assert judge(fit(2.0), SHAFT, conditions(texture=-0.08, sharpness=None))[1] is N


@pytest.mark.parametrize(
    ("widths", "shape"),
    [
        (np.full((8, 12), 2.0), "uniform"),
        (np.linspace(0, 3, 8)[:, None] * np.ones(12), "widest at the tip"),
        (np.linspace(3, 0, 8)[:, None] * np.ones(12), "widest at the head"),
        (np.abs(np.linspace(-3, 3, 8))[:, None] * np.ones(12), "double cone"),
        (np.where(np.arange(12) < 6, 2.0, 0.0) * np.ones((8, 1)), "one-sided"),
    ],
)
def test_shapes(widths: object, shape: str) -> None:
    assert judge(fit(widths), SHAFT, conditions())[0].shape == shape


def test_regions_are_told_apart() -> None:
    widths = np.linspace(0, 3, 8)[:, None] * np.ones(12)
    regions = judge(fit(widths), SHAFT, conditions())[0].regions
    medians = [regions[name]["width_median_mm"] for name in ("head", "pedicle", "body", "tip")]
    assert medians == sorted(medians)  # type: ignore[type-var]


def screw(name: str, loosening: Loosening, level: str | None = None, gaps: tuple[Gap, ...] = ()) -> Screw:
    return Screw(name, SHAFT, Halo(True), loosening, level=level, side=Side.LEFT, gaps=gaps)


def test_silva_and_nam() -> None:
    """Planted: type 1 kept when a rod is broken too."""
    rods = [Rod("left", ((0.0, 0.0, 0.0), (0.0, 0.0, 50.0)), 5.5)]
    broken = [Rod("left", ((0.0, 0.0, 0.0), (0.0, 0.0, 50.0)), 5.5, (GAP,))]
    loose, firm, open_one = screw("a", P), screw("b", A), screw("c", N)
    assert grade([loose, firm], rods).silva_type == 1
    assert grade([loose, firm], rods).nam_loosening is P
    both = grade([loose, firm], broken)
    assert both.silva_type == 3
    assert both.nam_breakage is P
    assert len(both.reasons) == 2
    assert grade([firm], rods).silva_type is None
    assert grade([firm], rods).nam_loosening is A
    assert grade([firm, open_one], rods).nam_loosening is I
    assert grade([open_one], rods).nam_loosening is N
    assert grade([], []).nam_breakage is N
    assert grade([screw("d", A, gaps=(GAP,))], rods).silva_type == 3
    assert grade([firm], broken, artifact_reduction=True).nam_breakage is I
    assert grade([firm], broken, artifact_reduction=True).silva_type is None


def test_words_promise_nothing() -> None:
    rods = [Rod("left", ((0.0, 0.0, 0.0), (0.0, 0.0, 50.0)), 5.5)]
    for found in (
        grade([screw("a", A)], rods),
        grade([screw("a", N)], rods),
        grade([screw("a", A), screw("b", I)], rods),
    ):
        assert "fixed" not in found.text
        assert "stable" not in found.text
        assert any("earlier scan" in text for text in found.not_judged)
    assert "suspicious" in grade([screw("a", A, gaps=(GAP,))], []).reasons[0]


def test_construct_as_nam_defines_it() -> None:
    """T10, T11 and L1, L2 around a tumour at T12: 8 screws on 10 pedicles. Planted: T13 counted as a level."""
    screws = [screw(f"{level}-{n}", A, level) for level in ("T10", "T11", "L1", "L2") for n in (1, 2)]
    summary = construct_summary(screws, ["T12"])
    assert summary["uiv"] == "T10"
    assert summary["liv"] == "L2"
    assert summary["n_screws"] == 8
    assert summary["fixation_length"] == 4
    assert summary["screw_density"] == pytest.approx(0.8)
    assert construct_summary(screws)["fixation_length"] is None
    unknown = construct_summary([*screws, screw("x", A)])
    assert unknown["n_screws"] == 9
    assert unknown["uiv"] is None
    assert unknown["screw_density"] is None
