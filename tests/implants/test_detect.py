"""Metal map, screws, sides and levels, and metal that is no screw."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import spineimg
from spineimg.anatomy import Side
from spineimg.errors import RoiError
from spineimg.implants.detect import Metal, find_metal
from spineimg.implants.given import GivenScrew
from spineimg.implants.levels import KnownVertebra, level_of, reading_order, sides_of
from spineimg.implants.metal_map import Windows, map_metal
from spineimg.io.screws import SCHEMA, parse_screws, read_screws
from tests.implants.implant_cases import Build, Piece, construct, errors

DATA = Path(os.environ.get("SPINEIMG_DATA", ""))
needs_data = pytest.mark.skipif(not os.environ.get("SPINEIMG_DATA"), reason="SPINEIMG_DATA is not set")


def _piece(start: tuple[float, ...], end: tuple[float, ...], radius: float, **more: float) -> Piece:
    return Piece(np.array(start), np.array(end), radius, **more)


# -- the map ----------------------------------------------------------------------------------------------------------


def test_the_end_of_the_scale_is_found() -> None:
    """Planted: the maximum taken for the scale's end whether repeated or not."""
    build = construct(1, sides=("left",))
    assert map_metal(build.volume()).scale_end_hu is None
    assert map_metal(build.volume(3071.0)).scale_end_hu == 3071.0
    assert map_metal(build.volume(2047.0)).seed_hu == 2047.0


def test_windows_give_what_the_scan_holds() -> None:
    """Kept cut-outs and slices read again agree with the array; voxels near a line are all voxels near it."""
    volume = construct(1, sides=("left",)).volume()
    metal = map_metal(volume)
    windows, geometry = metal.windows, volume.geometry
    hu = np.stack([volume.read(k) for k in range(geometry.shape[0])])
    assert np.array_equal(windows.window(3, slice(2, 9), slice(4, 11)), hu[3, 2:9, 4:11])
    start, end = np.array([18.0, 0.0, 0.0]), np.array([15.0, -15.0, 4.0])
    points, values = windows.near_line(start, end, 4.0)
    every = geometry.lps_at(np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), axis=-1))
    along = (end - start) / np.linalg.norm(end - start)
    depth = np.clip((every - start) @ along, 0, np.linalg.norm(end - start))
    near = np.linalg.norm(every - start - depth[..., None] * along, axis=-1) <= 4.0
    assert len(values) == near.sum()
    assert values.sum() == pytest.approx(hu[near].sum())
    assert np.allclose(windows.sample(points[:50]), values[:50], atol=1e-3)


def test_slices_are_read_once() -> None:
    volume = construct(1, sides=("left",)).volume()
    reads: list[int] = []

    class Counting:
        def read(self, k: int) -> object:
            reads.append(k)
            return volume.source.read(k)

        def padding_hu(self, k: int) -> None:
            return None

        def sop_instance_uid(self, k: int) -> None:
            return None

    from dataclasses import replace

    find_metal(replace(volume, source=Counting()))  # type: ignore[arg-type]
    again = len(reads) - volume.geometry.shape[0]
    assert again <= 12, f"{again} slices were read a second time"


def test_padding_is_no_metal() -> None:
    volume = construct(1, sides=("left",)).volume()
    windows = Windows(volume)
    assert np.isfinite(windows.window(0, slice(0, 5), slice(0, 5))).all()


# -- screws -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain() -> tuple[Build, Metal]:
    build = construct(crosslink=True)
    return build, find_metal(build.volume())


@pytest.mark.parametrize(
    ("options", "clip", "tolerance"),
    [
        ({}, None, (0.2, 0.3, 0.4, 0.2, 0.6)),
        ({"diameter_mm": 4.5, "tilt_deg": 15.0}, 3071.0, (0.2, 0.5, 0.8, 0.3, 1.0)),
        ({"spacing_mm": (3.0, 0.7, 0.7), "fwhm_mm": (0.8, 1.0)}, 3071.0, (0.3, 1.0, 0.8, 0.4, 1.2)),
    ],
)
def test_screws_are_found_and_measured(
    options: dict[str, object], clip: float | None, tolerance: tuple[float, ...]
) -> None:
    """All of them and no other. Planted: the axis through thresholded voxels only; rows and columns swapped."""
    build = construct(**options)  # type: ignore[arg-type]
    metal = find_metal(build.volume(clip))
    found = errors(build, metal)
    assert set(found) == set(build.screws)
    assert len(metal.screws) == len(build.screws)
    assert metal.clipped is (clip is not None)
    for error in found.values():
        limits = zip(("axis_mm", "axis_deg", "tip_mm", "diameter_mm", "length_mm"), tolerance, strict=True)
        assert {name: abs(error[name]) <= limit for name, limit in limits} == dict.fromkeys(error, True), error


def test_sides_ids_and_order(plain: tuple[Build, Metal]) -> None:
    """Planted: x taken to grow to the patient's right."""
    _, metal = plain
    assert [screw.id for screw in metal.screws] == ["screw-1", "screw-2", "screw-3", "screw-4"]
    assert [screw.side for screw in metal.screws] == [Side.LEFT, Side.RIGHT] * 2
    assert metal.screws[0].shaft.head_lps_mm[2] > metal.screws[2].shaft.head_lps_mm[2]
    assert metal.screws[0].shaft.head_lps_mm[0] > 0


def test_the_crosslink_is_no_screw(plain: tuple[Build, Metal]) -> None:
    assert [other.kind for other in plain[1].other_metal] == ["crosslink"]


def test_the_answer_is_the_same_twice() -> None:
    build = construct(sides=("left",))
    one, two = (find_metal(build.volume()) for _ in range(2))
    assert [s.shaft for s in one.screws] == [s.shaft for s in two.screws]
    assert one.rods == two.rods


def test_levels_name_the_screws() -> None:
    build = construct(sides=("left",))
    bodies = [KnownVertebra(level, np.array([0.0, -32.0, z])) for level, z in (("L2", 2.0), ("L3", -33.0))]
    metal = find_metal(build.volume(), vertebrae=bodies)
    assert [screw.id for screw in metal.screws] == ["L2-left", "L3-left"]
    assert [screw.level for screw in metal.screws] == ["L2", "L3"]


def test_one_sided_construct_knows_its_side() -> None:
    """The screws converge, so that the rod lies on the side of their heads."""
    metal = find_metal(construct(sides=("right",)).volume())
    assert [screw.side for screw in metal.screws] == [Side.RIGHT] * 2
    assert metal.rods[0].id == "right"


def test_marked_screws_replace_found_ones() -> None:
    build = construct(sides=("left",))
    piece = build.screws["0-left"]
    given = GivenScrew(piece.start + 1.0, piece.end - 1.0, id="mine", level="T9", side=Side.LEFT)
    metal = find_metal(build.volume(), given=[given])
    assert [(s.id, s.level, s.side) for s in metal.screws] == [("mine", "T9", Side.LEFT)]
    assert np.linalg.norm(metal.screws[0].shaft.tip_lps_mm - piece.end) < 0.6
    assert [note.code for note in metal.notes] == ["screw_not_marked"]


def test_a_screw_marked_twice_counts_once() -> None:
    """Planted: each mark a screw of its own (two screws of one pedicle, and a density above one)."""
    build = construct(1, sides=("left",))
    piece = build.screws["0-left"]
    marks = [GivenScrew(piece.start + off, piece.end - off, id=name) for name, off in (("a", 1.0), ("b", -0.5))]
    metal = find_metal(build.volume(), given=marks)
    assert [screw.id for screw in metal.screws] == ["a"]
    assert [note.code for note in metal.notes] == ["marked_twice"]


class _StopError(Exception):
    pass


def test_progress_grows_and_cancels() -> None:
    volume = construct(1, sides=("left",)).volume()
    parts: list[float] = []
    find_metal(volume, lambda part, what: parts.append(part))
    assert parts == sorted(parts)
    assert parts[-1] == 1.0

    def stop(part: float, what: str) -> None:
        raise _StopError

    with pytest.raises(_StopError):
        find_metal(volume, stop)


# -- metal that is no screw -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        # A nail in a femur with its lag screw into the femoral head.
        ([_piece((0, 0, 0), (5, 0, -90), 5.5), _piece((8, 2, -30), (-45, -8, 0), 5.2)], "stem"),
        ([_piece((0, 0, 0), (8, 0, -60), 8.0), _piece((0, 0, 0), (-25, 0, 20), 7.0)], "stem"),
        # Wires, leads: long and thin.
        ([_piece((-14, 0, 0), (14, 0, 2), 0.8), _piece((14, 0, 2), (10, 4, -3), 0.8)], "wire"),
        # Screws across the sacroiliac joint: they point to the middle, not forward.
        ([_piece((60, 0, 0), (10, -6, 0), 3.5), _piece((66, 0.6, 0), (60, 0, 0), 6.0)], "implant"),
    ],
)
def test_other_metal_is_no_screw(pieces: list[Piece], kind: str) -> None:
    for clip in (None, 3071.0):
        metal = find_metal(Build({}, pieces, (1.5, 0.8, 0.8)).volume(clip))
        assert not metal.screws
        assert not metal.rods
        assert kind in {other.kind for other in metal.other_metal}, metal.other_metal


def test_contrast_in_the_gut_is_no_metal_of_ours() -> None:
    blob = _piece((0, 0, 0), (30, 10, 5), 9.0, hu=2700.0)
    metal = find_metal(Build({}, [blob]).volume())
    assert not metal.screws
    assert not metal.rods


def test_a_scan_without_metal() -> None:
    metal = find_metal(Build({}, [_piece((0, 0, 0), (20, 0, 0), 5.0, hu=900.0)]).volume())
    assert (metal.screws, metal.rods, metal.other_metal) == ((), (), ())


@needs_data
@pytest.mark.parametrize("name", ["totalseg_example/example_ct.nii.gz", "tcga_ov_abdomen_ce", "cptac_pda_chest"])
def test_real_scans_without_screws(name: str) -> None:
    """The first has a nail in a femur."""
    metal = find_metal(spineimg.load(DATA / name))
    assert not metal.screws
    assert not metal.rods


# -- sides and levels -------------------------------------------------------------------------------------------------


def test_sides_in_a_scoliotic_spine() -> None:
    """Both rods lie left of the scan's middle below, right of it above. Planted: the sign of x alone."""
    z = np.array([100.0, 50.0, 0.0])
    middle = np.array([-40.0, 10.0, 40.0])
    rods = [np.stack([middle + off, np.zeros(3), z], axis=1) for off in (15.0, -15.0)]
    heads = np.concatenate(rods)
    sides, rod_sides = sides_of(heads, heads - [0, 40, 0], [0, 0, 0, 1, 1, 1], rods, [None] * 6)
    assert sides == [Side.LEFT] * 3 + [Side.RIGHT] * 3
    assert rod_sides == [Side.LEFT, Side.RIGHT]
    assert reading_order(heads, heads, sides) == [0, 3, 1, 4, 2, 5]


def test_no_side_without_any_clue() -> None:
    heads = np.array([[0.0, 0.0, 0.0]])
    assert sides_of(heads, heads - [0, 40, 0], [None], [], [None])[0] == [None]


def test_the_level_is_where_the_front_half_lies() -> None:
    """An oblique screw enters at the height of the disc above. Planted: the head's height."""
    bodies = [KnownVertebra("L4", np.array([0.0, 0.0, 35.0])), KnownVertebra("L5", np.array([0.0, 0.0, 0.0]))]
    found = level_of(np.array([18.0, 45.0, 22.0]), np.array([8.0, 0.0, 2.0]), bodies)
    assert found is not None
    assert found.level == "L5"
    assert level_of(np.array([18.0, 45.0, 120.0]), np.array([8.0, 0.0, 110.0]), bodies) is None


# -- files ------------------------------------------------------------------------------------------------------------

GOOD = {"head": [1.0, 2.0, 3.0], "tip": [1.0, -38.0, 3.0]}


def test_a_screw_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "screws.json"
    file.write_text(
        '{"schema": "spineimg.screws/1", "screws": [{"id": "a", "level": "t12", "side": "left", "head": [1, 2, 3], '
        '"tip": [1, -38, 3], "diameter_mm": 6.5, "loosening": "absent"}]}'
    )
    (screw,) = read_screws(file)
    assert (screw.id, screw.level, screw.side, screw.diameter_mm) == ("a", "T12", Side.LEFT, 6.5)
    assert screw.head_lps_mm.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ({"tip": [0, 0, 0]}, "head"),
        ({**GOOD, "tip": [1.0, 2.0, 3.5]}, "apart"),
        ({**GOOD, "diameter_mm": 65}, "diameter_mm"),
        ({**GOOD, "diameter_mm": True}, "diameter_mm"),
        ({**GOOD, "side": "links"}, "side"),
        ({**GOOD, "level": "Q1"}, "level"),
        ({**GOOD, "head": [1, 2, float("nan")]}, "head"),
        ({**GOOD, "id": ""}, "id"),
        (7, "object"),
    ],
)
def test_a_bad_screw_is_named(entry: object, word: str) -> None:
    with pytest.raises(RoiError, match=f"screw 1: .*{word}"):
        parse_screws({"schema": SCHEMA, "screws": [entry]})


@pytest.mark.parametrize("data", [[], {"schema": "x", "screws": [GOOD]}, {"schema": SCHEMA, "screws": []}])
def test_a_file_of_something_else_is_refused(data: object) -> None:
    with pytest.raises(RoiError):
        parse_screws(data)


def test_two_screws_of_one_name_are_refused() -> None:
    with pytest.raises(RoiError, match="twice"):
        parse_screws({"schema": SCHEMA, "screws": [{**GOOD, "id": "a"}, {**GOOD, "id": "a"}]})


def test_an_unreadable_file_is_one_sentence(tmp_path: Path) -> None:
    for content in (b"\xff\xfe\x00", b"{", b"[" * 100_000):
        file = tmp_path / "bad.json"
        file.write_bytes(content)
        with pytest.raises(RoiError, match=r"bad\.json"):
            read_screws(file)
    with pytest.raises(RoiError, match="cannot be read"):
        read_screws(tmp_path / "none.json")
