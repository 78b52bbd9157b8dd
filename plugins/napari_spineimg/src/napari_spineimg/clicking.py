"""From a click to a measured level: at once where the body is clear by itself, else in the background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spineimg.anatomy import parse_level
from spineimg.geometry import FloatArray
from spineimg.notes import Note
from spineimg.rois import VertebraRoi
from spineimg.vertebra.click import Placed

from napari_spineimg.session import Session, attempt, is_unclear, placed_at
from napari_spineimg.work import Work

if TYPE_CHECKING:
    from napari_spineimg.hu_widget import HuWidget


@dataclass(frozen=True, eq=False, slots=True)
class _Question:
    """A click whose answer is awaited. roi: what the level had then."""

    session: Session
    level: str
    point_lps_mm: FloatArray
    roi: VertebraRoi | None


class Clicking:
    """What clicks in bodies do. An answer that comes when the reader has moved on is dropped."""

    def __init__(self, widget: HuWidget) -> None:
        self._widget = widget
        self.neighbours = Work(widget)
        self._asked: _Question | None = None
        self._missed: tuple[str, FloatArray] | None = None
        self.neighbours.finished.connect(self._answered)
        self.neighbours.failed.connect(self._failed)
        widget.busy.cancelled.connect(self._cancelled)
        widget.by_hand.clicked.connect(self.place_by_hand)

    def measure(self, level: str, point_lps_mm: FloatArray) -> None:
        """Measures a level from a click; says why where no body is found, and offers ellipses to be placed."""
        session = self._widget.session
        if session is None:
            return
        self.forget()
        self._widget.say("")
        question = _Question(session, parse_level(level), point_lps_mm, session.state.roi(level))
        found: list[Placed] = []
        if attempt(lambda: found.append(self._alone(question)), self._widget.say):
            if is_unclear(found[0]):
                self._ask(question)
            else:
                self._enter(question, found[0])

    @staticmethod
    def _alone(question: _Question) -> Placed:
        return placed_at(question.session.volume, question.level, question.point_lps_mm, alone=True)

    def _ask(self, question: _Question) -> None:
        self._asked = question
        volume, level, point = question.session.volume, question.level, question.point_lps_mm
        self._widget.busy.work(f"{level}: its own fit is unclear, its neighbours are asked …")
        self.neighbours.start(lambda _: placed_at(volume, level, point))

    def _answered(self, placed: Placed) -> None:
        question, self._asked = self._asked, None
        self._widget.busy.rest()
        if question is None or question.session is not self._widget.session:
            return
        if question.session.state.roi(question.level) is question.roi:
            self._enter(question, placed)

    def _failed(self, why: str) -> None:
        self._asked = None
        self._widget.busy.rest()
        self._widget.say(why)

    def _cancelled(self) -> None:
        question = self._asked
        if question is not None:
            self.forget()
            self._offer(question.level, question.point_lps_mm, "given up; click again, or place the ellipses")

    def _enter(self, question: _Question, placed: Placed) -> None:
        widget, level = self._widget, question.level
        previous, widget.current = widget.current, level
        done = attempt(lambda: question.session.enter_click(level, question.point_lps_mm, placed), widget.say)
        if not done or not placed.rois:
            widget.current = previous
        if done and not placed.rois:
            self._offer(level, question.point_lps_mm, _words(placed.notes))

    def _offer(self, level: str, point_lps_mm: FloatArray, why: str) -> None:
        self._missed = (level, point_lps_mm)
        self._widget.say(f"{level}: {why}.")
        self._widget.by_hand.show()

    def place_by_hand(self) -> None:
        """Three ellipses of a usual size around the click that found no body."""
        widget, session = self._widget, self._widget.session
        if session is None or self._missed is None:
            return
        level, point = self._missed
        widget.current = level
        if attempt(lambda: session.place_by_hand(level, point), widget.say):
            widget.by_hand.hide()
            widget.say(f"{level}: three ellipses of a usual size. Move them onto trabecular bone.")
            widget.adjust(True)

    def forget(self) -> None:
        """Gives up what is awaited and what was missed."""
        self.neighbours.drop()
        if self._asked is not None:
            self._widget.busy.rest()
        self._asked = self._missed = None
        self._widget.by_hand.hide()

    def leave(self) -> None:
        """Leaves no thread behind."""
        self.forget()
        self.neighbours.close()


def _words(notes: tuple[Note, ...]) -> str:
    return "; ".join(note.text for note in notes)
