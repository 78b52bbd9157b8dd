"""Sound small studies, and ways to break them."""

from __future__ import annotations

import copy
import gzip
import json
import re
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

Files = dict[str, bytes]
Rng = np.random.Generator

SLICES, SIDE = 9, 32
KINDS = (
    "bytes of a header", "bytes of pixels", "file cut short", "value of a tag", "VR, length or tag", "nested sequence",
    "transfer syntax", "nested value", "bytes of a volume file", "header of a volume file", "value in a ROI file",
    "bytes of a ROI file",
)  # fmt: skip


@dataclass(frozen=True, eq=False, slots=True)
class Base:
    """A sound study as files below a folder; `study` is the folder or file to open."""

    name: str
    files: Files
    study: str

    @property
    def dicom(self) -> list[str]:
        return [name for name in self.files if name.startswith("ct")]


@dataclass(frozen=True, eq=False, slots=True)
class Mutant:
    """A broken study, with the kind of harm that was done."""

    kind: str
    files: Files
    study: str


# -- sound studies ----------------------------------------------------------------------------------------------------


def bases() -> tuple[Base, ...]:
    """One study in every encoding that is mutated."""
    with tempfile.TemporaryDirectory(prefix="spineimg-fuzz-") as folder:
        return (*_dicom_bases(Path(folder)), *_volume_bases(Path(folder)))


def _hu() -> Any:
    rng = np.random.default_rng(11)
    slopes = np.arange(SLICES)[:, None, None] * 10 + np.arange(SIDE)[None, :, None] + np.arange(SIDE)[None, None] * 2
    hu = (60 + slopes + rng.integers(-20, 20, (SLICES, SIDE, SIDE))).astype(np.int16)
    hu[:, :3] = -1000
    return hu


def _dicom_bases(folder: Path) -> list[Base]:
    from pydicom.uid import (
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        JPEG2000Lossless,
        JPEGLosslessSV1,
        JPEGLSLossless,
        RLELossless,
    )

    from tests import dicom_factory as factory

    lattice, hu = factory.axial(SLICES), _hu()
    rois = json.dumps(_rois(lattice.lps)).encode()
    found = []
    for name, syntax in (
        ("explicit", ExplicitVRLittleEndian), ("implicit", ImplicitVRLittleEndian), ("big", ExplicitVRBigEndian),
        ("deflated", DeflatedExplicitVRLittleEndian), ("rle", RLELossless), ("jpegls", JPEGLSLossless),
        ("jpeg2000", JPEG2000Lossless), ("jpeg", JPEGLosslessSV1),
    ):  # fmt: skip
        encoding = factory.Encoding(transfer_syntax=syntax)
        factory.write_series(folder / name / "ct", hu, lattice, encoding=encoding, layout=factory.Layout(named=True))
        found.append(Base(name, {**_read(folder / name), "rois.json": rois}, "ct"))
    signed = factory.Encoding(signed=True, bits_stored=16, intercept=0.0, padding=-2000)
    factory.write_series(folder / "signed" / "ct", hu, lattice, encoding=signed, layout=factory.Layout(clutter=True))
    found.append(Base("signed", {**_read(folder / "signed"), "rois.json": rois}, "ct"))
    for name, syntax in (("enhanced", ExplicitVRLittleEndian), ("enhanced-jpegls", JPEGLSLossless)):
        encoding = factory.Encoding(transfer_syntax=syntax)
        factory.write_enhanced(folder / name / "ct" / "all.dcm", hu, [lattice], encoding=encoding)
        found.append(Base(name, {**_read(folder / name), "rois.json": rois}, "ct"))
    return found


def _volume_bases(folder: Path) -> list[Base]:
    import SimpleITK as sitk  # noqa: N813 - the library's own customary name

    from tests import dicom_factory as factory

    lattice = factory.axial(SLICES)
    labels = np.zeros((SLICES, SIDE, SIDE), np.uint8)
    labels[1:8, 8:28, 8:28] = 5
    found = []
    for name in ("v.nii", "v.nii.gz", "v.nrrd", "v.mha"):
        here = folder / f"volume-{name}"
        here.mkdir()
        for file, voxels in ((name, _hu()), ("labels.nrrd", labels)):
            image = sitk.GetImageFromArray(voxels)
            image.SetSpacing((0.9, 0.7, 1.5))
            image.SetOrigin(lattice.origins_lps_mm[0].tolist())
            sitk.WriteImage(image, str(here / file), useCompression=file.endswith("gz"))
        document = _rois(lattice.lps)
        document["vertebrae"].append({"level": "L5", "mask": {"file": "labels.nrrd", "label": 5}})
        found.append(Base(name, {**_read(here), "rois.json": json.dumps(document).encode()}, name))
    return found


def _read(folder: Path) -> Files:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _rois(lps: Callable[[int, float, float], Any]) -> dict[str, Any]:
    """Two vertebrae on original slices, and one on planes tilted by 8 degrees."""

    def at(k: int, v: list[float]) -> list[dict[str, Any]]:
        return [
            {"position": name, "center": [round(float(x), 4) for x in lps(k + n, 16.0, 15.0)], "u": [1, 0, 0], "v": v,
             "semi_axes_mm": [5.0, 4.5]}
            for n, name in enumerate(("inferior", "mid", "superior"))
        ]  # fmt: skip

    tilted = [0.0, float(np.cos(np.radians(8))), float(np.sin(np.radians(8)))]
    return {
        "schema": "spineimg.rois/1",
        "reader": "A",
        "construct": {"uiv": "L2", "liv": "L4"},
        "vertebrae": [
            {"level": "L4", "slices": at(0, [0, 1, 0]), "confirmed": True, "status": None},
            {"level": "L3", "slices": at(3, tilted)},
            {"level": "L2", "slices": at(6, [0, 1, 0])},
        ],
    }


# -- which harm -------------------------------------------------------------------------------------------------------


def mutant(ready: tuple[Base, ...], seed: int, number: int) -> Mutant:
    """Mutant `number` of a seed."""
    rng = np.random.default_rng([seed, number])
    kind = KINDS[number % len(KINDS)]
    base = _pick(rng, [one for one in ready if _HARM[kind][0](one)])
    files = _HARM[kind][1](rng, base)
    return Mutant(kind, {**base.files, **files}, base.study)


def _pick(rng: Rng, choices: Any) -> Any:
    return choices[int(rng.integers(len(choices)))]


def _some(rng: Rng, names: list[str]) -> list[str]:
    """One of the slices, a few, or all."""
    if len(names) < 2 or rng.random() < 0.4:
        return names if rng.random() < 0.5 else [_pick(rng, names)]
    return [name for name in names if rng.random() < 0.5] or names[:1]


# -- bytes ------------------------------------------------------------------------------------------------------------


def _harm_bytes(rng: Rng, data: bytes, start: int, end: int) -> bytes:
    """Flips, overwrites, inserts, removes or repeats bytes between start and end."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(start, max(start + 1, end)))
        count = int(_pick(rng, (1, 1, 2, 4, 8, 64)))
        what = rng.integers(6)
        if what == 0:
            out[at : at + 1] = bytes([out[min(at, len(out) - 1)] ^ 1 << int(rng.integers(8))])
        elif what == 1:
            out[at : at + count] = rng.bytes(count)
        elif what == 2:
            out[at : at + count] = _pick(rng, (b"\0", b"\xff", b" ", b"\\", b"9")) * count
        elif what == 3:
            out[at:at] = rng.bytes(count)
        elif what == 4:
            del out[at : at + count]
        else:
            out[at:at] = out[max(0, at - count) : at]
    return bytes(out)


def _pixels_at(data: bytes) -> int:
    """Where pixel data begin in a file of any byte order; the end where they cannot be found."""
    found = [at for tag in (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10") if (at := data.rfind(tag)) >= 0]
    return max(found, default=len(data))


def _header_bytes(rng: Rng, base: Base) -> Files:
    name = _pick(rng, base.dicom)
    data = base.files[name]
    return {name: _harm_bytes(rng, data, int(_pick(rng, (0, 128, 132, 300))), min(len(data), _pixels_at(data) + 12))}


def _pixel_bytes(rng: Rng, base: Base) -> Files:
    return {
        name: _harm_bytes(rng, base.files[name], _pixels_at(base.files[name]), len(base.files[name]))
        for name in _some(rng, base.dicom)
    }


def _cut(rng: Rng, base: Base) -> Files:
    files = {}
    for name in _some(rng, [one for one in base.files if one != "rois.json"]):
        data = base.files[name]
        at = int(_pick(rng, (rng.integers(len(data)), len(data) - rng.integers(1, 200), rng.integers(400))))
        files[name] = data[: max(0, at)]
    return files


# -- DICOM elements ---------------------------------------------------------------------------------------------------

_LONG = {b"OB", b"OW", b"OF", b"OD", b"SQ", b"UC", b"UR", b"UT", b"UN", b"OL", b"OV", b"SV", b"UV"}
_TAGS = {
    0x00080005: b"CS", 0x00080008: b"CS", 0x00080016: b"UI", 0x00080018: b"UI", 0x00080060: b"CS",
    0x0008103E: b"LO", 0x00100010: b"PN", 0x00180010: b"LO", 0x00180050: b"DS", 0x00180060: b"DS",
    0x00181210: b"SH", 0x0020000E: b"UI", 0x00200032: b"DS", 0x00200037: b"DS", 0x00280002: b"US",
    0x00280004: b"CS", 0x00280008: b"IS", 0x00280010: b"US", 0x00280011: b"US", 0x00280030: b"DS",
    0x00280100: b"US", 0x00280101: b"US", 0x00280102: b"US", 0x00280103: b"US", 0x00280120: b"US",
    0x00281052: b"DS", 0x00281053: b"DS", 0x00281054: b"LO",
}  # fmt: skip
_ABSURD_TEXT = (
    b"", b"0", b"0\\0", b"0\\0\\0", b"NaN\\NaN", b"nan\\nan\\nan", b"inf", b"-inf\\1\\1", b"Infinity\\1", b"-1\\-1",
    b"1e308", b"1e308\\1e308\\1e308", b"1e-300\\1e-300", b"abc", b"../../../../etc/passwd", b"\\\\\\\\", b"1000000000",
    b"-1000000000", b"99999999999999999999999999", b"1_000", b"0x10", b"1,5\\1,5", b"1\\2\\3\\4\\5\\6", b"\xff\xfe\xfd",
    b"\x1b$B", b"1\0\0\0", b"1e7", b"0.5", b"-1", b"2", b"\xd9\xa3", b"1 2", b"0\\0\\0\\0\\0\\0", b"1\\0\\0\\1\\0\\0",
    b"1\\0\\0\\0\\0\\1", b"1\\0\\0\\0\\0.7\\0.7", b"a" * 60_000, b"\\".join([b"1"] * 5000), b"\n\r\t;|&$(x)", b"%s%n{}",
)  # fmt: skip
_ABSURD_SHORTS = (0, 1, 2, 3, 7, 8, 10, 11, 12, 15, 16, 17, 31, 32, 33, 64, 4096, 4097, 32767, 32768, 65535)
_SYNTAXES = (
    b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99",
    b"1.2.840.10008.1.2.5", b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.4.51", b"1.2.840.10008.1.2.4.57",
    b"1.2.840.10008.1.2.4.70", b"1.2.840.10008.1.2.4.80", b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.4.201",
    b"1.2.840.10008.1.2.4.102", b"1.2.840.10008.1.2.4.94", b"1.2.3", b"", b"../x", b"\xff" * 8,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Element:
    tag: int
    vr: bytes
    value: bytes
    length: int | None = None
    """What the file says instead of the true length."""

    def coded(self) -> bytes:
        length = len(self.value) if self.length is None else self.length
        head = struct.pack("<HH", self.tag >> 16, self.tag & 0xFFFF) + self.vr
        return (
            head
            + (struct.pack("<HL", 0, length) if self.vr in _LONG else struct.pack("<H", length & 0xFFFF))
            + self.value
        )


def _split(data: bytes) -> tuple[bytes, list[_Element], bytes]:
    """(everything up to the data set, its elements, pixel data) of an explicit little endian file."""
    at = 144 + struct.unpack_from("<L", data, 140)[0]
    start, elements = at, []
    while at < len(data):
        group, element, vr = struct.unpack_from("<HH2s", data, at)
        head, length = (12, struct.unpack_from("<L", data, at + 8)[0]) if vr in _LONG else (
            8, struct.unpack_from("<H", data, at + 6)[0])  # fmt: skip
        if group == 0x7FE0 or length == 0xFFFFFFFF:
            break
        elements.append(_Element(group << 16 | element, vr, data[at + head : at + head + length]))
        at += head + length
    return data[:start], elements, data[at:]


def _is_explicit(base: Base) -> bool:
    return base.name in ("explicit", "rle", "jpegls", "jpeg2000", "enhanced", "enhanced-jpegls")


def _change(rng: Rng, base: Base, change: Callable[[Rng, list[_Element]], list[_Element]]) -> Files:
    """The same change in some of the files."""
    seed, files = int(rng.integers(1 << 30)), {}
    for name in _some(rng, base.dicom):
        before, elements, pixels = _split(base.files[name])
        changed = change(np.random.default_rng(seed), elements)
        files[name] = before + b"".join(one.coded() for one in changed) + pixels
    return files


def _tag_value(rng: Rng, base: Base) -> Files:
    return _change(rng, base, _absurd_values)


def _absurd_values(rng: Rng, elements: list[_Element]) -> list[_Element]:
    known = {one.tag: one for one in elements}
    for _ in range(int(_pick(rng, (1, 1, 1, 2, 3)))):
        tag = _pick(rng, tuple(_TAGS))
        vr = _TAGS[tag]
        if rng.random() < 0.1:
            known.pop(tag, None)
        elif vr == b"US":
            known[tag] = _Element(tag, vr, struct.pack("<H", _pick(rng, _ABSURD_SHORTS)))
        else:
            text = _pick(rng, _ABSURD_TEXT)
            known[tag] = _Element(tag, vr, text + b" " * (len(text) % 2))
    return [known[tag] for tag in sorted(known)]


def _shape(rng: Rng, base: Base) -> Files:
    return _change(rng, base, _broken_shape)


def _broken_shape(rng: Rng, elements: list[_Element]) -> list[_Element]:
    """Wrong VR, wrong length, an element twice, an element out of order."""
    out = list(elements)
    at = int(rng.integers(len(out)))
    wanted = [n for n, one in enumerate(out) if one.tag in _TAGS]
    if (
        rng.random() < 0.7 or out[at].tag == 0x00080005
    ):  # pydicom, the judge, stumbles over a character set that is none
        at = _pick(rng, wanted[1:])
    one, what = out[at], rng.integers(5)
    if what == 0:
        out[at] = replace(
            one, vr=_pick(rng, (b"UN", b"SQ", b"OB", b"FD", b"FL", b"SS", b"UL", b"AT", b"LT", b"ZZ", b"\0\0"))
        )
    elif what == 1:
        lengths = (0, 1, 3, 0xFFFF, 0xFFFE, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFE, 0xFFFFFFFF)
        vr = _pick(rng, (one.vr, one.vr, b"UN", b"OB", b"SQ"))
        out[at] = replace(one, vr=vr, length=int(_pick(rng, lengths)))
    elif what == 2:
        out.insert(at, replace(one, value=_pick(rng, _ABSURD_TEXT[:30])))
    elif what == 3:
        out.insert(int(rng.integers(len(out))), out.pop(at))
    else:
        out[at] = replace(
            one, tag=_pick(rng, (0x7FE00010, 0x7FE00008, 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0x00020010, 0))
        )
    return out


def _nested(rng: Rng, base: Base) -> Files:
    return _change(rng, base, _deep_sequence)


def _deep_sequence(rng: Rng, elements: list[_Element]) -> list[_Element]:
    """A sequence in a sequence in a sequence, of undefined or defined length, closed or not."""
    depth = int(_pick(rng, (2, 10, 63, 65, 300, 2000, 20_000)))
    tag = _pick(rng, (0x00081140, 0x00091010, 0x52009229, 0x52009230, 0x00180012))
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + b"SQ\0\0"
    if rng.random() < 0.7:
        opened = head + b"\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
        closed = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
        value = opened[12:] + opened * (depth - 1) + closed * int(_pick(rng, (0, depth - 1, depth, depth))) + closed[:0]
        value += closed
        new = _Element(tag, b"SQ", value, 0xFFFFFFFF)
    else:
        value = b""
        for _ in range(min(depth, 300)):
            value = b"\xfe\xff\x00\xe0" + struct.pack("<L", len(value)) + value
            value = head + struct.pack("<L", len(value)) + value
        new = _Element(tag, b"SQ", value[12:], int(_pick(rng, (len(value) - 12, len(value), 0xFFFFFFFF))))
    others = [one for one in elements if one.tag != tag or rng.random() < 0.3]
    return sorted([*others, new], key=lambda one: one.tag)


def _syntax(rng: Rng, base: Base) -> Files:
    """Another transfer syntax in the file meta information than the file has."""
    files, new = {}, _pick(rng, _SYNTAXES)
    for name in _some(rng, base.dicom):
        data = base.files[name]
        at = data.find(b"\x02\x00\x10\x00UI")
        length = struct.unpack_from("<H", data, at + 6)[0]
        value = new + b"\0" * (len(new) % 2)
        group = struct.unpack_from("<L", data, 140)[0] + len(value) - length
        changed = data[:at] + b"\x02\x00\x10\x00UI" + struct.pack("<H", len(value)) + value + data[at + 8 + length :]
        files[name] = changed[:140] + struct.pack("<L", group) + changed[144:]
    return files


_NESTED_TAGS = (0x00200032, 0x00200037, 0x00280030, 0x00281052, 0x00281053, 0x00180060, 0x00189077, 0x00189007,
                0x00280008, 0x0020000E, 0x00209056)  # fmt: skip


def _nested_value(rng: Rng, base: Base) -> Files:
    """Values anywhere in the file, also inside functional groups, overwritten by text of the same length."""
    files = {}
    for name in _some(rng, base.dicom):
        data = bytearray(base.files[name])
        tag = _pick(rng, _NESTED_TAGS)
        head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        places = [m.start() for m in re.finditer(re.escape(head) + b"(DS|IS|CS|UI|SH)", bytes(data))]
        for at in places if rng.random() < 0.3 else [_pick(rng, places)] if places else []:
            length = struct.unpack_from("<H", data, at + 6)[0]
            data[at + 8 : at + 8 + length] = _pick(rng, _ABSURD_TEXT)[:length].ljust(length)
        files[name] = bytes(data)
    return files


# -- volume files -----------------------------------------------------------------------------------------------------


def _volume_bytes(rng: Rng, base: Base) -> Files:
    name = _pick(rng, [base.study, base.study, "labels.nrrd"])
    data = base.files[name]
    return {name: _harm_bytes(rng, data, 0, _pick(rng, (400, len(data))))}


def _volume_header(rng: Rng, base: Base) -> Files:
    name = _pick(rng, [base.study, base.study, base.study, "labels.nrrd"])
    data = base.files[name]
    if name.endswith(".nii.gz"):
        return {name: gzip.compress(_nifti_field(rng, gzip.decompress(data)), 1, mtime=0)}
    return {name: _nifti_field(rng, data) if name.endswith(".nii") else _header_line(rng, data)}


def _nifti_field(rng: Rng, data: bytes) -> bytes:
    """One field of the NIfTI-1 header replaced."""
    shorts = [40 + 2 * n for n in range(8)] + [70, 72, 252, 254]
    floats = [76 + 4 * n for n in range(8)] + [108, 112, 116] + list(range(256, 328, 4))
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 3))):
        if rng.random() < 0.5:
            value = int(_pick(rng, (0, 1, 2, 3, -1, 7, 8, 16, 64, 128, 512, 768, 1792, 2304, 32767, -32768, 31, 33, 9)))
            struct.pack_into("<h", out, _pick(rng, shorts), value)
        else:
            value = _pick(rng, (0.0, np.nan, np.inf, -np.inf, 1e30, -1e30, 1e-30, -1.0, 0.5, 2.0, 352.5, 1e9, 353.0))
            struct.pack_into("<f", out, _pick(rng, floats), value)
    return bytes(out)


def _header_line(rng: Rng, data: bytes) -> bytes:
    """One line of an NRRD or MetaImage header with an absurd value, taken away, or twice."""
    end = data.find(b"\n\n") + 1 if data.startswith(b"NRRD") else data.find(b"\n", data.find(b"ElementDataFile")) + 1
    lines = data[:end].splitlines(keepends=True)
    at = int(rng.integers(len(lines)))
    what = rng.integers(4)
    if what == 0:
        del lines[at]
    elif what == 1:
        lines.insert(int(rng.integers(len(lines))), lines[at])
    else:
        key, sign, _ = lines[at].partition(b":" if b":" in lines[at] else b"=")
        values = (
            b"0 0 0", b"-1 -1 -1", b"1000000000 1000000000 1000000000", b"nan nan nan", b"(nan,0,0) (0,1,0) (0,0,1)",
            b"(0,0,0) (0,0,0) (0,0,0)", b"none none none", b"32 32", b"32 32 9 1", b"1e308 1e308 1e308", b"double",
            b"unsigned char", b"MET_DOUBLE", b"../../../etc/passwd", b"/etc/passwd", b"/dev/zero", b"LIST", b"gzip",
            b"raw", b"bzip2", b"True", b"False", b"big", b"", b"x" * 70_000, b"\xff\xfe", b"scanner-xyz", b"9" * 30,
            b"-0", b"1 1 1",
        )  # fmt: skip
        lines[at] = key + sign + b" " + _pick(rng, values) + b"\n"
    return b"".join(lines) + data[end:]


# -- ROI files --------------------------------------------------------------------------------------------------------

_ABSURD_JSON: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 0.0, 1e308, -1e308, 1e-308, 10**400, 2**63, float("nan"), float("inf"), "", "NaN",
    "L4", "T99", "l 4", "S1", "x" * 100_000, "\0", "\ud800", [], {}, [[]], [0, 0, 0], [0, 0, 1], [1, 0, 0],
    [float("nan")] * 3, [1e308] * 3, ["a", "b", "c"], [1, 2], [0, 0], [-5, 5], [1e9, 1e9], [1e-9, 1e-9],
    {"file": "../../../etc/passwd", "label": 1},
    {"file": "/etc/passwd", "label": 1}, {"file": ".", "label": 1}, {"file": "labels.nrrd", "label": 5},
    {"file": "labels.nrrd", "label": 4}, {"file": "v.nii", "label": 1}, {"file": "a\0b.nii", "label": 1},
    {"file": "x" * 5000 + ".nii", "label": 1}, {"file": "labels.nrrd", "label": 1e308}, "fractured",
    "cemented", [1, 2, 3],
)  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every key and item of a JSON document."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [found for key in keys for found in ((*path, key), *_places(value[key], (*path, key)))]


def _roi_value(rng: Rng, base: Base) -> Files:
    document = json.loads(base.files["rois.json"])
    for _ in range(int(_pick(rng, (1, 1, 2)))):
        path = _pick(rng, _places(document))
        holder = document
        for key in path[:-1]:
            holder = holder[key]
        what = rng.integers(8)
        if what == 0:
            del holder[path[-1]]
        elif what == 1 and isinstance(holder, dict):
            holder[_pick(rng, ("centre", "Slices", "unknown", "levels", "semi_axes", "x" * 1000, ""))] = holder[
                path[-1]
            ]
        elif what == 2 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[path[-1]]))
        elif what == 3 and isinstance(holder[path[-1]], int | float) and not isinstance(holder[path[-1]], bool):
            holder[path[-1]] *= float(_pick(rng, (-1, 0, 0.9, 1.001, 1.5, 10, 1e6, 1e300)))
        else:
            holder[path[-1]] = copy.deepcopy(_pick(rng, _ABSURD_JSON))
    text = json.dumps(document)
    if rng.random() < 0.03:
        text = text.replace('"A"', "[" * 100_000 + "]" * 100_000)
    elif rng.random() < 0.03:
        text = text.replace('"A"', '"' + "y" * int(_pick(rng, (10_000_000, 30_000_000))) + '"')
    elif rng.random() < 0.03:
        text = text.replace('"A"', "1" + "0" * int(_pick(rng, (5000, 1_000_000))))
    return {"rois.json": text.encode("utf-8", "surrogatepass")}


def _roi_bytes(rng: Rng, base: Base) -> Files:
    data = base.files["rois.json"]
    what = rng.integers(8)
    if what == 0:
        return {"rois.json": data.decode().encode(_pick(rng, ("utf-16", "utf-32", "utf-8-sig", "utf-16-be")))}
    if what == 1:
        return {"rois.json": data[: int(rng.integers(len(data)))]}
    if what == 2:
        return {
            "rois.json": _pick(rng, (b"", b"null", b"[]", b"{}", b"0", b'"x"', b"\xff\xfe", b"{" * 50_000, b"\0" * 100))
        }
    return {"rois.json": _harm_bytes(rng, data, 0, len(data))}


def _any_dicom(base: Base) -> bool:
    return bool(base.dicom)


def _any_volume(base: Base) -> bool:
    return not base.dicom


def _has_readable_pixels(base: Base) -> bool:
    return bool(base.dicom) and base.name != "deflated"


def _any(base: Base) -> bool:
    return True


_HARM: dict[str, tuple[Callable[[Base], bool], Callable[[Rng, Base], Files]]] = dict(
    zip(
        KINDS,
        (
            (_any_dicom, _header_bytes), (_has_readable_pixels, _pixel_bytes), (_any, _cut), (_is_explicit, _tag_value),
            (_is_explicit, _shape), (_is_explicit, _nested), (_any_dicom, _syntax), (_any_dicom, _nested_value),
            (_any_volume, _volume_bytes), (_any_volume, _volume_header), (_any, _roi_value), (_any, _roi_bytes),
        ),
        strict=True,
    )
)  # fmt: skip
"""Kind of harm -> (which studies it is for, what it changes)."""
