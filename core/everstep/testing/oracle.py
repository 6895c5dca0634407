"""What must hold in every history, whatever went wrong: the checks that judge a simulation.

`check_wakes` is rule W1 as a function of what is stored and what is on its way. A `Witness` watches every write: a
recorded value never changes (F2), a step whose record was read is never run again, and a run that settles is replayed
from its journal alone and must come to the same end (P2).
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, NamedTuple

from everstep.context import ContinueAsNew
from everstep.engine import Body
from everstep.journal import read
from everstep.ports import Commit, Wake
from everstep.promise import TARGET, Kind, Record, State, TaskState, leaves, project, satisfied
from everstep.rows import Row, from_row

from .platform import Queue
from .world import Caller, Event, World, delivery

SLACK = 15 * 60_000
"""Milliseconds by which a wake-up may come late and still counts: redeliveries back off."""

_POLL = 3_600_000
_RECORDED = (State.RESOLVED.value, State.REJECTED.value, State.TIMEDOUT.value)
_LOCAL = (Kind.STEP, Kind.CHILD, Kind.TIMER, Kind.DETACHED)
_ENGINE = ("everstep://",)


class InFlight(NamedTuple):
    """A wake-up that will be delivered at `at` (milliseconds), under a key; `held`: it is being handled now."""

    wake: Wake
    at: int
    key: str
    held: bool


def in_flight(queue: Queue) -> list[InFlight]:
    """What a queue still has to deliver; a message that is being handled comes back unless it is answered."""
    return [
        InFlight(one.wake, one.at if one.held_until is None else one.held_until, one.key, one.held_until is not None)
        for one in queue.messages.values()
    ]


class Wakes:
    """Rule W1 over all rows, decoding each row once."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Row, Record]] = {}

    def check(self, rows: Mapping[str, Row], now: int, messages: Iterable[InFlight] | None) -> list[str]:
        """What is wrong, in words.

        Args:
            messages: everything on its way; None where the store's due rows are read (the rows are the alarm clock).
        """
        wakes: dict[str, list[InFlight]] | None = None
        if messages is not None:
            wakes = {}
            for message in messages:
                wakes.setdefault(message.wake.id, []).append(message)
        problems: list[str] = []
        for id, row in rows.items():
            if row.due is None and row.task is None:
                continue
            if row.kind == Kind.SCHEDULE:
                if wakes is not None and row.due is not None and not _arrives(wakes.get(id, ()), row.due, 0, now):
                    problems.append(f"{id}: its next tick has no wake-up")
                continue
            record = self._record(row)
            problems += self._check(record, row, rows, now, wakes)
        return problems

    def _record(self, row: Row) -> Record:
        known = self._known.get(row.id)
        if known is None or known[0] is not row:
            known = self._known[row.id] = (row, from_row(row))
        return known[1]

    def _check(
        self,
        record: Record,
        row: Row,
        rows: Mapping[str, Row],
        now: int,
        wakes: Mapping[str, list[InFlight]] | None,
    ) -> list[str]:
        id, task = record.id, record.task
        own = wakes.get(id, []) if wakes is not None else []
        if record.state is not State.PENDING:
            if row.due is None or wakes is None or _arrives(own, row.due, None, now):
                return []
            # Whoever waits for it is looked at by itself: suspended, satisfied, and with nothing to resume it.
            return [f"{id}: settled, with listeners nobody will tell"] if record.listeners else []
        if wakes is not None and row.due is not None:
            version = task.version if task is not None else 0
            holder = task.pid.rpartition("/")[2] if task is not None and task.pid is not None else None
            if not _arrives(own, row.due, version, now, holder):
                state = task.state.value if task is not None else "pending"
                return [f"{id}: {state}, due at {row.due}, and no wake-up is armed ({own or 'none'})"]
        if task is not None and task.state is TaskState.SUSPENDED and task.tree is not None:
            return self._suspended(record, rows, now, wakes)
        if task is not None and task.state in (TaskState.PENDING, TaskState.ACQUIRED) and row.due is None:
            return [f"{id}: {task.state.value}, and never due"]
        return []

    def _suspended(
        self,
        record: Record,
        rows: Mapping[str, Row],
        now: int,
        wakes: Mapping[str, list[InFlight]] | None,
    ) -> list[str]:
        assert record.task is not None
        assert record.task.tree is not None
        foreign = dict(record.task.foreign)
        timers = dict(record.task.timers)
        keys = leaves(record.task.tree)
        # An inline child is awaited by its id and has no record before it ends; what it waits for is in the tree too.
        if all(key not in timers and foreign.get(key, key) not in rows for key in keys):
            return [f"{record.id}: suspended, waiting for {keys}, which nobody created"]
        if foreign and record.task.poll_at is None:
            return [f"{record.id}: waits for another origin ({foreign}) and never looks again (W5)"]
        if not self._satisfied(record, rows, now):
            return []
        if project(record, now).state is not State.PENDING:
            return []
        if foreign and record.task.poll_at is not None and record.task.poll_at <= now + SLACK + _POLL:
            return []  # across origins a word may be lost, and the poll makes it good (W5)
        if wakes is None:
            due = rows[record.id].due
            if due is not None and due <= now + SLACK:
                return []
        elif _arrives(wakes.get(record.id, ()), now, record.task.version, now):
            return []
        for key in leaves(record.task.tree):
            row = rows.get(foreign.get(key, key))
            if row is None:
                continue
            leaf = self._record(row)
            if wakes is None:
                if row.due is not None and row.due <= now + SLACK and (record.id in leaf.callbacks or leaf.pending):
                    return []
            elif (leaf.pending or record.id in leaf.callbacks) and _arrives(wakes.get(row.id, ()), now, None, now):
                return []
        return [f"{record.id}: suspended, satisfied, and nobody will resume it (stranded)"]

    def _satisfied(self, record: Record, rows: Mapping[str, Row], now: int) -> bool:
        task = record.task
        assert task is not None
        assert task.tree is not None
        foreign = dict(task.foreign)
        timers = dict(task.timers)

        def outcome(key: str) -> State:
            if key in timers:
                return State.RESOLVED if timers[key] <= now else State.PENDING
            row = rows.get(foreign.get(key, key))
            return State.PENDING if row is None else project(self._record(row), now).state

        return satisfied(task.tree, outcome)


def _arrives(messages: Iterable[InFlight], due: int, version: int | None, now: int, holder: str | None = None) -> bool:
    """Whether one of these will do what is due: it comes then or later, or comes early and is told to come back.

    The message whose key the lease names is the one the holder lives on: it comes back until the lease has ended. One
    of an older version that is being handled may be acknowledged without more.
    """
    latest = max(due, now) + SLACK
    for message in messages:
        if message.at > latest:
            continue
        if holder is not None:
            if message.key == holder:
                return True
            if message.held and message.wake.version != version:
                continue
        if message.at >= due or (version is not None and message.wake.version == version):
            return True
    return False


def check_wakes(world: World, wakes: Wakes | None = None) -> list[str]:
    """Rule W1 in a simulated world, at this instant; what is wrong, in words."""
    messages = in_flight(world.platform) if isinstance(world.platform, Queue) else None
    return (wakes or Wakes()).check(world.store._rows, world.clock.now(), messages)


class Witness:
    """Watches a world. `problems` is what went wrong, in words."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.problems: list[str] = []
        self._wakes = Wakes()
        self._read: dict[int, list[Row]] = {}
        self.replays = 0
        world.writers.append(self._written)
        world.readers.append(self._was_read)
        world.listeners.append(self._heard)

    def check_wakes(self) -> None:
        """Rule W1, now."""
        self._note(check_wakes(self.world, self._wakes))

    def _note(self, problems: list[str]) -> None:
        for problem in problems:
            if problem not in self.problems:
                self.problems.append(problem)
                self.world.events.append(Event(self.world.clock.now(), "oracle", "problem", problem, {}))

    def _written(self, caller: Caller, commit: Commit, before: Mapping[str, Row | None]) -> None:
        for put in commit.puts:
            row = put.row
            old = before.get(row.id)
            if row.task is not None and row.timeout_at is not None and row.state == State.PENDING.value:
                self._expired(from_row(row), from_row(old) if old is not None else None, caller)
            if old is not None and old.lease is not None and row.lease is None:
                self._let_go(from_row(row), from_row(old), caller)
            if old is None or old.state == State.PENDING.value:
                if row.task is not None and row.state != State.PENDING.value and old is not None and not caller.client:
                    self._settled(from_row(old), row)
                continue
            if old.kind in _LOCAL and (old.param != row.param or old.kind != row.kind):
                continue  # the orphan of another interleaving gives way (P2.4)
            if (old.state, old.value) != (row.state, row.value):
                self._note(
                    [f"{row.id}: {caller.name} changed a recorded {old.state} {old.value} into {row.state} {row.value}"]
                )

    def _expired(self, record: Record, old: Record | None, caller: Caller) -> None:
        """A run past its deadline is settled, never woken, resumed or acquired (rule W8)."""
        task, stood = record.task, old.task if old is not None else None
        if task is None or stood is None:
            return
        decided: int | None = None
        match task.state:
            case TaskState.ACQUIRED if task.version != stood.version and task.expires_at is not None:
                decided = task.expires_at - (task.ttl or 0)
            case TaskState.PENDING if task.retry_at != stood.retry_at:
                decided = task.retry_at
            case TaskState.SUSPENDED if task.poll_at != stood.poll_at:
                decided = task.poll_at
            case _:
                pass
        if decided is not None and record.timeout_at <= decided <= caller.clock.now():
            self._note([f"{record.id}: {caller.name} woke it past its deadline ({task.state.value} at {decided})"])

    def _let_go(self, record: Record, old: Record, caller: Caller) -> None:
        """Only its holder suspends a run, or settles it with an outcome of its body (rule F2)."""
        task, stood = record.task, old.task
        if task is None or stood is None or stood.pid is None or caller.client:
            return
        process, _, key = stood.pid.partition("/")
        mine = process == caller.name and (not key or key == self.world.keys.get(delivery.get(), key))
        if not mine and (task.state is TaskState.SUSPENDED or record.state in (State.RESOLVED, State.REJECTED)):
            what = task.state.value if record.state is State.PENDING else record.state.value
            self._note([f"{record.id}: {caller.name} made it {what} while {stood.pid} held it"])

    def _was_read(self, caller: Caller, id: str, rows: list[Row]) -> None:
        self._read[delivery.get()] = rows

    def _heard(self, event: Event) -> None:
        if event.kind != "step":
            return
        rows = self._read.get(delivery.get(), [])
        if any(row.id == event.id and row.state in _RECORDED for row in rows):
            # An orphan of other work under that id gives way; what history delivers is never run again.
            top = rows[0]
            journal = run_now(read(from_row(top), rows, self.world.app.codec, self.world.clock.now()))
            if event.id in journal.history:
                self._note([f"{event.id}: {event.who} ran {event.detail['name']} again, whose record it had read"])

    def _settled(self, record: Record, row: Row) -> None:
        task = record.task
        if (
            task is None
            or task.state is not TaskState.ACQUIRED
            or row.state
            in (
                State.CANCELED.value,
                State.TIMEDOUT.value,
            )
        ):
            return
        if not task.segments or TARGET not in record.tags:
            return
        again = replay(self.world, record)
        if again is None:
            return
        self.replays += 1
        codec = self.world.app.codec
        value = codec.decode(run_now(codec.internalize(from_row(row).value)))
        if again != (row.state, value):
            self._note([f"{row.id}: settled {row.state} {value!r}, replayed from its journal: {again[0]} {again[1]!r}"])


def replay(world: World, record: Record) -> tuple[str, Any] | None:
    """Run a body against its journal alone: its state and value (plain JSON), or None where it continues as new."""
    rows = [row for row in world.store._rows.values() if row.branch == record.id and row.id != record.id]
    codec = world.app.codec
    task = record.task
    assert task is not None
    journal = run_now(read(record, rows, codec, world.clock.now()))
    call = codec.decode(run_now(codec.internalize(task.carried or record.param)))
    name, args = call[0], call[1]
    kwargs = call[2] if len(call) > 2 else {}
    version = call[3] if len(call) > 3 else 1
    app = world.app
    info = app.as_workflow(app.find(name, version if app.is_workflow(name) else None))
    coerced = info.signature.coerce_args(args, kwargs)
    body = Body(
        app,
        info,
        record.id,
        *coerced,
        generation=task.generation,
        created_at=record.created_at,
        created=journal.created,
    )
    began = task.segments[0].at if task.segments else record.created_at
    try:
        body.start(journal.history, journal.began_at or began)
        if not body.returned:
            return State.PENDING.value, f"waits for {leaves(body.blocked_on())}"
        outcome = body.outcome()
    except BaseException as error:
        return type(error).__name__, str(error)
    finally:
        body.drop()
    if isinstance(outcome, ContinueAsNew):
        return None
    if outcome.state is State.RESOLVED:
        try:
            payload = codec.encode(info.signature.plain_result(outcome.value), "result")
        except Exception as error:
            return State.REJECTED.value, codec.decode(codec.encode_error(error))
        return outcome.state.value, codec.decode(payload)
    return outcome.state.value, codec.decode(codec.encode_error(outcome.value))


def run_now(work: Coroutine[Any, Any, Any]) -> Any:
    """A coroutine that has nothing to wait for."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    work.close()
    raise AssertionError("it waited for something")


__all__ = ["InFlight", "Wakes", "Witness", "check_wakes", "in_flight", "replay"]
