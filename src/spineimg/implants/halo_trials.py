"""Simple forms of a zone, each fitted to a screw's voxels: which kind is likelier, and where a finer fit begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spineimg.geometry import FloatArray
from spineimg.implants.lucency import Solution

_MOST_EVIDENCE = 1e3
_CLEAR = 6.0
"""Beyond so much evidence the fit begins from one kind of forms only."""
_PART = 0.1
"""What is wide over less of the surface is no zone of its own: a streak is as large. Engineering choice."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A simple form of the zone, (n,) width at the voxels, with what all pieces share fitted to it.

    covered: part of what can be judged that is wider than the limit; wide: whether that is nearly half. log_prior: of
    the form, among all.
    """

    width_mm: FloatArray
    solution: Solution
    even: bool
    covered: float
    wide: bool
    log_prior: float


def odds(trials: Sequence[Trial], together: float) -> float:
    """Logarithm of the odds of wide forms against narrow ones."""

    def total(wide: bool) -> float:
        logs = [t.log_prior - t.solution.cost / (2 * together) for t in trials if t.wide is wide]
        return float(np.logaddexp.reduce(logs)) if logs else -np.inf

    return float(np.clip(total(True) - total(False), -_MOST_EVIDENCE, _MOST_EVIDENCE))


def part_odds(trials: Sequence[Trial], together: float) -> float:
    """Logarithm of the odds of the likeliest form of which a tenth or more is wide against the likeliest other one."""

    def best(part: bool) -> float:
        return min((cost_of(t) for t in trials if (t.covered >= _PART) is part), default=np.inf)

    narrow, wide = best(False), best(True)
    if not np.isfinite(wide):
        return -_MOST_EVIDENCE
    return float(np.clip((narrow - wide) / (2 * together), -_MOST_EVIDENCE, _MOST_EVIDENCE))


def is_open(evidence: float) -> bool:
    """Whether narrow and wide forms are both likely enough to begin a fit from."""
    return abs(evidence) <= _CLEAR


def starts(trials: Sequence[Trial], evidence: float) -> list[tuple[Trial, Trial]]:
    """What to begin from, each with the best of its kind: narrow and wide forms, unless one kind is far likelier."""
    found = []
    for wide in (False, True):
        kind = [trial for trial in trials if trial.wide is wide]
        if not kind or (evidence < -_CLEAR if wide else evidence > _CLEAR):
            continue
        best = min(kind, key=cost_of)
        found.append((best, best))
        # A zone all around, some of it in streaks, can look like one on a half: the fit must begin from both.
        even = min((trial for trial in kind if trial.even), key=cost_of, default=best)
        if even is not best:
            found.append((even, best))
    return found


def cost_of(trial: Trial) -> float:
    return trial.solution.cost
