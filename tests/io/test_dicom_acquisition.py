"""How a series was acquired, as far as its headers say; and that nobody's name comes out with it.

Planted in a copy of the reader, each turns this file red: an absent contrast tag read as "no contrast"; only the first
kernel value kept; text decoded as Latin-1 whatever the character set; the patient's name in the series' record.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset

import spineimg
from spineimg.io.index import scan
from spineimg.volume import Acquisition, Verdict
from tests import dicom_factory as factory


def acquired(folder: Path, **tags: Any) -> Acquisition:
    """What a series says of itself with these tags; None takes a tag out."""
    factory.write_series(folder, factory.pattern(3), factory.axial(3), tags=tags)
    volume = spineimg.load(folder)
    (entry,) = scan([folder]).series
    assert entry.acquisition == volume.acquisition
    return volume.acquisition


def item(**values: Any) -> Dataset:
    ds = Dataset()
    for name, value in values.items():
        setattr(ds, name, value)
    return ds


def test_the_plain_fields(tmp_path: Path) -> None:
    found = acquired(tmp_path, KVP="140.0", SliceThickness="0.625", PatientPosition="FFP")
    assert found.kvp == 140.0
    assert found.slice_thickness_mm == 0.625
    assert found.kernel == "B30f"
    assert (found.manufacturer, found.model) == ("Acme Ltd", "Model Ä7")
    assert found.patient_position == "FFP"
    assert found.stated == ()


ABSENT = {
    "KVP": "kvp",
    "SliceThickness": "slice_thickness_mm",
    "ConvolutionKernel": "kernel",
    "Manufacturer": "manufacturer",
    "ManufacturerModelName": "model",
    "PatientPosition": "patient_position",
}


@pytest.mark.parametrize(("tag", "name"), ABSENT.items())
@pytest.mark.parametrize("value", [None, ""], ids=["absent", "empty"])
def test_what_is_not_there_is_unknown(tmp_path: Path, tag: str, name: str, value: str | None) -> None:
    """None, never 0 or an empty text. Planted: an empty KVP read as 0."""
    found = acquired(tmp_path, **{tag: value})
    assert getattr(found, name) is None
    assert found.contrast is None
    assert found.metal_artifact_reduction is None or found.metal_artifact_reduction is False
    assert found.monoenergetic_kev is None


@pytest.mark.parametrize("value", ["0", "0.0", "-120", "1e9"])
def test_an_impossible_voltage_is_unknown(tmp_path: Path, value: str) -> None:
    assert acquired(tmp_path, KVP=value).kvp is None


@pytest.mark.parametrize(
    ("kernel", "joined"),
    [("B30f", "B30f"), (["Br38f", "3"], "Br38f\\3"), (["I30f", "2", "x"], "I30f\\2\\x"), ("FC13", "FC13")],
    ids=str,
)
def test_kernels_of_several_values_are_kept_whole(tmp_path: Path, kernel: Any, joined: str) -> None:
    """Planted: only the first value kept."""
    assert acquired(tmp_path, ConvolutionKernel=kernel).kernel == joined


CONTRAST = [
    ({}, None),
    ({"ContrastBolusAgent": None}, None),
    ({"ContrastBolusAgent": ""}, None),
    ({"ContrastBolusAgent": "   "}, None),
    ({"ContrastBolusAgent": "APPLIED"}, True),
    ({"ContrastBolusAgent": "ISOVUE300/100"}, True),
    ({"ContrastBolusAgent": "CE"}, True),
    ({"ContrastBolusAgent": "NONE"}, False),
    ({"ContrastBolusAgent": "None"}, False),
    ({"ContrastBolusAgent": "Iohexol", "ContrastBolusRoute": "IV"}, True),
    ({"ContrastBolusRoute": "IV"}, True),
    ({"ContrastBolusAgent": "32 DILUTED OMNI & 120", "ContrastBolusRoute": "Oral & IV"}, True),
]


@pytest.mark.parametrize(("tags", "expected"), CONTRAST, ids=[str(tags) for tags, _ in CONTRAST])
def test_contrast_is_yes_no_or_unknown(tmp_path: Path, tags: dict[str, str | None], expected: bool | None) -> None:
    """An absent tag is no evidence of an unenhanced scan. Planted: absent read as False."""
    found = acquired(tmp_path, **tags)
    assert found.contrast is expected
    if expected:
        assert found.contrast_agent == tags.get("ContrastBolusAgent")
        assert found.contrast_route == tags.get("ContrastBolusRoute")


REDUCED = [
    {"SeriesDescription": "Spine 1.0 Br40 iMAR"},
    {"SeriesDescription": "L-SPINE O-MAR"},
    {"SeriesDescription": "Bone SEMAR 0.5"},
    {"SeriesDescription": "HALS SmartMAR"},
    {"SeriesDescription": "Thorax MAR 2.0"},
    {"ConvolutionKernel": ["Br40f", "3", "iMAR"]},
    {"ConvolutionKernel": "FC18 SEMAR"},
    {"ReconstructionAlgorithm": "iMAR"},
]


@pytest.mark.parametrize("tags", REDUCED, ids=str)
def test_artefact_reduction_is_recognised(tmp_path: Path, tags: dict[str, Any]) -> None:
    assert acquired(tmp_path, **tags).metal_artifact_reduction is True


@pytest.mark.parametrize("text", ["Marrow protocol", "SUMMARY", "Marc 1.0 Br40", "mark", "ARMAR3", "March follow-up"])
def test_artefact_reduction_is_not_read_into_other_words(tmp_path: Path, text: str) -> None:
    assert not acquired(tmp_path, SeriesDescription=text).metal_artifact_reduction


MONO = [
    ({"SeriesDescription": "MonoE 70 keV"}, 70.0),
    ({"SeriesDescription": "DE_Mono_100keV Br40"}, 100.0),
    ({"SeriesDescription": "Monoenergetic Plus 50 keV"}, 50.0),
    ({"SeriesDescription": "GSI Mono 140 keV"}, 140.0),
    ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "CT_SOM5 SPI", "MONO_40KEV"]}, 40.0),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "MONOENERGETIC"]}, 0.0),
]


@pytest.mark.parametrize(("tags", "kev"), MONO, ids=[str(tags) for tags, _ in MONO])
def test_mono_energetic_images_are_recognised(tmp_path: Path, tags: dict[str, Any], kev: float) -> None:
    """Their HU are not those of 120 kVp whatever KVP says. 0.0 when the energy is not told."""
    assert acquired(tmp_path, **tags).monoenergetic_kev == kev


@pytest.mark.parametrize("text", ["Monoblock", "70 kV", "harmonic", "Mono spine follow 2020"])
def test_mono_energetic_is_not_read_into_other_words(tmp_path: Path, text: str) -> None:
    found = acquired(tmp_path, SeriesDescription=text).monoenergetic_kev
    assert found is None or (found == 0.0 and "Mono " in text)


def test_slices_that_differ_are_not_told_as_one(tmp_path: Path) -> None:
    """Half of the slices at 100 kVp: no single voltage is true. Planted: the first slice's voltage for all."""
    factory.write_series(
        tmp_path, factory.pattern(6), factory.axial(6), slice_tags={k: {"KVP": "100"} for k in range(3, 6)}
    )
    (entry,) = scan([tmp_path]).series
    assert entry.acquisition.kvp is None
    assert entry.verdict is not Verdict.USABLE


def test_enhanced_says_the_same_in_other_places(tmp_path: Path) -> None:
    """kVp, kernel, contrast and thickness sit in functional groups. Planted: looked for at the top level only."""
    agent = item(
        CodeValue="C-B0322",
        CodingSchemeDesignator="SRT",
        CodeMeaning="Iohexol",
        ContrastBolusAdministrationRouteSequence=[
            item(CodeValue="G-D101", CodingSchemeDesignator="SNM3", CodeMeaning="Intravenous route")
        ],
    )
    path = tmp_path / "enhanced"
    factory.write_enhanced(path, factory.pattern(4), [factory.axial(4)], tags={"ContrastBolusAgentSequence": [agent]})
    found = spineimg.load(path).acquisition
    assert found.kvp == 120.0
    assert found.kernel == "B30f"
    assert found.slice_thickness_mm == 1.25
    assert found.manufacturer == "Acme Ltd"
    assert found.contrast is True
    assert "Iohexol" in str(found.contrast_agent)
    assert "Intravenous" in str(found.contrast_route)


def test_enhanced_without_contrast_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "enhanced"
    factory.write_enhanced(path, factory.pattern(4), [factory.axial(4)])
    assert spineimg.load(path).acquisition.contrast is None


# -- names ------------------------------------------------------------------------------------------------------------

TEXTS = {
    "Latin-1": ("ISO_IR 100", "Wirbelsäule Ö 1.5"),
    "default": (None, "Spine 1.5"),
    "UTF-8": ("ISO_IR 192", "脊椎 позвоночник σπονδυλική 척추"),
    "GB18030": ("GB18030", "脊柱平扫 1.25mm"),
    "GB18030 with a backslash byte": ("GB18030", "脊乗 1.5"),
    "GBK": ("GBK", "胸椎"),
    "Japanese kanji": (["", "ISO 2022 IR 87"], "胸椎 CT"),
    "Japanese katakana": ("ISO_IR 13", "ｾｷﾂｲ"),
    "Korean": (["", "ISO 2022 IR 149"], "척추 CT"),
    "Cyrillic": ("ISO_IR 144", "Позвоночник"),
    "Greek": ("ISO_IR 126", "Σπονδυλική στήλη"),
    "Latin-2": ("ISO_IR 101", "Kręgosłup"),
    "Arabic": ("ISO_IR 127", "العمود الفقري"),
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("syntax", [factory.ExplicitVRLittleEndian, factory.ImplicitVRLittleEndian], ids=["e", "i"])
def test_texts_survive_in_any_character_set(tmp_path: Path, name: str, syntax: str) -> None:
    """Planted: text decoded as Latin-1 whatever the character set."""
    charset, text = TEXTS[name]
    tags = {"SpecificCharacterSet": charset, "SeriesDescription": text, "ManufacturerModelName": None}
    encoding = factory.Encoding(transfer_syntax=syntax)
    factory.write_series(tmp_path, factory.pattern(3), factory.axial(3), tags=tags, encoding=encoding)
    (entry,) = scan([tmp_path]).series
    assert entry.info.description == text
    assert entry.verdict is Verdict.USABLE


@pytest.mark.parametrize("charset", ["ISO_IR 999", "nonsense", "", ["ISO 2022 IR 87", "what"]], ids=str)
def test_a_wrong_character_set_stops_nothing(tmp_path: Path, charset: Any) -> None:
    """Bytes that the named set does not have, or a set that does not exist: the slices are still slices."""
    written = factory.write_series(tmp_path, factory.pattern(3), factory.axial(3))
    for path in written.paths:
        ds = pydicom.dcmread(path)
        ds.SpecificCharacterSet = "ISO_IR 100"
        ds.SeriesDescription = "Säule 1.5"
        ds.save_as(path)
        content = path.read_bytes()
        value = "\\".join([charset] if isinstance(charset, str) else charset).encode()
        value += b" " * (len(value) % 2)
        at = content.index(b"\x08\x00\x05\x00CS")
        head = content[:at] + b"\x08\x00\x05\x00CS" + len(value).to_bytes(2, "little") + value
        path.write_bytes(head + content[at + 8 + int.from_bytes(content[at + 6 : at + 8], "little") :])
    (entry,) = scan([tmp_path]).series
    assert (entry.n_slices, entry.verdict) == (3, Verdict.USABLE)
    assert "ule 1.5" in str(entry.info.description)


def test_nobody_is_named_unless_asked(tmp_path: Path) -> None:
    """Every text that leaves the reader is searched for name, id and birth date. Planted: the name in the record."""
    written = factory.write_series(tmp_path / "good", factory.pattern(3), factory.tilted(3))
    factory.write_series(tmp_path / "bad", factory.pattern(3), factory.axial(3), tags={"PixelSpacing": None})
    factory.write_enhanced(tmp_path / "enhanced", factory.pattern(3), [factory.axial(3)])
    index = scan([tmp_path])
    assert len(index.series) == 3
    told = []
    for entry in index.series:
        told += [str(dataclasses.asdict(entry.info)), str(dataclasses.asdict(entry.acquisition)), str(entry.notes)]
        told += [repr(entry), str(entry.geometry)]
    told += [str(index.skipped), repr(index), repr(spineimg.load(written.folder))]
    for value in factory.PATIENT.values():
        assert not [text for text in told if value in text]
        assert not [text for text in told if value.split("^")[0] in text]


def test_the_patient_is_there_when_asked(tmp_path: Path) -> None:
    """keep_ids, with a name in two scripts as Japanese scanners write it."""
    name = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    tags = {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": name}
    factory.write_series(tmp_path, factory.pattern(3), factory.axial(3), tags=tags)
    (entry,) = scan([tmp_path], keep_ids=True).series
    assert dict(entry.info.patient) == {
        "patient_id": factory.PATIENT["PatientID"],
        "patient_name": name,
        "patient_birth_date": factory.PATIENT["PatientBirthDate"],
    }
    assert scan([tmp_path]).series[0].info.patient == ()
