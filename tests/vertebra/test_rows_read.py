"""Part of a slice is read for less than the whole, with the same values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from pydicom.uid import ExplicitVRBigEndian, JPEGLSLossless

import spineimg
from spineimg.sampling import SliceReader
from spineimg.volume import ArraySource, CTVolume, keeping, window_reader
from tests.core.volumes import geometry
from tests.dicom_factory import Encoding, axial, pattern, write_series


class Counting(ArraySource):
    """Notes which parts are read."""

    def __init__(self, hu: npt.NDArray[np.int16]) -> None:
        super().__init__(hu)
        self.parts: list[tuple[int, int, int, int]] = []

    def read_window(self, k: int, rows: slice, columns: slice) -> npt.NDArray[np.int16]:
        self.parts.append((rows.start, rows.stop, columns.start, columns.stop))
        return np.asarray(self.read(k)[rows, columns])


@pytest.mark.parametrize(
    "encoding",
    [
        Encoding(),
        Encoding(signed=True, bits_stored=16, slope=0.5, intercept=3.0),
        Encoding(transfer_syntax=ExplicitVRBigEndian, junk_bits=True),
        Encoding(transfer_syntax=JPEGLSLossless),
    ],
    ids=["plain", "fractional slope", "big endian", "packed"],
)
def test_a_part_of_a_dicom_slice_is_that_of_the_whole(tmp_path: Path, encoding: Encoding) -> None:
    """Planted: the offset of the first row counted in pixels instead of bytes; columns taken from 0."""
    written = write_series(tmp_path, pattern(4), axial(4), encoding=encoding)
    volume = spineimg.load(tmp_path)
    read = window_reader(volume.source)
    assert read is not None
    assert (read(1, slice(2, 5), slice(1, 4)) is None) == (encoding.transfer_syntax == JPEGLSLossless)
    for rows, columns in ((slice(0, 5), slice(0, 17)), (slice(3, 11), slice(4, 9)), (slice(9, 12), slice(16, 17))):
        np.testing.assert_array_equal(volume.read_window(2, rows, columns), written.hu[2, rows, columns])
    assert volume.read_window(2, slice(4, 4), slice(0, 3)).shape == (0, 3)


def test_a_part_is_kept_and_more_is_read_with_it() -> None:
    """Planted: rows before the kept ones taken from their beginning."""
    hu = np.random.default_rng(2).integers(-500, 900, (2, 40, 30)).astype(np.int16)
    source = Counting(hu)
    volume = keeping(CTVolume(geometry((2, 40, 30)), source))
    for rows, columns in (
        (slice(10, 20), slice(4, 9)),
        (slice(12, 18), slice(5, 9)),
        (slice(5, 12), slice(4, 8)),
        (slice(18, 30), slice(2, 12)),
        (slice(6, 29), slice(3, 11)),
    ):
        assert np.array_equal(volume.read_window(1, rows, columns), hu[1, rows, columns])
    assert source.parts == [(10, 20, 4, 9), (5, 20, 4, 9), (5, 30, 2, 12)]
    assert np.array_equal(volume.read(1), hu[1])
    assert np.array_equal(volume.read_window(1, slice(0, 40), slice(0, 30)), hu[1])
    assert len(source.parts) == 3


def test_a_roi_reads_some_room_around_it_at_once() -> None:
    """Planted: the room added at the low ends alone; room around what is no ROI."""
    hu = np.random.default_rng(3).integers(-500, 900, (2, 200, 150)).astype(np.int16)
    source = Counting(hu)
    reader = SliceReader(CTVolume(geometry((2, 200, 150)), source))
    rows, columns = (one.ravel() for one in np.meshgrid(np.arange(50, 60), np.arange(10, 20), indexing="ij"))
    assert np.array_equal(reader.values(1, rows, columns), hu[1, rows, columns])
    for beside in ((slice(40, 90, 3), slice(0, 50, 2)), (slice(70, 70), slice(5, 9))):
        assert np.array_equal(reader.window(1, *beside), hu[1][beside])
    assert source.parts == [(18, 92, 0, 52)]
    assert np.array_equal(reader.window(0, slice(50, 60), slice(10, 20)), hu[0, 50:60, 10:20])
    assert source.parts[1:] == [(50, 60, 10, 20)]
