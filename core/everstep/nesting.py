"""JSON from outside, no deeper than every interpreter takes.

A parser goes one call deeper for each bracket. CPython raises RecursionError in time; where its stack is that of
JavaScript (WebAssembly) the interpreter ends, and whatever else it was doing with it. So depth is known before the
parser begins: from the length, or the first letter, or since few brackets open, or, where many do, by taking out the
innermost pairs as often as there may be levels. The work is done in C, and most texts are done after the first look.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .plain import MAX_DEPTH

DEEPEST = 2 * MAX_DEPTH
"""Levels of a text that are parsed: a value that may be stored, and what it comes wrapped in."""

_NO_BRACKET = frozenset('"-0123456789tfn')
"""What a text begins with that is a value without any inside."""
_AS_SQUARE = bytes.maketrans(b"{}", b"[]")
_RUN = b"[" * (DEEPEST + 1)
_OTHERS = bytes(set(range(256)) - set(b'[]{}"'))


class NestedTooDeeply(ValueError):
    """A JSON text has more levels than are parsed."""

    def __init__(self) -> None:
        super().__init__(f"nested too deeply: more than {DEEPEST} levels")


def check_nesting(text: str | bytes) -> None:
    """See whether a JSON text may be parsed; a text that is no JSON passes too, if its parser would not go too deep.

    Args:
        text: as bytes it is UTF-8.

    Raises:
        NestedTooDeeply: it may not.
    """
    if len(text) <= DEEPEST:
        return
    if isinstance(text, str):
        deep = (
            text[0] not in _NO_BRACKET and _many(text.find, "[", "{") and _too_deep(text.encode(errors="surrogatepass"))
        )
    else:
        deep = _many(text.find, b"[", b"{") and _too_deep(text)
    if deep:
        raise NestedTooDeeply


def _many(find: Callable[[Any, int], int], *openers: str | bytes) -> bool:
    """Whether brackets open more than `DEEPEST` times. Looked for one by one, as long as it takes to know."""
    left = DEEPEST
    for opener in openers:
        at = find(opener, 0)
        while at >= 0:
            if not left:
                return True
            left -= 1
            at = find(opener, at + 1)
    return False


def loads(text: str | bytes, **options: Any) -> Any:
    """`json.loads` of a text from outside; bytes may be in any encoding that JSON has.

    Raises:
        NestedTooDeeply: a ValueError too.
        ValueError: it is no JSON; a JSONDecodeError, or a UnicodeDecodeError.
    """
    if isinstance(text, bytes) and len(text) > DEEPEST:
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    check_nesting(text)
    return json.loads(text, **options)


def _too_deep(data: bytes) -> bool:
    if b"\\" in data:
        # A run of backslashes begins with one that escapes the next: what is left before a quote escapes it.
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    # An end of one text beside the beginning of another: both have the same side of every bracket.
    data = data.translate(_AS_SQUARE, _OTHERS).replace(b'""', b"")
    if b'"' in data:
        data = b"".join(data.split(b'"')[::2])
    for taken in range(DEEPEST):
        # So many levels are gone, and each bracket that still opens may be one more.
        if taken + data.count(b"[") <= DEEPEST:
            return False
        if _RUN in data:
            return True
        before, data = len(data), data.replace(b"[]", b"")
        if len(data) == before:
            break
    return True
