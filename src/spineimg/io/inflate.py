"""Zlib and gzip streams as files."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import BinaryIO

from spineimg.errors import PixelError

INFLATE_CHUNK = 1 << 18
"""Packed bytes that are read at once."""


class Inflated:
    """The bytes of a zlib stream or of gzip members one after the other, as a file to read from."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self._engine = zlib.decompressobj(wbits=47)
        self._waiting = b""

    def read(self, count: int) -> bytes:
        """`count` bytes, fewer at the end of the stream. Raises PixelError for a broken stream."""
        out = bytearray()
        while len(out) < count:
            packed = self._waiting or self._file.read(INFLATE_CHUNK)
            if self._engine.eof:
                packed += self._file.read(INFLATE_CHUNK) if len(packed) < 2 else b""
                if not packed.startswith(b"\x1f\x8b"):
                    self._waiting = b""
                    break
                self._engine = zlib.decompressobj(wbits=47)
            if not packed:
                break
            try:
                out += self._engine.decompress(packed, count - len(out))
            except zlib.error as error:
                raise PixelError(f"{self._path}: its packed voxels are damaged ({error})") from None
            self._waiting = self._engine.unused_data or self._engine.unconsumed_tail
        return bytes(out)

    @property
    def ended(self) -> bool:
        """True after the end of a stream, whose checksum was then right."""
        return self._engine.eof
