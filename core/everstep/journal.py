"""The history of a run, read off its records (rule P2.3).

For each epoch in order: cut to where it began, append what it delivered on arrival, then the records stamped with that
epoch while their numbers are contiguous. A stamped record that is not part of it is an orphan: the write of a holder
whose interleaving was lost. Records of older generations are stale.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, NamedTuple

from .codec import Codec
from .errors import DecodeError
from .folding import Entry, unfold
from .ids import child_prefix
from .nesting import DEEPEST, check_nesting, loads
from .operation import _NOTHING, Recorded, in_cells
from .past import Past
from .promise import LOCAL, Kind, Record, Segment, State, Task, make, project, retention_of
from .rows import STATES, Row, from_row, is_local


class Journal(NamedTuple):
    """What a body is replayed against.

    `history` is in delivery order, `length` long even where it was not read; `inbox` are completions that the next
    acquisition delivers first; `created` are promises the store knows and history does not
    deliver; `loose` are local records outside history, orphans and failed attempts; `overdue` are records to be written
    as settled by their deadline; `tail` is the history that is not in one of the `folds` yet.
    """

    history: Past
    length: int
    began_at: int | None
    recorded: dict[str, Recorded]
    created: dict[str, Recorded]
    inbox: tuple[str, ...]
    loose: dict[str, Record]
    revs: dict[str, int]
    stale: list[str]
    overdue: list[tuple[Record, Record]]
    progressed: bool
    tail: list[Entry]
    folds: int


class unhurried_collector:
    """Building a large journal makes no garbage, and a collector that looks for some over and over doubles its cost."""

    __slots__ = ("_enabled",)

    def __enter__(self) -> None:
        self._enabled = gc.isenabled()
        gc.disable()

    def __exit__(self, *_: object) -> None:
        if self._enabled:
            gc.enable()


def fresh() -> Journal:
    """The journal of a generation that begins."""
    return Journal(Past(), 0, None, {}, {}, (), {}, {}, [], [], True, [], 0)


async def read(record: Record, rows: Sequence[Row], codec: Codec, now: int) -> Journal:
    """Read the journal of a task's current generation from the rows of its branch.

    Raises DecodeError, naming the record, when one cannot be read.
    """
    task = record.task
    assert task is not None
    with unhurried_collector():
        return await _read(record, task, rows, codec, now)


async def _read(record: Record, task: Task, rows: Sequence[Row], codec: Codec, now: int) -> Journal:
    prefix = child_prefix(record.id, task.generation)
    generations = f"{record.id}.g" if task.generation == 1 else "\0"
    own = {id: row for row in rows if (id := row[0]).startswith(prefix) and not id.startswith(generations)}
    keep = retention_of(record.tags)
    before = now - keep if keep is not None else 0
    stale = [id for row in rows if (id := row[0]) not in own and id != record.id and _is_stale(row, before)]
    try:
        folds = unfold([own.pop(row[0]) for row in rows if row[2] == Kind.FOLD and row[0] in own])
        special = [row for fold in folds for row in fold.special()]
    except (ValueError, TypeError, LookupError) as error:
        raise DecodeError(f"{record.id}: a fold of its history is damaged: {error}") from None
    settled = sum([len(fold.ids) for fold in folds])
    ids, instants, progressed = _history(task.segments, own, settled)
    asked = {*own, *[id for id, _ in task.timers]}
    delivered = asked.intersection(ids).union(*[asked.intersection(fold.ids) for fold in folds])
    recorded = await _decode([*special, *[row for id, row in own.items() if id in delivered]], codec)
    created: dict[str, Recorded] = {}
    loose: dict[str, Record] = {}
    arrived: list[tuple[int, str]] = []
    overdue: list[tuple[Record, Record]] = []
    others = [row for id, row in own.items() if id not in delivered]
    for id, entry in (await _decode(others, codec)).items():
        stored = from_row(own[id])
        if is_local(own[id]):
            loose[id] = stored._replace(param=await codec.internalize(stored.param))
            continue
        shown = project(stored, now)
        if shown.state is State.PENDING:
            created[id] = entry
            continue
        if stored.state is State.PENDING:
            overdue.append((stored, shown))
        recorded[id] = entry._replace(state=shown.state)
        arrived.append((shown.settled_at or now, id))
    local = {id: row for id, row in own.items() if row[2] in LOCAL}
    return Journal(
        Past(ids, instants, recorded, folds),
        settled + len(ids),
        folds[0].began_at if folds else task.segments[0].at if task.segments else None,
        recorded,
        created,
        _inbox(arrived, record, loose, delivered, now),
        loose,
        {id: row[4] for id, row in own.items()},
        stale,
        overdue,
        progressed,
        list(zip(ids, instants, map(local.get, ids), strict=True)),
        len(folds),
    )


def _is_stale(row: Row, before: int) -> bool:
    """Whether a record of a generation that is over can go: a local one, or any past its retention (rules P3, T1)."""
    return row.kind in LOCAL or (row.settled_at is not None and row.settled_at <= before)


def _history(segments: Sequence[Segment], own: Mapping[str, Row], folded: int) -> tuple[list[str], list[int], bool]:
    """Ids in delivery order, after so many that are folded, their instants; and whether the last epoch added to them.

    A fold may end anywhere, in the middle of an inbox too: what of it is not folded is still to be delivered.
    """
    stamped = {(row[7], row[8]): row for row in own.values() if row[7] is not None}
    ids: list[str] = []
    instants: list[int] = []
    before = 0
    for segment in segments:
        before = segment.start + len(segment.inbox)
        after = segment.start - folded
        del ids[max(0, after) :], instants[max(0, after) :]
        inbox = segment.inbox if after >= 0 else segment.inbox[-after:]
        ids += inbox
        instants += [segment.at] * len(inbox)
        epoch, n = segment.epoch, folded + len(ids) + 1
        while (row := stamped.get((epoch, n))) is not None:
            ids.append(row[0])
            instants.append(row[13] or segment.at)
            n += 1
    return ids, instants, folded + len(ids) > before


def _inbox(
    arrived: list[tuple[int, str]], record: Record, loose: Collection[str], delivered: Collection[str], now: int
) -> tuple[str, ...]:
    """What the next acquisition delivers, in the order it settled: promises, and timers that are no step's back-off."""
    assert record.task is not None
    timers = [(at, id) for id, at in record.task.timers if at <= now and id not in loose and id not in delivered]
    return tuple([id for _, id in sorted([*arrived, *timers])])


async def read_arrivals(
    record: Record,
    rows: Sequence[Row],
    known: Mapping[str, State],
    delivered: int,
    revs: dict[str, int],
    loose: dict[str, Record],
    codec: Codec,
    now: int,
    gone: Collection[str] = (),
) -> Journal:
    """What arrived for a body that was kept warm: of its branch only what it waits for was loaded.

    Args:
        known: children that stood in the store, and how, when the body was kept.
        delivered: the length of the body's history.
        gone: children that the body itself has cancelled, and history does not deliver yet.
    """
    waited = [row for row in rows if row.id != record.id and (known.get(row.id) is State.PENDING or row.id in gone)]
    entries = await _decode(waited, codec)
    recorded: dict[str, Recorded] = {}
    arrived: list[tuple[int, str]] = []
    overdue: list[tuple[Record, Record]] = []
    for row in waited:
        stored = from_row(row)
        shown = project(stored, now)
        revs[row.id] = row.rev
        if shown.state is State.PENDING:
            continue
        if stored.state is State.PENDING:
            overdue.append((stored, shown))
        recorded[row.id] = entries[row.id]._replace(state=shown.state)
        arrived.append((shown.settled_at or now, row.id))
    inbox = _inbox(arrived, record, loose, (), now)
    return Journal(Past(), delivered, None, recorded, {}, inbox, loose, revs, [], overdue, True, [], 0)


async def _decode(rows: Sequence[Row], codec: Codec) -> dict[str, Recorded]:
    """What each row records; plain ones in one pass of the parser, and built without a call of Python each."""
    if not rows:
        return {}
    plain = [row for row in rows if row[16] is None or not _has_headers(row[16])]
    texts = [text for row in plain for text in (row[9] or _NO_CALL, row[10] or "null")]
    try:
        for text in texts:
            if len(text) > DEEPEST:
                check_nesting(text)
        parsed = json.loads(f"[{','.join(texts)}]")
        if len(parsed) != len(texts):
            raise ValueError("a record holds more than one value")
    except ValueError:
        parsed = [_parse(row, text) for row, text in zip([row for row in plain for _ in "ab"], texts, strict=True)]
    states = [STATES[row[3]] for row in plain]
    cells = in_cells([row[2] for row in plain], parsed[::2], states, parsed[1::2])
    records: Iterator[Recorded] = map(make, repeat(Recorded), cells)
    found = dict(zip([row[0] for row in plain], records, strict=True))
    if len(plain) < len(rows):
        for row in rows:
            if row[0] not in found:
                record = from_row(row)
                call = codec.decode(await codec.internalize(record.param))
                value = codec.decode(await codec.internalize(record.value))
                found[row[0]] = Recorded(record.kind, call or _NOTHING, record.state, value)
    return found


def _has_headers(rest: str | None) -> bool:
    return rest is not None and ('"ph"' in rest or '"vh"' in rest)


def _parse(row: Row, text: str) -> Any:
    try:
        return loads(text)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"{row.id}: its record is damaged: {error}") from None


_NO_CALL = '["",[]]'
