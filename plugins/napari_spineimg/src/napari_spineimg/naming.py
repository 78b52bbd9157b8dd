"""The vertebrae above and below a confirmed one, found and named by the core."""

from __future__ import annotations

from dataclasses import replace

from spineimg.errors import RoiError
from spineimg.geometry import FloatArray
from spineimg.rois import RoiSet
from spineimg.vertebra.naming import name_spine
from spineimg.volume import CTVolume


def named_spine(volume: CTVolume, level: str, point_lps_mm: FloatArray) -> RoiSet:
    """A click in every body that was found, named from the seed; only the seed's name counts as confirmed.

    The reader confirms or corrects the others one by one. Raises RoiError where no vertebra is found from there.
    """
    named = name_spine(volume, {level: point_lps_mm})
    if not named.vertebrae:
        why = "; ".join(note.text for note in named.notes) or "no reason was given"
        raise RoiError(f"the spine cannot be named from {level}: {why}")
    rois = named.rois()
    return replace(rois, vertebrae=tuple(replace(one, confirmed=one.level == level) for one in rois.vertebrae))
