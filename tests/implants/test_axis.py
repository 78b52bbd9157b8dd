"""Shafts fitted as blurred cylinders."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from spineimg.geometry import Geometry
from spineimg.implants.axis import fit_shaft, with_shared_thread
from spineimg.implants.cylinder import blur_across, frame, side_slopes, side_values, tip_values
from spineimg.implants.given import GivenScrew, refined
from spineimg.implants.metal_map import map_metal
from spineimg.implants.psf import Psf, estimate_psf, usual_psf
from spineimg.implants.thread import Thread, find_thread
from spineimg.volume import Acquisition, ArraySource, Sharpness
from tests.implants.implant_cases import Build, Piece, construct

ALONG_Z = np.array([0.0, 0.0, 1.0])


def _one(diameter: float = 6.5, **scan: object) -> Build:
    built = construct(1, diameter_mm=diameter, sides=("left",), **scan)
    return Build(built.screws, built.rest, built.spacing_mm, built.fwhm_mm)


def test_the_model_is_a_blurred_cylinder() -> None:
    """Against brute force in a plane: a disc on a fine grid, blurred by an anisotropic Gaussian.

    Planted: variances of the edge's normal and tangent swapped.
    """
    step, radius, widths = 0.05, 2.5, (0.5, 1.4)
    grid = np.arange(-6, 6, step)
    x, z = np.meshgrid(grid, grid, indexing="ij")
    disc = np.clip((radius - np.hypot(x, z)) / step + 0.5, 0, 1)
    exact = ndimage.gaussian_filter(disc, [w / 2.3548 / step for w in widths])
    axis = frame(np.zeros(3), np.array([0.0, -1.0, 0.0]))
    points = np.stack([x.ravel(), np.zeros(x.size), z.ravel()], axis=1)
    shown = side_values(axis.places(points), radius, blur_across(axis, Psf(*widths), ALONG_Z))
    assert np.abs(shown - exact.ravel()).max() < 0.04


@pytest.mark.parametrize(("cone", "point"), [(0.0, 1.0), (5.0, 0.3)])
def test_the_tip_holds_the_volume_of_its_cone(cone: float, point: float) -> None:
    """Blurring moves metal and makes none: the sum over space is the frustum's volume.

    Planted: the point's radius left out.
    """
    radius, tip, step = 3.0, 2.0, 0.25
    grid = [np.arange(-10, 6, step), np.arange(-5, 5, step), np.arange(-5, 5, step)]
    places = np.stack(np.meshgrid(*grid, indexing="ij"), axis=-1).reshape(-1, 3)
    total = tip_values(places, radius, (tip, cone, point), 0.16 * np.eye(3)).sum() * step**3
    small = radius * point
    frustum = np.pi * cone / 3 * (radius**2 + radius * small + small**2)
    straight = np.pi * radius**2 * (tip + 10 + step / 2 - cone)
    assert total == pytest.approx(straight + frustum, rel=0.01)


@pytest.mark.parametrize("clip", [None, 3071.0])
@pytest.mark.parametrize("diameter", [4.5, 7.5])
def test_a_screw_is_measured_alike_on_both_scales(diameter: float, clip: float | None) -> None:
    """Planted: the lower flank taken for the half level on the clipped scale (diameter + 0.5 mm); the cone's length
    taken off the tip."""
    build = _one(diameter)
    metal = map_metal(build.volume(clip))
    piece = build.screws["0-left"]
    off = np.array([0.8, 1.5, -0.7])
    fit = fit_shaft(metal, piece.start + off, piece.end - off, diameter / 2 + 0.4, Psf(0.9, 0.9))
    assert fit is not None
    assert fit.has_head
    assert fit.edge.clipped is (clip is not None)
    assert 2 * fit.outer_radius_mm == pytest.approx(diameter, abs=0.2)
    assert np.linalg.norm(fit.tip_lps_mm - piece.end) < 0.6
    assert np.linalg.norm(fit.head_lps_mm - piece.start) < 0.6
    assert np.degrees(np.arccos(fit.axis.along @ piece.along)) < 0.4


def test_the_metals_own_hu_is_read_or_assumed() -> None:
    build = _one()
    for clip, expected in ((None, 7000.0), (3071.0, 7000.0)):
        piece = build.screws["0-left"]
        fit = fit_shaft(map_metal(build.volume(clip)), piece.start, piece.end, 3.0, Psf(0.9, 0.9))
        assert fit is not None
        assert fit.edge.metal_hu == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("widths", [(0.8, 0.8), (1.2, 0.8), (0.8, 1.4)])
def test_the_blur_is_read_from_the_metal(widths: tuple[float, float]) -> None:
    """In the slice plane and across it apart. Planted: the two widths swapped."""
    build = _one(fwhm_mm=widths, spacing_mm=(0.8, 0.5, 0.5))
    metal = map_metal(build.volume())
    piece = build.screws["0-left"]
    usual = Psf(0.9, 1.0)
    fit = fit_shaft(metal, piece.start, piece.end, 3.2, usual)
    assert fit is not None
    psf = estimate_psf(metal, [fit], usual)
    assert psf.estimated == (True, True)
    # A voxel is the mean over its box, which has a variance of step²/12.
    shown = [np.hypot(width, 2.3548 * step / np.sqrt(12)) for width, step in zip(widths, (0.5, 0.8), strict=True)]
    assert (psf.fwhm_in_plane_mm, psf.fwhm_slice_mm) == pytest.approx(shown, rel=0.15)


def test_the_slopes_of_the_model_are_its_differences() -> None:
    """Planted: the blur's change around the axis left out."""
    places = np.random.default_rng(4).normal(size=(400, 3)) * [5.0, 2.5, 2.5]
    blur = np.array([[0.3, 0.02, 0.01], [0.02, 0.25, 0.06], [0.01, 0.06, 0.5]])
    h = 1e-5
    wider = side_values(places, 3.0 + h, blur) - side_values(places, 3.0 - h, blur)
    moved = [side_values(places - h * e, 3.0, blur) - side_values(places + h * e, 3.0, blur) for e in np.eye(3)[1:]]
    assert side_slopes(places, 3.0, blur) == pytest.approx(np.stack([wider, *moved], axis=1) / (2 * h), abs=1e-8)


@pytest.mark.parametrize("widths", [(0.7, 0.7), (1.1, 0.8), (0.8, 1.3)])
def test_a_clean_clipped_flank_tells_the_blur(widths: tuple[float, float]) -> None:
    """In the slice plane and across it apart, from usual widths that are wrong by up to half; with it the diameter is
    right. Planted: the part of metal taken as 0.2 more (widths off by 40 %)."""
    build = _one(fwhm_mm=widths, spacing_mm=(0.8, 0.5, 0.5))
    metal = map_metal(build.volume(3071.0))
    piece, usual = build.screws["0-left"], Psf(0.9, 1.0)
    fit = fit_shaft(metal, piece.start, piece.end, 3.2, usual)
    assert fit is not None
    psf = estimate_psf(metal, [fit], usual)
    assert psf.estimated == (True, True)
    shown = [np.hypot(width, 2.3548 * step / np.sqrt(12)) for width, step in zip(widths, (0.5, 0.8), strict=True)]
    assert (psf.fwhm_in_plane_mm, psf.fwhm_slice_mm) == pytest.approx(shown, rel=0.12)
    again = fit_shaft(metal, piece.start, piece.end, 3.2, psf)
    assert again is not None
    assert again.radius_mm == pytest.approx(piece.radius, abs=0.06)


def test_starved_rays_smear_a_shaft_sideways() -> None:
    """Its sides above and below tell the radius. Planted: no smear in the fit (0.25 mm too thick)."""
    build = _one()
    volume, piece = build.volume(), build.screws["0-left"]
    hu = np.stack([volume.read(k) for k in range(volume.geometry.shape[0])]).astype(np.float64)
    # Metal is drawn out along each row, as rays from side to side do.
    drawn = np.minimum(np.maximum(ndimage.uniform_filter1d(hu, 5, axis=2), hu), 3071.0)
    metal = map_metal(replace(volume, source=ArraySource(drawn.astype(np.int16))))
    fit = fit_shaft(metal, piece.start, piece.end, 3.2, Psf(0.9, 0.9))
    assert fit is not None
    assert fit.radius_mm == pytest.approx(piece.radius, abs=0.08)
    assert fit.smear_mm > 0.3
    whole = fit_shaft(map_metal(build.volume(3071.0)), piece.start, piece.end, 3.2, Psf(0.9, 0.9))
    assert whole is not None
    assert abs(whole.smear_mm) < 0.1


def test_the_smear_of_a_starved_shaft_is_no_tulip() -> None:
    """Steel on a clipped scale is drawn out as far as its tulip is wide. Planted: all directions asked for the tulip
    (the shaft 9 mm too long)."""
    build = _one()
    volume, piece = build.volume(), build.screws["0-left"]
    hu = np.stack([volume.read(k) for k in range(volume.geometry.shape[0])]).astype(np.float64)
    drawn = np.minimum(ndimage.maximum_filter1d(hu, 9, axis=2), 3071.0)
    metal = map_metal(replace(volume, source=ArraySource(drawn.astype(np.int16))))
    fit = fit_shaft(metal, piece.start, piece.end, 3.2, Psf(0.9, 0.9))
    assert fit is not None
    assert fit.smear_mm > 1.5
    assert fit.has_head
    assert np.linalg.norm(fit.head_lps_mm - piece.start) < 0.6


def test_a_hidden_thread_is_that_of_the_others() -> None:
    """Planted: the mean over all, the hidden ones as none."""
    build = _one()
    piece = build.screws["0-left"]
    fit = fit_shaft(map_metal(build.volume()), piece.start, piece.end, 3.2, Psf(0.9, 0.9))
    assert fit is not None
    seen = [replace(fit, thread=Thread(crest_mm=crest, pitch_mm=2.75)) for crest in (0.3, 0.4, 0.5)]
    marked = replace(fit, is_found=False)
    shared = with_shared_thread([fit, *seen, marked])
    assert [one.thread.crest_mm for one in shared] == [0.4, 0.3, 0.4, 0.5, None]
    assert shared[0].thread.pitch_mm is None
    assert with_shared_thread([fit, fit]) == [fit, fit]


def test_a_streaked_clipped_flank_does_not_tell_the_blur() -> None:
    """Streaks move the flank to and fro by tenths of a millimetre. Planted: no limit to how far its voxels stray."""
    build = _one()
    volume = build.volume(3071.0)
    hu = np.stack([volume.read(k) for k in range(volume.geometry.shape[0])]).astype(np.float64)
    streaks = 900.0 * np.sin(np.arange(hu.shape[2]) * 0.9)[None, None, :] * (hu > 300)
    volume = replace(volume, source=ArraySource(np.minimum(hu + streaks, 3071).astype(np.int16)))
    metal = map_metal(volume)
    piece, usual = build.screws["0-left"], Psf(0.7, 1.1)
    fit = fit_shaft(metal, piece.start, piece.end, 3.2, usual)
    assert fit is not None
    assert estimate_psf(metal, [fit], usual) == usual


def test_usual_blur_follows_kernel_pixel_and_thickness() -> None:
    affine = np.diag([1.0, 0.5, 0.5, 1.0])[[2, 1, 0, 3]]
    geometry = Geometry.from_affine((5, 5, 5), affine)
    thick = usual_psf(geometry, Acquisition(slice_thickness_mm=3.0))
    sharp = usual_psf(geometry, Acquisition(slice_thickness_mm=1.0, sharpness=Sharpness.SHARP))
    assert thick.fwhm_slice_mm == pytest.approx(np.hypot(0.55, 3.0 / np.sqrt(12) * 2.35482 * 1.1), rel=1e-4)
    assert sharp.fwhm_in_plane_mm < thick.fwhm_in_plane_mm < 1.0
    assert thick.estimated == (False, False)


def test_a_thread_is_seen_on_the_edge() -> None:
    """A helix of 0.35 mm amplitude and 2.75 mm pitch, weakened by the blur. Planted: the transfer left out."""
    rng = np.random.default_rng(3)
    places = np.stack([rng.uniform(-15, 15, 3000), *rng.normal(0, 3, (2, 3000))], axis=1)
    angle = np.arctan2(places[:, 2], places[:, 1])
    sigma, slope = 0.36, 0.4
    left = np.exp(-2 * (np.pi * sigma / 2.75) ** 2)
    wave = 0.35 * left * np.cos(2 * np.pi * places[:, 0] / 2.75 + angle + 1.0)
    residuals = slope * wave + rng.normal(0, 0.03, 3000)
    thread = find_thread(places, residuals, np.full(3000, slope), sigma, 2.9)
    assert thread.pitch_mm == pytest.approx(2.75)
    assert thread.starts == -1
    assert thread.wave_mm == pytest.approx(0.35 * left, rel=0.05)
    assert thread.crest_mm == pytest.approx(1.25 * 0.35, abs=0.03)
    assert np.corrcoef(thread.over_mm(places), wave)[0, 1] > 0.99


def test_a_thread_passes_for_blur_by_its_own_variance() -> None:
    """Edges of a wave, averaged over the blur along the axis, spread about what is left of the wave.

    Planted: the wave's variance taken as the image shows it, not as it was before the blur (a third too little).
    """
    sigma, amplitude, length = 0.36, 0.35, 2.75
    along = np.linspace(-5 * sigma, 5 * sigma, 2001)
    weight = np.exp(-0.5 * (along / sigma) ** 2)
    places = np.linspace(0, length, 200, endpoint=False)[:, None] + along
    edge = amplitude * np.cos(2 * np.pi * places / length)
    mean = np.average(edge, axis=1, weights=weight)
    spread = np.average(np.square(edge), axis=1, weights=weight) - mean**2
    seen = Thread(0.4, length, 0.5, (float(mean.max()), 0.0), length, 1)
    blur = np.diag([sigma**2, 0.1, 0.2])
    assert seen.widened(blur) - blur == pytest.approx(np.diag([0, 1, 1]) * spread.mean(), abs=1e-4)
    assert Thread().widened(blur) is blur


def test_a_shaft_with_a_bad_edge_does_not_tell_the_blur() -> None:
    """Planted: the median over all shafts (a shaft in streaks then widens the blur by 0.1 mm and more)."""
    build = construct()
    metal = map_metal(build.volume())
    usual = Psf(0.9, 1.0)
    fits = [fit_shaft(metal, one.start, one.end, 3.2, usual) for one in build.screws.values()]
    good = [fit for fit in fits if fit is not None]
    assert len(good) >= 4
    bad = [replace(fit, axis=fit.axis.moved(np.array([0.6, 0.6]), np.zeros(2))) for fit in good[:2]]
    alone = estimate_psf(metal, good[2:4], usual)
    assert estimate_psf(metal, [*bad, *good[2:4]], usual) == alone


def test_a_plain_shaft_has_no_thread() -> None:
    rng = np.random.default_rng(4)
    places = np.stack([rng.uniform(-15, 15, 3000), *rng.normal(0, 3, (2, 3000))], axis=1)
    thread = find_thread(places, rng.normal(0, 0.05, 3000), np.full(3000, 0.4), 0.36, 2.9)
    assert thread.crest_mm is None
    assert thread.explained < 0.12


def test_thin_screws_have_shallow_threads() -> None:
    """What threads usually have, which a weak wave leans on, is less for a screw of 3.5 mm than for one of 6.5 mm:
    the wave of 0.375 +- 0.094 mm meets 0.33 +- 0.09 mm, and 0.45 +- 0.12 mm.

    Planted: one usual height for all screws (3.5 mm read 0.45 mm too thick).
    """
    sigma, pitch, amplitude = 0.6, 2.0, 0.3
    rng = np.random.default_rng(5)
    places = np.stack([rng.uniform(-12, 12, 3000), *rng.normal(0, 1.7, (2, 3000))], axis=1)
    left = np.exp(-2 * (np.pi * sigma / pitch) ** 2)
    angle = np.arctan2(places[:, 2], places[:, 1])
    residuals = 0.4 * amplitude * left * np.cos(2 * np.pi * places[:, 0] / pitch - angle)
    thin, thick = (find_thread(places, residuals, np.full(3000, 0.4), sigma, radius) for radius in (1.5, 2.9))
    assert thin.crest_mm == pytest.approx(0.35, abs=0.015)
    assert thick.crest_mm == pytest.approx(0.40, abs=0.015)


def test_a_marked_screw_is_refined() -> None:
    """Marks 2 mm off are corrected; the nominal diameter stays. Planted: the mark returned as it is."""
    build = _one()
    metal = map_metal(build.volume(3071.0))
    piece = build.screws["0-left"]
    off = np.array([1.5, 1.0, 1.0])
    given = GivenScrew(piece.start + off, piece.end - off, diameter_mm=6.5, id="a")
    screw = refined(metal, given, Psf(0.9, 0.9))
    assert np.linalg.norm(screw.fit.tip_lps_mm - piece.end) < 0.7
    assert np.linalg.norm(screw.fit.head_lps_mm - piece.start) < 0.7
    assert screw.diameter_mm == 6.5
    assert screw.id == "a"
    assert not screw.notes


def test_a_mark_without_metal_is_kept_with_a_note() -> None:
    build = _one()
    metal = map_metal(build.volume())
    piece = build.screws["0-left"]
    away = np.array([0.0, 0.0, 13.0])
    screw = refined(metal, GivenScrew(piece.start + away, piece.end + away, id="b"), Psf(0.9, 0.9))
    assert [note.code for note in screw.notes] == ["not_refined"]
    assert np.allclose(screw.fit.head_lps_mm, piece.start + away)


def test_a_mark_from_tip_to_head_is_turned() -> None:
    """Planted: the mark's own order kept (the tip lay in the tulip, 10 mm beyond the head)."""
    build = _one()
    metal = map_metal(build.volume(3071.0))
    piece = build.screws["0-left"]
    off = np.array([0.5, 1.0, 0.5])
    screw = refined(metal, GivenScrew(piece.end - off, piece.start + off, id="c"), Psf(0.9, 0.9))
    assert [note.code for note in screw.notes] == ["ends_exchanged"]
    assert np.linalg.norm(screw.fit.tip_lps_mm - piece.end) < 0.7
    assert np.linalg.norm(screw.fit.head_lps_mm - piece.start) < 0.7


def test_a_wrong_label_is_noticed() -> None:
    build = _one()
    metal = map_metal(build.volume())
    piece = build.screws["0-left"]
    screw = refined(metal, replace(GivenScrew(piece.start, piece.end), diameter_mm=9.0), Psf(0.9, 0.9))
    assert [note.code for note in screw.notes] == ["diameter_differs"]


def test_a_piece_of_anything_else_is_no_shaft() -> None:
    ball = Piece(np.zeros(3), np.array([0.0, -12.0, 0.0]), 9.0)
    metal = map_metal(Build({}, [ball]).volume())
    fit = fit_shaft(metal, np.array([0.0, 2.0, 0.0]), np.array([0.0, -14.0, 0.0]), 3.0, Psf(0.9, 0.9))
    assert fit is None or fit.radius_mm > 5 or fit.misfit > 0.1
