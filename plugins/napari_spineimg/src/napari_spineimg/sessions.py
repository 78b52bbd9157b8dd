"""The readers of one CT, and what survives a crash: each step is kept in the user's data folder, never with the CT."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from platformdirs import user_data_path
from psygnal import Signal
from spineimg.agreement import agree
from spineimg.errors import SpineImgError
from spineimg.export.json import agreement_to_dict, result_to_dict, write_json
from spineimg.io.rois import parse_rois, rois_to_dict
from spineimg.notes import Note

from napari_spineimg.session import Session
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
        self.restored: tuple[str, ...] = tuple(name for name in READERS if self._restore(name))
        for name in READERS:
            self.by_reader[name].changed.connect(self._keep)

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

    def _keep(self) -> None:
        """Writes the active session; a session that was emptied leaves no file."""
        file, state = self.file(self.active), self.session.state
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            if not state.rois.vertebrae:
                file.unlink(missing_ok=True)
                return
            placed = {
                level: [{"code": note.code, "text": note.text, "about": note.about} for note in notes]
                for level, notes in state.placed.items()
            }
            write_json(file, rois_to_dict(state.rois, file.parent) | {"placed_notes": placed})
        except (OSError, SpineImgError) as error:
            self.said.emit(f"the session cannot be kept in {file.parent}: {error}")

    def _restore(self, reader: str) -> bool:
        """Puts a kept session back, as a step that can be undone."""
        file = self.file(reader)
        try:
            content = json.loads(file.read_bytes())
            rois = parse_rois({key: value for key, value in content.items() if key != "placed_notes"}, file.parent)
            placed = {level: tuple(Note(**note) for note in notes) for level, notes in content["placed_notes"].items()}
            self.by_reader[reader].enter(rois, placed)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SpineImgError):
            return False  # nothing was kept, or not by this program
        return True
