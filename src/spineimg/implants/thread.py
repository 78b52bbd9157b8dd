"""A screw's thread: how far its crests stand over the cylinder that a blurred fit sees.

A fitted cylinder has the radius of a plain one of the same volume. The thread makes the edge run in and out along a
helix; that wave is fitted for every pitch, its amplitude is freed of the blur along the axis (the Gaussian's transfer
at one wave a pitch), and the crest stands 1.25 amplitudes over the mean: 1.23 for triangular threads, 1.1-1.4 for
trapezoids with crests of a fifth to a third of the pitch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from spineimg.geometry import FloatArray
from spineimg.settings import setting

_CREST = 1.25
_SEEN_ERROR = 0.25
"""Relative error of a crest read from the wave, mostly from the blur's own error. Engineering choice."""
_USUAL_MM, _USUAL_SPREAD = 0.45, 0.27
"""Usual height of the crest over the mean and its relative spread: threads are 0.6-1.0 mm deep, of which 0.65 stand
over it."""
_USUAL_PART = 0.22
"""Of thin screws it is at most this part of the mean radius: threads of 3.5-4.5 mm screws are a seventh of their outer
diameter deep (cores of 2.5-3.3 mm)."""
_LEAST_TRANSFER = 0.3
"""Waves of which less is left by the blur are counted as if so much were left. Engineering choice."""
_PITCHES_MM = np.concatenate([np.arange(1.0, 2.0, 0.025), np.arange(2.0, 5.01, 0.05)])
_STARTS = (-1, 1, -2, 2)
"""Turns of the thread around the axis per wave along it: right- and left-handed, one or two starts."""


@dataclass(frozen=True, slots=True)
class ThreadSettings:
    """When a thread is seen."""

    least_explained: float = setting(
        0.12,
        "",
        (0.05, 0.5),
        "engineering choice: the best wave explains up to 0.07 of the residuals of a plain cylinder, and "
        "0.4-0.8 of a thread's",
        "Part of the edge's residuals that the wave must explain.",
    )
    least_transfer: float = setting(
        0.15,
        "",
        (0.05, 0.5),
        "engineering choice: below it noise is raised more than sevenfold",
        "Waves of which the blur leaves less are not looked for.",
    )
    least_mm: float = setting(
        0.08,
        "mm",
        (0.02, 0.5),
        "engineering choice: no screw has a thread of less than 0.15 mm",
        "A lower crest is no thread.",
    )


@dataclass(frozen=True, slots=True)
class Thread:
    """crest_mm: height of the outer thread over the fitted cylinder, pitch_mm: one turn along the axis; both None where
    no thread was seen. explained: 0-1 part of the edge's residuals. wave: cosine and sine amplitude in mm, as the blur
    leaves them; wave_length_mm: along the axis; starts: waves around the axis, negative for the other hand."""

    crest_mm: float | None = None
    pitch_mm: float | None = None
    explained: float = 0.0
    wave: tuple[float, float] = (0.0, 0.0)
    wave_length_mm: float = 1.0
    starts: int = 1

    @property
    def wave_mm(self) -> float:
        return float(np.hypot(*self.wave))

    def over_mm(self, places: FloatArray) -> FloatArray:
        """(n,) how far the blurred edge stands over the fitted cylinder at places (n, 3)."""
        angle = np.arctan2(places[:, 2], places[:, 1])
        phase = 2 * np.pi * places[:, 0] / self.wave_length_mm - self.starts * angle
        return np.asarray(self.wave[0] * np.cos(phase) + self.wave[1] * np.sin(phase))

    def widened(self, blur: FloatArray) -> FloatArray:
        """(3, 3) the blur of `cylinder.blur_across` as the edge of a threaded shaft shows it.

        Along the axis the blur mixes edges that stand at different heights of the thread; what it takes off the wave
        turns up as a variance of the edge's place, which is no blur of the scan.
        """
        if self.crest_mm is None:
            return blur
        transfer = max(float(np.exp(-2 * blur[0, 0] * (np.pi / self.wave_length_mm) ** 2)), _LEAST_TRANSFER)
        return np.asarray(blur + np.diag([0.0, 1.0, 1.0]) * self.wave_mm**2 / 2 * (transfer**-2 - 1))


def find_thread(
    places: FloatArray,
    residuals: FloatArray,
    by_radius: FloatArray,
    along_sigma_mm: float,
    radius_mm: float,
    settings: ThreadSettings | None = None,
) -> Thread:
    """The thread on a shaft's side.

    places: (n, 3) along and across the axis; residuals: (n,) shown minus fitted part of metal; by_radius: (n,) change
    of the fitted part per mm of radius. along_sigma_mm: blur along the axis. radius_mm: of the plain cylinder.
    """
    chosen = settings or ThreadSettings()
    if len(places) < 100:
        return Thread()
    every = max(1, len(places) // 1200)
    places, residuals, by_radius = places[::every], residuals[::every], by_radius[::every]
    transfers = np.exp(-2 * np.square(np.pi * along_sigma_mm / _PITCHES_MM))
    visible = np.flatnonzero(transfers >= chosen.least_transfer)
    best: tuple[float, tuple[float, float], int, int] = (0.0, (0.0, 0.0), 1, 0)
    turns = np.exp(-1j * np.arctan2(places[:, 2], places[:, 1]))
    for n in visible:
        along = np.exp(2j * np.pi * places[:, 0] / _PITCHES_MM[n])
        for starts in _STARTS:
            explained, wave = _wave(along * turns**starts, residuals, by_radius)
            if explained > best[0]:
                best = (explained, wave, starts, int(n))
    explained, wave, around, chosen_pitch = best
    part = explained / max(float(residuals @ residuals), 1e-12)
    transfer, length = float(transfers[chosen_pitch]), float(_PITCHES_MM[chosen_pitch])
    if part < chosen.least_explained or _CREST * float(np.hypot(*wave)) / transfer < chosen.least_mm:
        return Thread(explained=part)
    return Thread(_crest_mm(wave, transfer, radius_mm), length * abs(around), part, wave, length, around)


def sharpened(
    thread: Thread,
    places: FloatArray,
    residuals: FloatArray,
    by_radius: FloatArray,
    along_sigma_mm: float,
    radius_mm: float,
) -> Thread:
    """The thread after a fit that held it: what its wave still leaves in the residuals is added to it."""
    angle = np.arctan2(places[:, 2], places[:, 1])
    phase = 2 * np.pi * places[:, 0] / thread.wave_length_mm - thread.starts * angle
    _, more = _wave(np.exp(1j * phase), residuals, by_radius)
    wave = (thread.wave[0] + more[0], thread.wave[1] + more[1])
    transfer = float(np.exp(-2 * np.square(np.pi * along_sigma_mm / thread.wave_length_mm)))
    return replace(thread, wave=wave, crest_mm=_crest_mm(wave, transfer, radius_mm))


def _crest_mm(wave: tuple[float, float], transfer: float, radius_mm: float) -> float:
    """Height of the crest, the mean of what the wave tells and what threads usually have, by their errors."""
    seen = _CREST * float(np.hypot(*wave)) / transfer
    usual = min(_USUAL_MM, _USUAL_PART * radius_mm)
    told, known = 1 / np.square(_SEEN_ERROR * seen), 1 / np.square(_USUAL_SPREAD * usual)
    return float((told * seen + known * usual) / (told + known))


def _wave(
    wave: npt.NDArray[np.complex128], residuals: FloatArray, by_radius: FloatArray
) -> tuple[float, tuple[float, float]]:
    """(squares explained, cosine and sine amplitude in mm) of the best wave of one pitch."""
    c, s = by_radius * wave.real, by_radius * wave.imag
    cc, ss, cs = float(c @ c), float(s @ s), float(c @ s)
    cy, sy = float(c @ residuals), float(s @ residuals)
    det = cc * ss - cs * cs
    if det <= 1e-12:
        return 0.0, (0.0, 0.0)
    a, b = (ss * cy - cs * sy) / det, (cc * sy - cs * cy) / det
    return a * cy + b * sy, (a, b)
