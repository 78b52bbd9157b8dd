"""NIfTI, NRRD and MetaImage volumes.

Axes: the slice axis is the stored axis nearest to LPS z, the row axis the one nearest to y of the other two, the
column axis the third. Each is turned so that slices ascend to the head, rows to the back and columns to the left. A
volume is thereby the same in all 48 orders in which its voxels can be stored. Nothing is resampled.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from spineimg.errors import GeometryError, PixelError, UnreadableError
from spineimg.geometry import Geometry
from spineimg.io.grid_headers import GridHeader, read_header
from spineimg.io.inflate import INFLATE_CHUNK, Inflated
from spineimg.notes import Note
from spineimg.volume import NO_MEASUREMENT_BELOW_HU, CTVolume, HUArray, SeriesInfo, Verdict

TILT_NOTED_DEG = 0.5
"""Shear below this moves a slice by less than 1 % of the spacing; engineering choice."""
NORMALISED_BELOW = 10.0
"""A volume without a value this far from 0 was normalised. Engineering choice."""
OFFSET_ABOVE_HU = 1800.0
"""A volume without negative values that reaches this holds HU + 1024. Engineering choice: cortex plus the offset."""
SAMPLED_SLICES = 5
"""Slices that are looked at to tell HU from other numbers."""

_FARTHEST_MM = 1e7
"""Positions and spacings beyond this are no anatomy, and their squares overflow. Engineering choice."""
_INT16 = np.iinfo(np.int16)


# -- voxels -----------------------------------------------------------------------------------------------------------


def as_hu(stored: npt.NDArray[Any], slope: float, intercept: float) -> HUArray:
    """slope * stored + intercept: int16 where every value is whole and fits, else float32 with NaN for no number."""
    same = slope == 1 and intercept == 0
    if stored.dtype == np.int16 and same:
        return stored.astype(np.int16, copy=False)
    with np.errstate(invalid="ignore", over="ignore"):
        exact = stored if same else stored.astype(np.float64) * slope + intercept
        # Comparisons with NaN are false, so this holds for finite values only.
        if exact.min() >= _INT16.min and exact.max() <= _INT16.max:
            whole = exact.astype(np.int16)
            if exact.dtype.kind in "iu" or (whole == exact).all():
                return whole
        hu = exact.astype(np.float32)
    hu[~np.isfinite(hu)] = np.nan
    return hu


class GridSource:
    """Slices of one volume file.

    Slices that lie in one piece of an unpacked file are read when asked for; otherwise the file is unpacked once into
    memory, at the first read.
    """

    def __init__(self, header: GridHeader, axes: tuple[int, int, int], turned: tuple[bool, bool, bool]) -> None:
        """axes: stored axis of slice, row and column; turned: whether each runs against the stored order."""
        self.header = header
        self._axes, self._turned = axes, turned
        self._volume: HUArray | None = None

    def read(self, k: int) -> HUArray:
        """(rows, columns) of slice k, a copy. Raises PixelError."""
        count = self.header.shape[self._axes[0]]
        if not 0 <= k < count:
            raise IndexError(f"slice {k} of {count}")
        stored_k = count - 1 - k if self._turned[0] else k
        plane: HUArray
        if not self.header.deflated and self._axes[0] == 2:
            plane = self._slab(stored_k)
            plane = plane if self._axes[1] == 1 else plane.T
        else:
            if self._volume is None:
                self._volume = self._unpacked()
            slices, rows, columns = (2 - axis for axis in self._axes)
            plane = self._volume.transpose(slices, rows, columns)[stored_k]
        plane = plane[:: -1 if self._turned[1] else 1, :: -1 if self._turned[2] else 1]
        return plane.copy()

    def padding_hu(self, k: int) -> tuple[float, float] | None:
        return None  # these formats cannot name their padding

    def sop_instance_uid(self, k: int) -> str | None:
        return None

    def _slab(self, k: int) -> HUArray:
        """(j, i) plane k of the slowest axis of an unpacked file."""
        try:
            with self.header.data.open("rb") as file:
                file.seek(self.header.offset + k * self.header.slab_bytes)
                return self._decoded(file)
        except OSError as error:
            raise UnreadableError(f"{self.header.data}: cannot be read ({error.strerror or error})") from None

    def _unpacked(self) -> HUArray:
        """(k, j, i) all voxels, int16 where they fit."""
        header = self.header
        try:
            with header.data.open("rb") as file:
                file.seek(header.offset)
                if not header.deflated:
                    return self._collected(file)
                stream = Inflated(file, header.data)
                stream.read(header.skip)
                volume = self._collected(stream)
                if len(stream.read(INFLATE_CHUNK)) < INFLATE_CHUNK and not stream.ended:
                    raise PixelError(f"{header.data}: cut short, the end of its packed voxels is missing")
                return volume
        except OSError as error:
            raise UnreadableError(f"{header.data}: cannot be read ({error.strerror or error})") from None
        except MemoryError:
            raise PixelError(f"{header.path}: {header.sides} voxels do not fit into memory") from None

    def _collected(self, stream: BinaryIO | Inflated) -> HUArray:
        # An empty array takes no memory until voxels that are really there are written to it.
        volume: HUArray = np.empty(self.header.shape[::-1], dtype=np.int16)
        for k in range(len(volume)):
            slab = self._decoded(stream)
            if slab.dtype != volume.dtype and volume.dtype == np.int16:
                wider = np.empty(volume.shape, dtype=np.float32)
                wider[:k] = volume[:k]
                volume = wider
            volume[k] = slab
        return volume

    def _decoded(self, stream: BinaryIO | Inflated) -> HUArray:
        """(j, i) the next plane of the slowest axis."""
        header = self.header
        packed = stream.read(header.slab_bytes)
        if len(packed) < header.slab_bytes:
            raise PixelError(f"{header.data}: cut short, its header declares {header.sides} voxels")
        stored = np.frombuffer(packed, dtype=header.dtype).reshape(header.shape[1], header.shape[0])
        return as_hu(stored, header.slope, header.intercept)


# -- volumes ----------------------------------------------------------------------------------------------------------


def open_grid(path: Path) -> tuple[Geometry, GridSource]:
    """The lattice of a volume file and its slices, by the module's rule of axes. Raises SeriesError, GeometryError."""
    header = read_header(path)
    stored = header.lps_from_stored
    sane = bool((np.abs(stored) < _FARTHEST_MM).all())  # false for nan too
    lengths = np.linalg.norm(stored[:3, :3], axis=0) if sane else np.zeros(3)
    if not sane or abs(np.linalg.det(stored[:3, :3])) < 1e-9 or lengths.min() < 1e-6:
        raise GeometryError(f"{path}: its directions or spacings span no volume: {stored[:3, :3].tolist()}")
    toward = np.abs(stored[:3, :3] / lengths)
    slices = int(np.argmax(toward[2]))
    rows, columns = sorted({0, 1, 2} - {slices}, key=lambda axis: -toward[1, axis])
    axes = (slices, rows, columns)
    turned = (bool(stored[2, slices] < 0), bool(stored[1, rows] < 0), bool(stored[0, columns] < 0))
    affine = np.eye(4)
    affine[:3, 3] = stored[:3, 3]
    for place, (axis, against) in enumerate(zip(axes, turned, strict=True)):
        affine[:3, place] = -stored[:3, axis] if against else stored[:3, axis]
        if against:
            affine[:3, 3] += (header.shape[axis] - 1) * stored[:3, axis]
    shape = (header.shape[slices], header.shape[rows], header.shape[columns])
    try:
        geometry = Geometry.from_affine(shape, affine)
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from None
    return geometry, GridSource(header, axes, turned)


def open_volume(path: str | os.PathLike[str]) -> CTVolume:
    """A CT in a NIfTI, NRRD or MetaImage file. How it was acquired is unknown: these formats do not say.

    Raises SeriesError, PixelError and GeometryError for files that hold no volume. A volume that must not be measured
    comes back with the verdict `refused` and the reason as a note.
    """
    path = Path(path)
    geometry, source = open_grid(path)
    refusals = [note for note in (_too_few(geometry), _no_hu(geometry, source)) if note is not None]
    notes = list(source.header.notes)
    if geometry.shear_deg > TILT_NOTED_DEG:
        shear = f"{geometry.shear_deg:.1f} degrees"
        text = f"gantry tilt: slices are shifted along their plane by {shear}; measured as they are"
        notes.append(Note("gantry_tilt", text))
    verdict = Verdict.REFUSED if refusals else Verdict.USABLE_WITH_NOTES if notes else Verdict.USABLE
    return CTVolume(
        geometry,
        source,
        series=SeriesInfo(description=path.name),
        verdict=verdict,
        notes=(*refusals, *notes),
    )


def _too_few(geometry: Geometry) -> Note | None:
    if min(geometry.shape) >= 3:
        return None
    sides = " x ".join(str(side) for side in geometry.shape)
    return Note("too_few_slices", f"{sides} voxels: a volume needs at least three slices")


def _no_hu(geometry: Geometry, source: GridSource) -> Note | None:
    """Says so when the numbers are those of a label map, a picture of 0 to 255, a normalised volume, or HU + 1024."""
    count = geometry.shape[0]
    places = sorted({round(at) for at in np.linspace(0, count - 1, SAMPLED_SLICES)})
    values = np.concatenate([source.read(k).ravel() for k in places])
    values = values[np.isfinite(values) & (values > NO_MEASUREMENT_BELOW_HU)]
    if not values.size:
        return Note("no_pixels", f"no number above {NO_MEASUREMENT_BELOW_HU:g} in {len(places)} slices of the volume")
    low, high = float(values.min()), float(values.max())
    picture = low >= 0 and high <= 255 and (low == 0 or source.header.dtype.itemsize == 1)
    offset = low >= 0 and high >= OFFSET_ABOVE_HU
    normalised = max(-low, high) < NORMALISED_BELOW
    if not (picture or offset or normalised):
        return None
    text = (
        f"not HU: values run from {low:g} to {high:g} where air and fat should be below 0, so this is a label map, a "
        "picture, or HU with an offset: save it as HU"
    )
    return Note("not_ct", text)
