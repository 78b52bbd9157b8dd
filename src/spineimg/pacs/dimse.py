"""DIMSE: C-FIND, C-GET or C-MOVE, and C-STORE through pynetdicom."""

from __future__ import annotations

import socket
import ssl
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from spineimg.io.headers import WANTED
from spineimg.io.pixels import syntax_name
from spineimg.io.records import CT_CLASSES
from spineimg.pacs.model import ACCEPTED_CLASSES, Outgoing, PacsError, Query, Receive, Sent, class_name
from spineimg.pacs.nodes import DimseNode
from spineimg.pacs.words import network_text, status_text

STUDY_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_GET = "1.2.840.10008.5.1.4.1.2.2.3"
NATIVE = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
COMPRESSED = (
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.91",
)
"""Encodings in which a node may hand out CT images as it stores them: what the reader decodes."""
AT_ONCE = 50
"""Instances asked for in one request. Engineering choice: a list of UIDs that fits old parsers' 4 kB."""
MOST_ROWS = 100_000
_BAD_DATA = 0xA900
_STUDY_KEYS = ("StudyInstanceUID", "StudyDate", "StudyDescription", "ModalitiesInStudy",
               "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances", "PatientName", "PatientID",
               "PatientBirthDate", "AccessionNumber")  # fmt: skip
_SERIES_KEYS = ("SeriesInstanceUID", "Modality", "SeriesDescription", "NumberOfSeriesRelatedInstances")

_HEADER_KEYS = tuple(
    name
    for name, _ in WANTED.values()
    if name not in ("SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate")
)


class DimseArchive:
    """A DICOM node as an `Archive`. One association is kept open while it is used for the same service."""

    def __init__(self, node: DimseNode) -> None:
        self.label = node.label
        self.n_bytes = 0
        self._node = node
        self._association: Any = None
        self._service = ""
        self._answered = 0.0
        self._listener: Any = None
        self._inbox: _Incoming | None = None
        self._sockets: list[socket.socket] = []

    def close(self) -> None:
        if self._association is not None and self._association.is_established:
            self._association.release()
        self._association = None
        if self._listener is not None:
            self._listener.shutdown()
            self._listener = None
        for one in self._sockets:
            one.close()  # pynetdicom forgets those that the other side closed

    # -- asking ---------------------------------------------------------------------------------------------------

    def studies(self, query: Query) -> list[Any]:
        matched = {
            "PatientID": query.patient_id,
            "AccessionNumber": query.accession,
            "StudyDate": query.date,
            "ModalitiesInStudy": query.modality,
        }
        return self._find("STUDY", {**dict.fromkeys(_STUDY_KEYS), **matched}, "StudyInstanceUID")

    def series(self, study_uid: str, modality: str | None = None) -> list[Any]:
        matched = {"StudyInstanceUID": study_uid, "Modality": modality}
        return self._find("SERIES", {**dict.fromkeys(_SERIES_KEYS), **matched}, "SeriesInstanceUID")

    def instances(self, study_uid: str, series_uid: str) -> list[Any]:
        return self._images(study_uid, series_uid, ("SOPInstanceUID", "SOPClassUID"))

    def headers(self, study_uid: str, series_uid: str) -> list[Any]:
        return self._images(study_uid, series_uid, _HEADER_KEYS)

    def _images(self, study_uid: str, series_uid: str, keys: Sequence[str]) -> list[Any]:
        matched = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid}
        return self._find("IMAGE", {**dict.fromkeys(keys), **matched}, "SOPInstanceUID")

    def _find(self, level: str, keys: dict[str, str | None], unique: str) -> list[Any]:
        with self._plainly("searching"):
            association = self._open("find", [(STUDY_FIND, NATIVE)])
            identifier = _identifier(level, keys)
            rows: dict[str, Any] = {}
            for status, row in association.send_c_find(identifier, STUDY_FIND):
                code = self._code(status, "searching")
                if code == 0:
                    break
                if code not in (0xFF00, 0xFF01):
                    raise PacsError(f"{self.label}: it refuses the search: {status_text(code)}")
                if row is None or not row.get(unique) or len(rows) >= MOST_ROWS:
                    raise PacsError(
                        f"{self.label}: an answer to the search is unreadable, without {unique}, or too long"
                    )
                self.n_bytes += _size(row)
                rows[str(row[unique].value)] = row
            return list(rows.values())

    # -- fetching -------------------------------------------------------------------------------------------------

    def retrieve(self, study_uid: str, series_uid: str, sop_uids: Sequence[str], receive: Receive) -> None:
        self._inbox = _Incoming(receive)
        for start in range(0, len(sop_uids), AT_ONCE):
            some = sop_uids[start : start + AT_ONCE]
            identifier = _identifier("IMAGE", {
                "StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid, "SOPInstanceUID": list(some),
            })  # fmt: skip
            with self._plainly("fetching"):
                if self._node.retrieve == "move":
                    self._listen()
                    association = self._open("move", [(STUDY_MOVE, NATIVE)])
                    answers = association.send_c_move(identifier, self._node.our_ae_title, STUDY_MOVE)
                else:
                    association = self._open("get", [(STUDY_GET, NATIVE), *_storage_contexts()])
                    answers = association.send_c_get(identifier, STUDY_GET)
                self._follow(answers, association)

    def _follow(self, answers: Any, association: Any) -> None:
        """Waits for the end of a C-GET or C-MOVE. Raises what went wrong with an instance, or with the whole."""
        inbox = self._inbox
        before = inbox.count if inbox is not None else 0
        for status, _ in answers:
            if inbox is not None and inbox.error is not None:
                association.abort()
                raise inbox.error
            code = self._code(status, "fetching")
            if code >> 8 == 0xFF:
                continue
            if code != 0 and (inbox is None or inbox.count == before):
                raise PacsError(f"{self.label}: it does not hand out these instances: {status_text(code)}")

    def _listen(self) -> None:
        """Opens the port where a C-MOVE delivers."""
        if self._listener is not None:
            return
        from pynetdicom import evt

        entity = self._entity()
        for abstract, syntaxes in _storage_contexts():
            entity.add_supported_context(abstract, list(syntaxes))
        try:
            address = ("", self._node.our_port or 0)
            self._listener = entity.start_server(address, block=False, evt_handlers=[(evt.EVT_C_STORE, self._on_store)])
        except OSError as error:
            port = self._node.our_port
            raise PacsError(
                f"{self.label}: our_port {port} cannot be opened for its C-MOVE ({error.strerror})"
            ) from None

    def _on_store(self, event: Any) -> int:
        data = event.encoded_dataset()
        self.n_bytes += len(data)
        return self._inbox.take(data) if self._inbox is not None else _BAD_DATA

    # -- storing --------------------------------------------------------------------------------------------------

    def send(self, files: Sequence[Outgoing]) -> Iterator[Sent]:
        for one in files:
            try:
                with self._plainly("storing"):
                    association = self._open("store", _contexts_of(files))
                    _check_accepted(association, one)
                    status = association.send_c_store(_read(one))
                    code = self._code(status, "storing")
            except _NotAcceptedError as error:
                yield Sent(one.path, one.sop_instance_uid, "failed", str(error))
                continue
            if code == 0:
                yield Sent(one.path, one.sop_instance_uid, "stored")
            else:
                outcome = "warning" if code >> 12 == 0xB else "failed"
                yield Sent(one.path, one.sop_instance_uid, outcome, status_text(code))

    # -- associations ---------------------------------------------------------------------------------------------

    def _entity(self) -> Any:
        from pynetdicom import AE

        entity = AE(ae_title=self._node.our_ae_title)
        entity.acse_timeout = entity.dimse_timeout = self._node.timeout_s
        entity.network_timeout = entity.connection_timeout = self._node.timeout_s
        return entity

    def _open(self, service: str, contexts: Sequence[tuple[str, Sequence[str]]]) -> Any:
        """An association for this service, the one that is open where it serves. Raises PacsError."""
        self._answered = time.monotonic()
        if self._service == service and self._association is not None and self._association.is_established:
            return self._association
        if self._association is not None and self._association.is_established:
            self._association.release()
        from pynetdicom import build_context, build_role, evt

        tls = (_tls_context(self._node), self._node.host) if self._node.tls else None
        roles = [build_role(uid, scp_role=True) for uid in sorted(ACCEPTED_CLASSES)] if service == "get" else []
        started = time.monotonic()
        association = self._entity().associate(
            self._node.host,
            self._node.port,
            contexts=[build_context(abstract, list(syntaxes)) for abstract, syntaxes in contexts],
            ae_title=self._node.ae_title,
            ext_neg=roles,
            evt_handlers=[(evt.EVT_CONN_OPEN, self._limit), (evt.EVT_C_STORE, self._on_store)],
            tls_args=tls,
        )
        if not association.is_established:
            raise PacsError(f"{self.label}: {self._why_not(association, time.monotonic() - started)}")
        self._association, self._service = association, service
        self._answered = time.monotonic()
        offered = contexts[0][0]
        if service != "store" and not any(one.abstract_syntax == offered for one in association.accepted_contexts):
            association.release()
            raise PacsError(f"{self.label}: it does not offer {class_name(offered)} to {self._node.our_ae_title}")
        return association

    def _limit(self, event: Any) -> None:
        # Without it pynetdicom waits for ever on a peer that stops in the middle of a message.
        connection = event.assoc.dul.socket
        if connection is not None and connection.socket is not None:
            connection.socket.settimeout(self._node.timeout_s)
            # A message goes out in two pieces; the second would wait for the acknowledgement of the first, 40 ms.
            connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.append(connection.socket)

    def _code(self, status: Any, doing: str) -> int:
        """The status of an answer. Raises PacsError when there was none."""
        if self._inbox is not None and self._inbox.error is not None:
            raise self._inbox.error
        waited_s, self._answered = time.monotonic() - self._answered, time.monotonic()
        if "Status" in status:
            return int(status.Status)
        # pynetdicom tells silence and a broken connection alike.
        if waited_s >= 0.95 * self._node.timeout_s:
            raise PacsError(f"{self.label}: no answer within {self._node.timeout_s:g} s while {doing}")
        ours = self._node.our_ae_title
        raise PacsError(f"{self.label}: the connection broke off while {doing}; is the node up, and {ours} allowed to?")

    def _why_not(self, association: Any, took_s: float) -> str:
        """Why an association did not come about; the connection is tried once more to tell, for nobody else does."""
        if association.is_rejected:
            answer = association.acceptor.primitive
            reason = getattr(answer, "reason_str", "") or "no reason given"
            return f"it rejects the association ({reason.lower()}): check ae_title and our_ae_title"
        if took_s >= 0.95 * self._node.timeout_s:
            return f"no answer within {self._node.timeout_s:g} s"
        try:
            address = (self._node.host, self._node.port)
            with socket.create_connection(address, self._node.timeout_s) as plain:
                if self._node.tls:
                    _tls_context(self._node).wrap_socket(plain, server_hostname=self._node.host).close()
        except OSError as error:
            return network_text(error, self._node.timeout_s)
        return "it closes the connection without an answer (is it a DICOM port, and tls as it should be?)"

    @contextmanager
    def _plainly(self, doing: str) -> Iterator[None]:
        """Turns whatever goes wrong inside into one sentence."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # on odd values in the answers of others
                yield
        except OSError as error:
            raise PacsError(f"{self.label}: {network_text(error, self._node.timeout_s)} while {doing}") from None
        except (RuntimeError, ValueError, AttributeError, TypeError, KeyError) as error:
            # pynetdicom raises these when an association ends between two steps, and on answers that make no sense.
            raise PacsError(f"{self.label}: the exchange broke off while {doing} ({type(error).__name__})") from None


class _NotAcceptedError(Exception):
    """The node takes no instances of this class or encoding."""


class _Incoming:
    """Hands instances on and keeps the first error, for pynetdicom would swallow it."""

    def __init__(self, receive: Receive) -> None:
        self.count = 0
        self.error: PacsError | None = None
        self._receive = receive

    def take(self, data: bytes) -> int:
        if self.error is not None:
            return _BAD_DATA
        try:
            self._receive(data)
        except PacsError as error:
            self.error = error
            return _BAD_DATA
        self.count += 1
        return 0


def _identifier(level: str, keys: dict[str, Any]) -> Any:
    from pydicom.dataset import Dataset

    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for key, value in keys.items():
        setattr(identifier, key, value)
    return identifier


def _size(row: Any) -> int:
    """Bytes of an answer, as implicit little endian."""
    from pynetdicom.dsutils import encode

    return len(encode(row, True, True) or b"")


def _storage_contexts() -> list[tuple[str, Sequence[str]]]:
    """What may be received: every accepted class uncompressed, CT also as it is stored."""
    native = [(uid, NATIVE) for uid in sorted(ACCEPTED_CLASSES)]
    return [*native, *((uid, (syntax,)) for uid in sorted(CT_CLASSES) for syntax in COMPRESSED)]


def _contexts_of(files: Sequence[Outgoing]) -> list[tuple[str, Sequence[str]]]:
    kinds = dict.fromkeys((one.sop_class_uid, one.transfer_syntax) for one in files)
    return [(uid, NATIVE if syntax in NATIVE else (syntax,)) for uid, syntax in kinds]


def _check_accepted(association: Any, one: Outgoing) -> None:
    """Raises _NotAcceptedError when no agreed presentation context takes this file."""
    of_class = [cx for cx in association.accepted_contexts if cx.abstract_syntax == one.sop_class_uid]
    if not of_class:
        raise _NotAcceptedError(f"the node takes no {class_name(one.sop_class_uid)}")
    usable = NATIVE if one.transfer_syntax in NATIVE else (one.transfer_syntax,)
    if not any(cx.transfer_syntax[0] in usable for cx in of_class):
        raise _NotAcceptedError(f"the node does not take its encoding, {syntax_name(one.transfer_syntax)}")


def _read(one: Outgoing) -> Any:
    import pydicom

    return pydicom.dcmread(one.path, force=True)


def _tls_context(node: DimseNode) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=node.ca_file)
    except (ssl.SSLError, OSError):
        raise PacsError(f"{node.label}: ca_file {node.ca_file} holds no certificate (PEM)") from None
    if not node.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
