"""Menus of the HU widget: exports, clipboard, cutoff, names and marks of a vertebra, the second reader."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QFileDialog, QInputDialog, QMenu
from spineimg.anatomy import Role, Status, order
from spineimg.cutoffs import PUBLISHED, for_role
from spineimg.errors import SpineImgError

from napari_spineimg import dialogs, outputs, texts
from napari_spineimg.agreement_view import AgreementDialog
from napari_spineimg.hu_parts import level_names
from napari_spineimg.menus import fill
from napari_spineimg.naming import Named, named_spine
from napari_spineimg.session import Session, attempt, own_cutoff

if TYPE_CHECKING:
    from napari_spineimg.hu_widget import HuWidget


class HuActions:
    """What the menus of the widget do. Every complaint is shown in the widget."""

    def __init__(self, widget: HuWidget) -> None:
        self._widget = widget
        widget.export_menu.setMenu(self._export_menu())
        widget.more_menu.setMenu(self._more_menu())

    def _export_menu(self) -> QMenu:
        files = [(f"{words} …", partial(self.export, kind), tip) for kind, (words, _, tip) in outputs.KINDS.items()]
        table = ("Copy the table", self.copy_table, "To the clipboard, for a spreadsheet")
        report = ("Copy a paragraph for the report", self.copy_report, "To the clipboard, in plain sentences")
        return fill(QMenu(self._widget), [*files, None, table, report])

    def _more_menu(self) -> QMenu:
        about = partial(dialogs.show_about, self._widget)
        entries = (
            (
                "Name the spine from the level in hand",
                self.name_spine,
                "Finds the bodies above and below the chosen one and counts their names from it",
            ),
            (
                "Load a ROI file …",
                self.load,
                "Takes the ROIs of a file in place of the present ones; Undo brings them back",
            ),
            None,
            ("Cutoff of the LIV …", self.change_cutoff, "Another cutoff for the flag, with its source"),
            ("State the acquisition …", self.state, "Voltage, contrast agent and kernel, where the file does not say"),
            None,
            ("Agreement of both readers …", self.show_agreement, "Difference, limits of agreement and ICC of A and B"),
            ("About spineimg …", about, "Version and papers"),
        )
        return fill(QMenu(self._widget), entries)

    def _try(self, step: Callable[[Session], object]) -> bool:
        session = self._widget.session
        if session is None:
            return False
        self._widget.say("")
        return attempt(lambda: step(session), self._widget.say)

    # -- out ----------------------------------------------------------------------------------------------------------

    def export(self, kind: str, path: str | None = None) -> None:
        """Writes one of outputs.KINDS; asks where when no path is given."""
        where = path or outputs.ask_where(self._widget, kind)
        study, room = self._widget.room.study, self._widget.room
        if not where or study is None:
            return
        if self._try(lambda session: outputs.write(kind, where, session, study.case, room.screen)):
            self._widget.say(f"Written: {where}")

    def copy_table(self) -> None:
        if self._try(lambda session: outputs.copy(texts.table_text(session.result))):
            self._widget.say("The table is on the clipboard.")

    def copy_report(self) -> None:
        if self._try(lambda session: outputs.copy(texts.report_text(session.result))):
            self._widget.say("The paragraph is on the clipboard.")

    # -- more ---------------------------------------------------------------------------------------------------------

    def load(self, path: str | None = None) -> None:
        where = path or QFileDialog.getOpenFileName(self._widget, "Load a ROI file", "", "ROI file (*.json)")[0]
        if where:
            self._try(lambda session: session.load(where))

    def name_spine(self) -> None:
        """Finds and names the vertebrae above and below the level in hand, which is confirmed, in the background."""
        level, session = self._widget.current, self._widget.session
        roi = session.state.roi(level) if level and session is not None else None
        if session is None or roi is None or roi.center_lps_mm is None:
            self._widget.say("click one body first and give it its right name: the others are counted from it")
            return
        volume, point, name = session.volume, roi.center_lps_mm, roi.level
        self._widget.clicks.forget()
        self._widget.say("")
        self._widget.naming.start(partial(named_spine, volume, name, point))

    def spine_named(self, placed: list[Named]) -> None:
        """Enters the vertebrae that were found."""
        self._widget.busy.rest()
        self._try(lambda session: session.add_named(placed))

    def spine_not_named(self, why: str) -> None:
        self._widget.busy.rest()
        self._widget.say(why)

    def stop_naming(self) -> None:
        """What would be found is not entered."""
        if self._widget.naming.running:
            self._widget.naming.drop()
            self._widget.busy.rest()

    def change_cutoff(self) -> None:
        session = self._widget.session
        present = for_role(session.state.cutoffs, Role.LIV) if session is not None else None
        if present is None:
            return
        dialog = dialogs.CutoffDialog(present.value_hu, present.source, self._widget)
        if dialog.exec():
            if dialog.complaint:
                self._widget.say(f"The cutoff was not changed: {dialog.complaint}.")
            elif dialog.published:
                self._try(lambda session: session.set_cutoffs(PUBLISHED))
            else:
                self.set_cutoff(dialog.value.value(), dialog.source.text().strip())
        dialog.deleteLater()

    def set_cutoff(self, value_hu: float, source: str) -> None:
        """A cutoff of the reader's own; the flag then names its source everywhere."""
        own = own_cutoff(value_hu, source)
        self._try(lambda session: session.set_cutoffs((own,)))

    def state(self) -> None:
        study = self._widget.room.study
        if study is None:
            return
        dialog = dialogs.StatedDialog(study.volume.acquisition, self._widget)
        if dialog.exec():
            stated = dialog.stated
            self._try(lambda session: session.set_stated(stated))
        dialog.deleteLater()

    def show_agreement(self) -> None:
        sessions = self._widget.room.sessions
        if sessions is None:
            return
        try:
            agreement = sessions.agreement()
        except SpineImgError as error:
            self._widget.say(f"No agreement can be shown: {error}.")
            return
        dialog = AgreementDialog(agreement, self._widget)
        dialog.exec()
        dialog.deleteLater()

    # -- one vertebra -------------------------------------------------------------------------------------------------

    def show_row_menu(self, place: Any) -> None:
        """The menu of a row of the table."""
        table = self._widget.table
        level = table.level_at(table.rowAt(place.y()))
        if level is not None:
            menu = self.row_menu(level)
            menu.exec(table.viewport().mapToGlobal(place))
            menu.deleteLater()

    def row_menu(self, level: str) -> QMenu:
        menu = QMenu(self._widget)
        upper, lowest = (partial(self.set_role, level, role) for role in (Role.UIV, Role.LIV))
        confirm, rename = partial(self._mark, level, confirmed=True), partial(self._rename, level)
        entries = (
            (f"{level} is the UIV", upper, "The upper instrumented vertebra"),
            (f"{level} is the LIV", lowest, "The lowest instrumented vertebra, which is flagged"),
            None,
            ("The name is right", confirm, "Takes the question mark away"),
            ("Another name …", rename, "This vertebra alone gets another name"),
        )
        fill(menu, entries)
        marks = menu.addMenu("Mark as")
        if marks is not None:
            never = "Measured, never flagged"
            of_status = [(str(status), partial(self._mark, level, status=status), never) for status in Status]
            fill(marks, [("nothing", partial(self._mark, level, status=None), "An ordinary vertebra"), *of_status])
        remove = partial(self._try, lambda session: session.remove(level))
        return fill(menu, [None, ("Remove", remove, "Takes the vertebra out of the list; Undo brings it back")])

    def set_role(self, level: str, role: Role) -> None:
        def step(session: Session) -> None:
            construct = session.state.rois.construct
            if role is Role.UIV:
                session.set_construct(level, construct.liv)
            else:
                session.set_construct(construct.uiv, level)

        self._try(step)

    def _mark(self, level: str, **changes: Any) -> None:
        def step(session: Session) -> None:
            roi = session.state.roi(level)
            if roi is not None:
                session.mark(level, **({"status": roi.status, "confirmed": roi.confirmed} | changes))

        self._try(step)

    def _rename(self, level: str) -> None:
        names = [name for name in level_names() if name != level]
        nearest = min(range(len(names)), key=lambda n: abs(order(names[n]) - order(level)))
        name, accepted = QInputDialog.getItem(self._widget, "Another name", f"{level} is", names, nearest, False)
        if accepted:
            self._widget.current = name
            self._try(lambda session: session.rename(level, name))
