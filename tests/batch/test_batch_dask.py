"""The same runs on a real Dask cluster of two worker processes."""

from __future__ import annotations

import gc
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spineimg.batch import pools
from spineimg.batch.cases import Case
from spineimg.batch.worker import Job
from spineimg.errors import SpineImgError
from tests.batch import studies as s

distributed = pytest.importorskip("distributed", reason="needs Dask: pip install 'spineimg[dask]'")

COUNT = 4
pytestmark = [
    pytest.mark.filterwarnings("default"),  # the cluster's own threads warn of ports and of slow event loops
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def nothing_is_left_running() -> Iterator[None]:
    yield
    s.end_started()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=logging.CRITICAL
    ) as cluster:
        yield cluster
    gc.collect()  # sockets that the cluster leaves open must not be found by another test


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = s.tree(tmp_path_factory.mktemp("tree") / "root", COUNT)
    os.mkfifo(root / "hangs.json")
    rows = [{"case": f"c{n:02d}", "path": f"s{n % COUNT:02d}", "rois": "rois.json"} for n in range(20)]
    rows.insert(6, {"case": "gone", "path": "gone", "rois": "rois.json"})
    s.table(root / "cases.csv", rows)
    s.table(root / "hanging.csv", [{"case": "hangs", "path": "s00", "rois": "hangs.json"}, rows[0]])
    return root


@pytest.fixture(scope="module")
def local(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("local") / "out"
    s.run(root, root / "cases.csv", out)
    return out


def assert_same(out: Path, local: Path) -> None:
    assert s.statuses(out) == s.statuses(local)
    assert s.results(out) == s.results(local)
    for kind in ("csv", "parquet"):
        assert (out / f"measurements.{kind}").read_bytes() == (local / f"measurements.{kind}").read_bytes()


def test_a_cluster_gives_what_this_machine_gives(cluster: Any, root: Path, local: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    s.run(root, root / "cases.csv", out, scheduler=cluster.scheduler_address)
    assert s.statuses(local)["gone"] == "refused"
    assert_same(out, local)


def test_a_case_that_hangs_costs_its_child_and_no_dask_worker(cluster: Any, root: Path, tmp_path: Path) -> None:
    before = set(cluster.scheduler_info["workers"])
    s.run(root, root / "hanging.csv", tmp_path / "out", scheduler=cluster.scheduler_address, timeout_s=3)
    assert s.statuses(tmp_path / "out") == {"hangs": "failed", "c00": "done"}
    assert s.ledger(tmp_path / "out")["hangs"]["reason"] == "took longer than 3 s (--timeout)"
    assert set(cluster.scheduler_info["workers"]) == before


def test_a_dask_worker_that_is_killed_loses_no_case(cluster: Any, root: Path, local: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        victim = next(iter(client.run(os.getpid).values()))
        main = s.start(root, root / "cases.csv", out, scheduler=cluster.scheduler_address)
        s.eventually(lambda: (out / "ledger.csv").exists() and len(s.ledger(out)) >= 1)
        os.kill(victim, signal.SIGKILL)
        words, _ = main.communicate(timeout=60)
    assert main.returncode == 0, words
    assert_same(out, local)


def test_a_case_may_have_its_share_of_the_workers_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "run_in_child", lambda job, timeout_s: (job.memory_bytes, timeout_s))
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, memory_limit="2GB", dashboard_address=":0"
        ) as own,
        distributed.Client(own, set_as_default=False) as client,
    ):
        job = Job(Case("c", 2, "p", None, None, None, ()), ("p",))
        assert client.submit(pools._run_on_dask, job, 7.0).result(timeout=30) == (900_000_000, 7.0)


def test_a_run_without_a_worker_can_be_stopped(root: Path, tmp_path: Path) -> None:
    """Planted: waiting for what nobody has begun; the run then ended with the second signal only."""
    out = tmp_path / "out"
    with distributed.LocalCluster(
        n_workers=0, processes=True, dashboard_address=":0", silence_logs=logging.CRITICAL
    ) as own:
        main = s.start(root, root / "cases.csv", out, scheduler=own.scheduler_address)
        assert main.stdout is not None
        assert any("no worker of the cluster is there" in line for line in main.stdout)
        main.send_signal(signal.SIGTERM)
        words, _ = main.communicate(timeout=60)
    assert main.returncode == 130, words
    assert s.ledger(out) == {}


def test_a_cluster_that_is_not_there_is_named(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spineimg.batch.pools.CONNECT_SECONDS", 1)
    with pytest.raises(SpineImgError, match=r"no Dask scheduler at tcp://127\.0\.0\.1:1: "):
        s.run(root, root / "cases.csv", tmp_path / "out", scheduler="tcp://127.0.0.1:1")
    assert s.ledger(tmp_path / "out") == {}


def test_a_scheduler_that_dies_stops_the_run_and_loses_nothing(root: Path, local: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=logging.CRITICAL
    ) as own:
        hasty = "import spineimg.batch.pools as pools; pools.CONNECT_SECONDS = 5"
        main = s.start(root, root / "cases.csv", out, first=hasty, scheduler=own.scheduler_address)
        s.eventually(lambda: (out / "ledger.csv").exists() and len(s.ledger(out)) >= 2, 90.0)
    words, _ = main.communicate(timeout=60)
    assert main.returncode == 1, words
    assert "error: the Dask cluster at " in words
    assert "was lost" in words
    assert "Traceback" not in words
    s.run(root, root / "cases.csv", out)
    assert_same(out, local)
