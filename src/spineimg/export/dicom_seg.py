"""What was measured as DICOM segmentations (binary), on the voxels of the source.

Segments that overlap come in several objects of one series, for a segmentation without overlap is read alike by every
reader.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset

from spineimg import coding
from spineimg.export.dicom_groups import concept
from spineimg.export.dicom_segments import Segment
from spineimg.export.dicom_source import MAKER, Source, coding_scheme, created_at, decimal, stable_uid
from spineimg.export.implant_voxels import Index
from spineimg.geometry import Geometry

SERIES_NUMBER = 9802


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
