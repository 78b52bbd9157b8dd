"""What a screw and a rod look like: every default of `detect.find_metal`."""

from __future__ import annotations

from dataclasses import dataclass, field

from spineimg.implants.axis import AxisSettings
from spineimg.implants.breaks import BreakSettings
from spineimg.implants.holder import HolderSettings
from spineimg.implants.lone import LoneSettings
from spineimg.implants.metal_map import MapSettings
from spineimg.implants.tubes import TubeSettings
from spineimg.settings import setting


@dataclass(frozen=True, slots=True)
class DetectSettings:
    """What a screw and a rod look like."""

    map: MapSettings = field(default_factory=MapSettings)
    tubes: TubeSettings = field(default_factory=TubeSettings)
    axis: AxisSettings = field(default_factory=AxisSettings)
    lone: LoneSettings = field(default_factory=LoneSettings)
    holder: HolderSettings = field(default_factory=HolderSettings)
    rod_angle_deg: float = setting(
        42.0,
        "deg",
        (20.0, 60.0),
        "engineering choice: L5 and sacral rods lean by up to 40°, sacral screws stay above 45° to them",
        "A tube within this angle of the patient's long axis may be a rod, others may be screws.",
    )
    shaft_mm: tuple[float, float] = setting(
        (12.0, 110.0),
        "mm",
        (8.0, 130.0),
        "pedicle screws are 20-60 mm long, iliac screws up to 100 mm",
        "Shortest and longest shaft.",
    )
    shaft_radius_mm: tuple[float, float] = setting(
        (1.3, 4.9),
        "mm",
        (0.5, 6.0),
        "screws of 3.5 to 8.5 mm; wires and leads are thinner, nails and stems thicker",
        "Thinnest and thickest fitted shaft, radius.",
    )
    least_forward: float = setting(
        0.3,
        "",
        (0.0, 0.9),
        "engineering choice: lateral mass and S2-iliac screws still point forward by more than 17°",
        "Forward part of a shaft's direction, head to tip.",
    )
    seat_mm: float = setting(
        16.0,
        "mm",
        (8.0, 30.0),
        "engineering choice: a tulip is 14 mm long",
        "A rod passes this near behind the head of each of its screws.",
    )
    rod_gap_mm: float = setting(
        32.0,
        "mm",
        (15.0, 60.0),
        "engineering choice: a rod disappears over 14-20 mm in a head, over two heads side by side 30 mm",
        "Pieces of one rod are joined over so much.",
    )
    rod_radius_mm: tuple[float, float] = setting(
        (1.3, 4.6),
        "mm",
        (0.5, 6.0),
        "rods have diameters of 3.2 to 6.35 mm; blooming adds up to 1 mm to the radius. A lead in the canal has 0.7 mm",
        "Thinnest and thickest tube that may be a rod, radius.",
    )
    rod_fitted_mm: float = setting(
        3.8,
        "mm",
        (3.2, 6.0),
        "rods are up to 6.35 mm thick, and of cobalt-chrome on a clipped scale read 0.7 mm more; nails have 8 mm",
        "Thickest fitted rod, radius.",
    )
    most_slender: float = setting(
        18.0,
        "diameters",
        (10.0, 40.0),
        "screws of 3.5 x 45 and 7.5 x 100 mm have 15 diameters of their mean cylinder; cannulas 20 and more",
        "Longest shaft for its thickness.",
    )
    least_metal_hu: float = setting(
        3500.0,
        "HU",
        (2000.0, 6000.0),
        "titanium reads 6000 HU and more; cement and contrast medium 1000-3000 HU",
        "Where metal shows its own HU, what is darker is no screw.",
    )
    least_of_end: float = setting(
        0.97,
        "of the scale's end",
        (0.8, 1.0),
        "engineering choice: a metal core lies at the end, within the noise",
        "Where the scale ends below the metal, a shaft's core reaches so much of its end.",
    )
    least_rod_mm: float = setting(
        15.0,
        "mm",
        (5.0, 40.0),
        "engineering choice: the rod of two neighbouring cervical levels has 20 mm",
        "Shorter pieces are no rods.",
    )
    break_step_mm: float = setting(
        4.0,
        "mm",
        (1.0, 6.0),
        "engineering choice: less than a rod's diameter, so that rods side by side stay two",
        "The ends of a broken rod may stand so far apart sideways.",
    )
    breaks: BreakSettings = field(default_factory=BreakSettings)
    worst_misfit: float = setting(
        0.33,
        "of the fitted range",
        (0.05, 1.0),
        "engineering choice: 0.02-0.15 on shafts, above 0.4 on what is no cylinder",
        "A fit with a larger rms residual is no screw.",
    )
