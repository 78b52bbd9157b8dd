"""What the two protocols have in common."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from spineimg.errors import SpineImgError
from spineimg.io.records import CT_CLASSES

SR_CLASSES = frozenset({
    "1.2.840.10008.5.1.4.1.1.88.11",
    "1.2.840.10008.5.1.4.1.1.88.22",
    "1.2.840.10008.5.1.4.1.1.88.33",
    "1.2.840.10008.5.1.4.1.1.88.34",
})  # fmt: skip
"""Basic Text, Enhanced, Comprehensive and Comprehensive 3D SR."""
SEG_CLASSES = frozenset({"1.2.840.10008.5.1.4.1.1.66.4"})
SC_CLASSES = frozenset({
    "1.2.840.10008.5.1.4.1.1.7",
    "1.2.840.10008.5.1.4.1.1.7.1",
    "1.2.840.10008.5.1.4.1.1.7.2",
    "1.2.840.10008.5.1.4.1.1.7.3",
    "1.2.840.10008.5.1.4.1.1.7.4",
})  # fmt: skip
"""Secondary Capture and its four multi-frame kinds."""
ACCEPTED_CLASSES = CT_CLASSES | SR_CLASSES | SEG_CLASSES | SC_CLASSES
"""What is fetched and sent. Everything else is refused by name."""

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


class PacsError(SpineImgError):
    """A node, a transfer or its configuration that failed. The message holds neither credentials nor patient."""


def check_uid(uid: str, what: str) -> str:
    """The UID, if it is one: it becomes a part of paths. Raises PacsError."""
    if len(uid) > 64 or not _UID.fullmatch(uid):
        raise PacsError(f"{what} must be a DICOM UID (digits and dots, at most 64), found {uid[:80]!r}")
    return uid


def class_name(sop_class_uid: str) -> str:
    """Name and UID of a SOP class, for messages."""
    from pydicom.uid import UID

    name = UID(sop_class_uid, validation_mode=0).name
    return f"{name} ({sop_class_uid})" if name != sop_class_uid else sop_class_uid


@dataclass(frozen=True, slots=True)
class Query:
    """What `find` looks for; None is anything. Without `study_instance_uid` studies are listed, with it its series."""

    patient_id: str | None = field(default=None, repr=False)
    accession: str | None = field(default=None, repr=False)
    date: str | None = None
    modality: str | None = None
    study_instance_uid: str | None = None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A file that may be sent."""

    path: Path
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class Sent:
    """What the node answered for one instance. outcome: stored, warning (stored, with a remark) or failed."""

    path: Path
    sop_instance_uid: str
    outcome: str
    reason: str = ""


Receive = Callable[[bytes], None]
"""Takes one instance as the bytes of a DICOM file. Raises PacsError for one that was not asked for."""


class Archive(Protocol):
    """A node that can be asked. Every method raises PacsError, and nothing else, for what a network can do.

    `n_bytes`: payload received so far, in bytes. `label` names the node in messages. Answers are pydicom data sets.
    """

    label: str
    n_bytes: int

    def studies(self, query: Query) -> list[Any]: ...

    def series(self, study_uid: str, modality: str | None = None) -> list[Any]: ...

    def instances(self, study_uid: str, series_uid: str) -> list[Any]:
        """One data set an instance, with UID and class."""
        ...

    def headers(self, study_uid: str, series_uid: str) -> list[Any]:
        """One data set an instance, with as much of its header as the node tells."""
        ...

    def retrieve(self, study_uid: str, series_uid: str, sop_uids: Sequence[str], receive: Receive) -> None:
        """Hands over the instances one by one; some may stay away without an error."""
        ...

    def send(self, files: Sequence[Outgoing]) -> Iterator[Sent]: ...

    def close(self) -> None: ...
