"""Where instances arrive: out of sight of every measurement until the transfer is complete.

FOLDER/.partial-UID holds what has come so far, each file written under a temporary name and renamed when it is whole.
At the end the folder is renamed to FOLDER/UID. The next run of the same command takes up what it finds.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from spineimg.errors import SeriesError
from spineimg.io.headers import FileHeader, read_header
from spineimg.io.index import PARTIAL_PREFIX
from spineimg.io.records import CT_CLASSES, check_whole
from spineimg.pacs.model import ACCEPTED_CLASSES, PacsError, class_name


class Inbox:
    """The instances of one series on disk."""

    def __init__(self, folder: Path, series_uid: str) -> None:
        self.final = folder / series_uid
        self.partial = folder / f"{PARTIAL_PREFIX}{series_uid}"
        self.expected: frozenset[str] = frozenset()
        """SOP instances that the node may hand over."""
        self.n_new = 0
        self._series_uid = series_uid
        self._old = folder / f"{PARTIAL_PREFIX}{series_uid}.old"
        with _writing(self.partial):
            self.partial.mkdir(parents=True, exist_ok=True)
            self._have = set(self._adopt())

    def _adopt(self) -> Iterator[str]:
        """Instances of earlier runs, complete or not, that are whole. Everything else in the partial folder goes."""
        for former in (self.final, self._old):
            for path in sorted(former.glob("*.dcm")) if former.is_dir() else ():
                if not (self.partial / path.name).exists():
                    _link(path, self.partial / path.name)
        for path in sorted(self.partial.iterdir()):
            header = _whole(path) if path.suffix == ".dcm" else None
            if header is not None and self._is_ours(header) and path.stem == header.values.get("SOPInstanceUID"):
                yield path.stem
            else:
                path.unlink()

    def _is_ours(self, header: FileHeader) -> bool:
        return header.values.get("SeriesInstanceUID") == self._series_uid

    def missing(self, sop_uids: Collection[str]) -> list[str]:
        """Those of the instances that have not come yet, in their order."""
        return [uid for uid in sop_uids if uid not in self._have]

    def path(self, sop_uid: str) -> Path:
        return self.partial / f"{sop_uid}.dcm"

    def paths(self) -> list[Path]:
        """Everything that has come."""
        return [self.path(uid) for uid in sorted(self._have)]

    def receive(self, data: bytes) -> None:
        """Takes one instance. Raises PacsError for one that was not asked for, is cut short, or cannot be written."""
        arriving = self.partial / f"{os.getpid()}.arriving"
        with _writing(self.partial):
            arriving.write_bytes(data)
            try:
                header = read_header(str(arriving))
                if header.values.get("SOPClassUID") in CT_CLASSES:
                    check_whole(header)
            except SeriesError as error:
                raise PacsError(f"an instance came as no whole DICOM object ({error}): fetch it again") from None
            uid = self._checked(header)
            arriving.replace(self.path(uid))
        self.n_new += uid not in self._have
        self._have.add(uid)

    def _checked(self, header: FileHeader) -> str:
        """The UID of an instance that was asked for. Raises PacsError for any other."""
        sop_class = str(header.values.get("SOPClassUID", ""))
        uid = str(header.values.get("SOPInstanceUID", ""))
        if sop_class not in ACCEPTED_CLASSES:
            raise PacsError(
                f"the node sent {class_name(sop_class) or 'an unnamed class'}, no CT, SR, SEG or SC: refused"
            )
        if uid not in self.expected or not self._is_ours(header):
            raise PacsError(f"the node sent an instance that was not asked for ({uid[:64] or 'without UID'}): refused")
        return uid

    def finish(self) -> None:
        """Makes the series visible, in one rename where nothing of it was there before."""
        with _writing(self.final):
            if self.final.exists() and self.n_new == 0:
                self.discard()
                return
            if self.final.exists():
                shutil.rmtree(self._old, ignore_errors=True)
                self.final.rename(self._old)
            self.partial.rename(self.final)
            shutil.rmtree(self._old, ignore_errors=True)

    def discard(self) -> None:
        """Leaves no trace of a transfer that brought nothing."""
        shutil.rmtree(self.partial, ignore_errors=True)


def _whole(path: Path) -> FileHeader | None:
    """The header of a file that holds everything it promises, else None."""
    try:
        header = read_header(str(path))
        if header.values.get("SOPClassUID") in CT_CLASSES:
            check_whole(header)
    except SeriesError:
        return None
    return header


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # a file system without links
        shutil.copy2(source, target)


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PacsError(f"{place}: cannot be written ({error.strerror or error}), choose another folder") from None
