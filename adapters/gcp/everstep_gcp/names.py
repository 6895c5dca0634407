"""Document names. The name of a document is its row's id, escaped so that documents lie in the order of ids.

Firestore refuses a slash in a document's name, the names `.` and `..`, and names like `__x__`. A colon before every
name takes care of the last two. A slash becomes a dot and DEL; what follows a dot and would sort after that DEL is
preceded by a tilde. So a range of ids is a range of names, and every search is answered in the order of ids by the
index that each collection has anyway (rules I2 and I4).
"""

from __future__ import annotations

import re

from everstep.errors import StoreError

LONGEST = 1500
"""Bytes that Firestore allows a document's name."""

_MARK = ":"
_SLASH = ".\x7f"
_TILDE = "~"
_PLAIN = re.compile(r"[^/~\x7f-\U0010ffff]*")


def name_of(id: str) -> str:
    """The name of an id's document; also of a bound of a range of ids.

    Raises:
        StoreError: the name would be too long, which takes an id of many slashes, or is no Unicode.
    """
    name = _MARK + (id if _PLAIN.fullmatch(id) else _escaped(id))
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise StoreError(f"{id!r} cannot be the name of a document: {error}") from None
    if size > LONGEST:
        raise StoreError(f"{id[:40]!r}... needs a document name of {size} bytes, and Firestore allows {LONGEST}")
    return name


def id_of(name: str) -> str:
    """The id that a document's name stands for."""
    return re.sub(r"\.(\x7f|~(.))", _unescaped, name[1:], flags=re.DOTALL)


def _escaped(id: str) -> str:
    parts: list[str] = []
    after_dot = False
    for char in id:
        if char == "/":
            parts.append(_SLASH)
        elif after_dot and char >= _TILDE:
            parts.append(_TILDE + char)
        else:
            parts.append(char)
        after_dot = char == "."
    return "".join(parts)


def _unescaped(match: re.Match[str]) -> str:
    return "/" if match[1] == "\x7f" else f".{match[2]}"
