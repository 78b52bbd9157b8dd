"""From slices to a series: sorted by position, judged, ready to be read.

Spacing, shear and handedness come from ImagePositionPatient and ImageOrientationPatient alone. SliceThickness,
SliceLocation, InstanceNumber and the tilt tag are never asked where a slice is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from spineimg.errors import GeometryError, PixelError, SeriesError
from spineimg.geometry import FloatArray, Geometry
from spineimg.io.acquisition import acquisition_of, common
from spineimg.io.pixels import DicomSource, read_stored, why_undecodable
from spineimg.io.records import CT_CLASSES, ENHANCED_CLASSES, SliceRecord
from spineimg.notes import Note
from spineimg.volume import Acquisition, CTVolume, SeriesInfo, Verdict

SAME_PLACE_MM = 0.01
"""Slices closer than this lie at one position: the accuracy that positions are held to."""
SAME_DIRECTION = 1e-4
"""Largest difference of a direction cosine within one orientation: 0.04 mm at the edge of a 400 mm slice."""
TILT_NOTED_DEG = 0.5
"""Shear below this moves a slice by less than 1 % of the spacing; engineering choice."""
AXIAL_WITHIN_DEG = 45.0
"""A slice normal farther than this from the patient's long axis is a reformat; gantries tilt to 30 degrees."""

_LOCALIZER = {"LOCALIZER", "SCOUT", "TOPOGRAM"}
_NOT_HU = {"PERFUSION", "MIP", "MAX_IP", "MIN_IP", "MINIP", "MPR", "REFORMATTED", "VRT", "VOLREN", "SSD",
           "SUBTRACTION", "SCREEN SAVE", "3D", "CSA MPR", "CSA 3D", "PROJECTION IMAGE", "DOSE_INFO"}  # fmt: skip
"""Values of Image Type (0008,0008) of pictures that are no slices of measured attenuation."""
_NOT_HU_RESCALE = {"MGML", "Z_EFF", "ED", "EDW", "HU_MOD", "PCT", "OD"}
"""Values of Rescale Type (0028,1054) other than Hounsfield units (PS3.3 C.11.1.1.2)."""
_ACQUISITION_KEYS = (
    "KVP", "ContrastBolusAgent", "ContrastBolusRoute", "ConvolutionKernel", "SliceThickness", "Manufacturer",
    "ManufacturerModelName", "SeriesDescription", "ReconstructionAlgorithm", "ImageType", "PatientPosition",
)  # fmt: skip
_PATIENT = (("patient_id", "PatientID"), ("patient_name", "PatientName"), ("patient_birth_date", "PatientBirthDate"))


@dataclass(frozen=True, eq=False, slots=True)
class SeriesEntry:
    """One series, or one part of it, with its verdict. `records` are sorted along the slice normal where possible."""

    info: SeriesInfo
    acquisition: Acquisition
    records: tuple[SliceRecord, ...]
    geometry: Geometry | None
    verdict: Verdict
    notes: tuple[Note, ...]

    @property
    def n_slices(self) -> int:
        return len(self.records)

    def volume(self) -> CTVolume:
        """The series as a volume. Raises SeriesError when its slices make none."""
        if self.geometry is None:
            raise SeriesError(f"series {self.info.name} cannot be read as a volume: {self.reasons()}")
        return CTVolume(self.geometry, DicomSource(self.records), self.acquisition, self.info, self.verdict, self.notes)

    def reasons(self) -> str:
        return "; ".join(note.text for note in self.notes) or "no reason noted"


# -- what kind of slice -----------------------------------------------------------------------------------------------


def kind_of(record: SliceRecord) -> str:
    """`localizer`, `derived` or `image`: slices of different kinds never share a volume."""
    words = {word.upper() for word in record.values.get("ImageType", ())}
    if words & _LOCALIZER:
        return "localizer"
    if {"DERIVED", "SECONDARY"} <= words or words & _NOT_HU:
        return "derived"
    return "image"


def orientation_of(record: SliceRecord) -> FloatArray | None:
    """(2, 3) unit directions of a row (to the next column) and of a column; None when absent or senseless."""
    numbers = record.numbers("ImageOrientationPatient", 6)
    return None if numbers is None else _directions(numbers)


@lru_cache(maxsize=256)  # all slices of a series have the same, and are asked several times
def _directions(numbers: tuple[float, ...]) -> FloatArray | None:
    directions = np.array(numbers, dtype=np.float64).reshape(2, 3)
    lengths = np.linalg.norm(directions, axis=1)
    if np.abs(lengths - 1).max() > 0.01 or abs(directions[0] @ directions[1]) > 0.01:
        return None
    directions /= lengths[:, None]
    directions.setflags(write=False)
    return directions


def same_orientation(one: FloatArray, other: FloatArray) -> bool:
    """Whether two (2, 3) arrays of directions are the same plane and turn."""
    return bool(np.abs(one - other).max() <= SAME_DIRECTION)


# -- verdict ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class SliceGroup:
    """Slices of equal size and orientation, at least one.

    samples: the first of each kind (`SliceRecord.kind`): what headers share is judged once, not for each slice.
    """

    records: Sequence[SliceRecord]
    samples: Sequence[SliceRecord]


Check = Callable[[SliceGroup], Note | None]


def _is_ct(group: SliceGroup) -> Note | None:
    values = group.records[0].values
    modality, sop_class = values.get("Modality"), values.get("SOPClassUID")
    if modality == "CT" and sop_class in (*CT_CLASSES, None):
        return None
    return Note("not_ct", f"not a CT image: Modality (0008,0060) is {modality}, SOP class {sop_class}")


def _is_no_localizer(group: SliceGroup) -> Note | None:
    first = group.records[0]
    if kind_of(first) != "localizer":
        return None
    return Note("localizer", f"a localizer: Image Type (0008,0008) is {first.found('ImageType')}")


def _is_original(group: SliceGroup) -> Note | None:
    first = group.records[0]
    if kind_of(first) == "derived":
        text = f"a derived image, no original slice: Image Type (0008,0008) is {first.found('ImageType')}"
        return Note("derived_image", text)
    for record in group.samples:
        if str(record.values.get("RescaleType", "")).upper() in _NOT_HU_RESCALE:
            text = f"its values are {record.values['RescaleType']}, not HU, by Rescale Type (0028,1054)"
            return Note("derived_image", text, record.name)
    return None


def _has_pixels(group: SliceGroup) -> Note | None:
    without = [record for record in group.records if not record.file.has_pixels]
    if not without:
        return None
    text = f"no Pixel Data (7FE0,0010) in {len(without)} of {len(group.records)} images"
    return Note("no_pixels", text, without[0].path)


def _is_decodable(group: SliceGroup) -> Note | None:
    for record in group.samples:
        reason = why_undecodable(record) if record.file.has_pixels else None
        if reason is not None:
            return Note("undecodable", f"the pixels of {record.name} cannot be decoded: {reason}", record.path)
    return None


def _has_rescale(group: SliceGroup) -> Note | None:
    for record in group.samples:
        if record.rescale() is None:
            text = (
                f"no Rescale Slope and Intercept (0028,1053/1052) in {record.name}, so its values are no HU "
                f"(slope is {record.found('RescaleSlope')}, intercept {record.found('RescaleIntercept')})"
            )
            return Note("no_rescale", text, record.path)
    return None


def _has_place(group: SliceGroup) -> Note | None:
    position, tag = "ImagePositionPatient", "(0020,0032)"
    for record in group.samples:
        if record.frames > 1 and record.values.get("SOPClassUID") not in ENHANCED_CLASSES:
            return _no_place(record, position, tag, "one position for several frames")
    for record in group.records:
        if record.numbers(position, 3) is None:
            return _no_place(record, position, tag, record.found(position))
    for record in group.samples:
        if orientation_of(record) is None:
            keyword = "ImageOrientationPatient"
            return _no_place(record, keyword, "(0020,0037)", record.found(keyword))
        spacing = record.numbers("PixelSpacing", 2)
        if spacing is None or not all(0.01 < number < 50 for number in spacing):
            return _no_place(record, "PixelSpacing", "(0028,0030)", record.found("PixelSpacing"))
    return None


def _no_place(record: SliceRecord, keyword: str, tag: str, found: str) -> Note:
    text = f"{keyword} {tag} of {record.name} is missing or makes no sense: found {found}"
    return Note("missing_position", text, record.path)


def _is_axial(group: SliceGroup) -> Note | None:
    directions = orientation_of(group.records[0])
    if directions is None:
        return None
    normal = np.cross(directions[0], directions[1])
    angle = float(np.degrees(np.arccos(min(1.0, abs(normal[2])))))
    if angle <= AXIAL_WITHIN_DEG:
        return None
    plane = "sagittal" if abs(normal[0]) > abs(normal[1]) else "coronal"
    text = f"a {plane} reformat: its slices are turned {angle:.0f} degrees from the axial plane"
    return Note("mixed_orientation", text)


_CHECKS: tuple[Check, ...] = (_is_ct, _is_no_localizer, _is_original, _has_pixels, _is_decodable, _has_place,
                              _is_axial, _has_rescale)  # fmt: skip


def judge(info: SeriesInfo, group: SliceGroup, *, extra: Sequence[Note] = ()) -> SeriesEntry:
    """Sorts one group of slices of equal size and orientation and says whether they can be measured.

    extra: reasons for refusal that concern the whole group, found before.
    """
    refusals = [*extra, *(note for check in _CHECKS if (note := check(group)) is not None)]
    acquisition, differing = _acquisition(group.samples)
    remarks = [_differing_note(differing)] if differing else []
    records, geometry = group.records, None
    if all(note.code not in ("missing_position", "no_pixels", "not_ct") for note in refusals):
        records, geometry, refused, remarked = _arrange(group)
        refusals += refused
        remarks += remarked
    if geometry is not None:
        remarks += _geometry_notes(geometry, acquisition, group.samples)
    if refusals:
        verdict = Verdict.REFUSED
    else:
        verdict = Verdict.USABLE_WITH_NOTES if remarks else Verdict.USABLE
    return SeriesEntry(info, acquisition, tuple(records), geometry, verdict, (*refusals, *remarks))


def _acquisition(records: Sequence[SliceRecord]) -> tuple[Acquisition, tuple[str, ...]]:
    distinct = {tuple(record.values.get(key) for key in _ACQUISITION_KEYS): record for record in records}
    return common(acquisition_of(record.values) for record in distinct.values())


def _differing_note(names: Sequence[str]) -> Note:
    text = f"slices differ in {', '.join(names)}: taken as unknown (of slice thicknesses the largest counts)"
    return Note("mixed_acquisition", text)


# -- places -----------------------------------------------------------------------------------------------------------


def _arrange(group: SliceGroup) -> tuple[Sequence[SliceRecord], Geometry | None, list[Note], list[Note]]:
    """(records sorted along the normal without duplicates, geometry, refusals, remarks)."""
    records = group.records
    directions = orientation_of(records[0])
    matrix, spacing = records[0].matrix, records[0].numbers("PixelSpacing", 2)
    if directions is None or matrix is None or spacing is None:
        return records, None, [], []
    turned = (other for record in group.samples if (other := orientation_of(record)) is not None)
    if not all(same_orientation(directions, other) for other in turned):
        text = f"the {len(records)} images of this series are turned every which way: no two share a plane"
        return records, None, [Note("mixed_orientation", text)], []
    origins = np.array([record.numbers("ImagePositionPatient", 3) for record in records], dtype=np.float64)
    normal = np.cross(directions[0], directions[1])
    places = origins @ (normal / np.linalg.norm(normal))
    order = np.argsort(places, kind="stable")
    records, origins, places = [records[i] for i in order], origins[order], places[order]
    if len(records) > 1 and places[-1] - places[0] < SAME_PLACE_MM:
        text = f"all {len(records)} images lie at one position ({places[0]:.2f} mm along their normal): not a volume"
        return records, None, [Note("one_position", text)], []
    kept, refusals, remarks = _drop_duplicates(records, origins, places)
    if refusals:
        return records, None, refusals, remarks
    records, origins = [records[i] for i in kept], origins[kept]
    if len(records) < 3:
        what = "one image" if len(records) == 1 else "two slices"
        refusals.append(Note("too_few_slices", f"{what}: a volume needs at least three slices"))
    try:
        row_step, column_step = directions[1] * spacing[0], directions[0] * spacing[1]
        geometry = Geometry((len(records), *matrix), origins, row_step, column_step)
    except GeometryError as error:
        return records, None, [*refusals, Note("missing_position", str(error))], remarks
    return records, geometry, refusals, remarks


def _drop_duplicates(
    records: Sequence[SliceRecord], origins: FloatArray, places: FloatArray
) -> tuple[list[int], list[Note], list[Note]]:
    """(indices to keep, refusals, remarks). Slices at one place with the same pixels are one slice."""
    kept, dropped = [0], []
    for i in range(1, len(records)):
        first = kept[-1]
        if places[i] - places[first] >= SAME_PLACE_MM:
            kept.append(i)
            continue
        if np.abs(origins[i] - origins[first]).max() >= SAME_PLACE_MM or not _same_pixels(records[first], records[i]):
            text = (
                f"{records[first].name} and {records[i].name} lie at one position ({places[i]:.2f} mm along their "
                "normal) and differ: which of them is the slice cannot be known"
            )
            return kept, [Note("duplicate_slices", text, records[i].path)], []
        dropped.append(i)
    if not dropped:
        return kept, [], []
    where = ", ".join(f"{places[i]:.1f}" for i in dropped[:5]) + (" …" if len(dropped) > 5 else "")
    text = f"{len(dropped)} slices are there twice with identical pixels (at {where} mm): one of each is used"
    return kept, [], [Note("duplicate_slices", text)]


def _same_pixels(one: SliceRecord, other: SliceRecord) -> bool:
    if one.rescale() != other.rescale():
        return False
    try:
        return bool(np.array_equal(read_stored(one), read_stored(other)))
    except PixelError:
        return False


def _geometry_notes(geometry: Geometry, acquisition: Acquisition, samples: Sequence[SliceRecord]) -> list[Note]:
    notes = []
    for gap in geometry.gaps:
        usual = float(geometry.usual_steps_mm[gap.after])
        missing = max(1, round(gap.width_mm / usual) - 1)
        ends = geometry.origins_lps_mm[[gap.after, gap.after + 1], 2]
        text = (
            f"about {missing} missing: slices {gap.after} and {gap.after + 1} (z {ends[0]:.2f} and {ends[1]:.2f} mm) "
            f"are {gap.width_mm:.2f} mm apart where {usual:.2f} mm is usual"
        )
        notes.append(Note("missing_slices", text, f"slices {gap.after}-{gap.after + 1}"))
    if geometry.varies:
        steps = geometry.steps_mm
        text = f"the slice spacing varies from {steps.min():.2f} to {steps.max():.2f} mm: each slice keeps its position"
        notes.append(Note("varying_spacing", text))
    if geometry.shear_deg > TILT_NOTED_DEG:
        text = f"gantry tilt of {geometry.shear_deg:.1f} degrees between the slices: measured on its own voxels"
        notes.append(Note("gantry_tilt", text))
    thickness = acquisition.slice_thickness_mm
    if thickness is not None and geometry.shape[0] > 1 and thickness > 1.05 * geometry.spacing_mm[0]:
        text = f"overlapping slices: {thickness:g} mm thick every {geometry.spacing_mm[0]:.2f} mm"
        notes.append(Note("overlapping_slices", text))
    if len({record.rescale() for record in samples}) > 1:
        notes.append(Note("mixed_rescale", "slope and intercept differ between slices: each slice uses its own"))
    return notes


# -- whole volumes ----------------------------------------------------------------------------------------------------


def series_info(record: SliceRecord, part: int | None, *, keep_ids: bool) -> SeriesInfo:
    """The identity of a series. Nothing of the patient's unless `keep_ids`."""
    values = record.values
    patient = tuple((name, values[keyword]) for name, keyword in _PATIENT if keyword in values) if keep_ids else ()
    return SeriesInfo(
        series_instance_uid=values.get("SeriesInstanceUID"),
        part=part,
        description=values.get("SeriesDescription"),
        study_instance_uid=values.get("StudyInstanceUID"),
        frame_of_reference_uid=values.get("FrameOfReferenceUID"),
        patient=patient,
    )


def read_array(volume: CTVolume, *, threads: int = 2) -> npt.NDArray[np.int16] | npt.NDArray[np.float32]:
    """(slices, rows, columns) HU of a whole volume, int16 where every slice is, else float32."""
    whole = _read_whole(volume, threads)
    if whole is not None:
        return whole
    exact = np.empty(volume.geometry.shape, dtype=np.float32)
    for k in range(len(exact)):
        exact[k] = volume.read(k)
    return exact


def _read_whole(volume: CTVolume, threads: int) -> npt.NDArray[np.int16] | None:
    """The volume as int16, None when some slice does not fit."""
    from concurrent.futures import ThreadPoolExecutor

    source = volume.source
    whole = np.empty(volume.geometry.shape, dtype=np.int16)

    def fill(k: int) -> bool:
        if isinstance(source, DicomSource):
            return source.read_into(k, whole[k])
        hu = source.read(k)
        if hu.dtype != np.int16:
            return False
        whole[k] = hu
        return True

    with ThreadPoolExecutor(threads) as pool:
        return whole if all(pool.map(fill, range(len(whole)))) else None
