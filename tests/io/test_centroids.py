"""Centroid files: orientation, round trip, refusals."""

from __future__ import annotations

import json
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from spineimg.errors import RoiError
from spineimg.geometry import Geometry
from spineimg.io.centroids import centroids_of, is_centroid_file, read_centroids, write_centroids
from spineimg.rois import RoiSet, VertebraRoi


def lattice() -> Geometry:
    """20 slices upwards, 30 rows backwards, 40 columns to the left; 3 x 1 x 0.5 mm."""
    affine = np.eye(4)
    affine[:3, :3] = [[0, 0, 0.5], [0, 1.0, 0], [3.0, 0, 0]]
    affine[:3, 3] = [-7.0, 11.0, 100.0]
    return Geometry.from_affine((20, 30, 40), affine)


def written(tmp_path: Path, entries: list[Any]) -> Path:
    file = tmp_path / "verse.json"
    file.write_text(json.dumps(entries), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("direction", "xyz"),
    [
        (["L", "P", "S"], (8.0, 6.0, 5.0)),
        (["P", "I", "R"], (6.0, 14.0, 31.0)),
        (["R", "A", "S"], (31.0, 23.0, 5.0)),
    ],
)
def test_one_point_in_any_orientation(tmp_path: Path, direction: list[str], xyz: tuple[float, ...]) -> None:
    """Index (5, 6, 8) lies at -7 + 4, 11 + 6, 100 + 15. Planted: count - value for count - 1 - value."""
    entry = {"label": 22, **dict(zip("XYZ", xyz, strict=True))}
    file = written(tmp_path, [{"direction": direction}, entry])
    assert is_centroid_file(file)
    (roi,) = read_centroids(file, lattice()).vertebrae
    assert roi.level == "L3"
    assert roi.center_lps_mm is not None
    np.testing.assert_allclose(roi.center_lps_mm, [-3.0, 17.0, 115.0])


def test_round_trip_with_odd_levels(tmp_path: Path) -> None:
    points = {"T13": [-3.0, 17.0, 130.0], "L6": [-2.0, 18.5, 104.5]}
    rois = RoiSet(tuple(VertebraRoi(level, np.array(point)) for level, point in points.items()))
    file = tmp_path / "out.json"
    write_centroids(file, rois, lattice())
    assert json.loads(file.read_text(encoding="utf-8"))[0] == {"direction": ["L", "P", "S"]}
    for roi in read_centroids(file, lattice()).vertebrae:
        np.testing.assert_allclose(roi.center_lps_mm, points[roi.level], atol=0.01)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([{"label": 22, "X": 1, "Y": 1, "Z": 1}], "direction"),
        ([{"direction": ["L", "R", "S"]}, {"label": 22, "X": 1, "Y": 1, "Z": 1}], "direction"),
        ([{"direction": ["L", "P", "S"]}, {"label": 99, "X": 1, "Y": 1, "Z": 1}], "label 99"),
        ([{"direction": ["L", "P", "S"]}, {"label": 22, "X": 41, "Y": 1, "Z": 1}], "outside"),
        ([{"direction": ["L", "P", "S"]}, {"label": 22, "X": "1", "Y": 1, "Z": 1}], "numbers"),
        ([{"direction": ["L", "P", "S"]}, {"label": 26, "X": 1, "Y": 1, "Z": 1}], "no centroid"),
        ([{"direction": ["L", "P", "S"]}, *[{"label": 22, "X": 1, "Y": 1, "Z": 1}] * 2], "twice"),
    ],
)
def test_what_is_refused(tmp_path: Path, entries: list[Any], says: str) -> None:
    with pytest.raises(RoiError, match=says):
        read_centroids(written(tmp_path, entries), lattice())


def test_other_files_are_no_centroid_files(tmp_path: Path) -> None:
    assert not is_centroid_file(tmp_path / "missing.json")
    assert not is_centroid_file(written(tmp_path, [1, 2]))
    with pytest.raises(RoiError, match="no vertebra with a name and a point"):
        centroids_of(RoiSet((VertebraRoi("L5"),)), lattice())
    with pytest.raises(RoiError, match="no label in VerSe"):
        centroids_of(RoiSet((VertebraRoi("S1", np.zeros(3)),)), lattice())


# -- any lattice, any orientation -------------------------------------------------------------------------------------

ORIENTATIONS = [letters for pairs in permutations([("L", "R"), ("P", "A"), ("S", "I")]) for letters in product(*pairs)]
"""All 48 ways in which three axes of an image may run."""


@st.composite
def lattices(draw: st.DrawFn) -> Geometry:
    """Axes that run any way, turned by up to 25 degrees about anything."""
    ways = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}
    axes = np.zeros((3, 3))
    for column, letter in enumerate(draw(st.sampled_from(ORIENTATIONS))):
        axis, sign = ways[letter]
        axes[axis, column] = sign
    about = np.array([draw(st.floats(-1, 1)) for _ in range(3)])
    turn = Rotation.from_rotvec(np.radians(draw(st.floats(0, 25))) * about / max(1.0, float(np.linalg.norm(about))))
    affine = np.eye(4)
    affine[:3, :3] = turn.as_matrix() @ axes @ np.diag([draw(st.floats(0.4, 5)) for _ in range(3)])
    affine[:3, 3] = [draw(st.floats(-400, 400)) for _ in range(3)]
    shape = (draw(st.integers(4, 60)), draw(st.integers(4, 60)), draw(st.integers(4, 60)))
    return Geometry.from_affine(shape, affine)


@settings(max_examples=150, deadline=None)
@given(lattices(), st.sampled_from(ORIENTATIONS), st.tuples(*[st.floats(0, 1)] * 3))
def test_round_trip_through_any_orientation_as_nibabel_has_it(
    tmp_path_factory: pytest.TempPathFactory, where: Geometry, to: tuple[str, str, str], part: tuple[float, ...]
) -> None:
    """A point is written, turned to another orientation by nibabel, and read again. Planted: one sign swapped."""
    point = where.lps_at(np.array(part) * (np.array(where.shape) - 1))
    document = centroids_of(RoiSet((VertebraRoi("L3", point),)), where)
    xyz = np.array([document[1][name] for name in "XYZ"])
    way = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt(document[0]["direction"]), nibabel.orientations.axcodes2ornt(to)
    )
    # The affine of the turned array takes its indices to those of the array as it was.
    back = nibabel.orientations.inv_ornt_aff(way, where.shape[::-1])
    turned = np.linalg.solve(back, [*xyz, 1.0])[:3]
    entry = {"label": 22, **dict(zip("XYZ", turned.tolist(), strict=True))}
    (roi,) = read_centroids(
        written(tmp_path_factory.mktemp("turned"), [{"direction": list(to)}, entry]), where
    ).vertebrae
    assert roi.center_lps_mm is not None
    # Three decimals of a voxel of at most 5 mm.
    np.testing.assert_allclose(roi.center_lps_mm, point, atol=0.006)
    own = nibabel.aff2axcodes(np.diag([-1, -1, 1, 1]) @ where.lps_from_index[:, [2, 1, 0, 3]])
    assert tuple(document[0]["direction"]) == own
