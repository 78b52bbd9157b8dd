"""What was measured as DICOM segmentations (binary), on the voxels of the source.

The ROI of an original slice is the voxels that were measured. The ROI of a resampled plane is the voxels whose centres
lie within half a slice of the plane and, seen along its normal, in the ellipse: a sheet one voxel thick. A screw is the
voxels whose centres lie in the cylinder of its outer thread. Segments that overlap come in several objects of one
series, for a segmentation without overlap is read alike by every reader.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from spineimg import coding
from spineimg.coding import Code
from spineimg.export.dicom_groups import Groups, concept
from spineimg.export.dicom_planes import Plane
from spineimg.export.dicom_source import MAKER, Source, coding_scheme, created_at, decimal, stable_uid
from spineimg.geometry import FloatArray, Geometry, unit

SERIES_NUMBER = 9802
_EDGE = 1e-9

Index = npt.NDArray[np.intp]
"""(n, 3) voxels: slice, row, column."""


@dataclass(frozen=True, eq=False, slots=True)
class Segment:
    """One thing to show. kind: a key of `coding.SEGMENT_CODES`; site: code of the vertebra, None when unknown.

    index: the voxels that it holds; may be empty, and then it is left out.
    """

    name: str
    kind: str
    index: Index
    site: Code | None = None


def segments_of(groups: Groups) -> list[Segment]:
    """The ROIs and screws of a result."""
    geometry = groups.source.volume.geometry
    found = [
        Segment(f"{plane.name} ROI", "roi", _roi_index(geometry, plane), coding.LEVEL_CODES.get(plane.level))
        for planes in groups.planes
        for plane in planes
        if plane.ellipse is not None and plane.slices
    ]
    for screw in groups.document.get("screws", []):
        if screw.get("diameter_mm") is not None:
            index = _cylinder_index(geometry, np.array(screw["head"]), np.array(screw["tip"]), screw["diameter_mm"] / 2)
            found.append(Segment(screw["id"], "screw", index, coding.LEVEL_CODES.get(str(screw.get("level")))))
    return found


def labelled_segments(
    labels: npt.NDArray[np.integer[Any]], names: Mapping[int, tuple[str, str, str | None]]
) -> list[Segment]:
    """The labels of a map on the source's own lattice as segments.

    labels: (slices, rows, columns). names: label -> (name, kind, level or None).
    """
    return [
        Segment(name, kind, np.argwhere(labels == label), coding.LEVEL_CODES.get(str(level)))
        for label, (name, kind, level) in names.items()
    ]


def segmentations(source: Source, segments: Sequence[Segment], document: Mapping[str, Any], mark: str) -> list[Dataset]:
    """Binary segmentations of the segments, each object without overlap; none when no segment holds a voxel.

    document: the dict of the result file. mark: its fingerprint, from which all UIDs follow.
    """
    shape = source.volume.geometry.shape
    layers: list[list[Segment]] = []
    taken: list[Index] = []
    for segment in segments:
        if not len(segment.index):
            continue
        voxels = np.ravel_multi_index(tuple(segment.index.T), shape)
        free = next((n for n, used in enumerate(taken) if not np.isin(voxels, used).any()), len(layers))
        if free == len(layers):
            layers.append([])
            taken.append(np.zeros(0, dtype=np.intp))
        layers[free].append(segment)
        taken[free] = np.concatenate([taken[free], voxels])
    return [_segmentation(source, layer, document, mark, number) for number, layer in enumerate(layers, start=1)]


def _segmentation(
    source: Source, segments: Sequence[Segment], document: Mapping[str, Any], mark: str, number: int
) -> Dataset:
    slices = sorted({int(k) for segment in segments for k in np.unique(segment.index[:, 0])})
    labels = np.zeros((len(slices), *source.volume.geometry.shape[1:]), dtype=np.uint16)
    for label, segment in enumerate(segments, start=1):
        labels[np.searchsorted(slices, segment.index[:, 0]), segment.index[:, 1], segment.index[:, 2]] = label
    version = str(document["made_by"].get("spineimg"))
    names = "\n".join(segment.name for segment in segments)
    made = stable_uid(mark, f"SEG {number}", names)
    dataset = hd.seg.Segmentation(
        source_images=source.images(slices),
        pixel_array=labels,
        segmentation_type="BINARY",
        segment_descriptions=[_description(one, n, mark, version) for n, one in enumerate(segments, start=1)],
        series_instance_uid=stable_uid(mark, "SEG series"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=made,
        instance_number=number,
        manufacturer=MAKER,
        manufacturer_model_name=MAKER,
        software_versions=version,
        device_serial_number=version,
        content_label="SPINEIMG",
        content_description="Regions that were measured",
        plane_positions=_positions(source.volume.geometry, slices),
        plane_orientation=hd.PlaneOrientationSequence("PATIENT", [float(part) for part in source.orientation]),
        pixel_measures=_measures(source),
        series_description="spineimg regions",
    )
    dataset.CodingSchemeIdentificationSequence = [coding_scheme()]
    organization = stable_uid(made, "dimensions")
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization
    source.stamp(dataset, created_at(document))
    return dataset


def _positions(geometry: Geometry, slices: Sequence[int]) -> list[hd.PlanePositionSequence]:
    return [
        hd.PlanePositionSequence("PATIENT", [float(decimal(part)) for part in geometry.origins_lps_mm[k]])
        for k in slices
    ]


def _measures(source: Source) -> hd.PixelMeasuresSequence:
    spacing = source.volume.geometry.spacing_mm
    return hd.PixelMeasuresSequence(
        pixel_spacing=[float(part) for part in source.pixel_spacing],
        slice_thickness=float(decimal(source.thickness_mm)),
        spacing_between_slices=float(decimal(spacing[0])),
    )


def _description(segment: Segment, number: int, mark: str, version: str) -> hd.seg.SegmentDescription:
    category, kind = coding.SEGMENT_CODES[segment.kind]
    if segment.kind == "body" and segment.site is not None:
        kind = segment.site
    algorithm = hd.AlgorithmIdentificationSequence(
        name=MAKER, family=concept(coding.EDGE_DETECTION), version=version, source=MAKER
    )
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.name,
        segmented_property_category=concept(category),
        segmented_property_type=concept(kind),
        algorithm_type="SEMIAUTOMATIC",
        algorithm_identification=algorithm,
        tracking_uid=stable_uid(mark, segment.name),
        tracking_id=segment.name,
        anatomic_regions=None if segment.site is None else [concept(segment.site)],
    )


# -- voxels -----------------------------------------------------------------------------------------------------------


def _roi_index(geometry: Geometry, plane: Plane) -> Index:
    """(n, 3) voxels of an ROI: those measured on its slice, or the sheet of voxels along its resampled plane."""
    ellipse = plane.ellipse
    if ellipse is None:
        raise ValueError(f"{plane.name} has no ellipse")
    a, b = ellipse.semi_axes_mm
    signs = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    corners = ellipse.center_lps_mm + signs @ np.stack([a * ellipse.u_lps, b * ellipse.v_lps])
    index = _box(geometry, corners, plane.on_slice)
    offset = geometry.lps_at(index) - ellipse.center_lps_mm
    inside = (offset @ ellipse.u_lps / a) ** 2 + (offset @ ellipse.v_lps / b) ** 2 <= 1 + _EDGE
    if plane.on_slice is None:
        inside &= np.abs(offset @ ellipse.normal_lps) <= _half_voxel_mm(geometry, ellipse.normal_lps) + _EDGE
    held: Index = index[inside]
    return held


def _cylinder_index(geometry: Geometry, head_lps_mm: FloatArray, tip_lps_mm: FloatArray, radius_mm: float) -> Index:
    """(n, 3) voxels whose centres lie in a cylinder."""
    ends = np.stack([head_lps_mm, tip_lps_mm])
    axes = np.concatenate([np.eye(3), -np.eye(3)]) * radius_mm
    index = _box(geometry, (ends[:, None] + axes).reshape(-1, 3))
    along = unit(tip_lps_mm - head_lps_mm)
    offset = geometry.lps_at(index) - head_lps_mm
    depth = offset @ along
    away = np.linalg.norm(offset - depth[:, None] * along, axis=1)
    length = float(np.linalg.norm(tip_lps_mm - head_lps_mm))
    held: Index = index[(depth >= 0) & (depth <= length) & (away <= radius_mm)]
    return held


def _box(geometry: Geometry, points_lps_mm: FloatArray, on_slice: int | None = None) -> Index:
    """(n, 3) all voxels of the volume in the box of indices around some points, one voxel wider; or of one slice."""
    at = geometry.index_at(points_lps_mm)
    if on_slice is not None:
        row, column = geometry.in_plane(points_lps_mm - geometry.origins_lps_mm[on_slice])
        at = np.stack([np.full_like(row, on_slice), row, column], axis=1)
    low = np.maximum(np.floor(at.min(axis=0)).astype(np.intp) - 1, 0)
    high = np.minimum(np.ceil(at.max(axis=0)).astype(np.intp) + 1, np.array(geometry.shape) - 1)
    ranges = [np.arange(start, stop + 1) for start, stop in zip(low, high, strict=True)]
    if on_slice is not None:
        ranges[0] = np.array([on_slice])
    index: Index = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 3)
    return index


def _half_voxel_mm(geometry: Geometry, normal_lps: FloatArray) -> float:
    """Half the longest way that one voxel's step goes along a normal: for a plane near to the slices half a slice."""
    step = (geometry.origins_lps_mm[-1] - geometry.origins_lps_mm[0]) / max(1, geometry.shape[0] - 1)
    steps = np.stack([step, geometry.row_step_lps_mm, geometry.column_step_lps_mm])
    return float(np.abs(steps @ normal_lps).max()) / 2
