"""Pictures of the napari plugin for the docs, from a scripted session on the sample studies.

Run it under a screen of 1366 x 768: `xvfb-run -a -s "-screen 0 1366x768x24" python tools/screenshots.py`. Nothing of
the user's is touched: sessions are kept in a temporary folder.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
SIZE = (1366, 768)


def settle(seconds: float = 0.6) -> None:
    """Lets the window draw."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.02)


def shot(viewer: Any, name: str) -> None:
    settle()
    path = IMAGES / f"plugin_{name}.png"
    viewer.window._qt_window.grab().save(str(path))
    sys.stdout.write(f"{path}\n")


def opened(sample: str, theme: str = "dark") -> Any:
    """A viewer with a sample study."""
    import napari

    viewer = napari.Viewer(show=True, title="napari")
    viewer.theme = theme
    viewer.window.resize(*SIZE)
    viewer.open_sample("napari-spineimg", sample)
    settle(1.5)
    return viewer


def widget_of(viewer: Any, name: str) -> Any:
    widget = viewer.window.add_plugin_dock_widget("napari-spineimg", name)[1]
    settle(0.4)
    return widget


def body(level: str) -> Any:
    from spineimg.phantom import make_phantom

    return make_phantom("preop").vertebra(level).body.frame.center_lps_mm


def zoom(viewer: Any, point_lps_mm: Any, factor: float) -> None:
    from napari_spineimg.display import world_from_lps

    viewer.scene.camera.center = tuple(world_from_lps(point_lps_mm))
    viewer.scene.camera.zoom = factor


def reading(theme: str) -> None:
    """Click, ellipses and the flag; then the profile along the spine and the agreement of two readers."""
    viewer = opened("preop", theme)
    widget_of(viewer, "Linked planes")
    hu = widget_of(viewer, "Vertebral HU")
    ending = "" if theme == "dark" else "_light"
    for level in ("T12", "L1", "L2", "L3", "L4"):
        hu.measure(level, body(level))
    hu.session.set_construct("T12", "L3")
    hu.go_to("L3")
    middle = hu.session.ellipses("L3")[1].center_lps_mm
    hu.room.move_to(middle)
    zoom(viewer, middle, 6.5)
    shot(viewer, f"reading{ending}")
    hu.tabs.setCurrentIndex(1)
    hu.adjust(True)
    hu.rois.select(("L3", "mid"))
    shot(viewer, f"profile{ending}")
    viewer.close()


def implants() -> None:
    """The implant screen with the chosen screw's views and its halo map."""
    viewer = opened("postop")
    widget_of(viewer, "Linked planes")
    widget = widget_of(viewer, "Implant screen")
    widget.begin(())
    while widget.run.running or widget.stop.isEnabled():
        settle(0.1)
    widget.table.selectRow(1)
    zoom(viewer, widget.room.point_lps_mm * (0.0, 1.0, 1.0), 5.0)
    shot(viewer, "implants")
    widget.views.resize(760, 520)
    settle()
    widget.views.grab().save(str(IMAGES / "plugin_screw.png"))
    viewer.close()


def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_DATA_HOME"] = folder
        os.environ["NAPARI_CONFIG"] = str(Path(folder) / "napari.yaml")
        only = sys.argv[1:] or ["dark", "light", "implants"]
        for part in only:
            if part == "implants":
                implants()
            else:
                reading(part)


if __name__ == "__main__":
    main()
