"""From a reader's one click to the ROIs that are measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from spineimg.geometry import FloatArray
from spineimg.notes import Note
from spineimg.rois import Ellipse
from spineimg.settings import setting
from spineimg.vertebra.body import Body, BodyNotFoundError, BodySettings, find_body
from spineimg.vertebra.candidates import SOFT_CODES, SpineSettings, for_slices, slice_mm
from spineimg.vertebra.placement import PlacementError, PlacementSettings, place_rois
from spineimg.vertebra.spine import Solved, find_spine, near_body, once
from spineimg.volume import CTVolume, keeping


@dataclass(frozen=True, slots=True)
class ClickSettings:
    """When a click is answered, and the settings of what answers it."""

    max_step_mm: float = setting(
        5.0,
        "mm",
        (0.5, 5.0),
        "measured on phantoms up to 4.8 mm (docs/body.md)",
        "With slices farther apart or thicker no body is looked for.",
    )
    body: BodySettings = field(default_factory=BodySettings)
    placement: PlacementSettings = field(default_factory=PlacementSettings)


@dataclass(frozen=True, eq=False, slots=True)
class Placed:
    """What one click gave: three ROIs and the body they lie in; without a body or room no ROIs, and notes say why."""

    rois: tuple[Ellipse, ...]
    notes: tuple[Note, ...]
    body: Body | None


@dataclass(frozen=True, eq=False, slots=True)
class Clicks:
    """What answers clicks in one volume.

    solve: gives the volume's spine, solved at the first call (`spine.once`). whole: unclear clicks ask it at once, for
    whoever lists the levels needs it anyway; else their near neighbours first.
    """

    volume: CTVolume
    settings: ClickSettings
    solve: Callable[[], Solved]
    whole: bool

    @classmethod
    def of(cls, volume: CTVolume, settings: ClickSettings = ClickSettings(), *, whole: bool = False) -> Clicks:
        return cls(volume, settings, once(volume, SpineSettings(settings.body)), whole)

    def reading(self, volume: CTVolume) -> Clicks:
        """The same of another reader of the same volume."""
        return replace(self, volume=volume)

    def body(
        self, click_lps_mm: FloatArray, *, alone: bool = False, witness: Callable[[Body], bool] | None = None
    ) -> Body:
        """The body at a click; where its fit alone is not believed, the one that its neighbours speak for.

        alone: neighbours are not asked. witness: as in `find_body`. Raises BodyNotFoundError with the reason of the fit
        itself; PixelError.
        """
        volume, asked = keeping(self.volume), SpineSettings(self.settings.body)
        try:
            return find_body(volume, click_lps_mm, for_slices(asked, slice_mm(volume)).body, witness=witness)
        except BodyNotFoundError as error:
            if alone or error.code not in SOFT_CODES:
                raise
            body = None if self.whole else near_body(volume, click_lps_mm, asked)
            if body is None:
                try:
                    spine = find_spine(volume, click_lps_mm, asked, solve=self.solve)
                except BodyNotFoundError:
                    raise error from None
                body = spine.bodies[spine.start]
        text = "its fit alone is unclear; it goes with the neighbours' size, axis and discs"
        return replace(body, notes=(*body.notes, Note("from_neighbours", text)))

    def rois(self, click_lps_mm: FloatArray, level: str, plane: str, *, alone: bool = False) -> Placed:
        """The vertebral body around a click, three ROIs in it, and notes on it.

        alone: neighbours, which take seconds, are not asked; a note with one of SOFT_CODES says that they could be.
        Raises PixelError for slices that cannot be read.
        """
        thick = too_thick(self.volume, self.settings)
        if thick is not None:
            return Placed((), (Note("body_not_found", f"{thick}: place the ellipses by hand", level),), None)
        asked = self.reading(keeping(self.volume))
        try:
            body = asked.body(click_lps_mm, alone=alone)
        except BodyNotFoundError as error:
            return Placed((), (Note(error.code, f"no vertebral body was found: {error}", level),), None)
        how = ("placed_from_click", "from one click")
        return placed_in(asked.volume, body, level, plane, self.settings, how)


def too_thick(volume: CTVolume, settings: ClickSettings) -> str | None:
    """Why no body is looked for in slices as thick as these; None when it is."""
    step = slice_mm(volume)
    if step <= settings.max_step_mm:
        return None
    return f"slices of {step:.3g} mm are too thick to find a body from a click (limit {settings.max_step_mm:g} mm)"


def placed_in(
    volume: CTVolume, body: Body, level: str, plane: str, settings: ClickSettings, how: tuple[str, str]
) -> Placed:
    """Three ROIs in a body, and notes on it; how: code and words of the note that says where they come from."""
    try:
        rois = place_rois(volume, body, plane, settings.placement)
    except PlacementError as error:
        text = f"the body was found, but it leaves no room for a ROI: {error}"
        return Placed((), (Note("no_room", text, level),), body)
    code, words = how
    text = f"the body was found and the ROIs were placed {words} (quality {body.quality:.2f}): look at the figure"
    notes = (Note(code, text, level), *(Note(one.code, one.text, level) for one in body.notes))
    return Placed(rois, notes, body)


def rois_of_click(
    volume: CTVolume, click_lps_mm: FloatArray, level: str, plane: str, settings: ClickSettings, *, alone: bool = False
) -> Placed:
    """`Clicks.rois` of a single click."""
    return Clicks.of(volume, settings).rois(click_lps_mm, level, plane, alone=alone)


def body_of_click(volume: CTVolume, click_lps_mm: FloatArray, settings: ClickSettings = ClickSettings()) -> Body:
    """`Clicks.body` of a single click."""
    return Clicks.of(volume, settings).body(click_lps_mm)
