"""Where each loader puts voxels: the worst position error in mm over every voxel that it returns, or what it refuses.

Every voxel of a study has a value of its own, so a loaded array tells by its values alone where each voxel was written,
whatever the loader did to order, axes and affine. Slice numbers and thickness are true; file names are shuffled, as
archives give them. Peers are measured in the same run as spineimg.

    python -m benchmarks.loader_table
"""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests import dicom_factory as factory
from tests.dicom_factory import Encoding, Groups, Lattice, Written

FloatArray = npt.NDArray[np.float64]
Row = dict[str, str | float | None]

N_SLICES = 40
STEP_MM = 1.0
MATRIX = (12, 16)
PLAIN = Encoding(signed=True, bits_stored=16, intercept=0.0)
WRONG_FROM_MM = 0.01
"""Up to here a position counts as right."""


@dataclass(frozen=True)
class Outcome:
    """What one loader made of one study. worst_mm: None when it returned no volume."""

    worst_mm: float | None
    text: str


# -- studies ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Study:
    """Some written series in one folder. The first is the one that is wanted, `other` what the second one is."""

    folder: Path
    written: tuple[Written, ...]
    other: str = ""

    def place_of(self) -> tuple[npt.NDArray[np.int64], FloatArray]:
        """(values, LPS mm of each), values sorted."""
        values, places = [], []
        for one in self.written:
            rows, columns = np.mgrid[0 : one.hu.shape[1], 0 : one.hu.shape[2]]
            in_plane = (
                rows[..., None] * one.lattice.row_step_lps_mm + columns[..., None] * one.lattice.column_step_lps_mm
            )
            places.append((one.lattice.origins_lps_mm[:, None, None] + in_plane).reshape(-1, 3))
            values.append(one.hu.astype(np.int64).ravel())
        joined, first = np.unique(np.concatenate(values), return_index=True)
        return joined, np.concatenate(places)[first]


def _hu(count: int, start: int = -1000, matrix: tuple[int, int] = MATRIX) -> npt.NDArray[np.int16]:
    """(count, rows, columns) of values that each occur once, from `start` on, in no order."""
    total = count * matrix[0] * matrix[1]
    shuffled = np.random.default_rng(11).permutation(np.arange(start, start + total))
    return shuffled.reshape(count, *matrix).astype(np.int16)


def _honest(numbers: Sequence[int]) -> dict[int, dict[str, str]]:
    """Slice numbers and thickness as a scanner writes them: what the table is about is geometry, not lies."""
    return {k: {"InstanceNumber": str(n + 1), "SliceThickness": str(STEP_MM)} for k, n in enumerate(numbers)}


def _one(
    lattice: Lattice, encoding: Encoding = PLAIN, numbers: Sequence[int] | None = None, **tags: str
) -> Callable[[Path], Study]:
    """numbers: which slice of the scan each is, when some are missing or there twice."""

    def write(folder: Path) -> Study:
        count = len(lattice.origins_lps_mm)
        own = list(range(count) if numbers is None else numbers)
        hu = _hu(max(own) + 1)[own]
        return Study(
            folder, (factory.write_series(folder, hu, lattice, encoding=encoding, tags=tags, slice_tags=_honest(own)),)
        )

    return write


def _with_other(
    name: str, other: Lattice, matrix: tuple[int, int] = MATRIX, *, same_uid: bool, **tags: Any
) -> Callable[[Path], Study]:
    """The clean series and another one among its files."""

    def write(folder: Path) -> Study:
        honest = _honest(range(N_SLICES))
        main = factory.write_series(folder, _hu(N_SLICES), _AXIAL, encoding=PLAIN, slice_tags=honest)
        count = len(other.origins_lps_mm)
        hu = _hu(count, int(main.hu.max()) + 1, matrix)
        uid = main.series_uid if same_uid else None
        apart, more = folder / "apart", _honest(range(N_SLICES, N_SLICES + count) if same_uid else range(count))
        added = factory.write_series(apart, hu, other, encoding=PLAIN, tags=tags, slice_tags=more, series_uid=uid)
        for path in added.paths:
            path.rename(folder / f"x{path.name}")
        apart.rmdir()
        return Study(folder, (main, added), name)

    return write


def _enhanced(folder: Path) -> Study:
    """Frames in order of position, values rescaled frame by frame."""
    groups = Groups(rescale_per_frame=True, thickness_mm=STEP_MM)
    written = factory.write_enhanced(
        folder / "enhanced", _hu(N_SLICES), [_AXIAL], encoding=PLAIN, groups=groups, shuffle=False
    )
    return Study(folder, (written,))


_AXIAL = factory.axial(N_SLICES, STEP_MM)
_TILTED = factory.tilted(N_SLICES, STEP_MM)
_MISSING = [k for k in range(N_SLICES) if k != 17]
_TWICE = [*range(18), *range(17, N_SLICES)]
_LOCALIZER = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
_REFORMAT = {"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED"]}

STUDIES: Mapping[str, Callable[[Path], Study]] = {
    "clean": _one(_AXIAL),
    "prone": _one(factory.prone(N_SLICES, STEP_MM)),
    "feet first": _one(factory.feet_first(N_SLICES, STEP_MM)),
    "tilt 15° with tag": _one(_TILTED, GantryDetectorTilt="15"),
    "tilt 15° without tag": _one(_TILTED),
    "11° oblique": _one(factory.oblique(N_SLICES, STEP_MM)),
    "one slice missing": _one(_AXIAL.keep(_MISSING), numbers=_MISSING),
    "one slice twice": _one(_AXIAL.keep(_TWICE), numbers=_TWICE),
    "1 mm, then 2 mm spacing": _one(factory.axial_at([*np.arange(20.0), *np.arange(21.0, 61.0, 2.0)])),
    "localizer inside": _with_other("localizer", factory.coronal(1), (30, 16), same_uid=True, **_LOCALIZER),
    "reformats inside": _with_other("reformats", factory.coronal(12), same_uid=True, **_REFORMAT),
    "two series mixed": _with_other("second series", _AXIAL, same_uid=False, SeriesNumber="4"),
    "enhanced": _enhanced,
    "JPEG-LS": _one(_AXIAL, replace(PLAIN, transfer_syntax=factory.JPEGLSLossless)),
    "big endian": _one(_AXIAL, replace(PLAIN, transfer_syntax=factory.ExplicitVRBigEndian)),
}


# -- what a loader returned, against the truth ------------------------------------------------------------------------


def _judge(study: Study, volumes: list[tuple[npt.NDArray[Any], FloatArray]], said: str) -> Outcome:
    """volumes: (array, (…, 3) LPS mm of each of its voxels). `said`: what the loader warned of, or empty."""
    values, places = study.place_of()
    worst, loaded, invented = 0.0, set(), 0
    for array, claimed in volumes:
        found = np.round(array).astype(np.int64)
        at = np.clip(np.searchsorted(values, found), 0, len(values) - 1)
        known = (values[at] == found) & (np.abs(array - found) < 1e-3)
        invented += int((~known).sum())
        loaded.update(found[known].tolist())
        if known.any():
            worst = max(worst, float(np.linalg.norm(claimed[known] - places[at[known]], axis=-1).max()))
    parts = [f"{worst:.4f} mm" if worst < WRONG_FROM_MM else f"**{worst:.2f} mm**"]
    if invented:
        parts.append("voxels resampled")
    parts += _which(study, loaded, len(volumes))
    if said or worst >= WRONG_FROM_MM or "took" in parts[-1]:
        parts.append(said or "silent")
    return Outcome(worst, "; ".join(parts))


def _which(study: Study, loaded: set[int], n_volumes: int) -> list[str]:
    """What became of the slices that were wanted, and of the other series."""
    slices = [{tuple(one) for one in written.hu.reshape(len(written.hu), -1)} for written in study.written]
    got = [{one for one in own if loaded.issuperset(one)} for own in slices]
    lost = len(slices[0] - got[0])
    words = [f"{lost} of {len(slices[0])} slices lost"] if lost else []
    if study.other and not got[1]:
        words.append(f"left the {study.other} out")
    elif study.other and got[0]:
        words.append("both series, apart" if n_volumes > 1 else f"mixed with the {study.other}")
    elif study.other:
        words = [f"took the {study.other} only"]
    return words


def _grid(shape: tuple[int, ...], affine: FloatArray) -> FloatArray:
    """(*shape, 3) LPS mm of every voxel. affine: (4, 4), index in the array's own axis order -> LPS mm."""
    index = np.moveaxis(np.indices(shape), 0, -1).astype(np.float64)
    return np.asarray(index @ affine[:3, :3].T + affine[:3, 3])


def _refuses(reason: str) -> Outcome:
    plain = re.sub(r"\(0x[0-9a-f]+\)|/\S+", "…", " ".join(reason.split()))
    return Outcome(None, f"refuses: {plain[:60]}")


# -- loaders ----------------------------------------------------------------------------------------------------------


def load_with_simpleitk(study: Study) -> Outcome:
    """As its examples do: the series reader on the folder, a single image reader on a multi-frame file."""
    import SimpleITK

    class Listener(SimpleITK.LoggerBase):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.heard: list[str] = []

        def DisplayText(self, text: str) -> None:  # noqa: N802 - the library's own names
            self.heard.append(text)

        DisplayErrorText = DisplayWarningText = DisplayGenericOutputText = DisplayDebugText = DisplayText

    listener = Listener()
    before = listener.SetAsGlobalITKLogger()
    try:
        names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(study.folder))
        image = SimpleITK.ReadImage(names[0] if len(names) == 1 else names)
    except RuntimeError as error:
        return _refuses(str(error).rsplit("ERROR:", maxsplit=1)[-1])
    finally:
        before.SetAsGlobalITKLogger()
    array = SimpleITK.GetArrayFromImage(image)
    steps = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine = np.eye(4)
    affine[:3] = np.column_stack([steps[:, ::-1], image.GetOrigin()])
    return _judge(study, [(array, _grid(array.shape, affine))], "warns" if listener.heard else "")


def load_with_dicom2nifti(study: Study) -> Outcome:
    """Every SeriesInstanceUID of the folder by itself, as its `convert_directory` does, axes left as they are."""
    import nibabel
    import pydicom
    from dicom2nifti.convert_dicom import dicom_array_to_nifti
    from dicom2nifti.exceptions import ConversionError, ConversionValidationError

    groups: dict[str, list[pydicom.Dataset]] = {}
    for path in sorted(study.folder.iterdir()):
        dataset = pydicom.dcmread(path)
        groups.setdefault(dataset.SeriesInstanceUID, []).append(dataset)
    volumes, heard = [], _Heard()
    logger = logging.getLogger("dicom2nifti")
    logger.addHandler(heard)
    try:
        for number, group in enumerate(groups.values()):
            target = study.folder.with_name(f"{study.folder.name}.{number}.nii")
            dicom_array_to_nifti(group, str(target), reorient_nifti=False)
            image = nibabel.load(target)
            affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
            array = np.asarray(image.dataobj)
            volumes.append((array, _grid(array.shape, affine)))
            target.unlink()
    except (
        ConversionError,
        ConversionValidationError,
        ValueError,
        AttributeError,
        IndexError,
        NotImplementedError,
    ) as error:
        return _refuses(f"{error or type(error).__name__}")
    finally:
        logger.removeHandler(heard)
    return _judge(study, volumes, "warns" if heard.texts else "")


class _Heard(logging.Handler):
    """Warnings of a logger."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def load_with_spineimg(study: Study) -> Outcome:
    """The folder as it is; where several series are usable, each by its name after the refusal that lists them."""
    import spineimg
    from spineimg.io.index import scan
    from spineimg.io.series import read_array
    from spineimg.volume import Verdict

    index = scan([study.folder])
    usable = [entry for entry in index.series if entry.verdict is not Verdict.REFUSED]
    refused = [note.code for entry in index.series if entry not in usable for note in entry.notes]
    said = [f"refuses it: `{'`, `'.join(dict.fromkeys(refused))}`"] if refused else []
    try:
        loaded = [spineimg.load(study.folder)]
    except spineimg.SpineImgError as error:
        if len(usable) < 2:
            return _refuses(str(error))
        said.append(f"asks which of {len(usable)} series")
        loaded = [spineimg.load(study.folder, series=entry.info.name) for entry in usable]
    volumes = []
    for volume in loaded:
        shape = volume.geometry.shape
        at = np.moveaxis(np.indices(shape), 0, -1).astype(np.float64)
        volumes.append((read_array(volume), volume.geometry.lps_at(at)))
        said += [f"`{note.code}`" for note in volume.notes]
    return _judge(study, volumes, ", ".join(dict.fromkeys(said)))


LOADERS: Mapping[str, Callable[[Study], Outcome]] = {
    "SimpleITK": load_with_simpleitk,
    "dicom2nifti": load_with_dicom2nifti,
    "spineimg": load_with_spineimg,
}


# -- table ------------------------------------------------------------------------------------------------------------


def loader_table(folder: Path | None = None) -> list[Row]:
    """One row a study: `study`, for each loader its text, and under `<loader> worst_mm` the number or None.

    folder: where the studies are written for the time of the run; a temporary folder by default.
    """
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            return loader_table(Path(temporary))
    rows: list[Row] = []
    for number, (name, write) in enumerate(STUDIES.items()):
        row: Row = {"study": name}
        study = write(folder / str(number))
        for loader, load in LOADERS.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outcome = load(study)
            row[loader], row[f"{loader} worst_mm"] = outcome.text, outcome.worst_mm
        shutil.rmtree(study.folder)
        rows.append(row)
    return rows


def markdown(rows: list[Row]) -> str:
    """The table as text; wrong positions are bold."""
    columns = ["study", *LOADERS]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(row[column]) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    print(markdown(loader_table()))


if __name__ == "__main__":
    main()
