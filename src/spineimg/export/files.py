"""Writing a file whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from spineimg.errors import SpineImgError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary handle whose content becomes `path` when the block ends well, and leaves no trace when it does not.

    An existing file is replaced in one step (a link keeps pointing at its file). Pipes and devices are written
    through. Raises SpineImgError when the folder does not exist or cannot be written.
    """
    target = Path(path)
    try:
        if target.exists() and not target.is_file() and not target.is_dir():
            with target.open("wb") as handle:
                yield handle
            return
        if target.is_dir():
            raise SpineImgError(f"cannot write {target}: it is a folder, name a file in it")
        if not target.parent.is_dir():
            raise SpineImgError(f"cannot write {target}: the folder {target.parent} does not exist, create it first")
        yield from _through_temporary(Path(os.path.realpath(target)))
    except OSError as error:
        raise SpineImgError(
            f"cannot write {target}: {error.strerror or error}, choose another place for the file"
        ) from error


def _through_temporary(target: Path) -> Iterator[BinaryIO]:
    beside = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        with beside.open("xb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        beside.replace(target)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
