"""The screen as a whole, on a small scan with a marked screw."""

from dataclasses import replace

import numpy as np
import pytest

from spineimg.errors import SeriesError
from spineimg.geometry import FloatArray
from spineimg.implants.given import GivenScrew
from spineimg.implants.model import Halo, HaloMap, ImplantScreen, Loosening, Shaft
from spineimg.implants.psf import Psf
from spineimg.implants.screen import ScreenSettings, screen_implants
from spineimg.implants.texture import noise_texture
from spineimg.implants.verdict import Conditions, _Surface, notes_on, refusal_by_scan
from spineimg.implants.verdict_settings import VerdictSettings
from spineimg.notes import Note
from spineimg.pipeline import assess
from spineimg.rois import RoiSet
from spineimg.vertebra.naming import name_spine
from spineimg.volume import ArraySource, CTVolume, Verdict
from tests.implants.halo_cases import volume_with_screw


def _screen(volume: CTVolume, shaft: object, **options: object) -> ImplantScreen:
    marked = GivenScrew(np.array(shaft.head_lps_mm), np.array(shaft.tip_lps_mm), shaft.diameter_mm)  # type: ignore[attr-defined]
    return screen_implants(volume, shafts=(marked,), **options)  # type: ignore[arg-type]


def test_a_marked_screw_with_a_wide_zone() -> None:
    volume, shaft = volume_with_screw(2.0)
    told: list[float] = []
    found = _screen(volume, shaft, progress=lambda part, what: told.append(part))
    (screw,) = found.screws
    assert screw.loosening is Loosening.PRESENT
    assert screw.halo.width_median_mm == pytest.approx(2.0, abs=0.3)
    assert found.grade.silva_type == 1
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert found.settings["verdict"]["width_mm"] == 1.0


def test_no_zone_is_measured_where_a_mark_has_no_metal() -> None:
    """Planted: the mark measured as if it were metal (a zone of 1.1 mm in the muscle, `indeterminate`)."""
    volume, shaft = volume_with_screw(0.0)
    way = np.array([0.0, 0.0, 9.0])
    marked = GivenScrew(np.array(shaft.head_lps_mm) + way, np.array(shaft.tip_lps_mm) + way, shaft.diameter_mm)
    (screw,) = screen_implants(volume, shafts=(marked,)).screws
    assert "not_refined" in [note.code for note in screw.notes]
    assert screw.loosening is Loosening.NOT_ASSESSED
    assert not screw.halo.assessable
    assert "no cylinder of metal" in screw.halo.reason


def test_cancelling_by_raising() -> None:
    volume, shaft = volume_with_screw(0.0)

    class Cancelled(Exception):  # noqa: N818
        pass

    def stop(part: float, what: str) -> None:
        if part > 0.5:
            raise Cancelled

    with pytest.raises(Cancelled):
        _screen(volume, shaft, progress=stop)


def _map(judged: FloatArray, width_mm: float) -> HaloMap:
    widths = np.where(judged > 0, width_mm, np.nan)
    return HaloMap(np.arange(8.0), np.arange(12.0), widths, np.full((8, 12), 0.2))


def test_a_note_when_little_was_judged() -> None:
    """Planted: the part left out counted instead of the part judged."""
    judged = np.zeros((8, 12))
    judged[5:, :4] = 1.0
    (note,) = notes_on(None, Halo(True, map=_map(judged, 2.0)), "L4-left")
    assert (note.code, note.about) == ("little_judged", "L4-left")
    assert "12 %" in note.text
    assert notes_on(None, Halo(True, map=_map(np.ones((8, 12)), 2.0)), "L4-left") == ()
    assert notes_on(None, Halo(False, reason="streaks", map=_map(judged, 2.0)), "L4-left") == ()


def test_depths_with_one_or_two_pieces_are_no_length() -> None:
    """Planted: every depth with any judged piece counted (a fixed screw then reads 20 mm).

    Of eight depths of 4 mm, the last three are known and free; before them one wide piece each.
    """
    judged = np.zeros((8, 12), dtype=bool)
    judged[:5, 0], judged[5:, :6] = True, True
    widths = np.where(np.arange(8)[:, None] < 5, 2.0, 0.0) * np.ones(12)

    def extent_mm(widths_mm: FloatArray) -> tuple[float, bool, bool]:
        return _Surface(widths_mm, judged, judged, np.full((8, 12), 9.0), 4.0).extent_mm(1.0, VerdictSettings())

    assert extent_mm(widths)[0] == 0.0
    assert extent_mm(2 - widths) == (12.0, False, True)
    judged[5:] = judged[:1]
    assert np.isnan(extent_mm(widths)[0])


def test_a_zone_on_half_of_the_circumference_has_its_length() -> None:
    """Planted: half of the circumference asked for, which streaks and walls of the pedicle decide by a hair.

    Of twelve pieces five are wide; from the fifth depth on none of them is judged, but three have room for a zone
    before cortex begins, and three not.
    """
    widths = np.where(np.arange(12) < 5, 2.0, 0.2) * np.ones((8, 1))
    judged = np.ones((8, 12), dtype=bool)
    judged[4:] = False
    in_bone = np.zeros((8, 12), dtype=bool)
    in_bone[4:, :6] = True
    cortex = np.full((8, 12), 9.0)
    cortex[4:, :3], cortex[4:, 3:] = 1.6, 0.4
    surface = _Surface(widths, judged, in_bone, cortex, 4.0)
    assert surface.extent_mm(1.0, VerdictSettings()) == (32.0, True, True)
    walled = replace(surface, cortex_mm=np.where(cortex < 9, 0.4, cortex))
    assert walled.extent_mm(1.0, VerdictSettings()) == (16.0, True, False)


def test_what_the_header_leaves_open_is_noted() -> None:
    volume, shaft = volume_with_screw(0.0)
    told = replace(volume.acquisition, slice_thickness_mm=0.8, metal_artifact_reduction=False)
    silent = replace(volume.acquisition, slice_thickness_mm=None, metal_artifact_reduction=None)
    codes = [{note.code for note in _screen(replace(volume, acquisition=one), shaft).notes} for one in (told, silent)]
    left_open = {"slice_thickness_unknown", "artifact_reduction_unknown"}
    assert not codes[0] & left_open
    assert codes[1] >= left_open


def test_a_scan_without_metal() -> None:
    volume, _ = volume_with_screw(0.0)
    hu = np.minimum(np.stack([volume.read(k) for k in range(volume.geometry.shape[0])]), 400)
    found = screen_implants(CTVolume(volume.geometry, ArraySource(hu.astype(np.float32)), volume.acquisition))
    assert found.screws == ()
    assert found.grade.silva_type is None
    assert found.grade.text == "No screw and no rod was found."


def test_a_sharpened_image_shows_in_its_grain() -> None:
    from scipy import ndimage

    volume, shaft = volume_with_screw(0.0)
    grain = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=volume.geometry.shape), [0, 0.8, 0.8])
    soft = 50 + 10 * grain / grain.std()
    sharp = soft + 0.8 * (soft - ndimage.gaussian_filter(soft, [0, 2, 2]))

    def texture(image: FloatArray) -> float:
        return noise_texture(CTVolume(volume.geometry, ArraySource(image.astype(np.float32))), [shaft])

    assert texture(sharp) < texture(soft) - 0.02


def test_steel_and_soft_bone_are_not_judged() -> None:
    """Planted: the limit of the slices left out; steel on thin slices was refused too."""
    shaft = Shaft((0, 0, 0), (0, -40, 0), 6.5, 13000.0, False)
    thick = Conditions(2.0, None, None, Psf(0.8, 2.0))
    assert "heavier than titanium" in refusal_by_scan(shaft, thick, VerdictSettings())
    assert refusal_by_scan(shaft, replace(thick, slice_mm=0.9), VerdictSettings()) == ""
    assert refusal_by_scan(replace(shaft, metal_hu=7000.0), thick, VerdictSettings()) == ""
    volume, marked = volume_with_screw(2.0, bone_hu=40.0)
    (screw,) = _screen(volume, marked).screws
    assert screw.loosening is Loosening.NOT_ASSESSED
    assert screw.halo.width_median_mm is None


def test_a_refused_series_is_not_screened_named_or_measured() -> None:
    """Planted: the verdict not asked in one of the three."""
    volume, _ = volume_with_screw(0.0)
    refused = replace(volume, verdict=Verdict.REFUSED, notes=(Note("one_position", "all images lie at one position"),))
    for measure in (screen_implants, name_spine, lambda one: assess(one, RoiSet(()))):
        with pytest.raises(SeriesError, match="cannot be measured: one_position: all images"):
            measure(refused)


def test_none_found_on_little_surface_is_not_absent() -> None:
    """Planted: the share left out; a screw judged on a few pieces was "absent"."""
    volume, shaft = volume_with_screw(0.0)
    (whole,) = _screen(volume, shaft).screws
    assert whole.loosening is Loosening.ABSENT
    strict = ScreenSettings(verdict=VerdictSettings(little_judged=1.01))
    (little,) = _screen(volume, shaft, settings=strict).screws
    assert little.loosening is Loosening.INDETERMINATE
    assert "of the shaft's surface could be judged" in little.halo.reason
