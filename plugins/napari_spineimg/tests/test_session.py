"""A reader's session without a window."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import scans
import spineimg
from spineimg.anatomy import Role, Status
from spineimg.errors import RoiError

from napari_spineimg.session import Session
from napari_spineimg.texts import cells, headline, report_text, table_text


@pytest.fixture
def session(scan: Callable[[str], Path]) -> Session:
    return Session(spineimg.load(scan("clean")), "A")


def test_steps_are_undone_and_redone_one_by_one(session: Session) -> None:
    """Planted: redo kept after a new step."""
    session.click("L2", scans.body_center("L2"))
    session.set_construct("L2", "L2")
    session.mark("L2", status=Status.TUMOUR, confirmed=True)
    assert session.vertebra("L2").flag.call == "not_assessed"
    session.undo()
    assert session.vertebra("L2").flag.call != "not_assessed"
    session.undo()
    assert session.vertebra("L2").role is None
    session.redo()
    assert session.vertebra("L2").role is Role.LIV
    session.undo()
    session.rename("L2", "L3")
    assert not session.can_redo
    assert session.state.levels == ("L3",)
    session.undo()
    session.undo()
    assert session.state.levels == ()
    assert not session.can_undo


def test_next_level_follows_the_reader(session: Session) -> None:
    assert session.next_level() == "T12"
    session.click("L3", scans.body_center("L3"))
    assert session.next_level() == "L4"
    session.click("L2", scans.body_center("L2"))
    assert session.next_level() == "L1"


def test_bad_steps_change_nothing(session: Session) -> None:
    session.click("L2", scans.body_center("L2"))
    before = session.state
    with pytest.raises(RoiError, match="lies below"):
        session.set_construct("L4", "L2")
    with pytest.raises(RoiError, match="is not a vertebral level"):
        session.rename("L2", "X9")
    assert session.state is before
    missed = session.click("L3", scans.body_center("L3") + [0.0, 60.0, 0.0])
    assert "no vertebral body was found" in missed[0].text
    assert session.state is before


def test_saved_rois_measure_the_same(session: Session, tmp_path: Path) -> None:
    session.click("L2", scans.body_center("L2"))
    session.place_by_hand("L3", scans.body_center("L3"))
    session.set_construct("L2", "L3")
    session.save(tmp_path / "x.json")
    other = Session(session.volume, "B")
    other.load(tmp_path / "x.json")
    assert [one.hu.mean_hu for one in other.result.vertebrae] == [one.hu.mean_hu for one in session.result.vertebrae]
    assert other.state.rois.construct == session.state.rois.construct
    assert other.state.rois.reader == "B"


def test_words(session: Session) -> None:
    """What was not measured says why; nothing is a zero."""
    session.click("L2", scans.body_center("L2"))
    session.set_construct("T12", "L2")
    text = report_text(session.result)
    assert "L2 (LIV)" in text
    assert "T12 (UIV) was not measured: this level was asked for" in text
    assert headline(session.vertebra("L2")).split(" · ")[1].startswith("LIV L2: ")
    assert "no published cutoff" in headline(session.vertebra("T12"))
    assert cells(session.vertebra("T12"))[2] == "–"
    assert len(table_text(session.result).splitlines()) == 3


def test_spine_is_named_from_a_confirmed_level(session: Session) -> None:
    """The reader confirms the others one by one. Planted: all names confirmed."""
    from napari_spineimg.naming import named_spine

    session.click("L2", scans.body_center("L2"))
    placed = named_spine(session.volume, "L2", scans.body_center("L2"), lambda part, what: None)
    mine = session.state.roi("L2")
    session.add_named(placed)
    assert session.state.roi("L2") is mine
    assert len(session.state.levels) > 1
    assert all(one.confirmed is False for one in session.state.rois.vertebrae if one.level != "L2")
