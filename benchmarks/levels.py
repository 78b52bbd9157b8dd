"""How well one named click names a spine, on random phantoms.

python -m benchmarks.levels [--seeds 300 301] [--slices 1.2 3.0]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from benchmarks.chapters import table
from spineimg.phantom import BodyTruth, Phantom, body_truth
from spineimg.vertebra.body import Body, BodyNotFoundError
from spineimg.vertebra.naming import name_spine
from spineimg.volume import CTVolume

_MARGIN_MM = 12.0
"""A body counts as whole when the image reaches so far beyond its endplates."""


@dataclass
class SpineTable:
    """What one slice thickness gave."""

    spines: int = 0
    whole: int = 0
    found: int = 0
    misnamed: int = 0
    sacral: int = 0
    skipped: int = 0
    wrong: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def run_levels(result: SpineTable, phantom: Phantom, volume: CTVolume, draw: np.random.Generator) -> None:
    """One click in a random whole body of a phantom."""
    truths = {v.level: body_truth(v) for v in phantom.layout if v.level[0] != "S"}
    sacral = [v.frame.center_lps_mm for v in phantom.layout if v.level[0] == "S"]
    whole = [level for level, truth in truths.items() if _whole(volume, truth)]
    start = whole[int(draw.integers(len(whole)))]
    result.spines += 1
    result.whole += len(whole)
    began = time.perf_counter()
    try:
        named = name_spine(volume, {start: truths[start].frame.center_lps_mm})
    except BodyNotFoundError as refusal:
        result.refused.append(f"{phantom.seed} {start} {refusal.code}")
        return
    result.seconds.append(time.perf_counter() - began)
    row = [one.level for one in named.vertebrae]
    for one in named.vertebrae:
        away = {lv: float(np.linalg.norm(t.frame.center_lps_mm - one.body.center_lps_mm)) for lv, t in truths.items()}
        nearest = min(away, key=lambda level: away[level])
        if any(np.linalg.norm(center - one.body.center_lps_mm) < away[nearest] for center in sacral):
            result.sacral += 1
            continue
        result.misnamed += nearest != one.level
        result.found += one.level in whole
        if _wrong(one.body, truths[nearest]):
            result.wrong.append(f"{phantom.seed} {nearest}")
    order = [level for level in truths if level in row]
    levels = list(truths)
    result.skipped += levels.index(order[-1]) - levels.index(order[0]) + 1 - len(order)


def _whole(volume: CTVolume, truth: BodyTruth) -> bool:
    ends = [truth.frame.lps([0, 0, sign * (truth.height_mm / 2 + _MARGIN_MM)]) for sign in (-1, 1)]
    index = volume.geometry.index_at(np.array(ends))
    return bool(((index >= 0) & (index <= np.array(volume.geometry.shape) - 1)).all())


def _wrong(body: Body, truth: BodyTruth) -> bool:
    pairs = ((body.superior, truth.superior), (body.inferior, truth.inferior))
    turn = max(float(np.degrees(np.arccos(min(1.0, float(a.normal_lps @ b.normal_lps))))) for a, b in pairs)
    return turn > 5 or max(abs(float((b.point_lps_mm - a.point_lps_mm) @ a.normal_lps)) for a, b in pairs) > 3


def levels_table(tables: Mapping[float, SpineTable]) -> str:
    header = ["whole spines from one named click", "goal", *(f"slices {slices:g} mm" for slices in tables)]
    every = list(tables.values())
    return table(
        header,
        [
            ["whole bodies found and named right", "98 %", *(f"{t.found} of {t.whole}" for t in every)],
            ["named wrong", "0", *(t.misnamed for t in every)],
            ["bodies skipped", "0", *(t.skipped for t in every)],
            ["sacral segments taken for vertebrae", "0", *(t.sacral for t in every)],
            ["planes wrong", "", *(len(t.wrong) for t in every)],
            ["clicks refused", "", *(f"{len(t.refused)} of {t.spines}" for t in every)],
        ],
    )


def main() -> None:
    from benchmarks.body import FINE_MM, painted, random_phantom, scanned

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[300, 301])
    parser.add_argument("--slices", type=float, nargs="+", default=[1.2, 3.0])
    chosen = parser.parse_args()
    tables = {slices: SpineTable() for slices in chosen.slices}
    for seed in chosen.seeds:
        phantom = random_phantom(seed)
        fine = painted(phantom)
        for i, (slices, one) in enumerate(tables.items()):
            volume = scanned(phantom, fine, max(1, round(slices / FINE_MM)), (10.0, 20.0, 30.0)[(seed + i) % 3], seed)
            run_levels(one, phantom, volume, np.random.default_rng([seed, i, 6]))
    print(levels_table(tables))
    for slices, one in tables.items():
        print(f"{slices:g} mm: median {np.median(one.seconds):.1f} s; wrong {one.wrong}; refused {one.refused}")


if __name__ == "__main__":
    main()
