"""One thread for linear algebra, whatever the machine offers.

The matrices here are small. Two threads of OpenBLAS that wait for each other gain nothing on a quiet machine, and on a
busy one a click took three times as long (QR of 2,092 × 12: 109 ms instead of 0.4 ms).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import ParamSpec, TypeVar

from threadpoolctl import ThreadpoolController

P = ParamSpec("P")
R = TypeVar("R")


def one_blas_thread(function: Callable[P, R]) -> Callable[P, R]:
    """A function that runs with one thread of BLAS and leaves the process as it was."""

    @wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        with _libraries().limit(limits=1, user_api="blas"):
            return function(*args, **kwargs)

    return limited


@cache
def _libraries() -> ThreadpoolController:
    """Found once: looking through the process's libraries takes milliseconds."""
    import scipy.linalg  # noqa: F401  # brings a BLAS of its own, which has to be there when libraries are looked for

    return ThreadpoolController()
