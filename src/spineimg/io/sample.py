"""Where the sample studies are: in the wheel, or beside the sources in a checkout."""

from __future__ import annotations

from pathlib import Path

from spineimg.errors import SeriesError


def sample_study(name: str) -> Path:
    """Folder of a sample study: `ct/`, `rois.json`, `truth.json`. Raises SeriesError when it is not there."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "sample_data" / name, package.parents[1] / "sample_data" / name):
        if folder.is_dir():
            return folder
    raise SeriesError(f"the sample study {name} is not part of this installation: install spineimg again")
