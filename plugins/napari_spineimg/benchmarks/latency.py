"""How long a reader waits: first picture, click to number, drag to number, scroll. Median and 95th percentile.

Computing and drawing are timed apart, because software OpenGL draws slowly where there is no graphics card. The scan is
a body phantom of 300 slices of 512 x 512 in memory; the first picture is that of the sample study on disk. Run it under
a screen: `xvfb-run -a python plugins/napari_spineimg/benchmarks/latency.py [--slices 300] [--rounds 20]`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import napari
import numpy as np
from napari.layers import Layer
from qtpy.QtWidgets import QApplication
from spineimg.io.sample import sample_study
from spineimg.phantom import make_phantom
from spineimg.volume import Acquisition, ArraySource, CTVolume

from napari_spineimg.hu_widget import HuWidget
from napari_spineimg.reader import read
from napari_spineimg.study import open_study, volume_to_layer

GOALS_MS = {"click": 150.0, "drag": 20.0, "scroll": 10.0}


def large_volume(slices: int) -> CTVolume:
    """The sample study on a 512 x 512 lattice: its own voxels, repeated in rows and columns and mirrored in slices."""
    from spineimg import load
    from spineimg.geometry import Geometry

    small = load(sample_study("preop") / "ct")
    stack = np.stack([small.read(k) for k in range(small.geometry.shape[0])])
    times = -(-slices // len(stack))
    big = np.concatenate([stack] * times)[:slices].repeat(2, axis=1).repeat(2, axis=2)
    affine = small.geometry.lps_from_index.copy()
    affine[:3, 1:3] /= 2
    geometry = Geometry.from_affine(big.shape, affine)
    return CTVolume(geometry, ArraySource(big), Acquisition(kvp=120.0, contrast=False, slice_thickness_mm=2.0))


def timed(compute: Callable[[], None], rounds: int) -> tuple[list[float], list[float]]:
    """(computing, drawing) in ms, a number a round."""
    computing, drawing = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        compute()
        middle = time.perf_counter()
        QApplication.processEvents()
        computing.append(1e3 * (middle - start))
        drawing.append(1e3 * (time.perf_counter() - middle))
    return computing, drawing


def line(name: str, computing: list[float], drawing: list[float]) -> str:
    both = (("c", computing), ("d", drawing))
    parts = [f"{word} {np.median(ms):7.1f} {np.percentile(ms, 95):7.1f}" for word, ms in both]
    goal = f"goal {GOALS_MS[name]:.0f}" if name in GOALS_MS else ""
    return f"{name:14s} " + "   ".join(parts) + f"   {goal}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    center = make_phantom("preop").vertebra("L2").body.frame.center_lps_mm
    viewer = napari.Viewer(show=True)
    start = time.perf_counter()
    viewer.add_layer(Layer.create(*read(str(sample_study("preop") / "ct"))[0]))
    QApplication.processEvents()
    print(f"first picture of the sample study: {1e3 * (time.perf_counter() - start):.0f} ms")
    viewer.layers.clear()
    study = open_study("benchmark", large_volume(arguments.slices))
    viewer.add_layer(Layer.create(*volume_to_layer(study)))
    widget = HuWidget(viewer)
    viewer.window.add_dock_widget(widget)
    session = widget.session
    assert session is not None
    widget.measure("L2", center)
    QApplication.processEvents()
    print(f"{arguments.slices} slices of 512 x 512; ms: median and 95th percentile, c computing, d drawing")
    measured = timed(lambda: session.try_click("L2", center), arguments.rounds)
    print(line("click", *measured))
    print(line("click, shown", *timed(lambda: widget.measure("L2", center), arguments.rounds)))
    ellipses = session.ellipses("L2")
    print(line("drag", *timed(lambda: session.try_ellipses("L2", ellipses), arguments.rounds)))
    print(line("drag, shown", *timed(lambda: widget._dragged("L2", ellipses), arguments.rounds)))
    steps = iter(np.resize(np.arange(-6, 7), arguments.rounds))
    middle = round((-center[2] - viewer.dims.range[0].start) / viewer.dims.range[0].step)
    print(line("scroll", *timed(lambda: viewer.dims.set_current_step(0, middle + int(next(steps))), arguments.rounds)))
    viewer.close()


if __name__ == "__main__":
    main()
