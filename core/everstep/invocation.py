"""One invocation of one task: replay, run until the body waits or the budget is used, commit, arm the next wake-up.

The order of everything durable is arm, commit, disarm, send. A completion is durable before the body sees it: a local
one by the record that carries its number, a foreign one by the acquisition that lists it (rule P2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from . import journal as journals
from .clock import NEVER
from .context import ContinueAsNew
from .engine import Body, Completion, DurableFuture
from .errors import (
    DecodeError,
    LeaseLost,
    NondeterminismError,
    NotSerializable,
    Panic,
    PayloadTooLarge,
    RealIOError,
    UnknownFunction,
)
from .ids import child_prefix
from .lifecycle import acquire, continue_as_new, fulfill, halt, heartbeat, release, suspend
from .ports import Commit, Fence, Guard, Put, Refused
from .promise import (
    EMPTY,
    TARGET,
    Kind,
    Payload,
    Record,
    Row,
    Stamp,
    State,
    Task,
    TaskState,
    from_row,
    leaves,
    project,
    satisfied,
    to_row,
)
from .starts import root_record, work_of
from .steps import FailedForGood, FailedForNow, Succeeded, failure_payload, run_step
from .writer import Written

if TYPE_CHECKING:
    from .driver import Driver, Kept

_POLL_FIRST = 60_000
_POLL_LAST = 3_600_000
_CHUNK = 50


class Ready(NamedTuple):
    """A completion that is about to be written: the operation, its outcome, and when it came about."""

    op: DurableFuture[Any] | None
    key: str
    state: State
    payload: Payload
    at: int


class Invocation:
    """The life of a task between an acquisition and the moment it is let go."""

    def __init__(self, driver: Driver, record: Record, journal: journals.Journal, *, held: bool, holder: str) -> None:
        self.driver = driver
        self.store = driver.store
        self.writer = driver.writer
        self.codec = driver.app.codec
        self.id = record.id
        self.origin = driver.origin_of(record.id)
        self.record = record
        self.journal = journal
        self.held = held
        self.holder = holder
        self.body: Body
        self.steps_done = 0
        self.revs: dict[str, int] = dict(journal.revs)
        self.loose = dict(journal.loose)
        self.waiting_steps: list[DurableFuture[Any]] = []
        self.backoff: dict[str, tuple[int, DurableFuture[Any]]] = {}
        self.running: dict[asyncio.Task[Any], DurableFuture[Any]] = {}
        self.ready: list[Ready] = []
        self.foreign: dict[str, str] = {}
        self.known: dict[str, State] = dict.fromkeys(journal.created, State.PENDING)
        self.failures: list[tuple[DurableFuture[Any], FailedForNow]] = []
        self._armed: Mapping[str, int] = {}
        self._beat: asyncio.Task[None] | None = None

    @property
    def task(self) -> Task:
        assert self.record.task is not None
        return self.record.task

    def now(self) -> int:
        return self.driver.clock.now()

    # Acquisition.

    async def acquire(self, *, expired: bool = False) -> bool:
        """Take the task, or say that somebody else has it. What arrived meanwhile is delivered by the same write."""
        now = self.now()
        journal = self.journal
        changed = acquire(
            self.record,
            now,
            self.holder,
            self.driver.lease,
            journal.inbox,
            len(journal.history),
            progressed=journal.progressed,
            expired=expired,
        )
        if changed is None:
            return False
        limit = self.driver.app.max_deaths
        if changed.task is not None and changed.task.deaths > limit:
            reason = changed.task.reason or f"{limit} invocations in a row ended without progress"
            await self._halt_at(self.record, reason)
            return False
        changes: list[tuple[Record | None, Record]] = [(self.record, changed), *journal.overdue]
        written = await self.writer.commit(changes, covered=(self.id,) if self.held else ())
        if isinstance(written, Refused):
            return False
        self._adopt(written)
        for _, child in journal.overdue:
            self.revs[child.id] += 1
        self.driver.tell("acquired", self.id, version=self.task.version, replayed=len(journal.history))
        return True

    def _adopt(self, written: Written) -> None:
        record = written.entities[0]
        assert isinstance(record, Record)
        self.record = record

    async def begin(self) -> None:
        """Build the body and run it through its history. Raises what the body refused."""
        record, task, journal = self.record, self.task, self.journal
        call = self.codec.decode(await self.codec.internalize(task.carried or record.param))
        name, args = call[0], call[1]
        kwargs = call[2] if len(call) > 2 else {}
        version = call[3] if len(call) > 3 else 1
        info = self.driver.app.find(name, version if self.driver.app.is_workflow(name) else None)
        if info.workflow is None:
            info = self.driver.app.as_workflow(info)
        self.workflow_info = info
        coerced_args, coerced_kwargs = info.signature.coerce_args(args, kwargs)
        self.body = Body(
            self.driver.app,
            info,
            self.id,
            coerced_args,
            coerced_kwargs,
            generation=task.generation,
            created_at=record.created_at,
            recorded=journal.recorded,
            created=journal.created,
            armed={id: at for id, at in self._armed.items() if id not in journal.inbox and id not in self.loose},
        )
        segment = task.segments[-1]
        history = [*journal.history, *[(id, segment.at) for id in segment.inbox]]
        if task.version == 1 or len(task.segments) == 1:
            self.body.first_life()
        self.body.start(history, journal.began_at or segment.at, live_from=len(journal.history))
        self.driver.tell("replayed", self.id, deliveries=len(journal.history), inbox=len(segment.inbox))

    def adopt_kept(self, kept: Kept) -> None:
        """Take over what was known when the body was kept."""
        self.known = kept.known
        self.loose = kept.loose
        self.backoff = kept.backoff

    def remember_timers(self) -> None:
        """Keep what the last suspension armed; the acquisition clears it."""
        self._armed = dict(self.task.timers)

    def resume_warm(self, body: Body) -> None:
        """Go on with a body that was kept: no replay, only what arrived."""
        self.body = body
        self.workflow_info = body.info
        segment = self.task.segments[-1]
        for id in segment.inbox:
            entry = self.journal.recorded.get(id)
            completion = Completion(entry.state, entry.value) if entry is not None else Completion(State.RESOLVED, None)
            body.deliver(id, segment.at, completion)
        self.driver.tell("resumed", self.id, inbox=len(segment.inbox))

    # The live part.

    async def live(self) -> None:
        """Run until the body waits, ends, or the budget is used."""
        self.attach_known()
        while True:
            await self._carry_out()
            if self.failures:
                await self._record_failures()
            if self.ready:
                await self._record_ready()
                continue
            body = self.body
            if body.returned and not body.leftovers():
                if await self._finish():
                    return
                continue
            if not self.running and self._used_up() and (self._runnable() or not self._blocked()):
                await self._release(self.now())
                return
            self._fire_timers()
            if self.ready:
                continue
            if await self._start_steps():
                continue
            if self.running:
                await self._wait()
                continue
            due = self._next_moment()
            if due is not None and due <= self.now():
                continue
            if due is not None and due - self.now() <= self.driver.moment and not self._used_up():
                await asyncio.sleep((due - self.now()) / 1000)
                continue
            if await self._suspend():
                return

    def attach_known(self) -> None:
        """Operations that wait on other origins, from the last suspension of a body that was kept."""
        for op in self.body.ops.values():
            if not op.done() and op.kind in (Kind.RPC, Kind.PROMISE) and op.id != op.key and op.attached is not None:
                self.foreign[op.key] = op.id

    def _used_up(self) -> bool:
        limit = self.driver.steps_per_invocation
        return (limit is not None and self.steps_done >= limit) or self.driver.out_of_time()

    def _runnable(self) -> bool:
        now = self.now()
        return bool(self.waiting_steps) or any(at <= now for at, _ in self.backoff.values())

    def _blocked(self) -> bool:
        due = self._next_moment()
        return due is None or due > self.now()

    async def _carry_out(self) -> None:
        """What the body asked for since it last ran, in the order it asked."""
        body = self.body
        creations: list[Record] = []
        for op in body.take_new():
            match op.kind:
                case Kind.STEP:
                    self._admit_step(op)
                case Kind.RPC | Kind.PROMISE if op.id != op.key:
                    await self._flush(creations)
                    await self._attach(op)
                case Kind.RPC | Kind.PROMISE:
                    if op.key not in self.known:
                        creations.append(self._child_record(op))
                case Kind.DETACHED:
                    await self._flush(creations)
                    await self._detach(op)
                case _:
                    pass
        await self._flush(creations)
        for op, completion in body.take_ended_children():
            self.ready.append(self._ended(op, completion))
        gone = body.take_cancellations()
        if gone:
            await self._cancel(gone)

    def _admit_step(self, op: DurableFuture[Any]) -> None:
        loose = self.loose.get(op.key)
        if loose is not None:
            fits = loose.kind == op.kind and loose.param == op.param
            if loose.state is State.PENDING:
                if fits and loose.retry_at is not None and loose.retry_at > self.now():
                    self.backoff[op.key] = (loose.retry_at, op)
                    return
            elif fits and loose.state is not State.CANCELED:
                # The write of a holder whose interleaving was lost: its value counts, its number does not (P2.4).
                self.ready.append(Ready(op, op.key, loose.state, loose.value, loose.settled_at or self.now()))
                return
        self.waiting_steps.append(op)

    def _child_record(self, op: DurableFuture[Any]) -> Record:
        now = self.now()
        parent = self.record
        limit = op.options.timeout
        if limit is None and op.info is not None and op.info.workflow is not None and op.kind == Kind.RPC:
            limit = op.info.workflow.timeout
        timeout_at = parent.timeout_at if limit is None else min(now + limit, parent.timeout_at)
        tags = dict(op.options.tags or {})
        task = None
        if op.kind == Kind.RPC:
            tags[TARGET] = op.options.target or parent.tags.get(TARGET, self.driver.app.target)
            task = Task(TaskState.PENDING, retry_at=now)
        return Record(
            op.key,
            State.PENDING,
            op.kind,
            self.id,
            op.param,
            tags=tags,
            timeout_at=timeout_at,
            created_at=now,
            callbacks=(self.id,),
            task=task,
        )

    async def _flush(self, creations: list[Record]) -> None:
        """Create children, a chunk to a commit; creating always checks the lease (P2.4)."""
        while creations:
            chunk = creations[:_CHUNK]
            del creations[:_CHUNK]
            chunk = [
                record._replace(param=await self.codec.externalize(record.param, record.id, "param"))
                for record in chunk
            ]
            refused = await self.writer.write([(None, record) for record in chunk], fence=self._fence())
            if refused is not None:
                if refused.fenced:
                    raise LeaseLost(self.id)
                # Created by an earlier write of ours whose answer was lost (F3): what stands is the same child.
                creations[:0] = [record for record in chunk if refused.found.get(record.id) is None]
                if len(creations) == len(chunk):
                    raise LeaseLost(self.id)
                for record in chunk:
                    row = refused.found.get(record.id)
                    if row is not None:
                        self._created(record.id, row.rev)
                continue
            for record in chunk:
                self._created(record.id, 1)

    def _created(self, id: str, rev: int) -> None:
        self.revs[id] = rev
        self.known[id] = State.PENDING
        self.driver.tell("created", id)

    async def _attach(self, op: DurableFuture[Any]) -> None:
        """Wait for work of another root, starting it if nobody has: the callback crosses origins (W5)."""
        now = self.now()
        if op.kind == Kind.RPC:
            work = work_of(self.driver.app, op.name, op.info, op.args, op.kwargs, op.options.target)
            fresh = root_record(
                op.id, work, now, timeout=op.options.timeout, tags=op.options.tags, callbacks=(self.id,)
            )
        else:
            limit = op.options.timeout
            fresh = Record(
                op.id,
                State.PENDING,
                Kind.PROMISE,
                op.id,
                tags=dict(op.options.tags or {}),
                timeout_at=NEVER if limit is None else now + limit,
                created_at=now,
                callbacks=(self.id,),
            )
        existing = await self.driver.attach(fresh, self.id)
        op.attached = op.id
        if existing.state is not State.PENDING:
            self.ready.append(Ready(op, op.key, existing.state, existing.value, existing.settled_at or now))
        else:
            self.foreign[op.key] = op.id
            self.driver.tell("attached", op.id, by=op.key)

    async def _detach(self, op: DurableFuture[Any]) -> None:
        """Start a new root, once, whatever happens to us afterwards."""
        work = work_of(self.driver.app, op.name, op.info, op.args, op.kwargs, op.options.target)
        if op.options.target is None and TARGET in self.record.tags:
            work = work._replace(target=self.record.tags[TARGET])
        record = root_record(op.id, work, self.now(), timeout=op.options.timeout, tags=op.options.tags)
        await self.driver.create_root(record)
        self.ready.append(Ready(op, op.key, State.RESOLVED, self.codec.encode(op.id, "id"), self.now()))

    def _ended(self, op: DurableFuture[Any], completion: Completion) -> Ready:
        state, value = completion
        assert op.info is not None
        if state is State.RESOLVED:
            try:
                payload = self.codec.encode(op.info.signature.plain_result(value), f"result of {op.name}()")
            except (NotSerializable, PayloadTooLarge, TypeError) as error:
                state, payload = State.REJECTED, failure_payload(self.driver.app, error)
        else:
            payload = failure_payload(self.driver.app, value)
        return Ready(op, op.key, state, payload, self.now())

    async def _cancel(self, gone: list[DurableFuture[Any]]) -> None:
        """A cancelled future settles its promise as cancelled; one that is settled by now stays as it is."""
        keys = {op.key for op in gone}
        self.waiting_steps = [op for op in self.waiting_steps if op.key not in keys]
        for task, op in list(self.running.items()):
            if op.key in keys:
                task.cancel()
                del self.running[task]
        for op in gone:
            self.backoff.pop(op.key, None)
            self.foreign.pop(op.key, None)
            if op.kind in (Kind.RPC, Kind.PROMISE) and op.id == op.key and self.known.get(op.key) is State.PENDING:
                self.known[op.key] = State.CANCELED
                await self.driver.cancel_child(op.key)
                self.revs.pop(op.key, None)

    # Steps.

    async def _start_steps(self) -> bool:
        """Start what can start; True when something was done inline."""
        now = self.now()
        for key, (at, op) in list(self.backoff.items()):
            if at <= now:
                del self.backoff[key]
                if not op.done():
                    self.waiting_steps.append(op)
        if not self.waiting_steps:
            return False
        single = self.driver.steps_per_invocation is not None
        if single and self.running:
            return False
        if not self.running and not self.body.timers and (single or len(self.waiting_steps) == 1):
            op = self.waiting_steps.pop(0)
            self._keep_alive()
            self._landed(op, await self._attempt(op))
            return True
        while self.waiting_steps:
            op = self.waiting_steps.pop(0)
            self.running[asyncio.ensure_future(self._attempt(op))] = op
            if single:
                break
        self._keep_alive()
        return False

    async def _attempt(self, op: DurableFuture[Any]) -> Succeeded | FailedForGood | FailedForNow:
        info = op.info
        assert info is not None
        args, kwargs = self.body.isolate(info, op.args, op.kwargs)
        loose = self.loose.get(op.key)
        attempt = (loose.attempt if loose is not None and loose.param == op.param else 0) + 1
        self.driver.tell("step", op.key, name=op.name, attempt=attempt)
        return await run_step(
            self.driver.app,
            info,
            op.key,
            attempt,
            args,
            kwargs,
            retry=op.options.retry or info.retry,
            timeout=op.options.timeout,
            threads=self.driver.threads(alone=len(self.running) == 0),
        )

    def _landed(self, op: DurableFuture[Any], outcome: Succeeded | FailedForGood | FailedForNow) -> None:
        match outcome:
            case Succeeded(payload):
                self.ready.append(Ready(op, op.key, State.RESOLVED, payload, self.now()))
            case FailedForGood(payload, state):
                self.ready.append(Ready(op, op.key, state, payload, self.now()))
            case FailedForNow():
                self.failures.append((op, outcome))

    async def _wait(self) -> None:
        """Wait for a running step, or for a timer of the body."""
        due = self._next_moment()
        timeout = None if due is None else max(0.0, (due - self.now()) / 1000)
        done, _ = await asyncio.wait(self.running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        for task in sorted(done, key=lambda task: self.running[task].key):
            op = self.running.pop(task)
            self._landed(op, task.result())

    async def _record_failures(self) -> None:
        for op, outcome in self.failures:
            loose = self.loose.get(op.key)
            known = loose.attempt if loose is not None and loose.param == op.param else 0
            now = self.now()
            record = Record(
                op.key,
                State.PENDING,
                op.kind,
                self.id,
                op.param,
                tags={"everstep:error": outcome.error},
                created_at=loose.created_at if loose is not None else now,
                attempt=known + 1,
                retry_at=now + outcome.delay,
                rev=self.revs.get(op.key, 0) + 1,
            )
            refused = await self.store.commit(
                Commit(self.origin, (Put(to_row(record), record.rev - 1),), (), self._fence())
            )
            if refused is not None:
                raise LeaseLost(self.id)
            self.revs[op.key] = record.rev
            self.loose[op.key] = record
            self.steps_done += 1
            self.backoff[op.key] = (now + outcome.delay, op)
            self.driver.tell(
                "failed", op.key, name=op.name, attempt=known + 1, error=outcome.error, delay=outcome.delay
            )
        self.failures.clear()

    # Recording.

    def _fence(self, *, soft: bool = False) -> Fence:
        return Fence(self.id, self.task.version, soft)

    async def _record_ready(self) -> None:
        """Write completions, number by number, and hand each to the body once it and all before it are durable."""
        batch, self.ready = self.ready, []
        first = self.body.delivered + 1
        if len(batch) == 1:
            written = [await self._record(batch[0], first)]
        else:
            attempts: list[Coroutine[Any, Any, tuple[State, Any]]] = [
                self._record(item, first + index) for index, item in enumerate(batch)
            ]
            results = await asyncio.gather(*attempts, return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result
            written = [result for result in results if not isinstance(result, BaseException)]
        for item, (state, value) in zip(batch, written, strict=True):
            self.foreign.pop(item.key, None)
            self.loose.pop(item.key, None)
            self.body.deliver(item.key, item.at, Completion(state, value))
            self.driver.tell("delivered", item.key, state=state.value)

    async def _record(self, item: Ready, n: int) -> tuple[State, Any]:
        """Write one local completion as delivery number `n`; the one store request of a step."""
        key, state, payload, at = item.key, item.state, item.payload, item.at
        op = item.op
        param = op.param if op is not None and op.kind != Kind.TIMER else EMPTY
        kind = op.kind if op is not None else Kind.TIMER
        if payload.headers or (payload.data is not None and len(payload.data) * 3 > self.codec.limit):
            payload = await self.codec.externalize(payload, key, "value")
        if param.headers or (param.data is not None and len(param.data) * 3 > self.codec.limit):
            param = await self.codec.externalize(param, key, "param")
        version = self.task.version
        loose = self.loose.get(key)
        expect = self.revs.get(key, 0)
        created_at = loose.created_at if loose is not None else at
        fence = Fence(self.id, version, True)
        for _ in range(3):
            if param.headers or payload.headers or (loose is not None and loose.attempt):
                row = to_row(
                    Record(
                        key, state, kind, self.id, param, payload, created_at=created_at, settled_at=at,
                        stamp=Stamp(version, n), attempt=loose.attempt if loose is not None else 0, rev=expect + 1,
                    )
                )  # fmt: skip
            else:
                row = Row(
                    key, self.id, kind, state.value, expect + 1, None, None, version, n, param.data, payload.data,
                    None, created_at, at, None, None, None,
                )  # fmt: skip
            refused = await self.store.commit(Commit(self.origin, (Put(row, expect),), (), fence))
            if refused is None:
                break
            if refused.fenced:
                raise LeaseLost(self.id)
            found = refused.found.get(key)
            if found is None:
                expect = 0
                continue
            if found.epoch == version and found.n == n:
                break  # our own write, whose answer was lost (F3)
            if found.epoch is not None and found.epoch > version:
                raise LeaseLost(self.id)
            stood = from_row(found)
            expect = found.rev
            if stood.param == param and stood.kind == kind and stood.state not in (State.PENDING, State.CANCELED):
                state, payload = stood.state, stood.value
        else:
            raise LeaseLost(self.id)
        self.revs[key] = expect + 1
        if kind != Kind.TIMER:
            self.steps_done += 1
        if payload.headers:
            payload = await self.codec.internalize(payload)
        return state, self.codec.decode(payload)

    def _fire_timers(self) -> None:
        """Timers of the body that have come due while it runs get a record of their own."""
        now = self.now()
        due = sorted((at, key) for key, at in self.body.timers.items() if at <= now)
        for at, key in due[:1]:
            self.ready.append(Ready(self.body.ops.get(key), key, State.RESOLVED, EMPTY, max(at, now)))

    def _next_moment(self) -> int | None:
        moments = [*self.body.timers.values(), *(at for at, _ in self.backoff.values())]
        return min(moments, default=None)

    # Letting go.

    async def _write_task(
        self, changed: Record, *, deletes: tuple[str, ...] = (), guards: tuple[Guard, ...] = ()
    ) -> bool:
        """Write the task's record under its fence; False when it was refused by something else than the fence."""
        await self._stop_beat()
        for _ in range(3):
            refused = await self.writer.commit(
                [(self.record, changed)], fence=self._fence(), deletes=deletes, guards=guards
            )
            if isinstance(refused, Written):
                self._adopt(refused)
                return True
            if refused.fenced:
                raise LeaseLost(self.id)
            row = refused.found.get(self.id)
            if row is None:
                return False
            current = from_row(row)
            if current.task is None or current.task.version != self.task.version or current.state is not State.PENDING:
                raise LeaseLost(self.id)
            # Somebody touched the record without taking the task (a listener, a heartbeat): keep what they wrote.
            changed = changed._replace(callbacks=current.callbacks, listeners=current.listeners)
            self.record = current
        raise LeaseLost(self.id)

    async def _suspend(self) -> bool:
        """Let go until what the body waits for is there; False when it is there already."""
        body = self.body
        now = self.now()
        tree = body.blocked_on()
        wanted = leaves(tree)
        if not wanted:
            await self._halt(
                "the body waits for something that nothing durable will ever complete "
                "(an asyncio.Event, Queue or future that nobody sets)"
            )
            return True
        timers = [*body.timers.items(), *((key, at) for key, (at, _) in self.backoff.items())]
        poll_at = None
        if self.foreign:
            age = now - self.record.created_at
            poll_at = now + min(max(age, _POLL_FIRST), _POLL_LAST)
        changed = suspend(
            self.record,
            now,
            self.task.version,
            tree=tree,
            timers=tuple(timers),
            foreign=tuple(self.foreign.items()),
            poll_at=poll_at,
        )
        if changed is None:
            raise LeaseLost(self.id)
        awaited = [key for key in wanted if self.known.get(key) is State.PENDING]
        guards = tuple(Guard(key, self.revs[key]) for key in awaited if key in self.revs)
        written = await self._write_task(changed, guards=guards if self.store.single_writer else ())
        if not written:
            return not await self._readmit(awaited)
        if not self.store.single_writer and awaited and await self._readmit(awaited, suspended=True):
            return False
        self.driver.keep(self, [key for key in wanted if key in self.known or key in self.foreign])
        due = body.timers
        self.driver.tell("suspended", self.id, waiting_for=wanted, until=min(due.values()) if due else None)
        return True

    async def _readmit(self, awaited: list[str], *, suspended: bool = False) -> bool:
        """What settled while we were running is delivered under the next epoch (P2.2); True when something was."""
        rows = await self.store.load(awaited)
        now = self.now()
        inbox: list[tuple[int, str]] = []
        overdue: list[tuple[Record | None, Record]] = []
        found: dict[str, Record] = {}
        for row in rows.values():
            record = from_row(row)
            shown = project(record, now)
            self.revs[row.id] = row.rev
            if shown.state is not State.PENDING:
                if record.state is State.PENDING:
                    overdue.append((record, shown))
                    self.revs[row.id] += 1
                inbox.append((shown.settled_at or now, row.id))
                found[row.id] = shown
        if suspended:
            tree = self.task.tree
            if tree is None or not satisfied(tree, lambda id: found[id].state if id in found else State.PENDING):
                return False
        if not inbox:
            return not suspended
        inbox.sort()
        ids = tuple(id for _, id in inbox)
        again = acquire(
            self.record, now, self.holder, self.driver.lease, ids, self.body.delivered, progressed=True, again=True
        )
        if again is None:
            return False
        written = await self.writer.commit(
            [(self.record, again), *overdue],
            fence=None if suspended else self._fence(),
            covered=(self.id,) if self.held else (),
        )
        if isinstance(written, Refused):
            raise LeaseLost(self.id)
        self._adopt(written)
        for id in ids:
            shown = found[id]
            self.known[id] = shown.state
            value = self.codec.decode(await self.codec.internalize(shown.value))
            self.body.deliver(id, now, Completion(shown.state, value))
        return True

    async def _release(self, retry_at: int) -> None:
        changed = release(self.record, self.now(), self.task.version, retry_at)
        if changed is None:
            raise LeaseLost(self.id)
        await self._write_task(changed)
        self.body.drop()
        self.driver.tell("released", self.id)

    async def _finish(self) -> bool:
        """Settle the promise with the body's outcome; False when the run goes on under the same id."""
        outcome = self.body.outcome()
        if isinstance(outcome, ContinueAsNew):
            return await self._continue_as_new(outcome)
        info = self.workflow_info
        state, value = outcome
        if state is State.RESOLVED:
            try:
                payload = self.codec.encode(info.signature.plain_result(value), f"result of {info.name}()")
                payload = await self.codec.externalize(payload, self.id, "value")
            except (NotSerializable, PayloadTooLarge, TypeError) as error:
                state, payload = State.REJECTED, failure_payload(self.driver.app, error)
        else:
            payload = failure_payload(self.driver.app, value)
        for op in self.body.abandoned():
            if op.id == op.key and self.known.get(op.key) is State.PENDING:
                await self.driver.cancel_child(op.key)
        changed = fulfill(self.record, self.now(), self.task.version, state, payload)
        if changed is None:
            raise LeaseLost(self.id)
        await self._write_task(changed)
        self.body.drop()
        self.driver.tell("settled", self.id, state=state.value)
        if changed.callbacks or changed.listeners:
            await self.driver.service.drain(self.id)
        return True

    async def _continue_as_new(self, again: ContinueAsNew) -> bool:
        from .engine import encode_call

        info = self.workflow_info
        carried = encode_call(self.codec, info.name, info, again.args, again.kwargs)
        carried = await self.codec.externalize(carried, self.id, f"carried{self.task.generation + 1}")
        prefix = child_prefix(self.id, self.task.generation)
        mine = [key for key in self.revs if key.startswith(prefix) and key not in self.known]
        for op in self.body.abandoned():
            if op.id == op.key and self.known.get(op.key) is State.PENDING:
                await self.driver.cancel_child(op.key)
        now = self.now()
        used_up = self._used_up()
        changed = continue_as_new(self.record, now, self.task.version, carried, stay=not used_up)
        if changed is None:
            raise LeaseLost(self.id)
        at_once = tuple(mine) if self.store.single_writer else tuple(mine[:90])
        await self._write_task(changed, deletes=at_once)
        if len(at_once) < len(mine):
            await self.driver.forget(self.origin, mine[len(at_once) :])
        self.body.drop()
        self.driver.tell("continued", self.id, generation=self.task.generation)
        if used_up:
            return True
        self.revs = {}
        self.loose = {}
        self.known = {}
        self.foreign = {}
        self.journal = journals.Journal([], now, {}, {}, (), {}, {}, [], [], True)
        self._armed = {}
        await self.begin()
        return False

    async def _halt(self, reason: str) -> None:
        changed = halt(self.record, self.now(), reason)
        if changed is None:
            raise LeaseLost(self.id)
        await self._write_task(changed)
        self.body.drop()
        self.driver.tell("halted", self.id, reason=reason)

    async def _halt_at(self, record: Record, reason: str) -> None:
        changed = halt(record, self.now(), reason)
        if changed is not None:
            await self.writer.write([(record, changed)])
            self.driver.tell("halted", self.id, reason=reason)

    # The whole.

    async def run(self) -> None:
        """Replay and live. Raises LeaseLost and PlatformError; anything a person must look at halts the run."""
        try:
            try:
                await self.begin()
                await self.live()
            except NondeterminismError as error:
                await self._halt(str(error))
            except (RealIOError, Panic) as error:
                await self._halt(f"{type(error).__name__}: {error}")
            except UnknownFunction as error:
                await self._put_off(str(error))
            except DecodeError as error:
                await self._put_off(f"DecodeError: {error}")
        finally:
            await self._tidy()

    async def run_warm(self, body: Body) -> None:
        """As `run`, with a body that was kept."""
        try:
            try:
                self.resume_warm(body)
                await self.live()
            except NondeterminismError as error:
                await self._halt(str(error))
            except (RealIOError, Panic) as error:
                await self._halt(f"{type(error).__name__}: {error}")
            except DecodeError as error:
                await self._put_off(f"DecodeError: {error}")
        finally:
            await self._tidy()

    async def _put_off(self, reason: str) -> None:
        """Something outside the run is missing (code, a key): try again later, and halt in the end."""
        deaths = self.task.deaths + 1
        if deaths > self.driver.app.max_deaths:
            await self._halt(reason)
            return
        delay = min(1000 * 2**deaths, 600_000)
        changed = release(self.record, self.now(), self.task.version, self.now() + delay)
        if changed is None or changed.task is None:
            raise LeaseLost(self.id)
        await self._write_task(changed._replace(task=changed.task._replace(deaths=deaths, reason=reason)))
        self.driver.tell("put off", self.id, reason=reason, delay=delay)

    def _keep_alive(self) -> None:
        """Renew the lease while steps run, where the platform does not bound an invocation."""
        if self.driver.heartbeat and self._beat is None:
            self._beat = asyncio.ensure_future(self._beats())

    async def _beats(self) -> None:
        while True:
            await asyncio.sleep(self.driver.lease / 3000)
            changed = heartbeat(self.record, self.now(), self.task.version)
            if changed is None:
                return
            written = await self.writer.commit([(self.record, changed)], fence=self._fence())
            if isinstance(written, Refused):
                return
            self._adopt(written)

    async def _stop_beat(self) -> None:
        if self._beat is not None:
            beat, self._beat = self._beat, None
            beat.cancel()
            try:
                await beat
            except asyncio.CancelledError:
                pass

    async def _tidy(self) -> None:
        await self._stop_beat()
        for task in self.running:
            task.cancel()
        self.running.clear()
