"""What a terminal shows: renderables for rich. The command line prints them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from spineimg.export.json import all_notes
from spineimg.notes import Note
from spineimg.results import CaseResult, VertebraResult
from spineimg.vertebra.flags import Call

_DASH = "–"
_CALLS = {
    Call.BELOW: ("▼ below", "bold red"),
    Call.INDETERMINATE: ("◆ indeterminate", "bold yellow"),
    Call.NOT_BELOW: ("▲ not below", "bold blue"),
    Call.NOT_ASSESSED: ("○ not assessed", "bold"),
}


def result_view(result: CaseResult) -> RenderableType:
    """The table of vertebrae, then the flags in words and every note in plain words."""
    return Group(vertebra_table(result), *_flag_lines(result), *_note_lines(result))


def vertebra_table(result: CaseResult) -> Table:
    """One row a vertebra: level, role, mean, slice means, SD, area, kept share of the ROI, flag."""
    table = Table(title=_heading(result), title_justify="left", caption_justify="left")
    table.add_column("Level", no_wrap=True)
    table.add_column("Role", no_wrap=True)
    table.add_column("Mean HU", justify="right", no_wrap=True)
    table.add_column("Slices HU", justify="right")
    table.add_column("SD", justify="right", no_wrap=True)
    table.add_column("Area mm²", justify="right")
    table.add_column("Kept", justify="right", no_wrap=True)
    table.add_column("Flag", no_wrap=True)
    for vertebra in result.vertebrae:
        table.add_row(*_cells(vertebra))
    return table


def agreement_view(agreement: Mapping[str, Any], names: tuple[str, str] = ("A", "B")) -> RenderableType:
    """Two readers side by side and the summary. agreement: the dict of an agreement file; names: the readers'."""
    table = Table(title=Text(f"A: {plain(names[0])}\nB: {plain(names[1])}"), title_justify="left")
    table.add_column("Level", no_wrap=True)
    for name in ("A HU", "B HU", "A − B"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Flag A", no_wrap=True)
    table.add_column("Flag B", no_wrap=True)
    notes = [note for pair in agreement["vertebrae"] for note in pair["notes"]] + list(agreement["notes"])
    for pair in agreement["vertebrae"]:
        numbers = [_number(pair[name]) for name in ("a_hu", "b_hu")] + [_number(pair["difference_hu"], sign=True)]
        calls = [_call(pair[name]) for name in ("call_a", "call_b")]
        table.add_row(Text(pair["level"]), *(Text(one) for one in numbers), *calls)
    remarks = _remarks([Note(note["code"], note["text"], note["about"]) for note in notes])
    return Group(table, *(Text(line) for line in summary_lines(agreement)), *remarks)


def summary_lines(agreement: Mapping[str, Any]) -> list[str]:
    """The agreement's numbers in words, one line each."""
    hu, flags = agreement["hu"], agreement["flags"]
    if hu["reason"]:
        lines = [f"No agreement can be computed: {hu['reason']}."]
    else:
        limits = (
            f"{_number(hu['lower_limit']['value'], sign=True)} to {_number(hu['upper_limit']['value'], sign=True)} HU"
        )
        lines = [
            f"Vertebrae measured by both: {hu['n']}",
            f"Mean difference A − B: {_number(hu['difference']['value'], sign=True)} HU "
            f"{_interval(hu, 'difference')}, SD {_number(hu['sd_difference'])} HU",
            f"Limits of agreement: {limits}; the lower {_interval(hu, 'lower_limit')}, "
            f"the upper {_interval(hu, 'upper_limit')}",
            f"Coefficient of repeatability: {_number(hu['repeatability'])} HU",
            f"ICC(2,1): {_number(hu['icc']['value'], 3)} {_interval(hu, 'icc', 3)}",
        ]
    if flags["n"]:
        lines.append(f"Flags: {flags['same']} of {flags['n']} the same")
    return lines


def plain(text: str) -> str:
    """`text` without control characters: a header's escape codes must not reach a terminal or a figure."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _heading(result: CaseResult) -> Text:
    acquisition = result.acquisition
    contrast = {None: "contrast unknown", True: "contrast given", False: "no contrast"}[acquisition.contrast]
    kvp = "kVp unknown" if acquisition.kvp is None else f"{acquisition.kvp:g} kVp"
    kernel = f"kernel {acquisition.kernel or 'unknown'}"
    return Text(plain(" · ".join([result.series.description or result.series.name, kvp, contrast, kernel])))


def _cells(vertebra: VertebraResult) -> list[Text]:
    hu = vertebra.hu
    areas = [one.area_mm2 for one in hu.slices]
    kept = _DASH if hu.kept_fraction is None else f"{hu.kept_fraction:.0%}"
    return [
        Text(vertebra.level),
        Text(vertebra.role or ""),
        Text(_number(hu.mean_hu), style="bold" if hu.mean_hu is not None else ""),
        Text(" / ".join(_number(one.mean_hu, 0) for one in hu.slices) or _DASH),
        Text(_number(hu.sd_hu)),
        Text(" / ".join(_number(area, 0) for area in areas) or _DASH),
        Text(kept),
        _call(vertebra.flag.call if vertebra.flag is not None else None),
    ]


def _call(call: str | None) -> Text:
    if call is None:
        return Text("")
    word, style = _CALLS[Call(call)]
    return Text(word, style=style)


def _flag_lines(result: CaseResult) -> list[RenderableType]:
    return [Text(plain(one.flag.text)) for one in result.vertebrae if one.flag is not None]


def _note_lines(result: CaseResult) -> list[RenderableType]:
    notes = [note for vertebra in result.vertebrae for note in all_notes(vertebra)] + list(result.notes)
    return _remarks(notes)


def _remarks(notes: Sequence[Note]) -> list[RenderableType]:
    """Notes as a list, each text once with all it is about."""
    about: dict[str, list[str]] = {}
    for note in notes:
        places = about.setdefault(plain(note.text), [])
        if note.about and note.about not in places:
            places.append(plain(note.about))
    lines = [f"• {', '.join(places)}: {text}" if places else f"• {text}" for text, places in about.items()]
    if not lines:
        return []
    return [Text("Notes", style="bold"), *(Padding(Text(line), (0, 0, 0, 1), expand=False) for line in lines)]


def _number(value: float | None, digits: int = 1, *, sign: bool = False) -> str:
    if value is None:
        return _DASH
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    return text.replace("-", "−")


def _interval(hu: Mapping[str, Any], name: str, digits: int = 1) -> str:
    low, high = hu[name]["low"], hu[name]["high"]
    if low is None or high is None:
        return "(no interval)"
    return f"({100 * hu['confidence']:g} % CI {_number(low, digits)} to {_number(high, digits)})"
