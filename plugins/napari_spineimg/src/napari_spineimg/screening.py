"""The implant screen as a job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from spineimg.errors import SpineImgError
from spineimg.implants.given import GivenScrew
from spineimg.implants.model import ImplantScreen, Progress
from spineimg.pipeline import screen
from spineimg.rois import RoiSet
from spineimg.volume import CTVolume

from napari_spineimg.work import Work

ScreenFunction = Callable[[CTVolume, RoiSet | None, Sequence[GivenScrew], Progress], ImplantScreen]


def core_screen(
    volume: CTVolume, rois: RoiSet | None, screws: Sequence[GivenScrew], progress: Progress
) -> ImplantScreen:
    """The core's screen. Raises SpineImgError."""
    found = screen(volume, rois, screws=screws, progress=progress).implants
    if found is None:
        raise SpineImgError("the screen gave no result")
    return found


class Screening(Work):
    """Screens one volume at a time."""

    function: ScreenFunction = staticmethod(core_screen)

    def screen(self, volume: CTVolume, rois: RoiSet | None, screws: Sequence[GivenScrew]) -> None:
        self.start(partial(self.function, volume, rois, tuple(screws)))
