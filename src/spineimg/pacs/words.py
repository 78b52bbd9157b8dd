"""What networks and nodes answer, in words."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

_TEXTS = {
    0x0110: "processing failure",
    0x0111: "duplicate instance",
    0x0122: "SOP class not supported",
    0x0124: "not authorised",
    0x0211: "operation not supported",
    0x0212: "mistyped argument",
    0xB000: "elements were coerced",
    0xB006: "elements were discarded",
    0xB007: "the data set does not match its SOP class",
    0xA700: "out of resources",
    0xA701: "out of resources: matches cannot be counted",
    0xA702: "out of resources: sub-operations cannot be done",
    0xA801: "move destination unknown",
    0xA900: "the data set does not match its SOP class",
    0xC000: "it could not be understood or stored",
    0xC122: "referenced transfer syntax not supported",
    0xFE00: "cancelled",
}
"""Status codes of DIMSE and STOW-RS: PS3.4 annexes B and C, PS3.7 annex C, PS3.18 table I.2-2."""


def status_text(code: int) -> str:
    """A status for messages, with its number."""
    family = {0xA: "refused", 0xB: "a warning", 0xC: "it could not be understood or done"}.get(code >> 12, "failed")
    return f"{_TEXTS.get(code, family)} (status {code:04X}H)"


def network_text(error: BaseException, timeout_s: float) -> str:
    """What an exception of sockets, TLS or HTTP means, in words."""
    chain = list(_chain(error))
    names = {type(one).__name__ for one in chain}
    for one in chain:
        if isinstance(one, ssl.SSLCertVerificationError):
            return (
                f"its TLS certificate is not trusted ({one.verify_message or 'not verified'}); check host and ca_file"
            )
    if any(isinstance(one, ssl.SSLError) for one in chain) or "SSLError" in names:
        return "TLS could not be agreed on (is this a TLS port, and ca_file a certificate?)"
    if any(isinstance(one, ConnectionRefusedError) for one in chain):
        return "connection refused (is the node running, and the port right?)"
    if any(isinstance(one, socket.gaierror) for one in chain) or "NameResolutionError" in names:
        return "its host name is not known"
    if any(isinstance(one, TimeoutError) for one in chain) or any("Timeout" in name for name in names):
        return f"no answer within {timeout_s:g} s"
    if "TooManyRedirects" in names:
        return "it redirects for ever"
    return "the connection broke off"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and those it came from, also where libraries pass them as arguments."""
    seen: set[int] = set()
    stack: list[object] = [error]
    while stack:
        one = stack.pop()
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        stack += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
