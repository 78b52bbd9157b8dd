"""Runs of many studies: speed against a process pool of the usual peer, workers, memory, and cost of the bookkeeping.

    python -m benchmarks.batch [--write] [--cases N] [--most N]

Contestants are whole processes, from start to exit with their imports and their workers'; files are in the page cache.
Each case has a folder of its own, with links to the files of one synthetic study of 300 slices.
Ratios are of studies a minute in one run of this program. Half an hour on two processors.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.chapters import table
from benchmarks.studies import RAW, Study, link_study, write_spine, write_study

PAGE = Path(__file__).parent.parent / "docs" / "batch_speed.md"
SLICES = 300
CURVE = (100, 1000, 5000, 20000)
MANY = 2000
SAMPLE = Path(__file__).parent.parent / "sample_data"

BATCH = """
import resource, sys
from pathlib import Path
from spineimg.batch.runner import BatchSettings, run_batch
root, cases, out, workers, scheduler = sys.argv[1:6]
settings = BatchSettings(workers=int(workers), scheduler=scheduler or None)
summary = run_batch(Path(root), Path(cases), Path(out), settings, quiet=True)
assert summary.n_done == summary.n_cases, summary
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""
PEER = """
import json, os, sys
os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
import resource
from concurrent.futures import ProcessPoolExecutor
import numpy as np
import SimpleITK as sitk

def measure(study):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(study + "/ct"))
    image = reader.Execute()
    volume = sitk.GetArrayViewFromImage(image)
    (x0, y0, z0), (dx, dy, dz) = image.GetOrigin(), image.GetSpacing()
    y, x = np.mgrid[0:volume.shape[1], 0:volume.shape[2]].astype(float) * [[[dy]], [[dx]]] + [[[y0]], [[x0]]]
    found = {}
    for vertebra in json.load(open(study + "/rois.json"))["vertebrae"]:
        means = []
        for roi in vertebra["slices"]:
            (cx, cy, cz), (a, b) = roi["center"], roi["semi_axes_mm"]
            inside = ((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 <= 1 + 1e-9
            means.append(volume[round((cz - z0) / dz)][inside].mean())
        found[vertebra["level"]] = float(np.mean(means))
    return found

if __name__ == "__main__":
    study, count, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with ProcessPoolExecutor(workers) as pool:
        results = list(pool.map(measure, [study] * count))
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
    print(json.dumps(results[0]))
"""
ONLY_READING = """
import json, os, sys
from concurrent.futures import ProcessPoolExecutor
from spineimg.io.index import scan

def read(study):
    volume = scan([study + "/ct"]).series[0].volume()
    wanted = [roi["center"][2] for one in json.load(open(study + "/rois.json"))["vertebrae"] for roi in one["slices"]]
    for z in wanted:
        volume.read(int(abs(volume.geometry.origins_lps_mm[:, 2] - z).argmin()))

if __name__ == "__main__":
    study, count, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(read, [study] * count))
    print(0)
"""
SIMULATED = """
import json, sys, time
from dataclasses import replace
from pathlib import Path
from spineimg.batch.guard import Workers
from spineimg.batch.runner import BatchSettings, run_batch
from spineimg.batch.worker import Answer
root, cases, out, result = map(Path, sys.argv[1:5])
content = result.read_bytes()
name = json.dumps(json.loads(content)["case"]).encode()
def answer(self, job, timeout_s):
    document = content.replace(b'"case": ' + name, b'"case": ' + json.dumps(job.case.name).encode(), 1)
    return Answer("done", "", 0.1, 2, document)
Workers.run = answer
start = time.perf_counter()
summary = run_batch(root, cases, out, BatchSettings(workers=2), quiet=True)
assert summary.n_done == summary.n_cases
print(time.perf_counter() - start)
# The peak of getrusage would count the benchmark itself, from which this process came.
status = Path("/proc/self/status").read_text().splitlines()
print(next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM:")))
"""

Run = tuple[float, list[str]]


def run(folder: Path, code: str, *words: object) -> Run:
    """(seconds, lines of standard output) of one process. Raises RuntimeError when it fails.

    The code lies in a file, so that the workers of a process pool find it.
    """
    program = folder / "program.py"
    program.write_text(code)
    start = time.perf_counter()
    command = [sys.executable, str(program), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return seconds, done.stdout.splitlines()


def write_table(path: Path, count: int, rois: str = "study/rois.json", study: str = "s{n:05d}/ct") -> Path:
    with path.open("w", newline="") as handle:
        rows = ((f"case {n:05d}", study.format(n=n), rois) for n in range(count))
        csv.writer(handle).writerows([("case", "path", "rois"), *rows])
    return path


def a_minute(count: int, seconds: float) -> float:
    return 60 * count / seconds


class Speed:
    """Studies a minute and memory of both contestants."""

    def __init__(self, folder: Path, cases: int) -> None:
        self.folder, self.cases = folder, cases
        self.peer_cases = max(6, cases // 5)
        for number in range(4 * cases):
            link_study(Study(folder / "study", SLICES, RAW), folder / f"s{number:05d}", SLICES)
        self._number = 0

    def batch(
        self, workers: int, cases: int | None = None, scheduler: str = "", *, warm: bool = False
    ) -> tuple[float, float]:
        """(studies a minute, bytes of the largest worker). warm: with the index cache of the run before."""
        self._number += 1
        count = cases or self.cases
        cases_path = write_table(self.folder / f"{count}.csv", count)
        out = self.folder / f"out{self._number}"
        if warm:
            out.mkdir()
            shutil.copy(self.folder / f"out{self._number - 1}" / "index.sqlite", out)
        words = (self.folder, cases_path, out, workers, scheduler)
        seconds, lines = run(self.folder, BATCH, *words)
        return a_minute(count, seconds), float(lines[0])

    def peer(self, code: str, workers: int, cases: int) -> tuple[float, float]:
        seconds, lines = run(self.folder, code, self.folder / "study", cases, workers)
        if len(lines) > 1:
            self._check(json.loads(lines[1]))
        return a_minute(cases, seconds), float(lines[0])

    def _check(self, theirs: dict[str, float]) -> None:
        """Both must come to the same means."""
        ours = json.loads((self.folder / "out1" / "results" / "case 00000.json").read_bytes())["vertebrae"]
        for one in ours:
            if not math.isclose(one["mean_hu"], theirs[one["level"]], abs_tol=1e-6):
                raise SystemExit(f"{one['level']}: {one['mean_hu']} against {theirs[one['level']]}")


def speed_rows(folder: Path, cases: int) -> list[Sequence[object]]:
    speed = Speed(folder, cases)
    speed.batch(1, 3)  # fills the page cache
    rows: list[Sequence[object]] = []
    rate = {}
    for workers in (1, 2):
        ours, memory = speed.batch(workers)
        warm, _ = speed.batch(workers, warm=True)
        theirs, their_memory = speed.peer(PEER, workers, speed.peer_cases)
        reading, _ = speed.peer(ONLY_READING, workers, cases)
        rate[workers] = ours
        what = f"{workers} worker{'s' * (workers > 1)}"
        peer, floor = f"{ours / theirs:.1f} ({theirs:.0f} a minute)", f"{reading / ours:.2f} ({reading:.0f} a minute)"
        sizes = f"{memory / 1e6:.0f} (the peer's: {their_memory / 1e6:.0f})"
        rows += [
            (f"{what}: studies a minute", "", f"{ours:.0f}"),
            (f"{what}: times the studies a minute of SimpleITK and a NumPy mean", "≥ 3", peer),
            (f"{what}: the same with the index cache warm", "≥ 8", f"{warm / theirs:.1f} ({warm:.0f} a minute)"),
            (f"{what}: times as long as reading headers and needed slices alone", "≤ 1.5", floor),
            (f"{what}: largest worker, MB", "< 400", sizes),
        ]
    rows.append(("two workers against one", "≥ 1.8", f"{rate[2] / rate[1]:.2f}"))
    return [*rows, *dask_rows(speed)]


def click_rows(folder: Path, cases: int) -> list[Sequence[object]]:
    """One click a vertebra, on a phantom with bodies to be found, against the same peer, which gets ellipses."""
    slices = write_spine(folder / "study")
    table_path = write_table(folder / "clicks.csv", cases, "study/clicks.json", "study/ct")
    rows: list[Sequence[object]] = []
    for workers in (1, 2):
        seconds, lines = run(folder, BATCH, folder, table_path, folder / f"out{workers}", workers, "")
        peer_seconds, _ = run(folder, PEER, folder / "study", max(6, cases // 5), workers)
        ours, theirs = a_minute(cases, seconds), a_minute(max(6, cases // 5), peer_seconds)
        what = f"{workers} worker{'s' * (workers > 1)}, one click a vertebra, {slices} slices"
        rows += [
            (f"{what}: times the studies a minute of the peer", "≥ 1.5", f"{ours / theirs:.1f} ({ours:.0f} a minute)"),
            (f"{what}: largest worker, MB", "< 1000", f"{float(lines[0]) / 1e6:.0f}"),
        ]
    return rows


def memory_rows(folder: Path) -> list[Sequence[object]]:
    """The largest worker after few and after many studies of the sample, by ellipses and by clicks."""
    shutil.copytree(SAMPLE / "preop", folder / "study")
    placed = json.loads((folder / "study" / "rois.json").read_text())
    clicks = [{"level": one["level"], "center": one["slices"][1]["center"]} for one in placed["vertebrae"]]
    (folder / "study" / "clicks.json").write_text(json.dumps({**placed, "vertebrae": clicks}))
    rows: list[Sequence[object]] = []
    for what, file, counts in (("ellipses", "rois.json", (20, MANY)), ("clicks", "clicks.json", (20, MANY // 10))):
        sizes = []
        for count in counts:
            cases = write_table(folder / f"{what}{count}.csv", count, f"study/{file}", "study/ct")
            _, lines = run(folder, BATCH, folder, cases, folder / f"{what}{count}", 2, "")
            sizes.append(f"{float(lines[0]) / 1e6:.0f}")
        said = f"largest of two workers after {counts[0]} and after {counts[1]} studies of the sample, {what}, MB"
        rows.append((said, "flat", ", ".join(sizes)))
    return rows


QUIET_DASK = {
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "5s",
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.scheduler.work-stealing-interval": "2s",
}
"""What docs/batch.md tells to set: Dask else watches itself every 10-20 ms in each of its processes."""


def dask_rows(speed: Speed) -> list[Sequence[object]]:
    try:
        import dask
        from distributed import LocalCluster
    except ImportError:
        return [("four Dask workers against four local ones", "≥ 0.9", "Dask is not installed")]
    local, rows = _without_start(speed, ""), []
    for what, goal, config in (("with the settings of batch.md", "≥ 0.9", QUIET_DASK), ("as Dask comes", "", {})):
        with (
            dask.config.set(config),
            LocalCluster(n_workers=4, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        ):
            of_dask = _without_start(speed, cluster.scheduler_address)
        said = f"four Dask workers, {what}, against four local ones, without start-up"
        rows.append((said, goal, f"{of_dask / local:.2f}"))
    return rows


def _without_start(speed: Speed, scheduler: str) -> float:
    """Studies a minute of four workers that run already: what three times the cases take longer."""
    few, many = speed.cases, 3 * speed.cases
    seconds = [60 * count / speed.batch(4, count, scheduler)[0] for count in (few, many)]
    return a_minute(many - few, seconds[1] - seconds[0])


def curve_rows(folder: Path, most: int) -> list[Sequence[object]]:
    """Cost of table, ledger, result files and measurements for cases that take no time themselves."""
    result = folder / "out1" / "results" / "case 00000.json"
    rows = []
    for count in (n for n in CURVE if n <= most):
        cases = write_table(folder / f"curve{count}.csv", count)
        words = (folder, cases, folder / f"curve{count}", result)
        _, (first, memory) = run(folder, SIMULATED, *words)
        again, _ = run(folder, SIMULATED, *words)
        per_case = 1000 * float(first) / count
        rows.append((count, f"{per_case:.2f}", f"{again:.2f}", f"{float(memory) / 1e6:.0f}"))
    return rows


def page(speed: str, curve: str, cases: int) -> str:
    return f"""# Speed of `spineimg batch`

Written by `python -m benchmarks.batch --write`. Whole processes with their workers, {cases} studies a run, UIV and LIV
by three ellipses each on 512 × 512 × {SLICES}, files in the page cache, figures off. Both ways come to the same means.

Python {platform.python_version()}, {os.cpu_count()} processors ({platform.machine()}).

{speed}

Bookkeeping: simulated cases with a result of the usual size. "Again" is a whole process that finds nothing to do.

{curve}
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch", description="Speed of runs of many studies.")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    parser.add_argument("--cases", type=int, default=60, metavar="N", help="studies a run")
    parser.add_argument("--most", type=int, default=20000, metavar="N", help="end of the curve of simulated cases")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="spineimg-batch-") as name:
        folder = Path(name)
        write_study(Study(folder / "study", SLICES, RAW))
        parts = [speed_rows(folder, arguments.cases)]
        for part in ("clicks", "memory"):
            (folder / part).mkdir()
        parts.append(click_rows(folder / "clicks", arguments.cases // 2))
        parts.append(memory_rows(folder / "memory"))
        speed = table(("what", "goal", "measured"), [row for rows in parts for row in rows])
        print(speed, flush=True)
        header = ("cases", "ms a case", "again, s", "memory of the main process, MB")
        curve = table(header, curve_rows(folder, arguments.most))
        print(curve)
    if arguments.write:
        PAGE.write_text(page(speed, curve, arguments.cases), encoding="utf-8")


if __name__ == "__main__":
    main()
