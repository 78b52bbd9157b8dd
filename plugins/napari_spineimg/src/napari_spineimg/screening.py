"""The implant screen in a thread of its own, with progress and cancel."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from qtpy.QtCore import QObject, Signal
from spineimg.errors import SpineImgError
from spineimg.implants.given import GivenScrew
from spineimg.implants.model import ImplantScreen, Progress
from spineimg.pipeline import screen
from spineimg.rois import RoiSet
from spineimg.volume import CTVolume

ScreenFunction = Callable[[CTVolume, RoiSet | None, Sequence[GivenScrew], Progress], ImplantScreen]


class _CancelledError(Exception):
    """Raised from the progress callback, as the core asks for it."""


def core_screen(
    volume: CTVolume, rois: RoiSet | None, screws: Sequence[GivenScrew], progress: Progress
) -> ImplantScreen:
    """The core's screen. Raises SpineImgError."""
    found = screen(volume, rois, screws=screws, progress=progress).implants
    if found is None:
        raise SpineImgError("the screen gave no result")
    return found


class Screening(QObject):
    """One run at a time. Exactly one of finished, failed and cancelled follows each start, in the window's thread."""

    progressed = Signal(float, str)
    finished = Signal(object)
    failed = Signal(str)
    cancelled = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.function: ScreenFunction = core_screen
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, volume: CTVolume, rois: RoiSet | None, screws: Sequence[GivenScrew]) -> None:
        if self.running:
            return
        self._stop.clear()
        self._thread = threading.Thread(
            target=self._run, args=(volume, rois, tuple(screws)), name="spineimg-screen", daemon=True
        )
        self._thread.start()

    def cancel(self) -> None:
        """Ends the run at its next step."""
        self._stop.set()

    def close(self) -> None:
        """Cancels and waits."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30)
            self._thread = None

    def _run(self, *inputs: Any) -> None:
        try:
            found = self.function(*inputs, self._tell)
        except _CancelledError:
            self.cancelled.emit()
        except SpineImgError as error:
            self.failed.emit(str(error))
        else:
            self.finished.emit(found)

    def _tell(self, part: float, what: str) -> None:
        if self._stop.is_set():
            raise _CancelledError
        self.progressed.emit(part, what)
