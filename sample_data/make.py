"""Makes the sample study again: `python sample_data/make.py`. One seed, one study, byte for byte (with the same
versions of the DICOM and JPEG-LS libraries)."""

from __future__ import annotations

import shutil
from pathlib import Path

from spineimg.phantom import write_study

HERE = Path(__file__).parent
RECIPE, SEED = "preop", 0


def main() -> None:
    """Replaces the folder `preop`."""
    target = HERE / RECIPE
    fresh = HERE / f"{RECIPE}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    write_study(fresh, RECIPE, SEED)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


if __name__ == "__main__":
    main()
