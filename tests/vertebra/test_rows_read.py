"""Part of a slice is read for less than the whole, with the same values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import spineimg
from spineimg.io.sample import sample_study
from spineimg.volume import ArraySource, CTVolume, keeping
from tests.core.volumes import geometry


class Counting(ArraySource):
    """Notes which rows are read."""

    def __init__(self, hu: npt.NDArray[np.int16]) -> None:
        super().__init__(hu)
        self.rows: list[tuple[int, int, int]] = []

    def read_rows(self, k: int, first: int, last: int) -> npt.NDArray[np.int16]:
        self.rows.append((k, first, last))
        return np.asarray(self.read(k)[first:last])


def test_rows_of_a_dicom_slice_are_those_of_the_whole() -> None:
    """Planted: the offset of the first row counted in pixels instead of bytes."""
    volume = spineimg.load(sample_study("preop") / "ct")
    for k in (0, volume.geometry.shape[0] // 2):
        whole = volume.read(k)
        for first, last in ((0, 5), (17, 60), (len(whole) - 3, len(whole)), (4, 4)):
            assert np.array_equal(volume.read_rows(k, first, last), whole[first:last])


def test_rows_are_kept_and_more_of_them_are_read_with_these() -> None:
    """Planted: rows before the kept ones taken from their beginning."""
    hu = np.random.default_rng(2).integers(-500, 900, (2, 40, 9)).astype(np.int16)
    source = Counting(hu)
    volume = keeping(CTVolume(geometry((2, 40, 9)), source))
    for first, last in ((10, 20), (12, 18), (5, 12), (18, 30), (6, 29)):
        assert np.array_equal(volume.read_rows(1, first, last), hu[1, first:last])
    assert source.rows == [(1, 10, 20), (1, 5, 20), (1, 5, 30)]
    assert np.array_equal(volume.read(1), hu[1])
