"""From one click to a vertebral body: canal, column, outline, chain of discs, endplates, and whether to believe it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from spineimg.errors import RoiError
from spineimg.geometry import FloatArray, Geometry, unit
from spineimg.notes import Note
from spineimg.threads import one_blas_thread
from spineimg.vertebra.canal import Canal, CanalSettings, find_canal
from spineimg.vertebra.chain import Chain, ChainSettings, Disc, Face, Zone, find_chain
from spineimg.vertebra.column import Column, straighten
from spineimg.vertebra.crop import Crop, CropSettings, cut_out
from spineimg.vertebra.endplate_model import EndplateSettings, LocalFrame
from spineimg.vertebra.endplate_search import FAR_MM, core_hu, search_endplate, start_of
from spineimg.vertebra.endplates import EndplateFit, fit_endplate
from spineimg.vertebra.trust import Findings, TrustSettings, doubt, quality
from spineimg.vertebra.walls import Outline, WallSettings, find_outline
from spineimg.volume import CTVolume


class BodyNotFoundError(RoiError):
    """No vertebral body at this click. The message says why; `code` is the code of the note that says so."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, eq=False, slots=True)
class EndplatePlane:
    """point_lps_mm: (3,) on the body's axis; normal_lps: (3,) unit, towards the head.

    concavity_mm: depth of the middle below the rim.
    """

    point_lps_mm: FloatArray
    normal_lps: FloatArray
    concavity_mm: float


@dataclass(frozen=True, eq=False, slots=True)
class Body:
    """A vertebral body. center_lps_mm: (3,) midway between the endplates; left, posterior, cranial: (3,) unit, LPS.

    outline_mm: (n, 2) left and posterior of the wall around the centre, at mid-height. width, depth: its extents.
    height: distance of the endplate planes along the cranial axis; wedge: their angle in the sagittal plane, positive
    when the front is lower. quality: 0-1.
    """

    center_lps_mm: FloatArray
    left_lps: FloatArray
    posterior_lps: FloatArray
    cranial_lps: FloatArray
    width_mm: float
    depth_mm: float
    height_mm: float
    wedge_deg: float
    superior: EndplatePlane
    inferior: EndplatePlane
    outline_mm: FloatArray
    quality: float
    notes: tuple[Note, ...]

    @property
    def axes(self) -> FloatArray:
        """(3, 3) rows left, posterior, cranial."""
        return np.stack([self.left_lps, self.posterior_lps, self.cranial_lps])


@dataclass(frozen=True, slots=True)
class BodySettings:
    """Settings of the parts and the lines below which a fit is not believed."""

    crop: CropSettings = field(default_factory=CropSettings)
    canal: CanalSettings = field(default_factory=CanalSettings)
    walls: WallSettings = field(default_factory=WallSettings)
    chain: ChainSettings = field(default_factory=ChainSettings)
    endplates: EndplateSettings = field(default_factory=EndplateSettings)
    trust: TrustSettings = field(default_factory=TrustSettings)


_FEWEST_SLICES = 4
_DISC_SEEN_MM, _DISC_SEEN_PART = 7.0, 0.25
"""So much must be in the image beyond each endplate, and half a slice: the disc and the next body's endplate, without
which an endplate cannot be told from the image's end. Less in small bodies: this part of the root of the area.
Engineering choice: discs are 4-11 mm high."""
_AIR_HU, _FAT_HU = -300.0, -40.0
_SURE_TILT_DEG, _SURE_QUALITY = 1.5, 0.85
"""A fit worse than this, or farther from its start than FAR_MM, is looked at twice."""
_THICK_MM = 4.0
"""With slices farther apart every body is looked at twice."""
_ELSEWHERE_MM, _SAME_DEG, _SAME_MM = 4.0, 4.0, 2.0
"""How far apart two looks are, and how much they may differ."""
_BULGE_MM = 0.1
"""Fits of flat endplates come out up to so much higher in the middle. Measured on cylinders with slices of 1-5 mm."""
_METAL_HU, _CEMENT_HU, _SHARE = 1500.0, 700.0, 0.03
"""Bone islands reach 800 HU but fill less of a body. Engineering choice."""
_SCLEROSIS_MM, _SCLEROSIS_HU = 4.0, 120.0
"""Looked for so far below the endplate planes, where the blur of the shell has ended. Engineering choice."""
_WEDGE_NOTE_DEG, _HOLLOW_NOTE_MM = 12.0, 4.5
"""From here on a fracture is worth a look. Engineering choice: a wedge of 20 % of 24 mm over 34 mm is 8 degrees."""


@one_blas_thread
def find_body(
    volume: CTVolume,
    click_lps_mm: npt.ArrayLike,
    settings: BodySettings | None = None,
    *,
    witness: Callable[[Body], bool] | None = None,
) -> Body:
    """The vertebral body around a click, (3,) LPS mm, anywhere in the central half of the body.

    witness: whether something beside the image speaks for a body; that outweighs every doubt but a missing canal.
    Raises BodyNotFoundError with one reason when there is no body, when it is cut by the image or a gap, or when the
    fit is not to be believed; PixelError for slices that cannot be read.
    """
    chosen = settings or BodySettings()
    click = np.asarray(click_lps_mm, dtype=np.float64)
    fitted = _looked(volume, click, chosen)
    found, body = fitted.found, fitted.body
    reason = doubt(found, chosen.trust)
    if witness is not None and (reason is None or reason[0] != "no_canal") and witness(body):
        return body
    if reason is not None:
        raise BodyNotFoundError(*reason)
    doubtful = (
        max(found.tilt_sd_deg / _SURE_TILT_DEG, found.move_mm / FAR_MM) > 1
        or body.quality < _SURE_QUALITY
        or found.canal_hu < chosen.trust.canal_hu
        or volume.geometry.spacing_mm[0] > _THICK_MM
    )
    if doubtful and not _is_seen_again(volume, click, body, chosen):
        raise BodyNotFoundError("endplates_unclear", "a second look from another place in it finds another body")
    return body


def _looked(volume: CTVolume, click: FloatArray, settings: BodySettings) -> FittedBody:
    """The body at a click by one look, whether to be believed or not. Raises BodyNotFoundError, PixelError."""
    refuse_outside(volume.geometry, click)
    crop = cut_out(volume, click, settings.crop)
    canal = find_canal(crop, settings.canal)
    refuse_without_canal(crop, canal, settings.trust.faint_canal_hu)
    column = straighten(crop, canal)
    rough = _rough_outline(crop, column, settings)
    zones = (Zone(0, len(column.arc_mm), rough),)
    chain = find_chain(crop, column, zones, volume.geometry.spacing_mm[0], settings.chain)
    below, above = _discs_around(chain, column, rough)
    height = chain.height_mm[chain.discs.index(below)]
    fitted = fit_between(volume, Scene(crop, canal, column), rough, (below, above), height, settings)
    refuse_click_outside(fitted.frame, fitted.frame.local(click), fitted.top, fitted.bottom)
    refuse_cut(volume.geometry, fitted.body)
    return fitted


def _is_seen_again(volume: CTVolume, click: FloatArray, body: Body, settings: BodySettings) -> bool:
    """Whether a look from the middle of a body (from beside it when the click was there) gives the same body."""
    other = body.center_lps_mm
    if np.linalg.norm(other - click) < _ELSEWHERE_MM:
        other = other + _ELSEWHERE_MM * body.cranial_lps
    try:
        again = _looked(volume, other, settings).body
    except BodyNotFoundError:
        return False
    return agree(again, body, _SAME_DEG, _SAME_MM)


def agree(one: Body, other: Body, angle_deg: float, distance_mm: float) -> bool:
    """Whether both endplate planes of two fits stand within an angle and a distance of each other."""
    pairs = ((one.superior, other.superior), (one.inferior, other.inferior))
    turn = min(float(a.normal_lps @ b.normal_lps) for a, b in pairs)
    away = max(abs(float((a.point_lps_mm - b.point_lps_mm) @ b.normal_lps)) for a, b in pairs)
    return bool(turn > np.cos(np.radians(angle_deg)) and away < distance_mm)


@dataclass(frozen=True, eq=False, slots=True)
class Scene:
    """Where a body is looked for."""

    crop: Crop
    canal: Canal
    column: Column


@dataclass(frozen=True, eq=False, slots=True)
class FittedBody:
    """A body, whether to be believed or not, and what is known of its fit. top, bottom: in the local `frame`."""

    body: Body
    found: Findings
    frame: LocalFrame
    top: EndplateFit
    bottom: EndplateFit


def fit_between(
    volume: CTVolume,
    scene: Scene,
    rough: Outline,
    discs: tuple[Disc, Disc],
    height_mm: float,
    settings: BodySettings,
) -> FittedBody:
    """The body between the discs below and above it, around a rough outline; height_mm: what the chain expects.

    Raises BodyNotFoundError where the image has too few voxels, PixelError.
    """
    *_, last = fits_between(volume, scene, rough, discs, height_mm, settings)
    return last


def fits_between(
    volume: CTVolume,
    scene: Scene,
    rough: Outline,
    discs: tuple[Disc, Disc],
    height_mm: float,
    settings: BodySettings,
) -> Iterator[FittedBody]:
    """As `fit_between`: its endplates fitted from where the discs have them, then, if that is another, the body with
    its endplates looked for further, where they were no good."""
    crop, column, (below, above) = scene.crop, scene.column, discs
    outline = _outline_between(crop, column, rough, below, above, settings)
    frame = _frame(column, outline, below, above)
    starts = [start_of(column, frame, face) for face in (above.lower, above.upper, below.upper, below.lower)]
    faces = ((starts[0], starts[1]), (starts[2], starts[3]))
    top, bottom = (fit_endplate(volume, frame, *pair, settings.endplates) for pair in faces)
    if top is None or bottom is None:
        raise BodyNotFoundError("body_cut", "there are too few voxels around an endplate: the body may be cut off")

    def body(ends: tuple[EndplateFit, EndplateFit]) -> FittedBody:
        move = max(abs(end.height_mm - pair[0].height_mm) for end, pair in zip(ends, faces, strict=True))
        return assembled(scene, frame, ends, move, discs, height_mm)

    yield body((top, bottom))
    core = core_hu(crop, frame, starts[2].height_mm, starts[0].height_mm)
    first, second = (
        search_endplate(volume, frame, pair, found, core, settings.endplates)
        for pair, found in zip(faces, (top, bottom), strict=True)
    )
    if first is not top or second is not bottom:
        yield body((first, second))


def assembled(
    scene: Scene,
    frame: LocalFrame,
    ends: tuple[EndplateFit, EndplateFit],
    move_mm: float,
    discs: tuple[Disc, Disc],
    height_mm: float,
) -> FittedBody:
    """The body of a superior and an inferior endplate (`ends`); move_mm: how far they lie from the chain's."""
    crop, column, (below, above), (top, bottom) = scene.crop, scene.column, discs, ends
    outline = frame.outline
    core = core_hu(crop, frame, bottom.height_mm, top.height_mm)
    body = _body(column, frame, top, bottom)
    found = Findings(
        canal_hu=scene.canal.score_at(crop.index(body.center_lps_mm)[0]),
        wall=float(outline.support.mean()),
        height=body.height_mm / float(np.sqrt(outline.area_mm2)),
        depth=body.depth_mm / body.width_mm,
        wedge_deg=body.wedge_deg,
        side_wedge_deg=float(np.degrees(np.arctan(top.rise_left) - np.arctan(bottom.rise_left))),
        move_mm=move_mm,
        explained=min(top.explained, bottom.explained),
        tilt_sd_deg=max(top.tilt_sd_deg, bottom.tilt_sd_deg),
        convex_tilt_sd_deg=max((fit.tilt_sd_deg for fit in ends if fit.concavity_mm < -_BULGE_MM), default=0.0),
        disc_score=min(below.score, above.score),
        neighbours=body.height_mm / height_mm,
        oddities=top.oddities + bottom.oddities,
        bone_hu=max(abs(fit.bone_hu - core) for fit in (top, bottom)),
    )
    notes = (*_notes(body, top, bottom), *_contents(crop, body))
    body = replace(body, quality=quality(found), notes=notes)
    return FittedBody(body, found, frame, top, bottom)


# -- refusals ---------------------------------------------------------------------------------------------------------


def refuse_outside(geometry: Geometry, click: FloatArray) -> None:
    if geometry.shape[0] < _FEWEST_SLICES:
        raise BodyNotFoundError("body_cut", f"{geometry.shape[0]} slices are too few to hold a vertebral body")
    index = geometry.index_at(click)
    if not np.isfinite(click).all() or (index < 0).any() or (index > np.array(geometry.shape) - 1).any():
        raise BodyNotFoundError(
            "click_outside_volume", f"the click {np.round(click, 1).tolist()} lies outside the volume"
        )


def refuse_without_canal(crop: Crop, canal: Canal, least_hu: float) -> None:
    """Raises where there is no bone at the click, or no canal behind it with a contrast of at least least_hu."""
    index = crop.index(crop.click_lps_mm)
    at = np.round(index).astype(int)
    near = crop.hu[at[0] - 1 : at[0] + 2, at[1] - 2 : at[1] + 3, at[2] - 2 : at[2] + 3]
    middle = float(np.median(near))
    if middle < _AIR_HU:
        raise BodyNotFoundError("click_in_air", f"the click lies in air or lung ({middle:.0f} HU)")
    if middle < _FAT_HU:
        raise BodyNotFoundError("click_in_fat", f"the click lies in fat ({middle:.0f} HU)")
    if canal.score_at(index[0]) < least_hu:
        raise BodyNotFoundError("no_canal", "no spinal canal is found behind the click")


def refuse_click_outside(frame: LocalFrame, click: FloatArray, top: EndplateFit, bottom: EndplateFit) -> None:
    """Raises when the click does not lie in what was found."""
    if float(frame.outline.reach(click[0], click[1])) > 1.0:
        raise BodyNotFoundError("click_outside_body", "the click lies beside the nearest vertebral body, not in it")
    over = top.height_mm + top.rise_left * click[0] + top.rise_posterior * click[1] - click[2]
    under = click[2] - bottom.height_mm - bottom.rise_left * click[0] - bottom.rise_posterior * click[1]
    if min(over, under) < 0:
        raise BodyNotFoundError("click_in_disc", "the click lies in a disc or on an endplate")


def refuse_cut(geometry: Geometry, body: Body) -> None:
    """Raises when part of the body lies outside the image or in a gap between slices."""
    ring = np.concatenate([body.outline_mm, np.zeros((len(body.outline_mm), 1))], axis=1) @ body.axes
    seen = min(_DISC_SEEN_MM, _DISC_SEEN_PART * float(np.sqrt(np.pi / 4 * body.width_mm * body.depth_mm)))
    away = body.height_mm / 2 + seen + geometry.spacing_mm[0] / 2
    ends = [body.center_lps_mm + 0.8 * ring + end * body.cranial_lps for end in (-away, away)]
    ends.append(body.center_lps_mm + ring)
    index = geometry.index_at(np.concatenate(ends))
    if (index < 0).any() or (index > np.array(geometry.shape) - 1).any():
        raise BodyNotFoundError("body_cut", "the vertebral body is cut off by the edge of the image, or ends at it")
    places = np.concatenate(ends) @ geometry.normal_lps
    for gap in geometry.gaps:
        if gap.start_mm < places.max() and gap.end_mm > places.min():
            raise BodyNotFoundError("body_in_gap", f"slices are missing in this body: a gap of {gap.width_mm:.1f} mm")


def _notes(body: Body, top: EndplateFit, bottom: EndplateFit) -> tuple[Note, ...]:
    found = []
    if body.wedge_deg > _WEDGE_NOTE_DEG:
        found.append(("wedge", f"the body is wedged by {body.wedge_deg:.0f} degrees: look for a fracture"))
    hollow = max(top.concavity_mm, bottom.concavity_mm)
    if hollow > _HOLLOW_NOTE_MM:
        found.append(("deep_endplate", f"an endplate is {hollow:.1f} mm deep: look for a fracture or Schmorl's node"))
    return tuple(Note(code, text) for code, text in found)


def _contents(crop: Crop, body: Body) -> tuple[Note, ...]:
    """What is too bright for trabecular bone, within two thirds of the way to the wall."""
    ring = 0.67 * body.outline_mm[::6]
    across = np.concatenate([ring * part for part in (0.2, 0.5, 0.8, 1.0)])
    inset = min(_SCLEROSIS_MM, 0.2 * body.height_mm)
    heights = np.linspace(-0.5, 0.5, 9) * (body.height_mm - 2 * inset)
    places = body.center_lps_mm + (across @ body.axes[:2])[None] + heights[:, None, None] * body.cranial_lps
    hu = crop.sample(crop.index(places))
    if (hu > _METAL_HU).mean() > _SHARE:
        text = "metal lies in the body (screw, cage): its HU are not those of bone"
        return (Note("metal_in_body", text),)
    if (hu > _CEMENT_HU).mean() > _SHARE:
        return (Note("dense_inclusion", "something far denser than trabecular bone lies in the body: look for cement"),)
    core = float(np.median(hu[2:-2]))
    dense = max(float(np.median(hu[0])), float(np.median(hu[-1]))) - core
    if dense > _SCLEROSIS_HU:
        return (Note("sclerosis", f"a band under an endplate is {dense:.0f} HU denser than the middle of the body"),)
    return ()


# -- steps ------------------------------------------------------------------------------------------------------------


def _rough_outline(crop: Crop, column: Column, settings: BodySettings) -> Outline:
    rows = np.clip(column.row + np.arange(-8, 9, 2), 0, len(column.arc_mm) - 1)
    left, posterior = column.click_mm
    return find_outline(crop, column, rows, (0.7 * left, float(np.clip(posterior, -32, -14))), settings.walls)


def _height_at(face: Face, outline: Outline, left: float, posterior: float) -> float:
    middle = outline.middle_mm
    return face.arc_mm + face.rise_left * (left - middle[0]) + face.rise_posterior * (posterior - middle[1])


def _discs_around(chain: Chain, column: Column, outline: Outline) -> tuple[Disc, Disc]:
    """The discs below and above the click."""
    below = above = None
    for disc in chain.discs:
        if _height_at(disc.upper, outline, *column.click_mm) <= 0:
            below = disc
        elif _height_at(disc.lower, outline, *column.click_mm) >= 0:
            above = disc if above is None else above
        else:
            raise BodyNotFoundError("click_in_disc", "the click lies in a disc or on an endplate")
    if below is None or above is None:
        raise BodyNotFoundError("body_cut", "no disc is found above or below the click: the body may be cut off")
    return below, above


def _outline_between(
    crop: Crop, column: Column, rough: Outline, below: Disc, above: Disc, settings: BodySettings
) -> Outline:
    low, high = below.upper.arc_mm, above.lower.arc_mm
    arcs = np.arange(low + 0.22 * (high - low), low + 0.66 * (high - low), 1.5)
    rows = np.array([column.row_at(float(arc)) for arc in arcs], dtype=np.intp)
    return find_outline(crop, column, rows, rough.centroid_mm, settings.walls)


def _frame(column: Column, outline: Outline, below: Disc, above: Disc) -> LocalFrame:
    row = column.row_at((below.upper.arc_mm + above.lower.arc_mm) / 2)
    left, posterior = outline.middle_mm
    origin = column.lps(np.array([row]), np.array(left), np.array(posterior))[0]
    axes = np.stack([column.left_lps[row], column.posterior_lps[row], column.cranial_lps[row]])
    return LocalFrame(origin, axes, Outline((0.0, 0.0), outline.radius_mm, outline.support))


def _body(column: Column, frame: LocalFrame, top: EndplateFit, bottom: EndplateFit) -> Body:
    """The body in its own axes: cranial halves the angle of the endplates, posterior points to the canal."""
    ends = [frame.lps([0, 0, fit.height_mm]) for fit in (top, bottom)]
    normals = [fit.normal(frame.axes) for fit in (top, bottom)]
    cranial = unit(normals[0] + normals[1])
    middle = (ends[0] + ends[1]) / 2
    canal = column.middle_lps_mm[int(np.argmin(np.abs((column.middle_lps_mm - middle) @ cranial)))]
    posterior = unit(canal - middle - ((canal - middle) @ cranial) * cranial)
    left = np.cross(posterior, cranial)
    # Where the axis through the outline's middle meets the planes.
    points = [
        middle + ((end - middle) @ normal) / (cranial @ normal) * cranial
        for end, normal in zip(ends, normals, strict=True)
    ]
    center = (points[0] + points[1]) / 2
    lean = [np.degrees(np.arctan2(normal @ posterior, normal @ cranial)) for normal in normals]
    flat = np.concatenate([frame.outline.points_mm, np.zeros((len(frame.outline.radius_mm), 1))], axis=1)
    outline = (flat @ frame.axes) @ np.stack([left, posterior], axis=1)
    return Body(
        center_lps_mm=center,
        left_lps=left,
        posterior_lps=posterior,
        cranial_lps=cranial,
        width_mm=float(np.ptp(outline[:, 0])),
        depth_mm=float(np.ptp(outline[:, 1])),
        height_mm=float((points[0] - points[1]) @ cranial),
        wedge_deg=float(lean[1] - lean[0]),
        superior=EndplatePlane(points[0], normals[0], top.concavity_mm),
        inferior=EndplatePlane(points[1], normals[1], bottom.concavity_mm),
        outline_mm=outline,
        quality=0.0,
        notes=(),
    )
