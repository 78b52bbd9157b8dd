"""Dock widget Vertebral HU: click a body, read its HU and the flag, correct the ellipses, export."""

from __future__ import annotations

from functools import partial
from typing import Any
from weakref import WeakSet

import numpy as np
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPlainTextEdit,
    QPushButton,
    QTabWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from spineimg.anatomy import Role
from spineimg.errors import SpineImgError
from spineimg.geometry import FloatArray
from spineimg.results import VertebraResult
from spineimg.rois import Ellipse
from spineimg.volume import Verdict

from napari_spineimg import texts
from napari_spineimg.clicking import Clicking
from napari_spineimg.dialogs import keys_text
from napari_spineimg.docked import Docked
from napari_spineimg.hu_actions import HuActions
from napari_spineimg.hu_parts import LONGEST, BusyRow, FlagBanner, VertebraTable, full_width, level_names
from napari_spineimg.profile import Profile
from napari_spineimg.roi_layer import RoiLayer
from napari_spineimg.roi_shapes import ring, shifted
from napari_spineimg.room import room_of
from napari_spineimg.session import Session, attempt
from napari_spineimg.sessions import READERS, Sessions
from napari_spineimg.texts import notes_of
from napari_spineimg.work import Work

_EDITING = "ellipses"
_TABS = (
    "What is to be known of the chosen vertebra and of the scan",
    "HU along the spine",
    "Keys of the keyboard",
)
_WIDTH_CHARS = 48
_MARGIN_PX = 4
_IDLE_MS = 1500


class HuWidget(Docked):
    """The reader's desk. All numbers come from the session, which has them from the core."""

    def __init__(self, napari_viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.room = room_of(napari_viewer)
        self.rois = RoiLayer(self.room, self._dragged, self._edited, self._not_edited, self._stuck)
        self.naming = Work(self)
        self._idle = QTimer(self)
        """Runs out when the first picture of a CT has been seen."""
        self._idle.setSingleShot(True)
        self._idle.setInterval(_IDLE_MS)
        self._idle.timeout.connect(self.rois.prepare)
        self.current: str | None = None
        self._session: Session | None = None
        self._heard: WeakSet[Sessions] = WeakSet()
        """Sessions that are listened to."""
        self._build()
        self.clicks = Clicking(self)
        self.actions_ = HuActions(self)
        self._connect()
        self._study_changed()

    # -- building -----------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.banner, self.table, self.profile, self.busy = FlagBanner(), VertebraTable(), Profile(), BusyRow()
        self.by_hand = QPushButton("Place three ellipses by hand")
        self.by_hand.setToolTip("Puts three ellipses of a usual size around the click, to be moved onto the body")
        self.by_hand.hide()
        self.notes = QPlainTextEdit()
        self.notes.setReadOnly(True)
        self.notes.setToolTip(_TABS[0])
        self.tabs = QTabWidget()
        self.tabs.addTab(self.notes, "Notes")
        self.tabs.addTab(self.profile, "Profile")
        keys = QLabel(keys_text())
        keys.setWordWrap(True)
        keys.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.tabs.addTab(keys, "Keys")
        for number, tip in enumerate(_TABS):
            self.tabs.setTabToolTip(number, tip)
        self.tabs.setMinimumHeight(190)
        inner = QWidget()
        layout = QVBoxLayout(inner)
        layout.setContentsMargins(*[_MARGIN_PX] * 4)
        layout.addLayout(self._mode_row())
        layout.addLayout(self._level_row())
        for part in (self.banner, self.busy, self.message, self.by_hand):
            layout.addWidget(part)
        layout.addWidget(self.table, 1)
        layout.addLayout(self._history_row())
        layout.addWidget(self.tabs, 1)
        self.scroll_to(inner, _WIDTH_CHARS)

    def _mode_row(self) -> QHBoxLayout:
        self.clicking, self.adjusting = QPushButton("Click bodies"), QPushButton("Adjust ellipses")
        self.clicking.setToolTip("A click in a vertebral body, in any plane, measures the level (Shift+B)")
        self.adjusting.setToolTip("Drag, resize or turn an ellipse; the numbers follow (Shift+E)")
        row = QHBoxLayout()
        for button in (self.clicking, self.adjusting):
            button.setCheckable(True)
            row.addWidget(button)
        self.clicking.setChecked(True)
        return row

    def _level_row(self) -> QFormLayout:
        self.level, self.uiv, self.liv = QComboBox(), QComboBox(), QComboBox()
        self.level.addItems(level_names())
        self.level.setToolTip("The level that the next click measures; the next one is proposed")
        for box, role in ((self.uiv, "upper"), (self.liv, "lowest")):
            box.addItems(["–", *level_names()])
            box.setToolTip(f"The {role} instrumented vertebra")
        row = QHBoxLayout()
        for words, box in (("Level", self.level), ("UIV", self.uiv), ("LIV", self.liv)):
            row.addWidget(QLabel(words))
            row.addWidget(box, 1)
        form = QFormLayout()
        form.addRow(row)
        return form

    def _history_row(self) -> QHBoxLayout:
        self.undo_button, self.redo_button = QPushButton("Undo"), QPushButton("Redo")
        self.undo_button.setToolTip("Takes the last step back (Alt+Z)")
        self.redo_button.setToolTip("Does it again (Alt+Y)")
        self.export_menu, self.more_menu = QToolButton(), QToolButton()
        for button, words, tip in (
            (self.export_menu, "Export", "Files of the results, and text for the clipboard"),
            (self.more_menu, "More", "Name the spine, load ROIs, cutoff, acquisition, second reader"),
        ):
            button.setText(words)
            button.setToolTip(tip)
            button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
            button.setMinimumWidth(64)
        self.reader = QComboBox()
        self.reader.addItems([f"Reader {name}" for name in READERS])
        self.reader.setToolTip("The second reader does not see the first one's ROIs and numbers")
        row = QHBoxLayout()
        for part in (self.undo_button, self.redo_button, self.export_menu, self.more_menu, self.reader):
            row.addWidget(part)
        return row

    def _connect(self) -> None:
        room = self.room
        room.study_changed.connect(self._study_changed)
        room.clicked.connect(self._clicked)
        room.said.connect(self.say)
        room.viewer.layers.events.removed.connect(self._layer_removed)
        self.clicking.clicked.connect(partial(self.adjust, False))
        self.adjusting.clicked.connect(partial(self.adjust, True))
        self.table.chosen.connect(self.go_to)
        self.table.customContextMenuRequested.connect(self.actions_.show_row_menu)
        self.profile.picked.connect(self.go_to)
        self.undo_button.clicked.connect(self.undo)
        self.redo_button.clicked.connect(self.redo)
        for box in (self.uiv, self.liv):
            box.activated.connect(self._construct_chosen)
        self.reader.activated.connect(self._reader_chosen)
        self.naming.progressed.connect(lambda part, what: self.busy.work(what, part))
        self.naming.finished.connect(self.actions_.spine_named)
        self.naming.failed.connect(self.actions_.spine_not_named)
        self.busy.cancelled.connect(self.actions_.stop_naming)
        for key, press in self._keys().items():
            room.viewer.bind_key(key, press, overwrite=True)

    def _keys(self) -> dict[str, Any]:
        return {
            "Shift-E": lambda viewer: self.adjust(True),
            "Shift-B": lambda viewer: self.adjust(False),
            "Shift-Up": lambda viewer: self.shift_plane(1),
            "Shift-Down": lambda viewer: self.shift_plane(-1),
            "Alt-Z": lambda viewer: self.undo(),
            "Alt-Y": lambda viewer: self.redo(),
        }

    def wanted_width(self) -> int:
        """No column of the table behind its edge."""
        return full_width(self.table, texts.COLUMNS, LONGEST) + 2 * _MARGIN_PX

    def leave(self) -> None:
        """Takes the ROI layers and the keys away; what was measured is kept."""
        room = self.room
        self._idle.stop()
        self.naming.close()
        self.clicks.leave()
        room.study_changed.disconnect(self._study_changed, missing_ok=True)
        room.clicked.disconnect(self._clicked, missing_ok=True)
        room.said.disconnect(self.say, missing_ok=True)
        for sessions in self._heard:
            sessions.said.disconnect(self.say, missing_ok=True)
            for session in sessions.by_reader.values():
                session.changed.disconnect(self._changed, missing_ok=True)
        self.rois.leave()
        room.editing.discard(_EDITING)
        room.show_rois({}, None)
        if room.viewer is not None:
            room.viewer.layers.events.removed.disconnect(self._layer_removed)
            for key in self._keys():
                room.viewer.bind_key(key, None)

    def _layer_removed(self, event: Any) -> None:
        """Someone removed the ROIs' layer by hand: it is drawn again, since its numbers are still shown."""
        if self._session is not None and self.rois.owns(event.value):
            QTimer.singleShot(0, self, self._changed)

    # -- the study and its readers ------------------------------------------------------------------------------------

    @property
    def session(self) -> Session | None:
        return self._session

    def _study_changed(self) -> None:
        sessions = self.room.sessions
        self.actions_.stop_naming()
        self.clicks.forget()
        self.current = None
        self.adjust(False)
        why_not = self._why_not()
        self.allow(not why_not)
        if why_not or sessions is None:
            self._idle.stop()
            self.rois.close()
            self._session = None
            self.say(why_not)
            self._show(None)
            head = "No CT is open" if self.room.study is None else "Nothing can be measured"
            self.banner.show_nothing(head, "See below.")
            return
        self.say("")
        self.rois.close()
        self._idle.start()
        self.reader.setCurrentIndex(READERS.index(sessions.active))
        self._take(sessions.session)
        if sessions.active in sessions.restored:
            self.say("Your last session on this CT was restored. Undo starts afresh.")
            sessions.restored = ()
        if sessions not in self._heard:
            self._heard.add(sessions)
            sessions.said.connect(self.say)
            for session in sessions.by_reader.values():
                session.changed.connect(self._changed)

    def _why_not(self) -> str:
        """Why nothing can be measured; "" when it can."""
        study = self.room.study
        if study is None:
            return "Open a CT: drop its folder onto the window, or take File > Open Sample."
        if study.volume.verdict is Verdict.REFUSED:
            reasons = "; ".join(note.text for note in study.volume.notes)
            return f"This can be looked at but not measured: {reasons}."
        return ""

    def _take(self, session: Session) -> None:
        self._session = session
        self.current = session.state.levels[0] if session.state.levels else None
        self._changed()

    def _reader_chosen(self, number: int) -> None:
        if self.room.sessions is not None:
            self.actions_.stop_naming()
            self.clicks.forget()
            self.room.sessions.switch(READERS[number])
            self.say("")
            self._take(self.room.sessions.session)

    # -- the reader's hand --------------------------------------------------------------------------------------------

    def adjust(self, on: bool) -> None:
        """Lets the reader take hold of ellipses, or click bodies."""
        self.adjusting.setChecked(on)
        self.clicking.setChecked(not on)
        (self.room.editing.add if on else self.room.editing.discard)(_EDITING)
        self.rois.adjust(on)

    def _clicked(self, point_lps_mm: FloatArray) -> None:
        if self._session is not None and self.clicking.isChecked() and self.in_sight:
            self.measure(self.level.currentText(), point_lps_mm)

    def measure(self, level: str, point_lps_mm: FloatArray) -> None:
        """Measures a level from a click."""
        self.clicks.measure(level, point_lps_mm)

    def _dragged(self, level: str, ellipses: tuple[Ellipse, ...]) -> None:
        """Numbers while an ellipse is being moved; nothing is entered yet."""
        if self._session is None:
            return
        try:
            vertebra = self._session.try_ellipses(level, ellipses)
        except SpineImgError as error:
            self._stuck(str(error))
            return
        self.current = level
        self.table.show_live(vertebra)
        self.banner.show_vertebra(self._for_banner(vertebra))

    def _stuck(self, why: str) -> None:
        """An ellipse is held where it cannot be measured: no number may stand beside it."""
        self.say(why)
        self.table.clear_live()
        self.banner.show_vertebra(None)

    def _edited(self, level: str, ellipses: tuple[Ellipse, ...]) -> None:
        session = self._session
        if session is None:
            return
        self.current = level
        if not attempt(lambda: session.edit(level, ellipses), self.say):
            self._changed()

    def _not_edited(self, why: str) -> None:
        """Shows what is entered in place of what was shown while an ellipse was moved."""
        self._changed()
        self.say(why)

    def shift_plane(self, steps: int) -> None:
        """Moves the ellipse in hand along its normal, by so many slices towards the head."""
        key, study, session = self.rois.selected(), self.room.study, self._session
        if key is None or study is None or session is None:
            return
        away = steps * study.display.slice_mm
        moved = [shifted(one, away) if one.position == key[1] else one for one in session.ellipses(key[0])]
        attempt(lambda: session.edit(key[0], moved), self.say)
        self.rois.select(key)

    def undo(self) -> None:
        if self._session is not None:
            self._session.undo()

    def redo(self) -> None:
        if self._session is not None:
            self._session.redo()

    def _construct_chosen(self, _: int) -> None:
        session = self._session
        if session is None:
            return
        uiv, liv = (None if box.currentIndex() == 0 else box.currentText() for box in (self.uiv, self.liv))
        self.say("")
        attempt(lambda: session.set_construct(uiv, liv), self.say)
        self._show_construct()

    def go_to(self, level: str) -> None:
        """Moves all planes to a vertebra."""
        vertebra = self._session.vertebra(level) if self._session is not None else None
        if vertebra is None:
            return
        self.current = level
        if vertebra.hu.slices:
            self.room.move_to(np.mean([one.center_lps_mm for one in vertebra.hu.slices], axis=0))
        self._show(self._session)

    # -- showing ------------------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        session = self._session
        if session is None:
            return
        if self.current is not None and session.vertebra(self.current) is None:
            self.current = session.state.levels[0] if session.state.levels else None
        following = session.next_level()
        if following is not None:
            self.level.setCurrentText(following)
        self._show(session)

    def _show(self, session: Session | None) -> None:
        """Shows the session everywhere."""
        result = session.result if session is not None else None
        vertebrae = result.vertebrae if result is not None else ()
        self.table.show_rows(vertebrae, self.current)
        self.profile.show_result(result, self.current)
        current = next((one for one in vertebrae if one.level == self.current), None)
        self.banner.show_vertebra(self._for_banner(current))
        lines = [] if current is None else [f"{self.current}:", *notes_of(current)]
        of_scan = [note.text for note in result.notes if note.text not in lines] if result is not None else []
        lines += ["Scan:", *of_scan] if of_scan else []
        self.notes.setPlainText("\n".join(lines))
        self.undo_button.setEnabled(session is not None and session.can_undo)
        self.redo_button.setEnabled(session is not None and session.can_redo)
        self._show_construct()
        self._draw(session)

    def _for_banner(self, vertebra: VertebraResult | None) -> VertebraResult | None:
        """The vertebra in hand when it is flagged or nothing else is; else the LIV, whose flag must stay in sight."""
        if (vertebra is not None and vertebra.flag is not None) or self._session is None:
            return vertebra
        flagged = [one for one in self._session.result.vertebrae if one.role is Role.LIV and one.flag is not None]
        return flagged[0] if flagged else vertebra

    def _show_construct(self) -> None:
        if self._session is not None:
            construct = self._session.state.rois.construct
            for box, level in ((self.uiv, construct.uiv), (self.liv, construct.liv)):
                box.setCurrentText(level or "–")

    def _draw(self, session: Session | None) -> None:
        ellipses: dict[tuple[str, str], Ellipse] = {}
        if session is not None:
            for roi in session.state.rois.vertebrae:
                ellipses |= {(roi.level, one.position): one for one in roi.ellipses}
        self.rois.draw(ellipses, self.current, self._rings(session))
        self.room.show_rois(ellipses, self.current)

    def _rings(self, session: Session | None) -> list[FloatArray]:
        """Outline of the body in hand in the planes of its ellipses, where the core finds it from the click."""
        body = session.body(self.current) if session is not None and self.current else None
        if session is None or self.current is None or body is None:
            return []
        return [ring(body, ellipse) for ellipse in session.ellipses(self.current)]
