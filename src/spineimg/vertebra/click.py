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
from spineimg.vertebra.spine import Solved, find_spine
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


def rois_of_click(
    volume: CTVolume,
    click_lps_mm: FloatArray,
    level: str,
    plane: str,
    settings: ClickSettings,
    *,
    alone: bool = False,
    solve: Callable[[], Solved] | None = None,
) -> Placed:
    """The vertebral body around a click, three ROIs in it, and notes on it.

    alone: neighbours, which take seconds, are not asked; a note with one of SOFT_CODES says that they could be.
    solve: as in `body_of_click`. Raises PixelError for slices that cannot be read.
    """
    thick = too_thick(volume, settings)
    if thick is not None:
        return Placed((), (Note("body_not_found", f"{thick}: place the ellipses by hand", level),), None)
    volume = keeping(volume)
    try:
        body = body_of_click(volume, click_lps_mm, settings, alone=alone, solve=solve)
    except BodyNotFoundError as error:
        return Placed((), (Note(error.code, f"no vertebral body was found: {error}", level),), None)
    return placed_in(volume, body, level, plane, settings, ("placed_from_click", "from one click"))


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


def body_of_click(
    volume: CTVolume,
    click_lps_mm: FloatArray,
    settings: ClickSettings = ClickSettings(),
    *,
    alone: bool = False,
    solve: Callable[[], Solved] | None = None,
    witness: Callable[[Body], bool] | None = None,
) -> Body:
    """The body at a click; where its fit alone is not believed, the one that its neighbours speak for.

    alone: neighbours are not asked. witness: as in `find_body`. solve: gives the volume's spine, for several clicks in
    one volume (`spine.once`). Raises BodyNotFoundError with the reason of the fit itself.
    """
    volume, asked = keeping(volume), SpineSettings(settings.body)
    try:
        return find_body(volume, click_lps_mm, for_slices(asked, slice_mm(volume)).body, witness=witness)
    except BodyNotFoundError as error:
        if alone or error.code not in SOFT_CODES:
            raise
        try:
            spine = find_spine(volume, click_lps_mm, asked, solve=solve)
        except BodyNotFoundError:
            raise error from None
    body = spine.bodies[spine.start]
    text = "its fit alone is unclear; it goes with the neighbours' size, axis and discs"
    return replace(body, notes=(*body.notes, Note("from_neighbours", text)))
