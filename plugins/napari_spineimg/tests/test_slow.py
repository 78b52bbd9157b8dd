"""What takes minutes: fifty rounds of opening and measuring, and an environment with nothing in it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import scans
import spineimg
from spineimg.rois import RoiSet, VertebraRoi

pytestmark = pytest.mark.slow
PLUGIN = Path(__file__).parents[1]


def test_fifty_rounds_stay_within_50_mb(reading: Any, scan: Callable[[str], Path], record_property: Any) -> None:
    """Open, click, drag, close, with all widgets; no thread, file or layer stays. Planted: closed studies kept."""
    hand = reading()
    widget = hand.open("Vertebral HU")
    hand.open("Linked planes")
    hand.open("Implant screen")
    process = psutil.Process()
    sizes, counts = [], []
    for _ in range(53):
        hand.viewer.layers.clear()
        hand.settle()
        hand.viewer.open(str(scan("clean")), plugin="napari-spineimg")
        for level in ("L2", "L3"):
            widget.measure(level, scans.body_center(level))
        middle = widget.session.ellipses("L2")
        widget._dragged("L2", middle)
        widget.undo()
        hand.settle()
        gc.collect()
        sizes.append(process.memory_info().rss)
        counts.append((threading.active_count(), len(process.open_files()), len(hand.viewer.layers)))
    grown = (sizes[-1] - sizes[2]) / 1e6
    record_property("grown_mb", grown)
    print(f"grown by {grown:.1f} MB in 50 rounds")  # noqa: T201
    assert grown < 50
    assert counts[-1] == counts[2]


def test_fresh_environment(tmp_path: Path) -> None:
    """pip install of both distributions, start, open sample, click, number: that of the core."""
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    install = [python, "-m", "pip", "install", "--quiet", PLUGIN.parents[1], f"{PLUGIN}[pyside6]"]
    subprocess.run(install, check=True)
    environment = dict(os.environ) | {"XDG_DATA_HOME": str(tmp_path), "NAPARI_CONFIG": str(tmp_path / "napari.yaml")}
    subprocess.run([python.with_name("npe2"), "validate", "napari-spineimg"], check=True, env=environment)
    script = Path(__file__).with_name("fresh_session.py")
    run = subprocess.run([python, script], capture_output=True, text=True, env=environment, cwd=tmp_path, check=True)
    shown, exact = run.stdout.split()[-2:]
    from spineimg.io.sample import sample_study
    from spineimg.phantom import make_phantom

    center = make_phantom("preop").vertebra("L3").body.frame.center_lps_mm
    volume = spineimg.load(sample_study("preop") / "ct")
    core = spineimg.assess(volume, RoiSet((VertebraRoi("L3", center_lps_mm=center),))).vertebrae[0].hu.mean_hu
    assert shown == f"{float(exact):.1f}"
    assert np.isclose(float(exact), core, atol=3.0)  # a pixel beside the centre is another click
