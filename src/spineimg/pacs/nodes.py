"""The nodes of a configuration file, and where their credentials come from.

The file holds no secrets: they come from environment variables named after the node, else from the keyring.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from spineimg.pacs.model import PacsError
from spineimg.settings import setting

_SECRETS = {"user", "username", "password", "passwd", "token", "secret", "credentials", "api_key"}
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


def _timeout() -> Any:
    return setting(
        30.0,
        "s",
        (0.5, 600.0),
        "engineering choice: a PACS that fetches from tape answers later, a broken one never",
        "Longest wait for a connection, for an answer, and for the next bytes of it.",
    )


@dataclass(frozen=True, slots=True)
class DimseNode:
    """A DICOM node. `our_port` is where a C-MOVE delivers; `retrieve` is get or move."""

    name: str
    host: str
    port: int
    ae_title: str
    our_ae_title: str = "SPINEIMG"
    retrieve: str = "get"
    our_port: int | None = None
    tls: bool = False
    ca_file: str | None = None
    verify: bool = True
    timeout_s: float = _timeout()

    @property
    def label(self) -> str:
        return f"node {self.name} ({self.host}:{self.port})"


@dataclass(frozen=True, slots=True)
class WebNode:
    """A DICOMweb service. auth: none, basic or bearer."""

    name: str
    url: str
    auth: str = "none"
    ca_file: str | None = None
    verify: bool = True
    timeout_s: float = _timeout()

    @property
    def label(self) -> str:
        parts = urlsplit(self.url)
        return f"node {self.name} ({parts.scheme}://{parts.netloc})"


Node = DimseNode | WebNode
_KINDS: dict[str, type[DimseNode] | type[WebNode]] = {"dimse": DimseNode, "dicomweb": WebNode}


@dataclass(frozen=True, slots=True)
class Credentials:
    """user: None with a bearer token."""

    user: str | None = field(repr=False)
    secret: str = field(repr=False)


def read_node(config: Path, name: str | None) -> Node:
    """The node of that name in a TOML file; the only one when no name is given. Raises PacsError."""
    nodes = _loaded(config)
    if name is None and len(nodes) == 1:
        name = next(iter(nodes))
    if name is None or name not in nodes:
        asked = "no node was named with --node" if name is None else f"it has no node {name!r}"
        raise PacsError(f"{config}: {asked}; there are: {', '.join(sorted(nodes)) or 'none'}")
    try:
        return _node(name, nodes[name], config.parent)
    except PacsError as error:
        raise PacsError(f"{config}: node {name}: {error}") from None


def _loaded(config: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PacsError(f"{config}: no such file; write the PACS nodes there, or name another with --config") from None
    except OSError as error:
        raise PacsError(f"{config}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise PacsError(f"{config}: not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise PacsError(f"{config}: not TOML: {error}") from None
    nodes = document.get("nodes")
    if not isinstance(nodes, dict) or not all(isinstance(node, dict) for node in nodes.values()):
        raise PacsError(f"{config}: needs a table [nodes.NAME] for each node")
    return nodes


def _node(name: str, table: dict[str, Any], folder: Path) -> Node:
    if not _NODE_NAME.fullmatch(name):
        raise PacsError("its name must be letters, digits, - and _, since it names environment variables")
    kind = table.get("kind")
    if kind not in _KINDS:
        raise PacsError(f"kind must be dimse or dicomweb, found {kind!r}")
    types = {one.name: str(one.type) for one in fields(_KINDS[kind]) if one.name != "name"}
    values = {key: _checked(key, value, types) for key, value in table.items() if key != "kind"}
    required = ("url",) if kind == "dicomweb" else ("host", "port", "ae_title")
    missing = [key for key in required if key not in values]
    if missing:
        raise PacsError(f"a {kind} node needs {' and '.join(missing)}")
    if isinstance(values.get("ca_file"), str):
        values["ca_file"] = str(folder / Path(values["ca_file"]).expanduser())
        if not Path(values["ca_file"]).is_file():
            raise PacsError(f"ca_file {values['ca_file']} is no file")
    node = _KINDS[kind](name=name, **values)
    return _checked_web(node) if isinstance(node, WebNode) else _checked_dimse(node)


def _checked(key: str, value: Any, types: dict[str, str]) -> Any:
    """A value of the file, if it is of its key's type. Never repeats a value whose key may hold a secret."""
    if key.lower() in _SECRETS:
        raise PacsError(f"{key} does not belong in this file: set the environment variables that docs/pacs.md names")
    if key not in types:
        alike = difflib.get_close_matches(key, types, 1)
        raise PacsError(f"unknown key {key!r}" + (f": is {alike[0]!r} meant?" if alike else ""))
    kind = types[key]
    if kind.startswith("float") and type(value) in (int, float):
        if not 0.5 <= value <= 600:
            raise PacsError(f"{key} must lie in 0.5-600 s, found {value}")
        return float(value)
    if kind.startswith("bool") and isinstance(value, bool):
        return value
    if kind.startswith("int") and type(value) is int:
        if not 1 <= value <= 65535:
            raise PacsError(f"{key} must be a port from 1 to 65535, found {value}")
        return value
    if kind.startswith("str") and isinstance(value, str) and value:
        return value
    wanted = {"f": "a number", "b": "true or false", "i": "a whole number", "s": "a text"}[kind[0]]
    raise PacsError(f"{key} must be {wanted}")


def _checked_dimse(node: DimseNode) -> DimseNode:
    for title in (node.ae_title, node.our_ae_title):
        if len(title) > 16 or not title.isascii() or not title.isprintable() or "\\" in title:
            raise PacsError(f"an AE title has at most 16 ASCII characters and no backslash, found {title!r}")
    if node.retrieve not in ("get", "move"):
        raise PacsError(f"retrieve must be get or move, found {node.retrieve!r}")
    if node.retrieve == "move" and node.our_port is None:
        raise PacsError("retrieve by C-MOVE needs our_port, the port at which the PACS knows this program")
    return node


def _checked_web(node: WebNode) -> WebNode:
    try:
        parts = urlsplit(node.url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise PacsError("url makes no sense") from None
    if "@" in parts.netloc:
        raise PacsError("url holds credentials: take them out and set the environment variables of docs/pacs.md")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise PacsError(f"url must be like https://host:port/dicom-web, found {parts.scheme}://{parts.netloc}")
    if node.auth not in ("none", "basic", "bearer"):
        raise PacsError(f"auth must be none, basic or bearer, found {node.auth!r}")
    if node.auth != "none" and parts.scheme == "http" and host not in _LOOPBACK and node.verify:
        raise PacsError("credentials would go over plain http: use https, or accept that with verify = false")
    return node


# -- credentials ------------------------------------------------------------------------------------------------------


def credentials(node: WebNode) -> Credentials | None:
    """From SPINEIMG_PACS_<NODE>_USER, _PASSWORD, _TOKEN, else the keyring. Raises PacsError when there are none."""
    if node.auth == "none":
        return None
    prefix = variable_prefix(node.name)
    if node.auth == "bearer":
        token = os.environ.get(f"{prefix}_TOKEN") or _from_keyring(node, "token", f"{prefix}_TOKEN")
        return Credentials(None, _printable(token, f"{prefix}_TOKEN"))
    user = os.environ.get(f"{prefix}_USER")
    if not user:
        raise PacsError(f"{node.label}: set {prefix}_USER, and {prefix}_PASSWORD or the keyring's entry for that user")
    password = os.environ.get(f"{prefix}_PASSWORD") or _from_keyring(node, user, f"{prefix}_PASSWORD")
    return Credentials(_printable(user, f"{prefix}_USER"), _printable(password, f"{prefix}_PASSWORD"))


def variable_prefix(name: str) -> str:
    return f"SPINEIMG_PACS_{name.upper().replace('-', '_')}"


def _printable(value: str, variable: str) -> str:
    if not value.isprintable():
        raise PacsError(f"{variable} holds a line break or another control character")
    return value


def _from_keyring(node: WebNode, account: str, variable: str) -> str:
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        raise PacsError(
            f"{node.label}: {variable} is not set; set it, or install the keyring with pip install 'spineimg[keyring]'"
        ) from None
    try:
        found = keyring.get_password(f"spineimg:{node.name}", account)
    except KeyringError:
        found = None
    if not found:
        raise PacsError(f"{node.label}: {variable} is not set, and the keyring has no entry spineimg:{node.name}")
    return str(found)
