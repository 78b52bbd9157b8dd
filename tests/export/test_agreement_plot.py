"""The Bland-Altman plot."""

from __future__ import annotations

import pytest

from spineimg.agreement import agree
from spineimg.errors import SpineImgError
from spineimg.export.agreement_plot import draw, write_agreement_plot
from spineimg.export.json import agreement_to_dict, result_to_dict
from tests.export.records import CREATED, case, slice_hu, vertebra

MEANS = {"T10": (190.0, 184.0), "T11": (170.0, 171.0), "T12": (150.0, 153.0), "L1": (130.0, 128.0), "L2": (None, 118.0)}


def agreement(means):
    results = [
        result_to_dict(
            case(*(vertebra(level, None, (slice_hu(mean=pair[i]),), None) for level, pair in means.items())), CREATED
        )
        for i in (0, 1)
    ]
    return agreement_to_dict(agree(*results), CREATED)


def test_points_and_lines_are_the_numbers():
    """Planted: B - A on the vertical axis; the limits drawn at their intervals' ends."""
    both = agreement(MEANS)
    axes = draw(both).figure.axes[0]
    points = {tuple(line.get_xydata()[0]) for line in axes.lines if line.get_marker() == "o"}
    assert points == {(187.0, 6.0), (170.5, -1.0), (151.5, -3.0), (129.0, 2.0)}
    assert [text.get_text() for text in axes.texts] == ["T10", "T11", "T12", "L1"]
    levels = {
        line.get_ydata()[0]
        for line in axes.lines
        if line.get_linestyle() in ("-", "--") and line.get_marker() == "None"
    }
    hu = both["hu"]
    assert levels == {hu[name]["value"] for name in ("difference", "lower_limit", "upper_limit")}
    low, high = axes.get_ylim()
    assert low < hu["lower_limit"]["low"]
    assert high > hu["upper_limit"]["high"]


def test_words_stay_on_the_page_and_apart():
    sheet = draw(agreement(MEANS))
    renderer = sheet.figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in sheet.figure.texts]
    boxes += [sheet.figure.axes[0].get_tightbbox(renderer)]
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= sheet.width and box.y1 <= sheet.height for box in boxes)
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            assert a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 or b.y1 <= a.y0


@pytest.mark.parametrize("means", [{"T10": (None, None)}, {"T10": (190.0, 184.0)}, {"T10": (190.0, None)}])
def test_too_few_pairs_say_why(means):
    sheet = draw(agreement(means))
    words = " ".join(text.get_text() for text in sheet.figure.texts)
    assert "No agreement can be computed" in words
    assert "at least 3 are needed" in words
    assert len(sheet.figure.axes[0].texts) == (means == {"T10": (190.0, 184.0)})


def test_file(tmp_path):
    write_agreement_plot(agreement(MEANS), tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_bytes().startswith(b"<?xml")
    with pytest.raises(SpineImgError, match="change its ending"):
        write_agreement_plot(agreement(MEANS), tmp_path / "plot.txt")
