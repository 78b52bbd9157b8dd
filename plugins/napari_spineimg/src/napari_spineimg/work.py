"""Long jobs in a thread of its own, with progress and cancel. What a job says after it was given up is not heard."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject, Signal
from spineimg.errors import SpineImgError
from spineimg.implants.model import Progress

_PATIENCE_S = 5.0
"""A window that stands still for longer seems broken. Engineering choice."""
Job = Callable[[Progress], Any]
"""Does the work; calls its argument with the part that is done and what is under way, which cancels by raising."""


class _CancelledError(Exception):
    """Raised from the progress callback, as the core asks for it."""


class Work(QObject):
    """One job at a time. One of finished, failed and cancelled follows each start, in the window's thread; none of
    them after `close`, not even from a job that had just come to its end."""

    progressed = Signal(float, str)
    finished = Signal(object)
    failed = Signal(str)
    cancelled = Signal()
    _told = Signal(int, str, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._number = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._left: list[threading.Thread] = []
        """Threads of jobs that nobody hears any more."""
        self._told.connect(self._hear)

    @property
    def running(self) -> bool:
        return self._thread is not None

    def start(self, job: Job) -> None:
        """Starts a job; nothing while another one runs."""
        if self.running:
            return
        self._number += 1
        self._stop = threading.Event()
        inputs = (job, self._number, self._stop)
        self._thread = threading.Thread(target=self._run, args=inputs, name="spineimg-work", daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """Ends the job at its next step."""
        self._stop.set()

    def drop(self) -> None:
        """Hears no more of the job, which ends by itself; another one may start at once."""
        self._number += 1
        self._stop.set()
        self._left = [one for one in (*self._left, self._thread) if one is not None and one.is_alive()]
        self._thread = None

    def close(self) -> None:
        """Drops the job, and waits for its next step but not for ever."""
        self.drop()
        for thread in self._left:
            thread.join(_PATIENCE_S)
        self._left = []

    def _run(self, job: Job, number: int, stop: threading.Event) -> None:
        def tell(part: float, what: str) -> None:
            if stop.is_set():
                raise _CancelledError
            self._told.emit(number, "progressed", (part, what))

        end: tuple[str, tuple[Any, ...]] = (
            "failed",
            ("an error of this program ended it; the console has the details",),
        )
        try:
            end = "finished", (job(tell),)
        except _CancelledError:
            end = "cancelled", ()
        except SpineImgError as error:
            end = "failed", (str(error),)
        finally:
            self._told.emit(number, *end)

    def _hear(self, number: int, what: str, words: tuple[Any, ...]) -> None:
        if number != self._number:
            return
        if what != "progressed" and self._thread is not None:
            self._thread.join()
            self._thread = None
        getattr(self, what).emit(*words)
