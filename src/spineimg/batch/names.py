"""File names for cases: any name in, one name that every file system takes out."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable

MOST_BYTES = 100
"""Longest stem that is kept as it is; file systems end at 255 bytes, and endings and temporary names need room."""
_PLAIN = frozenset("-_+. ")
_RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))})


def file_stems(cases: Iterable[str]) -> dict[str, str]:
    """Case -> stem of its files. No two stems are the same, nor the same but for upper and lower case.

    A plain name (letters, digits, `-_+.` and inner spaces) stays as it is. Any other, and each of several that differ
    only in case or Unicode form, is made plain and gets `~` with a hash of the whole name, so that a stem never
    passes from one case to another when a table grows.
    """
    names = list(dict.fromkeys(cases))
    shared = Counter(_folded(name) for name in names)
    return {name: name if _is_plain(name) and shared[_folded(name)] == 1 else _hashed(name) for name in names}


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKC", name).casefold())


def _is_plain(name: str) -> bool:
    ends = name[:1] + name[-1:]
    return (
        all(letter.isalnum() or letter in _PLAIN for letter in name)
        and unicodedata.is_normalized("NFKC", name)
        and len(name.encode()) <= MOST_BYTES
        and not name.startswith(".")
        and ends == ends.strip(" .")
        and len(ends) == 2
        and name.split(".")[0].casefold() not in _RESERVED
    )


def _hashed(name: str) -> str:
    tail = "~" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    plain = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)
    return f"{plain[:40].strip('_') or 'case'}{tail}"
