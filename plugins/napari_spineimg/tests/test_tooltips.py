"""Every control says what it does, and every key stands in the list."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import scans
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QDialogButtonBox,
    QLineEdit,
    QMenu,
    QPlainTextEdit,
    QProgressBar,
    QScrollBar,
    QTabBar,
    QTableWidget,
    QTabWidget,
    QToolButton,
    QWidget,
)
from spineimg.volume import Acquisition

from napari_spineimg.dialogs import CutoffDialog, StatedDialog, keys_text
from napari_spineimg.plane_view import PlaneView

_CONTROLS = (
    *(QAbstractButton, QAbstractSlider, QAbstractSpinBox, QComboBox, QLineEdit, QPlainTextEdit, QProgressBar),
    *(QTableWidget, PlaneView),
)
_OF_QT = (*_CONTROLS, QDialogButtonBox, QScrollBar, QTabBar)


def controls(widget: QWidget) -> Iterator[QWidget]:
    """What the plugin made; not the parts that Qt makes for its own widgets."""
    for one in widget.findChildren(QWidget):
        above = one.parentWidget()
        while above is not None and above is not widget and not isinstance(above, _OF_QT):
            above = above.parentWidget()
        if isinstance(one, _CONTROLS) and not isinstance(one, QScrollBar) and above in (None, widget):
            yield one


def silent_actions(menu: QMenu) -> list[str]:
    found = [] if menu.toolTipsVisible() else [f"the tooltips of {menu.actions()[0].text()!r} …"]
    for action in menu.actions():
        if action.menu() is not None:
            found += silent_actions(action.menu())
        elif not action.isSeparator() and action.toolTip() in ("", action.text(), action.text().rstrip(" …")):
            found.append(action.text())
    return found


@pytest.mark.parametrize("name", ["Vertebral HU", "Linked planes", "Implant screen"])
def test_every_control_has_a_tooltip(reading: Any, name: str) -> None:
    """Planted: the export button without its tooltip."""
    widget = reading().open(name)
    silent = [f"{type(one).__name__} {getattr(one, 'text', str)()}" for one in controls(widget) if not one.toolTip()]
    for tabs in widget.findChildren(QTabWidget):
        silent += [tabs.tabText(n) for n in range(tabs.count()) if not tabs.tabToolTip(n)]
    for table in widget.findChildren(QTableWidget):
        heads = [table.horizontalHeaderItem(n) for n in range(table.columnCount())]
        silent += [head.text() for head in heads if not head.toolTip()]
    for button in widget.findChildren(QToolButton):
        silent += silent_actions(button.menu()) if button.menu() is not None else []
    assert silent == []


def test_the_menu_of_a_row_and_the_windows_have_tooltips(reading: Any, qtbot: Any) -> None:
    widget = reading().open("Vertebral HU")
    widget.measure("L2", scans.body_center("L2"))
    menu = widget.actions_.row_menu("L2")
    assert silent_actions(menu) == []
    menu.deleteLater()
    for dialog in (CutoffDialog(127.273, "Lee 2024"), StatedDialog(Acquisition(kvp=120.0))):
        qtbot.addWidget(dialog)
        assert [type(one).__name__ for one in controls(dialog) if not one.toolTip()] == []


def test_every_key_is_listed(reading: Any) -> None:
    """Planted: a key bound without a line in the list."""
    widget = reading().open("Vertebral HU")
    bound = [str(key) for key in widget.room.viewer.keymap]
    listed = keys_text().replace("Alt+1 … Alt+4", "Alt+1, Alt+2, Alt+3, Alt+4")
    assert len(bound) >= 10
    assert [key for key in bound if key not in listed.replace(",", " ").replace(":", " ").split()] == []
