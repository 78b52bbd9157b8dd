"""spineimg measures spine CT: trabecular HU of vertebrae before surgery, implant loosening after it.

Names are imported on first use, so that `import spineimg` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spineimg.errors import SpineImgError as SpineImgError
    from spineimg.geometry import Geometry as Geometry
    from spineimg.implants.model import ImplantScreen as ImplantScreen
    from spineimg.implants.screen import screen_implants as screen_implants
    from spineimg.io.opening import load as load
    from spineimg.io.rois import read_rois as read_rois
    from spineimg.io.rois import write_rois as write_rois
    from spineimg.pipeline import assess as assess
    from spineimg.results import CaseResult as CaseResult
    from spineimg.rois import Ellipse as Ellipse
    from spineimg.rois import RoiSet as RoiSet
    from spineimg.rois import VertebraRoi as VertebraRoi
    from spineimg.volume import CTVolume as CTVolume

__version__ = "0.1.0"

_WHERE = {
    "SpineImgError": "errors",
    "Geometry": "geometry",
    "CTVolume": "volume",
    "Ellipse": "rois",
    "VertebraRoi": "rois",
    "RoiSet": "rois",
    "load": "io.opening",
    "read_rois": "io.rois",
    "write_rois": "io.rois",
    "assess": "pipeline",
    "screen_implants": "implants.screen",
    "ImplantScreen": "implants.model",
    "CaseResult": "results",
}

__all__ = [*sorted(_WHERE), "__version__"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"spineimg.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'spineimg' has no attribute {name!r}")
