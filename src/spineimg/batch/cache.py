"""Headers that were read once, kept in FOLDER/index.sqlite: a file is known by its path, size and time of change.

Only the main process touches the database. A job takes the known headers of its files along, and the answer brings
those that were read. Nothing here is needed for a result: a cache that is damaged or cannot be written is left out.
It holds no patient's name, id or birth date.
"""

from __future__ import annotations

import marshal
import os
import sqlite3
import sys
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spineimg import __version__
from spineimg.io.headers import FileHeader, Unparsed, read_header

_IDENTITY = frozenset({"PatientName", "PatientID", "PatientBirthDate"})
_MADE_BY = f"{__version__} {sys.version_info[0]}.{sys.version_info[1]} {marshal.version}"

Entry = tuple[str, int, int, bytes]
"""(path, bytes, time of change in ns, packed header) of one file."""


@dataclass(eq=False, slots=True)
class KnownHeaders:
    """Headers of some files, as a worker has them. `fresh` collects those that had to be read."""

    entries: Sequence[Entry] = ()
    fresh: list[Entry] = field(default_factory=list)
    _by_path: dict[str, Entry] = field(init=False)

    def __post_init__(self) -> None:
        self._by_path = {entry[0]: entry for entry in self.entries}

    def read(self, path: str) -> FileHeader:
        """As `read_header`, from memory when the file is what it was."""
        status = os.stat(path)  # noqa: PTH116 - strings, for speed over thousands of files
        known = self._by_path.get(path)
        if known is not None and known[1:3] == (status.st_size, status.st_mtime_ns):
            header = _unpacked(path, known[3])
            if header is not None:
                return header
        header = read_header(path)
        self.fresh.append((path, status.st_size, status.st_mtime_ns, _packed(header)))
        return header


class HeaderCache:
    """The database of a run; one that cannot be used knows nothing and learns nothing."""

    def __init__(self, path: Path) -> None:
        self._connection: sqlite3.Connection | None = None
        for _ in range(2):
            try:
                self._connection = _connected(path)
                return
            except sqlite3.Error:
                for ending in ("", "-wal", "-shm", "-journal"):
                    with suppress(OSError):
                        path.with_name(path.name + ending).unlink(missing_ok=True)

    def of(self, files: Iterable[str]) -> tuple[Entry, ...]:
        """What is known of these files, and of those below them where they are folders."""
        found: list[Entry] = []
        for path in files:
            below = path.rstrip("/") + "/"
            found += self._ask("path = ? OR (path > ? AND path < ?)", path, below, below[:-1] + chr(ord("/") + 1))
        return tuple(found)

    def read(self, path: str) -> FileHeader:
        """As `read_header`, from the database when the file is what it was."""
        known = KnownHeaders(self._ask("path = ?", path))
        header = known.read(path)
        self.learn(known.fresh)
        return header

    def learn(self, entries: Sequence[Entry]) -> None:
        if self._connection is None or not entries:
            return
        try:
            with self._connection:
                self._connection.executemany(
                    "INSERT OR REPLACE INTO headers VALUES (?, ?, ?, ?)",
                    [(os.fsencode(path), *rest) for path, *rest in entries],
                )
        except sqlite3.Error:
            self.close()

    def close(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _ask(self, condition: str, *paths: str) -> list[Entry]:
        if self._connection is None:
            return []
        question = f"SELECT path, size, mtime_ns, header FROM headers WHERE {condition}"
        try:
            rows = self._connection.execute(question, [os.fsencode(path) for path in paths]).fetchall()
            return [(os.fsdecode(path), *rest) for path, *rest in rows]
        except sqlite3.Error:
            self.close()
            return []


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=1.0)
    try:
        # One process alone uses it, and it can be made again: no waiting for the disk.
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = OFF"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("CREATE TABLE IF NOT EXISTS made_by (version TEXT)")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS headers "
            "(path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, header BLOB) WITHOUT ROWID"
        )
        if connection.execute("SELECT version FROM made_by").fetchall() != [(_MADE_BY,)]:
            with connection:
                connection.execute("DELETE FROM headers")
                connection.execute("DELETE FROM made_by")
                connection.execute("INSERT INTO made_by VALUES (?)", (_MADE_BY,))
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _packed(header: FileHeader) -> bytes:
    """The header without the patient's identity, with a checksum in front."""
    values = {
        name: {"unparsed": value.text} if isinstance(value, Unparsed) else value
        for name, value in header.values.items()
        if name not in _IDENTITY
    }
    own = (header.size, values, header.transfer_syntax, header.has_pixels, header.pixel_offset, header.pixel_length)
    content = marshal.dumps(own)
    return zlib.crc32(content).to_bytes(4, "big") + content


def _unpacked(path: str, packed: bytes) -> FileHeader | None:
    """None for what is damaged."""
    if zlib.crc32(packed[4:]).to_bytes(4, "big") != packed[:4]:
        return None
    size, stored, *rest = marshal.loads(packed[4:])  # our own file, checked
    values: dict[str, Any] = {
        name: Unparsed(value["unparsed"]) if isinstance(value, dict) else value for name, value in stored.items()
    }
    return FileHeader(path, size, values, *rest)
