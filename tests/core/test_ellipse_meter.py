"""Ellipses that are measured again and again while one of them is moved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spineimg.vertebra import hu
from spineimg.vertebra.hu import EllipseMeter, measure
from tests.core.volumes import UNFRIENDLY, linear, three


def test_a_meter_gives_what_measure_gives_and_measures_only_what_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: planes remembered by position, so that a moved ellipse kept its number; notes about another level."""
    where = next(iter(UNFRIENDLY.values()))
    volume, roi, meter = linear(where), three(where, (15, 9, 4)), EllipseMeter()
    measured: list[str] = []
    whole = hu._measure_plane

    def counted(reader, plane, level, settings):  # type: ignore[no-untyped-def]
        measured.append(f"{level} {plane.position}")
        return whole(reader, plane, level, settings)

    def same(level: str, ellipses: tuple[hu.Ellipse, ...]) -> bool:
        expected = measure(volume, replace(roi, level=level, ellipses=ellipses))
        monkeypatch.setattr(hu, "_measure_plane", counted)
        got = meter.measure(volume, level, ellipses)
        monkeypatch.setattr(hu, "_measure_plane", whole)
        return got == expected

    first, mid, last = roi.ellipses
    assert same("T12", (first, mid, last))
    assert measured == ["T12 superior", "T12 mid", "T12 inferior"]
    moved = replace(mid, center_lps_mm=mid.center_lps_mm + np.array([2.0, 1.0, 0.0]))
    assert same("T12", (first, moved, last))
    assert measured[3:] == ["T12 mid"]
    assert same("T12", (first, moved, last))
    assert len(measured) == 4
    assert same("L1", (first, moved, last))
    assert measured[4:] == ["L1 superior", "L1 mid", "L1 inferior"]
    assert same("T12", (first,))
