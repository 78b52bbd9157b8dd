"""Dock widget Implant screen: find screws and rods, walk through the screws, correct them, measure again."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QLabel,
    QMenu,
    QProgressBar,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from spineimg.anatomy import Construct, order
from spineimg.geometry import FloatArray
from spineimg.implants.given import GivenScrew
from spineimg.implants.model import ImplantScreen, Screw, Vector
from spineimg.results import CaseResult

from napari_spineimg import outputs
from napari_spineimg.docked import Docked
from napari_spineimg.hu_parts import full_width, name_columns
from napari_spineimg.implant_layer import ImplantLayer, colour_of, lines_of
from napari_spineimg.menus import fill
from napari_spineimg.plane_view import Line
from napari_spineimg.room import room_of
from napari_spineimg.screening import Screening
from napari_spineimg.screw_views import ScrewViews
from napari_spineimg.session import attempt
from napari_spineimg.texts import DASH, WORDS, number, screw_report

_COLUMNS = ("Screw", "Loosening", "Median mm", "90 %", "> 1 mm", "Ø mm", "Length mm")
_LONGEST = ("screw-10", "○ not assessed", "0.0", "0.0–0.0", "100%", "7.0", "45")
"""Cells of a row that is as long as rows usually get."""
_COLUMN_TIPS = (
    "Level and side",
    "Loosening: a lucent zone wider than 1 mm around enough of the screw",
    "Median width of the lucent zone",
    "90 % interval of that width",
    "Share of the screw's surface in bone with a zone wider than 1 mm",
    "Outer diameter",
    "From the head of the shaft to the tip",
)
_EDITING = "screws"
_WIDTH_CHARS = 52
_MARGIN_PX = 4


class ImplantWidget(Docked):
    """The screen runs in a thread, the viewer stays usable. All measuring is the core's."""

    def __init__(self, napari_viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.room = room_of(napari_viewer)
        self.run = Screening(self)
        self.layer = ImplantLayer(self.room, self._moved, self.say)
        self.chosen: str | None = None
        self._adding: list[FloatArray] = []
        self._names: dict[str, Vector] = {}
        self._old = False
        self._build()
        self._connect()
        self._study_changed()

    def _build(self) -> None:
        self.start, self.stop = QPushButton("Run the screen"), QPushButton("Cancel")
        self.start.setToolTip("Finds screws and rods and measures the lucent zone around each screw")
        self.stop.setToolTip("Ends the run; what was found before stays")
        self.bar = QProgressBar()
        self.bar.setToolTip("How far the run is; the viewer can be used meanwhile")
        self.bar.setRange(0, 1000)
        self.grade = QLabel()
        self.grade.setWordWrap(True)
        self.grade.setTextFormat(Qt.TextFormat.PlainText)
        self.table = QTableWidget(0, len(_COLUMNS))
        name_columns(self.table, _COLUMNS, _COLUMN_TIPS)
        self.table.setToolTip("Choose a row to see the screw and to go there")
        self.table.verticalHeader().hide()
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setMinimumHeight(180)
        self.move, self.add, self.remove = (QPushButton(words) for words in ("Move ends", "Add a screw", "Remove"))
        self.move.setCheckable(True)
        self.move.setToolTip("Drag the head or the tip of a screw in the viewer; it is measured again")
        self.add.setToolTip("Click the head of the missed screw, then its tip; all screws are measured again")
        self.remove.setToolTip("Takes the chosen screw out of the list and measures the others again")
        self.views = ScrewViews()
        self.export_menu = QToolButton()
        self.export_menu.setText("Export")
        self.export_menu.setToolTip("Files of the screen, and text for the clipboard")
        self.export_menu.setMinimumWidth(64)
        self.export_menu.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.export_menu.setMenu(self._menu())
        self.propose = QPushButton()
        self.propose.setToolTip("Takes the ends of the construct from the uppermost and the lowest level with a screw")
        self.propose.hide()
        inner = QWidget()
        layout = QVBoxLayout(inner)
        layout.setContentsMargins(*[_MARGIN_PX] * 4)
        layout.addLayout(_row(self.start, self.stop))
        for part in (self.bar, self.message, self.grade, self.table):
            layout.addWidget(part)
        layout.addLayout(_row(self.move, self.add, self.remove, self.export_menu))
        layout.addWidget(self.propose)
        layout.addWidget(self.views, 1)
        self.scroll_to(inner, _WIDTH_CHARS)

    def _connect(self) -> None:
        self.start.clicked.connect(lambda: self.begin(()))
        self.stop.clicked.connect(self._cancel)
        self.run.progressed.connect(self._progressed)
        self.run.finished.connect(self._finished)
        self.run.failed.connect(self._ended)
        self.run.cancelled.connect(lambda: self._ended("Cancelled; what was found before stays."))
        self.table.itemSelectionChanged.connect(self._chosen)
        self.move.toggled.connect(self._move_toggled)
        self.add.clicked.connect(self._start_adding)
        self.remove.clicked.connect(self._remove)
        self.propose.clicked.connect(self._take_ends)
        self.room.study_changed.connect(self._study_changed)
        self.room.rois_changed.connect(self._check_names)

    def _menu(self) -> QMenu:
        kinds = outputs.SCREW_KINDS.items()
        files = [(f"{words} …", partial(self.export, kind), tip) for kind, (words, _, tip) in kinds]
        table = ("Copy the table", self.copy_table, "To the clipboard, for a spreadsheet")
        report = ("Copy a paragraph for the report", self.copy_report, "To the clipboard, in plain sentences")
        return fill(QMenu(self), [*files, None, table, report])

    def wanted_width(self) -> int:
        """No column of the table behind its edge."""
        return full_width(self.table, _COLUMNS, _LONGEST) + 2 * _MARGIN_PX

    def leave(self) -> None:
        """Ends the run and takes the layer away; what was found is kept."""
        self.run.close()
        self.room.study_changed.disconnect(self._study_changed, missing_ok=True)
        self.room.rois_changed.disconnect(self._check_names, missing_ok=True)
        self.room.editing.discard(_EDITING)
        self.room.claimed = None
        self.layer.leave()
        self.room.show_lines([])

    # -- running ------------------------------------------------------------------------------------------------------

    def begin(self, screws: tuple[GivenScrew, ...]) -> None:
        """Runs the screen; with screws given, these are measured instead of searched for."""
        study, sessions = self.room.study, self.room.sessions
        if study is None or sessions is None or self.run.running:
            return
        rois = sessions.session.state.rois
        self.say("")
        self._running(True)
        self._names = sessions.names()
        self.run.screen(sessions.session.volume, rois if rois.vertebrae else None, screws)

    def _running(self, on: bool) -> None:
        self.bar.setVisible(on)
        self.bar.setValue(0)
        self.stop.setEnabled(on)
        for button in (self.start, self.move, self.add, self.remove):
            button.setEnabled(not on and self.room.study is not None)

    def _cancel(self) -> None:
        self.stop.setEnabled(False)
        self.say("Cancelling: the run ends with the step that is under way.")
        self.run.cancel()

    def _progressed(self, part: float, what: str) -> None:
        self.bar.setValue(round(1000 * part))
        self.bar.setFormat(f"{what} %p%")

    def _ended(self, words: str) -> None:
        self._running(False)
        self.say(words)

    def _finished(self, screen: ImplantScreen) -> None:
        self._running(False)
        if self.room.sessions is None:
            return
        self.room.sessions.take_screen(screen, self._names)
        if self.chosen not in [one.id for one in screen.screws]:
            self.chosen = screen.screws[0].id if screen.screws else None
        self.say("; ".join(note.text for note in screen.notes))
        self._show()

    def _study_changed(self) -> None:
        self.run.close()
        self.allow(self.room.study is not None)
        self._running(False)
        self.chosen, self.room.claimed = None, None
        self.move.setChecked(False)
        self.say("" if self.room.study is not None else "Open a CT after surgery first.")
        self._show()

    def _check_names(self) -> None:
        """Says so when vertebrae were named, moved or removed since the screen took its levels from them."""
        sessions = self.room.sessions
        if sessions is None or sessions.screen is None:
            return
        old = sessions.names() != sessions.screened_names
        if old != self._old:
            self._old = old
            self._show_grade()

    def _ends(self) -> tuple[str, str] | None:
        """The uppermost and the lowest level that bear a screw; None where a screw has no level."""
        screws = self.screen.screws if self.screen is not None else ()
        levels = sorted({one.level for one in screws if one.level is not None}, key=order)
        return (levels[0], levels[-1]) if levels and all(one.level for one in screws) else None

    def _take_ends(self) -> None:
        ends, sessions = self._ends(), self.room.sessions
        if ends is not None and sessions is not None:
            attempt(lambda: sessions.session.set_construct(*ends), self.say)
            self._show_propose()

    def _show_propose(self) -> None:
        ends, sessions = self._ends(), self.room.sessions
        taken = sessions is not None and sessions.session.state.rois.construct == Construct(*(ends or (None, None)))
        self.propose.setVisible(ends is not None and not taken)
        if ends is not None:
            self.propose.setText(f"Take UIV {ends[0]} and LIV {ends[1]} from the screws")

    # -- showing ------------------------------------------------------------------------------------------------------

    @property
    def screen(self) -> ImplantScreen | None:
        return self.room.screen if self.room.study is not None else None

    def _screw(self) -> Screw | None:
        screen = self.screen
        return next((one for one in screen.screws if one.id == self.chosen), None) if screen is not None else None

    def _show(self) -> None:
        screen, sessions = self.screen, self.room.sessions
        self._old = sessions is not None and screen is not None and sessions.names() != sessions.screened_names
        screws = screen.screws if screen is not None else ()
        self.table.blockSignals(True)
        self.table.setRowCount(len(screws))
        for row, screw in enumerate(screws):
            self._show_row(row, screw)
            if screw.id == self.chosen:
                self.table.selectRow(row)
        self.table.resizeColumnsToContents()
        self.table.blockSignals(False)
        self._show_grade()
        self._show_propose()
        self._show_pictures()

    def _show_grade(self) -> None:
        screen = self.screen
        self.grade.setVisible(screen is not None)
        if screen is None:
            return
        lines = ["⚠ Vertebrae were changed since this run: run the screen again for the right levels."] * self._old
        lines += [screen.grade.text, *(f"• {reason}" for reason in screen.grade.reasons)]
        self.grade.setToolTip("\n".join(f"Not judged: {one}" for one in screen.grade.not_judged))
        if screen.grade.not_judged:
            lines.append(f"{len(screen.grade.not_judged)} criteria need more than one scan: see the tooltip.")
        self.grade.setText("\n".join(lines))

    def _show_pictures(self) -> None:
        screen = self.screen
        self.layer.draw(screen, self.chosen)
        if self.room.layer is not None:
            self.views.show_window(self.room.layer.contrast_limits)
        self.views.show_screw(self.room.study, self._screw())
        lines = [] if screen is None else [Line(p, colour, width=w) for p, colour, w in lines_of(screen, self.chosen)]
        self.room.show_lines(lines)

    def _show_row(self, row: int, screw: Screw) -> None:
        reasons = [screw.halo.reason] if screw.halo.reason else []
        tip = "\n".join([*reasons, *(note.text for note in (*screw.shaft.notes, *screw.notes))])
        for column, text in enumerate(_cells(screw)):
            item = QTableWidgetItem(text)
            item.setToolTip(tip)
            if column == 1:
                item.setForeground(QColor("white"))
                item.setBackground(QColor(colour_of(screw.loosening)).darker(220))
            self.table.setItem(row, column, item)

    def _chosen(self) -> None:
        screen, row = self.screen, self.table.currentRow()
        if screen is not None and 0 <= row < len(screen.screws):
            screw = screen.screws[row]
            self.chosen = screw.id
            self.room.move_to((np.asarray(screw.shaft.head_lps_mm) + np.asarray(screw.shaft.tip_lps_mm)) / 2)
            self._show_pictures()

    # -- correcting ---------------------------------------------------------------------------------------------------

    def given(self) -> list[GivenScrew]:
        """The screws of the present screen, as marks."""
        screen = self.screen
        return [
            GivenScrew(
                np.asarray(one.shaft.head_lps_mm),
                np.asarray(one.shaft.tip_lps_mm),
                None,
                one.id,
                one.level,
                one.side,
            )
            for one in (screen.screws if screen is not None else ())
        ]

    def _move_toggled(self, on: bool) -> None:
        (self.room.editing.add if on else self.room.editing.discard)(_EDITING)
        self.layer.adjust(on)

    # -- out ----------------------------------------------------------------------------------------------------------

    def _result(self) -> CaseResult | None:
        """The screen as the command line has it: screws, and no vertebra that was measured."""
        screen, sessions = self.screen, self.room.sessions
        if screen is None or sessions is None:
            self.say("Run the screen first.")
            return None
        whole = sessions.session.result
        notes = tuple(dict.fromkeys((*sessions.session.volume.notes, *screen.notes)))
        return replace(whole, vertebrae=(), notes=notes, settings=screen.settings, implants=screen)

    def export(self, kind: str, path: str | None = None) -> None:
        """Writes one of outputs.SCREW_KINDS; asks where when no path is given."""
        result, study = self._result(), self.room.study
        where = (path or outputs.ask_where(self, kind)) if result is not None else None
        if not where or study is None or result is None:
            return
        if attempt(lambda: outputs.write_screws(kind, where, study, result), self.say):
            self.say(f"Written: {where}")

    def copy_table(self) -> None:
        if self.screen is not None:
            rows = [_COLUMNS, *(_cells(one) for one in self.screen.screws)]
            outputs.copy("\n".join("\t".join(row) for row in rows) + "\n")
            self.say("The table is on the clipboard.")

    def copy_report(self) -> None:
        if self.screen is not None:
            outputs.copy(screw_report(self.screen))
            self.say("The paragraph is on the clipboard.")

    def _moved(self, name: str, head: FloatArray, tip: FloatArray) -> None:
        marks = [replace(one, head_lps_mm=head, tip_lps_mm=tip) if one.id == name else one for one in self.given()]
        self.chosen = name
        self.begin(tuple(marks))

    def _start_adding(self) -> None:
        self._adding = []
        self.room.claimed = self._clicked
        self.move.setChecked(False)
        self.say("Click where the shaft of the missed screw meets its head.")

    def _clicked(self, point_lps_mm: FloatArray) -> None:
        self._adding.append(point_lps_mm)
        if len(self._adding) == 1:
            self.say("Now click its tip.")
            return
        self.room.claimed = None
        head, tip = self._adding
        if np.linalg.norm(tip - head) < 5:
            self.say("Head and tip are less than 5 mm apart: add the screw again.")
            return
        self.begin((*self.given(), GivenScrew(head, tip)))

    def _remove(self) -> None:
        rest = [one for one in self.given() if one.id != self.chosen]
        if rest and len(rest) < len(self.given()):
            self.begin(tuple(rest))
        else:
            self.say("Choose one of several screws to be removed.")


def _cells(screw: Screw) -> tuple[str, ...]:
    """One row of the table, as _COLUMNS."""
    halo = screw.halo
    interval = DASH if halo.interval_mm is None else "–".join(number(end) for end in halo.interval_mm)
    return (
        screw.id,
        WORDS[screw.loosening],
        number(halo.width_median_mm),
        interval,
        DASH if halo.coverage_over_1mm is None else f"{halo.coverage_over_1mm:.0%}",
        number(screw.shaft.diameter_mm),
        number(screw.shaft.length_mm, 0),
    )


def _row(*buttons: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    for button in buttons:
        row.addWidget(button)
    return row
