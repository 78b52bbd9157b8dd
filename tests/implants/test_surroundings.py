"""What is seen around a shaft, and the widths that follow from the misfit of pieces."""

import numpy as np
import pytest

from spineimg.implants.surroundings import NOWHERE_MM, Surroundings, is_concentric, look_around
from spineimg.implants.widthfield import widths_from

SHAPE = (8, 12)
GRID = np.arange(0, 3.51, 0.25)


def _look(
    cortex_mm: float | None = None,
    outside_hu: float | None = None,
    sectors: int = 6,
    sd_hu: float = 10.0,
    before_hu: float = 150.0,
    beyond_hu: float = -50.0,
    thick_mm: float = 0.8,
    band_hu: float = 700.0,
) -> Surroundings:
    """Bone of 150 HU; in the first sectors a bright band with something before and beyond it, or something else all
    over, and three times the noise."""
    random = np.random.default_rng(4)
    count = 60
    piece = np.repeat(np.arange(96), count)
    away = random.uniform(0.4, 4.5, len(piece))
    sd = np.where(piece % 12 < sectors, 3 * sd_hu, sd_hu)
    hu = np.full(len(piece), 150.0)
    changed = piece % 12 < sectors
    if outside_hu is not None:
        hu[changed] = outside_hu
    if cortex_mm is not None:
        hu[changed] = before_hu
        hu[changed & (away > cortex_mm)] = band_hu
        hu[changed & (away > cortex_mm + thick_mm)] = beyond_hu
    ones = np.ones(len(piece))
    return look_around(hu + sd * random.normal(size=len(piece)), ones, away, piece, SHAPE, ones)


def test_cortex_is_found_where_it_begins() -> None:
    """Planted: the crest's distance in place of the flank's."""
    seen = _look(cortex_mm=2.5, sectors=5)
    assert seen.bone_hu == pytest.approx(150, abs=5)
    assert seen.has_cortex.reshape(SHAPE)[:, :5].all()
    assert not seen.has_cortex.reshape(SHAPE)[:, 5:].any()
    assert seen.cortex_mm.reshape(SHAPE)[:, :5] == pytest.approx(np.full((8, 5), 2.5), abs=0.5)
    assert (seen.reach_mm[seen.has_cortex] < 3.6).all()
    assert (seen.reach_mm[~seen.has_cortex] == NOWHERE_MM).all()


def test_a_bright_rim_around_a_zone_is_no_cortex() -> None:
    """It is dark on its inner side and has bone beyond; without either it is cortex. Planted: the dark side alone."""
    assert not _look(1.8, before_hu=40.0, beyond_hu=150.0, sd_hu=5.0).has_cortex.any()
    for before, beyond in ((150.0, 150.0), (40.0, 40.0), (150.0, -50.0)):
        seen = _look(1.8, sectors=5, before_hu=before, beyond_hu=beyond, sd_hu=5.0).has_cortex.reshape(SHAPE)
        assert seen[:, :5].all()
        assert not seen[:, 5:].any()


@pytest.mark.parametrize("slope_mm", [0.0, 0.25])
def test_a_band_equally_far_off_all_around_is_a_rim(slope_mm: float) -> None:
    """Also where its distance grows along the screw; bands on a side or two, or all around but at all distances, are
    cortex. Planted: one distance for the whole screw; the front half not asked."""
    depths = np.arange(8)[:, None]
    rim = np.broadcast_to(1.4 + slope_mm * depths, SHAPE).copy()
    rim[:, 10] = NOWHERE_MM
    assert (is_concentric(rim, np.ones(SHAPE, bool)) == (rim < NOWHERE_MM)).all()
    # Cortex behind it, in the pedicle, stays cortex.
    rim[:3, 2:5] = 3.5
    assert not is_concentric(rim, np.ones(SHAPE, bool))[:3, 2:5].any()
    one_side = np.full(SHAPE, NOWHERE_MM)
    one_side[:, 1:5] = 1.4
    assert not is_concentric(one_side, np.ones(SHAPE, bool)).any()
    scattered = np.random.default_rng(3).uniform(0.8, 5.0, SHAPE)
    assert not is_concentric(scattered, np.ones(SHAPE, bool)).any()
    behind = np.full(SHAPE, NOWHERE_MM)
    behind[:4] = 1.4
    assert not is_concentric(behind, np.ones(SHAPE, bool)).any()


def test_a_rim_is_no_cortex_even_in_soft_bone() -> None:
    """Planted: found, and still called cortex."""
    assert not _look(1.8, sectors=12, before_hu=40.0, beyond_hu=90.0, sd_hu=5.0).has_cortex.any()


def test_cement_around_a_screw_is_no_rim() -> None:
    """It is as even, and goes on, or begins at the screw. Planted: the band's width not asked for; nothing darker asked
    for before it."""
    assert _look(1.0, sectors=12, beyond_hu=150.0, thick_mm=2.6, sd_hu=5.0).has_cortex.all()
    assert _look(0.0, sectors=12, beyond_hu=150.0, thick_mm=1.9, sd_hu=5.0).has_cortex.all()


def test_cement_is_as_bright_as_cortex_and_thicker() -> None:
    """Planted: the ring in the metal's own blur counted, and a ring too few."""
    cement = _look(0.5, sectors=5, beyond_hu=150.0, thick_mm=3.2, sd_hu=5.0, band_hu=1200.0)
    assert (cement.cement.reshape(SHAPE) == (np.arange(12) < 5)).all()
    assert not (cement.in_bone(40.0) & cement.cement).any()
    for thick, bright in ((1.4, 1200.0), (3.2, 600.0)):
        assert not _look(0.5, sectors=5, beyond_hu=150.0, thick_mm=thick, sd_hu=5.0, band_hu=bright).cement.any()


def test_noise_is_each_pieces_own() -> None:
    """Planted: one noise for the whole screw."""
    sd = _look().sd_hu.reshape(SHAPE)
    assert np.median(sd[:, 6:]) == pytest.approx(10, rel=0.25)
    assert np.median(sd[:, :6]) == pytest.approx(30, rel=0.25)


def test_muscle_is_no_bone() -> None:
    """Planted: bone told from the whole screw's mean."""
    inside = _look(outside_hu=55.0).in_bone(40.0).reshape(SHAPE)
    assert not inside[:, :6].any()
    assert inside[:, 6:].all()


def _cost(width_mm: float, sharp: float) -> np.ndarray:
    return np.broadcast_to((sharp * (GRID - width_mm) ** 2)[:, None, None], (len(GRID), *SHAPE)).copy()


def test_widths_follow_the_misfit() -> None:
    nowhere, form = np.full(SHAPE, NOWHERE_MM), np.zeros(SHAPE)
    found = widths_from(_cost(2.0, 20.0), GRID, nowhere, form, 0.7, 0.0)
    assert found.quantile(0.5) == pytest.approx(np.full(SHAPE, 2.0), abs=0.05)
    assert (found.quantile(0.9) > found.quantile(0.5)).all()
    faint = widths_from(_cost(2.0, 2.0), GRID, nowhere, form, 0.0, 0.0)
    assert np.ptp([faint.quantile(q)[0, 0] for q in (0.1, 0.9)]) > np.ptp([found.quantile(q)[0, 0] for q in (0.1, 0.9)])


def test_neighbours_speak_for_a_piece_without_a_voice() -> None:
    """Planted: neighbours asked along the shaft only, not around it."""
    cost = _cost(2.0, 20.0)
    cost[:, 3, :] = 0.0
    cost[:, :, 5] = 0.0
    nowhere, form = np.full(SHAPE, NOWHERE_MM), np.zeros(SHAPE)
    found = widths_from(cost, GRID, nowhere, form, 2.0, 0.0).quantile(0.5)
    assert found[3, 2] == pytest.approx(2.0, abs=0.2)
    assert found[6, 5] == pytest.approx(2.0, abs=0.2)


def test_no_zone_reaches_beyond_cortex_nor_holds_its_neighbours_back() -> None:
    """Planted: a capped neighbour compared with the full width."""
    cortex = np.full(SHAPE, NOWHERE_MM)
    cortex[:, 4:6] = 0.9
    cost, form = _cost(2.0, 1.0), np.full(SHAPE, 2.0)
    found = widths_from(cost, GRID, cortex, form, 2.0, 0.2).quantile(0.5)
    assert (found[:, 4:6] <= 1.2 + 0.13).all()
    assert found[:, 6] == pytest.approx(found[:, 9], abs=0.15)
