"""The scanner: where slices lie, how wide they and the blur are, and the noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from spineimg.errors import SpineImgError
from spineimg.geometry import FloatArray, Geometry
from spineimg.phantom.samples import Field, Planes
from spineimg.settings import setting

_FWHM = 2.3548200450309493


@dataclass(frozen=True, slots=True)
class Imaging:
    """How the phantom is scanned. Image rows and columns are square unless `row_mm` says otherwise."""

    size: tuple[int, int] = (256, 256)
    """Rows, columns."""
    pixel_mm: float = setting(0.7, "mm", (0.1, 3), "usual spine CT", "distance of neighbouring columns")
    row_mm: float | None = None
    """Distance of neighbouring rows; None: as `pixel_mm`."""
    spacing_mm: float = setting(1.0, "mm", (0.2, 10), "usual spine CT", "distance of slices along the table")
    thickness_mm: float = setting(1.25, "mm", (0.2, 10), "engineering choice: wider than the spacing", "slice profile")
    ramp_mm: float = setting(0.3, "mm", (0, 3), "engineering choice", "width of the profile's sloping flanks; 0: rect")
    psf_fwhm_mm: float = setting(0.8, "mm", (0.4, 2), "soft kernel 0.7-1.0 mm", "in-plane blur, Gaussian")
    noise_sd_hu: float = setting(12.0, "HU", (0, 100), "10-30 HU", "SD of the noise in one voxel")
    position: str = "HFS"
    """PatientPosition: HFS, HFP, FFS or FFP."""
    tilt_deg: float = setting(0.0, "deg", (-30, 30), "gantry range", "gantry tilt: a sheared lattice")
    oblique_deg: tuple[float, float] = (0.0, 0.0)
    """Turn of the whole lattice about the patient's left and posterior axes."""
    margin_mm: float = setting(12.0, "mm", (-40, 60), "engineering choice", "scan beyond the covered bodies")
    offset_mm: tuple[float, float] = (0.0, 22.0)
    """Middle of the field of view from the middle of the bodies, left and posterior mm."""
    kvp: float = setting(120.0, "kV", (70, 150), "usual", "tube voltage")
    kernel: str = "B30f"
    contrast_agent: str | None = None
    metal_artifact_reduction: bool = False
    circle: bool = False
    """Blank the corners outside the reconstruction circle, as some scanners do."""

    def __post_init__(self) -> None:
        if self.position not in ("HFS", "HFP", "FFS", "FFP"):
            raise SpineImgError(f"PatientPosition must be HFS, HFP, FFS or FFP, found {self.position!r}")
        if self.ramp_mm > self.thickness_mm:
            raise SpineImgError(f"a slice of {self.thickness_mm} mm cannot have flanks of {self.ramp_mm} mm")

    @property
    def sigma_mm(self) -> float:
        return self.psf_fwhm_mm / _FWHM

    @property
    def soft_mm(self) -> float:
        """The part of the blur that shapes carry themselves, on every edge; the rest is convolved in the plane."""
        return min(0.25, 0.75 * self.sigma_mm)

    @property
    def rest_mm(self) -> float:
        return float(np.sqrt(self.sigma_mm**2 - self.soft_mm**2))

    @property
    def far_soft_mm(self) -> float:
        """Blur of the tissues that are not supersampled: in-plane blur and a third of the slice profile's variance."""
        return float(np.sqrt(self.sigma_mm**2 + self.thickness_mm**2 / 36))


def lattice(imaging: Imaging, middle_lps_mm: FloatArray, covered_lps_mm: FloatArray) -> Geometry:
    """The slices that cover points (n, 3) with the margin, in ascending order along their normal."""
    column, row, step = _directions(imaging)
    normal = np.cross(column, row)
    step = step if step @ normal > 0 else -step
    reach = (covered_lps_mm - middle_lps_mm) @ normal
    low, high = reach.min() - imaging.margin_mm, reach.max() + imaging.margin_mm
    apart = imaging.spacing_mm * float(step @ normal)
    count = max(1, int(np.floor((high - low) / apart)) + 1)
    rows, columns = imaging.size
    row_step = row * (imaging.row_mm or imaging.pixel_mm)
    column_step = column * imaging.pixel_mm
    aim = middle_lps_mm + np.array([imaging.offset_mm[0], imaging.offset_mm[1], 0.0])
    places = low + (np.arange(count) + 0.5 * ((high - low) / apart - (count - 1))) * apart
    centers = aim + (places - (aim - middle_lps_mm) @ normal)[:, None] * (step / float(step @ normal))
    corner = (rows - 1) / 2 * row_step + (columns - 1) / 2 * column_step
    return Geometry((count, rows, columns), centers - corner, row_step, column_step)


def _directions(imaging: Imaging) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Column direction, row direction and table direction (unit vectors, LPS)."""
    feet = imaging.position.startswith("FF")
    prone = imaging.position.endswith("P")
    row = np.array([0.0, -1.0 if prone else 1.0, 0.0])
    column = np.array([-1.0 if feet != prone else 1.0, 0.0, 0.0])
    table = np.array([0.0, 0.0, 1.0])
    a, b = np.radians(imaging.oblique_deg)
    turn_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    turn_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    turn = turn_x @ turn_y
    t = np.radians(imaging.tilt_deg)
    tilted = row * np.cos(t) + table * np.sin(t)
    return turn @ column, turn @ tilted, turn @ table


def _filter(wanted: Callable[[FloatArray], FloatArray], reach_mm: float, step_mm: float, soft_mm: float) -> FloatArray:
    """(2n + 1,) weights on a grid whose frequency response is `wanted` (of cycles/mm), least squares.

    Frequencies count as much as a field of that softness holds of them, so that a coarse grid blurs without bias where
    a sampled kernel would not.
    """
    reach = max(1, int(np.ceil(reach_mm / step_mm)))
    frequency = np.linspace(0, 0.5 / step_mm, 256)
    importance = np.exp(-2 * np.square(np.pi * soft_mm * frequency))
    waves = np.cos(2 * np.pi * frequency[:, None] * np.arange(reach + 1) * step_mm)
    waves[:, 1:] *= 2
    half, *_ = np.linalg.lstsq(importance[:, None] * waves, importance * wanted(frequency), rcond=None)
    weight = np.concatenate([half[:0:-1], half])
    return np.asarray(weight / weight.sum(), dtype=np.float64)


def profile_filter(imaging: Imaging, step_mm: float) -> FloatArray:
    """(2n + 1,) weights of planes `step_mm` apart: a trapezoid whose width at half height is the slice thickness."""

    def wanted(frequency: FloatArray) -> FloatArray:
        return np.asarray(np.sinc(frequency * imaging.thickness_mm) * np.sinc(frequency * imaging.ramp_mm))

    reach = (imaging.thickness_mm + imaging.ramp_mm) / 2 + 1.5 * step_mm
    return _filter(wanted, reach, step_mm, imaging.soft_mm)


def blur_filter(imaging: Imaging, step_mm: float) -> FloatArray:
    """(2n + 1,) weights of samples `step_mm` apart: the in-plane blur that the shapes do not carry themselves."""

    def wanted(frequency: FloatArray) -> FloatArray:
        return np.asarray(np.exp(-2 * np.square(np.pi * imaging.rest_mm * frequency)))

    return _filter(wanted, 4 * imaging.rest_mm, step_mm, imaging.soft_mm)


def quadrature(imaging: Imaging) -> tuple[FloatArray, FloatArray]:
    """(n, 3) offsets (row, column, normal) mm and (n,) weights that blur a continuous field as the scanner does.

    Gauss-Hermite in the plane; Gauss-Legendre for the profile, which is the convolution of two boxes.
    """
    node, weight = np.polynomial.hermite_e.hermegauss(5)
    count = 2 + int(np.ceil(imaging.thickness_mm / (2.4 * imaging.soft_mm)))
    wide, wide_weight = np.polynomial.legendre.leggauss(count)
    flank, flank_weight = np.polynomial.legendre.leggauss(2 if imaging.ramp_mm else 1)
    along = (wide[:, None] * imaging.thickness_mm + flank * imaging.ramp_mm).ravel() / 2
    along_weight = np.outer(wide_weight, flank_weight).ravel()
    across = node * imaging.rest_mm
    offset = np.stack(np.meshgrid(across, across, along, indexing="ij"), axis=-1).reshape(-1, 3)
    weights = (weight[:, None, None] * weight[:, None] * along_weight).ravel()
    return offset, weights / weights.sum()


@dataclass(frozen=True, eq=False, slots=True)
class Sheaf:
    """The sub-planes under the slices: slice k is the sum of planes k * stride + i, weighted by weights[i].

    shift_lps_mm: (planes, 3) from the first voxel of slice 0. Slices share planes unless the lattice is sheared.
    """

    shift_lps_mm: FloatArray
    stride: int
    weights: Field


def sheaf(imaging: Imaging, geometry: Geometry) -> Sheaf:
    """Sub-planes close enough together for the softness of the shapes."""
    most = 1.4 * imaging.soft_mm
    count, apart = geometry.shape[0], imaging.spacing_mm
    if geometry.shear_deg > 1e-3:
        step = imaging.thickness_mm / max(1, int(np.ceil(imaging.thickness_mm / most)))
        weight = profile_filter(imaging, step)
        offset = (np.arange(len(weight)) - len(weight) // 2) * step
        shift = (geometry.origins_lps_mm - geometry.origins_lps_mm[0])[:, None] + offset[:, None] * geometry.normal_lps
        return Sheaf(shift.reshape(-1, 3), len(weight), weight.astype(np.float32))
    stride = max(1, int(np.ceil(apart / most)))
    weight = profile_filter(imaging, apart / stride)
    along = (np.arange((count - 1) * stride + len(weight)) - len(weight) // 2) * (apart / stride)
    return Sheaf(along[:, None] * geometry.normal_lps, stride, weight.astype(np.float32))


@dataclass(frozen=True, eq=False, slots=True)
class Window:
    """A finer lattice over a part of the image: `over` samples for every pixel and `spare` pixels around."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    over: tuple[int, int]
    spare: int

    def planes(self, geometry: Geometry, shift_lps_mm: FloatArray) -> Planes:
        """The window's fine lattice on planes (n, 3) away from slice 0."""
        fine_row = geometry.row_step_lps_mm / self.over[0]
        fine_column = geometry.column_step_lps_mm / self.over[1]
        first = geometry.origins_lps_mm[0] + (self.rows[0] - self.spare) * geometry.row_step_lps_mm
        first = first + (self.columns[0] - self.spare) * geometry.column_step_lps_mm
        rows = (self.rows[1] - self.rows[0] - 1 + 2 * self.spare) * self.over[0] + 1
        columns = (self.columns[1] - self.columns[0] - 1 + 2 * self.spare) * self.over[1] + 1
        return Planes(first + shift_lps_mm, fine_row, fine_column, (rows, columns))

    def pixels(self, fine: Field) -> Field:
        """The samples that lie on pixels, without the spare ones."""
        cut_r, cut_c = self.spare * self.over[0], self.spare * self.over[1]
        inner = fine[..., cut_r : fine.shape[-2] - cut_r, cut_c : fine.shape[-1] - cut_c]
        return inner[..., :: self.over[0], :: self.over[1]]


def window(imaging: Imaging, geometry: Geometry, bounds_lps_mm: FloatArray) -> Window | None:
    """The window over a box (2, 3), or None when the image does not see it."""
    corners = np.stack(np.meshgrid(*bounds_lps_mm.T, indexing="ij"), axis=-1).reshape(8, 3)
    row, column = geometry.in_plane(corners[None] - geometry.origins_lps_mm[:, None])
    low = [max(0, int(np.floor(v.min()))) for v in (row, column)]
    high = [min(size, int(np.ceil(v.max())) + 1) for v, size in zip((row, column), geometry.shape[1:], strict=True)]
    if high[0] <= low[0] or high[1] <= low[1]:
        return None
    spacing = geometry.spacing_mm[1:]
    over = tuple(max(1, int(np.ceil(step / (1.45 * imaging.soft_mm)))) for step in spacing)
    spare = int(np.ceil(4 * imaging.rest_mm / min(spacing))) + 1
    return Window((low[0], high[0]), (low[1], high[1]), (over[0], over[1]), spare)


def noise_slices(imaging: Imaging, geometry: Geometry, seed: int) -> Iterator[Field]:
    """(rows, columns) HU noise of one slice after the other.

    Spectrum of filtered back-projection: power proportional to frequency, times the blur squared. Slices that overlap
    share noise: neighbours correlate by the overlap of their profiles, at most 0.5.
    """
    overlap = max(0.0, 1 - float(geometry.spacing_mm[0]) / imaging.thickness_mm) if geometry.shape[0] > 1 else 0.0
    together = min(overlap, 0.5)
    # A moving average (a, b) over independent slices has neighbour correlation a b with a² + b² = 1.
    turn = 0.5 * np.arcsin(2 * together)
    a, b = np.cos(turn), np.sin(turn)
    shape = noise_shape(imaging, geometry)
    last = _noise_slice(shape, geometry, seed, 0)
    for k in range(geometry.shape[0]):
        following = _noise_slice(shape, geometry, seed, k + 1)
        yield np.asarray(imaging.noise_sd_hu * (a * last + b * following), dtype=np.float32)
        last = following


def noise_shape(imaging: Imaging, geometry: Geometry) -> Field:
    """(rows, columns // 2 + 1) amplitude spectrum that gives SD 1."""
    rows, columns = geometry.shape[1:]
    vertical = np.fft.fftfreq(rows, geometry.spacing_mm[1])[:, None]
    horizontal = np.fft.rfftfreq(columns, geometry.spacing_mm[2])
    frequency = np.hypot(vertical, horizontal)
    amplitude = np.sqrt(frequency) * np.exp(-2 * (np.pi * imaging.sigma_mm * frequency) ** 2)
    both_sides = np.full(len(horizontal), 2.0)
    both_sides[0] = 1.0
    if columns % 2 == 0:
        both_sides[-1] = 1.0
    power = float((np.square(amplitude) * both_sides).sum()) / (rows * columns)
    return np.asarray(amplitude / np.sqrt(power), dtype=np.float32)


def _noise_slice(shape: Field, geometry: Geometry, seed: int, k: int) -> Field:
    from scipy.fft import irfft2, rfft2

    white = np.random.default_rng([seed, 3, k]).standard_normal(geometry.shape[1:], dtype=np.float32)
    return np.asarray(irfft2(rfft2(white) * shape, s=geometry.shape[1:]), dtype=np.float32)
