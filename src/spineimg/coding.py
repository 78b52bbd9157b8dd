"""The codes of what the program exports: plain (value, scheme, meaning) tuples, of no library.

SNOMED CT (SCT), DICOM (DCM), NCI Thesaurus (NCIt), LOINC (LN) and UCUM where they have a code that means the same; the
rest is the private scheme 99SPINEIMG, listed in docs/exchange.md. The levels C1-L5 are those of DICOM's context group
7602; S1 is SNOMED CT's "first sacral vertebra". T13 and L6 have no code and get private ones.
"""

from __future__ import annotations

Code = tuple[str, str, str]
"""(code value, coding scheme designator, code meaning)."""

PRIVATE = "99SPINEIMG"
PRIVATE_NAME = "Private codes of spineimg"


def private(value: str, meaning: str) -> Code:
    return (value, PRIVATE, meaning)


_SCT_LEVELS = {
    "C1": "14806007", "C2": "39976000", "C3": "113205007", "C4": "5329002", "C5": "36978003", "C6": "36054005",
    "C7": "87391001", "T1": "64864005", "T2": "53733008", "T3": "1626008", "T4": "73071006", "T5": "56401006",
    "T6": "45296009", "T7": "62487009", "T8": "11068009", "T9": "82687006", "T10": "7610001", "T11": "12989004",
    "T12": "23215003", "L1": "66794005", "L2": "14293000", "L3": "36470004", "L4": "11994002", "L5": "49668003",
    "S1": "65985001",
}  # fmt: skip
LEVEL_CODES: dict[str, Code] = {
    **{level: (value, "SCT", f"{level} vertebra") for level, value in _SCT_LEVELS.items()},
    "T13": private("T13", "T13 vertebra"),
    "L6": private("L6", "L6 vertebra"),
}
"""Level -> code of the vertebra."""
VERTEBRA: Code = ("51282000", "SCT", "Vertebra")
SIDE_CODES: dict[str, Code] = {"left": ("7771000", "SCT", "Left"), "right": ("24028007", "SCT", "Right")}

# -- units ------------------------------------------------------------------------------------------------------------

HOUNSFIELD: Code = ("[hnsf'U]", "UCUM", "Hounsfield unit")
MILLIMETER: Code = ("mm", "UCUM", "millimeter")
SQUARE_MILLIMETER: Code = ("mm2", "UCUM", "square millimeter")
RATIO: Code = ("1", "UCUM", "no units")

# -- what is measured -------------------------------------------------------------------------------------------------

ATTENUATION: Code = ("112031", "DCM", "Attenuation Coefficient")
THRESHOLD: Code = ("112032", "DCM", "Threshold Attenuation Coefficient")
AREA: Code = ("42798000", "SCT", "Area")
DIAMETER: Code = ("81827009", "SCT", "Diameter")
LENGTH: Code = ("410668003", "SCT", "Length")
VOXEL_COUNT = private("VOXEL_COUNT", "Number of voxels or samples averaged")
KEPT_FRACTION = private("KEPT_FRACTION", "Share of the region that was averaged")
HALO_WIDTH = private("HALO_WIDTH", "Width of the lucent zone around a screw")
HALO_COVERAGE = private("HALO_COVERAGE", "Share of the assessed surface with a lucent zone wider than 1 mm")
HALO_EXTENT = private("HALO_EXTENT", "Length along the screw with a lucent zone wider than 1 mm")

# -- derivations and methods ------------------------------------------------------------------------------------------

MEAN: Code = ("373098007", "SCT", "Mean")
STANDARD_DEVIATION: Code = ("386136009", "SCT", "Standard Deviation")
MEDIAN: Code = ("373099004", "SCT", "Median")
PERCENTILE_90: Code = ("371887004", "SCT", "90th Percentile Value of population")
POOLED_MEAN = private("POOLED_MEAN", "Mean over the voxels of all planes")
INTERVAL_LOW = private("INTERVAL_LOW", "Lower end of the interval of the true value")
INTERVAL_HIGH = private("INTERVAL_HIGH", "Upper end of the interval of the true value")
MEAN_OF_PLANES = private("MEAN_OF_PLANES", "Mean of the means of the planes")
ORIGINAL_SLICE = private("ORIGINAL_SLICE", "Voxels of an original slice, no interpolation")
RESAMPLED_PLANE = private("RESAMPLED_PLANE", "Plane resampled by trilinear interpolation")
LABELLED_VOXELS = private("LABELLED_VOXELS", "Voxels of a label map")
HALO_FIT = private("HALO_FIT", "Model of metal, lucent zone and bone fitted to voxels")

PERSON: Code = ("121006", "DCM", "Person")
DEVICE: Code = ("121007", "DCM", "Device")

# -- findings and evaluations -----------------------------------------------------------------------------------------

TRABECULAR_BONE = private("TRABECULAR_BONE", "Trabecular bone of a vertebral body")
BONE_SCREW: Code = ("68183006", "SCT", "Bone Screw")
IMPLANT: Code = ("40388003", "SCT", "Implant")
ROLE = private("ROLE", "Role of the vertebra in the construct")
ROLE_CODES: dict[str, Code] = {
    "UIV": private("UIV", "Upper instrumented vertebra"),
    "LIV": private("LIV", "Lowest instrumented vertebra"),
}
LEVEL_CONFIRMED = private("LEVEL_CONFIRMED", "Name of the level confirmed by a person")
YES: Code = ("373066001", "SCT", "Yes")
NO: Code = ("373067005", "SCT", "No")
FLAG = private("HU_FLAG", "Vertebral HU against a published cutoff")
CALL_CODES: dict[str, Code] = {
    "below": private("BELOW", "Below the cutoff"),
    "indeterminate": ("82334004", "SCT", "Indeterminate"),
    "not_below": private("NOT_BELOW", "Not below the cutoff"),
    "not_assessed": ("373121007", "SCT", "Not Evaluated"),
}
MEAN_BELOW = private("MEAN_BELOW", "The mean itself lies below the cutoff")
STATUS = private("STATUS", "State of the vertebra that forbids a flag")
STATUS_CODES: dict[str, Code] = {
    status: private(status.upper(), f"Marked as {status}")
    for status in ("tumour", "cemented", "fractured", "instrumented")
}
LOOSENING = private("LOOSENING", "Loosening of a screw")
LOOSENING_CODES: dict[str, Code] = {
    "present": ("52101004", "SCT", "Present"),
    "absent": ("272519000", "SCT", "Absent"),
    "indeterminate": ("82334004", "SCT", "Indeterminate"),
    "not_assessed": CALL_CODES["not_assessed"],
}
SILVA_TYPE = private("SILVA_TYPE", "Implant failure type of Silva 2021")

# -- words and references ---------------------------------------------------------------------------------------------

COMMENT: Code = ("121106", "DCM", "Comment")
FLAG_TEXT = private("FLAG_TEXT", "The flag in words")
FLAG_SOURCE = private("FLAG_SOURCE", "Paper that the cutoff comes from")
GRADE_TEXT = private("GRADE_TEXT", "The grade of the implants in words")
HALO_REASON = private("HALO_REASON", "Why the lucent zone has no numbers")
ELLIPSE_TEXT = private("ELLIPSE", "Ellipse as measured, LPS mm, JSON")
AXIS_TEXT = private("SCREW_AXIS", "Head and tip of the screw, LPS mm, JSON")
SERIES_TEXT = private("SERIES", "Series that was measured, as the program names it")
CT_PROCEDURE: Code = ("25045-6", "LN", "CT unspecified body region")

# -- segments ---------------------------------------------------------------------------------------------------------

ANATOMICAL_STRUCTURE: Code = ("123037004", "SCT", "Anatomical Structure")
PHYSICAL_OBJECT: Code = ("260787004", "SCT", "Physical object")
SPATIAL_CONCEPT: Code = ("309825002", "SCT", "Spatial and Relational Concept")
ABNORMAL_STRUCTURE: Code = ("49755003", "SCT", "Morphologically Abnormal Structure")
REGION_OF_INTEREST: Code = ("C85402", "NCIt", "Imaging Region of Interest")
EDGE_DETECTION: Code = ("123103", "DCM", "Edge Detection")
LUCENT_ZONE = private("LUCENT_ZONE", "Lucent zone around a screw")

SEGMENT_CODES: dict[str, tuple[Code, Code]] = {
    "roi": (SPATIAL_CONCEPT, REGION_OF_INTEREST),
    "body": (ANATOMICAL_STRUCTURE, VERTEBRA),
    "metal": (PHYSICAL_OBJECT, IMPLANT),
    "screw": (PHYSICAL_OBJECT, BONE_SCREW),
    "halo": (ABNORMAL_STRUCTURE, LUCENT_ZONE),
}
"""Kind of segment -> (category, type). The vertebra is the segment's anatomic region."""
