"""Broken inputs: 500 random mutants, and every one that once broke something, as small as it goes."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import spineimg
from benchmarks import fuzz
from benchmarks.mutants import Mutant, bases
from spineimg.errors import GeometryError, PixelError, SeriesError
from spineimg.io import jpegls
from spineimg.io.index import scan
from spineimg.io.pixels import DicomSource, read_stored
from spineimg.volume import Verdict
from tests import dicom_factory as factory
from tests.dicom_factory import Encoding, Written

N_MUTANTS = 500
SHAPE = (32, 32)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak memory of a process is read from /proc")
def test_no_mutant_breaks_anything() -> None:
    """No traceback, warning, crash, hang, more than 2 GB, or number that other readers do not find in the files."""
    outcomes = fuzz.run(range(N_MUTANTS), seed=2)
    bad = [one for one in outcomes if not one.good]
    assert not bad, "\n".join(f"mutant {one.number} ({one.kind}): {one.outcome}: {one.detail}" for one in bad[:5])
    assert [one.number for one in outcomes] == list(range(N_MUTANTS))
    found = {one.outcome for one in outcomes}
    assert {"number", "no number", "refused"} <= found, "mutants that are all refused, or none, test nothing"


def test_the_judge_finds_a_number_that_is_not_in_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: every slice read as its neighbour; the judge of the mutants must see it."""
    base = next(one for one in bases() if one.name == "explicit")
    sound = Mutant("none", base.files, base.study)
    assert fuzz.try_mutant(sound, tmp_path / "a") == ("number", "")
    for way in ("read", "read_window"):
        right = getattr(DicomSource, way)
        monkeypatch.setattr(DicomSource, way, lambda source, k, *part, right=right: right(source, max(0, k - 1), *part))
    outcome, detail = fuzz.try_mutant(sound, tmp_path / "b")
    assert outcome == "unfounded number", detail


# -- what once broke --------------------------------------------------------------------------------------------------


def written(folder: Path, syntax: str = factory.ExplicitVRLittleEndian) -> Written:
    hu = factory.pattern(4, *SHAPE)
    return factory.write_series(folder, hu, factory.axial(4), encoding=Encoding(transfer_syntax=syntax))


def change(path: Path, how: Callable[[bytes], bytes]) -> None:
    content = path.read_bytes()
    changed = how(content)
    assert changed != content
    path.write_bytes(changed)


def test_coded_pixels_of_a_huge_length(tmp_path: Path) -> None:
    """A defined length of encapsulated pixel data was believed, 4 GB of it claimed for a slice."""
    for path in written(tmp_path, factory.JPEGLSLossless).paths:
        undefined, huge = b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff", b"\xe0\x7f\x10\0OB\0\0\xd2\xff\xff\xff"
        change(path, lambda content: content.replace(undefined, huge))  # noqa: B023 - called at once
    found = scan([tmp_path])
    assert not found.series
    assert all("truncated" in skipped.reason for skipped in found.skipped)


@pytest.mark.parametrize("syntax", [factory.JPEGLSLossless, factory.JPEG2000Lossless, factory.JPEGLosslessSV1])
def test_a_code_stream_that_declares_a_huge_picture(tmp_path: Path, syntax: str) -> None:
    """Decoders claimed the memory of 65000 x 65000 pixels that a slice of 32 x 32 declared in its code stream."""
    small, huge = struct.pack(">HH", *SHAPE), struct.pack(">HH", 65000, 65000)
    starts = {
        factory.JPEGLSLossless: (b"\xff\xf7\0\x0b\x0c" + small, b"\xff\xf7\0\x0b\x0c" + huge),
        factory.JPEGLosslessSV1: (b"\xff\xc3\0\x0b\x10" + small, b"\xff\xc3\0\x0b\x10" + huge),
        factory.JPEG2000Lossless: (struct.pack(">LL", *SHAPE), struct.pack(">LL", 65000, 65000)),
    }
    for path in written(tmp_path, syntax).paths:
        change(path, lambda content: content.replace(*starts[syntax], 1))
    with pytest.raises(PixelError, match="code stream declares 65000 x 65000"):
        spineimg.load(tmp_path).read(1)


def test_coded_pixels_without_their_end(tmp_path: Path) -> None:
    """A file cut right before the delimiter of its pixel data passed for whole."""
    for path in written(tmp_path, factory.JPEG2000Lossless).paths:
        change(path, lambda content: content[:-8])
    assert not scan([tmp_path]).series


def test_a_delimiter_of_no_sequence(tmp_path: Path) -> None:
    """The end of a sequence that never began was passed over, and elements behind it were taken for the slice's own."""
    stray, rows = b"\xfe\xff\x0d\xe0\0\0\0\0", b"\x28\0\x10\0US"
    for path in written(tmp_path).paths:
        change(path, lambda content: content.replace(rows, stray + rows))
    assert all(entry.verdict is Verdict.REFUSED for entry in scan([tmp_path]).series)


@pytest.mark.parametrize("value", [b"\x0c\0\x0b\0", b"\x0c"], ids=["two values", "one byte"])
def test_a_binary_number_of_another_length(tmp_path: Path, value: bytes) -> None:
    """Of Bits Stored with two values the first was used, and one of a single byte was taken for absent."""
    for path in written(tmp_path).paths:
        tag = b"\x28\0\x01\x01US"
        change(path, lambda content: content.replace(tag + b"\2\0\x0c\0", tag + struct.pack("<H", len(value)) + value))  # noqa: B023
    (entry,) = scan([tmp_path]).series
    assert "undecodable" in {note.code for note in entry.notes}


def test_padding_that_is_no_number(tmp_path: Path) -> None:
    """Of a padding value with four bytes the first two were used; ignoring it would average the padding."""
    for path in written(tmp_path).paths:
        change(
            path, lambda content: content.replace(b"\x28\0\x52\x10", b"\x28\0\x20\x01US\4\0\x18\xfc\0\0\x28\0\x52\x10")
        )
    (entry,) = scan([tmp_path]).series
    assert "undecodable" in {note.code for note in entry.notes}


def test_a_transfer_syntax_that_is_no_uid(tmp_path: Path) -> None:
    """pydicom's warning of it came through to standard error."""
    for path in written(tmp_path).paths:
        change(path, lambda content: content.replace(b"1.2.840.10008.1.2.1\0", b"../../../etc/passwd\0"))
    (entry,) = scan([tmp_path]).series
    assert "../../../etc/passwd" in entry.reasons()


def test_a_character_set_with_a_zero_byte(tmp_path: Path) -> None:
    """Text that is not ASCII, in a character set of such a name, ended in a ValueError of Python's codecs."""
    for path in written(tmp_path).paths:
        change(path, lambda content: content.replace(b"ISO_IR 100", b"ISO\xea\0R 100"))
    assert spineimg.load(tmp_path).geometry.shape == (4, *SHAPE)


def test_spacing_whose_square_overflows(tmp_path: Path) -> None:
    """A MetaImage with a spacing of 1e308 mm ended in NumPy's overflow warning."""
    path = tmp_path / "v.mha"
    header = "NDims = 3\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 1e308 1e308 1e308\n"
    header += "DimSize = 4 4 4\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    path.write_bytes(b"ObjectType = Image\n" + header.encode() + bytes(128))
    with pytest.raises(GeometryError, match="span no volume"):
        spineimg.load(path)


def test_functional_groups_that_are_no_sequence(tmp_path: Path) -> None:
    """Shared functional groups written as 32-bit numbers ended in pydicom's BytesLengthException."""
    path = tmp_path / "all.dcm"
    factory.write_enhanced(path, factory.pattern(4, *SHAPE), [factory.axial(4)])
    change(path, lambda content: content.replace(b"\x00\x52\x29\x92SQ\0\0", b"\x00\x52\x29\x92FL\2\0\0\0", 1))
    found = scan([path])
    assert not found.series
    assert "functional groups" in found.skipped[0].reason


# -- JPEG-LS by two ways ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_both_ways_of_decoding_jpeg_ls_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int, signed: bool
) -> None:
    """CharLS called directly and through pyjpegls; against what was written. Planted: bits a value off by one."""
    encoding = Encoding(signed, bits, intercept=0.0, transfer_syntax=factory.JPEGLSLossless)
    low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)
    hu = np.random.default_rng(4).integers(low, high, (3, *SHAPE))
    truth = factory.write_series(tmp_path, hu, factory.axial(3), encoding=encoding)
    source = spineimg.load(tmp_path).source
    direct = [read_stored(record) for record in source.records]  # type: ignore[attr-defined]
    monkeypatch.setattr(jpegls, "_charls", lambda: None)
    through = [read_stored(record) for record in source.records]  # type: ignore[attr-defined]
    np.testing.assert_array_equal(direct, truth.stored)
    np.testing.assert_array_equal(through, truth.stored)


def test_a_damaged_jpeg_ls_stream_is_refused_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way of cutting a frame short ends in PixelError."""
    (path, *_) = written(tmp_path, factory.JPEGLSLossless).paths
    change(path, lambda content: content.replace(b"\xff\xda", b"\xff\xdb"))
    for direct in (True, False):
        if not direct:
            monkeypatch.setattr(jpegls, "_charls", lambda: None)
        volume = spineimg.load(tmp_path)
        with pytest.raises((PixelError, SeriesError), match="JPEG-LS"):
            [volume.read(k) for k in range(4)]
