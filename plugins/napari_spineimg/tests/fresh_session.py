"""Starts napari with nothing but what pip installed, opens the sample, clicks a body with the mouse, prints the number.

Run by test_slow.py in an environment of its own; it imports nothing of these tests.
"""

from __future__ import annotations

import napari
import numpy as np
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from spineimg.phantom import make_phantom


def main() -> None:
    viewer = napari.Viewer(show=True)
    viewer.open_sample("napari-spineimg", "preop")
    widget = viewer.window.add_plugin_dock_widget("napari-spineimg", "Vertebral HU")[1]
    QTest.qWait(1500)
    center = make_phantom("preop").vertebra("L3").body.frame.center_lps_mm
    world = np.array([-center[2], center[1], center[0]])
    extent = viewer.dims.range[0]
    viewer.dims.set_current_step(0, round((world[0] - extent.start) / extent.step))
    QTest.qWait(500)
    canvas = viewer.window._qt_viewer.canvas
    origin, right, down = (
        np.array(canvas._map_canvas2world(at, canvas.view))[-2:] for at in ((0, 0), (100, 0), (0, 100))
    )
    steps = np.stack([right - origin, down - origin], axis=1) / 100
    pixel = QPoint(*(round(float(one)) for one in np.linalg.solve(steps, world[1:] - origin)))
    widget.level.setCurrentText("L3")
    QTest.mouseMove(canvas.native, pixel)
    QTest.qWait(200)
    QTest.mouseClick(canvas.native, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, pixel)
    QTest.qWait(200)
    print("HU", widget.table.item(0, 2).text(), repr(widget.session.vertebra("L3").hu.mean_hu))  # noqa: T201
    viewer.close()


if __name__ == "__main__":
    main()
