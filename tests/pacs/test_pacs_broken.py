"""Whatever a network does ends in one sentence: no traceback, no hanging, nothing left to measure."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from tests.dicom_factory import Layout, axial, new_uid, pattern, write_series
from tests.pacs.broken import Answer, http_server, node_file, raw_server, silence
from tests.pacs.conftest import Run, is_one_sentence
from tests.pacs.orthanc import free_port

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
STUDY_FIND, STUDY_GET = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.3"
STUDY, SERIES = "1.2.3", "1.2.3.4"
JSON_KIND, MULTIPART = "application/dicom+json", 'multipart/related; type="application/dicom"; boundary=xx'


# -- nodes that do not answer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("node", ["web", "get"])
def test_refused_connection_and_unknown_host(node: str, run: Run, tmp_path: Path) -> None:
    config = node_file(tmp_path, free_port())
    said = run("pacs", "find", "--config", config, "--node", node)
    assert is_one_sentence(said)
    assert "connection refused" in said.err
    config.write_text(config.read_text().replace("localhost", "no-such-host.invalid"))
    said = run("pacs", "find", "--config", config, "--node", node)
    assert is_one_sentence(said)
    assert "host name is not known" in said.err


@pytest.mark.parametrize("node", ["web", "get"])
def test_a_node_that_hangs(node: str, run: Run, tmp_path: Path) -> None:
    with raw_server(silence) as port:
        said = run("pacs", "find", "--config", node_file(tmp_path, port), "--node", node)
    assert is_one_sentence(said)
    assert "no answer within 1 s" in said.err


def test_the_real_command_says_one_line_too(tmp_path: Path) -> None:
    """In a process of its own no test harness swallows what libraries log."""
    config = node_file(tmp_path, free_port())
    for node in ("web", "get"):
        command = [sys.executable, "-c", "from spineimg.cli import main; main()"]
        command += ["pacs", "find", "--config", str(config), "--node", node, "--patient", "SECRET-ID"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ, timeout=60)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert "SECRET-ID" not in done.stderr


# -- DICOMweb ---------------------------------------------------------------------------------------------------------

JUNK: dict[str, Answer] = {
    "a web page": (200, "text/html", b"<html>Welcome</html>"),
    "no JSON": (200, JSON_KIND, b"[{"),
    "a number": (200, JSON_KIND, b"7"),
    "numbers": (200, JSON_KIND, b"[1, 2]"),
    "a text": (200, JSON_KIND, b'"abc"'),
    "odd tags": (200, JSON_KIND, b'[{"zz": {"vr": "UI"}}]'),
    "odd values": (200, JSON_KIND, b'[{"0020000D": {"vr": "UI", "Value": {"a": 1}}}]'),
    "odd elements": (200, JSON_KIND, b'[{"0020000D": 5}]'),
    "no UID": (200, JSON_KIND, b'[{"00080020": {"vr": "DA", "Value": ["20240101"]}}]'),
    "not UTF-8": (200, JSON_KIND, b'[{"\xff\xfe": 1}]'),
    "an error": (500, "text/plain", b"sorry"),
    "forbidden": (403, "text/plain", b""),
    "nothing there": (404, "text/plain", b""),
    "redirects for ever": (302, "text/plain", b""),
    "cut short": (299, JSON_KIND, b"[]"),
    "no content type": (200, "", b"hello"),
    "empty": (200, JSON_KIND, b""),
}


@pytest.mark.parametrize("name", sorted(JUNK))
def test_answers_that_are_no_dicomweb(name: str, run: Run, tmp_path: Path) -> None:
    with http_server(lambda method, path: JUNK[name]) as port:
        config = node_file(tmp_path, port)
        for words in (("find",), ("find", "--study", STUDY), ("get", tmp_path / "out", "--study", STUDY)):
            said = run("pacs", *words, "--config", config, "--node", "web")
            assert is_one_sentence(said), said
    assert not (tmp_path / "out").exists()


def _row(**keywords: Any) -> bytes:
    dataset = Dataset()
    for keyword, value in keywords.items():
        setattr(dataset, keyword, value)
    return json.dumps([dataset.to_json_dict()]).encode()


def _ct(folder: Path, **tags: Any) -> bytes:
    """One CT instance as a file's bytes."""
    wanted = {"StudyInstanceUID": STUDY, "SOPInstanceUID": "1.2.3.4.5", **tags}
    return write_series(folder, pattern(1), axial(1), tags=wanted, series_uid=SERIES).paths[0].read_bytes()


def _part(data: bytes) -> bytes:
    return b"--xx\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--xx--\r\n"


@pytest.mark.parametrize(
    "case",
    ["right", "cut short", "no DICOM", "other instance", "other series", "MR", "web page", "broken off", "bad uid"],
)
def test_an_instance_that_is_not_what_was_asked_for(case: str, run: Run, tmp_path: Path) -> None:
    """Planted: the check of the UIDs left out."""
    source = tmp_path / "source"
    whole = _ct(source)
    bodies: dict[str, Answer] = {
        "right": (200, MULTIPART, _part(whole)),
        "cut short": (200, MULTIPART, _part(whole[:-100])),
        "no DICOM": (200, MULTIPART, _part(b"hello")),
        "other instance": (200, MULTIPART, _part(_ct(source / "o", SOPInstanceUID="1.2.3.4.6"))),
        "other series": (200, MULTIPART, _part(_ct(source / "s", SeriesInstanceUID="1.2.3.9"))),
        "MR": (200, MULTIPART, _part(_ct(source / "m", SOPClassUID=MR))),
        "web page": (200, "text/html", b"<html>"),
        "broken off": (299, MULTIPART, _part(whole)),
        "bad uid": (200, MULTIPART, _part(whole)),
    }

    def answer(method: str, path: str) -> Answer:
        if "offset=0" not in path and "?" in path:
            return 200, JSON_KIND, b"[]"
        if path.split("?")[0].endswith("/series"):
            return 200, JSON_KIND, _row(SeriesInstanceUID=SERIES, Modality="CT")
        if path.split("?")[0].endswith("/instances"):
            uid = "../../../etc/x" if case == "bad uid" else "1.2.3.4.5"
            return 200, JSON_KIND, json.dumps([{"00080018": {"vr": "UI", "Value": [uid]}}]).encode()
        return bodies[case]

    with http_server(answer) as port:
        said = run(
            "pacs", "get", tmp_path / "out", "--study", STUDY, "--config", node_file(tmp_path, port), "--node", "web"
        )
    if case == "right":
        assert said.code == 0, said.err
        assert [path.name for path in (tmp_path / "out" / SERIES).iterdir()] == ["1.2.3.4.5.dcm"]
    else:
        assert is_one_sentence(said), said
        assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ((200, JSON_KIND, b"{}"), "does not say"),
        ((200, "text/html", b"<p>thanks</p>"), "does not say"),
        (
            (409, JSON_KIND, b'{"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [290]}}]}}'),
            "0122H",
        ),
        (
            (202, JSON_KIND, b'{"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [272]}}]}}'),
            "0110H",
        ),
        ((413, "text/plain", b"too large"), "HTTP 413"),
        ((200, JSON_KIND, b"[[]]"), "DICOMweb"),
        ((503, "text/plain", b""), "HTTP 503"),
    ],
)
def test_stow_is_believed_only_for_instances_it_names(body: Answer, reason: str, run: Run, tmp_path: Path) -> None:
    """Planted: HTTP 200 taken for success."""
    (tmp_path / "one.dcm").write_bytes(_ct(tmp_path / "source"))
    with http_server(lambda method, path: body) as port:
        said = run("pacs", "send", tmp_path / "one.dcm", "--config", node_file(tmp_path, port), "--node", "web")
    assert is_one_sentence(said)
    assert reason in said.err


# -- DIMSE ------------------------------------------------------------------------------------------------------------


@contextmanager
def scp(handlers: dict[Any, Any], port: int) -> Iterator[None]:
    """A pynetdicom server that answers searches with one series of one CT instance, unless told otherwise."""
    entity = AE(ae_title="BROKEN")
    for uid in (STUDY_FIND, STUDY_GET):
        entity.add_supported_context(uid)
    for uid in (CT, MR, "1.2.840.10008.5.1.4.1.1.7"):
        entity.add_supported_context(uid, scu_role=True, scp_role=True)
    entity.network_timeout = entity.dimse_timeout = entity.acse_timeout = 5
    chosen = {evt.EVT_C_FIND: _answer_search, **handlers}
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=list(chosen.items()))
    try:
        yield
    finally:
        server.shutdown()


def _answer_search(event: Any) -> Iterator[tuple[int, Dataset | None]]:
    row = Dataset()
    row.QueryRetrieveLevel = event.identifier.QueryRetrieveLevel
    row.StudyInstanceUID, row.SeriesInstanceUID, row.Modality = STUDY, SERIES, "CT"
    row.SOPInstanceUID = "1.2.3.4.5"
    yield 0xFF00, row


@pytest.mark.parametrize("case", ["right", "no CT", "not asked for", "nothing", "refusal"])
def test_what_a_c_get_brings_is_checked(case: str, run: Run, tmp_path: Path) -> None:
    """A node may hand over another class, another instance, or nothing, and still say that all went well."""
    tags = {"no CT": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "SOPInstanceUID": "1.2.3.4.7"},
            "not asked for": {"SOPInstanceUID": "1.2.3.4.6"}}.get(case, {})  # fmt: skip
    dataset = pydicom.dcmread(BytesIO(_ct(tmp_path / "source", **tags)))

    def answer(event: Any) -> Iterator[Any]:
        if case == "refusal":
            yield 1
            yield 0xA702, Dataset()
            return
        yield 0 if case == "nothing" else 1
        if case != "nothing":
            yield 0xFF00, dataset

    port = free_port()
    with scp({evt.EVT_C_GET: answer}, port):
        said = run(
            "pacs", "get", tmp_path / "out", "--study", STUDY, "--config", node_file(tmp_path, port, 3), "--node", "get"
        )
    if case == "right":
        assert said.code == 0, said.err
    else:
        assert is_one_sentence(said), said
        assert {"nothing": "did not hand over 1 of 1", "refusal": "A702H"}.get(case, "not asked for") in said.err
        assert not list(tmp_path.glob("out/*"))


def test_a_search_that_fails_and_one_without_answer(run: Run, tmp_path: Path) -> None:
    def fail(event: Any) -> Iterator[tuple[int, None]]:
        yield 0xA700, None

    def stall(event: Any) -> Iterator[tuple[int, None]]:
        time.sleep(2.5)
        yield 0xFE00, None

    for handler, reason in ((fail, "A700H"), (stall, "no answer within 1 s")):
        port = free_port()
        with scp({evt.EVT_C_FIND: handler}, port):
            said = run("pacs", "find", "--config", node_file(tmp_path, port), "--node", "get")
        assert is_one_sentence(said)
        assert reason in said.err


def _accept_then(port_of_real: int, after_bytes: int) -> Any:
    """Stands between the two and stops passing on the server's bytes after so many, without closing."""

    def serve(connection: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port_of_real)) as real:
            thread = threading.Thread(target=_pump, args=(connection, real), daemon=True)
            thread.start()
            left = after_bytes
            while left > 0:
                data = real.recv(min(left, 4096))
                if not data:
                    break
                connection.sendall(data)
                left -= len(data)
            thread.join()

    return serve


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
    except OSError:
        pass


@pytest.mark.parametrize("after_bytes", [3, 300, 330])
def test_a_node_that_stops_in_the_middle_of_a_message(after_bytes: int, run: Run, tmp_path: Path) -> None:
    """Planted: no time limit on the socket itself (pynetdicom then waits for the rest for ever)."""
    port = free_port()
    with scp({}, port), raw_server(_accept_then(port, after_bytes)) as front:
        said = run("pacs", "find", "--config", node_file(tmp_path, front), "--node", "get")
    assert is_one_sentence(said), said


def test_a_node_that_stops_taking_what_is_sent(run: Run, tmp_path: Path) -> None:
    """Planted: no time limit on the socket itself (the sending then never ends)."""
    layout = Layout(private_bytes=16 << 20)
    big = write_series(tmp_path / "big", pattern(1), axial(1), layout=layout, tags={"StudyInstanceUID": STUDY})
    port = free_port()

    def serve(connection: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port)) as real:
            threading.Thread(target=_pump, args=(real, connection), daemon=True).start()
            for _ in range(2):
                real.sendall(connection.recv(1 << 16))
            done.wait(20)
            real.shutdown(socket.SHUT_RDWR)  # closing alone would not wake the thread that reads

    done = threading.Event()
    with scp({evt.EVT_C_STORE: lambda event: 0}, port), raw_server(serve) as front:
        said = run("pacs", "send", big.folder, "--config", node_file(tmp_path, front), "--node", "get")
        done.set()
    assert is_one_sentence(said), said


def test_a_node_that_is_no_dicom_at_all(run: Run, tmp_path: Path) -> None:
    def chatter(connection: socket.socket) -> None:
        connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" + os.urandom(4096))
        silence(connection)

    for serve in (chatter, lambda connection: connection.close()):
        with raw_server(serve) as port:
            for node in ("get", "web"):
                said = run("pacs", "find", "--config", node_file(tmp_path, port), "--node", node)
                assert is_one_sentence(said), said


def test_c_store_status_is_asked_for_each_instance(run: Run, tmp_path: Path) -> None:
    """Planted: the status of a C-STORE not looked at."""
    ct = write_series(tmp_path / "ct", pattern(3), axial(3), tags={"StudyInstanceUID": new_uid()})
    bad = ct.sop_uids[1]

    def store(event: Any) -> int:
        return 0xA700 if event.request.AffectedSOPInstanceUID == bad else 0xB000

    port = free_port()
    with scp({evt.EVT_C_STORE: store}, port):
        out = tmp_path / "sent.json"
        said = run("pacs", "send", ct.folder, "--config", node_file(tmp_path, port, 5), "--node", "get", "--json", out)
    assert is_one_sentence(said)
    assert "1 of 3 instances were not stored" in said.err
    assert "A700H" in said.err
    rows = {row["sop_instance_uid"]: row["outcome"] for row in json.loads(out.read_text())["instances"]}
    assert rows == {uid: "failed" if uid == bad else "warning" for uid in ct.sop_uids}


def test_a_class_that_the_node_does_not_take(run: Run, tmp_path: Path) -> None:
    entity, port = AE(ae_title="BROKEN"), free_port()
    entity.add_supported_context(MR)
    (tmp_path / "one.dcm").write_bytes(_ct(tmp_path / "source"))
    server = entity.start_server(("127.0.0.1", port), block=False)
    try:
        said = run("pacs", "send", tmp_path / "one.dcm", "--config", node_file(tmp_path, port, 3), "--node", "get")
    finally:
        server.shutdown()
    assert is_one_sentence(said)
