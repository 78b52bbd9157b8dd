"""From a volume and ROIs to the results of a case."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from spineimg.anatomy import Construct, Role, Status
from spineimg.cutoffs import LEE_2024
from spineimg.errors import RoiError, SeriesError
from spineimg.notes import Note
from spineimg.pipeline import Settings, assess
from spineimg.results import CaseResult, VertebraResult
from spineimg.rois import RoiSet, VertebraRoi
from spineimg.vertebra.flags import Call, FlagSettings
from spineimg.vertebra.hu import HuSettings
from spineimg.volume import ArraySource, CTVolume, SeriesInfo, Verdict
from tests.core.volumes import UNENHANCED_120, filled, geometry, three, tilted

WHERE = geometry(shape=(60, 60, 72))
HIGH, LOW = (50, 47, 44), (16, 13, 10)


def scan(high: float = 150.0, low: float = 100.0) -> CTVolume:
    """T8 in the upper half, T12 in the lower."""
    hu = np.full(WHERE.shape, low)
    hu[30:] = high
    return filled(WHERE, hu)


def rois(**changes: object) -> RoiSet:
    base = RoiSet((three(WHERE, HIGH, level="T8"), three(WHERE, LOW, level="T12")), Construct("T8", "T12"), "A")
    return replace(base, **changes)  # type: ignore[arg-type]


def by_level(result: CaseResult) -> dict[str, VertebraResult]:
    return {one.level: one for one in result.vertebrae}


def test_a_case_from_end_to_end() -> None:
    volume = replace(scan(), series=SeriesInfo("1.2.3", description="spine"))
    result = assess(volume, rois())
    uiv, liv = result.vertebrae
    assert (uiv.level, uiv.role, uiv.hu.mean_hu, uiv.flag) == ("T8", Role.UIV, 150.0, None)
    assert (liv.level, liv.role, liv.hu.mean_hu) == ("T12", Role.LIV, 100.0)
    assert liv.flag is not None
    assert (liv.flag.call, liv.flag.below_cutoff, liv.flag.interval_hu) == (Call.BELOW, True, (84.0, 116.0))
    assert (result.n_slices, result.spacing_mm) == (60, pytest.approx((1.5, 0.7, 0.9)))
    assert result.series.series_instance_uid == "1.2.3"
    assert result.acquisition is volume.acquisition
    assert result.notes == ()
    assert uiv.notes == liv.notes == ()


def test_a_refused_series_is_not_measured() -> None:
    refused = replace(scan(), verdict=Verdict.REFUSED, notes=(Note("localizer", "a scout image"),))
    with pytest.raises(SeriesError, match="localizer: a scout image"):
        assess(refused, rois())


def test_an_unknown_plane_is_refused() -> None:
    with pytest.raises(RoiError, match="endplate, scanner"):
        assess(scan(), rois(), plane="sagittal")


def test_the_plane_reaches_the_measurement() -> None:
    roi = three(WHERE, HIGH, level="T8")
    turned = RoiSet((replace(roi, ellipses=tuple(tilted(one, 10) for one in roi.ellipses)),))
    assert assess(scan(), turned).vertebrae[0].hu.mean_hu == pytest.approx(150)
    assert assess(scan(), turned, plane="scanner").vertebrae[0].hu.mean_hu is None


def test_ends_of_the_construct_without_a_roi_stay_in_the_list() -> None:
    """Planted: levels without a ROI dropped."""
    found = by_level(assess(scan(), rois(construct=Construct("T7", "L2"))))
    assert list(found) == ["T8", "T12", "T7", "L2"]
    assert found["T8"].role is None
    lacking = found["L2"]
    assert (lacking.role, lacking.hu.mean_hu, [note.code for note in lacking.hu.notes]) == (Role.LIV, None, ["no_roi"])
    assert lacking.flag is not None
    assert (lacking.flag.call, lacking.flag.below_cutoff) == (Call.NOT_ASSESSED, None)
    assert found["T7"].flag is None


def test_notes_on_the_series_and_the_acquisition_are_with_the_case_and_each_vertebra() -> None:
    """Planted: acquisition notes on the case alone."""
    gap = Note("missing_slices", "one slice is missing", "")
    volume = replace(scan(), acquisition=replace(UNENHANCED_120, contrast=None, kvp=None), notes=(gap,))
    result = assess(volume, rois(construct=Construct("T8", "L2")))
    assert [(note.code, note.about) for note in result.notes] == [
        ("missing_slices", ""),
        ("contrast_unknown", ""),
        ("kvp_unknown", ""),
    ]
    found = by_level(result)
    for level in ("T8", "T12"):
        assert [(note.code, note.about) for note in found[level].notes] == [
            ("contrast_unknown", level),
            ("kvp_unknown", level),
        ]
    assert found["L2"].notes == ()


def test_thick_slices_and_energy_block_the_flag() -> None:
    for change in ({"slice_thickness_mm": 6.0}, {"monoenergetic_kev": 70.0}):
        volume = replace(scan(), acquisition=replace(UNENHANCED_120, **change))
        found = by_level(assess(volume, rois()))["T12"]
        assert found.flag is not None
        assert (found.flag.call, found.flag.below_cutoff) == (Call.NOT_ASSESSED, True)
        assert found.hu.mean_hu == 100


def test_names_that_contradict_their_places_are_noted_and_not_flagged() -> None:
    """Planted: z compared the other way round; slice numbers compared in place of z."""
    swapped = RoiSet((three(WHERE, HIGH, level="T12"), three(WHERE, LOW, level="T8")), Construct("T8", "T12"))
    for one in assess(scan(), swapped).vertebrae:
        assert [note.code for note in one.notes] == ["level_order"]
    liv = by_level(assess(scan(), swapped))["T12"]
    assert liv.flag is not None
    assert liv.flag.call is Call.NOT_ASSESSED
    assert "check the names" in liv.flag.text
    upside_down = geometry(shape=(60, 60, 72), descending=True)
    volume = CTVolume(upside_down, ArraySource(np.full(upside_down.shape, 100, dtype=np.int16)), UNENHANCED_120)
    rightly = RoiSet((three(upside_down, LOW, level="T8"), three(upside_down, HIGH, level="T12")))
    assert all(one.notes == () for one in assess(volume, rightly).vertebrae)


def test_a_click_takes_part_in_the_order_of_names() -> None:
    click = VertebraRoi("L1", center_lps_mm=WHERE.lps_at((55, 30, 36)))
    found = by_level(assess(scan(), rois(vertebrae=(*rois().vertebrae, click))))
    assert {level: [note.code for note in one.notes] for level, one in found.items()} == {
        "T8": ["level_order"],
        "T12": ["level_order"],
        "L1": ["level_order"],
    }


def test_status_and_confirmation_reach_the_flag() -> None:
    liv = replace(rois().vertebrae[1], status=Status.TUMOUR, confirmed=False)
    found = by_level(assess(scan(), rois(vertebrae=(rois().vertebrae[0], liv))))["T12"]
    assert found.confirmed is False
    assert found.flag is not None
    assert (found.flag.call, found.flag.below_cutoff) == (Call.NOT_ASSESSED, None)
    assert "not confirmed" in found.flag.text


def test_a_cutoff_of_ones_own_flags_its_role() -> None:
    own = replace(LEE_2024, role=Role.UIV, value_hu=163.0, source="Example 2020")
    uiv, liv = assess(scan(), rois(), cutoffs=(own,)).vertebrae
    assert uiv.flag is not None
    assert (uiv.flag.source, uiv.flag.call, uiv.flag.below_cutoff) == ("Example 2020", Call.INDETERMINATE, True)
    assert liv.flag is None


def test_one_bad_vertebra_leaves_the_others_alone() -> None:
    volume = scan()
    broken = filled(WHERE, np.full(WHERE.shape, 100.0), broken=HIGH[1])
    found = by_level(assess(replace(volume, source=broken.source), rois()))
    assert found["T8"].hu.mean_hu is None
    assert found["T12"].hu.mean_hu == 100


def test_settings_are_used_and_recorded_as_plain_values() -> None:
    chosen = Settings(hu=HuSettings(min_voxels=500), flags=FlagSettings(error_hu=30.0))
    result = assess(scan(), rois(), settings=chosen)
    assert by_level(result)["T12"].hu.mean_hu is None
    recorded = json.loads(json.dumps(dict(result.settings)))
    assert recorded["hu"]["min_voxels"] == 500
    assert recorded["hu"]["metal"]["margin_mm"] == 3.0
    assert recorded["flags"]["error_hu"] == 30.0
    assert recorded["plane"] == "endplate"
    assert recorded["cutoffs"][0]["value_hu"] == 127.273
    liv = by_level(assess(scan(), rois(), settings=Settings(flags=FlagSettings(error_hu=30.0))))["T12"]
    assert liv.flag is not None
    assert liv.flag.call is Call.INDETERMINATE


def test_the_same_input_gives_the_same_result() -> None:
    assert assess(scan(), rois()) == assess(scan(), rois())
