"""One viewer a test, scans written once, and nothing left behind."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import scans
from hands import Hand
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

_screens: list[subprocess.Popen[bytes]] = []


def pytest_configure(config: pytest.Config) -> None:
    """Each of several processes that test side by side has a screen and a clipboard of its own."""
    if "PYTEST_XDIST_WORKER" not in os.environ or shutil.which("Xvfb") is None:
        return
    reads, writes = os.pipe()
    command = ["Xvfb", "-displayfd", str(writes), "-screen", "0", "1366x768x24", "-nolisten", "tcp"]
    _screens.append(subprocess.Popen(command, pass_fds=(writes,), stderr=subprocess.DEVNULL))
    os.close(writes)
    with os.fdopen(reads) as number:
        os.environ["DISPLAY"] = f":{number.readline().strip()}"


def pytest_unconfigure(config: pytest.Config) -> None:
    for screen in _screens:
        screen.terminate()
        screen.wait()


@pytest.fixture(autouse=True)
def user_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sessions of one test do not come back in another."""
    folder = tmp_path / "user_data"
    monkeypatch.setenv("XDG_DATA_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of scans by kind, each written once."""
    root = tmp_path_factory.mktemp("scans")

    def of_kind(kind: str) -> Path:
        folder = root / kind
        return folder if folder.exists() else scans.write_scan(folder, kind)

    return of_kind


@pytest.fixture
def reading(make_napari_viewer: Callable[..., Any], scan: Callable[[str], Path], qtbot: Any) -> Iterator[Any]:
    """reading(kind) opens a viewer that is shown, with a scan in it, and gives the hand that works on it."""
    hands: list[Hand] = []

    def opened(kind: str = "clean", path: Path | None = None) -> Hand:
        viewer = make_napari_viewer(show=True)
        viewer.window.resize(1200, 800)
        viewer.open(str(path or scan(kind)), plugin="napari-spineimg")
        hands.append(Hand(viewer, qtbot))
        return hands[-1]

    yield opened
    for hand in hands:
        hand.leave()
    hands.clear()
    gc.collect()
    QApplication.processEvents()
    ahead = [thread.name for thread in threading.enumerate() if thread.name.startswith("spineimg")]
    assert not ahead, f"threads left behind: {ahead}"
    timers = [timer for widget in QApplication.topLevelWidgets() for timer in widget.findChildren(QTimer)]
    assert not [timer for timer in timers if timer.isActive() and "spineimg" in type(timer.parent()).__module__]
