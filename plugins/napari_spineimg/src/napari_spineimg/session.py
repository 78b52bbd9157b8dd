"""One reader's work on one CT: ROIs, construct and cutoffs, with undo and redo, measured by the core at every step.

No Qt here. A state is frozen, so that undoing is going back to the one before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from psygnal import Signal
from spineimg.anatomy import LEVELS, Construct, Role, Status, order, parse_level
from spineimg.cutoffs import PUBLISHED, Cutoff
from spineimg.errors import PixelError, RoiError, SpineImgError
from spineimg.geometry import FloatArray, unit
from spineimg.io.opening import state as stated_volume
from spineimg.io.rois import read_rois, write_rois
from spineimg.notes import Note
from spineimg.pipeline import Settings, assess
from spineimg.results import CaseResult, VertebraResult
from spineimg.rois import POSITIONS, Ellipse, RoiSet, VertebraRoi
from spineimg.vertebra.body import Body
from spineimg.vertebra.candidates import SOFT_CODES
from spineimg.vertebra.click import Placed, rois_of_click
from spineimg.vertebra.hu import EllipseMeter, VertebraHU, measure
from spineimg.vertebra.planes import undecodable
from spineimg.volume import Acquisition, CTVolume

_UNUSUAL = ("T13", "L6")
"""Levels that few patients have are not proposed."""
DEFAULT_AXES_MM = (12.0, 8.0)
DEFAULT_APART_MM = 6.0
"""Ellipses to be placed by hand start with these semi-axes, so far apart. Engineering choice: they fit into T8."""


@dataclass(frozen=True, eq=False)
class State:
    """What a reader has entered. `placed`: notes from the search of a body, kept until its ellipses are moved."""

    rois: RoiSet = field(default_factory=lambda: RoiSet(()))
    cutoffs: tuple[Cutoff, ...] = PUBLISHED
    placed: Mapping[str, tuple[Note, ...]] = field(default_factory=dict)
    stated: Acquisition = field(default_factory=Acquisition)

    @property
    def levels(self) -> tuple[str, ...]:
        return tuple(roi.level for roi in self.rois.vertebrae)

    def roi(self, level: str) -> VertebraRoi | None:
        return next((roi for roi in self.rois.vertebrae if roi.level == level), None)

    def with_roi(self, roi: VertebraRoi, placed: tuple[Note, ...] = ()) -> State:
        """The state with the ROI of one level put in or replaced, from head to foot."""
        others = [one for one in self.rois.vertebrae if one.level != roi.level]
        vertebrae = tuple(sorted([*others, roi], key=lambda one: order(one.level)))
        notes = {level: found for level, found in self.placed.items() if level != roi.level}
        if placed:
            notes[roi.level] = placed
        return replace(self, rois=replace(self.rois, vertebrae=vertebrae), placed=notes)

    def without(self, level: str) -> State:
        vertebrae = tuple(one for one in self.rois.vertebrae if one.level != level)
        placed = {name: notes for name, notes in self.placed.items() if name != level}
        return replace(self, rois=replace(self.rois, vertebrae=vertebrae), placed=placed)


class Session:
    """The states of one reader. `changed` is emitted after every step, also after undo."""

    changed = Signal()

    def __init__(self, volume: CTVolume, reader: str) -> None:
        self._volume = volume
        self.reader = reader
        self._states: list[State] = [State(RoiSet((), reader=reader))]
        self._at = 0
        self._result: CaseResult | None = None
        self._known: dict[VertebraRoi, VertebraHU] = {}
        """ROIs of the states that were measured, each once; they are compared by identity."""
        self._meter = EllipseMeter()
        self._bodies: dict[tuple[float, ...], Body | None] = {}
        """What was found around clicks."""
        self._bearing: frozenset[str] = frozenset()

    # -- what is there ------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        return self._states[self._at]

    @property
    def volume(self) -> CTVolume:
        """The CT, with what the reader stated about its acquisition. Raises SeriesError where the file contradicts."""
        return stated_volume(self._volume, self.state.stated)

    @property
    def result(self) -> CaseResult:
        """The core's result of the current state, with the notes of the search beside those of the measurement."""
        if self._result is None:
            self._result = self._measured(self.state)
        return self._result

    def vertebra(self, level: str) -> VertebraResult | None:
        return next((one for one in self.result.vertebrae if one.level == level), None)

    def ellipses(self, level: str) -> tuple[Ellipse, ...]:
        roi = self.state.roi(level)
        return roi.ellipses if roi is not None else ()

    def next_level(self) -> str | None:
        """The level that comes next, in the direction in which the reader works; None at the end of the spine."""
        done = self.state.levels
        if not done:
            return "T12"
        last = self._last if self._last in done else done[-1]
        ahead = -1 if self._upwards else 1
        at = order(last) + ahead
        while 0 <= at < len(LEVELS) and (LEVELS[at] in done or LEVELS[at] in _UNUSUAL):
            at += ahead
        return LEVELS[at] if 0 <= at < len(LEVELS) else None

    _last: str = ""
    _upwards: bool = False

    # -- measuring ----------------------------------------------------------------------------------------------------

    def _measured(self, state: State) -> CaseResult:
        volume = stated_volume(self._volume, state.stated)
        known = {roi.level: self._hu(volume, roi, state.placed.get(roi.level, ())) for roi in state.rois.vertebrae}
        return self._assessed(volume, state, known)

    def _assessed(self, volume: CTVolume, state: State, known: Mapping[str, VertebraHU]) -> CaseResult:
        """The core's result; vertebrae that bear a screw are measured and never flagged, as the core does it."""
        marked = tuple(
            replace(roi, status=Status.INSTRUMENTED) if roi.level in self._bearing and roi.status is None else roi
            for roi in state.rois.vertebrae
        )
        return assess(volume, replace(state.rois, vertebrae=marked), cutoffs=state.cutoffs, known=known)

    def _hu(self, volume: CTVolume, roi: VertebraRoi, placed: tuple[Note, ...]) -> VertebraHU:
        """What the core measures in a ROI, with the notes of the search that placed it. What the reader may state of
        the acquisition (voltage, contrast, kernel) changes flags and notes on the scan, not this."""
        if roi not in self._known:
            volume.require_usable()
            found = self._meter.measure(volume, roi.level, roi.ellipses) if roi.ellipses else measure(volume, roi)
            self._known[roi] = replace(found, notes=(*placed, *found.notes))
        return self._known[roi]

    def look(self, level: str, point_lps_mm: FloatArray) -> Placed:
        """`placed_at` on this CT."""
        return placed_at(self.volume, level, point_lps_mm)

    def body(self, level: str) -> Body | None:
        """The body around the click of a level, where there is one."""
        roi = self.state.roi(level)
        if roi is None or roi.center_lps_mm is None:
            return None
        key = _place(roi.center_lps_mm)
        if key not in self._bodies:  # the click comes from a file
            self._bodies[key] = self.look(level, roi.center_lps_mm).body
        return self._bodies[key]

    def try_ellipses(self, level: str, ellipses: Sequence[Ellipse]) -> VertebraResult:
        """One vertebra measured with these ellipses beside the others, not entered: for a drag that is under way."""
        state, volume = self.state, self.volume
        old = state.roi(level) or VertebraRoi(level)
        roi = replace(old, ellipses=tuple(ellipses), mask=None)
        tried = state.with_roi(roi)
        known = {one.level: self._hu(volume, one, ()) for one in state.rois.vertebrae if one.level != level}
        known[level] = self._meter.measure(volume, level, ellipses)
        found = self._assessed(volume, tried, known)
        return next(one for one in found.vertebrae if one.level == level)

    @property
    def bearing(self) -> frozenset[str]:
        """Levels that hold a screw, as the implant screen found."""
        return self._bearing

    def set_bearing(self, levels: Iterable[str]) -> None:
        """Tells which levels hold a screw: no step of the reader's, so it is neither undone nor kept."""
        if frozenset(levels) != self._bearing:
            self._bearing = frozenset(levels)
            self._result = None
            self.changed.emit()

    # -- steps --------------------------------------------------------------------------------------------------------

    def _do(self, state: State) -> None:
        """Enters a state. Raises SpineImgError, and then nothing has changed."""
        result = self._measured(state)
        self._states = [*self._states[: self._at + 1], state]
        self._at += 1
        self._result = result
        held = {roi for one in self._states for roi in one.rois.vertebrae}
        self._known = {roi: hu for roi, hu in self._known.items() if roi in held}
        self.changed.emit()

    def click(self, level: str, point_lps_mm: FloatArray) -> tuple[Note, ...]:
        """A click in the body of a level. Where none is found nothing is entered; the notes say why."""
        placed = self.look(parse_level(level), point_lps_mm)
        self.enter_click(level, point_lps_mm, placed)
        return placed.notes

    def enter_click(self, level: str, point_lps_mm: FloatArray, placed: Placed) -> None:
        """What a click gave. Without ROIs nothing is entered."""
        if not placed.rois:
            return
        old, before = self.state.roi(level), self.state.roi(self._last)
        if before is not None and before.center_lps_mm is not None:
            self._upwards = order(level) < order(self._last)
        self._last = level
        self._bodies[_place(point_lps_mm)] = placed.body
        status = old.status if old is not None else None
        roi = VertebraRoi(level, point_lps_mm, placed.rois, confirmed=True, status=status)
        self._do(self.state.with_roi(roi, placed.notes))

    def place_by_hand(self, level: str, point_lps_mm: FloatArray) -> None:
        """Three ellipses of a usual size around a point, on original slices, to be moved by the reader."""
        ellipses = default_ellipses(self._volume, point_lps_mm)
        self._last = level
        self._do(self.state.with_roi(VertebraRoi(level, None, ellipses, confirmed=True)))

    def edit(self, level: str, ellipses: Sequence[Ellipse]) -> None:
        """Ellipses as the reader moved them."""
        roi = self.state.roi(level)
        if roi is None:
            raise RoiError(f"{level} has no ellipses to be moved")
        self._do(self.state.with_roi(replace(roi, ellipses=tuple(ellipses), mask=None)))

    def remove(self, level: str) -> None:
        self._do(self.state.without(level))

    def rename(self, level: str, new: str) -> None:
        """Gives a vertebra another name. Raises RoiError when that name is taken."""
        roi = self.state.roi(level)
        new = parse_level(new)
        if roi is None or new == level:
            return
        if self.state.roi(new) is not None:
            raise RoiError(f"{new} is there already: rename or remove it first")
        notes = tuple(dataclasses.replace(note, about=new) for note in self.state.placed.get(level, ()))
        self._do(self.state.without(level).with_roi(replace(roi, level=new, confirmed=True), notes))

    def mark(self, level: str, *, status: Status | None = None, confirmed: bool | None = None) -> None:
        """Marks a vertebra: what makes it measurable but never flagged, or that its name is right."""
        roi = self.state.roi(level)
        if roi is not None:
            marked = replace(roi, status=status, confirmed=confirmed)
            self._do(self.state.with_roi(marked, self.state.placed.get(level, ())))

    def set_construct(self, uiv: str | None, liv: str | None) -> None:
        """The instrumented ends. Raises RoiError when the UIV lies below the LIV."""
        construct = Construct(uiv, liv)
        if construct != self.state.rois.construct:
            self._do(replace(self.state, rois=replace(self.state.rois, construct=construct)))

    def set_cutoffs(self, cutoffs: tuple[Cutoff, ...]) -> None:
        self._do(replace(self.state, cutoffs=cutoffs))

    def set_stated(self, stated: Acquisition) -> None:
        """What the reader states where the file says nothing. Raises SeriesError where it says otherwise."""
        self._do(replace(self.state, stated=stated))

    def add_named(self, placed: Iterable[tuple[VertebraRoi, tuple[Note, ...]]]) -> None:
        """Vertebrae that were found along the spine; those that the reader has entered stay as they are."""
        state = self.state
        for roi, notes in placed:
            if state.roi(roi.level) is None:
                state = state.with_roi(roi, notes)
        self._do(state)

    def _spelled(self, roi: VertebraRoi) -> tuple[VertebraRoi, tuple[Note, ...]]:
        """A ROI with the ellipses of its click, where it has nothing else, and the notes of the search."""
        if roi.ellipses or roi.mask is not None or roi.center_lps_mm is None:
            return roi, ()
        placed = self.look(roi.level, roi.center_lps_mm)
        self._bodies[_place(roi.center_lps_mm)] = placed.body
        return replace(roi, ellipses=placed.rois), placed.notes if placed.rois else ()

    # -- history ------------------------------------------------------------------------------------------------------

    @property
    def can_undo(self) -> bool:
        return self._at > 0

    @property
    def can_redo(self) -> bool:
        return self._at + 1 < len(self._states)

    def undo(self) -> None:
        if self.can_undo:
            self._go(self._at - 1)

    def redo(self) -> None:
        if self.can_redo:
            self._go(self._at + 1)

    def _go(self, at: int) -> None:
        self._at, self._result = at, None
        self.changed.emit()

    # -- files --------------------------------------------------------------------------------------------------------

    def load(self, path: str | Path) -> None:
        """A ROI file as one step that can be undone. Clicks in it are looked up now. Raises RoiError."""
        self.enter(read_rois(path))

    def enter(
        self,
        rois: RoiSet,
        placed: Mapping[str, tuple[Note, ...]] | None = None,
        cutoffs: tuple[Cutoff, ...] | None = None,
        stated: Acquisition | None = None,
    ) -> None:
        """A set of ROIs in place of the present one, with the rest of a state where it was kept."""
        was = self.state
        state = State(replace(rois, vertebrae=(), reader=self.reader), cutoffs or was.cutoffs, {}, stated or was.stated)
        for roi in rois.vertebrae:
            spelled, notes = self._spelled(roi)
            state = state.with_roi(spelled, notes or (placed or {}).get(roi.level, ()))
        self._do(state)

    def save(self, path: str | Path) -> None:
        """The ROI file of the contract. Raises RoiError."""
        write_rois(path, self.state.rois)


def placed_at(volume: CTVolume, level: str, point_lps_mm: FloatArray, *, alone: bool = False) -> Placed:
    """What the core makes of a click: ROIs if a body was found, and notes.

    alone: the body must be clear by itself; its neighbours, which take seconds, are not asked.
    Raises SeriesError for a series that cannot be measured.
    """
    volume.require_usable()
    try:
        return rois_of_click(volume, point_lps_mm, level, "endplate", Settings().hu.click, alone=alone)
    except PixelError as error:
        return Placed((), (undecodable(error, level),), None)


def is_unclear(placed: Placed) -> bool:
    """Whether neighbours may speak for the body that was not believed by itself."""
    return not placed.rois and any(note.code in SOFT_CODES for note in placed.notes)


def default_ellipses(volume: CTVolume, point_lps_mm: FloatArray) -> tuple[Ellipse, ...]:
    """Three equal ellipses on original slices, along the patient's left and back, superior first."""
    geometry = volume.geometry
    normal = geometry.normal_lps * (1.0 if geometry.normal_lps[2] > 0 else -1.0)
    left = unit(np.array([1.0, 0.0, 0.0]) - normal[0] * normal)
    back = np.cross(normal, left)
    ellipses = []
    for position, away in zip(POSITIONS, (DEFAULT_APART_MM, 0.0, -DEFAULT_APART_MM), strict=True):
        center = np.asarray(point_lps_mm, dtype=np.float64) + away * normal
        k, _ = geometry.nearest_slice(center)
        center = center + (geometry.positions_mm[k] - center @ geometry.normal_lps) * geometry.normal_lps
        ellipses.append(Ellipse(position, center, left, back, DEFAULT_AXES_MM))
    return tuple(ellipses)


def _place(point_lps_mm: FloatArray) -> tuple[float, ...]:
    return tuple(float(part) for part in point_lps_mm)


def own_cutoff(value_hu: float, source: str) -> Cutoff:
    """A reader's own cutoff for the LIV; the flag names its source everywhere."""
    return Cutoff(
        value_hu=value_hu,
        role=Role.LIV,
        source=source,
        citation=source,
        population="as told by the source",
        method="mean of the slice means",
        conditions="taken for unenhanced scans at 120 kVp",
    )


Say = Callable[[str], None]
"""Shows one sentence to the reader."""


def attempt(step: Callable[[], object], say: Say) -> bool:
    """Runs a step; what is wrong with its input is said in its one sentence."""
    try:
        step()
    except SpineImgError as error:
        say(str(error))
        return False
    return True
