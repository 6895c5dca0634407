"""Local completions and failed attempts: one record, one store request each.

A completion's record carries `(epoch, n)`, and so says itself which delivery it is (rule P2.1). A write that meets the
record of a holder whose interleaving was lost adopts its value where the work is the same, and replaces it otherwise
(P2.4); one that meets a newer epoch has lost its lease.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import LeaseLost
from .folding import Entry, Folding, fold_record
from .ids import child_prefix, origin_of
from .operation import DurableFuture
from .ports import Commit, Put
from .promise import EMPTY, UNREAD, Kind, Payload, Record, Stamp, State, make
from .rows import Row, from_row, is_local, to_row

if TYPE_CHECKING:
    from .holding import Holding
    from .steps import FailedForNow


_LARGE = 4096
_FOLDED_SIZE = 1 << 20
_SEGMENTS = 64
"""Segments a task's record may hold before history is folded, which takes their place; a store that prices a write by
its size says fewer, as `segments`."""
_NAMED = 200_000
"""Characters of ids and instants that one fold holds where it names records and does not contain them."""
_PIECE = 8
"""How much goes into one fold at most, in units of `fold_after`."""
FOUND = 1
"""Pieces that are folded where a load finds them: an invocation was killed in the middle of a long run."""
GROWN = 4
"""Pieces that are folded while the body runs. What it waits for next may be the end, where no fold pays: this bounds
what is kept in memory, and what is read where it is killed."""
ERROR = "everstep:error"
"""Tag of a step that is to run again: what its last attempt failed with, in a few words."""


class Ready(NamedTuple):
    """A completion that is about to be written: the operation (None for one of asyncio's timers) and its outcome.

    It came about at `at` and was begun at `began`, in milliseconds. `value` is what the payload holds, where that is
    known already.
    """

    op: DurableFuture[Any] | None
    key: str
    state: State
    payload: Payload
    at: int
    began: int | None = None
    value: Any = UNREAD


ReadyCells = tuple[DurableFuture[Any] | None, str, State, Payload, int, int | None, Any]
"""What a `Ready` is made of: what every step makes one of, and reads by its place."""


class Recorder:
    """What is known of a run's local records, and how more are written.

    Args:
        revs: the rev of each record of the branch.
        loose: local records outside history: orphans and failed attempts.
        tail: the history that is not in one of the `folds` yet.
    """

    def __init__(
        self, holding: Holding, revs: dict[str, int], loose: dict[str, Record], tail: list[Entry], folds: int
    ) -> None:
        self._holding = holding
        self._store = holding.driver.store
        self._codec = holding.driver.codec
        self._origin = origin_of(holding.id)
        self.revs = revs
        self.loose = loose
        self.tail = tail
        self.folds = folds
        self.grown = GROWN * _PIECE * holding.driver.fold_after

    def attempts(self, op: DurableFuture[Any]) -> int:
        """How often this step has failed already."""
        loose = self.loose.get(op.key)
        return loose.attempt if loose is not None and self._same(loose.param, op.param) else 0

    def found(self, op: DurableFuture[Any], now: int) -> Ready | None:
        """The result an orphan holds for this operation: its value counts, its number does not (P2.4)."""
        loose = self.loose.get(op.key)
        if loose is None or loose.kind != op.kind or not self._same(loose.param, op.param):
            return None
        if loose.state is State.PENDING or loose.state is State.CANCELED:
            return None
        return Ready(op, op.key, loose.state, loose.value, loose.settled_at or now)

    def waits_until(self, op: DurableFuture[Any]) -> int | None:
        """When the next attempt of a step that has failed is due."""
        loose = self.loose.get(op.key)
        if loose is None or not loose.pending or not self._same(loose.param, op.param):
            return None
        return loose.retry_at

    def _same(self, stood: Payload, own: Payload) -> bool:
        """Whether two params are the same call: an encrypted one is another text every time."""
        return stood == own or (bool(stood.headers) and self._codec.decode(stood) == self._codec.decode(own))

    async def complete(self, item: ReadyCells, n: int) -> tuple[State, Any, Row]:
        """Write one completion as delivery number `n`; returns what stands: state, plain value and row.

        Raises:
            LeaseLost: another holder took over.
            StoreError: the platform is in trouble; the outcome of the write is unknown.
        """
        op, key, state, payload, at, began, value = item
        kind = op.kind if op is not None else Kind.TIMER
        param = op.param if op is not None and kind != Kind.TIMER else EMPTY
        fence = self._holding.soft_fence
        branch, version, _ = fence
        loose = self.loose.pop(key, None) if self.loose else None
        expect = self.revs.get(key, 0)
        limit = self._codec.limit
        if payload.headers or (payload.data is not None and len(payload.data) * 3 > limit):
            payload = await self._codec.externalize(payload, key, "value")
        if param.headers or (param.data is not None and len(param.data) * 3 > limit):
            param = await self._codec.externalize(param, key, "param")
        for _ in range(3):
            if param.headers or payload.headers or loose is not None:
                row = self._odd(key, kind, param, state, payload, at, began, Stamp(version, n), expect + 1, loose)
            else:
                # What `to_row` makes of it, without the detour through a record: this is what every step pays.
                created_at = began if began is not None else at
                cells = (param[0], payload[0], None, created_at, at, None, None, None)
                row = make(Row, (key, branch, kind, state._value_, expect + 1, None, None, version, n, *cells))
            put = make(Put, (row, expect))
            refused = await self._store.commit(make(Commit, (self._origin, (put,), (), fence, ())))
            if refused is None:
                break
            if refused.fenced:
                raise LeaseLost(self._holding.id)
            found = refused.found.get(key)
            if found is None:
                expect = 0
                continue
            expect = found.rev
            if found.epoch == version and found.n == n:
                expect -= 1
                break  # our own write, whose answer was lost (F3)
            if (found.epoch is not None and found.epoch > version) or not is_local(found):
                raise LeaseLost(self._holding.id)  # created under a newer lease, or we would have met it on load
            stood = from_row(found)
            if stood.kind != kind or stood.state in (State.PENDING, State.CANCELED):
                continue
            if stood.param == param or (
                op is not None and self._same(await self._codec.internalize(stood.param), op.param)
            ):
                state, payload, value = stood.state, stood.value, UNREAD
        else:
            raise LeaseLost(self._holding.id)
        self.revs[key] = expect + 1
        if value is UNREAD:
            value = self._codec.decode(await self._codec.internalize(payload) if payload.headers else payload)
        return state, value, row

    def _odd(
        self,
        key: str,
        kind: str,
        param: Payload,
        state: State,
        payload: Payload,
        at: int,
        began: int | None,
        stamp: Stamp,
        rev: int,
        loose: Record | None,
    ) -> Row:
        """The row of a completion that has headers, or attempts before it."""
        return to_row(
            Record(
                key,
                state,
                kind,
                self._holding.id,
                param,
                payload,
                created_at=loose.created_at if loose is not None else began if began is not None else at,
                settled_at=at,
                stamp=stamp,
                attempt=loose.attempt if loose is not None else 0,
                rev=rev,
            )
        )

    def note(self, id: str, at: int, row: Row | None) -> None:
        """A delivery became part of history. What is large stays a record of its own when it is folded."""
        if row is not None and len(row[9] or "") + len(row[10] or "") > _LARGE:
            row = None
        self.tail.append((id, at, row))

    def folding(self, began_at: int, size: int) -> Folding:
        """The first entries of the tail as one record, so that later loads read few (rule P3)."""
        holding = self._holding
        entries = self.tail[:size]
        if sum([_size(row) for _, _, row in entries if row is not None]) > _FOLDED_SIZE:
            entries = entries[: holding.driver.fold_after]
        if not self._store.folds:
            entries = [(id, at, None) for id, at, _ in entries]
            room = _NAMED // (40 + max(len(id.encode()) for id, _, _ in entries))
            entries = entries[: max(1, room)]
        prefix = child_prefix(holding.id, holding.task.generation)
        record = fold_record(holding.id, prefix, self.folds + 1, began_at, entries)
        return Folding(record, tuple([id for id, _, row in entries if row is not None]), len(entries))

    async def fold(self, folding: Folding) -> None:
        """Write a fold by itself. Raises LeaseLost."""
        holding = self._holding
        put = Put(to_row(folding.record._replace(rev=1)), 0)
        refused = await self._store.commit(Commit(self._origin, (put,), folding.gone, holding.fence()))
        if refused is not None:
            raise LeaseLost(holding.id)
        self.folded(folding)

    def folded(self, folding: Folding | None) -> None:
        """A fold was written, if there was one to write."""
        if folding is None:
            return
        holding = self._holding
        record, gone, size = folding
        for id in gone:
            del self.revs[id]
        self.revs[record.id] = 1
        self.folds += 1
        holding.folded += size
        del self.tail[:size]
        holding.driver.tell("folded", holding.id, entries=size)

    async def fold_pieces(self, began_at: int, pieces: int) -> None:
        """Fold what was not, where it is so many pieces or more, by writes of their own. Raises LeaseLost."""
        piece = _PIECE * self._holding.driver.fold_after
        if len(self.tail) >= pieces * piece:
            while len(self.tail) >= piece:
                await self.fold(self.folding(began_at, piece))

    async def fold_with(self, began_at: int) -> Folding | None:
        """Fold what history has grown by, when the run is about to be put down: the next load is quick.

        The last piece is returned: where a commit takes several rows it goes with the write that puts the run down, so
        it costs no request, and is worth it for less. Raises LeaseLost.
        """
        holding, together, most = self._holding, self._store.folds, self._holding.driver.fold_after
        segments = getattr(self._store, "segments", _SEGMENTS)
        # Ever more, so that the number of folds stays small beside what is in them.
        enough = min(most, max(most, holding.folded) // 8) if together else most
        while len(self.tail) >= max(enough, 1) or (self.tail and len(holding.task.segments) > segments):
            folding = self.folding(began_at, _PIECE * most)
            if together and folding.size == len(self.tail):
                return folding
            await self.fold(folding)
        return None

    async def fail(self, op: DurableFuture[Any], outcome: FailedForNow) -> int:
        """Record a failed attempt; the count is durable. Returns when the next one is due. Raises LeaseLost."""
        now = self._holding.now()
        loose = self.loose.get(op.key)
        attempt = self.attempts(op) + 1
        expect = self.revs.get(op.key, 0)
        param = await self._codec.externalize(op.param, op.key, "param")
        record = Record(
            op.key,
            State.PENDING,
            op.kind,
            self._holding.id,
            param,
            tags={ERROR: self._codec.seal(outcome.error)},
            created_at=loose.created_at if loose is not None else op.at,
            attempt=attempt,
            retry_at=now + outcome.delay,
            rev=expect + 1,
        )
        fence = self._holding.fence()
        refused = await self._store.commit(Commit(self._origin, (Put(to_row(record), expect),), (), fence))
        if refused is not None:
            raise LeaseLost(self._holding.id)
        self.revs[op.key] = record.rev
        self.loose[op.key] = record._replace(param=op.param)
        self._holding.driver.tell(
            "failed",
            op.key,
            name=op.name,
            attempt=attempt,
            error=outcome.error,
            place=outcome.place,
            delay=outcome.delay,
        )
        return now + outcome.delay


def _size(row: Row) -> int:
    return len(row[9] or "") + len(row[10] or "")
