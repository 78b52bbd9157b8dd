"""The folder of a run: who holds it, what it was started with, one file a case, one table of all."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spineimg import __version__
from spineimg.batch.ledger import Ledger
from spineimg.batch.page import Shown
from spineimg.batch.worker import Answer
from spineimg.errors import SpineImgError
from spineimg.export.files import replacing

if TYPE_CHECKING:
    import pyarrow

SCHEMA = "spineimg.batch/1"
_LIBRARIES = ("numpy", "scipy", "pydicom", "SimpleITK", "nibabel", "pyarrow")
_ROWS_A_GROUP = 2048
_SHOWN = ("level", "role", "confirmed", "mean_hu", "flag.call", "notes")
_TEXTS = frozenset(
    {"case", "level", "role", "notes", "case_notes", "made_by.spineimg", "flag.call", "flag.source", "flag.text"}
    | {"series.series_instance_uid", "series.description"}
)


class RunFolder:
    """FOLDER of a run, held by this process. Every file in it appears whole or not at all."""

    def __init__(self, path: Path, stems: Mapping[str, str]) -> None:
        self.path = path
        self._stems = stems

    @property
    def ledger(self) -> Path:
        return self.path / "ledger.csv"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    def result(self, case: str) -> Path:
        return self.path / "results" / f"{self._stems[case]}.json"

    def figure(self, case: str) -> Path:
        return self.path / "figures" / f"{self._stems[case]}.png"

    def prepare(self, *, figures: bool) -> None:
        """Makes the folders and takes away what a killed process was writing."""
        for name in ("results", "figures") if figures else ("results",):
            _make_folder(self.path / name)
        for name in ("", "results", "figures"):
            for leftover in (self.path / name).glob(".*.tmp"):
                _remove(leftover)

    def store(self, case: str, answer: Answer) -> None:
        """Writes the files of a case that is done.

        Should a power cut undo the renaming and not the ledger's row, the next run finds the file missing.
        """
        if answer.figure is not None:
            _write(self.figure(case), answer.figure)
        if answer.document is not None:
            _write(self.result(case), answer.document)

    def without_result(self, cases: Iterable[str]) -> list[str]:
        """The cases among these whose result file is not there."""
        try:
            present = set(os.listdir(self.path / "results"))  # noqa: PTH208 - names alone, for many cases
        except OSError as error:
            raise SpineImgError(f"cannot read {self.path / 'results'}: {error.strerror}") from error
        return [case for case in cases if self.result(case).name not in present]

    def read_result(self, case: str) -> dict[str, Any]:
        """The result of a case. Raises SpineImgError for a file that is not what this run wrote."""
        path = self.result(case)
        try:
            content = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise SpineImgError(f"cannot read {path}: {error}; remove the file, and the case is done again") from error
        if not isinstance(content, dict) or content.get("case") != case:
            raise SpineImgError(f"{path} is not the result of {case!r}; remove the file, and the case is done again")
        return content

    def write_measurements(self, cases: Iterable[str]) -> dict[str, Shown]:
        """`measurements.csv` and `.parquet` of these cases, in this order, and `screws.csv` where there are screws.

        Returns what the page shows of each case.
        """
        from pyarrow import parquet

        from spineimg.export.implants import SCREW_COLUMNS, screw_rows
        from spineimg.export.table import rows, write_table

        schema = _schema()
        screws: list[dict[str, Any]] = []
        shown: dict[str, Shown] = {}

        def all_rows(writer: parquet.ParquetWriter) -> Iterator[dict[str, Any]]:
            group: list[dict[str, Any]] = []
            for case in cases:
                result = self.read_result(case)
                of_case = rows(result, case)
                of_screws = screw_rows(result, case)
                screws.extend(of_screws)
                vertebrae = [{name: row[name] for name in _SHOWN} for row in of_case]
                shown[case] = Shown(vertebrae, Counter(row["loosening"] for row in of_screws))
                group += of_case
                yield from of_case
                if len(group) >= _ROWS_A_GROUP:
                    writer.write_table(_arrow(group, schema))
                    group = []
            writer.write_table(_arrow(group, schema))

        with (
            replacing(self.path / "measurements.parquet") as handle,
            parquet.ParquetWriter(handle, schema, compression="zstd") as writer,
        ):
            write_table(self.path / "measurements.csv", all_rows(writer))
        if screws or (self.path / "screws.csv").exists():
            write_table(self.path / "screws.csv", screws, SCREW_COLUMNS)
        return shown

    def figures(self, cases: Iterable[str]) -> dict[str, str]:
        """Case -> its picture's path from FOLDER, of the cases that have one."""
        folder = self.path / "figures"
        present = set(os.listdir(folder)) if folder.is_dir() else set()  # noqa: PTH208 - names alone, for many cases
        return {case: f"figures/{name}" for case in cases if (name := self.figure(case).name) in present}


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Makes FOLDER when absent and holds it. Raises SpineImgError when another process does.

    The lock belongs to the open file, so it dies with the process, however that ends; children do not inherit it.
    """
    import fcntl

    _make_folder(path)
    place = path / ".lock"
    try:
        handle = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise SpineImgError(f"cannot write {place}: {error.strerror}, choose another --out") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 200).decode("utf-8", "replace").strip() or "another process"
            raise SpineImgError(f"{path} is in use by {holder}: wait for it or choose another --out") from None
        except OSError as error:
            raise SpineImgError(f"{path} cannot be locked ({error.strerror}): choose a --out that can") from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


# -- manifest ---------------------------------------------------------------------------------------------------------


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of an earlier run in this folder, None when there was none. Raises SpineImgError."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SpineImgError(f"cannot read {path}: {error}; choose another --out") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or not isinstance(content.get("cases"), dict):
        raise SpineImgError(f"{path} is no manifest of this version; choose another --out")
    return content


def new_manifest(root: Path, table: Path, table_sha256: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a run is started with, so that it can be repeated. Holds no time, so that equal runs are equal."""
    from spineimg.pipeline import Settings

    return {
        "schema": SCHEMA,
        "spineimg": __version__,
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in _LIBRARIES},
        "root": str(root),
        "table": {"file": str(table), "sha256": table_sha256},
        "options": dict(options),
        "settings": asdict(Settings()),
        "cases": {},
        "measurements_of": None,
    }


def write_manifest(path: Path, content: Mapping[str, Any]) -> None:
    from spineimg.export.json import write_json

    write_json(path, content)


def digest(ledger: Ledger, cases: Iterable[str]) -> str:
    """Tells whether the table of measurements is that of these cases, in this order, with these rows."""
    state = hashlib.sha256()
    for case in cases:
        state.update(ledger.rows[case].text().encode())
    return state.hexdigest()


# -- files ------------------------------------------------------------------------------------------------------------


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as handle:
        handle.write(content)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpineImgError(f"cannot make the folder {path}: {error.strerror}, choose another --out") from error


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise SpineImgError(f"cannot remove {path}: {error.strerror}") from error


# -- Parquet ----------------------------------------------------------------------------------------------------------


def _schema() -> pyarrow.Schema:
    """Types by column, not by content, so that a table without a value has the same columns as any other."""
    import pyarrow

    from spineimg.export.table import COLUMNS

    return pyarrow.schema([(name, _type(name)) for name in COLUMNS])


def _type(name: str) -> pyarrow.DataType:
    import pyarrow

    first, _, rest = name.partition(".")
    last = name.rpartition(".")[2]
    if name in _TEXTS or last in ("position", "sop_instance_uids"):
        return pyarrow.string()
    if last in ("n_voxels", "n_slices"):
        return pyarrow.int64()
    if last in ("confirmed", "below_cutoff"):
        return pyarrow.bool_()
    if first == "acquisition":
        return _acquisition_types()[rest]
    return pyarrow.float64()


def _acquisition_types() -> dict[str, pyarrow.DataType]:
    from typing import get_type_hints

    import pyarrow

    from spineimg.volume import Acquisition

    known = {bool | None: pyarrow.bool_(), float | None: pyarrow.float64()}
    return {name: known.get(hint, pyarrow.string()) for name, hint in get_type_hints(Acquisition).items()}


def _arrow(rows: list[dict[str, Any]], schema: pyarrow.Schema) -> pyarrow.Table:
    import pyarrow

    return pyarrow.Table.from_pylist(rows, schema=schema)
