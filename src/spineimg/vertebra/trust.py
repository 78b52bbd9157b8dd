"""Whether a fitted body is believed: what must hold, and a quality figure between 0 and 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spineimg.settings import setting


@dataclass(frozen=True, slots=True)
class TrustSettings:
    """Lines that a body must not cross. Measured on phantoms whose seeds are not used for reporting."""

    canal_hu: float = setting(
        45.0, "HU", (0, 200), "engineering choice", "least contrast of the canal's ring and middle"
    )
    faint_canal_hu: float = setting(
        12.0,
        "HU",
        (0, 100),
        "measured on plain phantoms without arches: 19-80 at right paths (docs/body.md)",
        "with less contrast there is no canal; in between the fit must be plainly good",
    )
    faint_canal_quality: float = setting(
        0.8, "1", (0, 1), "engineering choice", "least quality of a body before a faint canal"
    )
    wall: float = setting(0.68, "1", (0, 1), "engineering choice", "least mean support of the wall")
    height: tuple[float, float] = setting(
        (0.44, 0.92), "1", (0, 2), "bodies 0.46-0.85, fractured ones less", "height over the root of the area"
    )
    depth: tuple[float, float] = setting((0.5, 1.25), "1", (0, 2), "bodies 0.65-1.05", "depth over width")
    wedge_deg: tuple[float, float] = setting(
        (-22.0, 19.0),
        "degree",
        (-45, 45),
        "25 % of the height is 10-14 degrees; L5 up to -20",
        "least and largest wedge",
    )
    side_wedge_deg: float = setting(14.0, "degree", (5, 45), "engineering choice", "largest wedge from left to right")
    move_mm: float = setting(
        4.0, "mm", (1, 10), "engineering choice", "largest difference of endplate fit and disc chain"
    )
    moved_height: float = setting(
        0.1,
        "1",
        (0, 0.5),
        "measured on phantoms: 0.00 where the chain was wrong, 0.17 where the fit took the next body's endplate",
        "more is believed where the height differs by no more (logarithm) from the chain's",
    )
    explained: float = setting(
        0.15, "1", (0, 1), "engineering choice", "least share of variation an endplate fit explains"
    )
    tilt_sd_deg: float = setting(
        3.0, "degree", (1, 20), "measured on phantoms: docs/body.md", "largest standard error of an endplate's tilt"
    )
    convex_tilt_sd_deg: float = setting(
        1.0,
        "degree",
        (0, 20),
        "measured on phantoms: docs/body.md; in a few slices a wrong tilt looks like a surface that bulges",
        "and of one that bulges towards its disc",
    )
    oddities: int = setting(
        0, "", (0, 10), "measured on phantoms: docs/body.md", "most numbers of both endplate fits that no endplate has"
    )
    bone_hu: float = setting(
        180.0,
        "HU",
        (30, 500),
        "measured on phantoms, sclerosis included: docs/body.md",
        "largest difference of bone at an endplate from the middle of the body",
    )
    dense_tilt_sd_deg: float = setting(
        1.0, "degree", (0, 3), "engineering choice: sclerosis, plainly seen", "unless the tilt's standard error is less"
    )
    neighbours: tuple[float, float] = setting(
        (0.72, 1.25),
        "1",
        (0, 3),
        "neighbours differ by up to 15 %, fractured ones by more",
        "height over the chain's usual one",
    )
    quality: float = setting(0.75, "1", (0, 1), "engineering choice", "least quality")


@dataclass(frozen=True, slots=True)
class Findings:
    """What is known of a fitted body. Ratios and angles as in TrustSettings; neighbours: height over the chain's.

    convex_tilt_sd_deg: of endplates that bulge towards their disc, 0 when none does. oddities: of both endplate fits.
    bone_hu: largest difference of bone at an endplate from the middle of the body.
    """

    canal_hu: float
    wall: float
    height: float
    depth: float
    wedge_deg: float
    side_wedge_deg: float
    move_mm: float
    explained: float
    tilt_sd_deg: float
    disc_score: float
    neighbours: float
    convex_tilt_sd_deg: float = 0.0
    oddities: int = 0
    bone_hu: float = 0.0


def doubt(found: Findings, settings: TrustSettings) -> tuple[str, str] | None:
    """(code, reason) of the first line that is crossed; None when the body is believed."""
    checks = (
        (
            found.canal_hu >= settings.canal_hu
            or (found.canal_hu >= settings.faint_canal_hu and quality(found) >= settings.faint_canal_quality),
            "no_canal",
            "no spinal canal is found behind the click",
        ),
        (
            found.wall >= settings.wall,
            "walls_unclear",
            f"the walls of the body are not clear (support {found.wall:.2f})",
        ),
        (
            settings.height[0] <= found.height <= settings.height[1],
            "not_a_body",
            f"what is found has a height of {found.height:.2f} of the root of its area, which no vertebral body has",
        ),
        (
            settings.depth[0] <= found.depth <= settings.depth[1],
            "not_a_body",
            f"what is found is {found.depth:.2f} times as deep as wide, which no vertebral body is",
        ),
        (
            settings.wedge_deg[0] <= found.wedge_deg <= settings.wedge_deg[1]
            and abs(found.side_wedge_deg) <= settings.side_wedge_deg,
            "endplates_contradict",
            f"the endplates stand at {found.wedge_deg:.0f} and {found.side_wedge_deg:.0f} degrees to each other",
        ),
        (
            found.bone_hu <= settings.bone_hu or found.tilt_sd_deg <= settings.dense_tilt_sd_deg,
            "endplates_contradict",
            f"the bone at an endplate differs by {found.bone_hu:.0f} HU from that in the middle of the body",
        ),
        (
            settings.neighbours[0] <= found.neighbours <= settings.neighbours[1],
            "neighbours_contradict",
            f"its height is {found.neighbours:.2f} times that of the bodies beside it",
        ),
        (
            (found.move_mm <= settings.move_mm or abs(np.log(max(found.neighbours, 1e-3))) <= settings.moved_height)
            and found.explained >= settings.explained
            and found.tilt_sd_deg <= settings.tilt_sd_deg
            and found.convex_tilt_sd_deg <= settings.convex_tilt_sd_deg
            and found.oddities <= settings.oddities,
            "endplates_unclear",
            "an endplate is not clear enough to be fitted",
        ),
        (quality(found) >= settings.quality, "uncertain", f"the fit is too uncertain (quality {quality(found):.2f})"),
    )
    for holds, code, reason in checks:
        if not holds:
            return code, reason
    return None


def quality(found: Findings) -> float:
    """Geometric mean of how well walls, endplates, discs, shape, neighbours and tissues speak for the body."""
    scores = (
        (found.wall - 0.55) / 0.3,
        found.explained / 0.5,
        (found.disc_score + 1.5) / 3.0,
        1 - abs(found.height - 0.67) / 0.35,
        1 - found.move_mm / 5.0,
        1 - found.tilt_sd_deg / 6.0,
        1 - abs(np.log(max(found.neighbours, 1e-3))) / 0.6,
        1 - found.oddities / 5,
        1 - max(abs(found.wedge_deg) - 10, 0) / 25,
        1 - max(abs(found.side_wedge_deg) - 4, 0) / 15,
    )
    return float(np.exp(np.mean(np.log(np.clip(scores, 0.02, 1.0)))))
