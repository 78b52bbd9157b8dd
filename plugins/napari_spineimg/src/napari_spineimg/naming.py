"""The vertebrae above and below a confirmed one, found and named by the core."""

from __future__ import annotations

from spineimg.errors import PixelError, RoiError
from spineimg.geometry import FloatArray
from spineimg.implants.model import Progress
from spineimg.notes import Note
from spineimg.pipeline import Settings
from spineimg.rois import VertebraRoi
from spineimg.vertebra.body import BodyNotFoundError
from spineimg.vertebra.click import Clicks, Placed
from spineimg.vertebra.naming import name_spine
from spineimg.volume import CTVolume

Named = tuple[VertebraRoi, tuple[Note, ...]]
"""A ROI and the notes of the search that placed it."""


def named_spine(volume: CTVolume, level: str, point_lps_mm: FloatArray, progress: Progress) -> list[Named]:
    """Every body that was found, named from the seed, with its ROIs; only the seed's name counts as confirmed.

    The reader confirms or corrects the others one by one. Raises RoiError where no vertebra is found from there.
    """
    progress(0.0, "Naming the spine")
    try:
        clicks = Clicks.of(volume, Settings().hu.click, whole=True)
        named = name_spine(volume, {level: point_lps_mm}, clicks=clicks)
    except (BodyNotFoundError, PixelError) as error:
        raise RoiError(f"the spine cannot be named from {level}: {error}") from error
    if not named.vertebrae:
        why = "; ".join(note.text for note in named.notes) or "no reason was given"
        raise RoiError(f"the spine cannot be named from {level}: {why}")
    found = []
    for number, one in enumerate(named.vertebrae):
        progress((number + 1) / (len(named.vertebrae) + 1), f"Placing ellipses in {one.level}")
        found.append(_placed(clicks, one.level, one.body.center_lps_mm, confirmed=one.level == level))
    return found


def _placed(clicks: Clicks, level: str, point_lps_mm: FloatArray, *, confirmed: bool) -> Named:
    try:
        placed = clicks.rois(point_lps_mm, level, "endplate")
    except PixelError:
        placed = Placed((), (), None)  # measuring says so again
    roi = VertebraRoi(level, point_lps_mm, placed.rois, confirmed=confirmed)
    return roi, placed.notes if placed.rois else ()
