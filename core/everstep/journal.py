"""The history of a run, read off its records (rule P2.3).

For each epoch in order: cut to where it began, append what it delivered on arrival, then the records stamped with that
epoch while their numbers are contiguous. A stamped record that is not part of it is an orphan: the write of a holder
whose interleaving was lost. Records of older generations are stale.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .codec import Codec
from .engine import Recorded
from .errors import DecodeError
from .ids import child_prefix
from .promise import _STATES, Kind, Record, Row, State, from_row, project

_LOCAL = (Kind.STEP, Kind.CHILD, Kind.TIMER, Kind.DETACHED)


class Journal(NamedTuple):
    """What a body is replayed against.

    `history` is in delivery order with instants (milliseconds); `inbox` are the completions that the next acquisition
    delivers first; `created` are promises the store knows and history does not deliver; `loose` are local records
    outside history, orphans and failed attempts; `overdue` are records to be written as settled by their deadline.
    """

    history: list[tuple[str, int]]
    began_at: int | None
    recorded: dict[str, Recorded]
    created: dict[str, Recorded]
    inbox: tuple[str, ...]
    loose: dict[str, Record]
    revs: dict[str, int]
    stale: list[str]
    overdue: list[tuple[Record, Record]]
    progressed: bool


NO_JOURNAL = Journal([], None, {}, {}, (), {}, {}, [], [], True)
"""Of a generation that begins."""


async def read(record: Record, rows: Sequence[Row], codec: Codec, now: int) -> Journal:
    """Read the journal of a task's current generation from the rows of its branch.

    Raises DecodeError, naming the record, when one cannot be read.
    """
    task = record.task
    assert task is not None
    prefix = child_prefix(record.id, task.generation)
    generations = f"{record.id}.g"
    own: dict[str, Row] = {}
    stale: list[str] = []
    epochs: dict[int, dict[int, str]] = {}
    for row in rows:
        id = row[0]
        if not id.startswith(prefix) or (task.generation == 1 and id.startswith(generations)):
            if id != record.id and row.kind in _LOCAL:
                stale.append(id)
            continue
        own[id] = row
        if row[7] is not None:
            epochs.setdefault(row[7], {})[row[8]] = id  # type: ignore[index]

    history: list[tuple[str, int]] = []
    before = 0
    for segment in task.segments:
        del history[segment.start :]
        before = segment.start + len(segment.inbox)
        history.extend([(id, segment.at) for id in segment.inbox])
        stamped = epochs.get(segment.epoch)
        if stamped:
            n = len(history) + 1
            while n in stamped:
                id = stamped[n]
                history.append((id, own[id].settled_at or segment.at))
                n += 1

    calls = await _decode(own, codec)
    delivered = {id for id, _ in history}
    recorded: dict[str, Recorded] = {}
    created: dict[str, Recorded] = {}
    loose: dict[str, Record] = {}
    arrived: list[tuple[int, str]] = []
    overdue: list[tuple[Record, Record]] = []
    for id, row in own.items():
        name, args, kwargs, value = calls[id]
        state = _STATES[row[3]]
        if id in delivered:
            recorded[id] = Recorded(row[2], name, args, kwargs, state, value)
        elif row[7] is not None or row[2] in _LOCAL:
            loose[id] = from_row(row)
        else:
            if state is State.PENDING and row[11] is not None and row[11] <= now:
                pending = from_row(row)
                settled = project(pending, now)
                state = settled.state
                overdue.append((pending, settled))
            entry = Recorded(row[2], name, args, kwargs, state, value)
            if state is State.PENDING:
                created[id] = entry
            else:
                recorded[id] = entry
                arrived.append((row.settled_at or now, id))
    retries = loose.keys()
    arrived.extend([(at, id) for id, at in task.timers if at <= now and id not in retries and id not in delivered])
    arrived.sort()
    return Journal(
        history,
        task.segments[0].at if task.segments else None,
        recorded,
        created,
        tuple([id for _, id in arrived]),
        loose,
        {id: row[4] for id, row in own.items()},
        stale,
        overdue,
        len(history) > before,
    )


async def read_arrivals(
    record: Record,
    rows: Sequence[Row],
    known: Mapping[str, State],
    delivered: int,
    revs: dict[str, int],
    loose: dict[str, Record],
    codec: Codec,
    now: int,
) -> Journal:
    """What arrived for a body that was kept warm: of its branch only what it waits for was loaded.

    Args:
        known: children that stood in the store, and how, when the body was kept.
        delivered: the length of the body's history.
    """
    task = record.task
    assert task is not None
    recorded: dict[str, Recorded] = {}
    arrived: list[tuple[int, str]] = []
    overdue: list[tuple[Record, Record]] = []
    for row in rows:
        if row.id == record.id:
            continue
        stored = from_row(row)
        shown = project(stored, now)
        revs[row.id] = row.rev
        if shown.state is State.PENDING or known.get(row.id) is not State.PENDING:
            continue
        if stored.state is State.PENDING:
            overdue.append((stored, shown))
        value = codec.decode(await codec.internalize(shown.value))
        recorded[row.id] = Recorded(row.kind, "", [], {}, shown.state, value)
        arrived.append((shown.settled_at or now, row.id))
    arrived.extend([(at, id) for id, at in task.timers if at <= now and id not in loose])
    history = [("", 0)] * delivered
    return Journal(
        history, None, recorded, {}, tuple([id for _, id in sorted(arrived)]), loose, revs, [], overdue, True
    )


async def _decode(rows: Mapping[str, Row], codec: Codec) -> dict[str, tuple[str, list[Any], dict[str, Any], Any]]:
    """Every record's call and value; the plain ones in one pass of the parser."""
    texts: list[str] = []
    ids: list[str] = []
    special: list[Row] = []
    for id, row in rows.items():
        if row[16] is not None and ('"ph"' in row[16] or '"vh"' in row[16]):
            special.append(row)
        else:
            ids.append(id)
            texts.append(row[9] or '["",[]]')
            texts.append(row[10] or "null")
    try:
        parsed = json.loads(f"[{','.join(texts)}]")
        if len(parsed) != 2 * len(ids):
            raise ValueError("a record holds more than one value")
    except ValueError:
        parsed = []
        for id, param, value in zip(ids, texts[::2], texts[1::2], strict=True):
            try:
                parsed += (json.loads(param), json.loads(value))
            except ValueError as error:
                raise DecodeError(f"{id}: its record is damaged: {error}") from None
    calls: dict[str, tuple[str, list[Any], dict[str, Any], Any]] = {}
    values = iter(parsed)
    for id, call in zip(ids, values, strict=False):
        value = next(values)
        try:
            calls[id] = (call[0], call[1], call[2] if len(call) > 2 else {}, value)
        except (TypeError, KeyError, IndexError):
            raise DecodeError(f"{id}: its record holds no call of a function") from None
    for row in special:
        record = from_row(row)
        call = codec.decode(await codec.internalize(record.param)) or ["", []]
        value = codec.decode(await codec.internalize(record.value))
        calls[row.id] = (call[0], call[1], call[2] if len(call) > 2 else {}, value)
    return calls
