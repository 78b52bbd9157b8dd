"""File > Open Sample."""

from __future__ import annotations

from typing import Any

from spineimg.io.sample import sample_study

from napari_spineimg.reader import read


def preop() -> list[Any]:
    """The study before surgery."""
    return read(str(sample_study("preop") / "ct"))


def postop() -> list[Any]:
    """The study after surgery. Raises SeriesError where it is not installed."""
    return read(str(sample_study("postop") / "ct"))
