"""The measurement groups of a structured report: vertebrae, their planes, screws."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from highdicom import sr

from spineimg import coding
from spineimg.anatomy import Status
from spineimg.coding import Code
from spineimg.export.dicom_planes import Plane, axis_ends_lps_mm, on_image, planes_of, slices_between
from spineimg.export.dicom_source import MAKER, Source, stable_uid

Entry = Mapping[str, Any]
Measurements = list[sr.Measurement]


def concept(code: Code) -> sr.CodedConcept:
    return sr.CodedConcept(*code)


def text(name: Code, words: str) -> sr.TextContentItem:
    return sr.TextContentItem(concept(name), words, relationship_type="CONTAINS")


def note_words(note: Entry) -> str:
    about = f"{note['about']}: " if note.get("about") else ""
    return f"{about}{note['text']} [{note.get('code', '')}]"


def status_of(vertebra: Entry) -> str | None:
    """The state that forbids a flag: a result says it in the words of the flag."""
    flag = vertebra.get("flag") or {}
    told = vertebra.get("status") or next(iter(re.findall(r"marked as (\w+)", str(flag.get("text", "")))), None)
    return told if told in set(Status) else None


def _number(name: Code, value: Any, unit: Code, derivation: Code | None = None, **more: Any) -> Measurements:
    """A measurement as a list of one; of none where there is no number."""
    if value is None:
        return []
    coded = None if derivation is None else concept(derivation)
    return [sr.Measurement(concept(name), value, concept(unit), derivation=coded, **more)]


def _evaluation(name: Code, value: Code | None) -> list[sr.QualitativeEvaluation]:
    return [] if value is None else [sr.QualitativeEvaluation(concept(name), concept(value))]


def _yes_no(value: bool | None) -> Code | None:
    return None if value is None else coding.YES if value else coding.NO


@dataclass(frozen=True, eq=False)
class Groups:
    """The groups of one result. mark: its fingerprint, from which the tracking UIDs follow."""

    source: Source
    document: Entry
    mark: str

    @cached_property
    def planes(self) -> list[list[Plane]]:
        """The planes of each vertebra."""
        return [planes_of(self.source, vertebra, self.document) for vertebra in self.document["vertebrae"]]

    @property
    def slices(self) -> list[int]:
        """All original slices that the groups refer to."""
        touched = {k for planes in self.planes for plane in planes for k in plane.slices}
        return sorted(touched.union(*(self._slices_of_screw(screw) for screw in self.document.get("screws", []))))

    def all(self) -> list[Any]:
        """Every group of the report, from the first vertebra to the last screw."""
        found = []
        for vertebra, planes in zip(self.document["vertebrae"], self.planes, strict=True):
            found += [self._vertebra(vertebra, planes), *(self._plane(plane) for plane in planes)]
        return found + [self._screw(screw) for screw in self.document.get("screws", [])]

    # -- shared -------------------------------------------------------------------------------------------------------

    def tracking(self, name: str) -> sr.TrackingIdentifier:
        return sr.TrackingIdentifier(uid=stable_uid(self.mark, name), identifier=name)

    @cached_property
    def _algorithm(self) -> sr.AlgorithmIdentification:
        made_by = self.document["made_by"]
        plane = made_by["settings"].get("plane")
        parameters = None if plane is None else [f"plane={plane}"]
        return sr.AlgorithmIdentification(MAKER, str(made_by.get("spineimg")), parameters)

    def _site(self, level: str | None, side: str | None = None) -> list[sr.FindingSite]:
        code = coding.LEVEL_CODES.get(str(level), coding.VERTEBRA)
        laterality = None if side is None else concept(coding.SIDE_CODES[side])
        return [sr.FindingSite(concept(code), laterality=laterality)]

    def _images(self, slices: Sequence[int]) -> list[sr.SourceImageForMeasurementGroup] | None:
        uid = str(self.source.header.SOPClassUID)
        found = [
            sr.SourceImageForMeasurementGroup(uid, instance, referenced_frame_numbers=frames)
            for instance, frames in self.source.references(slices)
        ]
        return found or None

    # -- vertebrae ----------------------------------------------------------------------------------------------------

    def _vertebra(self, vertebra: Entry, planes: Sequence[Plane]) -> sr.MeasurementsAndQualitativeEvaluations:
        level, flag = vertebra["level"], vertebra.get("flag") or {}
        status = status_of(vertebra)
        evaluations = [
            *_evaluation(coding.ROLE, coding.ROLE_CODES.get(str(vertebra.get("role")))),
            *_evaluation(coding.LEVEL_CONFIRMED, _yes_no(vertebra.get("confirmed"))),
            *_evaluation(coding.STATUS, None if status is None else coding.STATUS_CODES[status]),
            *_evaluation(coding.FLAG, coding.CALL_CODES.get(str(flag.get("call")))),
            *_evaluation(coding.MEAN_BELOW, _yes_no(flag.get("below_cutoff"))),
        ]
        group = sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=self.tracking(level),
            finding_type=concept(coding.TRABECULAR_BONE),
            finding_sites=self._site(level),
            method=concept(coding.MEAN_OF_PLANES),
            algorithm_id=self._algorithm,
            measurements=self._vertebra_numbers(vertebra, planes, flag) or None,
            qualitative_evaluations=evaluations or None,
            source_images=self._images([k for plane in planes for k in plane.slices]),
        )
        words = [(coding.FLAG_TEXT, flag.get("text")), (coding.FLAG_SOURCE, flag.get("source"))]
        words += [(coding.COMMENT, note_words(note)) for note in vertebra["notes"]]
        group[0].ContentSequence.extend(text(name, said) for name, said in words if said)
        return group

    def _vertebra_numbers(self, vertebra: Entry, planes: Sequence[Plane], flag: Entry) -> Measurements:
        hu, measured = (coding.ATTENUATION, coding.HOUNSFIELD), vertebra.get("mean_hu") is not None
        inferred = [self._coordinates(plane) for plane in planes if plane.ellipse is not None] if measured else []
        low, high = flag.get("interval_hu") or (None, None)
        return [
            *_number(hu[0], vertebra.get("mean_hu"), hu[1], coding.MEAN, referenced_coordinates=inferred or None),
            *_number(hu[0], vertebra.get("sd_hu"), hu[1], coding.STANDARD_DEVIATION),
            *_number(hu[0], vertebra.get("median_hu"), hu[1], coding.MEDIAN),
            *_number(hu[0], vertebra.get("pooled_mean_hu"), hu[1], coding.POOLED_MEAN),
            *_number(coding.VOXEL_COUNT, vertebra.get("n_voxels"), coding.RATIO),
            *_number(coding.KEPT_FRACTION, vertebra.get("kept_fraction"), coding.RATIO),
            *_number(coding.THRESHOLD, flag.get("cutoff_hu"), coding.HOUNSFIELD),
            *_number(hu[0], low, hu[1], coding.INTERVAL_LOW),
            *_number(hu[0], high, hu[1], coding.INTERVAL_HIGH),
        ]

    def _coordinates(self, plane: Plane) -> sr.CoordinatesForMeasurement | sr.CoordinatesForMeasurement3D:
        """Where a plane of a vertebra's mean lies."""
        if plane.ellipse is None:
            raise ValueError(f"{plane.name} has no ellipse")
        if plane.on_slice is None:
            ends, frame_of_reference = axis_ends_lps_mm(plane.ellipse), str(self.source.header.FrameOfReferenceUID)
            return sr.CoordinatesForMeasurement3D("ELLIPSE", ends, frame_of_reference)
        kind, points = on_image(self.source, plane.ellipse, plane.on_slice)
        return sr.CoordinatesForMeasurement(kind, points, self._region_image(plane.on_slice))

    def _region_image(self, k: int) -> sr.SourceImageForRegion:
        uid, frame = str(self.source.header.SOPClassUID), self.source.frame(k)
        frames = None if frame is None else [frame]
        return sr.SourceImageForRegion(uid, self.source.places[k].sop_instance_uid, frames)

    # -- planes -------------------------------------------------------------------------------------------------------

    def _plane(self, plane: Plane) -> Any:
        """A planar ROI; without an outline (a mask) the numbers and the images they come from."""
        numbers = plane.numbers
        method = coding.RESAMPLED_PLANE if plane.on_slice is None else coding.ORIGINAL_SLICE
        if plane.ellipse is None:
            method = coding.LABELLED_VOXELS
        shared: dict[str, Any] = {
            "tracking_identifier": self.tracking(plane.name),
            "finding_type": concept(coding.TRABECULAR_BONE),
            "finding_sites": self._site(plane.level),
            "method": concept(method),
            "algorithm_id": self._algorithm,
            "measurements": [
                *_number(coding.ATTENUATION, numbers.get("mean_hu"), coding.HOUNSFIELD, coding.MEAN),
                *_number(coding.ATTENUATION, numbers.get("sd_hu"), coding.HOUNSFIELD, coding.STANDARD_DEVIATION),
                *_number(coding.ATTENUATION, numbers.get("median_hu"), coding.HOUNSFIELD, coding.MEDIAN),
                *_number(coding.VOXEL_COUNT, numbers.get("n_voxels"), coding.RATIO),
                *_number(coding.AREA, numbers.get("area_mm2"), coding.SQUARE_MILLIMETER),
                *_number(coding.KEPT_FRACTION, numbers.get("kept_fraction"), coding.RATIO),
            ]
            or None,
        }
        if plane.ellipse is None:
            return sr.MeasurementsAndQualitativeEvaluations(**shared, source_images=self._images(plane.slices))
        group = sr.PlanarROIMeasurementsAndQualitativeEvaluations(**shared, referenced_region=self._region(plane))
        exact = {name: numbers[name] for name in ("position", "center", "u", "v", "semi_axes_mm")}
        group[0].ContentSequence.append(text(coding.ELLIPSE_TEXT, json.dumps(exact)))
        return group

    def _region(self, plane: Plane) -> sr.ImageRegion | sr.ImageRegion3D:
        if plane.ellipse is None:
            raise ValueError(f"{plane.name} has no ellipse")
        if plane.on_slice is None:
            frame_of_reference = str(self.source.header.FrameOfReferenceUID)
            return sr.ImageRegion3D("ELLIPSE", axis_ends_lps_mm(plane.ellipse), frame_of_reference)
        kind, points = on_image(self.source, plane.ellipse, plane.on_slice)
        return sr.ImageRegion(kind, points, self._region_image(plane.on_slice))

    # -- screws -------------------------------------------------------------------------------------------------------

    def _slices_of_screw(self, screw: Entry) -> tuple[int, ...]:
        return slices_between(self.source, np.array([screw["head"], screw["tip"]], dtype=np.float64))

    def _screw(self, screw: Entry) -> sr.MeasurementsAndQualitativeEvaluations:
        halo = screw.get("halo") or {}
        group = sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=self.tracking(screw["id"]),
            finding_type=concept(coding.BONE_SCREW),
            finding_sites=self._site(screw.get("level"), screw.get("side")),
            method=concept(coding.HALO_FIT),
            algorithm_id=self._algorithm,
            measurements=self._screw_numbers(screw, halo),
            qualitative_evaluations=_evaluation(
                coding.LOOSENING, coding.LOOSENING_CODES.get(str(screw.get("loosening")))
            )
            or None,
            source_images=self._images(self._slices_of_screw(screw)),
        )
        axis = {name: screw[name] for name in ("head", "tip")}
        words = [(coding.AXIS_TEXT, json.dumps(axis)), (coding.HALO_REASON, halo.get("reason"))]
        words += [(coding.COMMENT, note_words(note)) for note in screw.get("notes", [])]
        group[0].ContentSequence.extend(text(name, said) for name, said in words if said)
        return group

    def _screw_numbers(self, screw: Entry, halo: Entry) -> Measurements:
        ends = np.array([screw["head"], screw["tip"]], dtype=np.float64)
        axis = sr.CoordinatesForMeasurement3D("POLYLINE", ends, str(self.source.header.FrameOfReferenceUID))
        length = screw.get("length_mm")
        if length is None:
            length = float(np.linalg.norm(ends[1] - ends[0]))
        low, high = halo.get("interval_mm") or (None, None)
        width = (coding.HALO_WIDTH, coding.MILLIMETER)
        return [
            *_number(coding.LENGTH, length, coding.MILLIMETER, referenced_coordinates=[axis]),
            *_number(coding.DIAMETER, screw.get("diameter_mm"), coding.MILLIMETER),
            *_number(width[0], halo.get("width_median_mm"), width[1], coding.MEDIAN),
            *_number(width[0], halo.get("width_p90_mm"), width[1], coding.PERCENTILE_90),
            *_number(width[0], low, width[1], coding.INTERVAL_LOW),
            *_number(width[0], high, width[1], coding.INTERVAL_HIGH),
            *_number(coding.HALO_COVERAGE, halo.get("coverage_over_1mm"), coding.RATIO),
            *_number(coding.HALO_EXTENT, halo.get("axial_extent_mm"), coding.MILLIMETER),
        ]
