"""The table of cases: what is understood, and every complaint with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spineimg.anatomy import Construct, Role
from spineimg.batch.cases import Case, located, read_cases
from spineimg.batch.names import MOST_BYTES, file_stems
from spineimg.errors import SpineImgError


def read(folder: Path, text: str | bytes) -> tuple[Case, ...]:
    path = folder / "cases.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_cases(path, folder).cases


CLICKS = "case,path,level,role,x_mm,y_mm,z_mm\n"


def test_clicks_of_several_rows_are_one_case(tmp_path: Path) -> None:
    text = CLICKS + "a,s/1,T8,UIV,1.5,-22,310\nb,1.2.3#2,L4,,0,0,0\na,s/1,t12,liv,0,-20.25,250\n"
    a, b = read(tmp_path, text)
    assert (a.name, a.path, a.uid, a.line) == ("a", "s/1", None, 2)
    assert [(one.level, one.role, one.center_lps_mm) for one in a.wanted] == [
        ("T8", Role.UIV, (1.5, -22.0, 310.0)),
        ("T12", Role.LIV, (0.0, -20.25, 250.0)),
    ]
    assert a.construct() == Construct("T8", "T12")
    assert (b.uid, b.wanted[0].center_lps_mm) == ("1.2.3#2", (0.0, 0.0, 0.0))


def test_a_folder_that_looks_like_a_uid_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "1.2.3").mkdir()
    (case,) = read(tmp_path, "case,path,mask\na,1.2.3,m.nii.gz\n")
    assert case.uid is None


@pytest.mark.parametrize(
    "text", ["case;path;rois\na;s;r.json\n", "\ufeffCase,PATH,Rois\r\n a , s\u00a0,r.json\r\n\r\n"]
)
def test_tables_as_spreadsheets_write_them(tmp_path: Path, text: str) -> None:
    (case,) = read(tmp_path, text)
    assert (case.name, case.path, case.rois, case.wanted) == ("a", "s", "r.json", ())


@pytest.mark.parametrize("name", ["a\u00a0b", "\u5c71\u7530\u3000\u592a\u90ce"], ids=["no-break", "ideographic"])
def test_spaces_of_other_scripts_are_part_of_a_name(tmp_path: Path, name: str) -> None:
    (case,) = read(tmp_path, f"case,path,rois\n{name},{name}/ct,r.json\n")
    assert (case.name, case.path) == (name, f"{name}/ct")


def test_a_mapped_table_with_one_of_our_columns_twice_is_refused(tmp_path: Path) -> None:
    """Planted: looked for only without --columns; the second column then silently counted."""
    path = tmp_path / "cases.csv"
    path.write_text("Patient,path,rois,level,Level\na,s,r.json,L1,L3\n", encoding="utf-8")
    with pytest.raises(SpineImgError, match="line 1: the column 'level' is there twice"):
        read_cases(path, tmp_path, {"case": "Patient"})


def test_the_case_name_stands_in_patterns(tmp_path: Path) -> None:
    (case,) = read(tmp_path, "case,path,mask\np7,{case}/ct,masks/{case}.nii.gz\n")
    assert (case.path, case.mask) == ("p7/ct", "masks/p7.nii.gz")


def test_rois_lie_in_root_or_beside_the_table(tmp_path: Path) -> None:
    root, desk = tmp_path / "root", tmp_path / "desk"
    root.mkdir()
    desk.mkdir()
    (root / "a.json").touch()
    (desk / "b.json").touch()
    table = desk / "cases.csv"
    assert located("a.json", root, table) == str(root / "a.json")
    assert located("b.json", root, table) == str(desk / "b.json")
    assert located("nowhere.json", root, table) == str(root / "nowhere.json")
    (desk / "a.json").touch()
    table.write_text("case,path,rois\nx,s,a.json\n")
    with pytest.raises(SpineImgError, match=r"line 2: a\.json lies in ROOT and beside the table"):
        read_cases(table, root)


def test_rows_with_use_no_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_text("use,case,path,rois,verdict,why\nyes,a,s,r.json,usable,thin\nno,a,t,,refused,localizer\n")
    table = read_cases(path, tmp_path)
    assert ([case.path for case in table.cases], table.n_left_out) == (["s"], 1)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "line 1: the table is empty"),
        ("case,path,level,colour\n", "line 1: unknown column 'colour'"),
        ("case,path,path\n", "line 1: the column 'path' is there twice"),
        ("case,level\n", "line 1: the column 'path' is missing"),
        (CLICKS, "no case in it"),
        (CLICKS + "a,s,L1,,1,2\n", "line 2: 6 cells where the header has 7"),
        (CLICKS + "a,s,L1,,1,2,3\n\nb,s,L1,,1,2,nan\n", "line 4: z_mm must be a number in mm within ±100000, found"),
        (CLICKS + "a,s,L1,,inf,2,3\n", "line 2: x_mm must be a number"),
        (CLICKS + "a,s,L1,,1,,3\n", "line 2: y_mm must be a number in mm with a decimal point, found ''"),
        (CLICKS + "a,s,L1,,1,2 mm,3\n", "line 2: y_mm must be a number in mm with a decimal point, found '2 mm'"),
        (CLICKS.replace(",", ";") + "a;s;L1;;1,5;2;3\n", "line 2: x_mm must be .* with a decimal point, found '1,5'"),
        (CLICKS + "a,s,L1,,6_4,2,3\n", "line 2: x_mm must be a number in mm with a decimal point, found '6_4'"),
        (CLICKS + "a,s,L9,,1,2,3\n", "line 2: 'L9' is not a vertebral level"),
        (CLICKS + "a,s,L1,top,1,2,3\n", "line 2: role is UIV, LIV or empty, found 'top'"),
        (CLICKS + "a,s,L1,,1,2,3\na,s,l1,,4,5,6\n", "line 3: L1 of this case is there already, in line 2"),
        (CLICKS + "a,s,L1,UIV,1,2,3\na,s,L2,UIV,4,5,6\n", "line 3: this case has a UIV already, in line 2"),
        (CLICKS + "a,s,L3,UIV,1,2,3\na,s,L2,LIV,4,5,6\n", "line 2: case 'a': the UIV .L3. lies below the LIV"),
        (CLICKS + "a,s,L1,,1,2,3\na,t,L2,,4,5,6\n", "line 3: case 'a' has path 't' here and 's' in line 2"),
        (CLICKS + "a,s,L1,,,,\n", "line 2: nothing says where L1 is"),
        (CLICKS + "a,s,,,1,2,3\n", "line 2: level is empty, and so are rois and mask"),
        (CLICKS + ",s,L1,,1,2,3\n", "line 2: the case has no name"),
        (CLICKS + "a,,L1,,1,2,3\n", "line 2: path is empty"),
        (CLICKS + '"a\nb",s,L1,,1,2,3\n', "line 2: case holds 'a.nb': line breaks"),
        (CLICKS + 'a,"s"x,L1,,1,2,3\n', "line 2: not CSV"),
        ("case,path,rois,mask\na,s,r.json,m.nii\n", "line 2: rois and mask are both given"),
        ("case,path,rois,role\na,s,r.json,LIV\n", "line 2: level is empty$"),
        ("case,path,rois\na,s,r.json\na,s,r.json\n", "line 2: level is empty$"),
        (b"case,path,rois\na,s,r.json\n\xff,s,r.json\n", "line 3: not UTF-8 text"),
        ("case,path,rois\na\u200bb,s,r.json\n", "line 2: case holds .* characters that are not seen"),
        (
            "case,path,rois\nM\u00fc,s,r.json\nMu\u0308,t,r.json\n",
            "line 3: case 'Mu.u0308' looks like 'M.xfc' of line 2",
        ),
        ("case,path,rois\na b,s,r.json\na\u00a0b,t,r.json\n", "line 3: case 'a.xa0b' looks like 'a b' of line 2"),
        ("case,path,rois,use\na,s,r.json,nein\n", "line 2: use is yes, no or empty, found 'nein'"),
    ],
)
def test_a_row_that_cannot_be_understood_names_its_line(tmp_path: Path, text: str | bytes, complaint: str) -> None:
    """Planted: the line counted in rows, so that a blank line above shifts it; seen red."""
    with pytest.raises(SpineImgError, match=complaint) as caught:
        read(tmp_path, text)
    assert "cases.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpineImgError, match=r"cannot read .*absent\.csv: No such file"):
        read_cases(tmp_path / "absent.csv", tmp_path)


def test_a_fingerprint_follows_what_is_asked_and_not_the_line(tmp_path: Path) -> None:
    (one,) = read(tmp_path, CLICKS + "a,s,L1,,1,2,3\n")
    (same,) = read(tmp_path, CLICKS + "\n\na,s,L1,,1.0,2,3\n")
    (moved,) = read(tmp_path, CLICKS + "a,s,L1,,1,2,3.5\n")
    assert one.fingerprint == same.fingerprint != moved.fingerprint


# -- file names -------------------------------------------------------------------------------------------------------

HOSTILE = [
    *("plain", "a/b", "../../etc/passwd", "..", ".hidden", "CON", "con.txt", "a:b", "a\\b", "a*?", "x" * 400),
    *("Fall 7", "Ärzte", "A\u0308rzte", "症例一", "ab ", "trailing.", "Case", "case", "CASE", "ß", "ss", "~", "a~b"),
    *("straße", "STRASSE", "ﬁ", "fi", "-rf", "=1+1", "🦴", "\u202egpj"),
]


def test_hostile_names_become_safe_and_different_files(tmp_path: Path) -> None:
    """Planted: hashes left out, so that Case and CASE share a file on some systems; seen red."""
    stems = file_stems(HOSTILE)
    assert set(stems) == set(HOSTILE)
    assert len({stem.casefold() for stem in stems.values()}) == len(HOSTILE)
    assert stems["plain"] == "plain"
    assert stems["Fall 7"] == "Fall 7"
    assert stems["Ärzte"].startswith("rzte~")  # there is a twin in another Unicode form
    for stem in stems.values():
        (tmp_path / f"{stem}.json").write_text("x")
        assert "/" not in stem
        assert not stem.startswith(".")
    assert len(list(tmp_path.iterdir())) == len(HOSTILE)


@given(st.lists(st.text(min_size=1, max_size=200), unique=True, max_size=12))
def test_any_names_become_safe_and_different_files(names: list[str]) -> None:
    stems = file_stems(names)
    folded = {stem.casefold() for stem in stems.values()}
    assert len(folded) == len(names)
    for stem in stems.values():
        assert 1 <= len(stem.encode("utf-8", "replace")) <= MOST_BYTES
        assert stem.strip(" ") == stem
        assert not set(stem) & set('/\\:*?"<>|\0\n')
        assert not stem.startswith(".")


@given(st.lists(st.text(min_size=1, max_size=6), unique=True, min_size=2, max_size=8))
def test_no_file_passes_from_one_case_to_another_when_a_table_grows(names: list[str]) -> None:
    before, after = file_stems(names[:-1]), file_stems(names)
    for name, other in ((a, b) for a in before for b in after if a != b):
        assert before[name] != after[other]
