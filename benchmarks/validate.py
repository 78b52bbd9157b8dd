"""Writes docs/validation.md: what was measured, against which goal, beside which peers.

    python -m benchmarks.validate [--only 7,8]

Every table and picture comes from code in this folder. With --only the other chapters stay as they were measured.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
MUTANTS = 10_000

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Chapter:
    """write: (folder of pictures, progress) -> Markdown below the heading."""

    title: str
    write: Callable[[Path, Progress], str]


def _loaders(figures: Path, progress: Progress) -> str:
    from benchmarks.loader_table import LOADERS, WRONG_FROM_MM, loader_table, markdown

    rows = loader_table()
    progress("loaders: done")
    own = [worst for row in rows if isinstance(worst := row["spineimg worst_mm"], float)]
    wrong = {
        name: sum(isinstance(worst := row[f"{name} worst_mm"], float) and worst >= WRONG_FROM_MM for row in rows)
        for name in LOADERS
    }
    counts = ", ".join(f"{name} {count}" for name, count in wrong.items())
    return f"""\
One kind of study a row. Every voxel has a value of its own, so that the array itself tells where a loader puts it. The
number is the worst error of any voxel that is returned; peers in the same run.

Goal: no position of ours wrong by {WRONG_FROM_MM:g} mm or more; what cannot be placed is refused. Reached: worst
position {max(own, default=0.0):.4f} mm in {len(own)} loaded studies of {len(rows)}. Studies
with wrong positions: {counts}.

{markdown(rows)}"""


def _hu(figures: Path, progress: Progress) -> str:
    from benchmarks.hu_accuracy import chapter

    return chapter(figures, progress)


def _metal(figures: Path, progress: Progress) -> str:
    from benchmarks.metal_accuracy import chapter

    return chapter(figures, progress)


def _flags(figures: Path, progress: Progress) -> str:
    from benchmarks.flag_table import chapter

    return chapter(figures, progress)


def _real(figures: Path, progress: Progress) -> str:
    from benchmarks.real_data import chapter

    return chapter(figures, progress)


def _fuzz(figures: Path, progress: Progress) -> str:
    from benchmarks.fuzz import BAD, MOST_BYTES, MOST_SECONDS, Outcome, run, table

    done = 0

    def count(_: Outcome) -> None:
        nonlocal done
        done += 1
        if done % 1000 == 0:
            progress(f"fuzz: {done} of {MUTANTS} mutants")

    outcomes = run(range(MUTANTS), progress=count)
    bad = [one for one in outcomes if not one.good]
    listed = "".join(f"\n- mutant {one.number} ({one.kind}): {one.outcome}" for one in bad[:20])
    return f"""\
Headers, pixels, volume files and ROI files are cut, flipped, rewritten and given absurd values. Each mutant is listed,
loaded, measured and written as JSON in a process of its own; numbers are held against the mutant's files as pydicom and
SimpleITK read them.

Goal: no {", no ".join(BAD)}; at most {MOST_SECONDS:g} s and {MOST_BYTES / 2**30:g} GB for one. Reached: {len(bad)} of
{len(outcomes)} mutants fail.
{listed}

{table(outcomes)}"""


def _levels(figures: Path, progress: Progress) -> str:
    from benchmarks.body import chapter

    return chapter(figures, progress)


def _implants(figures: Path, progress: Progress) -> str:
    from benchmarks.implants import chapter

    return chapter(figures, progress)


CHAPTERS = (
    Chapter("Where voxels are: loaders", _loaders),
    Chapter("Vertebral HU on phantoms", _hu),
    Chapter("Beside metal", _metal),
    Chapter("The flag", _flags),
    Chapter("Real scans, read twice", _real),
    Chapter("Broken input", _fuzz),
    Chapter("From a click to a body, and the names of the spine", _levels),
    Chapter("Screws and halos", _implants),
)

INTRODUCTION = """\
# Validation

Written by `make validate`; each table and picture comes from code in `benchmarks/`, peers measured in the same run as
the chapter they stand in. In bold: what misses a goal.

What this shows and what not: the truth is that of simulated scans, laid out in mm with known HU. They have blur,
partial volume and correlated noise; only the chapter on screws and halos has scatter, beam hardening and streaks. There
is no motion and no scanner's error of calibration. They show that the program measures what the images hold; they do
not show that a scanner's HU are right, that a reader's ROI is well placed, or that a cutoff predicts failure. This is
not a clinical validation.
"""


def document(figures: Path, progress: Progress, only: frozenset[int], before: str) -> str:
    """The whole page. only: chapters to measure, all when empty; before: the page that has the others."""
    kept = _chapters_of(before)
    parts = [INTRODUCTION]
    for number, chapter in enumerate(CHAPTERS, 1):
        if only and number not in only:
            if number in kept:
                parts.append(kept[number])
            continue
        progress(f"{number} of {len(CHAPTERS)}: {chapter.title}")
        parts.append(f"## {number}. {chapter.title}\n\n{chapter.write(figures, progress)}\n")
    return "\n".join(parts)


def _chapters_of(page: str) -> dict[int, str]:
    """Number -> a chapter with its heading."""
    pieces = re.split(r"^(?=## \d+\. )", page, flags=re.MULTILINE)[1:]
    return {int(re.match(r"## (\d+)", piece)[1]): piece.rstrip("\n") + "\n" for piece in pieces}  # type: ignore[index]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.validate", description="Accuracy, with peers.")
    parser.add_argument("--only", default="", metavar="N,N", help="measure these chapters, keep the others")
    only = frozenset(int(word) for word in parser.parse_args().only.split(",") if word)
    start = time.perf_counter()

    def progress(text: str) -> None:
        print(f"[{time.perf_counter() - start:5.0f} s] {text}", file=sys.stderr, flush=True)

    figures = DOCS / "validation"
    figures.mkdir(parents=True, exist_ok=True)
    page = DOCS / "validation.md"
    text = document(figures, progress, only, page.read_text(encoding="utf-8") if page.exists() else "")
    page.write_text(text, encoding="utf-8")
    progress(f"wrote {page}")


if __name__ == "__main__":
    main()
