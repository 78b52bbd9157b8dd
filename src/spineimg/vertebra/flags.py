"""A vertebral HU held against a published cutoff.

Not the mean is compared but the interval in which the true value of an unenhanced scan at 120 kVp can lie. What is not
known widens the interval; what makes the mean another quantity ends in `not_assessed`, with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from spineimg.anatomy import Role, Status
from spineimg.cutoffs import Cutoff
from spineimg.notes import Note
from spineimg.settings import setting
from spineimg.volume import Acquisition

BLOCKING: frozenset[str] = frozenset(
    {
        "monoenergetic",
        "slices_too_thick",
        "resampled_thick_slices",
        "slices_differ",
        "sd_beyond_noise",
        "metal_near",
        "metal_excluded",
        "implausible_hu",
        "level_order",
        "mask_not_only_body",
        "mask_misplaced",
        "mask_reduced_to_body",
    }
)
"""Codes of notes with which a mean is given but not held against a cutoff."""


class Call(StrEnum):
    BELOW = "below"
    INDETERMINATE = "indeterminate"
    NOT_BELOW = "not_below"
    NOT_ASSESSED = "not_assessed"


@dataclass(frozen=True, slots=True)
class Flag:
    """The interval in which the true unenhanced 120 kVp value can lie, against a cutoff that names its paper."""

    call: Call
    below_cutoff: bool | None
    cutoff_hu: float
    interval_hu: tuple[float, float] | None
    source: str
    text: str


def _ratio(kvp: int, low: float, high: float, source: str) -> tuple[float, float]:
    """A field: factors that bring HU measured at this tube voltage to 120 kVp."""
    default: tuple[float, float] = setting(
        (low, high), "", (0.5, 1.5), source, f"Lowest and highest factor from HU at {kvp} kVp to HU at 120 kVp."
    )
    return default


@dataclass(frozen=True, slots=True)
class FlagSettings:
    """What can lie between a measured mean and the true value at 120 kVp without contrast agent."""

    error_hu: float = setting(
        16.0,
        "HU",
        (0.0, 50.0),
        "least significant change from scan to rescan, 10-16 HU (Osteoporos Int 2025); the upper end",
        "Measurement error on either side of the mean.",
    )
    contrast_hu: tuple[float, float] = setting(
        (-26.0, 0.0),
        "HU",
        (-60.0, 0.0),
        "contrast agent adds 11-26 HU: +11.2 (Pickhardt 2016), +25.7 in the portal phase (Grünewald)",
        "What may have to be added to a mean when contrast agent was given or may have been.",
    )
    ratio_80kvp: tuple[float, float] = _ratio(
        80, 0.72, 1.0, "pure hydroxyapatite reads 1.395 times as much at 80 as at 120 kVp (computed); fat lessens it"
    )
    ratio_100kvp: tuple[float, float] = _ratio(
        100, 0.87, 1.0, "pure hydroxyapatite reads 1.147 times as much at 100 as at 120 kVp (computed); patients 1.08"
    )
    ratio_140kvp: tuple[float, float] = _ratio(
        140, 1.0, 1.11, "pure hydroxyapatite reads 0.899 times as much at 140 as at 120 kVp (computed); patients 0.95"
    )

    def ratio(self, kvp: float | None) -> tuple[float, float] | None:
        """Factors to 120 kVp; None for an unknown tube voltage or one without published factors."""
        known = {80: self.ratio_80kvp, 100: self.ratio_100kvp, 120: (1.0, 1.0), 140: self.ratio_140kvp}
        return known.get(round(kvp)) if kvp is not None else None


def interval(mean_hu: float, acquisition: Acquisition, settings: FlagSettings) -> tuple[float, float] | None:
    """Lowest and highest value that an unenhanced scan at 120 kVp can have shown; None when the kVp forbids it."""
    ratio = settings.ratio(acquisition.kvp)
    if ratio is None:
        return None
    ends = (mean_hu * ratio[0], mean_hu * ratio[1])
    low, high = settings.contrast_hu if acquisition.contrast is not False else (0.0, 0.0)
    return min(ends) + low - settings.error_hu, max(ends) + high + settings.error_hu


@dataclass(frozen=True, slots=True)
class Subject:
    """The vertebra that is held against a cutoff."""

    level: str
    role: Role
    mean_hu: float | None
    status: Status | None = None
    confirmed: bool | None = None


def flag(
    subject: Subject,
    acquisition: Acquisition,
    notes: Sequence[Note],
    cutoff: Cutoff | None,
    settings: FlagSettings | None = None,
) -> Flag | None:
    """A vertebra against the cutoff of its role; None without a cutoff, or when the cutoff is for another role.

    notes: those on the vertebra and its acquisition; `BLOCKING` names which of them forbid the comparison.
    """
    if cutoff is None or cutoff.role is not subject.role:
        return None
    chosen = settings or FlagSettings()
    mean = subject.mean_hu
    span = interval(mean, acquisition, chosen) if mean is not None else None
    reasons = _reasons(subject, acquisition, notes, chosen)
    strict = mean < cutoff.value_hu if mean is not None and subject.status is None else None
    call = Call.NOT_ASSESSED if reasons or span is None else _call(span, cutoff.value_hu)
    return Flag(
        call=call,
        below_cutoff=strict,
        cutoff_hu=cutoff.value_hu,
        interval_hu=span,
        source=cutoff.source,
        text=_text(subject, call, span, cutoff, reasons or _widened(acquisition, chosen)),
    )


def _call(span: tuple[float, float], cutoff_hu: float) -> Call:
    if span[1] < cutoff_hu:
        return Call.BELOW
    return Call.NOT_BELOW if span[0] >= cutoff_hu else Call.INDETERMINATE


def _reasons(subject: Subject, acquisition: Acquisition, notes: Sequence[Note], settings: FlagSettings) -> list[str]:
    """Why a vertebra is not held against a cutoff, most telling first; empty when it is."""
    reasons = []
    if subject.mean_hu is None:
        reasons.append("there is no number")
    if subject.status is not None:
        reasons.append(f"the vertebra is marked as {subject.status}")
    if acquisition.kvp is None:
        reasons.append("the tube voltage is not known")
    elif settings.ratio(acquisition.kvp) is None:
        reasons.append(f"no factors to 120 kVp are known for {acquisition.kvp:g} kVp")
    if any(note.code in ("metal_near", "metal_excluded") for note in notes):
        reasons.append("the cutoff is for scans before surgery")
    first = {note.code: note.text for note in reversed(notes) if note.code in BLOCKING}
    return reasons + [first[code] for code in dict.fromkeys(note.code for note in notes) if code in first]


def _widened(acquisition: Acquisition, settings: FlagSettings) -> list[str]:
    """What the interval is made of."""
    parts = [f"± {settings.error_hu:g} HU measurement error"]
    if acquisition.contrast is not False:
        given = "contrast agent was given" if acquisition.contrast else "whether contrast agent was given is unknown"
        parts.append(f"down to {settings.contrast_hu[0]:g} HU because {given}")
    ratio = settings.ratio(acquisition.kvp)
    if ratio is not None and ratio != (1.0, 1.0):
        parts.append(f"a factor of {ratio[0]:g} to {ratio[1]:g} from {acquisition.kvp:g} to 120 kVp")
    return parts


_VERDICT = {
    Call.BELOW: "below",
    Call.NOT_BELOW: "not below",
    Call.INDETERMINATE: "indeterminate against",
    Call.NOT_ASSESSED: "not assessed against",
}


def _text(
    subject: Subject, call: Call, span: tuple[float, float] | None, cutoff: Cutoff, remarks: Sequence[str]
) -> str:
    """The flag in plain words."""
    value = f"{subject.role} {subject.level}: "
    value += "no mean HU" if subject.mean_hu is None else f"mean {subject.mean_hu:.1f} HU"
    if span is not None:
        value += f", unenhanced at 120 kVp {span[0]:.1f} to {span[1]:.1f} HU"
    verdict = f"{value}, {_VERDICT[call]} the cutoff of {cutoff.value_hu:g} HU ({cutoff.source})."
    introduction = "Not assessed because" if call is Call.NOT_ASSESSED else "The interval is made of"
    sentences = [verdict, f"{introduction}: {'; '.join(remarks)}."]
    if subject.confirmed is False:
        sentences.append(f"The name {subject.level} is not confirmed.")
    return " ".join([*sentences, *_record(cutoff), "A research screening indicator, not a diagnosis."])


def _record(cutoff: Cutoff) -> list[str]:
    """How the cutoff did in its paper: every printed version, and the predictive values they imply."""
    found = []
    for one in cutoff.performance:
        line = f"{cutoff.source} ({one.where}): sensitivity {one.sensitivity:.1%}, specificity {one.specificity:.1%}"
        if cutoff.events is not None and cutoff.prevalence is not None:
            line += (
                f", at its prevalence of {cutoff.prevalence:.1%} ({cutoff.events[0]} of {cutoff.events[1]}) "
                f"PPV {one.ppv(cutoff.prevalence):.1%}, NPV {one.npv(cutoff.prevalence):.1%}"
            )
        found.append(f"{line}.")
    if cutoff.caution:
        found.append(f"{cutoff.caution[0].upper()}{cutoff.caution[1:]}.")
    return found
