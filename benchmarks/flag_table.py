"""The truth table of the flag: what the program says of a mean HU, against the rules written out once more.

The program is asked through its public function on uniform volumes of known HU; the rules below share no code with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby, product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.chapters import save, table
from spineimg import CTVolume, Ellipse, Geometry, RoiSet, VertebraRoi, assess
from spineimg.anatomy import Construct
from spineimg.rois import POSITIONS
from spineimg.volume import Acquisition, ArraySource, Sharpness

KVPS: tuple[float | None, ...] = (80.0, 100.0, 120.0, 140.0, 110.0, None)
CONTRASTS: tuple[bool | None, ...] = (False, True, None)
CUTOFF_HU = Fraction(127273, 1000)
MEANS_HU = tuple(
    sorted({*(Fraction(hu) for hu in range(100, 161)), CUTOFF_HU, *(CUTOFF_HU + Fraction(d, 1000) for d in (-1, 1))})
)
"""Every whole HU from 100 to 160, and a thousandth of a HU around the cutoff."""

# -- the rules, written out -------------------------------------------------------------------------------------------

ERROR_HU = 16
CONTRAST_HU = 26
TO_120_KVP = {
    80.0: (Fraction(72, 100), Fraction(1)),
    100.0: (Fraction(87, 100), Fraction(1)),
    120.0: (Fraction(1), Fraction(1)),
    140.0: (Fraction(1), Fraction(111, 100)),
}


@dataclass(frozen=True)
class Expected:
    """What the rules give for one mean."""

    call: str
    below_cutoff: bool
    interval_hu: tuple[Fraction, Fraction] | None


def expected(mean_hu: Fraction, kvp: float | None, contrast: bool | None) -> Expected:
    """The rules: a factor to 120 kVp, up to 26 HU less unless contrast is excluded, 16 HU of error either way.

    below: the whole interval lies below the cutoff. not_below: none of it does. Without a factor: not_assessed.
    """
    below = mean_hu < CUTOFF_HU
    if kvp not in TO_120_KVP:
        return Expected("not_assessed", below, None)
    least, most = TO_120_KVP[kvp]
    low = mean_hu * least - ERROR_HU - (0 if contrast is False else CONTRAST_HU)
    high = mean_hu * most + ERROR_HU
    call = "below" if high < CUTOFF_HU else "not_below" if low >= CUTOFF_HU else "indeterminate"
    return Expected(call, below, (low, high))


# -- the program ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One mean under one acquisition: what the program said and what the rules give."""

    kvp: float | None
    contrast: bool | None
    mean_hu: Fraction
    call: str
    below_cutoff: bool | None
    interval_hu: tuple[float, float] | None
    expected: Expected

    @property
    def differs(self) -> bool:
        wanted = self.expected.interval_hu
        if (self.interval_hu is None) != (wanted is None):
            return True
        if self.interval_hu is not None and wanted is not None:
            apart = max(abs(a - float(b)) for a, b in zip(self.interval_hu, wanted, strict=True))
            # 32-bit pixels hold a HU to 1e-5.
            if apart > 1e-4:
                return True
        return (self.call, self.below_cutoff) != (self.expected.call, self.expected.below_cutoff)


_GEOMETRY = Geometry.from_affine((7, 24, 24), [[0, 0, 1, 0], [0, 1, 0, 0], [2, 0, 0, 0], [0, 0, 0, 1]])
_ROI = VertebraRoi(
    "L4",
    ellipses=tuple(
        Ellipse(name, np.array([11.0, 11.0, z]), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), (9.0, 8.0))
        for name, z in zip(POSITIONS, (8.0, 6.0, 4.0), strict=True)
    ),
)


def ask(mean_hu: Fraction, kvp: float | None, contrast: bool | None) -> Row:
    """A volume that is this HU everywhere, assessed with L4 as the LIV."""
    pixels = np.full(_GEOMETRY.shape, float(mean_hu), dtype=np.float32)
    acquisition = Acquisition(kvp=kvp, contrast=contrast, sharpness=Sharpness.SOFT, slice_thickness_mm=2.0)
    volume = CTVolume(_GEOMETRY, ArraySource(pixels), acquisition)
    found = assess(volume, RoiSet((_ROI,), Construct(liv="L4"))).vertebrae[0].flag
    if found is None:
        raise ValueError("the LIV has no flag")
    return Row(
        kvp,
        contrast,
        mean_hu,
        found.call.value,
        found.below_cutoff,
        found.interval_hu,
        expected(mean_hu, kvp, contrast),
    )


def rows(means_hu: Sequence[Fraction] = MEANS_HU) -> Iterator[Row]:
    """The whole table."""
    for kvp, contrast, mean in product(KVPS, CONTRASTS, means_hu):
        yield ask(mean, kvp, contrast)


# -- chapter ----------------------------------------------------------------------------------------------------------


def chapter(figures: Path, progress: Callable[[str], None] = print) -> str:
    """The chapter as Markdown; its picture goes to `figures`."""
    found = list(rows())
    progress("flags: done")
    save(_picture(found), figures / "flags.png")
    wrong = sum(one.differs for one in found)
    body = [
        [
            _kvp(kvp),
            _contrast(contrast),
            *(_span(own, call) for call in ("below", "indeterminate", "not_below", "not_assessed")),
            _interval(own),
        ]
        for (kvp, contrast), own in ((key, list(group)) for key, group in groupby(found, lambda r: (r.kvp, r.contrast)))
    ]
    head = [
        "kVp", "contrast", "`below`", "`indeterminate`", "`not_below`", "`not_assessed`", "interval at 127 HU",
    ]  # fmt: skip
    return f"""\
The cutoff is that of Lee 2024, {float(CUTOFF_HU):g} HU, for the LIV. Not the mean is compared but the interval in
which an unenhanced scan at 120 kVp can lie: ± {ERROR_HU} HU from scan to scan, up to {CONTRAST_HU} HU less when
contrast agent was given or may have been, and a factor for the tube voltage. Uniform volumes of 100 to 160 HU went
through `assess`; the rules were computed a second time with exact fractions.

Goal: no difference in call, strict comparison or interval. Reached: {wrong} differences in {len(found)} rows.

{table(head, body)}

Ranges are of the measured mean, in HU, among {float(MEANS_HU[0]):g} to {float(MEANS_HU[-1]):g}. Peers: a published
tool marks L1 to L5 below 90.25 HU and another trajectories below 123 HU, whatever the tube voltage and contrast agent.

![the calls](validation/flags.png)"""


def _span(own: Sequence[Row], call: str) -> str:
    """Lowest to highest mean with this call."""
    means = [float(one.mean_hu) for one in own if one.call == call]
    if not means:
        return "–"
    return f"{min(means):g} to {max(means):g}" if len(means) > 1 else f"{means[0]:g}"


def _interval(own: Sequence[Row]) -> str:
    span = next(one.interval_hu for one in own if one.mean_hu == 127)
    return f"{span[0]:.1f} to {span[1]:.1f}" if span else "none"


def _kvp(kvp: float | None) -> str:
    return "unknown" if kvp is None else f"{kvp:g}"


def _contrast(contrast: bool | None) -> str:
    return {True: "given", False: "none", None: "unknown"}[contrast]


_COLOURS = {"below": "#c0392b", "indeterminate": "#e8c15a", "not_below": "#3a8f5c", "not_assessed": "#bbbbbb"}


def _picture(found: Sequence[Row]) -> Any:
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(9, 4.6), layout="constrained")
    ax = figure.subplots()
    lines = list(product(KVPS, CONTRASTS))
    calls = list(_COLOURS)
    image = np.zeros((len(lines), 61), dtype=np.uint8)
    for one in found:
        if one.mean_hu.denominator == 1:
            image[lines.index((one.kvp, one.contrast)), int(one.mean_hu) - 100] = calls.index(one.call)
    colours = ListedColormap(list(_COLOURS.values()))
    ax.imshow(image, colours, vmin=0, vmax=3, aspect="auto", extent=(99.5, 160.5, len(lines) - 0.5, -0.5))
    ax.hlines(np.arange(len(lines) - 1) + 0.5, 99.5, 160.5, color="white", linewidth=1.5)
    ax.axvline(float(CUTOFF_HU), color="black", linewidth=1)
    ax.set_yticks(range(len(lines)), [f"{_kvp(k)} kVp, contrast {_contrast(c)}" for k, c in lines], fontsize=8)
    ax.set_xlabel("measured mean of the LIV, HU; the line is the cutoff")
    handles = [Patch(color=colour, label=call) for call, colour in _COLOURS.items()]
    ax.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, fontsize=8)
    return figure
