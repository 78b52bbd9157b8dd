"""Speed and memory of whole processes, as ratios to peers measured in the same run.

    python -m benchmarks.speed [--write] [--rounds N]

Every contestant is a fresh process, from its start to its exit, with its imports; contestants take turns (A B A B …),
and medians are compared. The files are in the page cache. Contestants must come to the same numbers, else the run
stops. This process imports nothing heavy, since its own memory would count as that of its children.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "speed.md"
SAMPLE = Path(__file__).parent.parent / "sample_data"
BIN = Path(sys.executable).parent
SYNTAXES = {"raw": "1.2.840.10008.1.2.1", "JPEG-LS": "1.2.840.10008.1.2.4.80"}
SIZES = (160, 600)
ROI_SIZES = (150, 300, 600)
VOXELS_A_SLICE = 512 * 512

SPINEIMG = """
import sys, spineimg
from spineimg.io.series import read_array
volume = read_array(spineimg.load(sys.argv[1]))
"""
SIMPLEITK = """
import sys, SimpleITK as sitk
reader = sitk.ImageSeriesReader()
reader.SetFileNames(reader.GetGDCMSeriesFileNames(sys.argv[1]))
image = reader.Execute()
volume = sitk.GetArrayViewFromImage(image)
"""
PYDICOM = """
import sys, pydicom, numpy as np
from pathlib import Path
files = sorted((pydicom.dcmread(p) for p in Path(sys.argv[1]).iterdir()), key=lambda f: f.ImagePositionPatient[2])
volume = np.empty((len(files), files[0].Rows, files[0].Columns), np.int16)
for k, f in enumerate(files):
    volume[k] = f.pixel_array * float(f.RescaleSlope) + float(f.RescaleIntercept)
"""
CHECKSUM = """
print([int(n) for n in (*volume.shape, volume[::37, ::5, ::7].sum(), volume[len(volume) // 3, 300, 250])])
"""
"""Costs nothing, is the same for every reader, and is another when a slice lies at a wrong place."""
NUMPY_MEAN = (
    SIMPLEITK
    + """
import json, numpy as np
(x0, y0, z0), (dx, dy, dz) = image.GetOrigin(), image.GetSpacing()
y, x = np.mgrid[0:volume.shape[1], 0:volume.shape[2]].astype(float) * [[[dy]], [[dx]]] + [[[y0]], [[x0]]]
for vertebra in json.load(open(sys.argv[2]))["vertebrae"]:
    means = []
    for roi in vertebra["slices"]:
        (cx, cy, cz), (a, b) = roi["center"], roi["semi_axes_mm"]
        inside = ((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 <= 1 + 1e-9
        means.append(volume[round((cz - z0) / dz)][inside].mean())
    print(vertebra["level"], f"{np.mean(means):.6f}")
"""
)
CLICKS = """
import json, resource, sys, time
import numpy as np
import spineimg
from spineimg.vertebra.naming import name_spine
from spineimg.rois import RoiSet

study = sys.argv[1]
volume, rois = spineimg.load(study + "/ct"), spineimg.read_rois(study + "/clicks.json")
levels = {one.level: one.center_lps_mm for one in rois.vertebrae}
seed = dict([list(levels.items())[-1]])
seconds, spines = {}, {}
for name, told in (("seeded", seed), ("alone", None)) * 2:
    start = time.perf_counter()
    spines[name] = name_spine(volume, told) if told else name_spine(volume)
    seconds[name] = time.perf_counter() - start
draw, times, placed = np.random.default_rng(5), [], 0
for body in [one.body for one in spines["seeded"].vertebrae]:
    for _ in range(3):
        half = np.array([body.width_mm, body.depth_mm, body.height_mm]) / 4
        click = body.center_lps_mm + draw.uniform(-1, 1, 3) * half @ body.axes
        one = RoiSet((spineimg.VertebraRoi("L1", click),))
        start = time.perf_counter()
        (found,) = spineimg.assess(volume, one).vertebrae
        times.append(time.perf_counter() - start)
        placed += found.hu.mean_hu is not None
print(json.dumps({
    "click_s": times, "placed": placed, "seeded_s": seconds["seeded"], "alone_s": seconds["alone"],
    "named": len(spines["seeded"].vertebrae), "slices": volume.geometry.shape[0],
    "alone": len(spines["alone"].vertebrae) + len(spines["alone"].unnamed),
    "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
}))
"""
ONLY_IMPORTS = {
    "raw": "import spineimg, spineimg.io.opening, spineimg.io.series, concurrent.futures.thread",
    "JPEG-LS": "import spineimg, spineimg.io.opening, spineimg.io.series, concurrent.futures.thread, jpeg_ls",
}


@dataclass(frozen=True, slots=True)
class Run:
    """One process: wall and processor seconds, largest resident memory, what it printed."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: str


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `reached` is None where no goal was set."""

    what: str
    goal: str
    measured: str
    reached: bool | None = None


def run(command: list[str]) -> Run:
    """Raises RuntimeError when the process fails."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(command, stdout=out, stderr=errors)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        errors.seek(0)
        if child.returncode:
            raise RuntimeError(f"{command[:3]} … failed: {errors.read().decode()[-2000:]}")
        return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, out.read().decode())


def take_turns(commands: Mapping[str, list[str]], rounds: int) -> dict[str, list[Run]]:
    """The runs of every contestant, one of each a round; a round before the first fills the page cache."""
    for command in commands.values():
        run(command)
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            runs[name].append(run(command))
    return runs


def median_s(runs: list[Run]) -> float:
    return statistics.median(one.seconds for one in runs)


def _python(code: str, *arguments: str | Path) -> list[str]:
    return [sys.executable, "-c", code, *(str(argument) for argument in arguments)]


def _agree(outputs: Mapping[str, str]) -> None:
    if len(set(outputs.values())) > 1:
        raise SystemExit(f"the contestants read different numbers: {dict(outputs)}")


# -- chapters ---------------------------------------------------------------------------------------------------------


def whole_volume(study: Path, slices: int, kind: str, rounds: int) -> list[Row]:
    """Time and memory of reading every voxel."""
    scratch = study / "nifti"
    scratch.mkdir(exist_ok=True)
    commands = {
        "spineimg": _python(SPINEIMG + CHECKSUM, study / "ct"),
        "SimpleITK": _python(SIMPLEITK + CHECKSUM, study / "ct"),
        "pydicom": _python(PYDICOM + CHECKSUM, study / "ct"),
        "dcm2niix": [str(BIN / "dcm2niix"), "-z", "n", "-b", "n", "-w", "1", "-f", "out", "-o", str(scratch),
                     str(study / "ct")],
    }  # fmt: skip
    runs = take_turns(commands, rounds)
    shutil.rmtree(scratch)
    _agree({name: runs[name][-1].output for name in ("spineimg", "SimpleITK", "pydicom")})
    ours = median_s(runs["spineimg"])
    what = f"whole volume, 512 × 512 × {slices}, {kind}"
    goals = {"raw": {"SimpleITK": 3.0, "dcm2niix": 1.0}, "JPEG-LS": {"SimpleITK": 1.5}}[kind]
    rows = []
    for peer in ("SimpleITK", "dcm2niix", "pydicom"):
        theirs = median_s(runs[peer])
        goal = goals.get(peer)
        rows.append(
            Row(
                f"{what}: times as fast as {peer}",
                f"≥ {goal:g}" if goal else "",
                f"{theirs / ours:.2f} ({ours:.2f} s against {theirs:.2f} s)",
                None if goal is None else theirs / ours >= goal,
            )
        )
    return [*rows, _memory(what, runs["spineimg"], slices, kind, rounds)]


def _memory(what: str, runs: list[Run], slices: int, kind: str, rounds: int) -> Row:
    imports = take_turns({"imports": _python(ONLY_IMPORTS[kind])}, rounds)["imports"]
    base = statistics.median(one.peak_bytes for one in imports)
    peak = statistics.median(one.peak_bytes for one in runs)
    volume = slices * VOXELS_A_SLICE * 2
    ratio = (peak - base) / volume
    text = (
        f"{ratio:.2f} ({(peak - base) / 1e6:.0f} MB over {base / 1e6:.0f} MB of imports, volume {volume / 1e6:.0f} MB)"
    )
    return Row(f"{what}: peak memory over the imports, in int16 volumes", "≤ 1.3", text, ratio <= 1.3)


def vertebral_hu(studies: Mapping[int, Path], rounds: int) -> list[Row]:
    """UIV and LIV from process start to the result, against reading everything and averaging."""
    study = studies[max(studies)]
    commands = {f"{n}": _hu_command(folder) for n, folder in studies.items()}
    commands["SimpleITK"] = _python(NUMPY_MEAN, study / "ct", study / "rois.json")
    runs = take_turns(commands, rounds)
    _agree({"spineimg": _means(runs[f"{max(studies)}"][-1].output), "SimpleITK": runs["SimpleITK"][-1].output})
    seconds = {n: median_s(runs[f"{n}"]) for n in studies}
    ours, theirs = seconds[max(studies)], median_s(runs["SimpleITK"])
    low, middle, high = sorted(studies)
    per_header_ms = 1000 * (seconds[high] - seconds[low]) / (high - low)
    peak = statistics.median(one.peak_bytes for one in runs[f"{high}"])
    return [
        Row(
            f"UIV and LIV of {high} raw slices: times as fast as SimpleITK and a NumPy mean",
            "≥ 3",
            f"{theirs / ours:.2f} ({ours:.2f} s against {theirs:.2f} s)",
            theirs / ours >= 3,
        ),
        Row(
            f"the same from {low}, {middle} and {high} slices, s",
            "linear in headers",
            f"{seconds[low]:.2f}, {seconds[middle]:.2f}, {seconds[high]:.2f} ({per_header_ms:.2f} ms a further slice; "
            f"reading its pixels too takes {1000 * theirs / high:.1f} ms with SimpleITK)",
        ),
        Row(f"the same from {high} slices, peak memory with all imports", "", f"{peak / 1e6:.0f} MB"),
    ]


def _hu_command(study: Path) -> list[str]:
    return [str(BIN / "spineimg"), "hu", str(study / "ct"), "--rois", str(study / "rois.json"), "--json", "-"]


def _means(document: str) -> str:
    vertebrae = json.loads(document)["vertebrae"]
    return "".join(f"{one['level']} {one['mean_hu']:.6f}\n" for one in vertebrae)


def clicks_and_levels(study: Path) -> list[Row]:
    """One click and one spine on an opened scan, its files in the page cache; the second time each, without imports."""
    found = json.loads(run(_python(CLICKS, study)).output)
    ordered = sorted(found["click_s"])
    click, slow = statistics.median(ordered), ordered[int(0.95 * len(ordered))]
    what = f"512 × 512 × {found['slices']}"
    seeded, alone = found["seeded_s"], found["alone_s"]
    names = f"{found['named']} bodies"
    peak = found["peak_bytes"]
    return [
        Row(
            f"one click, {what}: body and ROIs, median s",
            "< 0.15",
            f"{click:.2f} (95th percentile {slow:.2f}; {found['placed']} of {len(ordered)} clicks placed)",
            click < 0.15,
        ),
        Row(f"all levels from one seed, {what}, s", "< 4", f"{seeded:.1f} ({names})", seeded < 4),
        Row(f"all levels without a seed, {what}, s", "< 10", f"{alone:.1f} ({found['alone']} bodies)", alone < 10),
        Row(f"clicks and levels, {what}: peak memory", "< 1.5 GB", f"{peak / 1e9:.2f} GB", peak < 1.5e9),
    ]


def report_of_eight_screws(folder: Path, rounds: int) -> list[Row]:
    """The page with pictures, as a whole process, of the sample's screws, two of them twice."""
    study, result = SAMPLE / "postop" / "ct", folder / "screws.json"
    run([str(BIN / "spineimg"), "implants", str(study), "--json", str(result), "--quiet"])
    document = json.loads(result.read_text())
    more = [{**one, "id": f"again-{n}", "level": None} for n, one in enumerate(document["screws"])]
    document["screws"] = [*document["screws"], *more][:8]
    result.write_text(json.dumps(document))
    words = ["report", str(result), "--source", str(study), "--out", str(folder / "report.html"), "--quiet"]
    seconds = median_s(take_turns({"report": [str(BIN / "spineimg"), *words]}, rounds)["report"])
    return [Row(f"report of {len(document['screws'])} screws, s", "< 5", f"{seconds:.1f}", seconds < 5)]


def help_text(rounds: int) -> list[Row]:
    seconds = median_s(take_turns({"help": [str(BIN / "spineimg"), "--help"]}, 2 * rounds + 1)["help"])
    return [Row("spineimg --help, s", "< 0.3", f"{seconds:.2f}", seconds < 0.3)]


# -- the table --------------------------------------------------------------------------------------------------------


def measure(folder: Path, rounds: int) -> list[Row]:
    run(_python(_MAKE_SPINE, folder / "spine"))
    rows = [*help_text(rounds), *clicks_and_levels(folder / "spine"), *report_of_eight_screws(folder, rounds)]
    shutil.rmtree(folder / "spine")
    for kind in SYNTAXES:
        studies = _studies(folder / kind, kind)
        if kind == "raw":
            rows += vertebral_hu({n: studies[n] for n in ROI_SIZES}, rounds)
        for n in SIZES:
            rows += whole_volume(studies[n], n, kind, rounds)
        shutil.rmtree(folder / kind)
    return rows


def _studies(folder: Path, kind: str) -> dict[int, Path]:
    """One folder a size, written by a process of its own; the smaller ones are parts of the largest."""
    sizes = sorted({*SIZES, *ROI_SIZES}, reverse=True)
    run(_python(_MAKE, folder, SYNTAXES[kind], *map(str, sizes)))
    return {n: folder / str(n) for n in sizes}


_MAKE_SPINE = """
import sys
from pathlib import Path
from benchmarks.studies import write_spine
write_spine(Path(sys.argv[1]))
"""
_MAKE = """
import sys
from pathlib import Path
from benchmarks.studies import Study, link_study, write_study
if __name__ == "__main__":
    folder, syntax, (most, *fewer) = Path(sys.argv[1]), sys.argv[2], map(int, sys.argv[3:])
    largest = Study(folder / str(most), most, syntax)
    write_study(largest)
    for n in fewer:
        link_study(largest, folder / str(n), n)
"""


def table(rows: list[Row]) -> str:
    words = {True: "yes", False: "**no**", None: ""}
    lines = ["| what | goal | measured | reached |", "|---|---|---|---|"]
    return "\n".join(
        [*lines, *(f"| {row.what} | {row.goal} | {row.measured} | {words[row.reached]} |" for row in rows)]
    )


def page(rows: list[Row], rounds: int) -> str:
    peers = ", ".join(f"{name} {version(name)}" for name in ("SimpleITK", "dcm2niix", "pydicom", "numpy"))
    return f"""# Speed and memory

Written by `python -m benchmarks.speed --write`; `make bench` prints the table.

Whole processes, from start to exit with their imports, files in the page cache, contestants in turn, medians of
{rounds} rounds. The studies are synthetic: 512 × 512 slices with texture and noise, about 150 header elements,
shuffled names. Readers must come to the same voxels, and both ways to the HU to the same means, or the run stops.
dcm2niix writes its volume to a file (`-z n`); the others leave it in memory.

Python {platform.python_version()}, {os.cpu_count()} processors ({platform.machine()}), {peers}.

{table(rows)}

How it is done: headers are skimmed for the wanted elements without building a data set of the rest; pixels of raw
slices go from the file straight into the volume; JPEG-LS slices are decoded by two threads; a ROI decodes only the
slices that it, or metal within its margin, can touch; SciPy, pydicom, pandas and matplotlib are imported where used.
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description="Speed as ratios to peers.")
    parser.add_argument("--write", action="store_true", help="write the table to docs/speed.md")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="runs of every contestant")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="spineimg-speed-") as folder:
        rows = measure(Path(folder), arguments.rounds)
    print(table(rows))
    if arguments.write:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page(rows, arguments.rounds), encoding="utf-8")


if __name__ == "__main__":
    main()
