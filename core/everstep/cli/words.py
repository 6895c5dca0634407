"""Instants and durations for people, and text that cannot play with the terminal."""

from __future__ import annotations

import json
import re
import unicodedata
from datetime import datetime
from itertools import pairwise
from typing import Any

from everstep.clock import to_datetime
from everstep.views import PromiseView

SYMBOLS = {
    "done": "✓",
    "failed": "✗",
    "cancelled": "⊘",
    "timed out": "◷",
    "running": "▶",
    "queued": "…",
    "waiting": "◌",
    "sleeping": "☾",
    "open": "?",
    "halted": "■",
    "retrying": "↻",
}

COLOURS = {
    "done": "green",
    "failed": "red",
    "cancelled": "bright_black",
    "timed out": "yellow",
    "running": "blue",
    "queued": "blue",
    "waiting": "cyan",
    "sleeping": "cyan",
    "open": "yellow",
    "halted": "magenta",
    "retrying": "yellow",
}


def without_password(url: str) -> str:
    """A store URL as it may be shown: what is between a user's name and the host is nobody's business."""
    return re.sub(r"(://[^/:@]*):[^/]*@", r"\1:***@", url)


def clean(text: str) -> str:
    """Text with what a terminal would act on made visible: escapes, bells, changes of direction."""
    if text.isprintable():
        return text
    return "".join(
        char if unicodedata.category(char)[0] != "C" else char.encode("unicode_escape").decode() for char in text
    )


def short(value: Any, limit: int = 40) -> str:
    """A value as JSON, cut."""
    text = clean(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def call(view: PromiseView, limit: int = 40) -> str:
    """`order("o-17", 4200)`."""
    given = [short(value, limit) for value in view.args]
    given += [f"{clean(name)}={short(value, limit)}" for name, value in view.kwargs.items()]
    name = clean(view.name) or {"timer": "sleep"}.get(view.kind, view.kind or "promise")
    text = ", ".join(given)
    return f"{name}({text if len(text) <= 2 * limit else text[: 2 * limit - 1] + '…'})" if text or view.name else name


def span(milliseconds: int) -> str:
    """A duration in its two largest units."""
    milliseconds = max(0, milliseconds)
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    seconds = milliseconds // 1000
    if seconds < 60:
        return f"{milliseconds / 1000:.1f} s" if seconds < 10 else f"{seconds} s"
    units = [(86400, "d"), (3600, "h"), (60, "min"), (1, "s")]
    for (size, unit), (small, small_unit) in pairwise(units):
        if seconds >= size:
            rest = seconds % size // small
            return f"{seconds // size} {unit}" + (f" {rest} {small_unit}" if rest else "")
    return f"{seconds} s"


def moment(milliseconds: int, now: int) -> str:
    """A local time, with its date unless that is today's."""
    at, today = local(milliseconds), local(now)
    return at.strftime("%H:%M:%S" if at.date() == today.date() else "%Y-%m-%d %H:%M:%S")


def local(milliseconds: int) -> datetime:
    return to_datetime(milliseconds).astimezone()
