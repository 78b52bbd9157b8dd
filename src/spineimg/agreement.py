"""How far two readers agree on the vertebral HU of one case.

Differences are A minus B. Nothing here reads a file or draws: two results go in as the dicts of a result file, one
record comes out. No permissively licensed, maintained library offered the intraclass correlation with its interval,
so the formulas stand here with their papers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from spineimg.anatomy import order
from spineimg.errors import SpineImgError
from spineimg.notes import Note
from spineimg.settings import setting


@dataclass(frozen=True, slots=True)
class AgreementSettings:
    """What the comparison may be tuned by."""

    confidence: float = setting(0.95, "", (0.5, 0.999), "Bland & Altman 1999", "Confidence of every interval.")
    limits_z: float = setting(
        1.959964,
        "",
        (0.5, 4.0),
        "Bland & Altman 1999: 95 % of differences; the 1986 paper rounds to 2",
        "Standard deviations from the mean difference to a limit of agreement.",
    )
    min_pairs: int = setting(
        3,
        "vertebrae",
        (3, 1000),
        "engineering choice: below three no spread can be told",
        "Fewer pairs give no numbers.",
    )
    enough_pairs: int = setting(
        30,
        "vertebrae",
        (3, 1000),
        "Koo & Li 2016, J Chiropr Med 15:155: at least 30 samples",
        "Fewer pairs are reported with a note.",
    )
    apart_mm: float = setting(
        15.0,
        "mm",
        (1.0, 100.0),
        "engineering choice: half the way between two thoracic vertebrae, so more suggests another level",
        "Centres of one level farther apart than this are noted.",
    )


DEFAULTS = AgreementSettings()


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its confidence interval; None where it cannot be told."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class PairedAgreement:
    """Agreement of two paired series of numbers, in their own unit (HU for vertebrae).

    difference: mean of A - B. sd_difference: its SD (n - 1). lower_limit, upper_limit: Bland-Altman limits.
    repeatability: 95 % of absolute differences lie below it if there is no bias (1.96 x root mean square difference).
    icc: ICC(2,1). confidence: that of every interval. reason: why numbers are missing, else "".
    """

    n: int
    confidence: float
    difference: Estimate = Estimate()
    sd_difference: float | None = None
    lower_limit: Estimate = Estimate()
    upper_limit: Estimate = Estimate()
    repeatability: float | None = None
    icc: Estimate = Estimate()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class VertebraPair:
    """One level in two results. `measured_by` is "both", "A", "B" or "neither"."""

    level: str
    a_hu: float | None
    b_hu: float | None
    difference_hu: float | None
    measured_by: str
    call_a: str | None
    call_b: str | None
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class FlagAgreement:
    """Flags that both results hold on one level. `same` counts equal calls, `not_assessed` on both sides included.

    counts: ((call A, call B, number), ...), only pairs of calls that occur.
    """

    n: int
    same: int
    counts: tuple[tuple[str, str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two results of one case side by side, from head to foot."""

    vertebrae: tuple[VertebraPair, ...]
    hu: PairedAgreement
    flags: FlagAgreement
    notes: tuple[Note, ...] = ()


# -- numbers ----------------------------------------------------------------------------------------------------------


def compare(
    a: Sequence[float] | npt.NDArray[np.float64],
    b: Sequence[float] | npt.NDArray[np.float64],
    settings: AgreementSettings = DEFAULTS,
) -> PairedAgreement:
    """Agreement of paired numbers `a` and `b`, both (n,), finite, in one unit.

    Mean difference with its t interval, SD and limits after Bland & Altman (Lancet 1986;1:307 and Stat Methods Med Res
    1999;8:135); the limits' intervals are exact for normal differences (`limit_factors`). ICC(2,1) as `icc_2_1`.

    >>> two = compare([100.0, 120.0, 150.0], [104.0, 118.0, 151.0])
    >>> two.difference.value, round(two.sd_difference, 3)
    (-1.0, 3.0)

    Raises SpineImgError for different lengths or numbers that are not finite.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise SpineImgError(f"pairs need two lists of one length, found {first.shape} and {second.shape}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise SpineImgError("pairs must be finite numbers: leave out what was not measured")
    n = len(first)
    if n < settings.min_pairs:
        return PairedAgreement(
            n, settings.confidence, reason=f"{n} measured by both, at least {settings.min_pairs} are needed"
        )
    from scipy.special import stdtrit

    gap = first - second
    mean, sd = float(gap.mean()), float(gap.std(ddof=1))
    half = float(stdtrit(n - 1, (1 + settings.confidence) / 2)) * sd / math.sqrt(n)
    near, far = limit_factors(n, settings)
    z = settings.limits_z
    return PairedAgreement(
        n=n,
        confidence=settings.confidence,
        difference=Estimate(mean, mean - half, mean + half),
        sd_difference=sd,
        lower_limit=Estimate(mean - z * sd, mean - far * sd, mean - near * sd),
        upper_limit=Estimate(mean + z * sd, mean + near * sd, mean + far * sd),
        repeatability=z * float(np.sqrt(np.mean(gap**2))),
        icc=icc_2_1(np.stack([first, second], axis=1), settings.confidence),
    )


def limit_factors(n: int, settings: AgreementSettings = DEFAULTS) -> tuple[float, float]:
    """(near, far): a limit's confidence interval reaches from mean + near * SD to mean + far * SD.

    Exact for normally distributed differences, from the noncentral t distribution (Carkeet, Optom Vis Sci
    2015;92:e71, limits taken singly; Shieh, BMC Med Res Methodol 2018;18:45). Bland and Altman's own
    SE = SD * sqrt(1/n + z^2 / (2 (n - 1))) is the large-n form of it and too narrow on the outer side for few pairs.
    """
    from scipy.special import nctdtrit

    shift = settings.limits_z * math.sqrt(n)
    tail = (1 - settings.confidence) / 2
    near, far = (float(nctdtrit(n - 1, shift, p)) / math.sqrt(n) for p in (tail, 1 - tail))
    return near, far


def icc_2_1(ratings: npt.ArrayLike, confidence: float = DEFAULTS.confidence) -> Estimate:
    """Intraclass correlation of absolute agreement between single raters, all of whom rated every subject.

    ratings: (subjects, raters), finite. Two-way random effects: ICC(2,1) of Shrout & Fleiss (Psychol Bull 1979;86:420)
    = ICC(A,1) of McGraw & Wong (Psychol Methods 1996;1:30), with their interval (Satterthwaite degrees of freedom).
    No value when the subjects do not differ at all: then there is no spread to hold the readers' differences against.
    No interval where the formula has none.
    """
    table = np.asarray(ratings, dtype=np.float64)
    n, k = table.shape
    rows, columns, grand = table.mean(axis=1), table.mean(axis=0), float(table.mean())
    subjects = k * float(((rows - grand) ** 2).sum()) / (n - 1)
    raters = n * float(((columns - grand) ** 2).sum()) / (k - 1)
    error = float(((table - rows[:, None] - columns + grand) ** 2).sum()) / ((n - 1) * (k - 1))
    tiny = 1e-24 * float((table**2).sum())  # rounding of the sums above, not spread
    subjects, raters, error = (0.0 if x <= tiny else x for x in (subjects, raters, error))
    spread = subjects + (k - 1) * error + k * (raters - error) / n
    if spread <= 0.0 or subjects == 0.0:
        return Estimate()
    value = (subjects - error) / spread
    if raters == error == 0.0:
        return Estimate(1.0, 1.0, 1.0)
    low, high = _icc_interval((subjects, raters, error), (n, k), value, confidence)
    return Estimate(value, low, high) if low <= value <= high else Estimate(value)


def _icc_interval(
    squares: tuple[float, float, float], size: tuple[int, int], icc: float, confidence: float
) -> tuple[float, float]:
    """Interval of ICC(A,1), McGraw & Wong 1996, table 7; nan where it has none.

    squares: mean squares of subjects, raters and error; size: (subjects, raters).
    """
    from scipy.special import fdtri

    subjects, raters, error = squares
    n, k = size
    p = (1 + confidence) / 2
    # a and b of the paper, both times (1 - icc), which leaves their ratio and so the degrees of freedom unchanged
    part_a = k * icc / n * raters
    part_b = (1 - icc + k * icc * (n - 1) / n) * error
    parts = part_a**2 / (k - 1) + part_b**2 / ((n - 1) * (k - 1))
    if parts == 0.0:
        return math.nan, math.nan
    freedom = (part_a + part_b) ** 2 / parts
    f_low, f_high = float(fdtri(n - 1, freedom, p)), float(fdtri(freedom, n - 1, p))
    rest = k * raters + (k * n - k - n) * error
    low = n * (subjects - f_low * error) / (f_low * rest + n * subjects)
    high = n * (f_high * subjects - error) / (rest + n * f_high * subjects)
    return low, high


# -- results ----------------------------------------------------------------------------------------------------------


def agree(
    result_a: Mapping[str, Any], result_b: Mapping[str, Any], settings: AgreementSettings = DEFAULTS
) -> Agreement:
    """Two readers' results of one case ("spineimg.result/1"), matched by level.

    A level that only one of them measured stays in the table with the reason and is left out of the numbers.
    """
    by_level = [{v["level"]: v for v in result["vertebrae"]} for result in (result_a, result_b)]
    levels = sorted(by_level[0].keys() | by_level[1].keys(), key=order)
    pairs = tuple(_pair(level, by_level[0].get(level), by_level[1].get(level), settings) for level in levels)
    both = [(p.a_hu, p.b_hu) for p in pairs if p.a_hu is not None and p.b_hu is not None]
    hu = compare([a for a, _ in both], [b for _, b in both], settings)
    return Agreement(pairs, hu, _flags(pairs), _case_notes(result_a, result_b, hu, settings))


def _pair(
    level: str, a: Mapping[str, Any] | None, b: Mapping[str, Any] | None, settings: AgreementSettings
) -> VertebraPair:
    """One row of the table. At least one of `a` and `b` is there."""
    notes = []
    means: list[float | None] = []
    for name, vertebra in (("A", a), ("B", b)):
        mean = None if vertebra is None else vertebra["mean_hu"]
        means.append(None if mean is None else float(mean))
        if vertebra is None:
            notes.append(Note(f"only_in_{'b' if name == 'A' else 'a'}", f"not in {name}", level))
        elif mean is None:
            why = "; ".join(note["text"] for note in vertebra["notes"]) or "no reason given"
            notes.append(Note(f"not_measured_in_{name.lower()}", f"not measured in {name}: {why}", level))
    apart = _apart_mm(a, b)
    if apart is not None and apart > settings.apart_mm:
        text = f"the centres lie {apart:.0f} mm apart: check that both readers mean the same vertebra"
        notes.append(Note("centers_apart", text, level))
    a_hu, b_hu = means
    difference = a_hu - b_hu if a_hu is not None and b_hu is not None else None
    measured_by = {(True, True): "both", (True, False): "A", (False, True): "B", (False, False): "neither"}
    who = measured_by[a_hu is not None, b_hu is not None]
    return VertebraPair(level, a_hu, b_hu, difference, who, _call(a), _call(b), tuple(notes))


def _call(vertebra: Mapping[str, Any] | None) -> str | None:
    flag = vertebra["flag"] if vertebra is not None else None
    return str(flag["call"]) if flag is not None else None


def _apart_mm(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> float | None:
    """Distance between the mean centres of the two readers' slices, mm."""
    if a is None or b is None or not a["slices"] or not b["slices"]:
        return None
    first, second = (np.mean([one["center"] for one in v["slices"]], axis=0) for v in (a, b))
    return float(np.linalg.norm(first - second))


def _flags(pairs: Sequence[VertebraPair]) -> FlagAgreement:
    calls = [(p.call_a, p.call_b) for p in pairs if p.call_a is not None and p.call_b is not None]
    kinds = sorted(set(calls))
    counts = tuple((one, other, calls.count((one, other))) for one, other in kinds)
    return FlagAgreement(len(calls), sum(one == other for one, other in calls), counts)


def _case_notes(
    a: Mapping[str, Any], b: Mapping[str, Any], hu: PairedAgreement, settings: AgreementSettings
) -> tuple[Note, ...]:
    """What to keep in mind about the comparison as a whole."""
    notes = []
    uids = [result["series"]["series_instance_uid"] for result in (a, b)]
    if None in uids:
        notes.append(Note("series_unknown", "a result names no series, so both may not be of the same scan"))
    elif uids[0] != uids[1]:
        notes.append(
            Note("different_series", f"A is of series {uids[0]}, B of {uids[1]}: scans differ, not only readers")
        )
    if a["made_by"]["settings"] != b["made_by"]["settings"]:
        notes.append(Note("different_settings", "the two results were measured with different settings"))
    if not hu.reason and hu.n < settings.enough_pairs:
        text = f"{hu.n} pairs, fewer than {settings.enough_pairs}: limits and ICC are rough (Koo & Li 2016)"
        notes.append(Note("few_pairs", text))
    if not hu.reason:
        notes.append(Note("one_patient", "vertebrae of one patient are not independent: intervals are too narrow"))
    return tuple(notes)
