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
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chapters import table
from benchmarks.studies import RAW, Study, link_study, write_spine, write_study

PAGE = Path(__file__).parent.parent / "docs" / "batch_speed.md"
SLICES = 300
CURVE = (100, 1000, 5000, 20000)
MANY = 2000
ROUNDS = 3
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
from spineimg.io.headers import read_header
from spineimg.io.pixels import DicomSource
from spineimg.io.records import records_of

def read(study):
    headers = [read_header(entry.path) for entry in os.scandir(study + "/ct")]
    wanted = [roi["center"][2] for one in json.load(open(study + "/rois.json"))["vertebrae"] for roi in one["slices"]]
    for z in wanted:
        nearest = min(headers, key=lambda header: abs(header.values["ImagePositionPatient"][2] - z))
        DicomSource(records_of(nearest)).read(0)

if __name__ == "__main__":
    study, count, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(read, [study] * count))
    print(0)
"""
"""As bare as it can be: no series is judged, nothing is kept, and of the ROIs only their six slices are read."""
READING_WITH_PYDICOM = """
import json, os, sys
from concurrent.futures import ProcessPoolExecutor
from pydicom import dcmread

def read(study):
    headers = [(entry.path, dcmread(entry.path, stop_before_pixels=True)) for entry in os.scandir(study + "/ct")]
    places = [(float(header.ImagePositionPatient[2]), path) for path, header in headers]
    for vertebra in json.load(open(study + "/rois.json"))["vertebrae"]:
        for roi in vertebra["slices"]:
            _, path = min(places, key=lambda place: abs(place[0] - roi["center"][2]))
            found = dcmread(path)
            found.pixel_array * float(found.RescaleSlope) + float(found.RescaleIntercept)

if __name__ == "__main__":
    study, count, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(read, [study] * count))
    print(0)
"""
"""The same as one would write it without this program."""
ONLY_COUNTING = """
import sys
from concurrent.futures import ProcessPoolExecutor

def count(number):
    for n in range(1_500_000):
        number += n * n % 7
    return number

if __name__ == "__main__":
    with ProcessPoolExecutor(int(sys.argv[3])) as pool:
        list(pool.map(count, range(int(sys.argv[2]))))
    print(0)
"""
"""A loop that touches neither disk nor much memory: what a second process is worth on this machine at all."""
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
print(time.process_time())
# The peak of getrusage would count the benchmark itself, from which this process came.
status = Path("/proc/self/status").read_text().splitlines()
print(next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM:")))
"""


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds by the clock, and of processor with all workers, of one process, and its lines of standard output."""

    seconds: float
    busy: float
    lines: list[str]

    def rate(self, count: int) -> Rate:
        """Of so many studies. The first line holds the bytes of the largest worker."""
        return Rate(60 * count / self.seconds, 60 * count / self.busy, float(self.lines[0]))


@dataclass(frozen=True, slots=True)
class Rate:
    """Studies in a minute of the clock and in a minute of processor, and bytes of the largest worker."""

    clock: float
    busy: float
    largest: float


def run(folder: Path, code: str, *words: object) -> Run:
    """Runs one process. Raises RuntimeError when it fails.

    The code lies in a file, so that the workers of a process pool find it.
    """
    program = folder / "program.py"
    program.write_text(code)
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, str(program), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(seconds, busy, done.stdout.splitlines())


def write_table(path: Path, count: int, rois: str = "study/rois.json", study: str = "s{n:05d}/ct") -> Path:
    with path.open("w", newline="") as handle:
        rows = ((f"case {n:05d}", study.format(n=n), rois) for n in range(count))
        csv.writer(handle).writerows([("case", "path", "rois"), *rows])
    return path


class Speed:
    """Rates of all contestants."""

    def __init__(self, folder: Path, cases: int) -> None:
        self.folder, self.cases = folder, cases
        self.peer_cases = max(6, cases // 5)
        for number in range(4 * cases):
            link_study(Study(folder / "study", SLICES, RAW), folder / f"s{number:05d}", SLICES)
        self._number = 0

    def batch(self, workers: int, cases: int | None = None, scheduler: str = "", *, warm: bool = False) -> Rate:
        """warm: with the index cache of the run before."""
        self._number += 1
        count = cases or self.cases
        cases_path = write_table(self.folder / f"{count}.csv", count)
        out = self.folder / f"out{self._number}"
        if warm:
            out.mkdir()
            shutil.copy(self.folder / f"out{self._number - 1}" / "index.sqlite", out)
        return run(self.folder, BATCH, self.folder, cases_path, out, workers, scheduler).rate(count)

    def peer(self, code: str, workers: int, cases: int) -> Rate:
        done = run(self.folder, code, self.folder / "study", cases, workers)
        if len(done.lines) > 1:
            self._check(json.loads(done.lines[1]))
        return done.rate(cases)

    def later(self, code: str, workers: int, cases: int) -> Rate:
        """A contestant's rate once all its processes run."""
        return _later(cases, *(self.peer(code, workers, count) for count in (cases, 3 * cases)))

    def _check(self, theirs: dict[str, float]) -> None:
        """Both must come to the same means."""
        ours = json.loads((self.folder / "out1" / "results" / "case 00000.json").read_bytes())["vertebrae"]
        for one in ours:
            if not math.isclose(one["mean_hu"], theirs[one["level"]], abs_tol=1e-6):
                raise SystemExit(f"{one['level']}: {one['mean_hu']} against {theirs[one['level']]}")


def speed_rows(folder: Path, cases: int) -> list[Sequence[object]]:
    """Medians of rounds, in each of which all contestants run in turn."""
    speed = Speed(folder, cases)
    speed.batch(1, 3)  # fills the page cache
    return rows_of([one_round(speed) for _ in range(ROUNDS)])


def rows_of(rounds: list[dict[int, dict[str, Rate]]]) -> list[Sequence[object]]:
    rows: list[Sequence[object]] = []
    for workers in (1, 2):
        of = [one[workers] for one in rounds]
        what = f"{workers} worker{'s' * (workers > 1)}"
        largest, theirs = (max(one[name].largest for one in of) for name in ("ours", "peer"))
        rows += [
            (f"{what}: studies a minute", "", f"{statistics.median(one['ours'].clock for one in of):.0f}"),
            (f"{what}: times the studies a minute of SimpleITK and a NumPy mean", "≥ 3", _against(of, "ours", "peer")),
            (f"{what}: the same with the index cache warm", "≥ 8", _against(of, "warm", "peer")),
            (f"{what}: times as long as reading alone with our reader", "", _against(of, "reading", "ours")),
            (f"{what}: the same without start-up", "≤ 1.5", _against(of, "reading later", "ours later")),
            (f"{what}: the same, reading alone with pydicom", "≤ 1.5", _against(of, "pydicom later", "ours later")),
            (f"{what}: largest worker, MB", "< 400", f"{largest / 1e6:.0f} (the peer's: {theirs / 1e6:.0f})"),
        ]
    for said, goal, name in (
        ("two workers against one, whole processes", "≥ 1.8", "ours"),
        ("the same without start-up", "", "ours later"),
        ("control: reading alone by two processes against one, without start-up", "", "reading later"),
        ("control: a loop of Python by two processes against one", "", "loop"),
    ):
        rows.append((said, goal, f"{statistics.median(one[2][name].clock / one[1][name].clock for one in rounds):.2f}"))
    return rows


def one_round(speed: Speed) -> dict[int, dict[str, Rate]]:
    """Workers -> the rate of each contestant."""
    found: dict[int, dict[str, Rate]] = {}
    cases = speed.cases
    for workers in (1, 2):
        ours = speed.batch(workers)
        found[workers] = {
            "ours": ours,
            "warm": speed.batch(workers, warm=True),
            "peer": speed.peer(PEER, workers, speed.peer_cases),
            "reading": speed.peer(ONLY_READING, workers, cases),
            "loop": speed.peer(ONLY_COUNTING, workers, cases),
            "ours later": _later(cases, ours, speed.batch(workers, 3 * cases)),
            "reading later": speed.later(ONLY_READING, workers, cases),
            "pydicom later": speed.later(READING_WITH_PYDICOM, workers, speed.peer_cases),
        }
    return found


def _later(cases: int, few: Rate, many: Rate) -> Rate:
    """The rate once all run: from what three times the cases take longer."""
    clock, busy = (
        2 * cases / (3 * cases / of_many - cases / of_few)
        for of_few, of_many in ((few.clock, many.clock), (few.busy, many.busy))
    )
    return Rate(clock, busy, many.largest)


def _against(rounds: list[dict[str, Rate]], one: str, other: str) -> str:
    """Median of the ratios of single rounds and their range, by the clock, and the median by processor time."""
    ratios = [found[one].clock / found[other].clock for found in rounds]
    busy = statistics.median(found[one].busy / found[other].busy for found in rounds)
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), by processor time {busy:.2f}"


def click_rows(folder: Path, cases: int) -> list[Sequence[object]]:
    """One click a vertebra, on a phantom with bodies to be found, against the same peer, which gets ellipses."""
    slices = write_spine(folder / "study")
    table_path = write_table(folder / "clicks.csv", cases, "study/clicks.json", "study/ct")
    rows: list[Sequence[object]] = []
    for workers in (1, 2):
        ours = run(folder, BATCH, folder, table_path, folder / f"out{workers}", workers, "").rate(cases)
        few = max(6, cases // 5)
        theirs = run(folder, PEER, folder / "study", few, workers).rate(few)
        ratio = _against([{"ours": ours, "theirs": theirs}], "ours", "theirs")
        what = f"{workers} worker{'s' * (workers > 1)}, one click a vertebra, {slices} slices"
        rows += [
            (f"{what}: times the studies a minute of the peer", "≥ 1.5", f"{ratio}, {ours.clock:.0f} a minute"),
            (f"{what}: largest worker, MB", "< 1000", f"{ours.largest / 1e6:.0f}"),
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
            done = run(folder, BATCH, folder, cases, folder / f"{what}{count}", 2, "")
            sizes.append(f"{done.rate(count).largest / 1e6:.0f}")
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
    """Rounds in turn, without start-up: by the clock, and by processor time of all processes."""
    try:
        import dask
        from distributed import LocalCluster
    except ImportError:
        return [("four Dask workers against four local ones", "≥ 0.9", "Dask is not installed")]
    rows = []
    for what, goal, config in (("with the settings of batch.md", "≥ 0.9", QUIET_DASK), ("as Dask comes", "", {})):
        rounds = []
        with (
            dask.config.set(config),
            LocalCluster(n_workers=4, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        ):
            speed.batch(4, 8, cluster.scheduler_address)  # its workers' children have their libraries
            for _ in range(ROUNDS):
                local, of_dask = (_cost(speed, address) for address in ("", cluster.scheduler_address))
                rounds.append((local[0] / of_dask[0], local[1] / of_dask[1]))
        for number, clock in enumerate(("the clock", "processor time of all processes")):
            ratios = [one[number] for one in rounds]
            said = f"four Dask workers, {what}, against four local ones, by {clock}"
            middle = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            rows.append((said, goal if number == 0 else "", middle))
    return rows


def _cost(speed: Speed, scheduler: str) -> tuple[float, float]:
    """(s by the clock, s of processor) that three times the cases take longer with four workers."""
    found = []
    for count in (speed.cases, 3 * speed.cases):
        busy, start = _busy_seconds(), time.perf_counter()
        speed.batch(4, count, scheduler)
        found.append((time.perf_counter() - start, _busy_seconds() - busy))
    return found[1][0] - found[0][0], found[1][1] - found[0][1]


def _busy_seconds() -> float:
    """Processor time of this process, of those below it, and of those below it that have ended."""
    import psutil  # Dask needs it anyway

    own = psutil.Process()
    return float(sum(sum(one.cpu_times()[:4]) for one in (own, *own.children(recursive=True))))


def curve_rows(folder: Path, most: int) -> list[Sequence[object]]:
    """Cost of table, ledger, result files and measurements for cases that take no time themselves."""
    result = folder / "out1" / "results" / "case 00000.json"
    rows = []
    for count in (n for n in CURVE if n <= most):
        cases = write_table(folder / f"curve{count}.csv", count)
        words = (folder, cases, folder / f"curve{count}", result)
        first, busy, memory = run(folder, SIMULATED, *words).lines
        again = run(folder, SIMULATED, *words)
        per_case = [f"{1000 * float(seconds) / count:.2f}" for seconds in (first, busy)]
        rows.append(
            (count, *per_case, f"{again.seconds:.2f}", f"{float(again.lines[1]):.2f}", f"{float(memory) / 1e6:.0f}")
        )
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
        link_study(Study(folder / "study", SLICES, RAW), folder / "dask" / "study", SLICES)
        parts.append(dask_rows(Speed(folder / "dask", arguments.cases)))
        for part in ("clicks", "memory"):
            (folder / part).mkdir()
        parts.append(click_rows(folder / "clicks", arguments.cases // 2))
        parts.append(memory_rows(folder / "memory"))
        speed = table(("what", "goal", "measured"), [row for rows in parts for row in rows])
        print(speed, flush=True)
        header = (
            *("cases", "ms a case", "of processor, start with it", "again, s", "of processor, s"),
            "memory of the main process, MB",
        )
        curve = table(header, curve_rows(folder, arguments.most))
        print(curve)
    if arguments.write:
        PAGE.write_text(page(speed, curve, arguments.cases), encoding="utf-8")


if __name__ == "__main__":
    main()
