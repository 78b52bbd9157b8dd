"""Slices of a CT that are read once, and a thread that reads ahead of the reader's eyes."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt
from spineimg.errors import PixelError
from spineimg.volume import HUArray, SliceSource

MOST_BYTES = 3 * 2**30
"""So much is kept in memory: 6000 slices of 512 x 512. Engineering choice."""
_HEAD_START_S = 0.5
"""The first picture is drawn meanwhile: what is read ahead would slow it down. Engineering choice."""


class CachedSource:
    """A slice source that keeps what it has read. HU are those of the source, untouched and read-only."""

    def __init__(self, source: SliceSource, count: int) -> None:
        self._source = source
        self._kept: list[HUArray | None] = [None] * count
        self._failed: dict[int, str] = {}
        self._bytes = 0
        self._lock = threading.Lock()
        self._focus = count // 2
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # -- the slice source ---------------------------------------------------------------------------------------------

    def read(self, k: int) -> HUArray:
        """(rows, columns) HU of slice k. Raises PixelError, each time again."""
        hu = self._kept[k]
        if hu is not None:
            return hu
        with self._lock:
            hu = self._kept[k]
            if hu is None:
                hu = self._read(k)
        return hu

    def padding_hu(self, k: int) -> tuple[float, float] | None:
        return self._source.padding_hu(k)

    def sop_instance_uid(self, k: int) -> str | None:
        return self._source.sop_instance_uid(k)

    def _read(self, k: int) -> HUArray:
        if k in self._failed:
            raise PixelError(self._failed[k])
        try:
            hu = self._source.read(k)
        except PixelError as error:
            self._failed[k] = str(error)
            raise
        hu.setflags(write=False)
        if self._bytes + hu.nbytes <= MOST_BYTES:
            self._bytes += hu.nbytes
            self._kept[k] = hu
        return hu

    # -- reading ahead ------------------------------------------------------------------------------------------------

    def kept(self, k: int) -> HUArray | None:
        """Slice k where it is in memory."""
        return self._kept[k]

    @property
    def loaded(self) -> npt.NDArray[np.bool_]:
        """(slices,) True where a slice is in memory."""
        return np.array([hu is not None for hu in self._kept])

    @property
    def done(self) -> bool:
        """Whether nothing is left to be read ahead."""
        return self._thread is None or not self._thread.is_alive()

    def look_at(self, k: float) -> None:
        """Read ahead around slice k from now on."""
        self._focus = int(np.clip(k, 0, len(self._kept) - 1))

    def start(self) -> None:
        """Read ahead in a thread that ends with the last slice, or at `close`."""
        if self._thread is None and not self._stop.is_set():
            self._thread = threading.Thread(target=self._ahead, name="spineimg-read-ahead", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stops the thread and lets go of the slices."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._kept = [None] * len(self._kept)
        self._bytes = 0

    def _ahead(self) -> None:
        self._stop.wait(_HEAD_START_S)
        while not self._stop.is_set():
            missing = np.flatnonzero(~self.loaded)
            missing = missing[[int(k) not in self._failed for k in missing]]
            if not len(missing) or self._bytes >= MOST_BYTES:
                return
            k = int(missing[np.argmin(np.abs(missing - self._focus))])
            try:
                full = self._bytes + self.read(k).nbytes > MOST_BYTES
            except PixelError:
                continue  # whoever asks for this slice is told
            if full:
                return
            self._stop.wait(0.0005)  # lets the window draw


class LoadedOnly:
    """The slices of a cache that are in memory by now; the others raise PixelError. For pictures that must not wait."""

    def __init__(self, cache: CachedSource) -> None:
        self._cache = cache

    def read(self, k: int) -> HUArray:
        hu = self._cache.kept(k)
        if hu is None:
            raise PixelError(f"slice {k} is not read yet")
        return hu

    def padding_hu(self, k: int) -> tuple[float, float] | None:
        return self._cache.padding_hu(k)

    def sop_instance_uid(self, k: int) -> str | None:
        return self._cache.sop_instance_uid(k)
