"""Tables of X-ray tube spectra and of attenuation, for the projection of metal.

Spectra: spekpy 2.5.4 (tungsten, anode angle 10°), energy-weighted fluence in bins of 5 keV, sum 1; 6 mm of aluminium,
"hard": 3 mm aluminium and 0.6 mm copper, 130 kV: 8 mm aluminium. Attenuation: xraydb 4.5.8 (Elam, Ravel and Sieber
2002), total with coherent scatter, at the middle of each bin. Composition by mass: water; cortical bone (ICRU 44,
1.92 g/cm³); Ti-6Al-4V (4.43); Co-28Cr-6Mo (8.30); steel 316L (7.95).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from spineimg.errors import SpineImgError
from spineimg.geometry import FloatArray

ENERGIES_KEV: FloatArray = np.arange(17.5, 140.0, 5.0)
"""(25,) middle of the bins."""


def _row(text: str) -> FloatArray:
    return np.array(text.split(), dtype=np.float64)


SPECTRA: Mapping[str, FloatArray] = {
    "80 kV": _row(
        """
        0.00018 0.0061 0.03178 0.07035 0.10409 0.12466 0.13223 0.12949 0.13937
        0.10269 0.08782 0.05126 0.01998 0 0 0 0 0
        0 0 0 0 0 0 0
        """
    ),
    "100 kV": _row(
        """
        9e-05 0.00324 0.01812 0.04259 0.06636 0.08339 0.09296 0.09638 0.1517
        0.09091 0.10325 0.06733 0.05977 0.05029 0.03887 0.02533 0.00943 0
        0 0 0 0 0 0 0
        """
    ),
    "120 kV": _row(
        """
        5e-05 0.00199 0.01184 0.02928 0.04752 0.06181 0.07107 0.07595 0.15205
        0.07663 0.0994 0.05905 0.05665 0.05316 0.04872 0.04347 0.03748 0.03073
        0.02316 0.01468 0.00531 0 0 0 0
        """
    ),
    "120 kV hard": _row(
        """
        0 0 7e-05 0.00122 0.0067 0.01874 0.03543 0.05287 0.13652
        0.07924 0.11602 0.07548 0.07756 0.07674 0.07333 0.06765 0.0599 0.0502
        0.03851 0.02476 0.00906 0 0 0 0
        """
    ),
    "130 kV": _row(
        """
        1e-05 0.00059 0.00563 0.01805 0.03419 0.04899 0.06008 0.06721 0.14967
        0.07224 0.09906 0.05683 0.05601 0.05408 0.05122 0.04758 0.04327 0.03837
        0.03289 0.02682 0.02008 0.01261 0.00453 0 0
        """
    ),
    "140 kV": _row(
        """
        3e-05 0.00134 0.0084 0.0217 0.03649 0.04884 0.05753 0.06282 0.14641
        0.06604 0.09289 0.05041 0.05004 0.04881 0.04685 0.04432 0.04129 0.03785
        0.03404 0.0299 0.02541 0.02054 0.01523 0.00946 0.00337
        """
    ),
}
"""name -> (25,) part of the detected energy in each bin."""

ATTENUATION: Mapping[str, FloatArray] = {
    "water": _row(
        """
        0.11176 0.062548 0.042998 0.033646 0.028543 0.025465 0.023454 0.022049 0.021012
        0.02021 0.019565 0.019029 0.018571 0.018173 0.017819 0.0175 0.017209 0.016941
        0.016692 0.016459 0.01624 0.016033 0.015836 0.015649 0.015469
        """
    ),
    "bone": _row(
        """
        1.1195 0.55317 0.32085 0.20861 0.14785 0.11209 0.089611 0.074726 0.064431
        0.057042 0.051571 0.047406 0.044159 0.041571 0.039469 0.03773 0.036269 0.035025
        0.03395 0.033011 0.032181 0.031441 0.030776 0.030172 0.029621
        """
    ),
    "titanium": _row(
        """
        9.8413 4.8021 2.7051 1.6818 1.1251 0.79733 0.59186 0.45638 0.36341
        0.29751 0.24945 0.21351 0.18603 0.16462 0.14766 0.13401 0.1229 0.11373
        0.10609 0.099656 0.094179 0.089477 0.085406 0.081855 0.078733
        """
    ),
    "cobalt-chrome": _row(
        """
        30.059 17.382 9.953 6.2365 4.1766 2.9476 2.1694 1.6519 1.2943
        1.0397 0.85335 0.7138 0.6071 0.52405 0.45837 0.4057 0.36291 0.32776
        0.29858 0.27412 0.25344 0.23581 0.22066 0.20756 0.19614
        """
    ),
    "steel": _row(
        """
        29.12 15.409 8.7763 5.4815 3.6645 2.5831 1.9001 1.4475 1.1356
        0.91378 0.7516 0.6302 0.53744 0.46528 0.40823 0.3625 0.32535 0.29484
        0.26951 0.24827 0.2303 0.21497 0.2018 0.1904 0.18047
        """
    ),
}
"""material -> (25,) linear attenuation, 1/mm."""


def spectrum(name: str) -> tuple[npt.NDArray[np.intp], FloatArray]:
    """(n,) indices of the bins that hold energy, and (n,) weights that sum to 1; "70 keV" is one bin, for control.

    Raises SpineImgError for an unknown name.
    """
    if name.endswith(" keV"):
        index = np.array([int(np.argmin(np.abs(ENERGIES_KEV - float(name[:-4]))))])
        return index, np.ones(1)
    if name not in SPECTRA:
        raise SpineImgError(f"there is no spectrum {name!r}: choose one of {', '.join(SPECTRA)}, or e.g. '70 keV'")
    index = np.flatnonzero(SPECTRA[name] > 1e-4)
    weight = SPECTRA[name][index]
    return index, weight / weight.sum()


def attenuation(material: str) -> FloatArray:
    """(25,) linear attenuation, 1/mm. Raises SpineImgError for an unknown material."""
    if material not in ATTENUATION:
        raise SpineImgError(f"there is no material {material!r}: choose one of {', '.join(ATTENUATION)}")
    return ATTENUATION[material]
