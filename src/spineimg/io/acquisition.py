"""How a series was acquired, from its header. What the header does not say stays None."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from spineimg.volume import Acquisition, Sharpness

_NO_CONTRAST = {"NO", "NONE", "N", "W/O", "WO", "WITHOUT", "NO CONTRAST", "NON CONTRAST", "NONCONTRAST", "NIL", "0"}
_ARTIFACT_REDUCTION = re.compile(
    r"(?<![A-Za-z])(?:[iI]-?|O-?|SE-?|Smart\s?)?MAR(?![A-Za-z])|metal\s+arti?e?fact", re.MULTILINE
)
"""iMAR (Siemens), O-MAR (Philips), SEMAR (Canon), Smart MAR (GE); evidence: AJNR 2019 review of artefact reduction."""
_KEV = re.compile(r"(?<!\d)(\d{2,3})(?:\.\d+)?[\s_]*keV", re.IGNORECASE)
_MONO = re.compile(r"mono\s*-?\s*e(?:nergetic|\b|[\s_+\d])|GSI\s*mono|\bVMI\b|\bmonochromatic\b", re.IGNORECASE)


def _one(values: Mapping[str, Any], name: str) -> float | None:
    """First number of an element, None when it is absent, unparsable or not positive."""
    numbers = values.get(name)
    if isinstance(numbers, tuple) and numbers and 0 < numbers[0] < 1e4:
        return float(numbers[0])
    return None


def _contrast(agent: str | None, route: str | None) -> bool | None:
    """Contrast (0018,0010) is present only when something was written; an absent or empty tag means unknown."""
    if agent is None:
        return True if route and route.upper() not in _NO_CONTRAST else None
    return agent.strip().upper() not in _NO_CONTRAST


def sharpness(kernel: str | None) -> Sharpness | None:
    """Soft or sharp, by the vendors' naming; None for a name that is not known.

    Siemens: the number of a B/H/Br/Hr/Bv… kernel, 50 and more is sharp. Canon: FC01-FC29 and FC40-FC49 soft body and
    head, FC30-FC39 bone, FC50 and more lung and high resolution. GE and Philips: by word and letter.
    """
    if not kernel:
        return None
    name = kernel.split("\\")[0].strip().upper()
    siemens = re.fullmatch(r"[A-Z]{1,2}(\d{2})[A-Z]?", name)
    canon = re.fullmatch(r"FC(\d{2})(?:[-_ ].*)?", name)
    if canon:
        number = int(canon[1])
        return Sharpness.SHARP if number >= 50 or 30 <= number < 40 else Sharpness.SOFT
    if siemens:
        return Sharpness.SHARP if int(siemens[1]) >= 50 else Sharpness.SOFT
    if re.match(r"BONE|EDGE|LUNG|ULTRA|HD ?BONE|SHARP", name) or name in {"D", "E", "L", "YC", "YD", "YE"}:
        return Sharpness.SHARP
    if re.match(r"STANDARD|STND|SOFT|CHST|SMOOTH|BODY", name) or name in {"A", "B", "C", "YA", "YB"}:
        return Sharpness.SOFT
    return None


def _monoenergetic_kev(texts: Iterable[str]) -> float | None:
    text = "\n".join(texts)
    energy = _KEV.search(text)
    if energy:
        return float(energy[1])
    return 0.0 if _MONO.search(text) else None


def acquisition_of(values: Mapping[str, Any]) -> Acquisition:
    """The acquisition of one header (see headers.WANTED for the keys)."""
    kernel = "\\".join(values.get("ConvolutionKernel", ())) or None
    description = values.get("SeriesDescription", "")
    algorithm = values.get("ReconstructionAlgorithm", "")
    image_type = " ".join(values.get("ImageType", ()))
    agent, route = values.get("ContrastBolusAgent"), values.get("ContrastBolusRoute")
    reduced = _ARTIFACT_REDUCTION.search("\n".join([description, kernel or "", algorithm, image_type]))
    return Acquisition(
        kvp=_one(values, "KVP"),
        contrast=_contrast(agent, route),
        contrast_agent=agent,
        contrast_route=route,
        kernel=kernel,
        sharpness=sharpness(kernel),
        slice_thickness_mm=_one(values, "SliceThickness"),
        manufacturer=values.get("Manufacturer"),
        model=values.get("ManufacturerModelName"),
        metal_artifact_reduction=True if reduced else None,
        monoenergetic_kev=_monoenergetic_kev([description, image_type]),
        patient_position=values.get("PatientPosition"),
    )


def common(acquisitions: Iterable[Acquisition]) -> tuple[Acquisition, tuple[str, ...]]:
    """(what all slices of a series agree on, names of the fields that differ).

    A field that differs between slices is unknown, except the slice thickness, of which the largest counts.
    """
    several = list(dict.fromkeys(acquisitions))
    first = several[0]
    if len(several) == 1:
        return first, ()
    agreed: dict[str, Any] = {}
    differing = []
    for item in fields(Acquisition):
        found = {getattr(one, item.name) for one in several}
        if len(found) > 1:
            differing.append(item.name)
        agreed[item.name] = found.pop() if len(found) == 1 else None
    thick = [one.slice_thickness_mm for one in several if one.slice_thickness_mm is not None]
    agreed["slice_thickness_mm"] = max(thick) if thick else None
    if any(one.metal_artifact_reduction for one in several):
        agreed["metal_artifact_reduction"] = True
    energies = [one.monoenergetic_kev for one in several if one.monoenergetic_kev is not None]
    agreed["monoenergetic_kev"] = energies[0] if energies else None
    return Acquisition(**agreed), tuple(differing)
