"""The index cache of a run: a header is read once, a changed file is seen, damage costs nothing but time."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from spineimg.batch import cache as module
from spineimg.batch.cache import HeaderCache, KnownHeaders
from spineimg.batch.runner import BatchSettings, find_series, run_batch
from spineimg.io.headers import FileHeader, Unparsed, read_header
from spineimg.io.index import scan
from tests.dicom_factory import PATIENT, axial, pattern, write_series

N = 5


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "study"
    write_series(folder, pattern(N, 24, 20), axial(N))
    return folder


def files(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*") if path.is_file())


def same(one: FileHeader, other: FileHeader) -> bool:
    """Equal but for the patient's identity."""
    hidden = {"PatientName", "PatientID", "PatientBirthDate"}
    strip = lambda header: {name: value for name, value in header.values.items() if name not in hidden}  # noqa: E731
    parts = ("path", "size", "transfer_syntax", "has_pixels", "pixel_offset", "pixel_length", "changed_ns")
    return strip(one) == strip(other) and all(getattr(one, part) == getattr(other, part) for part in parts)


def test_a_header_is_read_once(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the time of change left out of the key; the changed file below kept its old header."""
    first = KnownHeaders()
    scan([study], read=first.read)
    assert sorted(entry[0] for entry in first.fresh) == files(study)
    cache = HeaderCache(tmp_path / "index.sqlite")
    cache.learn(first.fresh)
    cache.close()
    again = HeaderCache(tmp_path / "index.sqlite")
    second = KnownHeaders(again.of([str(study)]))
    assert len(second.entries) == N
    again.close()
    truth = {path: read_header(path) for path in files(study)}
    monkeypatch.setattr(module, "read_header", lambda path: pytest.fail(f"{path} was read again"))
    assert all(same(second.read(path), header) for path, header in truth.items())
    assert second.fresh == []


def test_a_changed_file_is_seen(study: Path) -> None:
    known = KnownHeaders()
    path = files(study)[0]
    before = known.read(path)
    content = Path(path).read_bytes()
    Path(path).write_bytes(content.replace(b"SOFT", b"HARD").replace(b"B30f", b"B70f"))
    changed = os.stat(path).st_mtime_ns + 1_000_000  # noqa: PTH116
    os.utime(path, ns=(changed, changed))
    later = KnownHeaders(known.fresh)
    after = later.read(path)
    assert len(later.fresh) == 1
    assert same(after, read_header(path))
    assert before.size == after.size


def test_a_file_of_another_folder_with_the_same_beginning_is_not_meant(study: Path, tmp_path: Path) -> None:
    """Planted: a prefix without its separator; "study" then had the files of "study2" too."""
    other = tmp_path / "study2"
    write_series(other, pattern(N, 24, 20), axial(N))
    known = KnownHeaders()
    scan([study, other], read=known.read)
    cache = HeaderCache(tmp_path / "index.sqlite")
    cache.learn(known.fresh)
    assert {entry[0] for entry in cache.of([str(study)])} == set(files(study))
    assert {entry[0] for entry in cache.of([files(other)[2]])} == {files(other)[2]}
    cache.close()


def test_no_identity_is_stored(study: Path, tmp_path: Path) -> None:
    known = KnownHeaders()
    scan([study], read=known.read)
    cache = HeaderCache(tmp_path / "index.sqlite")
    cache.learn(known.fresh)
    cache.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("index.sqlite*"))
    assert b"SOPInstanceUID" in stored
    for value in PATIENT.values():
        assert value.encode() not in stored


def test_what_makes_no_sense_comes_back_as_such(tmp_path: Path) -> None:
    path = tmp_path / "one"
    path.write_bytes(b"x" * 10)
    values = {"KVP": Unparsed("12O"), "ImageType": ("ORIGINAL", "AXIAL"), "PixelSpacing": (0.5, 0.7), "Rows": 24}
    changed_ns = path.stat().st_mtime_ns
    header = FileHeader(str(path), 10, values, "1.2.840.10008.1.2.1", True, 3, 7, changed_ns)
    entry = (str(path), 10, changed_ns, *module._Packer().packed(header))
    assert same(KnownHeaders([entry]).read(str(path)), header)


def test_what_a_series_shares_is_stored_once(study: Path) -> None:
    """Planted: equality instead of identity for numbers; the second file's -0 below came back as 0."""
    first, *others = (read_header(path) for path in files(study))
    packer = module._Packer()
    packed = [packer.packed(header) for header in (first, *others)]
    assert len({shared for _, shared in packed}) == 1
    assert max(len(own) for own, _ in packed) < 0.4 * len(packed[0][1])
    zero = replace(first, values=dict(first.values) | {"ImagePositionPatient": (0.0, 5.0, 1.0)})
    rest = {name: value for name, value in first.values.items() if name != "KVP"}
    minus = replace(first, values=rest | {"ImagePositionPatient": (-0.0, 5.0, 1.0)})
    packer = module._Packer()
    for header in (zero, minus):
        status = os.stat(header.path)  # noqa: PTH116
        entry = (header.path, status.st_size, status.st_mtime_ns, *packer.packed(header))
        back = KnownHeaders([entry]).read(header.path)
        assert same(back, header)
        assert repr(back.values["ImagePositionPatient"]) == repr(header.values["ImagePositionPatient"])


@pytest.mark.parametrize(
    "damage", ["rubbish", "one byte of a header", "one byte of what they share", "another version"]
)
def test_damage_costs_only_time(study: Path, tmp_path: Path, damage: str) -> None:
    place = tmp_path / "index.sqlite"
    known = KnownHeaders()
    scan([study], read=known.read)
    if damage == "rubbish":
        place.write_bytes(b"SQLite format 3\0" + b"rubbish" * 500)
        kept = 0
    else:
        entries = known.fresh
        if damage == "one byte of a header":
            entries = [(path, size, changed, own[:-1] + b"?", shared) for path, size, changed, own, shared in entries]
        if damage == "one byte of what they share":
            entries = [(path, size, changed, own, shared[:-1] + b"?") for path, size, changed, own, shared in entries]
        first = HeaderCache(place)
        first.learn(entries)
        first.close()
        kept = N
        if damage == "another version":
            with sqlite3.connect(place) as connection:
                connection.execute("UPDATE made_by SET version = '0.0'")
            connection.close()
            kept = 0
    cache = HeaderCache(place)
    again = KnownHeaders(cache.of([str(study)]))
    assert len(again.entries) == kept
    assert all(same(again.read(path), read_header(path)) for path in files(study))
    cache.close()


def test_a_cache_that_cannot_be_written_is_left_out(study: Path, tmp_path: Path) -> None:
    cache = HeaderCache(tmp_path / "no such folder" / "index.sqlite")
    known = KnownHeaders()
    scan([study], read=known.read)
    cache.learn(known.fresh)
    assert cache.of([str(study)]) == ()
    assert same(cache.read(files(study)[0]), read_header(files(study)[0]))


def test_a_run_fills_the_cache_and_the_next_one_uses_it(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: answers without their headers; the second run below then read every file again."""
    uid = scan([study]).series[0].info.series_instance_uid
    table, out = tmp_path / "cases.csv", tmp_path / "out"
    table.write_text("case,path,level,x_mm,y_mm,z_mm\none,study,L3,0,0,0\n")
    run_batch(tmp_path, table, out, BatchSettings(workers=1), quiet=True)
    cache = HeaderCache(out / "index.sqlite")
    assert {entry[0] for entry in cache.of([str(study)])} == set(files(study))
    monkeypatch.setattr(module, "read_header", lambda path: pytest.fail(f"{path} was read again"))
    assert find_series(study, [uid], cache.read) == ({uid: sorted(files(study))}, [])
    cache.close()
