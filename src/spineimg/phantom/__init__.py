"""A synthetic spine with known truth.

`make_phantom("preop", seed=0)` gives a `Phantom`; its `volume()` is the image as a reader sees it, `true_mean_hu`,
`tissue_mean_hu` and `body_truth` say what a measurement should find, and `write_study` writes it all as DICOM.
"""

from spineimg.phantom.imaging import Imaging
from spineimg.phantom.implants import Lucency, RodSpec, ScrewSpec
from spineimg.phantom.metal import MetalSpec
from spineimg.phantom.model import Phantom, Storage
from spineimg.phantom.postop import PostopSpec
from spineimg.phantom.postop_variety import varied_postop
from spineimg.phantom.projection import Beam
from spineimg.phantom.recipes import RECIPES, Recipe, make_phantom, write_phantom, write_study
from spineimg.phantom.spine import Change, SpineSpec
from spineimg.phantom.truth import BodyTruth, PlaneTruth, body_truth, ellipses, roi_json, roi_set, truth_json
from spineimg.phantom.variety import varied_phantom

__all__ = [
    "RECIPES",
    "Beam",
    "BodyTruth",
    "Change",
    "Imaging",
    "Lucency",
    "MetalSpec",
    "Phantom",
    "PlaneTruth",
    "PostopSpec",
    "Recipe",
    "RodSpec",
    "ScrewSpec",
    "SpineSpec",
    "Storage",
    "body_truth",
    "ellipses",
    "make_phantom",
    "roi_json",
    "roi_set",
    "truth_json",
    "varied_phantom",
    "varied_postop",
    "write_phantom",
    "write_study",
]
