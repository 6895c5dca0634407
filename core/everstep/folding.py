"""Folding: a settled prefix of history, kept as few records instead of many.

A fold is one immutable record `<run>.~<k>` that holds the next entries of the delivery history, in order. Local records
(steps, timers, inline children, detached starts) go into it whole and are deleted by the same commit; a promise that
outsiders may know stays where it is, and only its place in the order is kept (rule P3). The folds of a run, one after
the other, are the beginning of its history; segments of the task cut and extend what follows (rule P2.3).

It is written in columns, a line each, so that a replay reads no column that it does not need, and reads the rest of a
fold when it gets there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, repeat
from typing import Any, NamedTuple, TypeVar

from .errors import DecodeError
from .operation import Cells, in_cells
from .promise import Kind, Payload, Record, Segment, State
from .rows import STATES, Row, from_row

T = TypeVar("T")

FOLD_MARK = "~"
_NOT_PLAIN = ""
"""The kind of an entry whose record is elsewhere: a promise of its own, or one that is not plain JSON."""
_UNUSED = State.RESOLVED.value
_BETWEEN = ",\n"
_WIDTH = 8


Entry = tuple[str, int, Row | None]
"""One delivery: its id, its instant in milliseconds, and its record where that is local. A plain tuple, because every
step makes one."""


class Folding(NamedTuple):
    """A fold that is to be written: its record, and the ids that are deleted with it; so many entries are in it."""

    record: Record
    gone: tuple[str, ...]
    size: int


def fold_record(branch: str, prefix: str, number: int, began_at: int, entries: Sequence[Entry]) -> Record:
    """The record that holds these entries; those that carry their row go into it whole.

    Its columns: ids, instants, kinds, states, calls, values, instants of creation, and by index what is not plain JSON
    (its texts and headers). Kinds and states are runs of the same.

    Args:
        number: of the fold, from 1.
        began_at: when the body began, in milliseconds, which the segments cease to say.
    """
    rows = [entry[2] for entry in entries]
    odd = {index: row for index, row in enumerate(rows) if row is not None and row[16] is not None}
    plain = [None if row is None or row[16] is not None else row for row in rows]
    columns = [
        json.dumps([entry[0] for entry in entries]),
        json.dumps([entry[1] for entry in entries]),
        json.dumps(_runs([_NOT_PLAIN if row is None else row[2] for row in plain])),
        json.dumps(_runs([_UNUSED if row is None else row[3] for row in plain])),
        _texts(["null" if row is None else row[9] or "null" for row in plain]),
        _texts(["null" if row is None else row[10] or "null" for row in plain]),
        json.dumps([0 if row is None else row[12] for row in rows]),
        json.dumps([[index, row[2], row[3], row[9], row[10], row[16]] for index, row in odd.items()]),
    ]
    return Record(
        f"{prefix}{FOLD_MARK}{number}",
        State.RESOLVED,
        Kind.FOLD,
        branch,
        value=Payload(f"[\n{_BETWEEN.join(columns)}\n]"),
        created_at=began_at,
        settled_at=entries[-1][1],
        attempt=len(entries),
    )


def _texts(values: Sequence[str]) -> str:
    text = f"[{','.join(values)}]"
    return text.replace("\n", " ") if "\n" in text else text  # in JSON a line ends only where a space may stand


def _runs(values: Sequence[str]) -> list[tuple[str, int]]:
    return [(value, len(list(same))) for value, same in groupby(values)]


def _expanded(runs: Sequence[tuple[T, int]]) -> Iterator[T]:
    return chain.from_iterable([repeat(value, count) for value, count in runs])


class Fold:
    """A fold as it is read back: what it delivers at once, the rest when it is asked for.

    Attributes:
        ids: what it delivers, in order.
        began_at: when the body began, in milliseconds.

    Raises ValueError, TypeError or LookupError where it is damaged.
    """

    __slots__ = ("_columns", "_row", "began_at", "ids")

    def __init__(self, row: Row) -> None:
        columns = (row[10] or "")[2:-2].split(_BETWEEN)
        if len(columns) != _WIDTH:
            raise ValueError(f"{len(columns)} columns")
        self._row = row
        self._columns = columns
        self.began_at = row[12]
        self.ids: list[str] = json.loads(columns[0])

    def column(self, number: int) -> list[Any]:
        """A column as it was written."""
        found: list[Any] = json.loads(self._columns[number])
        return found

    def entries(self) -> tuple[list[int], Sequence[Cells | None]]:
        """Instants, in milliseconds, and what is recorded; None where that is not in the fold as plain JSON.

        Raises DecodeError, naming the fold, where it is damaged.
        """
        try:
            instants, kinds, ended, calls, values = json.loads(f"[{','.join(self._columns[1:6])}]")
            states = _expanded([(STATES[state], count) for state, count in ended])
            records: Sequence[Cells | None] = in_cells(_expanded(kinds), calls, states, values)
            if not len(instants) == len(records) == len(self.ids):
                raise ValueError("its columns differ in length")
        except (ValueError, TypeError, LookupError) as error:
            raise DecodeError(f"{self._row.id}: a fold of its history is damaged: {error}") from None
        if any(kind == _NOT_PLAIN for kind, _ in kinds):
            records = [one if one is not None and one[0] != _NOT_PLAIN else None for one in records]
        return instants, records

    def special(self) -> list[Row]:
        """Local records whose payloads are yet to be decoded. Raises as the class does."""
        if self._columns[7] == "[]":
            return []
        instants, created = self.column(1), self.column(6)
        return [
            Row(
                self.ids[index], self._row[1], kind, state, 1, None, None, None, None, param, value,
                None, created[index], instants[index], None, None, rest,
            )
            for index, kind, state, param, value, rest in self.column(7)
        ]  # fmt: skip


def unfold(rows: Iterable[Row]) -> list[Fold]:
    """Read folds back, in order. Raises ValueError, TypeError or LookupError where one is damaged or missing."""
    ordered = sorted([(int(row[0].rpartition(FOLD_MARK)[2]), row) for row in rows], key=lambda one: one[0])
    if ordered and ordered[-1][0] != len(ordered):
        raise ValueError("one is missing")
    return [Fold(row) for _, row in ordered]


def folded_records(row: Row) -> list[Record]:
    """The local records a fold holds, for people to look at. Raises as `Fold`, and DecodeError."""
    fold = Fold(row)
    created = fold.column(6)
    instants, records = fold.entries()
    plain = [
        Record(
            id,
            one[2],
            one[0],
            row[1],
            Payload(json.dumps(one[1])) if one[1][0] else Payload(),
            Payload(json.dumps(one[3])),
            created_at=began,
            settled_at=at,
        )
        for id, at, began, one in zip(fold.ids, instants, created, records, strict=True)
        if one is not None
    ]
    return plain + [from_row(special) for special in fold.special()]


def trimmed(segments: tuple[Segment, ...], folded: int) -> tuple[Segment, ...]:
    """The segments that still say something once so many entries are folded: one is over where the next begins."""
    first = 0
    while first + 1 < len(segments) and segments[first + 1].start <= folded:
        first += 1
    return segments[first:]
