"""How long a reader waits for the napari plugin: click to number, drag to number, scroll. Median and 95th percentile.

    python -m benchmarks.plugin [--slices N] [--rounds N]

Needs a screen, or a virtual one (xvfb-run). Computing is what happens before the window is free to draw: the core's
measuring, table, banner and napari's own slicing; drawing is what it does then, which is slow where software stands in
for a graphics card. `processor` is the processor time of the computing, which other programs do not lengthen. The scan
is a body phantom of 300 slices of 512 x 512 in memory, with five measured vertebrae, Vertebral HU and Linked planes
open. napari's own scroll through the same array, without the plugin, is measured in the same run. `first picture` opens
a folder of 600 DICOM files of 512 x 512 (--files) in a window that is there, until a slice is on the screen.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

GOALS_MS = {
    "click to number": 150.0,
    "drag to number": 20.0,
    "scroll": 10.0,
    "scroll, tilted scan": 10.0,
    "first picture": 1000.0,
}
TILT_DEG = 15.0
LEVELS = ("T12", "L1", "L2", "L3", "L4")


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds, one of each a round."""

    computing: Sequence[float]
    processor: Sequence[float]
    drawing: Sequence[float]


def large_volume(slices: int) -> Any:
    """The sample study on a 512 x 512 lattice: its own voxels, repeated in rows, columns and stacks."""
    import spineimg
    from spineimg.geometry import Geometry
    from spineimg.io.sample import sample_study
    from spineimg.volume import Acquisition, ArraySource, CTVolume

    small = spineimg.load(sample_study("preop") / "ct")
    stack = np.stack([small.read(k) for k in range(small.geometry.shape[0])])
    times = -(-slices // len(stack))
    big = np.concatenate([stack] * times)[:slices].repeat(2, axis=1).repeat(2, axis=2)
    affine = small.geometry.lps_from_index.copy()
    affine[:3, 1:3] /= 2
    geometry = Geometry.from_affine(big.shape, affine)
    return CTVolume(geometry, ArraySource(big), Acquisition(kvp=120.0, contrast=False, slice_thickness_mm=2.0))


def tilted(volume: Any) -> Any:
    """The volume with a gantry tilt: each slice lies farther back than the one before it."""
    from spineimg.geometry import Geometry

    affine = volume.geometry.lps_from_index.copy()
    affine[1, 0] += np.tan(np.radians(TILT_DEG)) * affine[2, 0]
    return replace(volume, geometry=Geometry.from_affine(volume.geometry.shape, affine))


def timed(act: Callable[[int], object], rounds: int) -> Times:
    """Times of act(0), act(1), …, after one round that does not count."""
    from qtpy.QtWidgets import QApplication

    act(0)
    QApplication.processEvents()
    found: list[tuple[float, float, float]] = []
    for number in range(1, rounds + 1):
        start, used = time.perf_counter(), time.thread_time()
        act(number)
        middle, spent = time.perf_counter(), time.thread_time() - used
        QApplication.processEvents()
        found.append((1e3 * (middle - start), 1e3 * spent, 1e3 * (time.perf_counter() - middle)))
    return Times(*zip(*found, strict=True))


def line(name: str, times: Times) -> str:
    parts = (("computing", times.computing), ("processor", times.processor), ("drawing", times.drawing))
    words = [f"{what} {np.median(ms):6.1f} {np.percentile(ms, 95):6.1f}" for what, ms in parts]
    goal = f"   goal {GOALS_MS[name]:.0f}" if name in GOALS_MS else ""
    return f"{name:24s} {'   '.join(words)}{goal}"


def scroll(viewer: Any, middle: int) -> Callable[[int], None]:
    """Steps through thirteen slices around one."""
    return lambda number: viewer.dims.set_current_step(0, middle + number % 13 - 6)


def plain_napari(volume: Any, rounds: int) -> Times:
    """napari's own scroll through the same voxels."""
    import napari

    viewer = napari.Viewer(show=True)
    stack = np.stack([volume.read(k) for k in range(volume.geometry.shape[0])])
    viewer.add_image(stack, scale=(1.5, 0.7, 0.7), contrast_limits=(-500, 1300))
    times = timed(scroll(viewer, len(stack) // 2), rounds)
    viewer.close()
    return times


def opened(volume: Any) -> tuple[Any, Any]:
    """(viewer, Vertebral HU) with the volume in memory and Linked planes beside it."""
    import napari
    from napari.layers import Layer
    from napari_spineimg.study import open_study, volume_to_layer
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer(show=True)
    study = open_study("benchmark", volume)
    viewer.add_layer(Layer.create(*volume_to_layer(study)))
    viewer.window.add_plugin_dock_widget("napari-spineimg", "Linked planes")
    widget = viewer.window.add_plugin_dock_widget("napari-spineimg", "Vertebral HU")[1]
    while not study.cache.done:
        QApplication.processEvents()
        time.sleep(0.02)
    return viewer, widget


def search_times(rounds: Callable[[], Times]) -> tuple[Times, Times]:
    """(what `rounds` gives, the part of it in which the core looks for bodies)."""
    from napari_spineimg import clicking

    look, found = clicking.placed_at, []

    def watched(*inputs: Any, **how: Any) -> Any:
        start, used = time.perf_counter(), time.thread_time()
        placed = look(*inputs, **how)
        found.append((1e3 * (time.perf_counter() - start), 1e3 * (time.thread_time() - used), 0.0))
        return placed

    clicking.placed_at = watched
    try:
        whole = rounds()
    finally:
        clicking.placed_at = look
    return whole, Times(*zip(*found[1:], strict=True))


def reading(volume: Any, rounds: int) -> dict[str, Times]:
    """The reader's acts, with all that is shown meanwhile."""
    from qtpy.QtWidgets import QApplication

    from spineimg.phantom import make_phantom

    centers = {name: make_phantom("preop").vertebra(name).body.frame.center_lps_mm for name in LEVELS}
    viewer, widget = opened(volume)
    for level in LEVELS:
        widget.measure(level, centers[level])
    QApplication.processEvents()
    near = np.array([0.02, 0.01, 0.0])  # another click each time, so that nothing is known from before
    click, search = search_times(lambda: timed(lambda n: widget.measure("L2", centers["L2"] + n * near), rounds))
    times = {"click to number": click, "  core, search": search}
    ellipses = widget.session.ellipses("L2")

    def drag(number: int) -> None:
        moved = replace(ellipses[1], center_lps_mm=ellipses[1].center_lps_mm + number % 7 * np.array([0.3, 0.2, 0.0]))
        widget._dragged("L2", (ellipses[0], moved, ellipses[2]))

    times["drag to number"] = timed(drag, rounds)
    times["scroll"] = timed(scroll(viewer, _step(viewer, centers["L2"])), rounds)
    viewer.close()
    return times


def tilted_scroll(volume: Any, rounds: int) -> Times:
    """Through a scan that is resampled for display, with ellipses placed by hand."""
    from spineimg.phantom import make_phantom

    center = make_phantom("preop").vertebra("L2").body.frame.center_lps_mm
    viewer, widget = opened(tilted(volume))
    widget.session.place_by_hand("L2", center)
    times = timed(scroll(viewer, _step(viewer, center)), rounds)
    viewer.close()
    return times


def _step(viewer: Any, point_lps_mm: Any) -> int:
    extent = viewer.dims.range[0]
    return round((-point_lps_mm[2] - extent.start) / extent.step)


def write_folder(folder: Path, volume: Any, files: int) -> None:
    """The volume's slices, over and over, as one DICOM series of so many files."""
    import pydicom
    from pydicom.uid import generate_uid

    from spineimg.io.sample import sample_study

    dataset = pydicom.dcmread(min((sample_study("preop") / "ct").iterdir()))
    dataset.decompress()
    dataset.Rows, dataset.Columns = volume.geometry.shape[1:]
    dataset.PixelSpacing = list(volume.geometry.spacing_mm[1:])
    x, y, z = dataset.ImagePositionPatient
    series = generate_uid()
    for k in range(files):
        hu = volume.read(k % volume.geometry.shape[0]).astype(np.float64)
        dataset.SeriesInstanceUID, dataset.InstanceNumber = series, k + 1
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.ImagePositionPatient = [x, y, float(z) + k * volume.geometry.spacing_mm[0]]
        stored = (hu - float(dataset.RescaleIntercept)) / float(dataset.RescaleSlope)
        dataset.PixelData = stored.round().astype(np.int16).tobytes()
        dataset.save_as(folder / f"{k:04d}.dcm")


def first_picture(folder: Path, rounds: int) -> Times:
    """Opening a folder, in a window that is there, until its first slice is drawn."""
    import napari
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer(show=True)
    viewer.window.add_plugin_dock_widget("napari-spineimg", "Vertebral HU")
    found = []
    for _ in range(rounds + 1):
        viewer.layers.clear()
        QApplication.processEvents()
        start, used = time.perf_counter(), time.thread_time()
        viewer.open(str(folder), plugin="napari-spineimg")
        middle, spent = time.perf_counter(), time.thread_time() - used
        viewer.screenshot(flash=False)
        found.append((1e3 * (middle - start), 1e3 * spent, 1e3 * (time.perf_counter() - middle)))
    viewer.close()
    return Times(*zip(*found[1:], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--files", type=int, default=600, help="of the folder that is opened; 0 leaves it out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_DATA_HOME"] = folder
        os.environ["NAPARI_CONFIG"] = str(Path(folder) / "napari.yaml")
        volume = large_volume(arguments.slices)
        plain = plain_napari(volume, arguments.rounds)
        found = reading(volume, arguments.rounds)
        found["scroll, tilted scan"] = tilted_scroll(volume, arguments.rounds)
        if arguments.files:
            scan = Path(folder) / "scan"
            scan.mkdir()
            write_folder(scan, volume, arguments.files)
            found["first picture"] = first_picture(scan, 3)
    print(f"The plugin on {arguments.slices} slices of 512 x 512; ms, median and 95th percentile")
    for name, times in found.items():
        print(line(name, times))
    print(line("napari alone, scroll", plain))
    added = np.median(found["scroll"].processor) - np.median(plain.processor)
    print(f"the plugin adds {added:.1f} ms of processor time to napari's scroll")


if __name__ == "__main__":
    main()
