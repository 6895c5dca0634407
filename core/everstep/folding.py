"""Folding: a settled prefix of history, kept as few records instead of many.

A fold is one immutable record `<run>.~<k>` that holds the next entries of the delivery history, in order. Local records
(steps, timers, inline children, detached starts) go into it whole and are deleted by the same commit; a promise that
outsiders may know stays where it is, and only its place in the order is kept (rule P3). The folds of a run, one after
the other, are the beginning of its history; segments of the task cut and extend what follows (rule P2.3).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from .promise import Kind, Payload, Record, Row, Segment, State, from_row, to_row

FOLD_MARK = "~"


class Entry(NamedTuple):
    """One delivery: its id, its instant in milliseconds, and its record where that is local."""

    id: str
    at: int
    row: Row | None


def fold_row(branch: str, prefix: str, number: int, began_at: int, entries: Sequence[Entry]) -> Row:
    """The record that holds these entries; those that carry their row go into it whole.

    Args:
        number: of the fold, from 1.
        began_at: when the body began, in milliseconds, which the segments cease to say.
    """
    texts = [_entry_text(entry) for entry in entries]
    record = Record(
        f"{prefix}{FOLD_MARK}{number}",
        State.RESOLVED,
        Kind.FOLD,
        branch,
        value=Payload(f"[{','.join(texts)}]"),
        created_at=began_at,
        settled_at=entries[-1].at,
        attempt=len(entries),
        rev=1,
    )
    return to_row(record)


def _entry_text(entry: Entry) -> str:
    row = entry.row
    head = f"[{json.dumps(entry.id)},{entry.at}"
    if row is None:
        return head + "]"
    if row[16] is None:
        return f'{head},"{row[2]}","{row[3]}",{row[9] or "null"},{row[10] or "null"},{row[12]}]'
    # Payloads that are not plain JSON keep their text and their headers, to be decoded when they are read.
    rest = json.dumps([row[9], row[10], row[16]])
    return f'{head},"{row[2]}","{row[3]}",null,null,{row[12]},{rest}]'


class Folded(NamedTuple):
    """The beginning of a history, read back. `special` are local records whose payloads are yet to be decoded."""

    history: list[tuple[str, int]]
    local: list[list[Any]]
    special: list[Row]
    folds: int
    began_at: int


def unfold(rows: Iterable[Row]) -> Folded:
    """Read folds back, in order. Raises ValueError on damaged text."""
    ordered = sorted(rows, key=lambda row: int(row[0].rpartition(FOLD_MARK)[2]))
    if not ordered:
        return Folded([], [], [], 0, 0)
    entries = [entry for row in ordered for entry in json.loads(row[10] or "[]")]
    local = [entry for entry in entries if len(entry) > 2]
    special = [_special(ordered[0][1], entry) for entry in local if len(entry) > 7]
    if int(ordered[-1][0].rpartition(FOLD_MARK)[2]) != len(ordered):
        raise ValueError("one is missing")
    plain = [entry for entry in local if len(entry) == 7]
    return Folded([(entry[0], entry[1]) for entry in entries], plain, special, len(ordered), ordered[0][12])


def _special(branch: str, entry: list[Any]) -> Row:
    id, at, kind, state, _, _, created_at, (param, value, rest) = entry
    return Row(id, branch, kind, state, 1, None, None, None, None, param, value, None, created_at, at, None, None, rest)


def folded_records(row: Row) -> list[Record]:
    """The local records a fold holds, for people to look at. Raises ValueError on damaged text."""
    found: list[Record] = []
    for entry in json.loads(row[10] or "[]"):
        if len(entry) > 7:
            found.append(from_row(_special(row[1], entry)))
        elif len(entry) > 2:
            id, at, kind, state, call, value, created_at = entry
            param = Payload(json.dumps(call)) if call is not None else Payload()
            value = Payload(json.dumps(value))
            found.append(Record(id, State(state), kind, row[1], param, value, created_at=created_at, settled_at=at))
    return found


def trimmed(segments: tuple[Segment, ...], folded: int) -> tuple[Segment, ...]:
    """The segments that still say something once so many entries are folded: one is over where the next begins."""
    first = 0
    while first + 1 < len(segments) and segments[first + 1].start <= folded:
        first += 1
    return segments[first:]
