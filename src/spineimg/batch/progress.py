"""What a person sees of a run: a bar on a terminal, lines elsewhere, nothing when asked."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

from spineimg.batch.ledger import CaseStatus, LedgerRow

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

LINE_SECONDS = 10.0
"""A line of progress at most that often when no terminal shows a bar."""


def tell(line: str) -> None:
    """A line on standard output, if somebody can still read it."""
    encoding = sys.stdout.encoding or "utf-8"
    with _heard_or_not():
        sys.stdout.write(line.encode(encoding, "replace").decode(encoding) + "\n")
        sys.stdout.flush()


@contextmanager
def _heard_or_not() -> Iterator[None]:
    """A closed pipe, a terminal that is gone or a full disk below the log: the run goes on without being heard."""
    try:
        yield
    except OSError:
        with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - no path of the disk
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


class Progress:
    """Counts by status, cases a minute and the time that remains. Every case that is not done is named at once."""

    def __init__(self, total: int, before: Counter[CaseStatus], *, quiet: bool) -> None:
        self.counts = Counter(before)
        self._total, self._new, self._told = total, 0, 0
        self._quiet = quiet
        self._start = self._spoke = time.monotonic()
        self._bar: Bar | None = None

    def __enter__(self) -> Self:
        if not self._quiet and sys.stdout.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
            self._bar = Progress(*columns)
            with _heard_or_not():
                self._bar.start()
            self._bar.add_task(self._words(), total=self._total, completed=sum(self.counts.values()))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            with _heard_or_not():
                self._bar.stop()
        elif self._new > self._told:
            self._line()

    def add(self, row: LedgerRow) -> None:
        """One more case has its row."""
        self.counts[row.status] += 1
        self._new += 1
        if row.status is not CaseStatus.DONE or row.reason:
            self.say(f"{row.case}: {row.status}: {row.reason}")
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], advance=1, description=self._words())
        elif time.monotonic() - self._spoke > LINE_SECONDS:
            self._line()

    def say(self, words: str) -> None:
        """One line for people, without the control characters that a file name or a header may hold."""
        line = "".join(letter if letter.isprintable() else " " for letter in words)
        if self._quiet:
            return
        if self._bar is not None:
            with _heard_or_not():
                self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            tell(line)

    def _line(self) -> None:
        self._spoke, self._told = time.monotonic(), self._new
        self.say(f"{sum(self.counts.values())} of {self._total} cases: {self._words()}")

    def _words(self) -> str:
        counts = ", ".join(f"{self.counts[status]} {status}" for status in CaseStatus)
        if not self._new:
            return counts
        a_minute = 60 * self._new / max(time.monotonic() - self._start, 1e-3)
        left = self._total - sum(self.counts.values())
        return f"{counts}; {a_minute:.1f} a minute, {_duration(60 * left / a_minute)} left"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
