"""Metal through the scanner's physics, against formulas."""

from __future__ import annotations

import numpy as np
import pytest

from spineimg.errors import SpineImgError
from spineimg.phantom.projection import Beam, EllipticBody, Scanner, outlines_of, polygon_paths, quanta_for
from spineimg.phantom.spectrum import ATTENUATION, SPECTRA, spectrum

BODY = EllipticBody(((0.0, 0.0, 170.0, 110.0, 0.0), (0.0, 10.0, 24.0, 17.0, 0.12)))
PIXELS = (np.arange(140) - 69.5) * 0.4
SIGMA = 0.8 / 2.3548
RADIUS = 3.25


def disc(x: float, y: float, radius: float = RADIUS, holes: bool = False) -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, 1440, endpoint=False) * (-1 if holes else 1)
    return np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], axis=1)


def bar(x: float, y: float, width: float, height: float) -> np.ndarray:
    return np.array([x, y]) + np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [width / 2, height / 2]


def scan(name: str, outlines: list[np.ndarray], material: str = "titanium", **beam: object) -> np.ndarray:
    scanner = Scanner(Beam(name, **beam), BODY, 60.0, SIGMA)  # type: ignore[arg-type]
    return scanner.image(scanner.difference({material: scanner.paths(outlines)}), PIXELS, PIXELS)


def rings(image: np.ndarray, x: float, y: float) -> np.ndarray:
    return np.hypot(PIXELS[None, :] - x, PIXELS[:, None] - y)


def test_path_through_a_ring_is_the_chord_of_both_circles() -> None:
    """Planted: the ramp of a vertex started one ray early; the chords were off by a step."""
    angles = np.array([0.1, 0.9, 2.5])
    offset = -30 + np.arange(600) * 0.1
    paths = polygon_paths([disc(4, -6, 9.0), disc(4, -6, 5.0, holes=True)], angles, -30.0, 0.1, 600)
    for angle, row in zip(angles, paths, strict=True):
        away = offset - 4 * np.cos(angle) + 6 * np.sin(angle)
        chord = sum(s * 2 * np.sqrt(np.maximum(r**2 - away**2, 0)) for r, s in ((9.0, 1), (5.0, -1)))
        np.testing.assert_allclose(row, chord, atol=0.02)
    assert polygon_paths([], angles, -30.0, 0.1, 10).max() == 0


def test_outlines_turn_around_holes_the_other_way() -> None:
    """Planted: outlines followed on the distance itself; metal and hole changed places."""
    x, y = np.arange(-12, 12, 0.15), np.arange(-11, 13, 0.15)
    away = np.hypot(x[None, :], y[:, None])
    outlines = outlines_of(np.maximum(away - 8, 4 - away).astype(np.float32), x, y)
    paths = polygon_paths(outlines, np.array([0.3]), -12.0, 0.05, 480)
    assert paths.sum() * 0.05 == pytest.approx(np.pi * (64 - 16), rel=1e-3)
    assert paths[0, 240] == pytest.approx(8.0, abs=0.02)


@pytest.mark.parametrize("fan", [False, True])
def test_one_energy_gives_a_clean_disc_of_the_right_height_and_size(fan: bool) -> None:
    """Planted: the detector's width blurred twice; and the fan's angle added with the wrong sign."""
    image = scan("60 keV", [disc(19.3, -14.1)], fan=fan)
    away = rings(image, 19.3, -14.1)
    k = int(np.argmin(np.abs(np.arange(17.5, 140, 5) - 60)))
    expected = 1000 * (ATTENUATION["titanium"][k] / ATTENUATION["water"][k] - 1)
    assert image[away < 1.8].mean() == pytest.approx(expected, rel=0.003)
    for inner in (5.0, 8.0, 14.0):
        assert abs(image[(away > inner) & (away < inner + 2)].mean()) < 3
    assert image.sum() * 0.16 == pytest.approx(expected * np.pi * RADIUS**2, rel=0.005)
    assert (image > expected / 2).sum() * 0.16 == pytest.approx(np.pi * RADIUS**2, rel=0.03)


def test_blur_is_the_one_asked_for() -> None:
    """Planted: the FWHM taken for the SD. The edge of a wide disc is an error function of the in-plane SD."""
    from scipy.special import ndtr

    image = scan("60 keV", [disc(0.0, 0.0, 12.0)], "bone")
    away = rings(image, 0.0, 0.0)
    edge = np.abs(away - 12) < 2
    height = image[away < 6].mean()
    # A curved edge sits a little further in: sigma² / 2R.
    expected = ndtr((12 - SIGMA**2 / 24 - away[edge]) / SIGMA)
    assert np.abs(image[edge] / height - expected).mean() < 0.006


def test_water_for_water_changes_nothing() -> None:
    """Planted: the metal did not displace the water it replaces."""
    assert np.abs(scan("120 kV", [disc(6.0, 4.0, 10.0)], "water", fan=True, scatter=0.05)).max() < 0.5


def test_hardening_darkens_between_two_screws_and_lowers_the_metal() -> None:
    """Planted: one mean attenuation in place of the spectrum."""
    pair = [bar(-14.0, 0.0, 6.5, 42.0), bar(14.0, 0.0, 6.5, 42.0)]
    soft, hard = (scan("120 kV", pair, hardening=part) for part in (1.0, 0.0))
    middle = np.abs(PIXELS) < 8
    metal = np.abs(np.abs(PIXELS) - 14) < 1.5
    assert 6000 < soft[np.ix_(middle, metal)].mean() < 7500
    beside = (PIXELS > 18) & (PIXELS < 20)
    between = np.abs(PIXELS) < 2
    assert soft[np.ix_(middle, beside)].mean() > 150
    assert soft[np.ix_(middle, between)].mean() < -100
    assert abs(hard[np.ix_(middle, between)].mean()) < 5
    assert abs(hard[np.ix_(middle, beside)].mean()) < 10
    assert 14000 < scan("120 kV", pair, "cobalt-chrome", hardening=1.0)[np.ix_(middle, metal)].mean() < 20000


def test_noise_gain_and_dose() -> None:
    """Planted: the number of views left out of the gain."""
    scanner = Scanner(Beam(), BODY, 60.0, SIGMA)
    random = np.random.default_rng(3)
    white = random.standard_normal((720, scanner.bins)).astype(np.float32)
    spread = scanner.image(white, PIXELS, PIXELS).std()
    assert spread == pytest.approx(1000 * scanner.noise_gain(), rel=0.05)
    assert quanta_for(scanner, 10.0, 1.0) == pytest.approx(4 * quanta_for(scanner, 20.0, 1.0))
    assert quanta_for(scanner, 10.0, 0.5) == pytest.approx(quanta_for(scanner, 10.0, 1.0) / 2)


def test_starved_rays_are_noisier_and_follow_the_seed() -> None:
    """Planted: the metal's noise left out; thick and thin metal were alike."""
    bare = Scanner(Beam(calm_quanta=0.0), BODY, 60.0, SIGMA)
    scanner = Scanner(bare.beam, BODY, 60.0, SIGMA, quanta_for(bare, 15.0, 0.2))
    paths = {"titanium": scanner.paths([bar(0.0, 0.0, 6.0, 40.0)])}
    clean = scanner.difference(paths)
    first, again, other = (scanner.difference(paths, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(first[clean == 0], 0)
    middle = slice(scanner.bins // 2 - 5, scanner.bins // 2 + 5)
    along, across = (np.std((first - clean)[view - 20 : view + 20, middle]) for view in (21, 360))
    assert along > 3 * across
    calm = Scanner(Beam(calm_quanta=100.0), BODY, 60.0, SIGMA, scanner.quanta)
    calmed = calm.difference(paths, np.random.default_rng(1))
    assert np.std((calmed - clean)[1:41, middle]) < np.std((first - clean)[1:41, middle])


def test_tables_are_whole() -> None:
    for name, weight in SPECTRA.items():
        assert weight.sum() == pytest.approx(1, abs=1e-3), name
        assert len(weight) == 25
    assert ATTENUATION["water"][9] == pytest.approx(0.0202, abs=2e-4)  # NIST: 0.0206/mm at 60 keV, 0.0202 at 62.5
    for text in ("90 kV", "soft"):
        with pytest.raises(SpineImgError, match="no spectrum"):
            spectrum(text)
    with pytest.raises(SpineImgError, match="views"):
        Beam(views=10)
