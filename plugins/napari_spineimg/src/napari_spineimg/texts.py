"""What the plugin says in words: cells of the table, the headline of a flag, the paragraph for a report."""

from __future__ import annotations

import re
from dataclasses import dataclass

from spineimg.anatomy import Role
from spineimg.export.json import all_notes
from spineimg.implants.model import ImplantScreen, Loosening
from spineimg.results import CaseResult, VertebraResult
from spineimg.vertebra.flags import Call

COLUMNS = ("Level", "Role", "HU", "Slices", "SD", "Kept", "Flag")
COLUMN_TIPS = (
    "The vertebra; a question mark stands where nobody has confirmed the name",
    "UIV: upper instrumented vertebra, LIV: lowest",
    "Mean of the slice means",
    "Mean HU of each ellipse, from head to foot",
    "Standard deviation within the ellipses, in HU",
    "Share of the ellipses that could be measured; metal is left out",
    "The LIV against the cutoff",
)
DASH = "–"


@dataclass(frozen=True, slots=True)
class Look:
    """How a call looks: never by colour alone."""

    shape: str
    word: str
    colour: str


CALLS = {
    Call.BELOW: Look("▼", "BELOW", "#b3261e"),
    Call.INDETERMINATE: Look("◆", "INDETERMINATE", "#8a5a00"),
    Call.NOT_BELOW: Look("▲", "NOT BELOW", "#005a9c"),
    Call.NOT_ASSESSED: Look("○", "NOT ASSESSED", "#6a3d9a"),
}


WORDS = {
    Loosening.PRESENT: "▼ present",
    Loosening.ABSENT: "● absent",
    Loosening.INDETERMINATE: "◆ indeterminate",
    Loosening.NOT_ASSESSED: "○ not assessed",
}
"""Verdicts on a screw, with the shape that stands beside each word."""


def number(value: float | None, digits: int = 1) -> str:
    return DASH if value is None else f"{value:.{digits}f}".replace("-", "−")


def cells(vertebra: VertebraResult) -> tuple[str, ...]:
    """One row of the table, as COLUMNS."""
    hu = vertebra.hu
    flag = ""
    if vertebra.flag is not None:
        look = CALLS[vertebra.flag.call]
        flag = f"{look.shape} {look.word.lower()}"
    unconfirmed = " ?" if vertebra.confirmed is False else ""
    return (
        vertebra.level + unconfirmed,
        str(vertebra.role or ""),
        number(hu.mean_hu),
        " / ".join(number(one.mean_hu, 0) for one in hu.slices) or DASH,
        number(hu.sd_hu, 0),
        DASH if hu.kept_fraction is None else f"{hu.kept_fraction:.0%}",
        flag,
    )


def table_text(result: CaseResult) -> str:
    """The table with tabs between its cells, for a spreadsheet."""
    lines = [COLUMNS, *(cells(vertebra) for vertebra in result.vertebrae)]
    return "\n".join("\t".join(line) for line in lines) + "\n"


def headline(vertebra: VertebraResult) -> str:
    """The call of a flag with its numbers; for a vertebra without a cutoff what it has."""
    mean = number(vertebra.hu.mean_hu)
    name = f"{vertebra.role} {vertebra.level}" if vertebra.role else vertebra.level
    if vertebra.flag is None:
        rest = " · no published cutoff for the UIV" if vertebra.role is Role.UIV else ""
        return f"{name}: {mean} HU{rest}"
    look = CALLS[vertebra.flag.call]
    return f"{look.shape} {look.word} · {name}: {mean} HU"


def against(vertebra: VertebraResult) -> str:
    """The interval, or why there is none to be compared; the cutoff and its paper."""
    flag = vertebra.flag
    if flag is None:
        return ""
    span = "no interval"
    because = re.search(r"Not assessed because: (.*?)\.(?: |$)", flag.text)
    if because is not None:
        span = f"because {because[1]}"
    elif flag.interval_hu is not None:
        low, high = (number(end) for end in flag.interval_hu)
        span = f"unenhanced at 120 kVp {low} to {high} HU"
    return f"{span} · cutoff {flag.cutoff_hu:g} HU ({flag.source})"


def notes_of(vertebra: VertebraResult) -> list[str]:
    """The flag in words, then every note once, with what it is about where that is not the whole vertebra."""
    lines = [vertebra.flag.text] if vertebra.flag is not None else []
    about: dict[str, list[str]] = {}
    for note in all_notes(vertebra):
        about.setdefault(note.text, []).append(note.about.removeprefix(vertebra.level).strip())
    for text, places in about.items():
        named = ", ".join(dict.fromkeys(place for place in places if place))
        lines.append(f"{named}: {text}" if named else text)
    return lines


def why_not(vertebra: VertebraResult) -> str:
    """Why a vertebra has no number."""
    return "; ".join(note.text for note in vertebra.hu.notes) or "no reason was given"


def report_text(result: CaseResult) -> str:
    """One paragraph for a radiology report."""
    acquisition = result.acquisition
    contrast = {None: "contrast not known", True: "with contrast agent", False: "without contrast agent"}
    kvp = "tube voltage not known" if acquisition.kvp is None else f"{acquisition.kvp:g} kVp"
    kernel = f"kernel {acquisition.kernel}" if acquisition.kernel else "kernel not known"
    series = result.series.description or "CT of the spine"
    head = f"Trabecular attenuation of vertebral bodies on {series} ({kvp}, {contrast[acquisition.contrast]}, {kernel})"
    known = [one for one in result.vertebrae if one.hu.mean_hu is not None]
    measured = [f"{_named(one)} {number(one.hu.mean_hu, 0)} HU" for one in known]
    sentences = [f"{head}: {', '.join(measured) or 'no vertebra could be measured'}."]
    sentences += [one.flag.text for one in result.vertebrae if one.flag is not None]
    for one in result.vertebrae:
        if one.hu.mean_hu is None:
            sentences.append(f"{_named(one)} was not measured: {why_not(one)}.")
    sentences += [f"{note.text[:1].upper()}{note.text[1:]}." for note in result.notes]
    return " ".join(sentences)


def screw_report(screen: ImplantScreen) -> str:
    """One paragraph on the screws for a radiology report."""
    if not screen.screws:
        return "No screw was found."
    groups = []
    for verdict in Loosening:
        ids = [one.id for one in screen.screws if one.loosening is verdict]
        if ids:
            groups.append(f"{verdict.value.replace('_', ' ')}: {', '.join(ids)}")
    sentences = [f"{len(screen.screws)} screws; loosening (lucent zone wider than 1 mm) {'; '.join(groups)}."]
    for one in screen.screws:
        if one.loosening is Loosening.PRESENT:
            halo = one.halo
            span = (
                ""
                if halo.interval_mm is None
                else " (90 % interval {} to {} mm)".format(*map(number, halo.interval_mm))
            )
            sentences.append(f"{one.id}: median width {number(halo.width_median_mm)} mm{span}.")
    sentences.append(screen.grade.text)
    sentences += [f"{note.text[:1].upper()}{note.text[1:]}." for note in screen.notes]
    return " ".join(sentences)


def _named(vertebra: VertebraResult) -> str:
    return f"{vertebra.level} ({vertebra.role})" if vertebra.role else vertebra.level
