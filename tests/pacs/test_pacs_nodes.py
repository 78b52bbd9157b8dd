"""The configuration of nodes, and where credentials come from and never go."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from spineimg.pacs.jobs import connect
from spineimg.pacs.model import PacsError, check_uid
from spineimg.pacs.nodes import DimseNode, WebNode, credentials, read_node
from tests.pacs.conftest import Run, is_one_sentence

WEB = 'kind = "dicomweb"\nurl = "https://pacs.example/dicom-web"\n'
DIMSE = 'kind = "dimse"\nhost = "pacs.example"\nport = 104\nae_title = "PACS"\n'


def node_of(folder: Path, text: str, name: str | None = None) -> DimseNode | WebNode:
    path = folder / "pacs.toml"
    path.write_text(text)
    return read_node(path, name)


def test_nodes_are_read(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("")
    text = f'[nodes.a]\n{DIMSE}tls = true\nca_file = "ca.pem"\nretrieve = "move"\nour_port = 11112\n[nodes.b]\n{WEB}'
    a = node_of(tmp_path, text, "a")
    assert a == DimseNode(
        "a", "pacs.example", 104, "PACS", retrieve="move", our_port=11112, tls=True, ca_file=str(tmp_path / "ca.pem")
    )
    assert node_of(tmp_path, text, "b") == WebNode("b", "https://pacs.example/dicom-web")
    assert node_of(tmp_path, f"[nodes.only]\n{WEB}").name == "only"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "[nodes.NAME]"),
        ("nodes = 3", "[nodes.NAME]"),
        ("[nodes", "not TOML"),
        (f"[nodes.a]\n{WEB}[nodes.b]\n{WEB}", "there are: a, b"),
        ('[nodes.a]\nkind = "ftp"', "dimse or dicomweb"),
        ('[nodes.a]\nkind = "dimse"', "needs host and port and ae_title"),
        (f"[nodes.a]\n{WEB}timout_s = 3", "'timeout_s' meant"),
        (f"[nodes.a]\n{WEB}timeout_s = 0", "0.5-600"),
        (f"[nodes.a]\n{WEB}timeout_s = true", "a number"),
        (f"[nodes.a]\n{WEB}verify = 1", "true or false"),
        (f'[nodes.a]\n{WEB}ca_file = "nowhere.pem"', "is no file"),
        (f'[nodes.a]\n{WEB}auth = "digest"', "none, basic or bearer"),
        ('[nodes.a]\nkind = "dicomweb"\nurl = "ftp://x"', "https://"),
        ('[nodes.a]\nkind = "dicomweb"\nurl = "https://host:99999999"', "makes no sense"),
        ('[nodes.a]\nkind = "dicomweb"\nurl = "http://pacs.example"\nauth = "basic"', "plain http"),
        (f"[nodes.a]\n{DIMSE.replace('104', '99999')}", "1 to 65535"),
        (f"[nodes.a]\n{DIMSE.replace('PACS', 'A' * 17)}", "16 ASCII"),
        (f'[nodes.a]\n{DIMSE}retrieve = "move"', "our_port"),
        (f'[nodes.a]\n{DIMSE}retrieve = "push"', "get or move"),
        (f'[nodes."a b"]\n{WEB}', "letters, digits"),
    ],
)
def test_mistakes_are_named(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(PacsError) as caught:
        node_of(tmp_path, text)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "text", ['password = "hunter2"', 'token = "hunter2"', 'user = "hunter2"', 'Password = "hunter2"']
)
def test_secrets_in_the_file_are_refused_and_not_repeated(text: str, tmp_path: Path) -> None:
    """Planted: the value in the message."""
    for whole in (f"[nodes.a]\n{WEB}{text}", f"[nodes.a]\n{WEB.replace('https://', 'https://x:hunter2@')}"):
        with pytest.raises(PacsError) as caught:
            node_of(tmp_path, whole)
        assert "environment variable" in str(caught.value)
        assert "hunter2" not in str(caught.value)


def test_credentials_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPINEIMG_PACS_MAIN_1_USER", "anna")
    monkeypatch.setenv("SPINEIMG_PACS_MAIN_1_PASSWORD", "hunter2")
    monkeypatch.setenv("SPINEIMG_PACS_MAIN_1_TOKEN", "t0ken")
    found = credentials(WebNode("main-1", "https://x", auth="basic"))
    assert found is not None
    assert (found.user, found.secret) == ("anna", "hunter2")
    assert "hunter2" not in repr(found)
    bearer = credentials(WebNode("main-1", "https://x", auth="bearer"))
    assert bearer is not None
    assert (bearer.user, bearer.secret) == (None, "t0ken")
    assert credentials(WebNode("main-1", "https://x")) is None
    archive = connect(WebNode("main-1", "https://x", auth="bearer"))
    assert "t0ken" not in repr(vars(archive))
    archive.close()


def test_credentials_come_from_the_keyring_else(monkeypatch: pytest.MonkeyPatch) -> None:
    module, errors = ModuleType("keyring"), ModuleType("keyring.errors")
    errors.KeyringError = type("KeyringError", (Exception,), {})  # type: ignore[attr-defined]
    module.get_password = lambda service, account: f"{service}/{account}"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keyring", module)
    monkeypatch.setitem(sys.modules, "keyring.errors", errors)
    monkeypatch.setenv("SPINEIMG_PACS_M_USER", "anna")
    basic = credentials(WebNode("m", "https://x", auth="basic"))
    bearer = credentials(WebNode("m", "https://x", auth="bearer"))
    assert basic is not None
    assert bearer is not None
    assert (basic.secret, bearer.secret) == ("spineimg:m/anna", "spineimg:m/token")
    module.get_password = lambda service, account: None  # type: ignore[attr-defined]
    with pytest.raises(PacsError, match="no entry spineimg:m"):
        credentials(WebNode("m", "https://x", auth="bearer"))
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(PacsError, match=r"spineimg\[keyring\]"):
        credentials(WebNode("m", "https://x", auth="bearer"))
    monkeypatch.delenv("SPINEIMG_PACS_M_USER")
    with pytest.raises(PacsError, match="SPINEIMG_PACS_M_USER"):
        credentials(WebNode("m", "https://x", auth="basic"))


@pytest.mark.parametrize("uid", ["", "../x", "1..2", "1." * 40 + "1", "1.2/3", "1.2\n"])
def test_what_is_no_uid_never_becomes_a_path(uid: str) -> None:
    with pytest.raises(PacsError):
        check_uid(uid, "a UID")


def test_wrong_use_on_the_command_line(run: Run, tmp_path: Path) -> None:
    said = run("pacs", "find", "--config", tmp_path / "none.toml")
    assert is_one_sentence(said)
    assert "none.toml" in said.err
    config = tmp_path / "pacs.toml"
    config.write_text(f"[nodes.a]\n{WEB}")
    assert run("pacs", "find", "--config", config, "--date", "yesterday").code == 2
    assert run("pacs", "get", tmp_path / "out", "--config", config).code == 2
    assert is_one_sentence(run("pacs", "get", tmp_path / "out", "--config", config, "--study", "abc"))
    assert is_one_sentence(run("pacs", "find", "--config", config, "--study", "../.."))
