"""Addresses. An id is one segment of a path, percent-encoded with its slashes (`%2F`), because an id may hold anything
a path may: slashes, spaces, even `/tree`. So segments are cut from the path as it was sent, before it is decoded.

Some gateways hand over the decoded path alone. There, what stands between the collection and a known last word is the
id; an id that itself ends in `/tree` cannot be told apart, and reads as the route.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from .problems import bad

PROMISE_VERBS = ("resolve", "reject", "cancel", "halt", "continue", "tree")


def segment(text: str) -> str:
    """A text as one segment of a path."""
    return quote(text, safe="~!$'()*,;=@")


def segments(scope: Mapping[str, Any]) -> list[str] | None:
    """The decoded segments below where the app is mounted; None for the mount itself without its slash.

    Raises Problem 400 for a segment that is not UTF-8.
    """
    prefix: str = scope.get("root_path", "").rstrip("/")
    raw: bytes | None = scope.get("raw_path")
    if raw is not None:
        below = _below(raw.partition(b"?")[0].decode("latin-1"), prefix)
        if below is not None:
            return None if below == "" and prefix else [_decode(part) for part in below[1:].split("/")]
    path: str = scope["path"]
    below = path[len(prefix) :] if prefix and path.startswith(prefix) else path
    return None if below == "" and prefix else _gather(below[1:].split("/"))


def _below(raw: str, prefix: str) -> str | None:
    """What follows the mount in a path that is still encoded; None when the path is not below it."""
    if not prefix:
        return raw
    parts = raw.split("/")
    for count in range(1, len(parts) + 1):
        if unquote_to_bytes("/".join(parts[:count])).decode(errors="replace") == prefix:
            rest = "/".join(parts[count:])
            return f"/{rest}" if count < len(parts) else ""
    return None


def _decode(part: str) -> str:
    try:
        return unquote_to_bytes(part).decode()
    except UnicodeDecodeError:
        raise bad("path", "the address is not UTF-8; percent-encode ids as UTF-8") from None


def _gather(parts: list[str]) -> list[str]:
    head, rest = parts[0], parts[1:]
    if head not in ("promises", "schedules", "workflows") or len(rest) < 2:
        return parts
    if head == "promises" and rest[-1] in PROMISE_VERBS:
        return [head, "/".join(rest[:-1]), rest[-1]]
    return [head, "/".join(rest)]
