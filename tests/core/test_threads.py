"""Linear algebra in one thread, and the process left as it was."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from threadpoolctl import threadpool_info, threadpool_limits

from spineimg.threads import one_blas_thread


def threads() -> set[int]:
    assert scipy.linalg.norm(np.ones(3)) > 0  # loaded
    return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}


def test_one_thread_inside_and_as_many_as_before_outside() -> None:
    """Planted: the limit never given back; a host program's own algebra stayed slow."""
    with threadpool_limits(2, user_api="blas"):
        before = threads()
        if before == {1}:
            pytest.skip("this BLAS has one thread only")
        assert one_blas_thread(threads)() == {1}
        assert threads() == before


def test_also_when_it_fails() -> None:
    @one_blas_thread
    def fails() -> None:
        raise ValueError("no")

    with threadpool_limits(2, user_api="blas"):
        before = threads()
        with pytest.raises(ValueError, match="no"):
            fails()
        assert threads() == before
