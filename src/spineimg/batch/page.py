"""`index.html` of a run: every case as a row with its picture, filters by status, level and flag, no server needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from spineimg.anatomy import LEVELS
from spineimg.batch.ledger import CaseStatus, LedgerRow
from spineimg.export.files import replacing
from spineimg.vertebra.flags import Call

_WORDS = {call.value: call.value.replace("_", " ") for call in Call}
_SHAPES = {Call.BELOW: "▼", Call.INDETERMINATE: "◆", Call.NOT_BELOW: "▲", Call.NOT_ASSESSED: "○"}
_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>spineimg batch</title><style>
body { font: 15px/1.4 system-ui, sans-serif; margin: 1.5em; color: #16202b; background: #fff; }
table { border-collapse: collapse; table-layout: fixed; width: 100%; overflow-wrap: anywhere; }
th:nth-child(1) { width: 14%; } th:nth-child(2) { width: 22%; } th:nth-child(3) { width: 36%; }
th, td { text-align: left; vertical-align: top; padding: .4em .8em;
border-bottom: 1px solid #cdd3d9; } th { position: sticky; top: 0; background: #eef1f4; }
td.hu { font-variant-numeric: tabular-nums; } img { max-width: 100%; max-height: 20em; display: block; }
.below { color: #b3261e; } .indeterminate { color: #8a5a00; } .not_below { color: #005a9c; } [class$=below],
.indeterminate { font-weight: 600; }
.refused, .failed { color: #b3261e; font-weight: 600; } label { margin-right: 1.2em; } .note { color: #5b6773; }
</style></head><body><h1>spineimg batch</h1>
"""
_SCRIPT = """<script>
const rows = [...document.querySelectorAll("tbody tr")], boxes = [...document.querySelectorAll("select")];
function show() {
  let n = 0;
  for (const row of rows) {
    row.hidden = !boxes.every(box => !box.value || row.dataset[box.name].split(" ").includes(box.value));
    n += !row.hidden;
  }
  document.getElementById("count").textContent = n + " of " + rows.length + " cases";
}
boxes.forEach(box => box.addEventListener("change", show)); show();
</script></body></html>
"""


@dataclass(frozen=True, eq=False, slots=True)
class Shown:
    """What the page shows of a case: rows of the table of vertebrae, and how many screws have which verdict."""

    vertebrae: Sequence[Mapping[str, Any]] = ()
    screws: Mapping[str, int] = field(default_factory=dict)


def write_index(path: Path, rows: Iterable[LedgerRow], found: Mapping[str, Shown], figures: Mapping[str, str]) -> None:
    """Writes the page, whole or not at all.

    rows: the ledger's, in the order to show; found: by case; figures: case -> path of its picture, relative to the
    page. Raises SpineImgError when the page cannot be written.
    """
    present = {one["level"] for case in found.values() for one in case.vertebrae}
    levels = [level for level in LEVELS if level in present]
    filters = (
        _choice("status", {one.value: one.value for one in CaseStatus}),
        _choice("level", {level: level for level in levels}),
        _choice("flag", _WORDS),
    )
    lines = [_HEAD, f'<p>{"".join(filters)}<span id="count"></span></p>\n']
    lines.append("<table><thead><tr><th>case</th><th>status</th><th>vertebrae, HU</th><th>picture</th></tr></thead>")
    lines.append("<tbody>\n")
    lines += [_row(row, found.get(row.case, Shown()), figures.get(row.case)) for row in rows]
    lines += ["</tbody></table>\n", _SCRIPT]
    with replacing(path) as handle:
        handle.write("".join(lines).encode("utf-8", "replace"))


def _choice(name: str, values: Mapping[str, str]) -> str:
    options = "".join(f'<option value="{value}">{words}</option>' for value, words in values.items())
    return f'<label>{name} <select name="{name}"><option value="">all</option>{options}</select></label>'


def _row(row: LedgerRow, shown: Shown, figure: str | None) -> str:
    vertebrae = shown.vertebrae
    levels = " ".join(one["level"] for one in vertebrae)
    flags = " ".join(one["flag.call"] for one in vertebrae if one["flag.call"])
    picture = f'<a href="{quote(figure)}"><img loading="lazy" src="{quote(figure)}" alt=""></a>' if figure else ""
    reason = f'<br><span class="note">{escape(row.reason)}</span>' if row.reason else ""
    return (
        f'<tr data-status="{row.status}" data-level="{levels}" data-flag="{flags}"><td>{escape(row.case)}</td>'
        f'<td><span class="{row.status}">{row.status}</span>{reason}</td>'
        f'<td class="hu">{"<br>".join((*map(_vertebra, vertebrae), *_screws(shown.screws)))}</td>'
        f"<td>{picture}</td></tr>\n"
    )


def _screws(verdicts: Mapping[str, int]) -> Sequence[str]:
    if not verdicts:
        return ()
    counts = ", ".join(f"{count} {verdict.replace('_', ' ')}" for verdict, count in sorted(verdicts.items()))
    return (f"<b>{sum(verdicts.values())} screws</b>, loosening: {counts}",)


def _vertebra(one: Mapping[str, Any]) -> str:
    mean = "not measured" if one["mean_hu"] is None else f"{one['mean_hu']:.1f}"
    role = f" {one['role']}" if one["role"] else ""
    role += " (name unconfirmed)" if one["confirmed"] is False else ""
    call = one["flag.call"]
    flag = f' <span class="{call}">{_SHAPES[call]} {_WORDS[call]}</span>' if call else ""
    notes = f' <span class="note">{escape(one["notes"].replace(";", ", "))}</span>' if one["notes"] else ""
    return f"<b>{one['level']}{role}: {mean}</b>{flag}{notes}"
