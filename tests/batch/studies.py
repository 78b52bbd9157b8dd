"""Small trees of studies with known means, tables of cases, and runs of them. Shared by the tests of this folder."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spineimg.batch.runner import BatchSettings, BatchSummary, run_batch
from tests.dicom_factory import Lattice, Written, write_series

SHAPE = (9, 40, 44)
TAGS = {"PatientName": "Doe^Jane", "KVP": 120, "ContrastBolusAgent": None, "SliceThickness": 1.0}
UID = "1.2.826.0.1.3680043.2.1143.77"


def write_ct(folder: Path, number: int, **tags: object) -> Written:
    """Nine slices whose HU is 100 + 10 number + z, so that the mean of an axial ROI is known."""
    z = np.arange(SHAPE[0])
    hu = np.broadcast_to((100 + 10 * number + z)[:, None, None], SHAPE).astype(np.int16)
    affine = np.array([[0, 0, 1, -21.5], [0, 1, 0, -19.5], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=float)
    return write_series(
        folder, hu, Lattice.from_affine(SHAPE[0], affine), tags=TAGS | tags, series_uid=f"{UID}.{number}"
    )


def roi_file(path: Path, levels: Sequence[str] = ("L4",), liv: str | None = "L4") -> Path:
    """Three ellipses in slices 6, 4 and 2 for each level: the mean is that of slice 4."""
    slices = [
        {"position": name, "center": [0.0, 0.0, z], "u": [1, 0, 0], "v": [0, 1, 0], "semi_axes_mm": [9.0, 8.0]}
        for name, z in (("superior", 6.0), ("mid", 4.0), ("inferior", 2.0))
    ]
    vertebrae = [{"level": level, "slices": slices} for level in levels]
    content = {"schema": "spineimg.rois/1", "construct": {"uiv": None, "liv": liv}, "vertebrae": vertebrae}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def tree(root: Path, count: int) -> Path:
    """`count` studies in root/s00 … and one ROI file; the mean of study n is 104 + 10 n."""
    root.mkdir()
    for number in range(count):
        write_ct(root / f"s{number:02d}", number)
    roi_file(root / "rois.json")
    return root


def table(path: Path, rows: Iterable[Mapping[str, object]], columns: Sequence[str] = ("case", "path", "rois")) -> Path:
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def whole_table(root: Path, count: int) -> Path:
    rows = [{"case": f"c{n:02d}", "path": f"s{n:02d}", "rois": "rois.json"} for n in range(count)]
    return table(root / "cases.csv", rows)


def run(root: Path, cases: Path, out: Path, **settings: Any) -> BatchSummary:
    return run_batch(root, cases, out, BatchSettings(**{"workers": 2} | settings), quiet=True)


def ledger(out: Path) -> dict[str, dict[str, str]]:
    """The ledger as any reader sees it. Fails on a second row of a case."""
    with (out / "ledger.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len({row["case"] for row in rows}) == len(rows)
    return {row["case"]: row for row in rows}


def statuses(out: Path) -> dict[str, str]:
    return {name: row["status"] for name, row in ledger(out).items()}


def measurements(out: Path) -> list[dict[str, str]]:
    with (out / "measurements.csv").open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def results(out: Path) -> dict[str, dict[str, Any]]:
    """Result files without the time they were made at."""
    found = {}
    for path in sorted((out / "results").iterdir()):
        content = json.loads(path.read_bytes())
        del content["made_by"]["created"]
        found[path.name] = content
    return found


def start(root: Path, cases: Path, out: Path, *, first: str = "", **settings: Any) -> subprocess.Popen[str]:
    """A run in a process of its own, in a session of its own; it exits with the run's exit code. first: code."""
    code = (
        f"{first}\n"
        "import json, sys\nfrom pathlib import Path\n"
        "from spineimg.errors import SpineImgError\n"
        "from spineimg.batch.runner import BatchSettings, run_batch\n"
        "try:\n"
        "    s = run_batch(*map(Path, sys.argv[1:4]), BatchSettings(**json.loads(sys.argv[4])))\n"
        "except SpineImgError as error:\n"
        "    sys.exit(f'error: {error}')\n"
        "sys.exit(s.exit_code(strict=False))\n"
    )
    words = [str(root), str(cases), str(out), json.dumps({"workers": 2} | settings)]
    main = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    _started.append(main)
    return main


_started: list[subprocess.Popen[str]] = []


def end_started() -> None:
    """Ends what a test that failed has left running."""
    while _started:
        main = _started.pop()
        main.kill()
        main.wait()
        if main.stdout is not None:
            main.stdout.close()


def children(pid: int) -> list[int]:
    """Process ids of the children of a process of this test."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(word) for word in task.read_text().split()]
        except OSError:
            continue
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def eventually(what: Callable[[], bool], seconds: float = 30.0) -> None:
    """Waits for something that another process does. Fails when it never happens."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "never happened"
        time.sleep(0.02)
