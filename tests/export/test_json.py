"""The result file says what the contract says, and comes back as it went."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spineimg import __version__
from spineimg.anatomy import LEVELS, Role
from spineimg.errors import SpineImgError
from spineimg.export.json import all_notes, read_result, result_to_dict, write_json
from spineimg.notes import Note
from spineimg.volume import Acquisition, SeriesInfo, Sharpness
from tests.export.records import CREATED, FLAG, case, slice_hu, vertebra


def test_every_key_of_the_contract():
    """Spelled out, so that a renamed field cannot rename the file's key. Planted: `center` as `center_lps_mm`."""
    result = result_to_dict(case(vertebra(notes=(Note("kvp_unknown", "the kVp is unknown", "T12"),))), CREATED)
    assert list(result) == [
        *("schema", "series", "acquisition", "vertebrae", "screws", "rods", "grade", "notes", "made_by"),
    ]
    assert result["schema"] == "spineimg.result/1"
    assert result["series"] == {
        "series_instance_uid": "1.2.840.1",
        "description": "SPINE 1.0 B30f",
        "n_slices": 290,
        "spacing_mm": [1.0, 0.7, 0.7],
    }
    acquisition = result["acquisition"]
    assert list(acquisition)[:7] == [
        *("kvp", "contrast", "kernel", "slice_thickness_mm", "manufacturer", "metal_artifact_reduction", "stated"),
    ]
    assert (acquisition["kvp"], acquisition["contrast"], acquisition["model"], acquisition["stated"]) == (
        120.0,
        False,
        None,
        [],
    )
    (found,) = result["vertebrae"]
    numbers = ("mean_hu", "pooled_mean_hu", "median_hu", "sd_hu", "n_voxels", "kept_fraction")
    assert list(found) == ["level", "role", "confirmed", *numbers, "slices", "flag", "notes"]
    assert [found[name] for name in ("level", "role", "confirmed", *numbers)] == [
        *("T12", "LIV", True, 130.5, 130.5, 130.5, 21.5, 1236, 1.0),
    ]
    assert found["slices"][0] == {
        "position": "superior",
        "mean_hu": 131.5,
        "sd_hu": 21.25,
        "median_hu": 130.5,
        "n_voxels": 412,
        "area_mm2": 311.5,
        "kept_fraction": 1.0,
        "center": [1.5, -22.0, 310.0],
        "u": [1.0, 0.0, 0.0],
        "v": [0.0, 1.0, 0.0],
        "semi_axes_mm": [12.0, 10.0],
        "sop_instance_uids": ["1.2.3.4"],
    }
    assert found["flag"] == {
        "call": "indeterminate",
        "below_cutoff": False,
        "cutoff_hu": 127.273,
        "interval_hu": [104.25, 146.5],
        "source": "Lee 2024",
        "text": FLAG.text,
    }
    assert found["notes"] == [{"code": "kvp_unknown", "text": "the kVp is unknown", "about": "T12"}]
    assert (result["screws"], result["rods"]) == ([], [])
    assert result["grade"] == {"silva_type": None, "text": "implants were not screened"}
    assert result["notes"] == [{"code": "gantry_tilt", "text": "the gantry is tilted by 12.0°", "about": ""}]
    assert result["made_by"] == {
        "spineimg": __version__,
        "settings": {"hu": {"min_kept_fraction": 0.5}},
        "created": "2026-01-02T03:04:05Z",
    }


def test_created_is_told_in_utc():
    """Planted: the time zone cut off instead of converted."""
    berlin = datetime(2026, 7, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert result_to_dict(case(), berlin)["made_by"]["created"] == "2026-06-30T23:30:00Z"


def test_unmeasured_is_null_never_zero_or_nan():
    """Planted: `n_voxels` written as the record's 0; `_plain` without its test for finite."""
    empty = vertebra("T12", Role.LIV, (slice_hu(mean=None, u_lps=None, v_lps=None, semi_axes_mm=None),), flag=None)
    result = result_to_dict(case(empty, spacing_mm=(math.nan, 0.7, 0.7)), CREATED)
    (found,) = result["vertebrae"]
    numbers = ("mean_hu", "pooled_mean_hu", "median_hu", "sd_hu", "n_voxels", "kept_fraction", "flag")
    assert {found[name] for name in numbers} == {None}
    (plane,) = found["slices"]
    names = ("mean_hu", "sd_hu", "median_hu", "n_voxels", "area_mm2", "u", "v", "semi_axes_mm")
    assert {plane[name] for name in names} == {None}
    assert plane["kept_fraction"] == 0.25
    assert result["series"]["spacing_mm"] == [None, 0.7, 0.7]
    json.dumps(result, allow_nan=False)


def test_part_identity_and_kinds():
    """Parts are named UID#1; the patient appears only when asked for; NumPy and enums become plain values."""
    named = SeriesInfo("1.2", 2, None, patient=(("patient_id", "4711"),))
    acquisition = Acquisition(sharpness=Sharpness.SOFT, stated=("kvp",), monoenergetic_kev=0.0)
    settings = {"z": np.float64(1.5), "n": np.int64(3), "on": np.True_, "list": (np.arange(2), math.inf)}
    result = result_to_dict(case(series=named, acquisition=acquisition, settings=settings), CREATED)
    assert result["series"]["series_instance_uid"] == "1.2#2"
    assert result["patient"] == {"patient_id": "4711"}
    assert "patient" not in result_to_dict(case(), CREATED)
    assert result["acquisition"]["sharpness"] == "soft"
    assert type(result["acquisition"]["sharpness"]) is str
    assert result["made_by"]["settings"] == {"z": 1.5, "n": 3, "on": True, "list": [[0, 1], None]}
    assert result_to_dict(case(series=SeriesInfo()), CREATED)["series"]["series_instance_uid"] is None


def test_notes_of_measurement_and_assessment_once():
    shared, own = Note("a", "one", "T12"), Note("b", "two", "T12")
    made = vertebra(notes=(shared, own))
    made = replace(made, hu=replace(made.hu, notes=(shared,)))
    assert all_notes(made) == (shared, own)


HU = st.one_of(st.none(), st.floats(-2000, 20000))


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.sampled_from(LEVELS), HU), unique_by=lambda one: one[0], max_size=5),
    st.one_of(st.none(), st.text()),
)
def test_round_trip(tmp_path_factory, levels, description):
    path = tmp_path_factory.mktemp("json") / "result.json"
    vertebrae = [vertebra(level, None, (slice_hu(mean=mean),), None) for level, mean in levels]
    made = replace(case(*vertebrae, series=SeriesInfo("1.2", None, description)), vertebrae=tuple(vertebrae))
    result = result_to_dict(made, CREATED)
    write_json(path, result)
    again = read_result(path)
    if description is not None:  # a lone surrogate has no UTF-8
        result["series"]["description"] = description.encode("utf-8", "replace").decode()
    assert again == result


def test_standard_output_is_ascii(capsys):
    write_json("-", {"name": "Jörg 山田 \udc80"})
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {"name": "Jörg 山田 \udc80"}


def test_not_finite_never_reaches_a_file(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"hu": math.nan})
    assert not list(tmp_path.iterdir())


def broken(change):
    result = result_to_dict(case(), CREATED)
    change(result)
    return json.dumps(result).encode()


BAD = {
    "no file": (None, "cannot read"),
    "empty": (b"", "is not JSON"),
    "cut": (broken(lambda r: None)[:-40], "is not JSON"),
    "not text": (b"\xff\xfe\x00", "is not JSON"),
    "deep": (b"[" * 100_000, "is not JSON"),
    "long number": (b'{"a": ' + b"9" * 5000 + b"}", "is not JSON"),
    "list": (b"[]", "schema None"),
    "rois": (b'{"schema": "spineimg.rois/1"}', "schema 'spineimg.rois/1', a result file needs"),
    "nan": (broken(lambda r: r["vertebrae"][0].update(mean_hu=math.nan)), "NaN is not a JSON number"),
    "infinite": (broken(lambda r: None).replace(b'"mean_hu": 130.5', b'"mean_hu": 1e999'), "`mean_hu` of T12"),
    "text hu": (broken(lambda r: r["vertebrae"][0].update(mean_hu="130")), "`mean_hu` of T12"),
    "bool hu": (broken(lambda r: r["vertebrae"][0].update(mean_hu=True)), "`mean_hu` of T12"),
    "no vertebrae": (broken(lambda r: r.pop("vertebrae")), "`vertebrae` is missing"),
    "vertebra": (broken(lambda r: r["vertebrae"].append(3)), "`vertebrae` must hold objects"),
    "level": (broken(lambda r: r["vertebrae"][0].update(level="Q7")), "'Q7' is not a vertebral level"),
    "level number": (broken(lambda r: r["vertebrae"][0].update(level=7)), "7 is not a vertebral level"),
    "twice": (broken(lambda r: r["vertebrae"].append(dict(r["vertebrae"][0], level="t12"))), "T12 is listed twice"),
    "call": (broken(lambda r: r["vertebrae"][0]["flag"].update(call="maybe")), "`flag.call` of T12 is 'maybe'"),
    "call list": (broken(lambda r: r["vertebrae"][0]["flag"].update(call=[])), "`flag.call` of T12"),
    "center": (broken(lambda r: r["vertebrae"][0]["slices"][0].update(center=[1, 2])), "`center` of three"),
    "slice": (broken(lambda r: r["vertebrae"][0].update(slices=["x"])), "`center` of three"),
    "note": (broken(lambda r: r["vertebrae"][0].update(notes=["x"])), "`notes` of T12"),
    "note text": (broken(lambda r: r["vertebrae"][0].update(notes=[{"text": None}])), "`text` is missing"),
    "uid": (broken(lambda r: r["series"].update(series_instance_uid=5)), "`series_instance_uid` is missing or not str"),
    "settings": (broken(lambda r: r["made_by"].pop("settings")), "`settings` is missing"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_in_one_sentence(tmp_path, name):
    """Planted: `read_result` returning the dict unchecked."""
    content, message = BAD[name]
    path = tmp_path / "other.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpineImgError, match=r"other\.json") as caught:
        read_result(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
