"""Published cutoffs, and those that a reader adds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from spineimg.anatomy import Role
from spineimg.cutoffs import LEE_2024, PUBLISHED, Performance, for_role, load_cutoffs
from spineimg.errors import CutoffError

GOOD = """
[[cutoff]]
value_hu = 163
role = "UIV"
source = "Example 2020"
citation = "Example et al. 2020, Journal of Examples 1:1"
population = "100 patients with degenerative scoliosis"
method = "one axial slice"
conditions = "120 kVp, unenhanced"
sensitivity = 0.7
specificity = 0.8
auc = 0.75
auc_interval = [0.6, 0.9]
events = [20, 100]
caution = "not for metastasis"
"""


@pytest.mark.parametrize(
    ("version", "prevalence", "ppv", "npv"),
    [
        (1, 24 / 220, 24.4, 95.2),
        (0, 24 / 220, 21.4, 93.6),
        (1, 24 / 96, 46.8, 87.9),
        (1, 0.044, 10.8, 98.1),
    ],
)
def test_predictive_values_follow_from_bayes(version: int, prevalence: float, ppv: float, npv: float) -> None:
    """The table worked out apart from the program. Planted: specificity in place of its complement in the PPV."""
    performance = LEE_2024.performance[version]
    assert 100 * performance.ppv(prevalence) == pytest.approx(ppv, abs=0.05)
    assert 100 * performance.npv(prevalence) == pytest.approx(npv, abs=0.05)


def test_predictive_values_agree_with_counting_patients() -> None:
    counted = Performance("counted", 30 / 40, 50 / 60)
    assert counted.ppv(0.4) == pytest.approx(30 / (30 + 10))
    assert counted.npv(0.4) == pytest.approx(50 / (50 + 10))


def test_lee_2024_holds_both_printed_versions() -> None:
    assert LEE_2024.value_hu == 127.273
    assert LEE_2024.prevalence == pytest.approx(0.109, abs=5e-4)
    assert [one.where for one in LEE_2024.performance] == ["abstract", "section 3.4 and Figure 2"]
    for one in LEE_2024.performance:
        assert one.true_positives is not None
        assert one.true_negatives is not None
        assert one.auc is not None
        assert one.auc_interval is not None
        assert one.sensitivity == pytest.approx(one.true_positives[0] / one.true_positives[1], abs=5e-4)
        assert one.specificity == pytest.approx(one.true_negatives[0] / one.true_negatives[1], abs=6e-4)
        assert one.auc_interval[0] < one.auc < one.auc_interval[1]
    assert LEE_2024.performance[0].true_positives != LEE_2024.performance[1].true_positives


def test_the_only_published_cutoff_is_for_the_liv() -> None:
    assert for_role(PUBLISHED, Role.LIV) is LEE_2024
    assert for_role(PUBLISHED, Role.UIV) is None
    assert for_role(PUBLISHED, None) is None


def written(folder: Path, text: str) -> Path:
    path = folder / "own.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_cutoff_of_ones_own_is_added(tmp_path: Path) -> None:
    cutoffs = load_cutoffs(written(tmp_path, GOOD))
    own = for_role(cutoffs, Role.UIV)
    assert own is not None
    assert (own.value_hu, own.source, own.events, own.caution) == (
        163.0,
        "Example 2020",
        (20, 100),
        "not for metastasis",
    )
    assert own.performance == (Performance("Example 2020", 0.7, 0.8, 0.75, (0.6, 0.9)),)
    assert for_role(cutoffs, Role.LIV) is LEE_2024


def test_a_cutoff_for_the_liv_stands_in_for_the_published_one(tmp_path: Path) -> None:
    cutoffs = load_cutoffs(written(tmp_path, GOOD.replace("UIV", "LIV")))
    assert [cutoff.source for cutoff in cutoffs] == ["Example 2020"]


def test_performance_may_be_left_out(tmp_path: Path) -> None:
    lines = [
        line
        for line in GOOD.splitlines()
        if line.split(" ")[0] not in ("sensitivity", "specificity", "auc", "auc_interval", "events", "caution")
    ]
    own = load_cutoffs(written(tmp_path, "\n".join(lines)))[0]
    assert (own.performance, own.prevalence, own.caution) == ((), None, "")
    assert replace(own, performance=LEE_2024.performance).performance


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("value_hu = 163", "", "`value_hu` must be a number, found None"),
        ("value_hu = 163", "value_hu = true", "must be a number, found True"),
        ("value_hu = 163", "value_hu = nan", "must lie in -200 to 1000, found nan"),
        ("value_hu = 163", f"value_hu = {10**400}", "must lie in -200 to 1000"),
        ("value_hu = 163", "value_hu = 5000", "must lie in -200 to 1000"),
        ('role = "UIV"', 'role = "L3"', '`role` must be "UIV" or "LIV", found \'L3\''),
        ('role = "UIV"', "role = [1]", "`role` must be"),
        ('source = "Example 2020"', "", "`source` must be a text, found None"),
        ('method = "one axial slice"', 'method = "  "', "`method` must be a text"),
        ("sensitivity = 0.7", "sensitivity = 70", "`sensitivity` must lie in 0.01 to 1, found 70"),
        ("sensitivity = 0.7", "", "`sensitivity` must be a number"),
        ("sensitivity = 0.7\nspecificity = 0.8", "", "`auc` needs `sensitivity`"),
        ("[0.6, 0.9]", "[0.9, 0.6]", "must be [low, high]"),
        ("[0.6, 0.9]", "0.6", "must be [low, high]"),
        ("[20, 100]", "[100, 20]", "`events` must be"),
        ("[20, 100]", "[0.2, 1.0]", "`events` must be"),
        ("[[cutoff]]", "[cutoff]", "expected tables [[cutoff]]"),
        ("[[cutoff]]", "[[cut]]", "expected tables [[cutoff]]"),
        ("value_hu = 163", "value_hu =", "not TOML"),
        ("value_hu", "value_huu", "unknown field 'value_huu'"),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(CutoffError) as refused:
        load_cutoffs(written(tmp_path, GOOD.replace(old, new)))
    assert str(refused.value).startswith("own.toml")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_two_cutoffs_for_one_role_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CutoffError, match="two cutoffs for the UIV"):
        load_cutoffs(written(tmp_path, GOOD + GOOD))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CutoffError, match=r"none\.toml: .*cannot be read"):
        load_cutoffs(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CutoffError, match="not UTF-8"):
        load_cutoffs(tmp_path / "bytes.toml")
