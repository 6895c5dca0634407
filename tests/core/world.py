"""The kernel over a dictionary: requests and internal steps one after the other, at instants the test chooses."""

from __future__ import annotations

from everstep import kernel
from everstep.clock import NEVER
from everstep.kernel import Entity, Outcome, internal, schedules
from everstep.promise import EMPTY, Payload, Record, Schedule, State, Tags, Task, TaskState
from everstep.protocol import (
    Execute,
    Message,
    PromiseCreate,
    PromiseRegisterCallback,
    PromiseSettle,
    Reply,
    Request,
    TaskAcquire,
    TaskCreate,
    TaskRef,
    TaskSuspend,
    Unblock,
)

NOW = 1_000_000
LATER = NOW + 100_000
TARGET = {"resonate:target": "poll://any@workers"}
EXTERNAL = {"resonate:external": "true"}
TIMER = {"resonate:timer": "true"}


def every_minute(cron: str, after: int) -> int:
    """A calendar a test can predict: occurrences at the full minutes."""
    return after - after % 60_000 + 60_000


class World:
    """`do` carries a request out; the internal steps are methods. `sent` are the messages, newest last."""

    def __init__(self, now: int = NOW) -> None:
        self.now = now
        self.entities: dict[str, Entity] = {}
        self.sent: list[Message] = []
        self.last: Outcome

    def do(self, request: Request) -> Reply:
        wanted = {id: self.entities[id] for id in kernel.reads(request) if id in self.entities}
        self.last = kernel.apply(request, wanted, self.now, every_minute)
        self.write(*self.last.puts)
        for id in self.last.deletes:
            del self.entities[id]
        return self.last.reply

    def write(self, *entities: Entity) -> None:
        for entity in entities:
            id = entity.id if isinstance(entity, Record) else schedules.row_id(entity.id)
            self.entities[id] = entity._replace(rev=entity.rev + 1)

    def record(self, id: str) -> Record:
        found = self.entities[id]
        assert isinstance(found, Record)
        return found

    def task(self, id: str) -> Task:
        task = self.record(id).task
        assert task is not None
        return task

    # Internal steps.

    def time_out(self, id: str) -> bool:
        record = self.entities.get(id)
        changed = internal.time_out(record, self.now) if isinstance(record, Record) else None
        if changed is not None:
            self.write(changed)
        return changed is not None

    def expire_lease(self, id: str) -> bool:
        changed = internal.expire_lease(self.record(id), self.now)
        if changed is not None:
            self.write(changed)
        return changed is not None

    def dispatch(self, id: str, retry_timeout: int = 5000) -> Execute | None:
        offered = internal.dispatch(self.record(id), self.now, retry_timeout)
        if offered is None:
            return None
        self.write(offered[0])
        self.sent.append(offered[1])
        return offered[1]

    def drain_callback(self, awaited: str, awaiter: str) -> internal.Resume | None:
        """The callback step: settle by the deadline if it has passed, consume the callback, wake the awaiter."""
        self.time_out(awaited)
        record = self.record(awaited)
        if record.pending or awaiter not in record.callbacks:
            return None
        found = self.entities.get(awaiter)
        states = {id: one.state for id, one in self.entities.items() if isinstance(one, Record)}
        resumed = internal.resume(found if isinstance(found, Record) else None, awaited, self.now, states)
        self.write(internal.drained(record, (awaiter,), ()))
        if resumed.record is not None:
            self.write(resumed.record)
        return resumed.outcome

    def drain_listener(self, awaited: str, address: str) -> Unblock | None:
        self.time_out(awaited)
        record = self.record(awaited)
        owed = [notice for notice in internal.notices(record) if notice.address == address]
        if not owed:
            return None
        self.write(internal.drained(record, (), (address,)))
        self.sent.append(owed[0])
        return owed[0]

    def tick(self, id: str, batch: int = 50) -> bool:
        found = self.entities.get(schedules.row_id(id))
        fired = schedules.fire(found, self.now, every_minute, batch) if isinstance(found, Schedule) else None
        if fired is None:
            return False
        self.write(*[tick for tick in fired.ticks if tick.id not in self.entities], fired.schedule)
        return True

    # What many tests begin with.

    def create(self, id: str, tags: Tags = EXTERNAL, timeout_at: int = LATER, param: Payload = EMPTY) -> Reply:
        return self.do(PromiseCreate(id, timeout_at, param, tags))

    def settle(self, id: str, state: State = State.RESOLVED, data: str | None = "1") -> Reply:
        return self.do(PromiseSettle(id, state, Payload(data)))

    def acquired(self, id: str = "t", timeout_at: int = LATER, ttl: int = 1000) -> int:
        """A task that is acquired by `worker`; returns its version."""
        reply = self.do(TaskCreate("worker", ttl, PromiseCreate(id, timeout_at, EMPTY, TARGET)))
        assert reply.status == 200
        return self.task(id).version

    def suspended(self, id: str = "t", awaited: str = "p", timeout_at: int = LATER) -> int:
        version = self.acquired(id, timeout_at)
        if awaited not in self.entities:
            self.create(awaited, timeout_at=NEVER)
        assert self.do(TaskSuspend(id, version, (PromiseRegisterCallback(awaited, id),))).status == 200
        return version

    def acquire(self, id: str, version: int, ttl: int = 1000) -> Reply:
        return self.do(TaskAcquire(id, version, "worker", ttl))

    def in_state(self, state: TaskState, id: str = "t", timeout_at: int = LATER) -> int:
        """A task in a state, by the shortest way; returns its version."""
        from everstep.protocol import TaskHalt, TaskRelease

        if state is TaskState.SUSPENDED:
            return self.suspended(id, timeout_at=timeout_at)
        version = self.acquired(id, timeout_at)
        if state is TaskState.PENDING:
            self.do(TaskRelease(id, version))
        elif state is TaskState.HALTED:
            self.do(TaskHalt(id))
        elif state is TaskState.FULFILLED:
            self.settle(id)
        assert self.task(id).state is state
        return version


def ref(id: str, version: int) -> TaskRef:
    return TaskRef(id, version)
