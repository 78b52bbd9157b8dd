"""From a reader's one click to the ROIs that are measured."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from spineimg.geometry import FloatArray
from spineimg.notes import Note
from spineimg.rois import Ellipse
from spineimg.settings import setting
from spineimg.vertebra.body import Body, BodyNotFoundError, BodySettings, find_body
from spineimg.vertebra.candidates import SOFT_CODES, SpineSettings
from spineimg.vertebra.placement import PlacementError, PlacementSettings, place_rois
from spineimg.vertebra.spine import Spine, find_spine
from spineimg.volume import CTVolume, keeping

_NEAR_LEVELS = 3


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
    witness_mm: float = setting(
        150.0,
        "mm",
        (100.0, 700.0),
        "engineering choice: three neighbours at either side",
        "Where a fit is unclear, the spine this far to head and feet is asked.",
    )
    thick_mm: float = setting(
        4.0,
        "mm",
        (0.5, 5.0),
        "measured on phantoms (docs/body.md): at 3 mm neighbours are certain enough, at 4.8 mm not all",
        "With slices farther apart or thicker the two next settings count.",
    )
    clear_tilt_deg: float = setting(
        1.5,
        "degree",
        (0.5, 3.0),
        "measured on phantoms: at 4.8 mm 3 of 7 bodies with more were wrong",
        "Bodies asked stand by themselves with a standard error of tilt below it; the others "
        "are held to the tilt of these.",
    )
    witnesses: int = setting(
        2,
        "",
        (1, 6),
        "measured on phantoms: a row of bodies held to a single one stands up to 10 degrees off",
        "At least so many neighbours within three levels must stand by themselves.",
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
    volume: CTVolume, click_lps_mm: FloatArray, level: str, plane: str, settings: ClickSettings, *, alone: bool = False
) -> Placed:
    """The vertebral body around a click, three ROIs in it, and notes on it.

    alone: neighbours, which take seconds, are not asked; a note with one of SOFT_CODES says that they could be.
    Raises PixelError for slices that cannot be read.
    """
    step = _step_mm(volume)
    if step > settings.max_step_mm:
        text = (
            f"slices of {step:.3g} mm are too thick to find a body from a click (limit {settings.max_step_mm:g} mm): "
            "place the ellipses by hand"
        )
        return Placed((), (Note("body_not_found", text, level),), None)
    volume = keeping(volume)
    try:
        if alone:
            body = find_body(volume, click_lps_mm, settings.body)
        else:
            body = body_of_click(volume, click_lps_mm, settings)
    except BodyNotFoundError as error:
        return Placed((), (Note(error.code, f"no vertebral body was found: {error}", level),), None)
    try:
        rois = place_rois(volume, body, plane, settings.placement)
    except PlacementError as error:
        text = f"the body was found, but it leaves no room for a ROI: {error}"
        return Placed((), (Note("no_room", text, level),), body)
    text = (
        f"the body was found and the ROIs were placed from one click (quality {body.quality:.2f}): look at the figure"
    )
    notes = (Note("placed_from_click", text, level), *(Note(one.code, one.text, level) for one in body.notes))
    return Placed(rois, notes, body)


def body_of_click(volume: CTVolume, click_lps_mm: FloatArray, settings: ClickSettings = ClickSettings()) -> Body:
    """The body at a click; where its fit alone is not believed, the one that its neighbours speak for.

    Raises BodyNotFoundError with the reason of the fit itself.
    """
    volume = keeping(volume)
    try:
        return find_body(volume, click_lps_mm, settings.body)
    except BodyNotFoundError as error:
        if error.code not in SOFT_CODES:
            raise
        thick, trust = _step_mm(volume) > settings.thick_mm, settings.body.trust
        if thick:
            trust = replace(trust, tilt_sd_deg=settings.clear_tilt_deg)
        asked = SpineSettings(replace(settings.body, trust=trust), settings.witness_mm)
        try:
            spine = find_spine(volume, click_lps_mm, asked)
        except BodyNotFoundError:
            raise error from None
        if thick and witnesses(spine) < settings.witnesses:
            raise
    body = spine.bodies[spine.start]
    text = "its fit alone is unclear; it goes with the neighbours' size, axis and discs"
    return replace(body, notes=(*body.notes, Note("from_neighbours", text)))


def witnesses(spine: Spine) -> int:
    """How many bodies beside the one at the start are believed by themselves."""
    near = range(max(0, spine.start - _NEAR_LEVELS), min(len(spine.held), spine.start + _NEAR_LEVELS + 1))
    return sum(not spine.held[i] for i in near if i != spine.start)


def _step_mm(volume: CTVolume) -> float:
    return max(volume.geometry.spacing_mm[0], volume.acquisition.slice_thickness_mm or 0.0)
