"""The readers of one CT, and what survives a crash: each step is kept in the user's data folder, never with the CT."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from platformdirs import user_data_path
from psygnal import Signal
from spineimg.agreement import agree
from spineimg.cutoffs import PUBLISHED
from spineimg.errors import SpineImgError
from spineimg.export.files import replacing
from spineimg.export.json import agreement_to_dict, result_to_dict
from spineimg.implants.model import ImplantScreen, Vector
from spineimg.io.rois import parse_rois, rois_to_dict
from spineimg.notes import Note
from spineimg.pipeline import known_vertebrae
from spineimg.volume import Acquisition, Sharpness

from napari_spineimg.session import Session, State, own_cutoff
from napari_spineimg.study import Study

READERS = ("A", "B")


def autosave_folder() -> Path:
    """Where sessions are kept."""
    return user_data_path("spineimg", appauthor=False) / "sessions"


class Sessions:
    """Both readers' sessions on one study. While one reads, nothing of the other's is shown."""

    switched = Signal()
    said = Signal(str)
    """A sentence for the reader, such as that a session was restored."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.by_reader = {name: Session(study.volume, name) for name in READERS}
        self.active = READERS[0]
        self.screen: ImplantScreen | None = None
        """What the implant screen found, and `screened_names`, the vertebrae that named its levels then."""
        self.screened_names: dict[str, Vector] = {}
        self.restored: tuple[str, ...] = tuple(name for name in READERS if self._restore(name))
        for name in READERS:
            self.by_reader[name].changed.connect(partial(self._keep, name))

    def names(self) -> dict[str, Vector]:
        """The vertebrae of the active session and where they are, from which an implant screen names its levels."""
        known = known_vertebrae(self.session.state.rois)
        return {one.level: tuple(np.round(one.center_lps_mm, 3).tolist()) for one in known}

    def take_screen(self, screen: ImplantScreen, names: dict[str, Vector]) -> None:
        """Keeps what the implant screen found with these names. Vertebrae that bear a screw are never flagged, as the
        core has it."""
        self.screen, self.screened_names = screen, names
        bearing = {screw.level for screw in screen.screws if screw.level is not None}
        for session in self.by_reader.values():
            session.set_bearing(bearing)

    @property
    def session(self) -> Session:
        return self.by_reader[self.active]

    def switch(self, reader: str) -> None:
        """Lets the other reader read."""
        if reader != self.active:
            self.active = reader
            self.switched.emit()

    def agreement(self) -> dict[str, Any]:
        """The agreement file of both readings. Raises SpineImgError where one has nothing."""
        empty = [name for name in READERS if not self.by_reader[name].state.rois.vertebrae]
        if empty:
            raise SpineImgError(f"reader {empty[0]} has measured nothing yet")
        now = datetime.now(UTC)
        first, second = (result_to_dict(self.by_reader[name].result, now) for name in READERS)
        return agreement_to_dict(agree(first, second), now)

    # -- autosave -----------------------------------------------------------------------------------------------------

    def file(self, reader: str) -> Path:
        return autosave_folder() / f"{self.study.key}-{reader}.rois.json"

    def _keep(self, reader: str) -> None:
        """Writes a session; one that was emptied leaves no file."""
        file, state = self.file(reader), self.by_reader[reader].state
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            if not state.rois.vertebrae:
                file.unlink(missing_ok=True)
                return
            content = json.dumps(rois_to_dict(state.rois, file.parent) | _beside_rois(state), allow_nan=False)
            with replacing(file) as handle:
                handle.write(content.encode())
        except (OSError, SpineImgError) as error:
            why = getattr(error, "strerror", None) or error
            self.said.emit(f"The session cannot be kept in {file.parent} ({why}): export the ROI file in time.")

    def _restore(self, reader: str) -> bool:
        """Puts a kept session back, as a step that can be undone."""
        file = self.file(reader)
        try:
            content = json.loads(file.read_bytes())
            rois = parse_rois({key: value for key, value in content.items() if key not in _BESIDE}, file.parent)
            placed = {level: tuple(Note(**note) for note in notes) for level, notes in content["placed_notes"].items()}
            cutoffs = tuple(own_cutoff(one["value_hu"], one["source"]) for one in content.get("own_cutoffs", ()))
            stated = dict(content.get("stated", {}))
            if stated.get("sharpness") is not None:
                stated["sharpness"] = Sharpness(stated["sharpness"])
            self.by_reader[reader].enter(rois, placed, cutoffs or None, Acquisition(**stated))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SpineImgError):
            return False  # nothing was kept, or not by this program
        return True


_BESIDE = ("placed_notes", "own_cutoffs", "stated")


def _beside_rois(state: State) -> dict[str, Any]:
    """What a session keeps beside the ROI file of the contract, under the names of _BESIDE."""
    placed = {level: [asdict(note) for note in notes] for level, notes in state.placed.items()}
    own = [{"value_hu": one.value_hu, "source": one.source} for one in state.cutoffs if one not in PUBLISHED]
    stated = {name: getattr(state.stated, name) for name in ("kvp", "contrast", "kernel", "sharpness")}
    return {
        "placed_notes": placed,
        "own_cutoffs": own,
        "stated": {name: value for name, value in stated.items() if value is not None},
    }
