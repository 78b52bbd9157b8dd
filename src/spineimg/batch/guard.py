"""Worker processes that may hang, crash or be killed, one case at a time each.

The same function runs a case on this machine and inside a Dask worker: it hands the job to a child process of its own
and waits. So time limits, memory limits and dead workers mean the same everywhere, and a crash in a decoder takes a
child with it, never the run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing import Pipe

from spineimg.batch.ledger import CaseStatus
from spineimg.batch.worker import READY, Answer, Job
from spineimg.errors import SpineImgError

START_SECONDS = 120.0
"""A worker that has not imported its libraries by then never will. Engineering choice: cold network disks take 30 s."""
STARTS = 8
"""So many workers may die while they start, one after the other, before the run gives up. Engineering choice: a broken
installation is known after some seconds, and bad luck is not taken for one."""
TRIES = 2
"""So many workers a case may take with it."""
_PROGRAM = "from spineimg.batch.worker import main; main()"
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1",
}
"""One worker is one core: libraries that start a thread a core would only get in each other's way."""


class _DiedError(Exception):
    """The worker is gone; the text says how."""


class _TimedOutError(Exception):
    pass


class ClosedError(Exception):
    """The workers were sent home while a case was under way."""


class _Worker:
    """One child process. Its stdout and stderr go into a file without a name, for the reason of its death."""

    def __init__(self) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._connection, theirs = Pipe()
        self._ready = False
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-X", "faulthandler", "-c", _PROGRAM, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                env=os.environ | _ONE_THREAD,
                start_new_session=True,  # Ctrl-C on the terminal is for the main process alone
            )
        except OSError as error:
            self._connection.close()
            raise SpineImgError(f"a worker process cannot be started: {error.strerror}") from error
        finally:
            theirs.close()

    def start(self) -> None:
        """Waits until the child has its libraries. Raises _DiedError when it never will."""
        if self._ready:
            return
        try:
            self._ready = self._connection.poll(START_SECONDS) and self._connection.recv() == READY
        except (EOFError, OSError):
            raise _DiedError(self._last_words()) from None
        if not self._ready:
            raise _DiedError(f"not ready after {START_SECONDS:g} s")

    def run(self, job: Job, timeout_s: float | None) -> Answer:
        """Raises _DiedError or _TimedOutError."""
        self._said.truncate(0)
        self._said.seek(0)
        try:
            self._connection.send(job)
            if not self._connection.poll(timeout_s):
                raise _TimedOutError
            answer: Answer = self._connection.recv()
        except (EOFError, OSError):
            raise _DiedError(self._last_words()) from None
        return answer

    def _last_words(self) -> str:
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return "it closed its connection"
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, self._said.tell() - 4096))
        lines = [line for line in self._said.read().decode("utf-8", "replace").splitlines() if line.strip()]
        if code < 0 and not any(line.startswith("Fatal Python error") for line in lines):
            return how
        last = next((line for line in lines if line.startswith("Fatal Python error")), lines[-1] if lines else "")
        return f"{how}: {last.strip()[:300]}" if last else how

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._connection.close()
        self._said.close()


class Workers:
    """The children of this process: as many as cases run at one time, kept for the next case."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._closed = False

    def run(self, job: Job, timeout_s: float | None) -> Answer:
        """The answer to a job, in the end always: a case that takes too long, or two workers with it, is `failed`.

        Raises SpineImgError when no worker can be started, ClosedError when `close` was called meanwhile.
        """
        start = time.perf_counter()
        reasons: list[str] = []
        while len(reasons) < TRIES:
            worker = self._take()
            try:
                answer = worker.run(job, timeout_s)
            except _DiedError as death:
                self._drop(worker)
                reasons.append(str(death))
            except _TimedOutError:
                self._drop(worker)
                reason = f"took longer than {timeout_s:g} s (--timeout)"
                return Answer(CaseStatus.FAILED, reason, time.perf_counter() - start)
            else:
                self._give_back(worker)
                return answer
        reason = f"killed its worker {TRIES} times: {'; '.join(dict.fromkeys(reasons))}"
        return Answer(CaseStatus.FAILED, reason, time.perf_counter() - start)

    def close(self) -> None:
        """Ends all children at once; cases under way raise ClosedError."""
        with self._lock:
            self._closed = True
            for worker in self._busy:
                worker.kill()
        self.rest()

    def rest(self) -> None:
        """Ends the children that have nothing to do."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.end()

    def _take(self) -> _Worker:
        """An idle worker or a new one. A worker that dies while it starts is nobody's case's fault."""
        for attempt in range(1, STARTS + 1):
            with self._lock:
                if self._closed:
                    raise ClosedError
                worker = self._idle.pop() if self._idle else _Worker()
                self._busy.add(worker)
            try:
                worker.start()
                return worker
            except _DiedError as death:
                self._drop(worker)
                if attempt == STARTS:
                    raise SpineImgError(f"worker processes do not start ({death}): the run stopped") from None
        raise AssertionError

    def _give_back(self, worker: _Worker) -> None:
        with self._lock:
            self._busy.discard(worker)
            if not self._closed:
                self._idle.append(worker)
                return
        worker.end()

    def _drop(self, worker: _Worker) -> None:
        with self._lock:
            self._busy.discard(worker)
            closed = self._closed
        worker.end()
        if closed:
            raise ClosedError


_of_this_process = Workers()


def run_in_child(job: Job, timeout_s: float | None) -> Answer:
    """`Workers.run` on children that belong to this process."""
    return _of_this_process.run(job, timeout_s)


def end_idle_children() -> None:
    """Ends the children of this process that have nothing to do; new ones are started when a case comes.

    Those at work may belong to another run on the same cluster.
    """
    _of_this_process.rest()
