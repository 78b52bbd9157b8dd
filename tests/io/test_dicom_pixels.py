"""HU of every voxel: stored values, rescale, padding, encodings; and that nothing is read that was not asked for.

Planted in a copy of the reader, each turns this file red: intercept dropped; slope dropped; the first slice's rescale
for all; padding compared in HU before rescale; padding's unsigned twin not recognised; the range limit ignored; bits
above BitsStored kept; big endian read as little; a whole series decoded to read one slice; a file left open.
"""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openjpeg
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import spineimg
from spineimg.errors import PixelError, SpineImgError
from spineimg.io.index import scan
from spineimg.io.series import read_array
from spineimg.rois import Ellipse, RoiSet, VertebraRoi
from spineimg.volume import NO_MEASUREMENT_BELOW_HU, Verdict
from tests import dicom_factory as factory
from tests.dicom_factory import Encoding, Layout, Written

SHAPE = (34, 41)  # JPEG 2000 needs 32 rows and columns


def by_truth(written: Written, volume: spineimg.CTVolume) -> list[int]:
    """For each slice of the volume the written slice, by SOP instance."""
    return [written.sop_uids.index(str(volume.source.sop_instance_uid(k))) for k in range(volume.geometry.shape[0])]


def check_hu(folder: Path, written: Written, dtype: type, atol: float = 0.0) -> spineimg.CTVolume:
    volume = spineimg.load(folder)
    for k, true in enumerate(by_truth(written, volume)):
        hu = volume.read(k)
        assert hu.dtype == dtype
        np.testing.assert_allclose(hu, written.hu[true], rtol=0, atol=atol)
    return volume


# -- encodings --------------------------------------------------------------------------------------------------------

TYPES = {
    "unsigned 12": Encoding(),
    "unsigned 16": Encoding(bits_stored=16, intercept=-8192.0),
    "signed 16": Encoding(signed=True, bits_stored=16, intercept=0.0),
    "signed 13": Encoding(signed=True, bits_stored=13),
}


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("syntax", factory.LOSSLESS, ids=lambda uid: uid.name)
def test_every_lossless_encoding_gives_the_written_hu(tmp_path: Path, syntax: str, name: str) -> None:
    """Planted: big endian read as little; signed 13-bit JPEG lossless read as unsigned."""
    base = TYPES[name]
    encoding = Encoding(base.signed, base.bits_stored, base.slope, base.intercept, transfer_syntax=syntax)
    written = factory.write_series(tmp_path, factory.pattern(3, *SHAPE), factory.axial(3), encoding=encoding)
    check_hu(tmp_path, written, np.int16)
    assert scan([tmp_path]).series[0].verdict is Verdict.USABLE


def test_htj2k(tmp_path: Path) -> None:
    written = factory.htj2k_series(tmp_path)
    check_hu(tmp_path, written, np.int16)


def test_encodings_may_differ_within_a_series(tmp_path: Path) -> None:
    """Slices of one series, each in another transfer syntax, every other one signed, each with a padding of its own.

    Planted: the first slice's syntax, its sign or its padding for all.
    """
    lattice, hu, uid = factory.axial(len(factory.LOSSLESS)), factory.pattern(len(factory.LOSSLESS), *SHAPE), "1.2.3.9"
    for k, syntax in enumerate(factory.LOSSLESS):
        encoding = Encoding(signed=k % 2 == 1, bits_stored=13, padding=100 + k, transfer_syntax=syntax)
        factory.write_series(tmp_path / str(k), hu[k : k + 1], lattice.keep([k]), encoding=encoding, series_uid=uid)
    volume = spineimg.load(tmp_path)
    assert volume.geometry.shape[0] == len(factory.LOSSLESS)
    np.testing.assert_array_equal(np.stack([volume.read(k) for k in range(len(hu))]), hu)
    for k in range(len(hu)):
        assert volume.source.padding_hu(k) == (100 + k - 1024, 100 + k - 1024)
        np.testing.assert_array_equal(volume.valid(k, volume.read(k)), hu[k] != 100 + k - 1024)


def test_a_jpeg_2000_stream_of_the_other_sign(tmp_path: Path) -> None:
    """Signed pixels whose code stream says unsigned, as some archives write them: the header decides."""
    encoding = Encoding(signed=True, bits_stored=16, intercept=0.0)
    written = factory.write_series(tmp_path, factory.pattern(3, *SHAPE), factory.axial(3), encoding=encoding)
    for path, stored in zip(written.paths, written.stored, strict=True):
        factory.recode(path, factory.JPEG2000Lossless, openjpeg.encode(stored.view(np.uint16), bits_stored=16))
    check_hu(tmp_path, written, np.int16)


def test_near_lossless_pixels_are_near(tmp_path: Path) -> None:
    """JPEG-LS with an error of at most 4 stored values."""
    encoding = Encoding(transfer_syntax=factory.JPEGLSNearLossless)
    written = factory.write_series(tmp_path, factory.pattern(3, *SHAPE), factory.axial(3), encoding=encoding)
    check_hu(tmp_path, written, np.int16, atol=4.0)


@pytest.mark.parametrize("syntax", factory.LOSSLESS[4:], ids=lambda uid: uid.name)
@pytest.mark.parametrize("change", [{"Rows": 33}, {"Columns": 40}, {"Rows": 4000, "Columns": 4000}], ids=str)
def test_a_code_stream_of_another_size_than_the_header_gives_no_number(
    tmp_path: Path, syntax: str, change: dict[str, int]
) -> None:
    """Planted: the picture cut or filled to the size of the header."""
    encoding = Encoding(transfer_syntax=syntax)
    written = factory.write_series(tmp_path, factory.pattern(3, *SHAPE), factory.axial(3), encoding=encoding)
    for path in written.paths:
        ds = pydicom.dcmread(path)
        ds.update(change)
        ds.save_as(path)
    volume = spineimg.load(tmp_path)
    with pytest.raises(PixelError) as error:
        volume.read(1)
    assert any(path.name in str(error.value) for path in written.paths)


@pytest.mark.parametrize("syntax", factory.NATIVE[:3], ids=lambda uid: uid.name)
def test_bits_above_those_stored_are_no_hu(tmp_path: Path, syntax: str) -> None:
    """Bits 12-15 hold an old-style overlay. Planted: the bits kept."""
    encoding = Encoding(junk_bits=True, transfer_syntax=syntax)
    written = factory.write_series(tmp_path, factory.pattern(3), factory.axial(3), encoding=encoding)
    check_hu(tmp_path, written, np.int16)


def test_enhanced_frames_in_every_encoding(tmp_path: Path) -> None:
    hu = factory.pattern(5, *SHAPE)
    for n, syntax in enumerate(
        (*factory.NATIVE, factory.RLELossless, factory.JPEGLSLossless, factory.JPEG2000Lossless)
    ):
        path = tmp_path / str(n) / "enhanced"
        written = factory.write_enhanced(path, hu, [factory.tilted(5)], encoding=Encoding(transfer_syntax=syntax))
        volume = spineimg.load(path)
        assert factory.worst_position_mm(volume, written) < 1e-6


# -- rescale ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"),
    [
        (1.0, -1024.0, np.int16),
        (1.0, 0.0, np.int16),
        (1.0, -1000.5, np.float32),
        (0.5, -1024.0, np.float32),
        (2.0002442, -4047.0, np.float32),
        (-1.0, 3000.0, np.int16),
        (-0.75, 2047.25, np.float32),
    ],
)
@pytest.mark.parametrize("signed", [False, True])
def test_rescale(tmp_path: Path, slope: float, intercept: float, dtype: type, signed: bool) -> None:
    """HU = slope * stored + intercept, fractions kept. Planted: intercept dropped; slope dropped; slope made whole."""
    encoding = Encoding(signed=signed, bits_stored=16, slope=slope, intercept=intercept)
    hu = factory.pattern(4).clip(-1000, 1999)
    if not signed:
        hu = np.where(slope > 0, hu.clip(int(np.ceil(intercept)), None), hu.clip(None, int(intercept)))
    written = factory.write_series(tmp_path, hu, factory.axial(4), encoding=encoding)
    check_hu(tmp_path, written, dtype, atol=2e-4 if dtype is np.float32 else 0.0)


def test_rescale_of_each_slice_is_its_own(tmp_path: Path) -> None:
    """As in PET-CT and old scanners. Planted: the first slice's rescale for all."""
    encoding = Encoding(
        bits_stored=16, slope=[1.0, 0.5, 2.0, 1.0, 1.25], intercept=[-1024, -1200, -2048, -1000, -1024.5]
    )
    written = factory.write_series(tmp_path, factory.pattern(5), factory.axial(5), encoding=encoding)
    (entry,) = scan([tmp_path]).series
    assert entry.verdict is Verdict.USABLE_WITH_NOTES
    assert any("rescale" in note.code or "slope" in note.text.lower() for note in entry.notes)
    volume = spineimg.load(tmp_path)
    for k, true in enumerate(by_truth(written, volume)):
        np.testing.assert_allclose(volume.read(k), written.hu[true], rtol=0, atol=2e-4)
    whole = read_array(volume)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole, written.hu[by_truth(written, volume)], rtol=0, atol=2e-4)


def test_enhanced_rescale_per_frame(tmp_path: Path) -> None:
    """Planted: the shared or the first frame's rescale for all."""
    encoding = Encoding(bits_stored=16, slope=[1.0, 0.5, 2.0, 1.0], intercept=[-1024.0, -1200.0, -2048.0, -1000.0])
    path = tmp_path / "enhanced"
    written = factory.write_enhanced(path, factory.pattern(4), [factory.axial(4)], encoding=encoding)
    assert factory.worst_position_mm(spineimg.load(path), written) < 1e-6


@pytest.mark.parametrize(("top", "dtype"), [(32767, np.int16), (32768, np.float32), (60000, np.float32)])
def test_hu_beyond_int16_are_kept(tmp_path: Path, top: int, dtype: type) -> None:
    """Extended scale. Planted: HU wrapped into int16."""
    hu = factory.pattern(3).astype(np.int32)
    hu[:, 3, 4] = top
    encoding = Encoding(bits_stored=16, intercept=-1024.0)
    written = factory.write_series(tmp_path, hu, factory.axial(3), encoding=encoding)
    check_hu(tmp_path, written, dtype)


def test_twelve_bit_clipping_and_extended_scale_read_as_written(tmp_path: Path) -> None:
    hu = factory.pattern(3)
    hu[:, 2:5, 2:5] = 3071
    check_hu(tmp_path / "a", factory.write_series(tmp_path / "a", hu, factory.axial(3)), np.int16)
    hu = hu.astype(np.int32)
    hu[:, 3, 3] = 19330
    encoding = Encoding(slope=10.0, intercept=-10240.0)
    written = factory.write_series(tmp_path / "b", hu, factory.axial(3), encoding=encoding)
    assert written.hu[0, 3, 3] == 19330
    check_hu(tmp_path / "b", written, np.int16)


@settings(max_examples=40, deadline=None)
@given(
    signed=st.booleans(),
    bits=st.integers(9, 16),
    slope=st.sampled_from([1.0, -1.0, 0.5, 1.25, 2.0, 10.0]),
    intercept=st.integers(-9000, 1000),
    syntax=st.sampled_from([factory.NATIVE[0], factory.NATIVE[2], factory.RLELossless, factory.JPEGLSLossless]),
)
def test_any_stored_values_come_back(
    tmp_path_factory: pytest.TempPathFactory, signed: bool, bits: int, slope: float, intercept: int, syntax: str
) -> None:
    """The whole range of the stored type, both ends included, for every number of bits."""
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    stored = np.random.default_rng(bits).integers(low, high, (3, 20, 30), endpoint=True)
    stored = np.sort(stored, axis=None).reshape(stored.shape)  # JPEG-LS encoders give up on noise
    stored[:, 0, 0], stored[:, -1, -1] = low, high
    encoding = Encoding(signed, bits, slope, float(intercept), transfer_syntax=syntax)
    folder = tmp_path_factory.mktemp("stored")
    written = factory.write_series(folder, stored * slope + intercept, factory.axial(3), encoding=encoding)
    np.testing.assert_array_equal(written.stored, stored)
    volume = spineimg.load(folder)
    for k, true in enumerate(by_truth(written, volume)):
        np.testing.assert_allclose(volume.read(k), written.hu[true], rtol=1e-6)


# -- padding ----------------------------------------------------------------------------------------------------------

PADDING = {
    "signed": (Encoding(signed=True, bits_stored=16, padding=-2000), [-2000]),
    "signed, written as its unsigned twin": (
        Encoding(signed=True, bits_stored=16, padding=63536, padding_vr="US"),
        [-2000],
    ),
    "signed lowest": (Encoding(signed=True, bits_stored=16, padding=-32768), [-32768]),
    "signed lowest, as its twin": (Encoding(signed=True, bits_stored=16, padding=32768, padding_vr="US"), [-32768]),
    "unsigned": (Encoding(bits_stored=16, padding=0), [0]),
    "unsigned high": (Encoding(bits_stored=16, padding=63536), [63536]),
    "unsigned, written as its signed twin": (Encoding(bits_stored=16, padding=-2000, padding_vr="SS"), [63536]),
    "range": (Encoding(signed=True, bits_stored=16, padding=-3000, padding_limit=-2990), [-3000, -2995, -2990]),
    "range upside down": (Encoding(signed=True, bits_stored=16, padding=-2990, padding_limit=-3000), [-3000, -2990]),
    "range of twins": (
        Encoding(signed=True, bits_stored=16, padding=63536, padding_limit=63540, padding_vr="US"),
        [-2000, -1998, -1996],
    ),
    "negative slope": (Encoding(bits_stored=16, slope=-1.0, intercept=3000.0, padding=60000), [60000]),
    "negative slope, range": (
        Encoding(bits_stored=16, slope=-0.5, intercept=3000.0, padding=60000, padding_limit=60004),
        [60000, 60001, 60004],
    ),
    "fractional slope": (Encoding(bits_stored=16, slope=0.1, intercept=-1024.0, padding=50001), [50001]),
}


def with_padding(encoding: Encoding, stored_padding: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """HU of four slices with a rim of padding, beside it the values one stored step outside the padding range; and
    which voxels are padding."""
    slope, intercept = encoding.rescale(0)
    hu = factory.pattern(4, 12, 17).clip(-900, 1900).astype(np.float64)
    hu = np.round((hu - intercept) / slope) * slope + intercept
    rim = np.zeros(hu.shape, dtype=bool)
    rim[:, 0, :] = rim[:, :, -1] = True
    values = np.resize(np.array(stored_padding, dtype=np.float64), rim.sum())
    hu[rim] = values * slope + intercept
    edges = [v for v in (min(stored_padding) - 1, max(stored_padding) + 1) if _fits(encoding, v)]
    for n, value in enumerate(edges):
        hu[:, 5 + n, 5] = value * slope + intercept
    return hu, rim


def _fits(encoding: Encoding, value: int) -> bool:
    low = -(1 << 15) if encoding.signed else 0
    return low <= value <= low + 0xFFFF


@pytest.mark.parametrize("name", PADDING)
@pytest.mark.parametrize("syntax", factory.NATIVE[:3], ids=lambda uid: uid.name)
def test_padding_is_marked_and_nothing_else(tmp_path: Path, name: str, syntax: str) -> None:
    """HU of padding are the rescaled stored values, as other readers have them, but not valid; a value one step beside
    the padding is, unless nothing in a patient reads so low. Planted: twin not recognised; range
    limit ignored; range not turned about by a negative slope."""
    base, stored = PADDING[name]
    encoding = Encoding(**{**base.__dict__, "transfer_syntax": syntax})
    hu, rim = with_padding(encoding, stored)
    written = factory.write_series(tmp_path, hu, factory.axial(4), encoding=encoding)
    volume = spineimg.load(tmp_path)
    for k, true in enumerate(by_truth(written, volume)):
        values = volume.read(k)
        np.testing.assert_allclose(values, written.hu[true], rtol=0, atol=1e-3)
        np.testing.assert_array_equal(volume.valid(k, values), ~rim[true] & (values > NO_MEASUREMENT_BELOW_HU))
        slope, intercept = encoding.rescale(0)
        ends = sorted(value * slope + intercept for value in (min(stored), max(stored)))
        assert volume.source.padding_hu(k) == pytest.approx(ends, abs=1e-6)


def test_without_padding_tag_all_that_can_be_is_valid(tmp_path: Path) -> None:
    """A corner of -2000 HU without a padding tag is no measurement either. Planted: only the tag asked."""
    hu = factory.pattern(3)
    hu[:, 0, 0] = -2000
    factory.write_series(tmp_path, hu, factory.axial(3), encoding=Encoding(signed=True, bits_stored=16))
    volume = spineimg.load(tmp_path)
    assert volume.source.padding_hu(0) is None
    valid = volume.valid(0, volume.read(0))
    assert not valid[0, 0]
    assert valid.sum() == valid.size - 1


def test_padding_of_compressed_pixels(tmp_path: Path) -> None:
    for n, syntax in enumerate((factory.RLELossless, factory.JPEGLSLossless, factory.JPEGLosslessSV1)):
        encoding = Encoding(signed=True, bits_stored=16, padding=63536, padding_vr="US", transfer_syntax=syntax)
        hu, rim = with_padding(encoding, [-2000])
        written = factory.write_series(tmp_path / str(n), hu, factory.axial(4), encoding=encoding)
        volume = spineimg.load(tmp_path / str(n))
        for k, true in enumerate(by_truth(written, volume)):
            values = volume.read(k)
            np.testing.assert_array_equal(volume.valid(k, values), ~rim[true] & (values > NO_MEASUREMENT_BELOW_HU))


# -- against an independent reader ------------------------------------------------------------------------------------

MADE = {
    "clean": Encoding(),
    "signed": Encoding(signed=True, bits_stored=16, intercept=0.0),
    "fractional slope": Encoding(bits_stored=16, slope=0.5, intercept=-1024.0),
    "negative slope": Encoding(bits_stored=16, slope=-1.0, intercept=3000.0),
    "padding": Encoding(signed=True, bits_stored=16, padding=-2000),
    "JPEG-LS": Encoding(transfer_syntax=factory.JPEGLSLossless),
    "big endian": Encoding(transfer_syntax=factory.ExplicitVRBigEndian),
}


@pytest.mark.parametrize("encoding", MADE.values(), ids=MADE.keys())
@pytest.mark.parametrize("lattice", [factory.axial(4), factory.feet_first(4), factory.oblique(4)])
def test_voxels_and_positions_are_those_of_simpleitk(
    tmp_path: Path, encoding: Encoding, lattice: factory.Lattice
) -> None:
    """File by file, so that only pixels and the place of one slice are compared."""
    import SimpleITK

    written = factory.write_series(tmp_path, factory.pattern(4), lattice, encoding=encoding)
    volume = spineimg.load(tmp_path)
    for k, true in enumerate(by_truth(written, volume)):
        image = SimpleITK.ReadImage(str(written.paths[true]))
        np.testing.assert_allclose(volume.read(k), SimpleITK.GetArrayFromImage(image)[0], rtol=0, atol=1e-3)
        for row, column in ((0, 0), (0, 16), (11, 0), (11, 16)):
            theirs = image.TransformIndexToPhysicalPoint((column, row, 0))
            np.testing.assert_allclose(volume.geometry.lps_at((k, row, column)), theirs, atol=1e-4)


# -- lazy -------------------------------------------------------------------------------------------------------------

_opened: list[str] | None = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event == "open" and isinstance(arguments[0], str | bytes | Path):
        _opened.append(os.fsdecode(arguments[0]))


@pytest.fixture(scope="module", autouse=True)
def _hook() -> None:
    sys.addaudithook(_audit)


@contextmanager
def opened_files(folder: Path) -> Iterator[list[str]]:
    """Names of the files under `folder` that are opened meanwhile, by whatever means Python has."""
    global _opened
    _opened, inside = [], []
    try:
        yield inside
    finally:
        inside += [Path(name).name for name in _opened if str(folder) in name]
        _opened = None


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def bytes_read() -> int:
    """Bytes this process has read by system calls."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.parametrize("syntax", [factory.ExplicitVRLittleEndian, factory.JPEGLSLossless])
def test_reading_three_slices_opens_three_files(tmp_path: Path, syntax: str) -> None:
    """Planted: the whole series decoded to read one slice."""
    encoding = Encoding(transfer_syntax=syntax)
    written = factory.write_series(tmp_path, factory.pattern(30), factory.axial(30), encoding=encoding)
    volume = spineimg.load(tmp_path)
    wanted = [4, 5, 21]
    with opened_files(tmp_path) as opened:
        for k in wanted:
            volume.read(k)
    truth = by_truth(written, volume)
    assert sorted(opened) == sorted(written.paths[truth[k]].name for k in wanted)


def test_measuring_three_rois_reads_only_the_slices_they_touch(tmp_path: Path) -> None:
    """Planes at 22, 30 and 38 of 60 mm, and 3 mm beside each, where metal would count: each slice once.

    Planted: the whole volume read before measuring.
    """
    hu = np.random.default_rng(0).normal(120, 15, (60, 40, 40)).round().astype(np.int16)
    written = factory.write_series(tmp_path, hu, factory.axial(60, 1.0, [0.0, 0.0, 0.0]))
    planes = {"superior": 38, "mid": 30, "inferior": 22}
    ellipses = tuple(
        Ellipse(name, np.array([18.0, 14.0, z]), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), (11.0, 8.0))
        for name, z in planes.items()
    )
    volume = spineimg.load(tmp_path)
    with opened_files(tmp_path) as opened:
        spineimg.assess(volume, RoiSet((VertebraRoi("L4", ellipses=ellipses),)))
    place = {path.name: k for k, path in enumerate(written.paths)}
    read = sorted(place[name] for name in opened)
    assert len(read) == len(set(read))
    assert set(planes.values()) <= set(read)
    assert all(min(abs(k - z) for z in planes.values()) <= 3 for k in read)


def test_the_index_reads_headers_only(tmp_path: Path) -> None:
    """Twelve slices of 512 x 512: 6.3 MB of pixels, of which listing and loading touch nothing."""
    if not Path("/proc/self/io").exists():
        pytest.skip("/proc/self/io tells how many bytes were read, on Linux only")
    factory.write_series(tmp_path, factory.pattern(12, 512, 512), factory.axial(12))
    spineimg.load(tmp_path)
    before = bytes_read()
    volume = spineimg.load(tmp_path)
    index = bytes_read() - before
    assert index < 12 * 70_000
    before = bytes_read()
    volume.read(7)
    assert bytes_read() - before < 2 * 512 * 512 * 2


def test_one_frame_of_an_enhanced_file_is_read_alone(tmp_path: Path) -> None:
    """Twelve frames of 512 x 512: one frame is 0.5 MB of 6.3. Planted: all frames read for one."""
    if not Path("/proc/self/io").exists():
        pytest.skip("/proc/self/io tells how many bytes were read, on Linux only")
    factory.write_enhanced(tmp_path / "e", factory.pattern(12, 512, 512), [factory.axial(12)])
    volume = spineimg.load(tmp_path)
    before = bytes_read()
    volume.read(7)
    assert bytes_read() - before < 3 * 512 * 512 * 2


WHOLE = {
    "plain": Encoding(),
    "signed": Encoding(signed=True, bits_stored=16),
    "big endian": Encoding(transfer_syntax=factory.ExplicitVRBigEndian),
    "junk bits": Encoding(junk_bits=True),
    "signed junk bits": Encoding(signed=True, bits_stored=13, junk_bits=True),
    "deflated": Encoding(transfer_syntax=factory.DeflatedExplicitVRLittleEndian),
    "JPEG-LS": Encoding(transfer_syntax=factory.JPEGLSLossless),
    "another intercept for each": Encoding(bits_stored=16, intercept=[-1000.0 - k for k in range(9)]),
    "another slope for one": Encoding(bits_stored=16, slope=[1.0] * 8 + [0.5]),
    "negative slope": Encoding(bits_stored=16, slope=-1.0, intercept=3000.0),
}


@pytest.mark.parametrize("encoding", WHOLE.values(), ids=WHOLE.keys())
def test_a_whole_volume_is_its_slices(tmp_path: Path, encoding: Encoding) -> None:
    """Reading all at once is another way through the reader, with the same numbers. Planted: a slice left out."""
    written = factory.write_series(tmp_path, factory.pattern(9), factory.feet_first(9), encoding=encoding)
    volume = spineimg.load(tmp_path)
    whole = read_array(volume)
    assert whole.dtype == (np.float32 if not isinstance(encoding.slope, float) else np.int16)
    np.testing.assert_array_equal(whole, np.stack([volume.read(k) for k in range(9)]))
    np.testing.assert_array_equal(whole, written.hu[by_truth(written, volume)])


def test_a_whole_volume_with_one_slice_beyond_int16(tmp_path: Path) -> None:
    """One voxel of the sixth of nine slices is 40,000 HU. Planted: HU wrapped into int16."""
    hu = factory.pattern(9).astype(np.int32)
    hu[5, 3, 4] = 40_000
    written = factory.write_series(tmp_path, hu, factory.axial(9), encoding=Encoding(bits_stored=16))
    volume = spineimg.load(tmp_path)
    whole = read_array(volume)
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(whole, written.hu[by_truth(written, volume)])
    assert sorted(str(volume.read(k).dtype) for k in range(9)) == ["float32"] + ["int16"] * 8


def test_read_returns_an_array_of_its_own(tmp_path: Path) -> None:
    """Writing into what was read changes nothing that is read later."""
    factory.write_series(tmp_path, factory.pattern(3), factory.axial(3))
    volume = spineimg.load(tmp_path)
    first = volume.read(1).copy()
    taken = volume.read(1)
    if taken.flags.writeable:
        taken[:] = 0
    np.testing.assert_array_equal(volume.read(1), first)


@pytest.mark.parametrize(
    "syntax",
    [*factory.NATIVE, factory.RLELossless, factory.JPEGLSLossless, factory.JPEGLosslessSV1],
    ids=lambda u: u.name,
)
def test_no_file_stays_open(tmp_path: Path, syntax: str) -> None:
    """Open descriptors before and after, with an unclosed file an error. Planted: a file opened and not closed."""
    encoding = Encoding(transfer_syntax=syntax)
    layout = Layout(private_bytes=70_000)
    factory.write_series(tmp_path, factory.pattern(6), factory.axial(6), encoding=encoding, layout=layout)
    (tmp_path / "text").write_text("no DICOM")
    (tmp_path / "zero").touch()
    _read_and_forget(tmp_path)
    gc.collect()
    before = open_descriptors()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        _read_and_forget(tmp_path)
        gc.collect()
    assert open_descriptors() == before


def test_no_file_stays_open_after_an_error(tmp_path: Path) -> None:
    written = factory.write_series(tmp_path, factory.pattern(4), factory.axial(4))
    volume = spineimg.load(tmp_path)
    for path in written.paths:
        factory.truncate(path, 0.7)
    gc.collect()
    before = open_descriptors()
    for k in range(4):
        with pytest.raises(PixelError):
            volume.read(k)
    scan([tmp_path])
    gc.collect()
    assert open_descriptors() == before


def test_a_slice_that_is_not_there(tmp_path: Path) -> None:
    factory.write_series(tmp_path, factory.pattern(3), factory.axial(3))
    with pytest.raises((IndexError, SpineImgError)):
        spineimg.load(tmp_path).read(3)


def _read_and_forget(folder: Path) -> None:
    volume = spineimg.load(folder)
    for k in range(volume.geometry.shape[0]):
        volume.read(k)
