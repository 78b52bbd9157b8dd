"""One opened CT: its volume with a cache, how it is displayed, and where it came from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from spineimg.errors import PixelError
from spineimg.geometry import FloatArray
from spineimg.volume import CTVolume

from napari_spineimg.cache import CachedSource, LoadedOnly
from napari_spineimg.display import Display, display_of
from napari_spineimg.windows import BONE

KEY = "spineimg"
"""The layer's metadata hold the study under this name."""


@dataclass(frozen=True, eq=False)
class Study:
    """volume: what is measured; its slices are kept in `cache` once read."""

    path: str
    volume: CTVolume
    cache: CachedSource
    display: Display

    @property
    def name(self) -> str:
        series = self.volume.series
        return series.description or series.series_instance_uid or self.path.rstrip("/").rsplit("/", 1)[-1]

    @property
    def key(self) -> str:
        """A name for files that tells nobody whose scan it is."""
        series = self.volume.series
        what = series.name if series.series_instance_uid else f"{self.path} {self.volume.geometry.shape}"
        return hashlib.sha256(what.encode("utf-8", "replace")).hexdigest()[:24]

    def loaded_volume(self) -> CTVolume:
        """The volume as far as it is in memory: for pictures that must not wait."""
        return replace(self.volume, source=LoadedOnly(self.cache))

    def slice_near(self, point_lps_mm: FloatArray) -> int:
        return self.volume.geometry.nearest_slice(point_lps_mm)[0]

    def hu_at(self, point_lps_mm: FloatArray) -> tuple[tuple[int, int, int], float] | None:
        """((slice, row, column), HU) of the original voxel nearest to a point; None where there is none.

        HU is nan where the voxel holds no measurement: padding, a slice that cannot be read, or a gap.
        """
        geometry = self.volume.geometry
        k, r, c = (round(float(part)) for part in geometry.index_at(point_lps_mm))
        index = (k, r, c)
        if not all(0 <= at < count for at, count in zip(index, geometry.shape, strict=True)):
            return None
        place = float(point_lps_mm @ geometry.normal_lps)
        if any(gap.start_mm < place < gap.end_mm for gap in geometry.gaps):
            return index, float("nan")
        try:
            hu = self.volume.read(k)[r : r + 1, c : c + 1]
        except PixelError:
            return index, float("nan")
        return index, float(hu[0, 0]) if self.volume.valid(k, hu)[0, 0] else float("nan")


def open_study(path: str, volume: CTVolume) -> Study:
    """A volume made ready to be shown."""
    cache = CachedSource(volume.source, volume.geometry.shape[0])
    cached = replace(volume, source=cache)
    return Study(path, cached, cache, display_of(cached))


def volume_to_layer(study: Study) -> tuple[Any, dict[str, Any], str]:
    """A napari image layer: lazy slices in mm, head up, the patient's right on the viewer's left."""
    display = study.display
    settings = {
        "name": study.name,
        "scale": tuple(display.scale),
        "translate": tuple(display.translate),
        "units": ("mm", "mm", "mm"),
        "axis_labels": ("foot", "back", "left"),
        "colormap": "gray",
        "contrast_limits": BONE.limits_hu,
        "interpolation2d": "linear",
        "rgb": False,
        "multiscale": False,
        "metadata": {KEY: study},
    }
    return display.data, settings, "image"


def study_of(layer: Any) -> Study | None:
    """The study that a layer shows."""
    found = getattr(layer, "metadata", {}).get(KEY)
    return found if isinstance(found, Study) else None


def middle_lps_mm(study: Study) -> FloatArray:
    """The middle of the scan."""
    shape = np.array(study.volume.geometry.shape)
    return study.volume.geometry.lps_at((shape - 1) / 2)
