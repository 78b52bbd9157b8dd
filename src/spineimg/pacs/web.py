"""DICOMweb: QIDO-RS, WADO-RS and STOW-RS through dicomweb-client."""

from __future__ import annotations

import io
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from spineimg.io.headers import WANTED
from spineimg.pacs.model import Outgoing, PacsError, Query, Receive, Sent
from spineimg.pacs.nodes import Credentials, WebNode, variable_prefix
from spineimg.pacs.words import network_text, status_text

PAGE = 500
"""Rows asked for at once. Engineering choice: some servers cap an answer without saying so."""
MOST_ROWS = 100_000
_NOT_UNDERSTOOD = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError, EOFError, NotImplementedError,
    RecursionError, zlib.error,
)  # fmt: skip
"""What dicomweb-client and pydicom raise on answers that are no DICOMweb."""
_STUDY_FIELDS = ("StudyDate", "StudyDescription", "ModalitiesInStudy", "NumberOfStudyRelatedSeries",
                 "NumberOfStudyRelatedInstances", "PatientName", "PatientID", "PatientBirthDate",
                 "AccessionNumber")  # fmt: skip
_SERIES_FIELDS = ("Modality", "SeriesDescription", "NumberOfSeriesRelatedInstances")


class WebArchive:
    """A DICOMweb service as an `Archive`."""

    def __init__(self, node: WebNode, secrets: Credentials | None) -> None:
        import requests
        from dicomweb_client.api import DICOMwebClient

        self.label = node.label
        self.n_bytes = 0
        self._node = node
        self._session = requests.Session()
        # Proxies, .netrc and REQUESTS_CA_BUNDLE of the environment would otherwise overrule the configuration.
        self._session.trust_env = False
        self._session.verify = (node.ca_file or True) if node.verify else False
        self._session.headers["Accept"] = "application/dicom+json"  # answers of STOW-RS; the client sets the others
        if secrets is not None:
            self._session.auth = _authorization(secrets)
        self._client = DICOMwebClient(
            node.url.rstrip("/"),
            session=self._session,
            callback=self._count,
            timeout=node.timeout_s,
            chunk_size=1 << 30,
        )
        self._client.set_http_retry_params(retry=False)

    def close(self) -> None:
        self._session.close()

    def _count(self, response: Any, *args: object, **kwargs: object) -> Any:
        len(response.content)  # reads the answer; `tell` then counts what came over the wire, compressed or not
        self.n_bytes += response.raw.tell()
        return response

    # -- asking ---------------------------------------------------------------------------------------------------

    def studies(self, query: Query) -> list[Any]:
        filters = {
            "PatientID": query.patient_id,
            "AccessionNumber": query.accession,
            "StudyDate": query.date,
            "ModalitiesInStudy": query.modality,
        }
        wanted = {key: value for key, value in filters.items() if value is not None}
        search = self._client.search_for_studies
        return self._pages("StudyInstanceUID", search, search_filters=wanted, fields=_STUDY_FIELDS)

    def series(self, study_uid: str, modality: str | None = None) -> list[Any]:
        wanted = {"Modality": modality} if modality is not None else {}
        search = self._client.search_for_series
        return self._pages("SeriesInstanceUID", search, study_uid, search_filters=wanted, fields=_SERIES_FIELDS)

    def instances(self, study_uid: str, series_uid: str) -> list[Any]:
        search = self._client.search_for_instances
        return self._pages("SOPInstanceUID", search, study_uid, series_uid, fields=("SOPClassUID",))

    def headers(self, study_uid: str, series_uid: str) -> list[Any]:
        with _plainly(self._node, "asking for the headers of a series"):
            return [_dataset(one) for one in self._client.retrieve_series_metadata(study_uid, series_uid)]

    def _pages(self, key: str, search: Callable[..., Any], *args: str, **kwargs: Any) -> list[Any]:
        """All rows of a search. Rows that come again mean that the service does not page."""
        rows: dict[str, Any] = {}
        with _plainly(self._node, "searching"):
            while len(rows) < MOST_ROWS:
                page = search(*args, **kwargs, limit=PAGE, offset=len(rows))
                found = {str(row[key].value): row for row in map(_dataset, page) if key in row}
                if page and not found:
                    raise PacsError(f"{self.label}: its answers lack {key}, so they cannot be used")
                new = {uid: row for uid, row in found.items() if uid not in rows}
                if not new:
                    break
                rows |= new
        return list(rows.values())

    # -- fetching and storing -------------------------------------------------------------------------------------

    def retrieve(self, study_uid: str, series_uid: str, sop_uids: Sequence[str], receive: Receive) -> None:
        for sop_uid in sop_uids:
            with _plainly(self._node, "fetching an instance"):
                dataset = self._client.retrieve_instance(study_uid, series_uid, sop_uid)
                data = _encoded(dataset)
            receive(data)

    def send(self, files: Sequence[Outgoing]) -> Iterator[Sent]:
        for one in files:
            try:
                with _plainly(self._node, "storing an instance"):
                    answer = self._store(one)
            except _RefusedError as refused:
                yield Sent(one.path, one.sop_instance_uid, "failed", str(refused))
                continue
            yield self._outcome(one, answer)

    def _store(self, one: Outgoing) -> Any:
        """The answer of STOW-RS. Raises _RefusedError when the service refuses this instance with an HTTP status."""
        import pydicom
        import requests

        dataset = pydicom.dcmread(one.path, force=True)
        try:
            return self._client.store_instances([dataset])
        except requests.HTTPError as error:
            if error.response is None or error.response.status_code not in (400, 409, 413, 415):
                raise
            raise _RefusedError(_refusal(error.response) or f"HTTP {error.response.status_code}") from None

    def _outcome(self, one: Outgoing, answer: Any) -> Sent:
        uid = one.sop_instance_uid
        for item in answer.get("FailedSOPSequence") or ():
            if str(item.get("ReferencedSOPInstanceUID", uid)) == uid:
                return Sent(one.path, uid, "failed", _reason(item.get("FailureReason")))
        for item in answer.get("ReferencedSOPSequence") or ():
            if str(item.get("ReferencedSOPInstanceUID", "")) == uid:
                remark = item.get("WarningReason")
                return (
                    Sent(one.path, uid, "stored") if remark is None else Sent(one.path, uid, "warning", _reason(remark))
                )
        return Sent(one.path, uid, "failed", "the answer does not say that it was stored")


class _RefusedError(Exception):
    """One instance was refused; the others may not be."""


def _authorization(secrets: Credentials) -> Callable[[Any], Any]:
    """Signs a request. requests drops the header itself when it is redirected to another host."""
    from requests.auth import HTTPBasicAuth

    if secrets.user is not None:
        # As bytes, for requests would encode text as Latin-1 and fail on the rest (RFC 7617 allows UTF-8).
        basic: Callable[[Any], Any] = HTTPBasicAuth(secrets.user.encode(), secrets.secret.encode())
        return basic

    def bearer(request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {secrets.secret}"
        return request

    return bearer


def _dataset(row: Any) -> Any:
    """A DICOM JSON object as a data set, elements of bulk data and those that nobody here reads left out."""
    from pydicom.dataset import Dataset

    kept = {tag: element for tag, element in row.items() if "BulkDataURI" not in element and _is_read(tag)}
    return Dataset.from_json(kept)


def _is_read(tag: str) -> bool:
    from pydicom.datadict import keyword_for_tag

    number = int(tag, 16)
    return number in WANTED or keyword_for_tag(number) in (*_STUDY_FIELDS, *_SERIES_FIELDS)


def _encoded(dataset: Any) -> bytes:
    import pydicom

    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset)
    return buffer.getvalue()


def _refusal(response: Any) -> str | None:
    """The failure reason in the body of a refused STOW-RS request, None when there is none."""
    from pydicom.dataset import Dataset

    try:
        item = Dataset.from_json(response.json()).FailedSOPSequence[0]
        return _reason(item.FailureReason)
    except _NOT_UNDERSTOOD:
        return None


def _reason(code: object) -> str:
    return status_text(int(code)) if isinstance(code, int) else "the node gave no reason"


# -- what a network can do --------------------------------------------------------------------------------------------


@contextmanager
def _plainly(node: WebNode, doing: str) -> Iterator[None]:
    """Turns whatever goes wrong inside into one sentence. Never repeats a message of a library: it may hold a URL
    with a patient's id."""
    import requests
    from pydicom.errors import BytesLengthException, InvalidDicomError
    from urllib3.exceptions import HTTPError as TransportError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on certificates that were not to be verified, on odd values of others
            yield
    except requests.HTTPError as error:
        raise PacsError(f"{node.label}: {_http_text(node, error.response, doing)}") from None
    except (requests.RequestException, TransportError, OSError) as error:
        raise PacsError(f"{node.label}: {network_text(error, node.timeout_s)} while {doing}") from None
    except (InvalidDicomError, BytesLengthException, *_NOT_UNDERSTOOD):
        raise PacsError(f"{node.label}: its answer is not DICOMweb while {doing}; check the url") from None


def _http_text(node: WebNode, response: Any, doing: str) -> str:
    status = response.status_code if response is not None else "error"
    if status in (401, 403):
        names = {"basic": "_USER and {0}_PASSWORD", "bearer": "_TOKEN"}.get(node.auth)
        prefix = variable_prefix(node.name)
        mend = f"check {prefix}{names.format(prefix)}" if names else 'set auth = "basic" or "bearer" for it'
        return f"it refuses access (HTTP {status}); {mend}"
    if status == 404:
        return f"HTTP 404 while {doing}: it is not there, or the url is not that of a DICOMweb service"
    return f"HTTP {status} while {doing}"
