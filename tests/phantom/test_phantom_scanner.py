"""The scanner model against formulas: blur, slice profile, noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtr

from spineimg.errors import SpineImgError
from spineimg.phantom import Imaging, Phantom
from spineimg.phantom.imaging import noise_slices
from tests.phantom.plain_shapes import EMPTY_HU, SMALL, HalfSpace, one_shape

QUIET = Imaging(size=(48, 56), noise_sd_hu=0.0, margin_mm=2.0)
MIDDLE = np.array(SMALL.origin_lps_mm) + np.array([0.7, 20.3, 0.2])


@pytest.mark.parametrize(("pixel_mm", "fwhm_mm"), [(0.3, 0.8), (0.7, 0.8), (0.5, 1.2), (1.0, 0.7)])
def test_edge_in_the_plane_is_the_error_function(pixel_mm: float, fwhm_mm: float) -> None:
    """Planted: sigma = FWHM (without 2.355), the edge was three times too wide."""
    imaging = replace(QUIET, pixel_mm=pixel_mm, psf_fwhm_mm=fwhm_mm)
    normal = np.array([np.cos(0.4), np.sin(0.4), 0.0])
    phantom = one_shape(HalfSpace(MIDDLE, normal), imaging, 900.0)
    image = phantom.hu()[5]
    row, column = np.mgrid[: image.shape[0], : image.shape[1]]
    points = phantom.geometry.lps_at(np.stack([np.full(row.shape, 5), row, column], axis=-1))
    expected = EMPTY_HU + 1000 * ndtr(-((points - MIDDLE) @ normal) / (fwhm_mm / 2.354820045))
    inner = np.s_[6:-6, 6:-6]
    assert np.abs(image - expected)[inner].max() < 8.0


@pytest.mark.parametrize(("thickness_mm", "tilt_deg"), [(1.0, 0.0), (2.5, 0.0), (5.0, 0.0), (2.5, 12.0)])
def test_edge_across_slices_is_the_profile(thickness_mm: float, tilt_deg: float) -> None:
    """A rectangular profile gives a straight ramp as long as the slice is thick, softened by the shapes' own blur.

    Planted: the profile as wide as the spacing, not the thickness.
    """
    imaging = replace(QUIET, spacing_mm=0.5, thickness_mm=thickness_mm, ramp_mm=0.0, tilt_deg=tilt_deg)
    normal = one_shape(HalfSpace(MIDDLE, np.array([0.0, 0.0, 1.0])), imaging, 900.0).geometry.normal_lps
    phantom = one_shape(HalfSpace(MIDDLE, normal), imaging, 900.0)
    image = phantom.hu()[:, 20, 20]
    away = (phantom.geometry.lps_at([[k, 20, 20] for k in range(len(image))]) - MIDDLE) @ normal
    inside_slice = np.linspace(-thickness_mm / 2, thickness_mm / 2, 801)
    expected = EMPTY_HU + 1000 * ndtr(-(away[:, None] + inside_slice) / imaging.soft_mm).mean(axis=1)
    assert np.abs(image - expected).max() < 8.0
    fall = -np.diff(image) / 1000
    middle = (away[1:] + away[:-1]) / 2
    variance = fall @ np.square(middle - fall @ middle)
    step = away[1] - away[0]
    assert np.sqrt(12 * (variance - imaging.soft_mm**2) - step**2) == pytest.approx(thickness_mm, rel=0.01)


def test_flanks_widen_the_profile_but_keep_its_half_width() -> None:
    imaging = replace(QUIET, spacing_mm=0.5, thickness_mm=3.0, ramp_mm=1.0)
    phantom = one_shape(HalfSpace(MIDDLE, np.array([0.0, 0.0, 1.0])), imaging, 900.0)
    image = phantom.hu()[:, 20, 20]
    away = (phantom.geometry.lps_at([[k, 20, 20] for k in range(len(image))]) - MIDDLE)[:, 2]
    touched = away[(image > EMPTY_HU + 2) & (image < EMPTY_HU + 998)]
    assert np.ptp(touched) == pytest.approx(4.0, abs=0.8)
    assert np.interp(EMPTY_HU + 500, image[::-1], away[::-1]) == pytest.approx(0.0, abs=0.02)


def test_noise_has_its_sd_spectrum_and_shared_slices() -> None:
    """Planted: white noise (no ramp) failed the spectrum; slices drawn apart failed the correlation."""
    imaging = Imaging(size=(96, 128), noise_sd_hu=20.0, spacing_mm=1.0, thickness_mm=1.4, margin_mm=30.0)
    geometry = Phantom(SMALL, imaging, cover=("L3", "L3")).geometry
    noise = np.stack(list(noise_slices(imaging, geometry, seed=3)))
    assert noise.std() == pytest.approx(20.0, rel=0.01)
    assert abs(noise.mean(axis=(1, 2))).max() < 1e-3
    together = np.mean(noise[1:] * noise[:-1]) / np.mean(noise**2)
    assert together == pytest.approx(1 - 1.0 / 1.4, abs=0.03)
    assert np.mean(noise[2:] * noise[:-2]) / np.mean(noise**2) == pytest.approx(0.0, abs=0.03)
    power = (np.abs(np.fft.fft2(noise)) ** 2).mean(axis=0)
    frequency = np.hypot(
        np.fft.fftfreq(96, geometry.spacing_mm[1])[:, None], np.fft.fftfreq(128, geometry.spacing_mm[2])
    )
    model = frequency * np.exp(-4 * (np.pi * imaging.sigma_mm * frequency) ** 2)
    bands = [(frequency > low) & (frequency <= low + 0.1) for low in np.arange(0.02, 0.6, 0.1)]
    measured = np.array([power[band].mean() for band in bands])
    expected = np.array([model[band].mean() for band in bands])
    np.testing.assert_allclose(measured / measured.sum(), expected / expected.sum(), rtol=0.1)


def test_the_continuous_model_agrees_with_the_image() -> None:
    """`blurred_hu` integrates the blur by itself: it must find the image's voxels, in bone, disc, canal and edges.

    Planted: the profile's offsets along z, not along the normal, of a tilted scan.
    """
    imaging = Imaging(size=(100, 90), pixel_mm=0.8, noise_sd_hu=0.0, tilt_deg=15.0, spacing_mm=3.0, margin_mm=-2.0)
    phantom = Phantom(SMALL, imaging, cover=("L3", "L3"))
    image = phantom.hu()
    random = np.random.default_rng(0)
    index = np.stack([random.integers(0, n, 300) for n in image.shape], axis=-1)
    error = image[tuple(index.T)] - phantom.blurred_hu(phantom.geometry.lps_at(index))
    assert abs(error.mean()) < 0.3
    assert np.percentile(np.abs(error), 95) < 3.0


def test_wrong_scanners_are_refused() -> None:
    with pytest.raises(SpineImgError, match="HFS"):
        Imaging(position="HFDR")
    with pytest.raises(SpineImgError, match="flanks"):
        Imaging(thickness_mm=0.5, ramp_mm=1.0)
