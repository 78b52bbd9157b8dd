"""Slices that were read once stay in memory."""

from __future__ import annotations

from dataclasses import replace

from spineimg.volume import CTVolume, HUArray, SliceSource


def keeping(volume: CTVolume) -> CTVolume:
    """The volume with every slice decoded once: a body's search, its endplates and its ROIs need the same ones.

    It holds all slices that were read for as long as it lives.
    """
    return volume if isinstance(volume.source, _Kept) else replace(volume, source=_Kept(volume.source))


class _Kept:
    """A source of slices and those that were read."""

    def __init__(self, source: SliceSource) -> None:
        self._source = source
        self._slices: dict[int, HUArray] = {}

    def read(self, k: int) -> HUArray:
        if k not in self._slices:
            self._slices[k] = self._source.read(k)
        return self._slices[k]

    def padding_hu(self, k: int) -> tuple[float, float] | None:
        return self._source.padding_hu(k)

    def sop_instance_uid(self, k: int) -> str | None:
        return self._source.sop_instance_uid(k)
