"""Published cutoffs of vertebral HU, each with its paper, its conditions and how well it did there.

A cutoff belongs to the role for which it was derived. Only Lee 2024 gives one for the lowest instrumented vertebra of
fixations for metastasis; none is published for the upper one. Readers may add their own from a TOML file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spineimg.anatomy import Role
from spineimg.errors import CutoffError


@dataclass(frozen=True, slots=True)
class Performance:
    """How a cutoff did, as printed at one place of its paper. Rates are fractions.

    true_positives, true_negatives: (number, of how many) that the printed rates imply; None when not told.
    """

    where: str
    sensitivity: float
    specificity: float
    auc: float | None = None
    auc_interval: tuple[float, float] | None = None
    true_positives: tuple[int, int] | None = None
    true_negatives: tuple[int, int] | None = None

    def ppv(self, prevalence: float) -> float:
        """Probability of failure below the cutoff (Bayes)."""
        found = self.sensitivity * prevalence
        return found / (found + (1 - self.specificity) * (1 - prevalence))

    def npv(self, prevalence: float) -> float:
        """Probability of no failure at or above the cutoff (Bayes)."""
        cleared = self.specificity * (1 - prevalence)
        return cleared / (cleared + (1 - self.sensitivity) * prevalence)


@dataclass(frozen=True, slots=True)
class Cutoff:
    """A value below which failure was likelier. Holds for unenhanced scans at 120 kVp unless `conditions` says more.

    events: (patients with failure, all patients) of the paper, which gives the prevalence.
    """

    value_hu: float
    role: Role
    source: str
    citation: str
    population: str
    method: str
    conditions: str
    performance: tuple[Performance, ...] = ()
    events: tuple[int, int] | None = None
    caution: str = ""

    @property
    def prevalence(self) -> float | None:
        return self.events[0] / self.events[1] if self.events else None


LEE_2024 = Cutoff(
    value_hu=127.273,
    role=Role.LIV,
    source="Lee 2024",
    citation="Lee et al. 2024, J Clin Med 13:7017",
    population="24 patients with implant failure of 220 operated on for spinal metastasis in one centre; the cutoff "
    "was derived and tested in them and in controls matched 1:3 for age, sex and bone density",
    method="mean of three axial slices of the vertebral body, trabecular bone without cortex; cutoff from a ROC curve",
    conditions="tube voltage, contrast agent, kernel and slice thickness are not told",
    performance=(
        Performance("abstract", 0.591, 0.734, 0.655, (0.49, 0.79), (13, 22), (47, 64)),
        Performance("section 3.4 and Figure 2", 0.696, 0.736, 0.693, (0.55, 0.83), (16, 23), (53, 72)),
    ),
    events=(24, 220),
    caution="the paper prints two different results for the same cutoff, with different denominators, and neither "
    "counts its 24 failures; it was not validated on other patients",
)
"""For the LIV only. The paper contradicts itself, so both versions stand here."""

PUBLISHED: tuple[Cutoff, ...] = (LEE_2024,)


def for_role(cutoffs: tuple[Cutoff, ...], role: Role | None) -> Cutoff | None:
    """The cutoff of a role; None when there is none."""
    return next((cutoff for cutoff in cutoffs if cutoff.role is role), None)


# -- cutoffs of a reader's own ------------------------------------------------------------------------------------

_TEXTS = ("source", "citation", "population", "method", "conditions")
_RATES = ("sensitivity", "specificity")
_KNOWN = {"value_hu", "role", *_TEXTS, *_RATES, "auc", "auc_interval", "events", "caution"}


def load_cutoffs(path: Path | str) -> tuple[Cutoff, ...]:
    """The published cutoffs and those of a TOML file, which stand in for a published one of the same role.

    The file holds one table `[[cutoff]]` a cutoff:

    - `value_hu`: HU; a mean below it is below the cutoff.
    - `role`: "UIV" or "LIV". One cutoff a role.
    - `source`: short name and year of the paper, as the flag prints it; `citation`: the paper in full.
    - `population`, `method`, `conditions`: in whom, how it was measured, and tube voltage, contrast agent and the rest.
      The comparison takes for granted that the cutoff is for unenhanced scans at 120 kVp.
    - optional `sensitivity` and `specificity` (both or none), `auc`, `auc_interval = [low, high]`: fractions.
    - optional `events = [patients with failure, all patients]`, for the predictive values.
    - optional `caution`: what the flag should say beside the numbers.

    Raises CutoffError naming the file and the field.
    """
    import tomllib

    name = Path(path).name
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise CutoffError(f"{name}: the file of cutoffs cannot be read ({error.strerror}): check the path") from None
    except UnicodeDecodeError:
        raise CutoffError(f"{name}: the file of cutoffs is not UTF-8 text: save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise CutoffError(f"{name}: not TOML ({error}): correct it") from None
    tables = document.get("cutoff")
    if not isinstance(tables, list) or not tables or set(document) != {"cutoff"}:
        raise CutoffError(f"{name}: found {sorted(document)}, expected tables [[cutoff]] and nothing else")
    own = tuple(_cutoff(table, f"{name}, cutoff {number}") for number, table in enumerate(tables, 1))
    roles = [cutoff.role for cutoff in own]
    twice = [role for role in Role if roles.count(role) > 1]
    if twice:
        raise CutoffError(f"{name}: two cutoffs for the {twice[0]}: give one a role")
    return own + tuple(cutoff for cutoff in PUBLISHED if cutoff.role not in roles)


def _cutoff(table: object, where: str) -> Cutoff:
    if not isinstance(table, Mapping):
        raise CutoffError(f"{where}: found {table!r}, expected a table [[cutoff]]")
    unknown = sorted(set(table) - _KNOWN)
    if unknown:
        raise CutoffError(f"{where}: unknown field {unknown[0]!r}: use {', '.join(sorted(_KNOWN))}")
    texts = {key: _text(table, key, where) for key in _TEXTS}
    role = table.get("role")
    if role not in list(Role):
        raise CutoffError(f'{where}: `role` must be "UIV" or "LIV", found {role!r}')
    return Cutoff(
        value_hu=_number(table, "value_hu", where, -200.0, 1000.0),
        role=Role(role),
        **texts,
        performance=_performance(table, where),
        events=_events(table, where),
        caution=_text(table, "caution", where) if "caution" in table else "",
    )


def _performance(table: Mapping[str, Any], where: str) -> tuple[Performance, ...]:
    given = [key for key in _RATES if key in table]
    if not given:
        stray = [key for key in ("auc", "auc_interval") if key in table]
        if stray:
            raise CutoffError(f"{where}: `{stray[0]}` needs `sensitivity` and `specificity` beside it")
        return ()
    sensitivity, specificity = (_number(table, key, where, 0.01, 1.0) for key in _RATES)
    return (
        Performance(
            where=table["source"],
            sensitivity=sensitivity,
            specificity=specificity,
            auc=_number(table, "auc", where, 0.0, 1.0) if "auc" in table else None,
            auc_interval=_interval(table, where),
        ),
    )


def _interval(table: Mapping[str, Any], where: str) -> tuple[float, float] | None:
    found = table.get("auc_interval")
    if found is None:
        return None
    if not isinstance(found, list) or len(found) != 2:
        raise CutoffError(f"{where}: `auc_interval` must be [low, high], found {found!r}")
    low, high = (_number({"auc_interval": part}, "auc_interval", where, 0.0, 1.0) for part in found)
    if low > high:
        raise CutoffError(f"{where}: `auc_interval` must be [low, high], found {found!r}")
    return low, high


def _events(table: Mapping[str, Any], where: str) -> tuple[int, int] | None:
    found = table.get("events")
    if found is None:
        return None
    whole = isinstance(found, list) and len(found) == 2 and all(type(part) is int for part in found)
    if not whole or not 0 < found[0] < found[1]:
        raise CutoffError(f"{where}: `events` must be [patients with failure, all patients], found {found!r}")
    return found[0], found[1]


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value.strip():
        raise CutoffError(f"{where}: `{key}` must be a text, found {value!r}: say it in words")
    return value.strip()


def _number(table: Mapping[str, Any], key: str, where: str, low: float, high: float) -> float:
    value = table.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CutoffError(f"{where}: `{key}` must be a number, found {value!r}")
    if not low <= value <= high:
        raise CutoffError(f"{where}: `{key}` must lie in {low:g} to {high:g}, found {value!r}")
    return float(value)
