"""Ids. `root.1.2`: everything before the first dot is the origin, and an execution tree lives under one origin.

An id follows call order and never timing (rule I1). A root id given by a user has no dot (I2), a detached id has none
either, has constant length and keeps the caller's prefix (I3), and `continue_as_new` puts the generation into child ids
(I5).
"""

from __future__ import annotations

import hashlib

from .errors import InvalidId
from .promise import SCHEDULE_PREFIX

MAX_BYTES = 1000
DETACHED_MARK = "~d"
_DETACHED_CHARS = 16


def origin_of(id: str) -> str:
    """The partition of an id: everything before its first dot."""
    dot = id.find(".")
    return id if dot < 0 else id[:dot]


def check_root(id: str, what: str = "id") -> str:
    """Return a root id given by a user, or raise InvalidId (rule I2)."""
    check_any(id, what)
    if "." in id:
        raise InvalidId(f"{what} {id!r} has a dot; dots separate a run from its steps, use another separator")
    if id.startswith(SCHEDULE_PREFIX):  # the row of a schedule would be taken for the run's
        raise InvalidId(f"{what} {id!r} begins with {SCHEDULE_PREFIX!r}")
    return id


def check_any(id: str, what: str = "id") -> str:
    """Return an id as the protocol accepts it (dots included), or raise InvalidId."""
    if not isinstance(id, str):
        raise InvalidId(f"{what} must be a string, not {type(id).__name__}")
    if not id:
        raise InvalidId(f"{what} is empty")
    try:
        size = len(id.encode())
    except UnicodeEncodeError:
        raise InvalidId(f"{what} {id!r} is not valid Unicode") from None
    if size > MAX_BYTES:
        raise InvalidId(f"{what} {id[:40]!r}... has {size} bytes; at most {MAX_BYTES} are allowed")
    if "\0" in id:
        raise InvalidId(f"{what} {id!r} contains a NUL character")
    if id[0] == "." or id[-1] == "." or ".." in id:
        raise InvalidId(f"{what} {id!r} has an empty part between its dots")
    return id


def child_prefix(parent: str, generation: int = 1) -> str:
    """What the ids of a context's operations begin with, dot included."""
    return f"{parent}." if generation == 1 else f"{parent}.g{generation}."


def after(prefix: str) -> str | None:
    """The smallest text above every text that begins with `prefix`; None when there is none."""
    for end in range(len(prefix), 0, -1):
        code = ord(prefix[end - 1]) + 1
        if code <= 0x10FFFF:
            return prefix[: end - 1] + chr(0xE000 if 0xD800 <= code <= 0xDFFF else code)
    return None


def detached_id(parent: str, operation: str) -> str:
    """The id of a detached root: dot-free, of constant length down a chain, under the caller's prefix (rule I3).

    Args:
        parent: the calling root's id.
        operation: the id of the `detached` operation, which no other operation ever has.
    """
    root = origin_of(parent)
    mark = root.rfind(DETACHED_MARK)
    if mark >= 0 and len(root) - mark - len(DETACHED_MARK) == _DETACHED_CHARS:
        root = root[:mark]
    digest = hashlib.sha256(operation.encode()).hexdigest()[:_DETACHED_CHARS]
    keep = MAX_BYTES - len(DETACHED_MARK) - _DETACHED_CHARS
    return f"{root.encode()[:keep].decode(errors='ignore')}{DETACHED_MARK}{digest}"
