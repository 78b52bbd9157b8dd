"""What leaves a vertebra, in the result file, the table and the terminal."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

from spineimg.export.implant_text import outside, screen_view
from spineimg.export.implants import SCREW_COLUMNS, screw_rows
from spineimg.export.json import result_to_dict
from spineimg.export.table import write_table
from spineimg.implants.model import Breach, Grade, Halo, ImplantScreen, Loosening, Screw, Shaft
from tests.export.records import CREATED, case

OUT = Breach(3.4, "superior endplate", {"anterior": 0.0, "superior endplate": 3.4}, "fitted body", 1.0)
WITHIN = Breach(0.0, None, {"anterior": 0.0, "superior endplate": 0.0}, "label of the body", 0.5)
SHAFT = Shaft((4.0, 20.0, 30.0), (4.0, -15.0, 30.0), 6.0, 7000.0, False)


def _screen() -> ImplantScreen:
    found = (("a", OUT), ("b", WITHIN), ("c", None))
    screws = tuple(
        Screw(
            name,
            SHAFT,
            Halo(False, reason="slices of 3 mm"),
            Loosening.NOT_ASSESSED,
            breach_mm=None if breach is None else breach.mm,
            breach=breach,
        )
        for name, breach in found
    )
    return ImplantScreen(screws, (), (), Grade(2, "graded"))


def test_breach_in_result_and_table(tmp_path: Path) -> None:
    """0 is within, null is not known. Planted: 0 for an outline that is not known."""
    document = result_to_dict(replace(case(), implants=_screen()), CREATED)
    out, within, unknown = document["screws"]
    assert (out["breach_mm"], out["breach"]["side"]) == (3.4, "superior endplate")
    assert out["breach"]["sides"] == {"anterior": 0.0, "superior endplate": 3.4}
    assert (within["breach_mm"], within["breach"]["side"]) == (0.0, None)
    assert (unknown["breach_mm"], unknown["breach"]) == (None, None)
    write_table(tmp_path / "a.csv", screw_rows(document, "one"), SCREW_COLUMNS)
    with (tmp_path / "a.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["breach_mm"] for row in rows] == ["3.4", "0.0", ""]
    assert [row["breach.side"] for row in rows] == ["superior endplate", "", ""]


def test_breach_in_words() -> None:
    assert outside(OUT) == "beyond its vertebra: superior endplate 3.4 mm (fitted body, known to 1.0 mm)"
    assert outside(WITHIN).startswith("within its vertebra")
    lines = [str(one) for one in screen_view(_screen()).renderables]  # type: ignore[union-attr]
    assert [line[0] for line in lines if "its vertebra" in line] == ["a", "b"]
