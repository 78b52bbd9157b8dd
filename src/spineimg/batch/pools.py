"""Where cases are worked on: threads of this process, or a Dask cluster. Both ask `guard` for the answer."""

from __future__ import annotations

import logging
import os
import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from spineimg.batch.guard import Workers, end_idle_children, run_in_child
from spineimg.batch.ledger import CaseStatus
from spineimg.batch.slurm import CLUSTER_LOGS, SlurmJobs
from spineimg.batch.worker import Answer, Job
from spineimg.errors import SpineImgError

WORKER_BYTES = 1_000_000_000
"""Memory that a worker is counted with. Engineering choice: a whole label map of 600 slices and its CT slices."""
_PER_SLOT = 2
"""Cases handed out for each that can run, so that no worker waits for the ledger."""
CONNECT_SECONDS = 20
"""How long a scheduler that does not answer is waited for, at the start and later."""
_COUNT_SECONDS = 5.0
"""How often the workers of a cluster are counted."""
_OF_LIMIT = 0.9
"""Part of a Dask worker's memory that its cases may have; the worker itself needs some 100 MB."""
SLURM = "slurm"
"""Instead of an address: start workers as Slurm jobs."""


class Pool(Protocol):
    """Takes jobs and gives futures of answers."""

    def room(self) -> int:
        """How many jobs may be handed out at one time."""
        ...

    def idle_because(self) -> str:
        """Why nothing can be under way just now; empty when something can."""
        ...

    def submit(self, job: Job) -> Future[Answer]: ...

    def withdraw(self, future: Future[Answer]) -> bool:
        """Takes a job back that nobody has begun. False when it runs."""
        ...

    def answer(self, future: Future[Answer]) -> Answer:
        """The answer of a finished future. Raises SpineImgError when the run cannot go on."""
        ...

    def with_more_memory(self, job: Job) -> Job | None:
        """The job as it may run when nothing else does; None when that would change nothing."""
        ...

    def close(self) -> None:
        """Ends everything at once."""
        ...


class LocalPool:
    """Worker processes on this machine."""

    def __init__(self, workers: int | None, timeout_s: float | None) -> None:
        free = available_bytes()
        self.workers = workers or max(1, min(cores(), free // WORKER_BYTES))
        self._whole_bytes = max(WORKER_BYTES, int(0.9 * free))
        self._memory_bytes = max(WORKER_BYTES, int(0.9 * free / self.workers))
        self._timeout_s = timeout_s
        self._children = Workers()
        self._threads = ThreadPoolExecutor(self.workers, "case")

    def room(self) -> int:
        return _PER_SLOT * self.workers

    def idle_because(self) -> str:
        return ""

    def submit(self, job: Job) -> Future[Answer]:
        limited = job if job.memory_bytes else replace(job, memory_bytes=self._memory_bytes)
        return self._threads.submit(self._children.run, limited, self._timeout_s)

    def withdraw(self, future: Future[Answer]) -> bool:
        return future.cancel()

    def answer(self, future: Future[Answer]) -> Answer:
        return future.result()

    def with_more_memory(self, job: Job) -> Job | None:
        if job.memory_bytes or self._whole_bytes <= self._memory_bytes:
            return None
        return replace(job, memory_bytes=self._whole_bytes)

    def close(self) -> None:
        self._children.close()
        self._threads.shutdown(wait=True, cancel_futures=True)


class DaskPool:
    """The workers of a Dask cluster; each runs its cases in a child of its own, as this machine does."""

    def __init__(self, address: str, timeout_s: float | None, workers: int | None = None) -> None:
        try:
            from distributed import Client
        except ImportError:
            raise SpineImgError("--scheduler needs Dask: pip install 'spineimg[dask]'") from None
        self._own = SlurmJobs(workers or 1) if address == SLURM else None
        cluster = self._own.cluster if self._own else address
        try:
            self._client = Client(cluster, set_as_default=False, timeout=CONNECT_SECONDS)
        except (OSError, ValueError, TimeoutError) as error:
            raise SpineImgError(f"no Dask scheduler at {address}: {error or 'no answer'}") from error
        for name in CLUSTER_LOGS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._address, self._timeout_s = address, timeout_s
        self._executor = self._client.get_executor(pure=False)
        self._slots, self._counted = 0, -_COUNT_SECONDS

    def room(self) -> int:
        self._count()
        return _PER_SLOT * max(1, self._slots)

    def _count(self) -> None:
        """Looks after the workers from time to time. Raises SpineImgError when the cluster is lost."""
        now = time.monotonic()
        if now - self._counted > _COUNT_SECONDS:
            try:
                self._slots, self._counted = sum(self._client.nthreads().values()), now
            except (OSError, TimeoutError, CancelledError) as error:
                raise self._lost(error) from error
            if self._own is not None:
                self._own.replace_ended()

    def idle_because(self) -> str:
        self._count()
        return "" if self._slots else "no worker of the cluster is there: waiting for one"

    def submit(self, job: Job) -> Future[Answer]:
        future: Future[Answer] = self._executor.submit(_run_on_dask, job, self._timeout_s)
        return future

    def withdraw(self, future: Future[Answer]) -> bool:
        return not self._slots and not future.done()  # without a worker nobody has begun

    def answer(self, future: Future[Answer]) -> Answer:
        from distributed import KilledWorker

        try:
            return future.result()
        except KilledWorker as error:
            return Answer(CaseStatus.FAILED, f"every Dask worker that took it died: {error}")
        except (CancelledError, OSError, TimeoutError) as error:
            raise self._lost(error) from error
        except ImportError as error:
            raise SpineImgError(f"spineimg cannot be imported by the Dask workers: {error}") from error

    def with_more_memory(self, job: Job) -> Job | None:
        return None  # Dask's workers have the memory that the cluster gave them

    def _lost(self, error: BaseException) -> SpineImgError:
        why = str(error) or type(error).__name__
        return SpineImgError(f"the Dask cluster at {self._address} was lost ({why}): run the same command again")

    def close(self) -> None:
        try:
            self._executor.shutdown(wait=False)
            self._client.run(end_idle_children, on_error="ignore")
            self._client.close(timeout=5)
        except (OSError, TimeoutError, CancelledError):
            self._client.close(timeout=1)  # the cluster is gone, and its children with it
        if self._own is not None:
            self._own.close()


def _run_on_dask(job: Job, timeout_s: float | None) -> Answer:
    """What a Dask worker is asked to do. Its case may have a thread's share of the memory that Dask was told."""
    from distributed import get_worker

    worker = get_worker()
    limit = worker.memory_manager.memory_limit
    if limit:
        job = replace(job, memory_bytes=int(_OF_LIMIT * limit / worker.state.nthreads))
    return run_in_child(job, timeout_s)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_bytes() -> int:
    """Memory that can be had without swapping, within the limits of a container. A guess where nothing tells."""
    found = [_meminfo(), _cgroup()]
    return min((one for one in found if one is not None), default=4 * WORKER_BYTES)


def _meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def _cgroup() -> int | None:
    folder = Path("/sys/fs/cgroup")
    try:
        return int((folder / "memory.max").read_text()) - int((folder / "memory.current").read_text())
    except (OSError, ValueError):  # no limit is the word "max"
        return None
