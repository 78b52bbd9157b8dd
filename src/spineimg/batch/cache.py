"""Headers that were read once, kept in FOLDER/index.sqlite: a file is known by its path, size and time of change.

Only the main process touches the database. A job takes the known headers of its files along, and the answer brings
those that were read. Headers of one series say nearly the same, so what they share is stored once and of each file
what differs. Nothing here is needed for a result: a cache that is damaged or cannot be written is left out.
It holds no patient's name, id or birth date.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import sqlite3
import sys
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spineimg import __version__
from spineimg.io.headers import FileHeader, Header, Unparsed, read_header

_IDENTITY = frozenset({"PatientName", "PatientID", "PatientBirthDate"})
_MADE_BY = f"{__version__} {sys.version_info[0]}.{sys.version_info[1]} {marshal.version}"
_FILES_A_TIME = 1000
"""So many headers that the main process has read itself are written in one go. Engineering choice."""

_FILES_A_QUESTION = 500
"""SQLite takes at least 999 values in a question."""

Entry = tuple[str, int, int, bytes, bytes]
"""(path, bytes, time of change in ns, packed header, packed values that it shares with its series) of one file."""


class _Packer:
    """Packs headers; the first one of a series becomes what the others are compared with."""

    def __init__(self) -> None:
        self._shared: dict[Any, tuple[Header, bytes]] = {}

    def packed(self, header: FileHeader) -> tuple[bytes, bytes]:
        """(what is the file's own, what it shares), both without the patient's identity and with a checksum."""
        values, series = header.values, header.values.get("SeriesInstanceUID")
        if series not in self._shared:
            self._shared[series] = values, _sealed(_storable(values))
        shared, content = self._shared[series]
        # Identity, since equal numbers may differ (0 and -0), and a value that repeats is decoded once.
        own = _storable({name: value for name, value in values.items() if shared.get(name) is not value})
        lacking = sorted(shared.keys() - values.keys() - _IDENTITY)
        place = (header.transfer_syntax, header.has_pixels, header.pixel_offset, header.pixel_length)
        return _sealed((header.size, own, lacking, *place)), content


def _storable(values: Header) -> dict[str, Any]:
    """Values as `marshal` takes them, without the patient's identity."""
    return {
        name: {"unparsed": value.text} if type(value) is Unparsed else value
        for name, value in values.items()
        if name not in _IDENTITY
    }


@dataclass(eq=False, slots=True)
class KnownHeaders:
    """Headers of some files, as a worker has them. `fresh` collects those that had to be read."""

    entries: Sequence[Entry] = ()
    fresh: list[Entry] = field(default_factory=list)
    packer: _Packer = field(default_factory=_Packer)
    _by_path: dict[str, Entry] = field(init=False)
    _shared: dict[bytes, dict[str, Any] | None] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._by_path = {entry[0]: entry for entry in self.entries}

    def read(self, path: str) -> FileHeader:
        """As `read_header`, from memory when the file is what it was."""
        known = self._by_path.get(path)
        if known is not None:
            status = os.stat(path)  # noqa: PTH116 - strings, for speed over thousands of files
            header = self._unpacked(known) if known[1:3] == (status.st_size, status.st_mtime_ns) else None
            if header is not None:
                return header
        header = read_header(path)
        self.fresh.append((path, header.size, header.changed_ns, *self.packer.packed(header)))
        return header

    def _unpacked(self, entry: Entry) -> FileHeader | None:
        """None for what is damaged."""
        path, _, changed_ns, packed, content = entry
        if content not in self._shared:
            self._shared[content] = _opened(content)
        shared, found = self._shared[content], _opened(packed)
        if shared is None or found is None:
            return None
        size, own, lacking, syntax, has_pixels, offset, length = found
        values = shared | own
        for name in lacking:
            del values[name]
        for name in [name for name, value in values.items() if type(value) is dict]:
            values[name] = Unparsed(values[name]["unparsed"])
        return FileHeader(path, size, values, syntax, has_pixels, offset, length, changed_ns)


class HeaderCache:
    """The database of a run; one that cannot be used knows nothing and learns nothing."""

    def __init__(self, path: Path) -> None:
        self._connection: sqlite3.Connection | None = None
        self._packer = _Packer()
        self._waiting: list[Entry] = []
        for _ in range(2):
            try:
                self._connection = _connected(path)
                return
            except sqlite3.Error:
                for ending in ("", "-wal", "-shm", "-journal"):
                    with suppress(OSError):
                        path.with_name(path.name + ending).unlink(missing_ok=True)

    def of(self, files: Sequence[str]) -> tuple[Entry, ...]:
        """What is known of several files, or of one and of those below it where it is a folder."""
        self._write_waiting()
        found: list[Entry] = []
        if len(files) == 1:
            below = files[0].rstrip("/") + "/"
            found = self._ask("path = ? OR (path > ? AND path < ?)", files[0], below, below[:-1] + chr(ord("/") + 1))
        for first in range(0, len(files) if len(files) > 1 else 0, _FILES_A_QUESTION):
            some = files[first : first + _FILES_A_QUESTION]
            found += self._ask(f"path IN ({', '.join('?' * len(some))})", *some)
        same: dict[bytes, bytes] = {}  # one object for each, so that a job carries it once
        return tuple((*entry[:4], same.setdefault(entry[4], entry[4])) for entry in found)

    def read(self, path: str) -> FileHeader:
        """As `read_header`, from the database when the file is what it was."""
        known = KnownHeaders(self._ask("path = ?", path), self._waiting, self._packer)
        header = known.read(path)
        if len(self._waiting) >= _FILES_A_TIME:
            self._write_waiting()
        return header

    def learn(self, entries: Sequence[Entry]) -> None:
        if self._connection is None or not entries:
            return
        contents = {content for *_, content in entries}
        ids = {content: hashlib.blake2b(content, digest_size=16).digest() for content in contents}
        rows = [(os.fsencode(path), *rest, ids[content]) for path, *rest, content in entries]
        try:
            with self._connection:
                shared = [(number, content) for content, number in ids.items()]
                self._connection.executemany("INSERT OR REPLACE INTO shared VALUES (?, ?)", shared)
                self._connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", rows)
        except sqlite3.Error:
            self._give_up()

    def close(self) -> None:
        self._write_waiting()
        self._give_up()

    def _write_waiting(self) -> None:
        self.learn(self._waiting)
        self._waiting.clear()

    def _give_up(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _ask(self, condition: str, *paths: str) -> list[Entry]:
        if self._connection is None:
            return []
        question = f"SELECT path, size, mtime_ns, own, content FROM files JOIN shared USING (id) WHERE {condition}"
        try:
            rows = self._connection.execute(question, [os.fsencode(path) for path in paths]).fetchall()
            return [(os.fsdecode(path), *rest) for path, *rest in rows]
        except sqlite3.Error:
            self._give_up()
            return []


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=1.0)
    try:
        # One process alone uses it, and it can be made again: no waiting for the disk.
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = OFF"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("CREATE TABLE IF NOT EXISTS made_by (version TEXT)")
        connection.execute("CREATE TABLE IF NOT EXISTS shared (id BLOB PRIMARY KEY, content BLOB)")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS files "
            "(path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, own BLOB, id BLOB) WITHOUT ROWID"
        )
        if connection.execute("SELECT version FROM made_by").fetchall() != [(_MADE_BY,)]:
            with connection:
                for name in ("files", "shared", "made_by"):
                    connection.execute(f"DELETE FROM {name}")
                connection.execute("INSERT INTO made_by VALUES (?)", (_MADE_BY,))
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _sealed(content: Any) -> bytes:
    """With a checksum in front."""
    packed = marshal.dumps(content)
    return zlib.crc32(packed).to_bytes(4, "big") + packed


def _opened(packed: bytes) -> Any:
    """None for what is damaged."""
    if zlib.crc32(packed[4:]).to_bytes(4, "big") != packed[:4]:
        return None
    return marshal.loads(packed[4:])  # our own file, checked
