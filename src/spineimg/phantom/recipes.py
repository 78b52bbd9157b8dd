"""Phantoms by name, and studies written to a folder."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spineimg.anatomy import Construct
from spineimg.errors import SpineImgError
from spineimg.phantom.imaging import Imaging
from spineimg.phantom.implants import Lucency, RodSpec, ScrewSpec
from spineimg.phantom.metal import COBALT_CHROME_HU, MetalSpec
from spineimg.phantom.model import Phantom, Storage
from spineimg.phantom.postop import PostopSpec
from spineimg.phantom.projection import Beam
from spineimg.phantom.spine import Change, SpineSpec
from spineimg.phantom.truth import roi_json, roi_set, truth_json

EXTENDED = Storage(intercept=-8192, bits=16)
"""Extended scale: HU up to 57343."""
CLIPPED = Storage(clip_high=True)


@dataclass(frozen=True, eq=False, slots=True)
class Recipe:
    """A phantom by name. `construct`: the ends whose ROIs are written beside it."""

    description: str
    spine: SpineSpec
    cover: tuple[str, str]
    construct: Construct
    imaging: Imaging = field(default_factory=Imaging)
    storage: Storage = field(default_factory=Storage)
    metal: MetalSpec | PostopSpec | None = None

    def phantom(self, name: str = "phantom", seed: int = 0) -> Phantom:
        """The phantom of this recipe. The seed changes sizes, texture and noise."""
        return Phantom(replace(self.spine, seed=seed), self.imaging, self.storage, self.cover, self.metal, seed, name)


LUMBAR = ("T10", "T11", "T12", "L1", "L2", "L3", "L4", "L5")
THORACIC = ("T2", "T3", "T4", "T5", "T6", "T7", "T8", "T9", "T10", "T11", "T12", "L1")

_COVER = ("T11", "L5")
_ENDS = Construct("T12", "L4")

RECIPES: Mapping[str, Recipe] = {
    "preop": Recipe(
        "pre-operative lumbar spine, T11 to L5, 2 mm slices every 1.5 mm; the LIV is soft",
        SpineSpec(LUMBAR, {"T11": Change(hu=132.0), "L5": Change(hu=101.0)}, l1_hu=128.0),
        _COVER,
        Construct("T11", "L5"),
        Imaging(
            pixel_mm=0.65,
            spacing_mm=1.5,
            thickness_mm=2.0,
            psf_fwhm_mm=1.0,
            noise_sd_hu=9.0,
            margin_mm=8.0,
            circle=True,
        ),
        Storage(jpeg_ls=True),
    ),
    "scoliosis": Recipe(
        "thoracolumbar scoliosis: bodies tilted up to 25° and rotated up to 15°",
        SpineSpec(LUMBAR, scoliosis_deg=25.0, rotation_deg=15.0),
        _COVER,
        _ENDS,
        Imaging(size=(288, 288)),
    ),
    "osteoporotic": Recipe(
        "trabecular bone as soft as the discs, osteophytes, narrow discs",
        SpineSpec(
            LUMBAR,
            {
                "L2": Change(osteophyte_mm=5, disc_below="narrow"),
                "L3": Change(osteophyte_mm=5),
                "L4": Change(osteophyte_mm=4, disc_below="narrow"),
                "T12": Change(crush=0.12),
            },
            l1_hu=72.0,
            variation=0.15,
        ),
        _COVER,
        Construct("T11", "L3"),
        Imaging(noise_sd_hu=18.0),
    ),
    "thick": Recipe(
        "5 mm slices every 4 mm",
        SpineSpec(LUMBAR),
        _COVER,
        _ENDS,
        Imaging(spacing_mm=4.0, thickness_mm=5.0, ramp_mm=1.0),
    ),
    "tilted": Recipe(
        "gantry tilted by 15°: a sheared lattice",
        SpineSpec(LUMBAR),
        _COVER,
        _ENDS,
        Imaging(tilt_deg=15.0, spacing_mm=1.5),
    ),
    "enhanced": Recipe(
        "portal-venous contrast; the aorta touches the bodies",
        SpineSpec(LUMBAR, l1_hu=145.0, aorta_hu=165.0, aorta_gap_mm=0.0),
        _COVER,
        _ENDS,
        Imaging(contrast_agent="IOHEXOL"),
    ),
    "prone": Recipe("patient prone, head first", SpineSpec(LUMBAR), _COVER, _ENDS, Imaging(position="HFP")),
    "feetfirst": Recipe("patient supine, feet first", SpineSpec(LUMBAR), _COVER, _ENDS, Imaging(position="FFS")),
    "oblique": Recipe(
        "slices turned by 11° without a tilt tag", SpineSpec(LUMBAR), _COVER, _ENDS, Imaging(oblique_deg=(11.0, 4.0))
    ),
    "thoracic": Recipe(
        "thoracic spine with ribs and lungs, T3 to T12",
        SpineSpec(THORACIC, kyphosis=1.2),
        ("T3", "T12"),
        Construct("T6", "T10"),
        Imaging(size=(320, 320), pixel_mm=0.8),
    ),
    "fracture": Recipe(
        "wedge fracture of L1 (25 %), crush fracture of L3",
        SpineSpec(LUMBAR, {"L1": Change(wedge=0.25), "L3": Change(wedge=0.08, crush=0.2)}, l1_hu=95.0),
        _COVER,
        Construct("T12", "L4"),
    ),
    "bridged": Recipe(
        "elderly thoracic spine: narrow discs, some bridged by bone",
        SpineSpec(
            THORACIC,
            {
                **{level: Change(disc_below="bridged") for level in ("T5", "T6", "T7")},
                **{level: Change(disc_below="narrow", osteophyte_mm=3) for level in ("T4", "T8", "T9")},
            },
            l1_hu=85.0,
            kyphosis=1.5,
        ),
        ("T3", "T12"),
        Construct("T6", "T10"),
        Imaging(spacing_mm=2.0, thickness_mm=2.5, pixel_mm=0.8),
    ),
    "l6": Recipe(
        "six lumbar vertebrae",
        SpineSpec((*LUMBAR, "L6")),
        ("T12", "L6"),
        Construct("L1", "L5"),
    ),
    "t11end": Recipe(
        "eleven ribs: L1 follows T11",
        SpineSpec(("T9", "T10", "T11", "L1", "L2", "L3", "L4", "L5")),
        ("T10", "L4"),
        Construct("T11", "L3"),
    ),
    "sclerotic": Recipe(
        "dense endplates at L3 and L4, bone island in L2",
        SpineSpec(
            LUMBAR,
            {
                "L2": Change(island_hu=600.0),
                "L3": Change(sclerosis_hu=220.0, osteophyte_mm=3, disc_below="narrow"),
                "L4": Change(sclerosis_hu=220.0, osteophyte_mm=4),
            },
        ),
        _COVER,
        Construct("T12", "L2"),
    ),
    "lytic": Recipe(
        "lytic lesions in T12 and L3",
        SpineSpec(LUMBAR, {"T12": Change(lytic_radius_mm=7.0), "L3": Change(lytic_radius_mm=8.0)}),
        _COVER,
        Construct("T11", "L2"),
    ),
    "screws": Recipe(
        "titanium screws and cobalt-chrome rods at L2 to L4, extended scale, no streaks",
        SpineSpec(LUMBAR),
        _COVER,
        Construct("L1", "L5"),
        Imaging(spacing_mm=1.0, thickness_mm=1.25),
        EXTENDED,
        MetalSpec(("L2", "L3", "L4"), rod_hu=COBALT_CHROME_HU),
    ),
    "screws_clipped": Recipe(
        "the same titanium screws, clipped at 3071 HU",
        SpineSpec(LUMBAR, {level: Change(hu=110.0) for level in ("L2", "L4")}),
        _COVER,
        Construct("L2", "L4"),
        Imaging(spacing_mm=1.0, thickness_mm=1.25),
        CLIPPED,
        MetalSpec(("L2", "L3", "L4")),
    ),
    "postop": Recipe(
        "after surgery: six titanium screws at L1 to L3, two rods, metal artefacts, halos of known width",
        SpineSpec(
            ("T12", "L1", "L2", "L3", "L4"),
            {"L1": Change(hu=165.0), "L2": Change(hu=140.0), "L3": Change(hu=120.0)},
        ),
        ("L1", "L3"),
        Construct("L1", "L3"),
        Imaging(
            size=(168, 168),
            pixel_mm=0.5,
            spacing_mm=1.0,
            thickness_mm=1.0,
            psf_fwhm_mm=0.8,
            noise_sd_hu=10.0,
            margin_mm=4.0,
            offset_mm=(0.0, 13.0),
        ),
        Storage(intercept=-8192, bits=16, jpeg_ls=True),
        PostopSpec(
            (
                ScrewSpec("L1", "left"),
                ScrewSpec("L1", "right", lucency=Lucency(1.5)),
                ScrewSpec("L2", "left", lucency=Lucency(2.0, "tip cone")),
                ScrewSpec("L2", "right", lucency=Lucency(1.0, "half")),
                ScrewSpec("L3", "left"),
                ScrewSpec("L3", "right", lucency=Lucency(2.5, rim_mm=0.8)),
            ),
            (RodSpec("left", 5.5, "titanium"), RodSpec("right", 5.5, "titanium")),
            beam=Beam("120 kV", fan=True, scatter=0.0005),
        ),
    ),
    "cut": Recipe(
        "the field of view cuts the first and the last vertebra",
        SpineSpec(LUMBAR),
        _COVER,
        _ENDS,
        Imaging(margin_mm=-10.0),
    ),
    "low_kvp": Recipe(
        "80 kV: the same bone reads higher",
        SpineSpec(LUMBAR, l1_hu=165.0),
        _COVER,
        _ENDS,
        Imaging(kvp=80.0, noise_sd_hu=20.0),
    ),
}
"""Recipes by name."""


def make_phantom(recipe: str = "preop", seed: int = 0) -> Phantom:
    """A phantom by name. Raises SpineImgError for an unknown one."""
    if recipe not in RECIPES:
        raise SpineImgError(f"there is no recipe {recipe!r}: choose one of {', '.join(RECIPES)}")
    return RECIPES[recipe].phantom(recipe, seed)


def write_study(
    folder: Path,
    recipe: str = "preop",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Writes `ct/` (DICOM), `rois.json`, `rois_scanner.json` and `truth.json` into a new or empty folder.

    All or nothing: a failed write leaves nothing behind. Returns a summary. Raises SpineImgError.
    """
    phantom = make_phantom(recipe, seed)
    return write_phantom(folder, phantom, RECIPES[recipe].construct, progress)


def write_phantom(
    folder: Path, phantom: Phantom, construct: Construct, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """The same for any phantom."""
    from spineimg.phantom.dicom import write_series

    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SpineImgError(f"{folder} exists and is not an empty folder: choose another one")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise SpineImgError(f"cannot write to {folder.parent}: {error.strerror}") from error
    try:
        (draft / "ct").mkdir()
        files = write_series(draft / "ct", phantom, progress)
        rois = {plane: roi_set(phantom, construct, plane) for plane in ("endplate", "scanner")}
        _write_json(draft / "rois.json", roi_json(rois["endplate"]))
        _write_json(draft / "rois_scanner.json", roi_json(rois["scanner"]))
        _write_json(draft / "truth.json", truth_json(phantom, rois))
        size = sum(file.stat().st_size for file in draft.rglob("*") if file.is_file())
        draft.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        draft.rename(folder)
    except OSError as error:
        raise SpineImgError(f"cannot write {folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return {
        "recipe": phantom.name,
        "seed": phantom.seed,
        "folder": str(folder),
        "n_slices": len(files),
        "bytes": size,
        "uiv": construct.uiv,
        "liv": construct.liv,
    }


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=1)
    # Points and maps on one line: a tenth of the lines, half of the bytes.
    text = re.sub(r"\[\s+(-?\d[-\d.eE,\s]*?)\s+\]", lambda found: "[" + " ".join(found[1].split()) + "]", text)
    file.write_text(text + "\n", encoding="utf-8")
