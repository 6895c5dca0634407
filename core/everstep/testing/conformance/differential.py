"""Random operations on two stores side by side: every reply equal, every row equal after each of them.

Theory. The ids are few, so that operations collide. Each operation has a signature: what was asked, which of its
conditions stood, and the shape of the reply. The run ends when a number of rounds in a row brought no new signature, so
that its length follows from what is left to discover and not from a guess.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

from everstep.ports import Commit, Fence, Guard, Put, Query, Store
from everstep.promise import SCHEDULE_PREFIX, Kind, State
from everstep.rows import Row

from .rows import row

_TREES = {
    "a": ("a", "a.1", "a.1.1", "a.10", "a.2"),
    "ab": ("ab", "ab.1"),
    "a-1": ("a-1",),
    "é/ x": ("é/ x", "é/ x.1"),
    f"{SCHEDULE_PREFIX}s": (f"{SCHEDULE_PREFIX}s",),
}
_IDS = tuple(id for tree in _TREES.values() for id in tree)
_STATES = (*[State.PENDING] * 5, State.RESOLVED, State.REJECTED, State.CANCELED, State.TIMEDOUT)
_TAGS: tuple[tuple[str | None, Mapping[str, str]], ...] = (
    (None, {}),
    ('{"t":"1"}', {"t": "1"}),
    ('{"t":"2","ü":"x"}', {"ü": "x"}),
)


class Difference(AssertionError):
    """The stores parted; the message holds the operation and both replies."""


class Outcome(NamedTuple):
    """How long a comparison ran, and how many signatures it met."""

    rounds: int
    signatures: int


async def compare(
    oracle: Store,
    other: Store,
    rng: random.Random,
    *,
    quiet_rounds: int = 3000,
    most_rounds: int = 1_000_000,
    soft_fences: bool = True,
) -> Outcome:
    """Run random operations on both, until `quiet_rounds` in a row bring nothing new.

    Args:
        oracle: an empty memory store.
        other: the empty store under test; unless it is a single writer, guards are only on what is deleted.
        rng: seeded, so that a failure can be repeated.
        soft_fences: False for a store that leaves soft fences unchecked.

    Raises:
        Difference: a reply or the rows differ.
    """
    seen: set[Hashable] = set()
    rounds = quiet = 0
    operations = _Operations(rng, other.single_writer, soft_fences)
    while quiet < quiet_rounds and rounds < most_rounds:
        rows = await oracle.load(_IDS)
        name, argument, conditions = operations.next(rows)
        replies = [await _perform(store, name, argument) for store in (oracle, other)]
        if replies[0] != replies[1]:
            raise Difference(f"round {rounds}: {name} {argument}\noracle: {replies[0]}\nother:  {replies[1]}")
        after = [await store.load(_IDS) for store in (oracle, other)]
        if after[0] != after[1]:
            raise Difference(f"round {rounds}: after {name} {argument}\noracle: {after[0]}\nother:  {after[1]}")
        signature = (name, conditions, _shape(replies[0]))
        quiet = quiet + 1 if signature in seen else 0
        seen.add(signature)
        rounds += 1
    return Outcome(rounds, len(seen))


async def _perform(store: Store, name: str, argument: Any) -> Any:
    match name:
        case "commit":
            return await store.commit(argument)
        case "load":
            return await store.load(argument)
        case "branch":
            return sorted(await store.branch(argument))
        case "due":
            return await store.due(*argument)
        case "find":
            return await store.find(argument)
        case _:
            return await store.delete(argument)


def _shape(reply: Any) -> Hashable:
    match reply:
        case None:
            return reply
        case int():
            return min(reply, 3)
        case (bool() as fenced, dict() as found):
            return (fenced, bool(found))
        case (list() as rows, cursor):
            return (min(len(rows), 1), cursor is None)
        case _:
            return min(len(reply), 3)


class _Operations:
    def __init__(self, rng: random.Random, guards: bool, soft_fences: bool) -> None:
        self._rng = rng
        self._guards = guards
        self._soft_fences = soft_fences
        self._written = 0

    def next(self, rows: Mapping[str, Row]) -> tuple[str, Any, Hashable]:
        """An operation, its argument, and which of its conditions hold now."""
        rng = self._rng
        kind = rng.choices(("commit", "load", "branch", "due", "find", "delete"), (60, 3, 8, 8, 18, 3))[0]
        match kind:
            case "commit":
                return (kind, *self._commit(rows))
            case "load":
                ids = rng.choices((*_IDS, "nobody"), k=rng.randrange(5))
                return kind, ids, len(ids)
            case "branch":
                id = rng.choice((*_IDS, "nobody"))
                return kind, id, (id, id in rows)
            case "due":
                now, limit = rng.randrange(12), rng.choice((1, 2, 100))
                return kind, (now, limit), limit
            case "find":
                return (kind, *self._query())
            case _:
                origin = rng.choice((*_TREES, "nobody"))
                return kind, origin, origin

    def _commit(self, rows: Mapping[str, Row]) -> tuple[Commit, Hashable]:
        rng = self._rng
        origin = rng.choice(tuple(_TREES))
        ids = list(_TREES[origin])
        rng.shuffle(ids)
        count = min(len(ids), rng.choices((0, 1, 2, 3), (5, 65, 20, 10))[0])
        puts = tuple(self._put(id, rows.get(id)) for id in ids[:count])
        rest = ids[count:]
        deletes = tuple(rest[: rng.choices((0, 1, 2), (80, 15, 5))[0]])
        fence = self._fence(origin, rows) if rng.random() < 0.4 else None
        guards: tuple[Guard, ...] = ()
        guarded = rest if self._guards else deletes
        if guarded and rng.random() < (0.2 if self._guards else 0.5):
            guards = tuple(Guard(id, self._expect(rows.get(id))) for id in guarded[-1:])
        conditions = (
            len(puts) > 1,
            frozenset((_standing(rows.get(put.row.id)), _holds(rows, put.row.id, put.expect)) for put in puts),
            any(id in rows for id in deletes) if deletes else None,
            None if fence is None else (fence.id in ids[:count], _leased(rows, fence)),
            [_holds(rows, guard.id, guard.rev) for guard in guards] == [True] if guards else None,
        )
        return Commit(origin, puts, deletes, fence, guards), conditions

    def _put(self, id: str, standing: Row | None) -> Put:
        rng = self._rng
        self._written += 1
        state = rng.choice(_STATES)
        schedule = id.startswith(SCHEDULE_PREFIX)
        new = row(
            id,
            rev=self._written,
            branch=rng.choice(("a", "a.1", id.partition(".")[0])),
            kind=Kind.SCHEDULE if schedule else rng.choice((Kind.STEP, Kind.ROOT, Kind.TIMER, "")),
            state=state.value,
            due=rng.choice((None, rng.randrange(10))),
            lease=rng.choice((None, 1, 2)),
            epoch=rng.choice((None, 1)),
            n=rng.choice((None, 0)),
            param=rng.choice((None, "", "{}", "ü")),
            value=rng.choice((None, str(self._written))),
            settled_at=None if state is State.PENDING else rng.randrange(10),
            tags=rng.choice(_TAGS)[0],
            rest=rng.choice((None, "{}")),
        )
        return Put(new, self._expect(standing))

    def _expect(self, standing: Row | None) -> int:
        right = 0 if standing is None else standing.rev
        return right if self._rng.random() < 0.8 else self._rng.choice((0, 1, right + 1))

    def _fence(self, origin: str, rows: Mapping[str, Row]) -> Fence:
        rng = self._rng
        id = rng.choice(_TREES[origin])
        lease = rows[id].lease if id in rows else None
        version = lease if lease is not None and rng.random() < 0.7 else rng.randrange(4)
        return Fence(id, version, self._soft_fences and rng.random() < 0.5)

    def _query(self) -> tuple[Query, Hashable]:
        rng = self._rng
        query = Query(
            state=rng.choice((None, None, *[state.value for state in State])),
            tags=rng.choice(_TAGS)[1] if rng.random() < 0.4 else {},
            prefix=rng.choice(("", "", "a", "a.", "a.1", "é/", "~", "\U0010ffff", "\ud7ff")),
            roots=rng.random() < 0.5,
            kinds=rng.choice(((), (), (Kind.SCHEDULE,), (Kind.ROOT,), (Kind.STEP, ""), (Kind.SCHEDULE, Kind.STEP))),
            settled_before=rng.choice((None, None, rng.randrange(11))),
            limit=rng.choice((1, 2, 100)),
            cursor=rng.choice((None, None, *_IDS)),
        )
        asked = (
            None if query.state is None else query.state == State.PENDING.value,
            bool(query.tags),
            bool(query.prefix),
            query.roots,
            query.kinds == (Kind.SCHEDULE,) if query.kinds else None,
            query.settled_before is None,
        )
        return query, asked


def _standing(standing: Row | None) -> str:
    return "" if standing is None else "pending" if standing.state == State.PENDING.value else "settled"


def _holds(rows: Mapping[str, Row], id: str, rev: int) -> bool:
    return (rows[id].rev if id in rows else 0) == rev


def _leased(rows: Mapping[str, Row], fence: Fence) -> bool:
    return fence.id in rows and rows[fence.id].lease == fence.version
