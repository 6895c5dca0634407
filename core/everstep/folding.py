"""Folding: a settled prefix of history, kept as few records instead of many.

A fold is one immutable record `<run>.~<k>` that holds the next entries of the delivery history, in order. Local records
(steps, timers, inline children, detached starts) go into it whole and are deleted by the same commit; a promise that
outsiders may know stays where it is, and only its place in the order is kept (rule P3). The folds of a run, one after
the other, are the beginning of its history; segments of the task cut and extend what follows (rule P2.3).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Any, NamedTuple

from .promise import Kind, Payload, Record, Row, Segment, State, from_row, to_row

FOLD_MARK = "~"
_NOT_LOCAL = ""


class Entry(NamedTuple):
    """One delivery: its id, its instant in milliseconds, and its record where that is local."""

    id: str
    at: int
    row: Row | None


class Columns(NamedTuple):
    """Local records as folds hold them, column by column; calls and values are plain JSON."""

    ids: list[str]
    kinds: list[str]
    calls: list[Any]
    states: list[str]
    values: list[Any]


class Folded(NamedTuple):
    """The beginning of a history, read back. `special` are local records whose payloads are yet to be decoded."""

    history: list[tuple[str, int]]
    local: Columns
    special: list[Row]
    folds: int
    began_at: int


def fold_row(branch: str, prefix: str, number: int, began_at: int, entries: Sequence[Entry]) -> Row:
    """The record that holds these entries; those that carry their row go into it whole.

    It is written in columns, which a parser reads fastest: ids, instants, kinds, states, calls, values, instants of
    creation, and by index what is not plain JSON (its texts and headers).

    Args:
        number: of the fold, from 1.
        began_at: when the body began, in milliseconds, which the segments cease to say.
    """
    rows = [entry.row for entry in entries]
    odd = {index: row for index, row in enumerate(rows) if row is not None and row[16] is not None}
    columns = [
        json.dumps([entry.id for entry in entries]),
        json.dumps([entry.at for entry in entries]),
        json.dumps([_NOT_LOCAL if row is None else row[2] for row in rows]),
        json.dumps(["" if row is None else row[3] for row in rows]),
        _texts(["null" if row is None or row[16] is not None else row[9] or "null" for row in rows]),
        _texts(["null" if row is None or row[16] is not None else row[10] or "null" for row in rows]),
        json.dumps([0 if row is None else row[12] for row in rows]),
        json.dumps([[index, row[9], row[10], row[16]] for index, row in odd.items()]),
    ]
    record = Record(
        f"{prefix}{FOLD_MARK}{number}",
        State.RESOLVED,
        Kind.FOLD,
        branch,
        value=Payload(_texts(columns)),
        created_at=began_at,
        settled_at=entries[-1].at,
        attempt=len(entries),
        rev=1,
    )
    return to_row(record)


def _texts(values: Sequence[str]) -> str:
    return f"[{','.join(values)}]"


def unfold(rows: Iterable[Row]) -> Folded:
    """Read folds back, in order. Raises ValueError, TypeError or LookupError where one is damaged or missing."""
    ordered = sorted(rows, key=lambda row: int(row[0].rpartition(FOLD_MARK)[2]))
    if not ordered:
        return Folded([], Columns([], [], [], [], []), [], 0, 0)
    if int(ordered[-1][0].rpartition(FOLD_MARK)[2]) != len(ordered):
        raise ValueError("one is missing")
    history: list[tuple[str, int]] = []
    local = Columns([], [], [], [], [])
    special: list[Row] = []
    for row in ordered:
        ids, instants, kinds, states, calls, values, created, odd = json.loads(row[10] or "")
        history.extend(zip(ids, instants, strict=True))
        if odd:
            for index, param, value, rest in odd:
                at = instants[index]
                special.append(
                    Row(
                        ids[index], row[1], kinds[index], states[index], 1, None, None, None, None, param, value,
                        None, created[index], at, None, None, rest,
                    )
                )  # fmt: skip
                kinds[index] = _NOT_LOCAL
        whole = _NOT_LOCAL not in kinds
        for column, part in zip(local, (ids, kinds, calls, states, values), strict=True):
            column.extend(part if whole else compress(part, kinds))
    return Folded(history, local, special, len(ordered), ordered[0][12])


def folded_records(row: Row) -> list[Record]:
    """The local records a fold holds, for people to look at. Raises as `unfold`."""
    folded = unfold([row._replace(id=f"{FOLD_MARK}1")])
    created = dict(zip(*[json.loads(row[10] or "")[column] for column in (0, 6)], strict=True))
    settled = dict(folded.history)
    plain = [
        Record(
            id,
            State(state),
            kind,
            row[1],
            Payload(json.dumps(call)) if call is not None else Payload(),
            Payload(json.dumps(value)),
            created_at=created[id],
            settled_at=settled[id],
        )
        for id, kind, call, state, value in zip(*folded.local, strict=True)
    ]
    return plain + [from_row(special) for special in folded.special]


def trimmed(segments: tuple[Segment, ...], folded: int) -> tuple[Segment, ...]:
    """The segments that still say something once so many entries are folded: one is over where the next begins."""
    first = 0
    while first + 1 < len(segments) and segments[first + 1].start <= folded:
        first += 1
    return segments[first:]
