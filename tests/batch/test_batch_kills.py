"""Processes that are killed, hang, or are started twice. A case that hangs reads its ROIs from a pipe nobody fills."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from spineimg.batch.runner import BatchSettings, run_batch
from spineimg.errors import SpineImgError
from tests.batch import studies as s

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds child processes through /proc")

COUNT, CASES = 4, 48
MAIN_KILLS, WORKER_KILLS = 5, 7


@pytest.fixture(autouse=True)
def nothing_is_left_running() -> Iterator[None]:
    yield
    s.end_started()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = s.tree(tmp_path_factory.mktemp("tree") / "root", COUNT)
    os.mkfifo(root / "hangs.json")
    return root


@pytest.fixture(scope="module")
def many(root: Path) -> Path:
    """A table of many cases on few series."""
    rows = [{"case": f"c{n:02d}", "path": f"s{n % COUNT:02d}", "rois": "rois.json"} for n in range(CASES)]
    return s.table(root / "many.csv", rows)


@pytest.fixture(scope="module")
def undisturbed(root: Path, many: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert s.run(root, many, out).n_done == CASES
    return out


def hanging(root: Path, folder: Path) -> Path:
    """One case that hangs between two that do not."""
    rows = [
        {"case": "first", "path": "s00", "rois": "rois.json"},
        {"case": "hangs", "path": "s01", "rois": "hangs.json"},
        {"case": "last", "path": "s02", "rois": "rois.json"},
    ]
    return s.table(folder / "cases.csv", rows)


def rows_of(out: Path) -> int:
    """Whole rows in the ledger; every line that is there must be whole."""
    return len(s.ledger(out)) if (out / "ledger.csv").exists() else 0


def assert_same(out: Path, undisturbed: Path) -> None:
    assert set(s.statuses(out).values()) == {"done"}
    assert set(s.statuses(out)) == set(s.statuses(undisturbed))
    assert s.results(out) == s.results(undisturbed)
    for kind in ("csv", "parquet"):
        name = f"measurements.{kind}"
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes()
    assert not list(out.rglob(".*.tmp"))


def test_a_dozen_kills_lose_nothing(root: Path, many: Path, undisturbed: Path, tmp_path: Path) -> None:
    """SIGKILL of the main process, then of workers, at random moments. Planted: the ledger's row written before the
    result; seen red."""
    disturb(root, many, tmp_path / "out", random.Random(7), (MAIN_KILLS, WORKER_KILLS))
    assert_same(tmp_path / "out", undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_two_hundred_kills_lose_nothing(root: Path, many: Path, undisturbed: Path, tmp_path: Path, seed: int) -> None:
    """As above, ten kills in each of twenty runs."""
    disturb(root, many, tmp_path / "out", random.Random(1000 + seed), (6, 4))
    assert_same(tmp_path / "out", undisturbed)


def disturb(root: Path, many: Path, out: Path, rng: random.Random, kills: tuple[int, int]) -> None:
    """Kills the main process and then workers, so many times each, and lets the run end."""
    main_kills, worker_kills = kills
    for number in range(main_kills):
        main = s.start(root, many, out)
        reached = number * CASES // (2 * main_kills)
        s.eventually(lambda: rows_of(out) > reached or main.poll() is not None)  # noqa: B023 - called at once
        time.sleep(rng.uniform(0, 0.03))
        workers = s.children(main.pid)
        main.kill()
        main.wait()
        assert main.stdout is not None
        main.stdout.close()
        s.eventually(lambda: not any(map(s.alive, workers)))  # noqa: B023
        done = {name for name, status in s.statuses(out).items() if status == "done"}
        assert {f"{name}.json" for name in done} <= {path.name for path in (out / "results").iterdir()}
    before = rows_of(out)
    assert before < CASES
    main = s.start(root, many, out)
    for _ in range(worker_kills):
        reached = rows_of(out)
        s.eventually(lambda: rows_of(out) > reached or main.poll() is not None)  # noqa: B023
        workers = s.children(main.pid)
        if workers:
            with suppress(ProcessLookupError):
                os.kill(rng.choice(workers), signal.SIGKILL)
    words, _ = main.communicate(timeout=60)
    assert main.returncode == 0, words
    failed = [row["reason"] for row in s.ledger(out).values() if row["status"] != "done"]
    assert all(reason.startswith("killed its worker 2 times: signal SIGKILL") for reason in failed)
    s.run(root, many, out, retry=True)


def test_a_case_that_hangs_fails_and_the_run_goes_on(root: Path, tmp_path: Path) -> None:
    """Planted: the worker kept after its time was over, so that its late answer went to the next case; seen red."""
    summary = s.run(root, hanging(root, tmp_path), tmp_path / "out", workers=1, timeout_s=3)
    assert (summary.n_done, summary.n_failed) == (2, 1)
    row = s.ledger(tmp_path / "out")["hangs"]
    assert (row["status"], row["reason"]) == ("failed", "took longer than 3 s (--timeout)")
    assert float(row["seconds"]) >= 3


def test_a_case_that_kills_its_worker_twice_is_failed(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    main = s.start(root, hanging(root, tmp_path), out, workers=1)
    for _ in range(2):
        pipe = pipe_that_is_read(root / "hangs.json")
        workers = s.children(main.pid)
        assert len(workers) == 1
        os.kill(workers[0], signal.SIGKILL)
        # Until it is reaped one of its threads may still hold the pipe open, and it would be taken for the next worker.
        s.eventually(lambda: workers[0] not in s.children(main.pid))  # noqa: B023 - called at once
        os.close(pipe)
    words, _ = main.communicate(timeout=30)
    assert main.returncode == 0, words
    assert s.statuses(out) == {"first": "done", "hangs": "failed", "last": "done"}
    assert s.ledger(out)["hangs"]["reason"] == "killed its worker 2 times: signal SIGKILL"
    assert "hangs: failed: killed its worker 2 times" in words


def pipe_that_is_read(pipe: Path) -> int:
    """Waits until a process reads the named pipe; whoever closes the handle lets it go on."""
    handles: list[int] = []

    def is_read() -> bool:
        try:
            handles.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return False
        return True

    s.eventually(is_read)
    return handles[0]


def test_a_folder_in_use_is_refused_and_its_lock_dies_with_the_process(root: Path, tmp_path: Path) -> None:
    cases, out = hanging(root, tmp_path), tmp_path / "out"
    first = s.start(root, cases, out, workers=1)
    try:
        s.eventually(lambda: rows_of(out) >= 1)
        before = (out / "ledger.csv").read_bytes()
        second = s.start(root, cases, out)
        words, _ = second.communicate(timeout=30)
        assert second.returncode == 1
        assert f"error: {out} is in use by process {first.pid} on " in words
        assert len(words.splitlines()) == 1
        assert (out / "ledger.csv").read_bytes() == before
    finally:
        first.kill()
        first.communicate()
    assert s.run(root, cases, out, workers=1, timeout_s=3).n_done == 2


def test_ctrl_c_stops_after_the_cases_under_way(root: Path, many: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    main = s.start(root, many, out)
    s.eventually(lambda: rows_of(out) >= 3)
    os.killpg(main.pid, signal.SIGINT)
    words, _ = main.communicate(timeout=30)
    assert main.returncode == 130
    assert "stopping after the cases under way" in words
    assert "Traceback" not in words
    reached = s.statuses(out)
    assert 3 <= len(reached) < CASES
    assert set(reached.values()) == {"done"}
    assert {row["case"] for row in s.measurements(out)} == set(reached)
    assert s.run(root, many, out).n_done == CASES
    assert_same(out, undisturbed)


def test_a_second_ctrl_c_does_not_wait(root: Path, tmp_path: Path) -> None:
    """Planted: no new session for workers, so that Ctrl-C on the terminal killed them; seen red."""
    cases, out = hanging(root, tmp_path), tmp_path / "out"
    main = s.start(root, cases, out, workers=1)
    s.eventually(lambda: rows_of(out) >= 1)
    workers = s.children(main.pid)
    pipe = pipe_that_is_read(root / "hangs.json")
    os.killpg(main.pid, signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        main.wait(0.7)
    assert s.children(main.pid) == workers
    assert all(map(s.alive, workers))
    main.send_signal(signal.SIGINT)
    main.communicate(timeout=20)
    s.eventually(lambda: not any(map(s.alive, workers)))
    os.close(pipe)
    assert s.statuses(out) == {"first": "done"}


def test_workers_that_cannot_start_stop_the_run(
    root: Path, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spineimg.batch.guard._PROGRAM", "raise SystemExit('no library')")
    with pytest.raises(SpineImgError, match=r"worker processes do not start .exit status 1: no library"):
        run_batch(root, many, tmp_path / "out", BatchSettings(workers=1), quiet=True)
    assert s.ledger(tmp_path / "out") == {}


def test_an_error_of_ours_fails_the_case_with_its_last_line(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import spineimg.pipeline as p; p.assess = lambda *a, **k: 1 / 0\n"
        "from spineimg.batch.worker import main; main()"
    )
    monkeypatch.setattr("spineimg.batch.guard._PROGRAM", program)
    s.run(root, s.whole_table(root, 1), tmp_path / "out", workers=1)
    row = s.ledger(tmp_path / "out")["c00"]
    assert row["status"] == "failed"
    assert row["reason"] == "killed its worker 2 times: exit status 1: ZeroDivisionError: division by zero"
