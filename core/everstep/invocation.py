"""One invocation of one task: replay, run until the body waits or the budget is used, and let go.

A completion is durable before the body sees it: a local one by the record that carries its number, a foreign one by the
acquisition that lists it (rule P2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .children import Children
from .context import ContinueAsNew
from .engine import Body
from .errors import (
    DecodeError,
    NondeterminismError,
    NotSerializable,
    Panic,
    PayloadTooLarge,
    RealIOError,
    UnknownFunction,
)
from .holding import Holding
from .ids import child_prefix, origin_of
from .journal import Journal, fresh, unhurried_collector
from .lifecycle import continue_as_new, fulfill, suspend
from .operation import Completion, DurableFuture, decode_call, encode_call
from .ports import Guard
from .promise import EMPTY, Kind, Plan, Record, State, leaves, project, satisfied
from .recording import FOUND, GROWN, Ready, ReadyCells, Recorder
from .rows import Row, from_row
from .steps import FailedForNow, Outcome, run_step

if TYPE_CHECKING:
    from .driver import Driver
    from .registry import FunctionInfo
    from .warm import Kept
    from .writer import Change

_POLL_FIRST = 60_000
_POLL_LAST = 3_600_000
_WAITS_FOR_NOTHING = (
    "the body waits for something that nothing durable will ever complete "
    "(an asyncio.Event, Queue or future that nobody sets)"
)


class Invocation:
    """The life of a task between an acquisition and the moment it is let go."""

    def __init__(
        self,
        driver: Driver,
        record: Record,
        journal: Journal,
        kept: Kept | None,
        *,
        held_until: int,
        holder: str,
        armed: Sequence[tuple[str, int]] | None = None,
    ) -> None:
        self.driver = driver
        self.holding = Holding(driver, record, held_until=held_until, holder=holder)
        self.id = record.id
        self.body: Body | None = None
        self.steps_done = 0
        self.backoff: dict[str, tuple[int, DurableFuture[Any]]] = {}
        self._bounded = driver.steps_per_invocation is not None or driver.remaining is not None
        self._kept = kept
        self._codec = driver.codec
        # An acquisition clears them, so that who makes it over to us says what they were.
        self._armed: Mapping[str, int] = dict(self.holding.task.timers if armed is None else armed)
        self._ready: list[ReadyCells] = []
        self._waiting: list[DurableFuture[Any]] = []
        self._running: dict[asyncio.Task[Outcome], DurableFuture[Any]] = {}
        self._use(journal, kept)

    def _use(self, journal: Journal, kept: Kept | None = None) -> None:
        self.journal = journal
        tail, folds = (kept.tail, kept.folds) if kept is not None else (journal.tail, journal.folds)
        self.recorder = Recorder(self.holding, journal.revs, journal.loose, tail, folds)
        self.holding.folded = journal.length - len(tail)
        known = kept.known if kept is not None else dict.fromkeys(journal.created, State.PENDING)
        self.children = Children(self.holding, self.recorder, known)

    async def acquire(self, *, expired: bool = False) -> bool:
        """Take the task, or say that it cannot be had."""
        journal = self.journal
        overdue: list[Change] = list(journal.overdue)
        if not await self.holding.acquire(
            journal.inbox, journal.length, overdue, progressed=journal.progressed, expired=expired
        ):
            return False
        self._acquired()
        return True

    async def adopt(self) -> None:
        """Go on with a task that the store has acquired. What it did not know of takes one acquisition more, which
        comes in its place, for nobody has seen what that delivers (P2.3).

        Raises LeaseLost.
        """
        journal, holding = self.journal, self.holding
        segment = holding.task.segments[-1]
        if (journal.inbox, journal.length) != (segment.inbox, segment.start) or journal.overdue:
            await holding.readmit(journal.inbox, journal.length, list(journal.overdue), suspended=False)
        self._acquired()

    def _acquired(self) -> None:
        journal, task = self.journal, self.holding.task
        for pending, _ in journal.overdue:
            self.recorder.revs[pending.id] += 1
        for id in journal.inbox:
            self.recorder.note(id, task.segments[-1].at, None)
        self.driver.tell("acquired", self.id, version=task.version, replayed=journal.length)

    async def run(self) -> None:
        """Replay, or go on with a body that was kept, and live. What a person must look at halts the run.

        Raises:
            LeaseLost: another holder took over; nothing it does is disturbed.
            PlatformError: the store or the waker is in trouble; the wake-up stays.
        """
        kept, self._kept = self._kept, None
        try:
            body = await self._replay() if kept is None else self._resume(kept)
            await self._live(body)
        except NondeterminismError as error:
            await self.holding.halt(str(error))
        except (RealIOError, Panic) as error:
            await self.holding.halt(f"{type(error).__name__}: {error}")
        except UnknownFunction as error:
            await self.holding.put_off(str(error))
        except DecodeError as error:
            await self.holding.put_off(f"DecodeError: {error}")
        finally:
            await self.holding.stop_beat()
            for task in self._running:
                task.cancel()

    def drop(self) -> None:
        """Let go of the body."""
        if self.body is not None:
            self.body.drop()

    async def _replay(self) -> Body:
        """Build the body and run it through its history."""
        record, task, journal = self.holding.record, self.holding.task, self.journal
        call = decode_call(self._codec.decode(await self._codec.internalize(task.carried or record.param)))
        if call is None:
            raise DecodeError(f"{self.id}: its record holds no call of a function")
        app = self.driver.app
        info = app.as_workflow(app.find(call.name, call.version if app.is_workflow(call.name) else None))
        args, kwargs = info.signature.coerce_args(call.args, call.kwargs)
        self.body = body = Body(
            self.driver.app,
            info,
            self.id,
            args,
            kwargs,
            codec=self._codec,
            generation=task.generation,
            created_at=record.created_at,
            created=journal.created,
            armed={
                id: at for id, at in self._armed.items() if id not in journal.inbox and id not in self.recorder.loose
            },
        )
        segment = task.segments[-1]
        history = journal.history.then(segment.inbox, segment.at)
        if len(task.segments) == 1 and not journal.folds:
            body.first_life()
        began_at = journal.began_at if journal.began_at is not None else segment.at
        with unhurried_collector():
            body.start(history, began_at, live_from=len(journal.history))
        await self.recorder.fold_pieces(body.began_at, FOUND)
        self.driver.tell("replayed", self.id, deliveries=len(journal.history), inbox=len(segment.inbox))
        return body

    def _resume(self, kept: Kept) -> Body:
        """Go on with a body that was kept: no replay, only what arrived."""
        self.body = body = kept.body
        self.backoff = dict(kept.backoff)
        self.children.foreign = dict(kept.foreign)
        self.children.gone = set(kept.gone)
        segment = self.holding.task.segments[-1]
        for id in segment.inbox:
            entry = self.journal.recorded.get(id)
            completion = Completion(entry.state, entry.value) if entry is not None else Completion(State.RESOLVED, None)
            if id in self.children.known:
                self.children.known[id] = completion.state
                self.children.gone.discard(id)
            body.deliver(id, segment.at, completion)
        for key, other in kept.arrived.items():
            op = body.ops.get(key)
            if op is not None and not op.done():
                self._ready.append(Ready(op, key, other.state, other.value, other.settled_at or self.holding.now()))
        self.driver.tell("resumed", self.id, inbox=len(segment.inbox))
        return body

    # The live part.

    async def _live(self, body: Body) -> None:
        """Run until the body waits, ends, or the budget is used."""
        while True:
            if body.new or body.ended_children or body.cancellations:
                await self._carry_out(body)
            if self._ready:
                await self._record(body)
            elif body.returned and not body.leftovers():
                again = await self._finish(body)
                if again is None:
                    return
                body = again
            elif await self._work(body):
                continue
            elif self._used_up() and self._could_go_on(body):
                folding = await self.recorder.fold_with(body.began_at)
                await self.holding.release(self.holding.now(), folding, self._plan(body))
                self.recorder.folded(folding)
                body.drop()
                return
            elif await self._suspend(body):
                return

    async def _work(self, body: Body) -> bool:
        """Do one thing that can be done now: a timer, a step, a short wait. False when there is nothing."""
        if body.timers and self._fire(body, self.holding.now()):
            return True
        if self.backoff:
            self._retry_what_is_due(self.holding.now())
        if self._waiting and not (self._bounded and self._used_up()):
            one_by_one = self.driver.steps_per_invocation is not None
            if not self._running and not body.timers and (one_by_one or len(self._waiting) == 1):
                op = self._waiting.pop(0)
                self.holding.keep_alive()
                await self._landed(op, await self._attempt(body, op, alone=True))
                return True
            if not (one_by_one and self._running):
                started = self._waiting[:1] if one_by_one else self._waiting[:]
                del self._waiting[: len(started)]
                for op in started:
                    self._running[asyncio.ensure_future(self._attempt(body, op, alone=False))] = op
                self.holding.keep_alive()
        if self._running:
            await self._wait(body)
            return True
        due = self._next_moment(body)
        if due is None or self._used_up():
            return False
        delay = due - self.holding.now()
        if delay > self.driver.moment:
            return False
        await asyncio.sleep(delay / 1000)
        return True

    def _retry_what_is_due(self, now: int) -> None:
        for key, (at, op) in list(self.backoff.items()):
            if at <= now:
                del self.backoff[key]
                if not op.done():
                    self._waiting.append(op)

    def _used_up(self) -> bool:
        limit = self.driver.steps_per_invocation
        return (limit is not None and self.steps_done >= limit) or self.driver.out_of_time()

    def _could_go_on(self, body: Body) -> bool:
        due = self._next_moment(body)
        return bool(self._waiting) or (due is not None and due <= self.holding.now())

    def _next_moment(self, body: Body) -> int | None:
        if not body.timers and not self.backoff:
            return None
        return min([*body.timers.values(), *(at for at, _ in self.backoff.values())])

    async def _carry_out(self, body: Body) -> None:
        """What the body asked for since it last ran, in the order it asked."""
        creations: list[Record] = []
        for op in body.take_new():
            match op.kind:
                case Kind.STEP if not self.recorder.loose:
                    self._waiting.append(op)
                case Kind.STEP:
                    self._admit(op)
                case Kind.RPC | Kind.PROMISE if op.id != op.key:
                    await self.children.create(creations)
                    self._arrived(await self.children.attach(op))
                case Kind.RPC | Kind.PROMISE:
                    if op.key not in self.children.known:
                        creations.append(self.children.record(op))
                case Kind.DETACHED:
                    await self.children.create(creations)
                    self._arrived(await self.children.detach(op))
                case _:
                    pass
        if creations:
            await self.children.create(creations)
        if body.ended_children:
            self._ready.extend([self._ended(op, completion) for op, completion in body.take_ended_children()])
        if body.cancellations:
            await self._cancel(body.take_cancellations())

    def _arrived(self, item: Ready | None) -> None:
        if item is not None:
            self._ready.append(item)

    def _admit(self, op: DurableFuture[Any]) -> None:
        """A step of which there may be a record outside history (P2.4)."""
        now = self.holding.now()
        found = self.recorder.found(op, now)
        if found is not None:
            self._ready.append(found)
            return
        retry_at = self.recorder.waits_until(op)
        if retry_at is not None and retry_at > now:
            self.backoff[op.key] = (retry_at, op)
            return
        self._waiting.append(op)

    def _ended(self, op: DurableFuture[Any], completion: Completion) -> Ready:
        assert op.info is not None
        return Ready(op, op.key, *self._stored(op.info, completion), self.holding.now(), op.at)

    def _stored(self, info: FunctionInfo, completion: Completion) -> tuple[State, Any]:
        """An outcome in its stored form; a result that has none is a failure that says so."""
        state, value = completion
        if state is not State.RESOLVED:
            return state, self._codec.encode_error(value)
        try:
            return state, self._codec.encode(info.signature.plain_result(value), f"result of {info.name}()")
        except (NotSerializable, PayloadTooLarge, TypeError) as error:
            return State.REJECTED, self._codec.encode_error(error)

    async def _cancel(self, gone: list[DurableFuture[Any]]) -> None:
        keys = {op.key for op in gone}
        self._waiting = [op for op in self._waiting if op.key not in keys]
        for task, op in list(self._running.items()):
            if op.key in keys:
                task.cancel()
                del self._running[task]
        for key in keys:
            self.backoff.pop(key, None)
        await self.children.cancel(gone)

    def _fire(self, body: Body, now: int) -> bool:
        """A timer that has come due while the body runs gets a record of its own (rule B1)."""
        at, key = min((at, key) for key, at in body.timers.items())
        if at <= now:
            self._ready.append(Ready(body.ops.get(key), key, State.RESOLVED, EMPTY, now))
        return at <= now

    # Steps.

    def _attempt(self, body: Body, op: DurableFuture[Any], *, alone: bool) -> Coroutine[Any, Any, Outcome]:
        """One attempt of a step; `alone`: nothing else waits for the loop meanwhile."""
        info = op.info
        assert info is not None
        args, kwargs = body.isolate(info, op.args, op.kwargs)
        attempt = self.recorder.attempts(op) + 1 if self.recorder.loose else 1
        if self.driver.tells_steps:
            self.driver.tell("step", op.key, name=op.name, attempt=attempt)
        op.at = self.driver.clock.now()
        return run_step(
            self.driver.app,
            self._codec,
            info,
            op.key,
            attempt,
            args,
            kwargs,
            retry=op.options.retry or info.retry,
            timeout=op.options.timeout,
            threads=self.driver.threads(alone=alone),
        )

    async def _landed(self, op: DurableFuture[Any], outcome: Outcome) -> None:
        if isinstance(outcome, FailedForNow):
            self.backoff[op.key] = (await self.recorder.fail(op, outcome), op)
            self.steps_done += 1
        else:
            state, payload, value = outcome
            self._ready.append((op, op.key, state, payload, self.driver.clock.now(), op.at, value))

    async def _wait(self, body: Body) -> None:
        """Wait for a running step, or for a timer of the body."""
        due = self._next_moment(body)
        timeout = None if due is None else max(0.0, (due - self.holding.now()) / 1000)
        done, _ = await asyncio.wait(self._running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        for task in sorted(done, key=lambda task: self._running[task].key):
            await self._landed(self._running.pop(task), task.result())

    async def _record(self, body: Body) -> None:
        """Write completions, number by number; each reaches the body once it and all before it are durable (P2.1)."""
        batch, self._ready = self._ready, []
        first = body.delivered + 1
        if len(batch) == 1:
            written = [await self.recorder.complete(batch[0], first)]
        else:
            written = await all_of([self.recorder.complete(item, first + index) for index, item in enumerate(batch)])
        if self.holding.ending():
            await self.holding.renew()
        for item, stands in zip(batch, written, strict=True):
            self._hand_over(body, item, stands)
        if len(self.recorder.tail) >= self.recorder.grown:
            await self.recorder.fold_pieces(body.began_at, GROWN)

    def _hand_over(self, body: Body, item: ReadyCells, stands: tuple[State, Any, Row]) -> None:
        op, key, _, _, at, _, _ = item
        state, value, row = stands
        self.recorder.note(key, at, row)
        if self.children.foreign:
            self.children.foreign.pop(key, None)
        if op is None or op.kind != Kind.TIMER:
            self.steps_done += 1
        body.deliver(key, at, (state, value))
        if self.driver.tells_steps:
            self.driver.tell("delivered", key, state=state.value)

    # Letting go.

    async def _suspend(self, body: Body) -> bool:
        """Let go until what the body waits for is there; False when it is there already."""
        holding, children = self.holding, self.children
        now = holding.now()
        tree = body.blocked_on()
        retrying = [key for key in self.backoff if key != tree]
        if retrying:
            # A gather of a step that is being retried waits for all of it; its next attempt waits for nobody.
            tree = ("any", tree, *retrying)
        wanted = leaves(tree)
        if not wanted:
            await holding.halt(_WAITS_FOR_NOTHING)
            body.drop()
            return True
        folding = await self.recorder.fold_with(body.began_at)
        timers = (*body.timers.items(), *((key, at) for key, (at, _) in self.backoff.items()))
        age = max(now - holding.record.created_at, _POLL_FIRST)
        waiting = suspend(
            holding.record,
            now,
            holding.task.version,
            tree=tree,
            timers=timers,
            foreign=tuple(children.foreign.items()),
            poll_at=now + min(age, _POLL_LAST) if children.foreign else None,
            planned=self._plan(body, wanted, [key for key, _ in timers]),
        )
        awaited = children.pending(wanted)
        if self.driver.store.single_writer or not awaited:
            guards = tuple([Guard(key, self.recorder.revs[key]) for key in awaited if key in self.recorder.revs])
            if not await holding.write(waiting, guards=guards, folding=folding):
                await self._readmit(body, awaited, suspended=False)
                return False
            self.recorder.folded(folding)
        else:
            # Until it has looked again, what stands for the lease's end stands for that look too (W1, W4).
            stands, ends = holding.record.wake, holding.task.expires_at
            await holding.write(waiting, keep=stands, folding=folding)
            self.recorder.folded(folding)
            if await self._readmit(body, awaited, suspended=True):
                return False
            if stands is not None and ends is not None:
                await self.driver.writer.disarm(stands, ends)
        if children.foreign:
            await self.driver.service.look(self.id)
        self.driver.warm.keep(self, body, awaited)
        self.driver.tell(
            "suspended", self.id, waiting_for=wanted, until=min(body.timers.values()) if body.timers else None
        )
        return True

    def _plan(self, body: Body, named: Sequence[str] = (), timers: Sequence[str] = ()) -> Plan | None:
        """What a store that acquires by itself needs to know of what this holder knows.

        Args:
            named: by the await tree.
            timers: by the task.
        """
        if self.driver.resumer is None:
            return None
        seen = set(named)
        return Plan(
            body.delivered,
            tuple([key for key in self.children.undelivered() if key not in seen]),
            tuple([key for key in timers if key in self.recorder.loose]),
        )

    async def _readmit(self, body: Body, awaited: list[str], *, suspended: bool) -> bool:
        """Look again at what the body waits for, after the suspend (rule W4) or because it was refused. What settled
        meanwhile is delivered under the next epoch; True when something was."""
        rows = await self.driver.store.load(awaited)
        now = self.holding.now()
        arrived: list[tuple[int, str]] = []
        overdue: list[Change] = []
        shown: dict[str, Record] = {}
        for row in rows.values():
            record = from_row(row)
            shown[row.id] = project(record, now)
            self.recorder.revs[row.id] = row.rev
            if shown[row.id].state is State.PENDING:
                continue
            if record.state is State.PENDING:
                overdue.append((record, shown[row.id]))
                self.recorder.revs[row.id] += 1
            arrived.append((shown[row.id].settled_at or now, row.id))
        tree = self.holding.task.tree
        if not arrived or (
            suspended
            and tree is not None
            and not satisfied(tree, lambda id: shown[id].state if id in shown else State.PENDING)
        ):
            if arrived:
                await self.driver.service.look(self.id)  # perhaps its timers are all that is left
            return False
        inbox = tuple([id for _, id in sorted(arrived)])
        await self.holding.readmit(inbox, body.delivered, overdue, suspended=suspended)
        for id in inbox:
            self.children.known[id] = shown[id].state
            self.recorder.note(id, now, None)
            value = self._codec.decode(await self._codec.internalize(shown[id].value))
            body.deliver(id, now, Completion(shown[id].state, value))
        return True

    async def _finish(self, body: Body) -> Body | None:
        """Settle the promise with the body's outcome; the next body where the run goes on under the same id."""
        outcome = body.outcome()
        await self.children.cancel(body.abandoned())
        if isinstance(outcome, ContinueAsNew):
            return await self._continue_as_new(body, outcome)
        holding = self.holding
        state, payload = self._stored(body.info, outcome)
        try:
            payload = await self._codec.externalize(payload, self.id, "value")
        except PayloadTooLarge as error:
            state, payload = State.REJECTED, self._codec.encode_error(error)
        done = fulfill(holding.record, holding.now(), holding.task.version, state, payload)
        await holding.write(done)
        body.drop()
        failed = {} if outcome.state is State.RESOLVED else _told(outcome.value)
        self.driver.tell("settled", self.id, state=state.value, **failed)
        if holding.record.callbacks or holding.record.listeners:
            await self.driver.service.drain(self.id)
        return None

    async def _continue_as_new(self, body: Body, again: ContinueAsNew) -> Body | None:
        """The next generation under the same id; local records of the last one are deleted (rules I5, T1)."""
        holding, task = self.holding, self.holding.task
        carried = encode_call(self._codec, body.info.name, body.info, again.args, again.kwargs)
        carried = await self._codec.externalize(carried, self.id, f"carried{task.generation + 1}")
        prefix = child_prefix(self.id, task.generation)
        gone = [key for key in self.recorder.revs if key.startswith(prefix) and key not in self.children.known]
        with_it = len(gone) if self.driver.store.single_writer else 90
        now = holding.now()
        stay = not self._used_up()
        planned = Plan(0) if self.driver.resumer is not None else None
        renewed = continue_as_new(holding.record, now, task.version, carried, stay=stay, planned=planned)
        await holding.write(renewed, deletes=tuple(gone[:with_it]))
        if gone[with_it:]:
            await self.driver.forget(origin_of(self.id), gone[with_it:])
        body.drop()
        self.driver.tell("continued", self.id, generation=holding.task.generation)
        if not stay:
            return None
        self._use(fresh())
        self._armed = {}
        return await self._replay()


async def all_of(work: list[Any]) -> list[Any]:
    """Wait for all, then raise the first failure, if any: no write is left under way."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def _told(error: BaseException) -> dict[str, str]:
    """A failure in a few words, for whoever listens."""
    from .failures import describe, place

    return {"error": f"{type(error).__name__}: {describe(error, 2000)['message']}"[:200], "place": place(error)}
