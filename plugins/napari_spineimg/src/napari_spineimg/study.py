"""One opened CT: its volume with a cache, how it is displayed, and where it came from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
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
    def case(self) -> str:
        """The case's name in a table, as the command line has it: its folder or file."""
        return Path(self.path).resolve().name

    @cached_property
    def key(self) -> str:
        """A name for files that tells nobody whose scan it is. A file without a UID that was written anew is another
        scan: ROIs of the one before would be measured on it."""
        series = self.volume.series
        what = series.name
        if not series.series_instance_uid:
            file = Path(self.path)
            written = (file.stat().st_size, file.stat().st_mtime_ns) if file.is_file() else None
            what = f"{self.path} {self.volume.geometry.shape} {written}"
        return hashlib.sha256(what.encode("utf-8", "replace")).hexdigest()[:24]

    def loaded_volume(self) -> CTVolume:
        """The volume as far as it is in memory: for pictures that must not wait."""
        return replace(self.volume, source=LoadedOnly(self.cache))

    def loaded_plane(self, axis: int, place: float) -> tuple[npt.NDArray[np.float32], float]:
        """(picture, world coordinate) of the plane of voxels nearest to `place` across a world axis.

        The picture's rows and columns follow the other two world axes; nan where a slice is not in memory yet. For
        series whose voxels lie along the world's axes (`display.exact`).
        """
        display, shape = self.display, self.display.data.shape
        at = int(np.clip(round((place - display.translate[axis]) / display.scale[axis]), 0, shape[axis] - 1))
        if axis == 0:
            picture = self._loaded_slice(at).astype(np.float32)
        else:
            take = (at, slice(None)) if axis == 1 else (slice(None), at)
            picture = np.stack([self._loaded_slice(k)[take] for k in range(shape[0])]).astype(np.float32)
        for n, other in enumerate(one for one in range(3) if one != axis):
            if display.scale[other] < 0:
                picture = np.flip(picture, n)
        return picture, float(display.translate[axis] + at * display.scale[axis])

    def _loaded_slice(self, k: int) -> npt.NDArray[Any]:
        hu = self.cache.kept(k)
        return hu if hu is not None else np.broadcast_to(np.float32(np.nan), self.display.data.shape[1:])

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
    """The middle of the scan; where slices are missing, the middle of the nearest two between which none is."""
    geometry = study.volume.geometry
    middle = (np.array(geometry.shape) - 1) / 2
    gaps = {gap.after for gap in geometry.gaps}
    whole = [k + 0.5 for k in range(geometry.shape[0] - 1) if k not in gaps]
    if gaps and whole:
        middle[0] = min(whole, key=lambda k: abs(k - middle[0]))
    return geometry.lps_at(middle)
