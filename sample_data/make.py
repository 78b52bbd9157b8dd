"""Makes the sample studies again: `python sample_data/make.py [preop|postop]`. One seed, one study, byte for byte (with
the same versions of the DICOM and JPEG-LS libraries; on another processor the counting noise of rays through metal may
fall otherwise). The post-operative one takes about a minute."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from spineimg.phantom import write_study

HERE = Path(__file__).parent
RECIPES, SEED = ("preop", "postop"), 0


def make(recipe: str) -> None:
    """Replaces the folder of one recipe."""
    target = HERE / recipe
    fresh = HERE / f"{recipe}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    write_study(fresh, recipe, SEED)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


def main() -> None:
    """Makes the recipes that were named, or both."""
    for recipe in sys.argv[1:] or RECIPES:
        make(recipe)


if __name__ == "__main__":
    main()
