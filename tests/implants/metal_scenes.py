"""Painted scenes for the search: metal that is no screw, and screws that are hard to find. Points are LPS mm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from scipy import ndimage

from spineimg.geometry import FloatArray, Geometry
from spineimg.volume import ArraySource, CTVolume
from tests.implants.implant_cases import AP, TITANIUM, Build, Piece

UP = np.array([0.0, 0.0, 1.0])
STEEL, PLATINUM, NITINOL = 13000.0, 15000.0, 5000.0
USUAL, THICK = (1.0, 0.7, 0.7), (3.0, 0.8, 0.8)


def wire(points: Sequence[Sequence[float]] | FloatArray, radius: float, hu: float = STEEL) -> list[Piece]:
    """A polyline of cylinders."""
    return [Piece(np.asarray(a, float), np.asarray(b, float), radius, hu) for a, b in pairwise(points)]


def _curve(count: int, **xyz: FloatArray) -> FloatArray:
    return np.stack([np.broadcast_to(xyz[axis], count) for axis in "xyz"], axis=1)


def stent() -> list[Piece]:
    """A mesh tube of 24 mm in the aorta, leaning by 8 degrees."""
    t = np.linspace(0, 2 * np.pi, 25)
    pieces = []
    for sign in (1, -1):
        for start in np.arange(8) * np.pi / 4:
            around = sign * t + start
            strand = _curve(25, x=12 * np.cos(around) + 1.3 * t, y=12 * np.sin(around), z=9.5 * t)
            pieces += wire(strand, 0.3, NITINOL)
    return pieces


def sternal_wires() -> list[Piece]:
    """Four closed loops, each with its twisted ends."""
    t = np.linspace(0, 2 * np.pi, 25)
    loops: list[Piece] = []
    for n in range(4):
        loops += wire(_curve(25, x=13 * np.cos(t), y=6 * np.sin(t), z=26.0 * n + 2 * np.cos(t)), 0.5)
        loops += wire([[0, -6, 26.0 * n], [3, -9, 26.0 * n + 4]], 0.9)
    return loops


def pacemaker_lead() -> list[Piece]:
    t = np.linspace(0, 1, 40)
    lead = _curve(40, x=60 * t**2, y=-50 * np.sin(2.5 * t), z=90 * (1 - t))
    return [*wire(lead, 0.9, PLATINUM), Piece(lead[0] - [0, 6, 0], lead[0] + [0, 4, 0], 18.0, 9000.0)]


def cord_stimulator(x: float = 0.0) -> list[Piece]:
    """A straight lead in the canal: a thin wire with eight contacts."""
    lead = wire([[x, 0, -40], [x + 1, 1, 40]], 0.4, PLATINUM)
    return lead + [Piece(np.array([x, 0, z]), np.array([x, 0, z + 3.0]), 0.65, PLATINUM) for z in range(-30, 26, 7)]


def cage(x: float = 0.0, z: float = 0.0, hu: float = TITANIUM) -> list[Piece]:
    """Two long walls and two short ones, 24 x 10 x 10 mm, in a disc."""
    corners = [(-12, -5), (12, -5), (12, 5), (-12, 5), (-12, -5)]
    return [
        Piece(np.array([x + a[0], -30.0 + a[1], z + h]), np.array([x + b[0], -30.0 + b[1], z + h]), 1.5, hu)
        for a, b in pairwise(corners)
        for h in (-3.5, 0.0, 3.5)
    ]


def cement() -> list[Piece]:
    """Cement with barium: an uneven cloud, with a leak into a vein that runs backwards."""
    rng = np.random.default_rng(3)
    cloud = [
        Piece(at, at + rng.normal(0, 4, 3), 4.0, 2000.0 + 1200.0 * rng.random()) for at in rng.normal(0, 6, (12, 3))
    ]
    return [*cloud, *wire([[0, 4, 0], [3, 16, 2], [2, 26, 4]], 1.5, 2800.0)]


def gut_contrast() -> list[Piece]:
    t = np.linspace(0, 1, 14)
    loop = _curve(14, x=50 * t, y=-15 * np.sin(6 * t), z=20 * np.cos(4 * t))
    tail = wire([[0, 0, 20], [-6, -20, 8], [-8, -45, 4]], 2.8, 2900.0)
    return [*wire(loop, 9.0, 2900.0), *tail]


def electrodes() -> list[Piece]:
    """Snaps on the skin, each with a cable."""
    found: list[Piece] = []
    for n, x in enumerate((-45.0, 0.0, 45.0)):
        at = np.array([x, -60.0 + 5 * n, 15.0 * n])
        found += [Piece(at, at + 1.5 * AP, 5.0), Piece(at, at - 4 * AP, 2.0)]
        found += wire([at - [0, 4, 0], at - [10, 8, -20], at - [12, 10, -50]], 0.5, 9000.0)
    return found


def clips() -> list[Piece]:
    rng = np.random.default_rng(4)
    return [Piece(at, at + 7 * v / np.linalg.norm(v), 0.9) for at, v in rng.normal(0, 12, (8, 2, 3))]


def teeth() -> list[Piece]:
    """Crowns in a row, and dental implants below some of them."""
    angle = np.linspace(-1.2, 1.2, 10)
    crowns = [np.array([25 * np.sin(a), -30 * np.cos(a), 0.0]) for a in angle]
    roots = [Piece(c - [0, 0, 3], c - [0, -1.5, 14], 2.0) for c in crowns[::3]]
    return [*(Piece(c - 3.5 * UP, c + 3.5 * UP, 4.0, 11000.0) for c in crowns), *roots]


def k_wires() -> list[Piece]:
    """Guide wires through both pedicles, without screws."""
    return [Piece(np.array([s * 24.0, 35.0, 2.0]), np.array([s * 8.0, -35.0, -3.0]), 0.8, STEEL) for s in (1, -1)]


def hooks() -> list[Piece]:
    """A rod held by hooks alone: blocks behind, short blades in front."""
    found = [Piece(np.array([18.0, 20.0, 45.0]), np.array([18.0, 20.0, -45.0]), 2.75)]
    for z in (-30.0, 28.0):
        at = np.array([18.0, 20.0, z])
        found += [Piece(at - 6 * AP, at + 7 * AP, 5.5)]
        found += wire([at - [0, 4, 3], at - [0, 13, 3], at - [0, 13, -5]], 2.2)
    return found


def hip_stem() -> list[Piece]:
    return [
        Piece(np.array([0.0, 0, 0]), np.array([6.0, -4, -100]), 7.0),
        *wire([[0, 0, 0], [-28, -8, 22]], 6.0),
        Piece(np.array([-28.0, -8, 22]), np.array([-34.0, -10, 26]), 14.0, 17000.0),
        # The screw of the cup points forward and in.
        Piece(np.array([-34.0, -10, 40]), np.array([-52.0, -26, 52]), 3.0),
    ]


def neck_screws() -> list[Piece]:
    """Three screws in a femoral neck."""
    way = 80 * np.array([-0.75, -0.25, 0.6])
    starts = [np.array([0.0, 0, 0]), np.array([0.0, 9, 6]), np.array([0.0, 2, 13])]
    return [Piece(a, a + way, 3.25) for a in starts] + [Piece(a - 0.06 * way, a, 4.2) for a in starts]


def nail_locked() -> list[Piece]:
    """A nail in a long bone, with screws that run through it from front to back."""
    nail = [Piece(np.array([0.0, 0, 40]), np.array([0.0, 0, -40]), 4.5)]
    through = [Piece(np.array([0.0, 17, z]), np.array([0.0, -17, z]), 2.5, cone_mm=2.0) for z in (25.0, -10.0)]
    return [*nail, *through, Piece(np.array([0.0, -18, -30]), np.array([0.0, 15, -33]), 2.5, cone_mm=3.0)]


def plate_screws() -> list[Piece]:
    """A plate of 12 x 4 mm on the back of a long bone, with screws that point forward."""
    rows = [Piece(np.array([x, 18.0, 34]), np.array([x, 18.0, -34]), 2.0, STEEL) for x in (-4.0, -1.4, 1.4, 4.0)]
    return rows + [Piece(np.array([0.0, 17, z]), np.array([0.0, -18, z]), 2.25, STEEL, 1.0) for z in (-17.0, 0.0, 17.0)]


def cup_screws() -> list[Piece]:
    """The ball of a hip, and two screws of its cup, one forward and one up."""
    ball = np.array([0.0, 0.0, 0.0])
    forward, up = np.array([-0.34, -0.72, 0.6]), np.array([-0.45, 0.35, 0.82])
    screws = [Piece(ball + 13 * way, ball + 42 * way, 3.25, cone_mm=5.0) for way in (forward, up)]
    # Cylinders of several lengths make about a ball.
    return [
        *(Piece(ball - h * UP, ball + h * UP, float(np.sqrt(256 - h * h)), 17000.0) for h in (3.0, 7.0, 11.0, 14.0)),
        *screws,
    ]


def cannula() -> list[Piece]:
    """A steel cannula of 3.2 mm with its handle, through a pedicle into the body."""
    back, front = np.array([22.0, 45.0, 9.0]), np.array([6.0, -32.0, -2.0])
    away = (back - front) / np.linalg.norm(back - front)
    return [Piece(back, front, 1.6, STEEL), Piece(back + 8 * away, back, 5.0, STEEL)]


def flat_cages() -> list[Piece]:
    """Two threaded cages, from back to front between two vertebrae, which end flat."""
    return [Piece(np.array([x, 10.0, 0.0]), np.array([x, -12.0, 0.0]), 4.3) for x in (-9.0, 9.0)]


def cage_walls() -> list[Piece]:
    """The walls of a cage, each 3 mm thick, 9 mm high and 27 mm deep."""
    heights = (-3.0, -1.5, 0.0, 1.5, 3.0)
    sides = [Piece(np.array([x, 12.0, h]), np.array([x, -15.0, h]), 1.5) for x in (-13.0, 13.0) for h in heights]
    return sides + [Piece(np.array([-13.0, y, h]), np.array([13.0, y, h]), 1.5) for y in (11.0, -13.5) for h in heights]


NO_SCREWS = {
    one.__name__: one
    for one in (
        *(stent, sternal_wires, pacemaker_lead, cord_stimulator, cage, cement, gut_contrast, electrodes, clips),
        *(teeth, k_wires, hooks, hip_stem, neck_screws, nail_locked, plate_screws, cup_screws, cannula),
        *(flat_cages, cage_walls),
    )
}


def screw(
    head: Sequence[float], way: Sequence[float], length: float, diameter: float, *, tulip: bool = True
) -> tuple[Piece, list[Piece]]:
    """A shaft and its tulip."""
    start, along = np.asarray(head, float), np.asarray(way, float) / np.linalg.norm(way)
    shaft = Piece(start, start + length * along, diameter / 2, cone_mm=min(5.0, length / 6))
    width = 6.2 if diameter > 4.6 else 4.6
    return shaft, [Piece(start, start - 13 * along, width)] if tulip else []


def hold(screws: dict[str, tuple[Piece, list[Piece]]], rods: Sequence[Sequence[str]], radius: float = 2.75) -> Build:
    """A scan of screws; each rod runs through the tulips of those that it names."""
    rest = [piece for _, tulips in screws.values() for piece in tulips]
    for names in rods:
        seats = [screws[name][0].start - 7 * screws[name][0].along for name in names]
        ends = [(a - b) / np.linalg.norm(a - b) for a, b in ((seats[0], seats[1]), (seats[-1], seats[-2]))]
        line = [seats[0] + 8 * ends[0], *seats, seats[-1] + 8 * ends[1]]
        rest += wire(line, radius, TITANIUM)
    return Build({name: shaft for name, (shaft, _) in screws.items()}, rest)


def short_and_thin() -> Build:
    """Upper thoracic and cervical screws: 26 mm x 3.5 and 4.5 mm, 18 mm apart, rods of 3.5 mm."""
    screws = {
        f"{n}-{s}": screw([s * 16.0, 10.0, -18.0 * n], [-s * 0.45, -1, 0.1], 26.0, 3.5 + 0.5 * n)
        for n in range(3)
        for s in (1, -1)
    }
    return hold(screws, [[f"{n}-{s}" for n in range(3)] for s in (1, -1)], 1.75)


def pelvic() -> Build:
    """S1 screws whose tips nearly touch, and iliac screws of 90 mm x 8.5 mm, with L5."""
    screws = {}
    for s in (1, -1):
        screws[f"L5-{s}"] = screw([s * 24.0, 10.0, 32.0], [-s * 0.4, -1, -0.15], 45.0, 7.5)
        screws[f"S1-{s}"] = screw([s * 23.0, 12.0, 0.0], [-s * 0.5, -1, -0.25], 42.0, 7.5)
        screws[f"iliac-{s}"] = screw([s * 30.0, 25.0, -32.0], [s * 0.45, -0.8, -0.4], 90.0, 8.5)
    return hold(screws, [[f"{name}-{s}" for name in ("L5", "S1", "iliac")] for s in (1, -1)])


def steep() -> Build:
    """Screws that run up by 30 degrees, on one side only."""
    screws = {f"{n}": screw([18.0, 10.0, -30.0 * n], [-0.2, -1, 0.6], 40.0, 6.0) for n in range(3)}
    return hold(screws, [[f"{n}" for n in range(3)]])


def alone() -> Build:
    """One screw with its tulip and no rod."""
    return hold({"one": screw([18.0, 10.0, 0.0], [-0.3, -1, -0.1], 45.0, 6.5)}, [])


def emptied() -> Build:
    """Two screws whose rod and set screws were taken out: tulips of a floor and two arms around an open slot."""
    screws = {f"{s}": screw([s * 20.0, 10.0, 0.0], [-s * 0.3, -1, 0.0], 42.0, 6.5, tulip=False)[0] for s in (1, -1)}
    rest = []
    for shaft in screws.values():
        out = np.cross(shaft.along, UP) / np.linalg.norm(np.cross(shaft.along, UP))
        rest.append(Piece(shaft.start, shaft.start - 4.5 * shaft.along, 6.2))
        arms = [shaft.start + way * 4.8 * out for way in (1, -1)]
        rest += [Piece(arm, arm - 14 * shaft.along, 1.7) for arm in arms]
    return Build(screws, rest)


def twice() -> Build:
    """Two constructs, 60 mm apart."""
    screws = {
        f"{n}-{s}": screw([s * 19.0, 10.0, -z], [-s * 0.3, -1, 0.0], 42.0, 6.5)
        for n, z in enumerate((0.0, 32.0, 110.0, 142.0))
        for s in (1, -1)
    }
    return hold(screws, [[f"{a}-{s}", f"{b}-{s}"] for a, b in ((0, 1), (2, 3)) for s in (1, -1)])


def cage_and_screws() -> Build:
    """Two levels with a cage in the disc between the screws' tips, and a stimulator's lead in the canal."""
    screws = {
        f"{n}-{s}": screw([s * 20.0, 12.0, -30.0 * n], [-s * 0.3, -1, 0.0], 45.0, 6.5)
        for n in range(2)
        for s in (1, -1)
    }
    build = hold(screws, [[f"{n}-{s}" for n in range(2)] for s in (1, -1)])
    return replace(build, rest=[*build.rest, *cage(z=-15.0), *cord_stimulator()])


SCREWS = {one.__name__: one for one in (short_and_thin, pelvic, steep, alone, emptied, twice, cage_and_screws)}


def reoriented(volume: CTVolume, kind: str) -> CTVolume:
    """The same patient on another lattice: "feet first", "prone" (half a turn about z), or "tilted" (gantry, 18°)."""
    hu = np.stack([volume.read(k) for k in range(volume.geometry.shape[0])])
    affine = np.array(volume.geometry.lps_from_index)
    if kind == "tilted":
        lean = np.eye(4)
        # Rows shift with the slices, by whole lattice positions in mm.
        lean[1, 0] = np.tan(np.radians(18.0)) * np.linalg.norm(affine[:3, 0]) / np.linalg.norm(affine[:3, 1])
        room = int(np.ceil(lean[1, 0] * hu.shape[0]))
        index = np.stack(np.meshgrid(*map(np.arange, (hu.shape[0], hu.shape[1] + room, hu.shape[2])), indexing="ij"))
        shift = np.eye(4)
        shift[1, 3] = -room
        lattice = lean @ shift
        at = np.tensordot(lattice[:3, :3], index, axes=1) + lattice[:3, 3][:, None, None, None]
        hu = ndimage.map_coordinates(hu, at, order=1, cval=150)
        affine = affine @ lattice
    else:
        for axis in {"feet first": (0, 2), "prone": (1, 2)}[kind]:
            hu = np.flip(hu, axis)
            affine[:, 3] += affine[:, axis] * (hu.shape[axis] - 1)
            affine[:, axis] *= -1
    geometry = Geometry.from_affine(hu.shape, affine)
    return CTVolume(geometry, ArraySource(np.ascontiguousarray(hu)), volume.acquisition)
