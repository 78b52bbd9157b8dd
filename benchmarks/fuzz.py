"""Broken inputs by the thousand: headers, pixels, volume files and ROI files, mutated at random from a seed.

    python -m benchmarks.fuzz [--count 10000] [--seed 0] [--only N]

Every mutant is opened, listed, measured and written as JSON in a child process. It must end in a result or in one
SpineImgError: no other exception, no warning, no crash, no hang, no memory above 2 GB. Every number that comes out is
held against the mutant's own files by other readers (pydicom, SimpleITK): the pixels must be there, and where the plane
is an original slice their mean must be the number. Mutant N of a seed is always the same; `--only N` shows one.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import resource
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.mutants import KINDS, Mutant, bases, mutant

MOST_SECONDS = 20.0
MOST_BYTES = 2 * 2**30
ADDRESS_SPACE = 12 * 2**30
"""Keeps the machine alive when a mutant asks for everything; far above what is allowed, so that nothing is hidden."""
WORKERS = 2
GOOD = ("number", "no number", "refused", "unjudged")
"""`unjudged` is a number on whose files the other reader crashed."""
BAD = ("unfounded number", "traceback", "crash", "hang", "memory")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one mutant. `detail` says more where it is bad."""

    number: int
    kind: str
    outcome: str
    detail: str = ""
    seconds: float = 0.0
    peak_bytes: int = 0

    @property
    def good(self) -> bool:
        return self.outcome in GOOD


# -- one mutant -------------------------------------------------------------------------------------------------------


def try_mutant(one: Mutant, folder: Path, before_judging: Callable[[], object] = int) -> tuple[str, str]:
    """(outcome, detail) of a mutant whose files are laid out below an empty folder."""
    for name, content in one.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return measure_folder(folder / one.study, folder / "rois.json", before_judging)


def measure_folder(study: Path, roi_file: Path, before_judging: Callable[[], object]) -> tuple[str, str]:
    """(outcome, detail) of index, load, measurement and export of what lies there."""
    from spineimg.errors import SpineImgError
    from spineimg.export.json import result_to_dict
    from spineimg.io.index import scan
    from spineimg.io.listing import index_to_dict, volume_to_dict
    from spineimg.io.opening import is_volume_file, load
    from spineimg.io.rois import read_rois
    from spineimg.pipeline import assess

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if not is_volume_file(study):
                json.dumps(index_to_dict(scan([study])), allow_nan=False)
            rois = read_rois(roi_file)
            volume = load(study)
            if is_volume_file(study):
                json.dumps(volume_to_dict(volume), allow_nan=False)
            result = assess(volume, rois)
            json.dumps(result_to_dict(result, _moment()), allow_nan=False)
    except SpineImgError as error:
        text = str(error)
        return ("refused", "") if text.strip() else ("traceback", "an error without a word")
    except Exception:
        return "traceback", traceback.format_exc()
    numbers = [one for v in result.vertebrae for one in v.hu.slices if one.mean_hu is not None]
    before_judging()
    for one in numbers:
        complaint = _unfounded(volume, one, study)
        if complaint:
            return "unfounded number", complaint
    return ("number" if numbers else "no number"), ""


@cache
def _moment() -> Any:
    from datetime import UTC, datetime

    return datetime(2024, 2, 29, tzinfo=UTC)


# -- is the number there? ---------------------------------------------------------------------------------------------


def _unfounded(volume: Any, one: Any, study: Path) -> str:
    """Why a slice's number cannot come from its files; empty when it can."""
    if not one.slices or not np.isfinite(one.mean_hu):
        return f"{one.position}: a number from no slice, or none at all ({one.mean_hu})"
    if not study.is_dir() and study.suffix != ".dcm":
        return _unfounded_in_grid(one, study)
    planes = [_plane_of_file(volume.source.records[k]) for k in one.slices]
    for plane in planes:
        if isinstance(plane, str):
            return f"{one.position}: {plane}"
    low, high = min(p.hu.min() for p in planes), max(p.hu.max() for p in planes)
    if not low - 0.01 <= one.mean_hu <= high + 0.01:
        return f"{one.position}: {one.mean_hu} lies outside the pixels, {low} to {high}"
    if not _comparable(one):
        return ""
    plane = planes[0]
    row, column = np.mgrid[0 : plane.hu.shape[0], 0 : plane.hu.shape[1]]
    points = plane.origin + row[..., None] * plane.row_step + column[..., None] * plane.column_step
    return _compare(plane.hu[_covered(points, one)], one)


def _comparable(one: Any) -> bool:
    """Whether the mean is that of all voxels in an ellipse on one original slice."""
    return not one.resampled and one.kept_fraction == 1 and one.u_lps is not None


def _covered(points: Any, one: Any) -> Any:
    offset = points - np.array(one.center_lps_mm)
    a, b = one.semi_axes_mm
    return (offset @ np.array(one.u_lps) / a) ** 2 + (offset @ np.array(one.v_lps) / b) ** 2 <= 1 + 1e-9


def _compare(hu: Any, one: Any) -> str:
    if len(hu) != one.n_voxels or abs(float(hu.mean()) - one.mean_hu) > 0.01:
        mean = float(hu.mean()) if len(hu) else None
        return f"{one.position}: {one.mean_hu} from {one.n_voxels} voxels, the file has {mean} from {len(hu)}"
    return ""


@dataclass(frozen=True, eq=False, slots=True)
class _Plane:
    hu: Any
    origin: Any
    row_step: Any
    column_step: Any


_PLACE = ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept")
_SHAPE = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "NumberOfFrames")


def _plane_of_file(record: Any) -> _Plane | str:
    """The slice as pydicom reads it, or why pydicom cannot."""
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ds = pydicom.dcmread(_up_to_pixels(record), force=True)
            _mend(ds, record)
            of = _attributes(ds, record)
            step = np.array(of["ImageOrientationPatient"], dtype=float).reshape(2, 3)
            step = step / np.linalg.norm(step, axis=1)[:, None]
            spacing = [float(x) for x in of["PixelSpacing"]]
            hu = _hu_of_file(ds, record, float(of["RescaleSlope"]), float(of["RescaleIntercept"]))
            origin = np.array(of["ImagePositionPatient"], dtype=float)
            return _Plane(hu, origin, step[1] * spacing[0], step[0] * spacing[1])
        except Exception as error:
            return f"pydicom cannot read {Path(record.path).name}: {type(error).__name__}: {str(error)[:200]}"


def _up_to_pixels(record: Any) -> Any:
    """The file without what follows its pixel data, of which pydicom would want it to be sound as well."""
    if record.file.pixel_offset is None:
        return record.path
    content = Path(record.path).read_bytes()
    return io.BytesIO(content[: record.file.pixel_offset + record.file.pixel_length])


def _mend(ds: Any, record: Any) -> None:
    """What pydicom insists on and a number does not hang on: the VR of elements that every dictionary knows."""
    from pydicom.datadict import dictionary_VR
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    if not ds.file_meta.get("TransferSyntaxUID"):
        ds.file_meta.TransferSyntaxUID = record.file.transfer_syntax
    for keyword in (*_PLACE, *_SHAPE, "SamplesPerPixel", "PhotometricInterpretation"):
        element = ds.get_item(Tag(keyword)) if keyword in ds else None
        if isinstance(element, RawDataElement):
            ds[element.tag] = element._replace(VR=dictionary_VR(element.tag))
    ds.setdefault("SamplesPerPixel", 1)
    ds.PhotometricInterpretation = ds.get("PhotometricInterpretation") or "MONOCHROME2"


def _hu_of_file(ds: Any, record: Any, slope: float, intercept: float) -> Any:
    """As pydicom has it; SimpleITK where pydicom cannot (12-bit JPEG Extended, a wrong offset table)."""
    import SimpleITK as sitk  # noqa: N813 - the library's own customary name
    from pydicom.pixels import pixel_array

    try:
        return pixel_array(ds, index=record.frame).astype(float) * slope + intercept
    except (RuntimeError, ValueError):
        if record.frames > 1:
            raise
        sitk.ProcessObject.GlobalWarningDisplayOff()
        return sitk.GetArrayFromImage(sitk.ReadImage(record.path))[0].astype(float)


def _attributes(ds: Any, record: Any) -> dict[str, Any]:
    found: dict[str, Any] = {key: ds.get(key) for key in _PLACE}
    if record.values is not record.file.values:  # a frame with functional groups
        for group in (ds.SharedFunctionalGroupsSequence[0], ds.PerFrameFunctionalGroupsSequence[record.frame]):
            found |= {element.keyword: element.value for element in group.iterall() if element.keyword in _PLACE}
    return found


def _unfounded_in_grid(one: Any, study: Path) -> str:
    try:
        hu, lps_from_stored = _read_grid(study)
    except Exception as error:
        return _unfounded_by_size(study, f"{type(error).__name__}: {str(error)[:200]}")
    if not _comparable(one):
        inside = np.nanmin(hu) - 0.01 <= one.mean_hu <= np.nanmax(hu) + 0.01
        return "" if inside else f"{one.mean_hu} lies outside the pixels"
    index = np.moveaxis(np.indices(hu.shape), 0, -1)
    points = index @ lps_from_stored[:3, :3].T + lps_from_stored[:3, 3]
    away = (points - np.array(one.center_lps_mm)) @ np.cross(one.u_lps, one.v_lps)
    nearest = _covered(points, one) & (np.abs(away) <= np.abs(away).min() + 1e-3)
    # Half way between two slices either of them is the nearest.
    return min((_compare(hu[nearest & (sign * away >= -1e-3)], one) for sign in (1, -1)), key=len)


def _read_grid(study: Path) -> tuple[Any, Any]:
    """((i, j, k) values, (4, 4) LPS from (i, j, k)) as nibabel or SimpleITK has it."""
    import nibabel
    import SimpleITK as sitk  # noqa: N813 - the library's own customary name

    if study.name.endswith((".nii", ".nii.gz")):
        image = nibabel.load(study)
        voxels = np.asarray(image.dataobj, dtype=float)
        return voxels.reshape((*voxels.shape, 1, 1)[:3]), np.diag([-1.0, -1, 1, 1]) @ image.affine
    sitk.ProcessObject.GlobalWarningDisplayOff()
    grid = sitk.ReadImage(str(study))
    affine = np.eye(4)
    affine[:3, :3] = np.array(grid.GetDirection()).reshape(3, 3) * grid.GetSpacing()
    affine[:3, 3] = grid.GetOrigin()
    return sitk.GetArrayFromImage(grid).astype(float).transpose(2, 1, 0), affine


def _unfounded_by_size(study: Path, why: str) -> str:
    """The other reader refuses some headers that are sound for us: then at least the bytes must be there."""
    from spineimg.io.volumes import read_header

    header = read_header(study)
    present = header.data.stat().st_size - header.offset
    needed = header.slab_bytes * header.shape[2]
    return "" if header.deflated or present >= needed else f"{present} of {needed} bytes are there; {why}"


# -- workers ----------------------------------------------------------------------------------------------------------


def _serve(link: Connection, seed: int, place: Path) -> None:
    """Answers mutant numbers with outcomes, until it is told None."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    ready = bases()
    while (number := link.recv()) is not None:
        one = mutant(ready, seed, number)
        link.send(("made", one.kind))
        kind = one.kind
        _forget_peak()
        start = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=place) as folder:
            outcome, detail = try_mutant(one, Path(folder), lambda: link.send(("judged", kind)))  # noqa: B023
        seconds, peak = time.perf_counter() - start, _peak_bytes()
        if peak > MOST_BYTES:
            outcome, detail = "memory", f"{peak / 2**20:.0f} MB ({outcome})"
        link.send(Outcome(number, kind, outcome, detail, seconds, peak))


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> int:
    """Largest resident memory since `_forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024


class _Worker:
    """A child process and the mutant it works on."""

    def __init__(self, seed: int, place: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.link, far = context.Pipe()
        self.process = context.Process(target=_serve, args=(far, seed, place), daemon=True)
        self.process.start()
        far.close()
        self.number: int | None = None
        self.kind = "?"
        self.until = float("inf")
        self.judged = False

    def give(self, number: int) -> None:
        self.number, self.kind, self.until = number, "?", time.monotonic() + 60
        self.link.send(number)

    def take(self) -> Outcome | None:
        """The outcome, None while there is none. A worker that has died or hangs is put down."""
        try:
            while self.link.poll():
                said = self.link.recv()
                if isinstance(said, Outcome):
                    self.number = None
                    return said
                self.judged = said[0] == "judged"
                self.kind, self.until = said[1], time.monotonic() + MOST_SECONDS
        except EOFError:
            self.process.join()
            outcome = "unjudged" if self.judged and self.process.exitcode < 0 else "crash"
            return self._lost(outcome, f"the process died with {self.process.exitcode}")
        if time.monotonic() > self.until:
            self.process.kill()
            self.process.join()
            return self._lost("hang", f"more than {MOST_SECONDS:g} s")
        return None

    def _lost(self, outcome: str, detail: str) -> Outcome:
        number, self.number = self.number, None
        return Outcome(-1 if number is None else number, self.kind, outcome, detail)

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    def stop(self) -> None:
        if self.alive:
            self.link.send(None)
            self.process.join(5)
        if self.alive:
            self.process.kill()
        self.link.close()


def run(numbers: Sequence[int], seed: int = 0, progress: Callable[[Outcome], None] | None = None) -> list[Outcome]:
    """Tries these mutants of a seed in two child processes."""
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="spineimg-fuzz-") as place:
        for outcome in _outcomes(iter(numbers), partial(_Worker, seed, Path(place))):
            outcomes.append(outcome)
            if progress:
                progress(outcome)
    return sorted(outcomes, key=lambda one: one.number)


def _outcomes(waiting: Iterator[int], hire: Callable[[], _Worker]) -> Iterator[Outcome]:
    workers = [hire() for _ in range(WORKERS)]
    try:
        busy = {worker for worker in workers if _feed(worker, waiting)}
        while busy:
            wait([worker.link for worker in busy], timeout=1)
            for worker in list(busy):
                outcome = worker.take()
                if outcome is None:
                    continue
                yield outcome
                busy.discard(worker)
                if not worker.alive:
                    worker.stop()
                    workers[workers.index(worker)] = hire()
                busy |= {one for one in workers if one.number is None and _feed(one, waiting)}
    finally:
        for worker in workers:
            worker.stop()


def _feed(worker: _Worker, waiting: Iterator[int]) -> bool:
    number = next(waiting, None)
    if number is not None:
        worker.give(number)
    return number is not None


# -- report -----------------------------------------------------------------------------------------------------------


def rows(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """The table: kind of mutant, how many, then how many of each outcome; a head and a line of sums."""
    counts = Counter((one.kind, one.outcome) for one in outcomes)
    head = ("kind of mutant", "mutants", *GOOD, *BAD)
    body = [_row(kind, counts, [kind]) for kind in KINDS if any(counts[kind, name] for name in (*GOOD, *BAD))]
    return [head, *body, _row("all", counts, [*KINDS, "?"])]


def _row(name: str, counts: Counter[tuple[str, str]], kinds: Sequence[str]) -> tuple[str, ...]:
    numbers = [sum(counts[kind, outcome] for kind in kinds) for outcome in (*GOOD, *BAD)]
    return (name, f"{sum(numbers)}", *(f"{number}" if number else "" for number in numbers))


def table(outcomes: Sequence[Outcome]) -> str:
    """The same as Markdown, with the worst time and memory below."""
    head, *body = rows(outcomes)
    lines = ["| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *body)]
    seconds = max(one.seconds for one in outcomes)
    peak = max(one.peak_bytes for one in outcomes)
    return "\n".join([*lines, "", f"Longest {seconds:.2f} s, largest {peak / 2**20:.0f} MB with all imports."])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description="Broken inputs by the thousand.")
    parser.add_argument("--count", type=int, default=10_000, metavar="N", help="how many mutants")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="which ones")
    parser.add_argument("--only", type=int, metavar="N", help="a single mutant, in full")
    arguments = parser.parse_args()
    numbers = range(arguments.count) if arguments.only is None else [arguments.only]
    outcomes = run(numbers, arguments.seed, None if arguments.only is None else print)
    bad = [one for one in outcomes if not one.good]
    for one in bad[:50]:
        print(f"mutant {one.number} ({one.kind}): {one.outcome}\n{one.detail}\n")
    print(table(outcomes))
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
