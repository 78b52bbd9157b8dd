"""Menus whose entries say what they do."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from qtpy.QtWidgets import QMenu

Entry = tuple[str, Callable[[], object], str]
"""(words, what is done, tooltip)."""


def fill(menu: QMenu, entries: Iterable[Entry | None]) -> QMenu:
    """Adds entries; None is a line between them."""
    menu.setToolTipsVisible(True)
    for entry in entries:
        if entry is None:
            menu.addSeparator()
            continue
        words, step, tip = entry
        action = menu.addAction(words, step)
        if action is not None:
            action.setToolTip(tip)
    return menu
