"""The verb `levels` and `hu --levels all` on a study on disk: the written ROI file, the figure, refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from spineimg.io.sample import sample_study

STUDY = sample_study("preop")
TRUTH = {one["level"]: one for one in json.loads((STUDY / "truth.json").read_text(encoding="utf-8"))["levels"]}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from spineimg.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def seed(level: str) -> str:
    return f"{level}=" + ",".join(f"{x:.2f}" for x in TRUTH[level]["center"])


def test_levels_are_written_as_a_roi_file_that_measures(tmp_path: Path) -> None:
    """Planted: the centre written in voxels."""
    from spineimg import assess, load, read_rois
    from spineimg.io.centroids import read_centroids

    file, figure = tmp_path / "levels.json", tmp_path / "spine.png"
    verse = tmp_path / "verse.json"
    outputs = ("--json", str(file), "--figure", str(figure), "--centroids", str(verse))
    done = run("levels", str(STUDY / "ct"), "--seed", seed("L3"), *outputs)
    assert done.returncode == 0, done.stderr
    assert "L3" in done.stdout
    assert figure.stat().st_size > 20_000
    document = json.loads(file.read_text(encoding="utf-8"))
    assert document["schema"] == "spineimg.rois/1"
    for one in document["vertebrae"]:
        true = TRUTH[one["level"]]
        assert sum((a - b) ** 2 for a, b in zip(one["center"], true["center"], strict=True)) < 2.5**2
        assert one["confirmed"] is True
        assert 0 < one["quality"] <= 1
        assert {"axes", "width_mm", "depth_mm", "height_mm", "superior", "inferior"} <= set(one["body"])
    centroids = read_centroids(verse, load(STUDY / "ct").geometry).vertebrae
    assert [one.level for one in centroids] == [one["level"] for one in document["vertebrae"]]
    for one, other in zip(centroids, document["vertebrae"], strict=True):
        assert one.center_lps_mm == pytest.approx(other["center"], abs=0.01)
    measured = assess(load(STUDY / "ct"), read_rois(file)).vertebrae
    assert len(measured) >= 3
    assert all(len(one.hu.slices) == 3 for one in measured)


@pytest.mark.parametrize("text", ["L3", "L3=1,2", "X3=1,2,3", "L3=1,2,nan"])
def test_seeds_that_are_none(text: str) -> None:
    done = run("levels", str(STUDY / "ct"), "--seed", text)
    assert done.returncode == 2
    assert "--seed" in done.stderr


def test_a_seed_outside_the_spine_is_one_line_and_exit_1() -> None:
    done = run("levels", str(STUDY / "ct"), "--seed", "L3=0,0,-9000")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "outside the volume" in done.stderr


def test_hu_of_all_levels_is_not_confirmed(tmp_path: Path) -> None:
    """Planted: names from the sacrum marked as confirmed."""
    file, figure = tmp_path / "result.json", tmp_path / "spine.png"
    arguments = ("--levels", "all", "--liv", "L5", "--json", str(file), "--figure", str(figure), "--quiet")
    done = run("hu", str(STUDY / "ct"), *arguments)
    assert done.returncode in (0, 1), done.stderr
    if done.returncode:  # the sample's image may end before the wings of the sacrum
        assert "nothing tells the names" in done.stderr
        return
    document = json.loads(file.read_text(encoding="utf-8"))
    assert all(one["confirmed"] is False for one in document["vertebrae"] if one["mean_hu"] is not None)
    (lowest,) = [one for one in document["vertebrae"] if one["level"] == "L5"]
    assert "not confirmed" in lowest["flag"]["text"]
    assert figure.stat().st_size > 20_000
