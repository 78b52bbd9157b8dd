"""ROI files: what is read, what is refused and how it says so, and that nothing is lost in writing."""

from __future__ import annotations

import json
import math
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spineimg.anatomy import LEVELS, Construct, Status, order
from spineimg.errors import RoiError
from spineimg.io import rois as rois_module
from spineimg.io.rois import parse_rois, read_rois, rois_to_dict, write_rois
from spineimg.rois import POSITIONS, Ellipse, LabelVolume, MaskRoi, RoiSet, VertebraRoi
from spineimg.volume import ArraySource


def ellipse(position="superior", z=402.0, **changes):
    entry = {
        "position": position,
        "center": [0.0, -30.0, z],
        "u": [1, 0, 0],
        "v": [0, 1, 0],
        "semi_axes_mm": [11.0, 8.0],
    }
    return {key: value for key, value in (entry | changes).items() if value != "absent"}


def document(**changes):
    """The example of the format: a click for T12 and three ellipses for T8."""
    entry = {
        "schema": "spineimg.rois/1",
        "reader": "A",
        "construct": {"uiv": "T8", "liv": "T12"},
        "vertebrae": [
            {"level": "T12", "center": [1.5, -22.0, 310.0], "confirmed": True, "status": None},
            {"level": "T8", "slices": [ellipse("superior", 402.0), ellipse("mid", 395.0), ellipse("inferior", 388.0)]},
        ],
    }
    return {key: value for key, value in (entry | changes).items() if value != "absent"}


def one(**vertebra):
    return document(vertebrae=[{"level": "T8", **vertebra}])


def save(path: Path, data) -> Path:
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


def labels(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.full((4, 5, 6), 27, np.uint8), np.diag([1.0, 2, 3, 1])), path)
    return path


# -- reading -----------------------------------------------------------------------------------------------------------


def test_the_example_of_the_format(tmp_path):
    """Planted: u and v swapped; the construct dropped."""
    rois = read_rois(save(tmp_path / "rois.json", document()))
    assert (rois.reader, rois.construct) == ("A", Construct("T8", "T12"))
    click, spelt_out = rois.vertebrae
    assert (click.level, click.confirmed, click.status, click.ellipses, click.mask) == ("T12", True, None, (), None)
    assert click.center_lps_mm.tolist() == [1.5, -22, 310]
    assert (spelt_out.level, spelt_out.center_lps_mm, spelt_out.confirmed) == ("T8", None, None)
    assert [e.position for e in spelt_out.ellipses] == list(POSITIONS)
    assert [e.center_lps_mm.tolist() for e in spelt_out.ellipses] == [[0, -30, z] for z in (402, 395, 388)]
    assert spelt_out.ellipses[0].u_lps.tolist() == [1, 0, 0]
    assert spelt_out.ellipses[0].v_lps.tolist() == [0, 1, 0]
    assert spelt_out.ellipses[0].semi_axes_mm == (11, 8)


def test_what_may_be_absent_or_null(tmp_path):
    bare = {"schema": "spineimg.rois/1", "vertebrae": [{"level": "L4", "center": [1, 2, 3]}]}
    nulls = {
        "schema": "spineimg.rois/1", "reader": None, "construct": {"uiv": None, "liv": None},
        "vertebrae": [
            {"level": "L4", "center": [1, 2, 3], "slices": None, "mask": None, "confirmed": None, "status": None}
        ],
    }  # fmt: skip
    for data in (bare, nulls, document(construct=None)):
        rois = parse_rois(data, tmp_path)
        assert rois.construct == Construct()
        assert rois.vertebrae[0].confirmed in (None, True)
    assert parse_rois(document(vertebrae=[]), tmp_path).vertebrae == ()
    asked_for_only = parse_rois(one(), tmp_path).vertebrae[0]
    assert (asked_for_only.center_lps_mm, asked_for_only.ellipses, asked_for_only.mask) == (None, (), None)


def test_center_beside_slices_and_fewer_slices(tmp_path):
    roi = parse_rois(one(center=[1, 2, 3], slices=[ellipse("mid")]), tmp_path).vertebrae[0]
    assert roi.center_lps_mm.tolist() == [1, 2, 3]
    assert [e.position for e in roi.ellipses] == ["mid"]


def test_keys_of_other_programs_are_passed_over(tmp_path):
    """A file of found levels has quality and body beside the rest."""
    data = one(
        center=[1, 2, 3], quality=0.93, body={"width_mm": 40.0, "axes": [[1, 0, 0]]},
        comment="", name="x", id=1, hu=104.2,
    )  # fmt: skip
    data |= {"made_by": {"spineimg": "0.1.0"}, "created": "2026", "series_instance_uid": "1.2", "notes": []}
    assert parse_rois(data, tmp_path).vertebrae[0].center_lps_mm.tolist() == [1, 2, 3]


def test_spellings(tmp_path):
    rois = parse_rois(
        document(construct={"uiv": "t08", "liv": "l1"}, vertebrae=[{"level": " l1", "center": [1, 2, 3]}]), tmp_path
    )
    assert (rois.construct, rois.vertebrae[0].level) == (Construct("T8", "L1"), "L1")
    for status in Status:
        assert parse_rois(one(status=status.value), tmp_path).vertebrae[0].status is status


def test_byte_order_mark_and_other_scripts(tmp_path):
    path = tmp_path / "rois.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(document(reader="Zoë 李"), ensure_ascii=False).encode())
    assert read_rois(path).reader == "Zoë 李"


# -- what is refused ---------------------------------------------------------------------------------------------------

E = ellipse
REFUSED = [
    ([], "the file must be a JSON object, found []"),
    (document(schema="absent"), "schema must be 'spineimg.rois/1', found nothing"),
    (document(schema="spineimg.rois/2"), "found 'spineimg.rois/2'"),
    (document(schema=["spineimg.rois/1"]), "found ['spineimg.rois/1']"),
    (document(reader=5), "reader must be a text or null, found 5"),
    (document(vertebrae="absent"), "vertebrae must be a list, found nothing"),
    (document(vertebrae={"level": "T8"}), "vertebrae must be a list, found {'level': 'T8'}"),
    (document(vertebrae=["T8"]), "vertebra 1: it must be a JSON object, found 'T8'"),
    (document(vertebrae=[{"center": [1, 2, 3]}]), "vertebra 1: None is not a vertebral level"),
    (document(vertebrae=[{"level": "T8"}, {"level": "T14"}]), "vertebra 2: 'T14' is not a vertebral level"),
    (document(vertebrae=[{"level": "T8"}, {"level": "t8"}]), "names the level T8 twice"),
    (document(construct="T8-T12"), "construct: it must be a JSON object, found 'T8-T12'"),
    (document(construct={"uiv": "T8", "liv": "X"}), "construct: liv: 'X' is not a vertebral level"),
    (document(construct={"uiv": 8}), "construct: uiv: 8 is not a vertebral level"),
    (document(construct={"uiv": "T12", "liv": "T8"}), "construct: the UIV (T12) lies below the LIV (T8): swap them"),
    (document(construct={"UIV": "T8"}), "construct: has an unknown key 'UIV': is 'uiv' meant?"),
    (document(readr="A"), "has an unknown key 'readr': is 'reader' meant?"),
    (document(vertebra=[]), "has an unknown key 'vertebra': is 'vertebrae' meant?"),
    (one(centre=[1, 2, 3]), "vertebra 1: has an unknown key 'centre': is 'center' meant?"),
    (one(Center=[1, 2, 3]), "unknown key 'Center'"),
    (one(slice=[]), "is 'slices' meant?"),
    (one(state="tumour"), "is 'status' meant?"),
    (one(masks={}), "is 'mask' meant?"),
    (one(center=[1, 2]), "T8: center must be 3 numbers in mm (LPS), none beyond 100000, found [1, 2]"),
    (one(center=[1, 2, 3, 4]), "found [1, 2, 3, 4]"),
    (one(center="1 2 3"), "found '1 2 3'"),
    (one(center=[1, 2, "3"]), "found [1, 2, '3']"),
    (one(center=[1, 2, None]), "found [1, 2, None]"),
    (one(center=[1, 2, True]), "found [1, 2, True]"),
    (one(center=[1, 2, [3]]), "found [1, 2, [3]]"),
    (one(center=[1, 2, 1e6]), "found [1, 2, 1000000.0]"),
    (one(center=[1, 2, 10**400]), "center must be 3 numbers"),
    (one(center=[1, 2, math.nan]), "center must be 3 numbers"),
    (one(center=[1, 2, -math.inf]), "center must be 3 numbers"),
    (one(center={"x": 1, "y": 2, "z": 3}), "center must be 3 numbers"),
    (one(confirmed="yes"), "T8: confirmed must be true or false or null, found 'yes'"),
    (one(confirmed=1), "confirmed must be true or false or null, found 1"),
    (
        one(status="fracture"),
        "T8: status must be null or one of tumour, cemented, fractured, instrumented, found 'fracture'",
    ),
    (one(status=["tumour"]), "status must be null or one of"),
    (one(slices=[]), "T8: slices must be a list of one to three ellipses, found 0 of them"),
    (one(slices=[E("superior"), E("mid"), E("inferior"), E("mid")]), "found 4 of them"),
    (one(slices=E()), "slices must be a list of one to three ellipses, found {"),
    (one(slices=[E(), 5]), "T8: slice 2: it must be a JSON object, found 5"),
    (one(slices=[E("mid"), E("mid")]), "T8: slices: names the position mid twice"),
    (one(slices=[E("absent")]), "T8: slice 1: position must be one of superior, mid, inferior, found nothing"),
    (one(slices=[E("upper")]), "found 'upper'"),
    (one(slices=[E(["mid"])]), "found ['mid']"),
    (one(slices=[E(center="absent")]), "T8: superior: center must be 3 numbers in mm (LPS)"),
    (one(slices=[E(u="absent")]), "T8: superior: u must be 3 numbers"),
    (one(slices=[E(v=[0, 1])]), "T8: superior: v must be 3 numbers"),
    (one(slices=[E(u=[0, 0, 0])]), "T8: superior: u and v of the superior ellipse must be unit vectors"),
    (one(slices=[E(u=[1.1, 0, 0])]), "must be unit vectors at right angles"),
    (one(slices=[E(u=[0.8, 0.6, 0])]), "must be unit vectors at right angles"),
    (one(slices=[E(u=[1e200, 0, 0])]), "u must be 3 numbers"),
    (one(slices=[E(semi_axes_mm=[11])]), "T8: superior: semi_axes_mm must be 2 numbers in mm"),
    (
        one(slices=[E(semi_axes_mm=[0, 8])]),
        "semi_axes_mm of the superior ellipse must lie in 0.1-100 mm, found [0.0, 8.0]",
    ),
    (one(slices=[E(semi_axes_mm=[-11, 8])]), "must lie in 0.1-100 mm"),
    (one(slices=[E(semi_axes_mm=[False, 8])]), "semi_axes_mm must be 2 numbers"),
    (one(slices=[E(semi_axes_mm="absent", semi_axes=[11, 8])]), "unknown key 'semi_axes': is 'semi_axes_mm' meant?"),
    (one(mask="a.nii"), "T8: mask: it must be a JSON object, found 'a.nii'"),
    (one(mask={"file": "a.nii"}), "T8: mask: label must be a whole number from 1 to 65535, found nothing"),
    (one(mask={"file": "a.nii", "label": 0}), "found 0"),
    (one(mask={"file": "a.nii", "label": 27.0}), "found 27.0"),
    (one(mask={"file": "a.nii", "label": True}), "found True"),
    (one(mask={"label": 27}), "T8: mask: file must be the path of a label map, found nothing"),
    (one(mask={"file": "", "label": 27}), "file must be the path of a label map"),
    (one(mask={"file": "a\0.nii", "label": 27}), "file must be the path of a label map"),
    (one(mask={"file": "/etc/a.nii", "label": 27}), "file must be a path relative to the ROI file"),
    (one(mask={"file": "absent.nii", "label": 27}), "absent.nii: cannot be read (No such file or directory)"),
    (one(mask={"file": ".", "label": 27}), "its name must end in"),
    (one(mask={"file": "text.nii", "label": 27}), "not a NIfTI file"),
    (one(mask={"file": "a.nii", "label": 27}, center=[1, 2, 3]), "T8: has a mask beside a center or slices"),
    (one(mask={"file": "a.nii", "label": 27}, slices=[E()]), "T8: has a mask beside a center or slices"),
]


@pytest.mark.parametrize(("data", "message"), REFUSED, ids=range(len(REFUSED)))
def test_refusals_name_file_level_key_and_value(tmp_path, data, message):
    """Planted: unknown keys all passed over, so that `centre` loses a click; True taken for 1."""
    labels(tmp_path / "a.nii")
    save(tmp_path / "text.nii", "no NIfTI")
    with pytest.raises(RoiError) as from_object:
        parse_rois(data, tmp_path)
    assert message in str(from_object.value)
    assert "\n" not in str(from_object.value)
    if "NaN" not in (text := json.dumps(data)) and "Infinity" not in text:
        with pytest.raises(RoiError) as from_file:
            read_rois(save(tmp_path / "reader A.json", data))
        assert str(from_file.value) == f"{tmp_path / 'reader A.json'}: {from_object.value}"


GOOD = json.dumps(document())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (GOOD.replace("310.0", "NaN"), "holds NaN"),
        (GOOD.replace("310.0", "-Infinity"), "holds -Infinity"),
        (GOOD.replace("310.0", "1e999"), "T12: center must be 3 numbers"),
        (GOOD.replace("310.0", "9" * 400), "T12: center must be 3 numbers"),
        (GOOD.replace("310.0", "9" * 5000), "not JSON"),
        (GOOD.replace("310.0", "310,0"), "T12: center must be 3 numbers"),
        (GOOD.replace('"reader"', '"schema"'), "names the key 'schema' twice"),
        (GOOD.replace('"confirmed": true', '"center": [0, 0, 0]'), "names the key 'center' twice"),
        ("[" * 200_000, "nested too deeply"),
        ('{"a":' * 200_000, "nested too deeply"),
        (GOOD.encode("utf-16"), "not UTF-8"),
        (GOOD.replace('"A"', '"Zoë"').encode("latin-1"), "not UTF-8"),
        (b"\x1f\x8b\x08\0\0", "not UTF-8"),
        (b" " * (20 * 2**20 + 1), "larger than 20 MB"),
    ],
    ids=range(16),
)
def test_what_is_no_roi_file(tmp_path, content, message):
    path = tmp_path / "bad.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RoiError) as caught:
        read_rois(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_what_is_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "absent.json"):
        with pytest.raises(RoiError, match="cannot be read"):
            read_rois(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(POSITIONS),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["center", "u", "file", "label"]), inner)
    ),
    max_leaves=8,
)


@given(st.sampled_from(["level", "center", "slices", "mask", "confirmed", "status", "quality"]), json_values)
def test_any_value_anywhere_is_read_or_refused(tmp_path_factory, key, value):
    """Nothing but RoiError leaves, whatever a key holds."""
    entry = {"level": "T8", key: value}
    slice_entry = ellipse() | {"u" if key == "level" else "center": value}
    for vertebra in (entry, {"level": "T9", "slices": [slice_entry]}):
        try:
            rois = parse_rois(document(vertebrae=[vertebra]), Path("nowhere"))
        except RoiError:
            continue
        assert rois.vertebrae[0].level in LEVELS


# -- masks -------------------------------------------------------------------------------------------------------------


def test_masks_are_opened_once_and_relative_to_the_file(tmp_path, monkeypatch):
    """Planted: the path taken from the working folder."""
    labels(tmp_path / "masks" / "case.nii.gz")
    opened = []
    original = rois_module.open_labels
    monkeypatch.setattr(rois_module, "open_labels", lambda path: opened.append(path) or original(path))
    mask = {"file": "../masks/case.nii.gz", "label": 27}
    (tmp_path / "rois").mkdir()
    data = document(vertebrae=[{"level": "L5", "mask": mask}, {"level": "L4", "mask": {**mask, "label": 28}}])
    rois = read_rois(save(tmp_path / "rois" / "a.json", data))
    assert len(opened) == 1
    assert [roi.mask.label for roi in rois.vertebrae] == [27, 28]
    assert rois.vertebrae[0].mask.labels is rois.vertebrae[1].mask.labels
    assert rois.vertebrae[0].mask.labels.name == "case.nii.gz"
    assert rois.vertebrae[0].mask.labels.geometry.shape == (6, 5, 4)
    assert (rois.vertebrae[0].mask.labels.source.read(2) == 27).all()

    write_rois(tmp_path / "b.json", rois)
    again = json.loads((tmp_path / "b.json").read_text())
    assert again["vertebrae"][0] == {"level": "L5", "mask": {"file": "masks/case.nii.gz", "label": 27}}
    assert read_rois(tmp_path / "b.json").vertebrae[1].mask.label == 28


def test_a_mask_in_memory_cannot_be_named(tmp_path):
    geometry = read_rois_geometry(tmp_path)
    made = LabelVolume(geometry, ArraySource(np.zeros((6, 5, 4), np.int16)), "made")
    with pytest.raises(RoiError, match=r"a\.json: the mask made lies in no file"):
        write_rois(tmp_path / "a.json", RoiSet((VertebraRoi("L5", mask=MaskRoi(made, 1)),)))


def read_rois_geometry(tmp_path):
    labels(tmp_path / "a.nii")
    mask = parse_rois(one(mask={"file": "a.nii", "label": 27}), tmp_path).vertebrae[0].mask
    return mask.labels.geometry


# -- writing -----------------------------------------------------------------------------------------------------------

millimetres = st.floats(-1e5, 1e5)
points = st.lists(millimetres, min_size=3, max_size=3).map(np.array)


@st.composite
def ellipses(draw, position):
    turn, up = draw(st.floats(-np.pi, np.pi)), draw(st.floats(-1, 1))
    u = np.array([np.cos(turn), np.sin(turn) * np.cos(up), np.sin(turn) * np.sin(up)])
    v = np.array([-np.sin(turn), np.cos(turn) * np.cos(up), np.cos(turn) * np.sin(up)])
    return Ellipse(position, draw(points), u, v, (draw(st.floats(0.1, 100)), draw(st.floats(0.1, 100))))


@st.composite
def roi_sets(draw):
    vertebrae = []
    for level in draw(st.lists(st.sampled_from(LEVELS), unique=True, max_size=4)):
        chosen = draw(st.lists(st.sampled_from(POSITIONS), unique=True, max_size=3))
        vertebrae.append(
            VertebraRoi(
                level,
                draw(st.none() | points),
                tuple(draw(ellipses(position)) for position in chosen),
                None,
                draw(st.none() | st.booleans()),
                draw(st.none() | st.sampled_from(Status)),
            )
        )
    ends = sorted(draw(st.lists(st.sampled_from(LEVELS), min_size=2, max_size=2)), key=order)
    construct = Construct(*(draw(st.sampled_from([None, end])) for end in ends))
    return RoiSet(tuple(vertebrae), construct, draw(st.none() | st.text()))


def plain(rois: RoiSet):
    """A ROI set as comparable values, numbers bit for bit."""
    return rois_to_dict(rois, Path())


@given(roi_sets())
def test_written_and_read_again(tmp_path_factory, rois):
    """Planted: numbers rounded to six decimals when written."""
    path = tmp_path_factory.mktemp("rois") / "rois.json"
    write_rois(path, rois)
    again = read_rois(path)
    assert plain(again) == plain(rois)
    for ours, theirs in zip(again.vertebrae, rois.vertebrae, strict=True):
        for a, b in zip(ours.ellipses, theirs.ellipses, strict=True):
            assert a.center_lps_mm.tobytes() == b.center_lps_mm.tobytes()
            assert (a.u_lps.tobytes(), a.v_lps.tobytes()) == (b.u_lps.tobytes(), b.v_lps.tobytes())
    first = path.read_bytes()
    write_rois(path, again)
    assert path.read_bytes() == first


def test_written_for_people_to_read(tmp_path):
    write_rois(tmp_path / "a.json", parse_rois(document(reader="[\n 1,\n 2\n]"), tmp_path))
    lines = (tmp_path / "a.json").read_text().splitlines()
    assert '      "center": [1.5, -22.0, 310.0],' in lines
    assert '          "u": [1.0, 0.0, 0.0],' in lines
    assert read_rois(tmp_path / "a.json").reader == "[\n 1,\n 2\n]"


def test_absent_stays_absent(tmp_path):
    bare = {"schema": "spineimg.rois/1", "vertebrae": [{"level": "L4", "center": [1.0, 2.0, 3.0]}]}
    assert rois_to_dict(parse_rois(bare, tmp_path), tmp_path) == bare


def test_written_whole_or_not_at_all(tmp_path, monkeypatch):
    """Planted: written in place."""
    path = save(tmp_path / "a.json", "precious")

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(RoiError, match=r"a\.json: cannot be written \(No space left on device\)"):
        write_rois(path, parse_rois(document(), tmp_path))
    assert path.read_text() == "precious"
    assert [found.name for found in tmp_path.iterdir()] == ["a.json"]
    monkeypatch.undo()
    write_rois(path, parse_rois(document(), tmp_path))
    assert plain(read_rois(path)) == plain(parse_rois(document(), tmp_path))
    assert [found.name for found in tmp_path.iterdir()] == ["a.json"]
    with pytest.raises(RoiError, match="cannot be written"):
        write_rois(tmp_path / "absent" / "a.json", parse_rois(document(), tmp_path))


def test_no_number_is_not_written(tmp_path):
    with pytest.raises(RoiError, match=r"a\.json: a ROI holds a number that is not finite"):
        write_rois(tmp_path / "a.json", RoiSet((VertebraRoi("L4", np.array([1, 2, np.nan])),)))
    assert not list(tmp_path.iterdir())
