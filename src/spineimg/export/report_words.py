"""The report in words: what each call means, what a cutoff is worth, where it all comes from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from spineimg.cutoffs import Cutoff
from spineimg.export.report_model import FlagView, Page, ScanView, ScrewView, VertebraView, blocking
from spineimg.export.report_svg import hu
from spineimg.implants.model import Loosening
from spineimg.notes import Note
from spineimg.vertebra.flags import Call

CALL_WORDS = {
    Call.BELOW: "Below",
    Call.INDETERMINATE: "Indeterminate",
    Call.NOT_BELOW: "Not below",
    Call.NOT_ASSESSED: "Not assessed",
}
LOOSENING_WORDS = {
    Loosening.PRESENT: "Halo present",
    Loosening.ABSENT: "No halo found",
    Loosening.INDETERMINATE: "Indeterminate",
    Loosening.NOT_ASSESSED: "Not assessed",
}
_BECAUSE = re.compile(r"Not assessed because: (.*?)\.(?: [A-Z]|$)")
_SCHREIBER = "Schreiber et al. 2011, J Bone Joint Surg Am 93:1057 (vertebral HU as the mean of three axial slices)"
_LOOSENING = (
    "Sandén et al. 2004, J Bone Joint Surg Br 86:457 (lucent zones around pedicle screws)",
    "Nam et al. 2025, J Clin Med 14:4629 (loosening as a halo over 1 mm; fixation length, screw density)",
    "Silva et al. 2021, World Neurosurg (implant failure scale)",
)


def meaning(vertebra: VertebraView, flag: FlagView) -> str:
    """One sentence on what the call says, for someone who reads nothing else."""
    cutoff = f"{flag.cutoff_hu:g} HU"
    if flag.call is Call.BELOW:
        return f"The whole interval in which the true value can lie is under {cutoff}."
    if flag.call is Call.NOT_BELOW:
        sure = f"The whole interval in which the true value can lie is at or above {cutoff}."
        return f"{sure} That does not rule out a failure."
    if flag.call is Call.INDETERMINATE:
        return f"This scan cannot tell: the interval reaches to both sides of {cutoff}."
    if vertebra.mean_hu is None:
        return f"Not assessed, because there is no number: {no_number(vertebra)}."
    return f"Not assessed, because {why_not_assessed(vertebra, flag)}."


def why_not_assessed(vertebra: VertebraView, flag: FlagView) -> str:
    """The reasons that the flag's text gives, else the notes that forbid the comparison."""
    found = _BECAUSE.search(flag.text)
    if found:
        return found[1]
    texts = [note.text.rstrip(".") for note in vertebra.notes if blocking(note)]
    return "; ".join(texts) or "no reason was recorded"


def no_number(vertebra: VertebraView) -> str:
    """Why a vertebra has no mean."""
    return "; ".join(dict.fromkeys(note.text.rstrip(".") for note in vertebra.notes)) or "no reason was recorded"


def screw_tally(screws: Iterable[ScrewView]) -> list[tuple[Loosening, int]]:
    """How many screws have each verdict, worst first, those that occur."""
    order = (Loosening.PRESENT, Loosening.INDETERMINATE, Loosening.NOT_ASSESSED, Loosening.ABSENT)
    counts = {call: sum(screw.loosening is call for screw in screws) for call in order}
    return [(call, count) for call, count in counts.items() if count]


def screw_reason(screw: ScrewView) -> str:
    """Why a screw was not assessed or not decided; empty when it was, or when nothing is said."""
    if screw.loosening in (Loosening.PRESENT, Loosening.ABSENT):
        return ""
    given = (screw.reason or "; ".join(note.text for note in screw.notes)).rstrip(".")
    if screw.loosening is Loosening.INDETERMINATE:
        return f"Indeterminate: {given}." if given else ""
    return f"Not assessed, because {given or 'no reason was recorded'}."


def breaches(screw: ScrewView) -> list[str]:
    """What stands beyond the vertebra by more than its outline is known."""
    codes = ("wall_breach", "endplate_breach", "pedicle_breach")
    return [note.text[:1].upper() + note.text[1:].rstrip(".") for note in screw.notes if note.code in codes]


def worth(cutoff: Cutoff) -> list[dict[str, str]]:
    """One row for every version that the paper prints: rates, predictive values, and what they mean for 1000."""
    rows = []
    for one in cutoff.performance:
        prevalence = cutoff.prevalence
        row = {
            "where": one.where,
            "sensitivity": _rate(one.sensitivity, one.true_positives),
            "specificity": _rate(one.specificity, one.true_negatives),
            "auc": "–" if one.auc is None else f"{one.auc:.3f}" + _ci(one.auc_interval),
            "ppv": "–",
            "npv": "–",
            "words": "",
        }
        if prevalence is not None:
            row["ppv"], row["npv"] = f"{one.ppv(prevalence):.1%}", f"{one.npv(prevalence):.1%}"
            failing = 1000 * prevalence
            hits, false = failing * one.sensitivity, (1000 - failing) * (1 - one.specificity)
            row["words"] = (
                f"of 1000 patients like the paper's {failing:.0f} have a failure; {hits + false:.0f} are below the "
                f"cutoff, {hits:.0f} of them with a failure and {false:.0f} without; {failing - hits:.0f} failures are "
                "missed"
            )
        rows.append(row)
    return rows


def in_short(cutoff: Cutoff) -> str:
    """What a call below means, in one sentence; empty without predictive values."""
    if cutoff.prevalence is None or not cutoff.performance:
        return ""
    values = sorted({round(100 * one.ppv(cutoff.prevalence)) for one in cutoff.performance})
    span = " to ".join(str(value) for value in dict.fromkeys((values[0], values[-1])))
    return (
        f"In {cutoff.source} a failure followed in about {span} of 100 patients below the cutoff, and in "
        f"{100 * cutoff.prevalence:.0f} of 100 of all."
    )


def _rate(value: float, counts: tuple[int, int] | None) -> str:
    return f"{value:.1%}" + (f" ({counts[0]} of {counts[1]})" if counts is not None else "")


def _ci(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" ({interval[0]:.2f}–{interval[1]:.2f})"


def gathered(page: Page) -> list[dict[str, Any]]:
    """Every note once, with all it is about; those that forbid a comparison first."""
    every: list[tuple[Note, str]] = [(note, note.about) for note in page.notes]
    every += [(note, note.about or v.level) for v in page.vertebrae for note in v.notes]
    every += [(note, note.about or s.id) for s in page.screws for note in s.notes]
    found: dict[str, dict[str, Any]] = {}
    for note, about in every:
        entry = found.setdefault(note.text, {"text": _sentence(note.text), "about": [], "stops": blocking(note)})
        if about and about not in entry["about"]:
            entry["about"].append(about)
    return sorted(found.values(), key=lambda entry: not entry["stops"])


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:].rstrip(".") + "."


def scan_facts(scan: ScanView) -> str:
    """How a series was acquired, on one line, without what only its maker or its hospital would say."""
    contrast = {None: "contrast agent unknown", True: "with contrast agent", False: "without contrast agent"}[
        scan.contrast
    ]
    kernel = scan.kernel or (f"{scan.sharpness} kernel" if scan.sharpness else "unknown")
    steps = " × ".join("varying" if step is None else f"{step:.3g}" for step in scan.spacing_mm)
    facts = [
        "tube voltage unknown" if scan.kvp is None else f"{scan.kvp:g} kVp",
        contrast,
        kernel if "kernel" in kernel else f"kernel {kernel}",
        "" if scan.n_slices is None else f"{scan.n_slices} slices",
        f"steps of {steps} mm" if steps else "",
        "" if scan.slice_thickness_mm is None else f"slices {scan.slice_thickness_mm:g} mm thick",
        f"stated by a person, not read: {', '.join(scan.stated)}" if scan.stated else "",
    ]
    return " · ".join(fact for fact in facts if fact)


def citations(page: Page) -> list[str]:
    found = [_SCHREIBER] if page.vertebrae else []
    if page.cutoff is not None:
        found.append(f"{page.cutoff.citation} (cutoff)")
    if page.grade is not None:
        found += _LOOSENING
    return found


def setting_rows(settings: Mapping[str, Any], start: str = "") -> list[tuple[str, str]]:
    """Settings as (dotted name, value); cutoffs stand elsewhere, and texts that a result may hold are kept short."""
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        name = f"{start}{key}"
        if name == "cutoffs":
            continue
        if isinstance(value, Mapping):
            rows += setting_rows(value, f"{name}.")
        else:
            rows.append((name, _setting(value)))
    return rows


def _setting(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_setting(one) for one in value)
    return f"{value:g}" if isinstance(value, float) else str(value)[:80]


def number(value: float | None, digits: int = 1, unit: str = "") -> str:
    """A number as the page shows it; a dash for none."""
    return "–" if value is None else hu(value, digits) + (f" {unit}" if unit else "")


def span(interval: tuple[float, float] | None, digits: int = 1) -> str:
    return "–" if interval is None else f"{hu(interval[0], digits)} to {hu(interval[1], digits)}"
