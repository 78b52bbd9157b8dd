"""The one test that every SliceSource passes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from spineimg.volume import SliceSource


def check_slice_source(
    source: SliceSource, shape: tuple[int, int, int], expected: npt.NDArray[np.generic] | None = None
) -> None:
    """Asserts what volume.SliceSource promises.

    shape: (slices, rows, columns) of the geometry that goes with the source. expected: the HU of that shape, NaN where
    there is no number; compared exactly when given.
    """
    count = shape[0]
    first_pass = {}
    for k in reversed(range(count)):
        plane = source.read(k)
        assert isinstance(plane, np.ndarray)
        assert plane.shape == tuple(shape[1:]), f"slice {k}: (rows, columns) must be {shape[1:]}"
        assert plane.dtype in (np.dtype(np.int16), np.dtype(np.float32)), f"slice {k}: {plane.dtype}"
        assert plane.dtype.isnative
        first_pass[k] = (plane, plane.copy())
    for k in range(count):
        held, as_read = first_pass[k]
        assert np.array_equal(held, as_read, equal_nan=True), f"slice {k} changed while others were read"
        assert np.array_equal(source.read(k), as_read, equal_nan=True), f"slice {k} reads differently a second time"
        if expected is not None:
            assert np.array_equal(as_read, expected[k], equal_nan=True), f"slice {k} has other values"
        padding = source.padding_hu(k)
        if padding is not None:
            low, high = padding
            assert low <= high, f"slice {k}: padding {padding} is no closed range"
        uid = source.sop_instance_uid(k)
        assert uid is None or (isinstance(uid, str) and uid), f"slice {k}: {uid!r}"
