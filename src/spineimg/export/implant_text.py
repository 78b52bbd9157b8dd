"""What a terminal shows of an implant screen."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from spineimg.export.text import plain
from spineimg.implants.model import Breach, ImplantScreen, Loosening, Screw
from spineimg.notes import Note

_VERDICTS = {
    Loosening.PRESENT: ("▼ halo present", "bold red"),
    Loosening.INDETERMINATE: ("◆ indeterminate", "bold yellow"),
    Loosening.ABSENT: ("▲ no halo found", "bold blue"),
    Loosening.NOT_ASSESSED: ("○ not assessed", "bold"),
}
_DASH = "–"


def screen_view(screen: ImplantScreen, notes: tuple[Note, ...] = ()) -> RenderableType:
    """The table of screws, rods and other metal in a line each, the grade in words, every note once."""
    lines = [Text(plain(line)) for line in _lines(screen)]
    own = [note for screw in screen.screws for note in (*screw.shaft.notes, *screw.notes)]
    own += [note for rod in screen.rods for note in rod.notes]
    remarks = dict.fromkeys(
        f"{note.about}: {note.text}" if note.about else note.text for note in (*notes, *screen.notes, *own)
    )
    table = screw_table(screen) if screen.screws else Text("Implant screen: no screw was found")
    return Group(table, *lines, *(Text(f"• {plain(remark)}") for remark in remarks))


def screw_table(screen: ImplantScreen) -> Table:
    """One row a screw."""
    table = Table(title="Implant screen", title_justify="left")
    table.add_column("Screw", no_wrap=True)
    for name in ("Ø mm", "Length mm", "Halo mm", "90 % interval", "Over 1 mm", "Extent mm", "Bone HU"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Verdict", no_wrap=True)
    table.add_column("Why")
    for screw in screen.screws:
        table.add_row(*_cells(screw))
    return table


def _cells(screw: Screw) -> tuple[Text, ...]:
    halo = screw.halo
    interval = _DASH if halo.interval_mm is None else f"{halo.interval_mm[0]:.1f}–{halo.interval_mm[1]:.1f}"
    coverage = _DASH if halo.coverage_over_1mm is None else f"{halo.coverage_over_1mm:.0%}"
    texts = (
        plain(screw.id),
        f"{screw.shaft.diameter_mm:.1f}",
        f"{screw.shaft.length_mm:.1f}",
        _number(halo.width_median_mm),
        interval,
        coverage,
        _number(halo.axial_extent_mm),
        _DASH if screw.trajectory_hu is None else f"{screw.trajectory_hu:.0f}",
    )
    word, style = _VERDICTS[screw.loosening]
    return (*(Text(one) for one in texts), Text(word, style=style), Text(plain(halo.reason)))


def outside(breach: Breach) -> str:
    """What of a screw lies outside its vertebra, in a line."""
    if not breach.mm:
        return f"within its vertebra ({breach.basis}, known to {breach.resolution_mm:.1f} mm)"
    sides = ", ".join(f"{side} {mm:.1f} mm" for side, mm in breach.sides.items() if mm > 0)
    return f"beyond its vertebra: {sides} ({breach.basis}, known to {breach.resolution_mm:.1f} mm)"


def _number(value: float | None) -> str:
    return _DASH if value is None else f"{value:.1f}"


def _lines(screen: ImplantScreen) -> list[str]:
    lines = []
    for rod in screen.rods:
        broken = "; ".join(f"gap of {gap.width_mm:.1f} mm, kink {gap.kink_deg:.0f}°" for gap in rod.gaps)
        lines.append(
            f"rod {rod.id}: Ø {rod.diameter_mm:.1f} mm" + (f", suspicious of a break: {broken}" if broken else "")
        )
    lines += [f"{screw.id}: {outside(screw.breach)}" for screw in screen.screws if screw.breach is not None]
    lines += [
        f"other metal at ({', '.join(f'{x:.0f}' for x in one.center_lps_mm)}): {one.kind}, {one.why}"
        for one in screen.other_metal
    ]
    grade = screen.grade
    lines.append(f"Grade: {grade.text}")
    lines += [f"Rests on: {reason}" for reason in grade.reasons]
    lines += [f"Not judged: {what}" for what in grade.not_judged]
    return lines
