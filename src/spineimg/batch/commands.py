"""What the command line does with a run: prints and writes, and says how the process ends."""

from __future__ import annotations

import sys
from pathlib import Path

from spineimg.batch.progress import tell
from spineimg.batch.runner import BatchSettings, run_batch
from spineimg.batch.survey import survey, table_text, write_cases
from spineimg.export.json import write_json


def batch(
    root: Path, cases: Path, out: Path, settings: BatchSettings, *, strict: bool, quiet: bool, json: str | None
) -> int:
    """Runs a table of cases and returns the exit status. json: file for the summary, `-` for standard output."""
    talks = not quiet and json != "-"
    summary = run_batch(root, cases, out, settings, quiet=not talks)
    if json is not None:
        write_json(json, summary.to_dict())
    if talks:
        missing = f", {summary.n_not_reached} not reached" if summary.n_not_reached else ""
        counts = f"{summary.n_done} done, {summary.n_refused} refused, {summary.n_failed} failed{missing}"
        tell(f"{summary.n_cases} cases: {counts}; {summary.n_vertebrae} vertebrae")
        tell(f"numbers: {out / 'measurements.csv'}   reasons: {out / 'ledger.csv'}   {out / 'index.html'}")
    return summary.exit_code(strict=strict)


def cases(root: Path, *, csv: Path | None, quiet: bool, json: str | None) -> None:
    """Lists what is below ROOT as a table of cases: on standard output, or into a file."""
    from spineimg.io.index import left_out

    rows, skipped = survey(root)
    if csv is not None:
        write_cases(csv, rows)
    if json is not None:
        unusable = [{"path": one.path, "reason": one.reason} for one in skipped]
        write_json(json, {"schema": "spineimg.cases/1", "cases": rows, "skipped": unusable})
    if csv is None and json != "-" and not quiet:
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(table_text(rows).encode(encoding, "replace").decode(encoding))
    if skipped and not quiet:  # at the end: the table does not hang on who hears this
        sys.stderr.write(f"spineimg: below {root} {left_out(skipped)}: in no row\n")
