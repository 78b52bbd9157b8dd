"""What a screw and a rod look like: every default of `detect.find_metal`."""

from __future__ import annotations

from dataclasses import dataclass, field

from spineimg.implants.axis import AxisSettings
from spineimg.implants.breaks import BreakSettings
from spineimg.implants.metal_map import MapSettings
from spineimg.implants.tubes import TubeSettings


@dataclass(frozen=True, slots=True)
class DetectSettings:
    """What a screw and a rod look like."""

    map: MapSettings = field(default_factory=MapSettings)
    tubes: TubeSettings = field(default_factory=TubeSettings)
    axis: AxisSettings = field(default_factory=AxisSettings)
    rod_angle_deg: float = field(
        default=42.0,
        metadata={
            "unit": "deg",
            "range": (20.0, 60.0),
            "source": "engineering choice: L5 and sacral rods lean by up to 40°, sacral screws stay above 45° to them",
            "help": "A tube within this angle of the patient's long axis may be a rod, others may be screws.",
        },
    )
    shaft_mm: tuple[float, float] = field(
        default=(12.0, 110.0),
        metadata={
            "unit": "mm",
            "range": (8.0, 130.0),
            "source": "pedicle screws are 20-60 mm long, iliac screws up to 100 mm",
            "help": "Shortest and longest shaft.",
        },
    )
    shaft_radius_mm: tuple[float, float] = field(
        default=(1.3, 4.9),
        metadata={
            "unit": "mm",
            "range": (0.5, 6.0),
            "source": "screws of 3.5 to 8.5 mm; wires and leads are thinner, nails and stems thicker",
            "help": "Thinnest and thickest fitted shaft, radius.",
        },
    )
    least_forward: float = field(
        default=0.3,
        metadata={
            "unit": "",
            "range": (0.0, 0.9),
            "source": "engineering choice: lateral mass and S2-iliac screws still point forward by more than 17°",
            "help": "Forward part of a shaft's direction, head to tip.",
        },
    )
    seat_mm: float = field(
        default=16.0,
        metadata={
            "unit": "mm",
            "range": (8.0, 30.0),
            "source": "engineering choice: a tulip is 14 mm long",
            "help": "A rod passes this near behind the head of each of its screws.",
        },
    )
    rod_gap_mm: float = field(
        default=32.0,
        metadata={
            "unit": "mm",
            "range": (15.0, 60.0),
            "source": "engineering choice: a rod disappears over 14-20 mm in a head, over two heads side by side 30 mm",
            "help": "Pieces of one rod are joined over so much.",
        },
    )
    rod_radius_mm: tuple[float, float] = field(
        default=(1.3, 4.6),
        metadata={
            "unit": "mm",
            "range": (0.5, 6.0),
            "source": "rods have diameters of 3.2 to 6.35 mm; blooming adds up to 1 mm to the radius. A lead in the "
            "canal has 0.7 mm",
            "help": "Thinnest and thickest tube that may be a rod, radius.",
        },
    )
    least_metal_hu: float = field(
        default=3500.0,
        metadata={
            "unit": "HU",
            "range": (2000.0, 6000.0),
            "source": "titanium reads 6000 HU and more; cement and contrast medium 1000-3000 HU",
            "help": "Where metal shows its own HU, what is darker is no screw.",
        },
    )
    least_of_end: float = field(
        default=0.97,
        metadata={
            "unit": "of the scale's end",
            "range": (0.8, 1.0),
            "source": "engineering choice: a metal core lies at the end, within the noise",
            "help": "Where the scale ends below the metal, a shaft's core reaches so much of its end.",
        },
    )
    least_rod_mm: float = field(
        default=15.0,
        metadata={
            "unit": "mm",
            "range": (5.0, 40.0),
            "source": "engineering choice: the rod of two neighbouring cervical levels has 20 mm",
            "help": "Shorter pieces are no rods.",
        },
    )
    break_step_mm: float = field(
        default=4.0,
        metadata={
            "unit": "mm",
            "range": (1.0, 6.0),
            "source": "engineering choice: less than a rod's diameter, so that rods side by side stay two",
            "help": "The ends of a broken rod may stand so far apart sideways.",
        },
    )
    breaks: BreakSettings = field(default_factory=BreakSettings)
    worst_misfit: float = field(
        default=0.33,
        metadata={
            "unit": "of the fitted range",
            "range": (0.05, 1.0),
            "source": "engineering choice: 0.02-0.15 on shafts, above 0.4 on what is no cylinder",
            "help": "A fit with a larger rms residual is no screw.",
        },
    )
