"""Dask workers as Slurm jobs of this run: submitted, replaced when they end, given up when they always end."""

from __future__ import annotations

import logging
import subprocess
import tempfile
from contextlib import suppress

from spineimg.errors import SpineImgError

CLUSTER_LOGS = ("distributed", "distributed.client", "tornado.application", "asyncio")
"""Who else would tell of what is lost; it is told once, by the run."""
_LOOKS_WITHOUT = 2
"""Looks in a row at which Slurm knows a job no longer before it is replaced; one look may come between two lists."""
_VAIN_JOBS = 3
"""Jobs for each worker that may end before any worker has come. Then the next ones would end as these did."""
_SAY_HOW = "describe its jobs in Dask's configuration, jobqueue.slurm (docs/batch.md)"


class SlurmJobs:
    """So many Slurm jobs, each one Dask worker as Dask's configuration (jobqueue.slurm) describes it.

    Raises SpineImgError when Dask or Slurm does not take the description.
    """

    def __init__(self, jobs: int) -> None:
        try:
            from dask_jobqueue import SLURMCluster
        except ImportError:
            raise SpineImgError("--scheduler slurm needs dask-jobqueue: pip install 'spineimg[slurm]'") from None
        for name in CLUSTER_LOGS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            self.cluster = SLURMCluster()
        except (ValueError, TypeError, OSError, RuntimeError) as error:
            raise SpineImgError(f"no Slurm cluster: {error}; {_SAY_HOW}") from error
        refusal = _refusal(self.cluster.job_script())
        if refusal:
            self.cluster.close()
            raise SpineImgError(f"Slurm does not take the workers' jobs: {refusal}; {_SAY_HOW}")
        self._jobs = jobs
        self._missed: dict[str, int] = {}
        self._vain: list[str] = []
        self.cluster.scale(jobs=jobs)

    def replace_ended(self) -> None:
        """Submits a job for each one that has ended, with a worker (Dask tells) or before it had one (Slurm tells).

        Raises SpineImgError when jobs end again and again before any worker has come.
        """
        present = {str(one["name"]) for one in self.cluster.scheduler_info["workers"].values()}
        if present:
            self._vain.clear()
        absent = {
            str(job.job_id): name
            for name, job in dict(self.cluster.workers).items()
            if job.job_id and not any(one == str(name) or one.startswith(f"{name}-") for one in present)
        }
        known = _known_jobs() if absent else set()
        gone = {job for job in absent if known is not None and job not in known}
        self._missed = {job: self._missed.get(job, 0) + 1 for job in gone}
        ended = sorted(job for job, looks in self._missed.items() if looks >= _LOOKS_WITHOUT)
        self._vain += ended
        if len(self._vain) >= _VAIN_JOBS * self._jobs:
            raise SpineImgError(
                f"Slurm jobs {', '.join(self._vain)} ended before their Dask workers had come: "
                "look at what they wrote (log-directory in jobqueue.slurm, else slurm-N.out)"
            )
        if ended:
            self.cluster.sync(self._forget, [absent[job] for job in ended])
        self.cluster.scale(jobs=self._jobs)

    async def _forget(self, names: list[object]) -> None:
        """Leaves room for other jobs. In the cluster's own loop, which alone changes its workers."""
        for name in names:
            self.cluster.workers.pop(name, None)

    def close(self) -> None:
        """Takes all jobs back."""
        with suppress(AssertionError, OSError, TimeoutError, RuntimeError):  # a job that never was submitted
            self.cluster.close()


def _refusal(script: str) -> str:
    """Why Slurm would not take this job; empty when it would. Asked before, for Dask tries again for ever."""
    with tempfile.NamedTemporaryFile("w", prefix="spineimg-", suffix=".sh") as file:
        file.write(script)
        file.flush()
        try:
            done = subprocess.run(["sbatch", "--test-only", file.name], capture_output=True, text=True, check=False)
        except OSError as error:
            return f"sbatch cannot be run here ({error.strerror})"
    return " ".join(done.stderr.split()) if done.returncode else ""


def _known_jobs() -> set[str] | None:
    """Jobs of this user that wait or run. None when Slurm does not tell just now."""
    try:
        done = subprocess.run(
            ["squeue", "--me", "--noheader", "--format=%A"], capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else set(done.stdout.split())
