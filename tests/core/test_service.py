"""Requests carried out: who is told, in which order, and what a refusal, a crash or a race leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import pytest

from everstep.clock import VirtualClock
from everstep.errors import StoreError, StoreUnavailable, WakerError
from everstep.kernel import Config
from everstep.ports import Commit, Refused, Wake
from everstep.promise import EMPTY, Kind, Payload, Record, Segment, State, Task, TaskState, Tree
from everstep.protocol import (
    Execute,
    Message,
    PromiseCreate,
    PromiseGet,
    PromiseRegisterCallback,
    PromiseRegisterListener,
    PromiseSearch,
    PromiseSettle,
    Reply,
    Request,
    ScheduleCreate,
    ScheduleDelete,
    ScheduleGet,
    ScheduleSearch,
    TaskAcquire,
    TaskCreate,
    TaskFence,
    TaskFulfill,
    TaskHeartbeat,
    TaskRelease,
    TaskSearch,
    TaskSuspend,
    Unblock,
)
from everstep.rows import from_row, to_row
from everstep.service import Service
from tests.core.dictstore import DictStore, QueueWaker
from tests.core.world import EXTERNAL, LATER, NOW, TARGET, every_minute, ref

T = TypeVar("T")


def run(work: Awaitable[T]) -> T:
    async def main() -> T:
        return await work

    return asyncio.run(main())


class Server:
    """A service over a store and a waker that remember what was asked of them."""

    def __init__(self, *, by_row: bool = True) -> None:
        self.store = DictStore()
        self.log = self.store.log
        self.waker = QueueWaker(self.log, by_row=by_row)
        self.clock = VirtualClock(NOW)
        self.sent: list[Message] = []
        self.fails: Exception | None = None
        self.service = Service(
            self.store,
            self.waker,
            self.clock,
            next_cron=every_minute,
            config=Config(retry_timeout=5000, settle_delay=700, batch=2, attempts=4),
            deliver=self.deliver,
        )

    async def deliver(self, message: Message) -> None:
        self.log.append("deliver")
        if self.fails is not None:
            raise self.fails
        self.sent.append(message)

    def do(self, request: Request) -> Reply:
        return run(self.service.perform(request))

    def fire(self, id: str) -> None:
        run(self.service.fire(Wake(id)))

    def record(self, id: str) -> Record:
        return from_row(self.store.rows[id])

    def task(self, id: str) -> Task:
        task = self.record(id).task
        assert task is not None
        return task

    def put(self, record: Record) -> Record:
        record = record._replace(rev=record.rev + 1)
        self.store.put(to_row(record))
        return record

    def create(self, *ids: str) -> None:
        for id in ids:
            assert self.do(PromiseCreate(id, LATER, EMPTY, EXTERNAL)).status == 200

    def suspended(self, id: str, *awaited: str) -> None:
        self.do(TaskCreate("worker", 1000, PromiseCreate(id, LATER, EMPTY, TARGET)))
        callbacks = tuple(PromiseRegisterCallback(one, id) for one in awaited)
        assert self.do(TaskSuspend(id, self.task(id).version, callbacks)).status == 200

    def engine(self, id: str, tree: Tree, **fields: object) -> Record:
        """A run of the engine that waits for a tree."""
        task = Task(TaskState.SUSPENDED, 2, tree=tree, segments=(Segment(2, 0, (), NOW),))
        task = task._replace(**fields)  # type: ignore[arg-type]
        return self.put(Record(id, State.PENDING, Kind.ROOT, id, tags=TARGET, created_at=NOW, task=task))

    def child(self, id: str, *awaiters: str, kind: str = Kind.PROMISE) -> Record:
        return self.put(Record(id, State.PENDING, kind, id.rpartition(".")[0], created_at=NOW, callbacks=awaiters))

    def settle(self, id: str, state: State = State.RESOLVED) -> Reply:
        return self.do(PromiseSettle(id, state, Payload("1")))


# Requests.


def test_a_read_is_one_load() -> None:
    server = Server()

    assert server.do(PromiseGet("a")).status == 404
    assert server.log == ["load"]


def test_a_create_is_one_load_and_one_commit() -> None:
    server = Server()
    server.create("a")

    assert server.log == ["load", "commit", "arm"]
    assert server.store.rows["a"].due == LATER


def test_c3_a_heartbeat_without_tasks_asks_nothing() -> None:
    server = Server()

    assert server.do(TaskHeartbeat("worker")).status == 200
    assert server.log == []


def test_c3_a_heartbeat_over_several_origins() -> None:
    server = Server()
    for id in ("a", "b"):
        server.do(TaskCreate("w", 1000, PromiseCreate(id, LATER, EMPTY, TARGET)))
    server.clock.advance(10)

    server.do(TaskHeartbeat("w", (ref("a", 1), ref("b", 1))))

    assert [server.task(id).expires_at for id in "ab"] == [NOW + 1010] * 2


def test_decided_anew_when_somebody_wrote_first() -> None:
    server = Server()
    server.create("a")
    winner = server.record("a")._replace(state=State.REJECTED, settled_at=NOW, rev=9)
    server.store.before_commit = lambda: server.store.put(to_row(winner))

    reply = server.settle("a")

    assert reply.promise is not None
    assert (reply.status, reply.promise.state) == (200, State.REJECTED)


def test_given_up_when_others_write_all_the_time() -> None:
    server = Server()
    server.create("a")

    async def never(commit: Commit) -> Refused | None:
        server.log.append("commit")
        return Refused(False, {})

    server.store.commit = never  # type: ignore[method-assign]
    server.log.clear()

    with pytest.raises(StoreUnavailable, match="'a'"):
        server.settle("a")

    assert server.log.count("commit") == 4


def test_f1_a_fence_is_part_of_the_commit() -> None:
    """The lease is lost between the load and the commit: nothing is written."""
    server = Server()
    server.do(TaskCreate("w", 1000, PromiseCreate("t", LATER, EMPTY, TARGET)))
    taken = server.record("t")
    assert taken.task is not None
    other = taken._replace(task=taken.task._replace(version=2), rev=taken.rev + 1)
    server.store.before_commit = lambda: server.store.put(to_row(other))

    reply = server.do(TaskFence("t", 1, PromiseCreate("t.1", LATER)))

    assert reply.status == 409
    assert "t.1" not in server.store.rows


def test_c3_a_suspend_across_origins_registers_there_first() -> None:
    server = Server()
    server.create("other")
    server.do(TaskCreate("w", 1000, PromiseCreate("t", LATER, EMPTY, TARGET)))
    order: list[str] = []
    commit = server.store.commit

    async def watched(one: Commit) -> Refused | None:
        order.append(one.origin)
        return await commit(one)

    server.store.commit = watched  # type: ignore[method-assign]

    assert server.do(TaskSuspend("t", 1, (PromiseRegisterCallback("other", "t"),))).status == 200
    assert order == ["other", "t"]
    assert server.record("other").callbacks == ("t",)


def test_c3_a_refusal_in_another_origin_decides_the_whole_anew() -> None:
    server = Server()
    server.create("other")
    server.do(TaskCreate("w", 1000, PromiseCreate("t", LATER, EMPTY, TARGET)))
    touched = server.record("other")._replace(listeners=("http://x",), rev=9)
    server.store.before_commit = lambda: server.store.put(to_row(touched))

    assert server.do(TaskSuspend("t", 1, (PromiseRegisterCallback("other", "t"),))).status == 200
    assert server.record("other").callbacks == ("t",)


def test_a_suspend_whose_awaited_settles_meanwhile_goes_on() -> None:
    """The callback was registered and consumed before the task let go: it must not wait for it any more."""
    server = Server()
    server.create("other")
    server.do(TaskCreate("w", 1000, PromiseCreate("t", LATER, EMPTY, TARGET)))

    async def race() -> Reply:
        commit = server.store.commit

        async def settled_in_between(one: Commit) -> Refused | None:
            answer = await commit(one)
            if one.origin == "other":
                server.store.commit = commit  # type: ignore[method-assign]
                await server.service.perform(PromiseSettle("other", State.RESOLVED))
            return answer

        server.store.commit = settled_in_between  # type: ignore[method-assign]
        return await server.service.perform(TaskSuspend("t", 1, (PromiseRegisterCallback("other", "t"),)))

    reply = run(race())

    assert reply.status == 300
    assert server.task("t").state is TaskState.ACQUIRED


def test_i4_preload_is_the_branch_without_the_task() -> None:
    server = Server()
    tags = {"resonate:branch": "t"}
    server.do(PromiseCreate("t", LATER, EMPTY, {**TARGET, **tags}))
    for id in ("t.2", "t.1"):
        server.do(PromiseCreate(id, NOW + 5, EMPTY, tags))
    server.do(PromiseCreate("t.3", LATER, EMPTY, {**TARGET, "resonate:branch": "t.3"}))
    server.do(PromiseCreate("t10", LATER, EMPTY, {"resonate:branch": "t10"}))
    server.put(Record("t.~1", State.RESOLVED, Kind.FOLD, "t", created_at=NOW, settled_at=NOW))
    server.clock.advance(5)

    reply = server.do(TaskAcquire("t", 0, "w", 1000))

    assert [(one.id, one.state) for one in reply.preload] == [("t.1", State.TIMEDOUT), ("t.2", State.TIMEDOUT)]


def test_i4_what_bears_the_branchs_name_is_not_thereby_in_it() -> None:
    server = Server()
    server.create("x")
    server.do(PromiseCreate("x.t", LATER, EMPTY, {**TARGET, "resonate:branch": "x"}))
    server.do(PromiseCreate("x.1", LATER, EMPTY, {"resonate:branch": "x"}))

    assert [one.id for one in server.do(TaskAcquire("x.t", 0, "w", 1000)).preload] == ["x.1"]


# Settling, where the row is the alarm clock.


def test_w3_by_row_an_awaiter_is_pending_and_the_callback_gone_in_one_commit() -> None:
    server = Server()
    server.create("t.p")
    server.suspended("t", "t.p")
    server.log.clear()

    server.settle("t.p")

    assert server.log.count("commit") == 2
    assert (server.task("t").state, server.task("t").resumes) == (TaskState.PENDING, ("t.p",))
    assert server.record("t.p").callbacks == ()
    assert server.store.rows["t.p"].due is None
    assert server.waker.sent[-1] == Wake("t", 1)


def test_w3_by_row_a_crash_after_the_settle_leaves_the_row_due() -> None:
    server = Server()
    server.create("t.p")
    server.suspended("t", "t.p")
    commit = server.store.commit

    async def once(one: Commit) -> Refused | None:
        answer = await commit(one)

        async def dead(_: Commit) -> Refused | None:
            raise StoreError("power cut")

        server.store.commit = dead  # type: ignore[method-assign]
        return answer

    server.store.commit = once  # type: ignore[method-assign]

    assert server.settle("t.p").status == 200
    server.store.commit = commit  # type: ignore[method-assign]
    assert [one.id for one in run(server.store.due(NOW, 9))] == ["t.p"]
    server.fire("t.p")
    assert server.task("t").state is TaskState.PENDING
    assert run(server.store.due(NOW, 9)) == [(("t"), NOW)]


@pytest.mark.parametrize("by_row", [True, False])
def test_w3_a_settle_that_finds_it_settled_drains_again_before_it_answers(by_row: bool) -> None:
    server = Server(by_row=by_row)
    server.create("t.p")
    server.suspended("t", "t.p")
    record = server.record("t.p")
    server.put(record._replace(state=State.RESOLVED, settled_at=NOW))

    reply = server.settle("t.p")

    assert reply.status == 200
    assert server.task("t").state is TaskState.PENDING
    assert server.record("t.p").callbacks == ()


def test_a_drain_that_fails_is_not_answered_as_done() -> None:
    server = Server()
    server.create("p")
    server.do(PromiseRegisterListener("p", "http://x"))
    server.put(server.record("p")._replace(state=State.RESOLVED, settled_at=NOW))
    server.fails = WakerError("unreachable")

    with pytest.raises(WakerError):
        server.settle("p")

    assert server.record("p").listeners == ("http://x",)


def test_w5_across_origins_the_awaiter_first_and_the_clearing_after() -> None:
    server = Server()
    server.create("p")
    server.suspended("t", "p")
    order: list[str] = []
    commit = server.store.commit

    async def watched(one: Commit) -> Refused | None:
        order.append(one.origin)
        return await commit(one)

    server.store.commit = watched  # type: ignore[method-assign]

    server.settle("p")

    assert order == ["p", "t", "p"]
    assert server.task("t").state is TaskState.PENDING
    assert server.record("p").callbacks == ()


def test_w5_a_refused_awaiter_keeps_the_callback_until_it_is_told() -> None:
    server = Server()
    server.create("p")
    server.suspended("t", "p")
    server.put(server.record("p")._replace(state=State.RESOLVED, settled_at=NOW))
    touched = server.record("t")._replace(listeners=("http://x",), rev=99)
    server.store.before_commit = lambda: server.store.put(to_row(touched))

    run(server.service.drain("p"))

    assert (server.task("t").state, server.record("t").listeners) == (TaskState.PENDING, ("http://x",))


def test_w8_an_awaiter_past_its_deadline_stays_where_it_is() -> None:
    server = Server()
    server.do(PromiseCreate("p", LATER + 50, EMPTY, EXTERNAL))
    server.suspended("t", "p")
    server.clock.set(LATER)

    server.settle("p")

    assert server.task("t").state is TaskState.SUSPENDED
    assert server.record("p").callbacks == ()
    server.fire("t")
    assert server.record("t").state is State.TIMEDOUT


def test_a_listener_is_told_before_it_is_forgotten() -> None:
    server = Server()
    server.create("p")
    server.do(PromiseRegisterListener("p", "http://x"))
    server.log.clear()

    server.settle("p")

    assert server.log[-2:] == ["deliver", "commit"]
    assert [(type(one), one.address) for one in server.sent] == [(Unblock, "http://x")]
    assert server.record("p").listeners == ()


def test_a_listener_that_cannot_be_reached_is_kept_and_the_settle_stands() -> None:
    server = Server()
    server.create("p")
    server.do(PromiseRegisterListener("p", "http://x"))
    server.fails = WakerError("unreachable")

    assert server.settle("p").status == 200
    assert server.store.rows["p"].due == NOW
    server.fails = None
    server.fire("p")
    assert len(server.sent) == 1
    assert server.store.rows["p"].due is None


def test_a_listener_is_not_told_again_because_a_commit_was_refused() -> None:
    server = Server()
    server.create("p")
    server.do(PromiseRegisterListener("p", "http://x"))
    settled = server.put(server.record("p")._replace(state=State.RESOLVED, settled_at=NOW))
    server.store.before_commit = lambda: server.store.put(to_row(settled._replace(rev=99)))

    run(server.service.drain("p"))

    assert len(server.sent) == 1
    assert server.record("p").listeners == ()


def test_more_awaiters_than_one_commit_holds() -> None:
    server = Server()
    server.create("p")
    ids = [f"p.{n}" for n in range(100)]
    for id in ids:
        server.suspended(id, "p")

    server.settle("p")

    assert {server.task(id).state for id in ids} == {TaskState.PENDING}
    assert server.record("p").callbacks == ()


# Trees (rule W7).


@pytest.mark.parametrize(
    ("tree", "woken"),
    [("a.1", True), (("any", "a.1", "a.2"), True), (("all", "a.1", "a.2"), False), (("try", "a.2", "a.1"), False)],
)
def test_w7_an_engines_run_is_woken_when_its_tree_is_satisfied(tree: Tree, woken: bool) -> None:
    server = Server()
    waiting = server.engine("a", tree)
    server.child("a.1", "a")
    server.child("a.2", "a")

    server.settle("a.1")

    assert server.record("a.1").callbacks == ()
    if woken:
        assert (server.task("a").state, server.task("a").poll_at) == (TaskState.SUSPENDED, NOW)
        assert server.store.rows["a"].due == NOW
        assert server.waker.sent[-1] == Wake("a", 2)
    else:
        assert server.record("a") == waiting
        server.settle("a.2")
        assert server.store.rows["a"].due == NOW


def test_w7_a_rejection_satisfies_try() -> None:
    server = Server()
    server.engine("a", ("try", "a.1", "a.2"))
    server.child("a.1", "a")
    server.child("a.2", "a")

    server.settle("a.1", State.REJECTED)

    assert server.store.rows["a"].due == NOW


def test_w7_a_timer_whose_instant_has_passed_counts_as_settled() -> None:
    server = Server()
    server.engine("a", ("all", "a.1", "a.9"), timers=(("a.9", NOW + 50),))
    server.child("a.1", "a")
    server.clock.advance(50)

    server.settle("a.1")

    assert server.task("a").poll_at == NOW + 50


def test_b1_settling_a_timer_inside_a_record_wakes_its_owner() -> None:
    server = Server()
    server.engine("a", "a.9", timers=(("a.9", NOW + 50_000),))

    assert server.settle("a.9", State.CANCELED).status == 200

    assert server.task("a").timers == ()
    assert server.store.rows["a"].due == NOW
    assert server.record("a.9").state is State.CANCELED


def test_w5_an_operation_may_wait_for_a_promise_of_another_origin() -> None:
    server = Server()
    server.engine("a", ("all", "a.1", "a.2"), foreign=(("a.1", "shared"), ("a.2", "other")))
    server.child("shared", "a")
    server.child("other", "a")

    server.log.clear()
    server.settle("shared")
    assert server.log == ["load", "commit", "load", "load", "load", "commit"]
    assert server.task("a").poll_at is None
    server.settle("other")
    assert server.task("a").poll_at == NOW


@pytest.mark.parametrize("by_row", [True, False])
def test_w5_what_settled_while_the_run_was_held_is_found_when_it_suspends(by_row: bool) -> None:
    server = Server(by_row=by_row)
    server.engine("a", "a.1", foreign=(("a.1", "shared"),), poll_at=NOW + 60_000)
    server.child("shared")
    run(server.service.look("a"))
    before = server.task("a").poll_at
    server.put(server.record("shared")._replace(state=State.RESOLVED, settled_at=NOW))

    run(server.service.look("a"))

    assert (before, server.task("a").poll_at) == (NOW + 60_000, NOW)
    assert len(server.waker.sent) == (1 if by_row else 0)
    assert len(server.waker.armed) == (0 if by_row else 1)


@pytest.mark.parametrize("id", ["nothing", "p", "held"])
def test_looking_at_what_does_not_wait_changes_nothing(id: str) -> None:
    server = Server()
    server.create("p")
    server.engine("held", "p", state=TaskState.ACQUIRED)
    before = dict(server.store.rows)

    run(server.service.look(id))

    assert server.store.rows == before


def test_b3_the_last_of_many_does_not_read_them_all_each_time() -> None:
    server = Server()
    ids = [f"a.{n}" for n in range(200)]
    server.engine("a", ("all", *ids))
    for id in ids:
        server.child(id, "a")
    asked: list[int] = []
    load = server.store.load

    async def counted(wanted: list[str]) -> dict[str, object]:
        asked.append(len(wanted))
        return await load(wanted)  # type: ignore[return-value]

    server.store.load = counted  # type: ignore[assignment, method-assign]

    for id in ids:
        server.settle(id)

    assert server.task("a").poll_at == NOW
    assert sum(asked) < 200 * 12


def test_w4_a_run_that_is_held_is_not_written() -> None:
    server = Server()
    held = server.engine("a", "a.1", state=TaskState.ACQUIRED, pid="w", ttl=5, expires_at=LATER)
    server.child("a.1", "a")

    server.settle("a.1")

    assert server.record("a") == held
    assert server.record("a.1").callbacks == ()


# Settling, where messages are the alarm clock.


def test_w3_the_wake_up_of_an_engines_run_is_armed_before_the_commit_and_no_other_is_owed() -> None:
    server = Server(by_row=False)
    server.engine("a", "a.1")
    server.child("a.1", "a")
    server.log.clear()

    server.settle("a.1")

    assert server.log == ["load", "load", "arm", "commit"]
    assert [(wake, at) for wake, at, _ in server.waker.armed] == [(Wake("a", 2), NOW + 700)]
    assert server.record("a.1").state is State.RESOLVED


def test_w2_the_deadline_of_what_is_settled_is_taken_back() -> None:
    server = Server(by_row=False)
    server.engine("a", "a.1")
    server.put(server.child("a.1", "a")._replace(timeout_at=LATER, wake="old"))

    server.settle("a.1")

    assert server.waker.disarmed == ["old"]


def test_w3_who_is_no_engine_is_told_by_a_delivery_for_the_promise_itself() -> None:
    server = Server(by_row=False)
    server.create("t.p")
    server.suspended("t", "t.p")
    server.waker.armed.clear()
    server.log.clear()

    server.settle("t.p")

    assert server.log == ["load", "load", "arm", "commit", "disarm"]
    assert [(wake, at) for wake, at, _ in server.waker.armed] == [(Wake("t.p"), NOW + 700)]
    assert server.task("t").state is TaskState.SUSPENDED
    server.fire("t.p")
    assert server.task("t").state is TaskState.PENDING


def test_w3_listeners_too() -> None:
    server = Server(by_row=False)
    server.engine("a", "a.1")
    server.child("a.1", "a")
    server.do(PromiseRegisterListener("a.1", "http://x"))

    server.settle("a.1")

    assert [wake for wake, _, _ in server.waker.armed] == [Wake("a.1")]
    server.fire("a.1")
    assert len(server.sent) == 1
    assert server.task("a").poll_at == NOW


def test_w2_nothing_is_settled_when_the_wake_up_cannot_be_armed() -> None:
    server = Server(by_row=False)
    server.engine("a", "a.1")
    server.child("a.1", "a")
    server.waker.fails = WakerError("throttled")

    with pytest.raises(WakerError):
        server.settle("a.1")

    assert server.record("a.1").pending


# Cancelling (rule C5).


def test_c5_a_cancelled_run_takes_along_its_timers_promises_and_children() -> None:
    server = Server()
    server.engine("a", "a.1", timers=(("a.9", LATER),))
    server.child("a.1", "a")
    server.child("a.2", "a", kind=Kind.TIMER)
    child = Record("a.3", State.PENDING, Kind.RPC, "a", tags=TARGET, created_at=NOW, callbacks=("a",))
    server.put(child._replace(task=Task(TaskState.PENDING, retry_at=NOW)))
    server.child("a.3.1", "a.3")
    server.child("a.4", kind=Kind.STEP)

    server.settle("a", State.CANCELED)

    states = {id: server.record(id).state for id in ("a", "a.1", "a.2", "a.3", "a.3.1", "a.4")}
    assert states.pop("a.4") is State.PENDING
    assert set(states.values()) == {State.CANCELED}
    assert (server.task("a").state, server.task("a").timers) == (TaskState.FULFILLED, ())
    assert server.do(PromiseGet("a.9")).status == 404


def test_c5_a_clients_promise_is_cancelled_alone() -> None:
    server = Server()
    tags = {"resonate:branch": "t", **EXTERNAL}
    server.do(TaskCreate("w", 1000, PromiseCreate("t", LATER, EMPTY, TARGET)))
    server.do(PromiseCreate("t.1", LATER, EMPTY, tags))

    server.log.clear()

    server.settle("t", State.CANCELED)

    assert server.record("t.1").pending
    assert "branch" not in server.log


def test_resolving_a_run_from_outside_leaves_its_children_and_a_late_cancel_too() -> None:
    server = Server()
    server.engine("a", "a.1")
    server.child("a.1", "a")

    server.settle("a", State.RESOLVED)
    server.settle("a", State.CANCELED)

    assert server.record("a.1").pending


# Deliveries.


def test_fire_a_deadline_settles_and_tells() -> None:
    server = Server()
    server.create("t.p")
    server.do(TaskCreate("w", 1000, PromiseCreate("t", LATER + 50, EMPTY, TARGET)))
    server.do(TaskSuspend("t", 1, (PromiseRegisterCallback("t.p", "t"),)))
    server.clock.set(LATER)

    server.fire("t.p")

    assert (server.record("t.p").state, server.record("t.p").callbacks) == (State.TIMEDOUT, ())
    assert server.task("t").state is TaskState.PENDING


def test_fire_dispatches_after_the_commit_and_again_later() -> None:
    server = Server()
    server.do(PromiseCreate("t", LATER, EMPTY, TARGET))
    server.log.clear()

    server.fire("t")
    server.fire("t")
    server.clock.advance(5000)
    server.fire("t")

    assert server.log == ["load", "commit", "arm", "deliver", "load", "load", "commit", "arm", "deliver"]
    assert server.sent == [Execute("t", 0, "poll://any@workers")] * 2


def test_fire_an_ended_lease_is_offered_again_at_once() -> None:
    server = Server()
    server.do(TaskCreate("w", 1000, PromiseCreate("t", LATER, EMPTY, TARGET)))
    server.clock.advance(1000)

    server.fire("t")

    assert server.sent == [Execute("t", 1, "poll://any@workers")]
    assert server.task("t") == Task(TaskState.PENDING, 1, retry_at=NOW + 6000, offers=1)


@pytest.mark.parametrize("id", ["nothing", "p", "t", "~schedule/nothing", "~schedule/s"])
def test_fire_early_changes_nothing(id: str) -> None:
    server = Server()
    server.create("p")
    server.do(TaskCreate("w", 1000, PromiseCreate("t", LATER, EMPTY, TARGET)))
    server.do(ScheduleCreate("s", "* * * * *", "s.{{.timestamp}}", 5))
    before = dict(server.store.rows)

    server.fire(id)

    assert server.store.rows == before
    assert server.sent == []


def test_fire_a_run_of_another_app_whose_timer_passed_is_offered_to_it() -> None:
    server = Server()
    server.engine("a", ("any", "a.1", "a.9"), timers=(("a.9", NOW + 50),))
    server.child("a.1", "a")
    before = server.record("a")
    server.fire("a")
    assert (server.sent, server.record("a")) == ([], before)
    server.clock.advance(50)

    server.fire("a")

    assert (server.task("a").state, server.task("a").timers) == (TaskState.PENDING, (("a.9", NOW + 50),))
    assert server.sent == [Execute("a", 2, "poll://any@workers")]


def test_w5_fire_a_look_across_origins_that_finds_nothing_looks_again_later() -> None:
    server = Server()
    server.engine("a", "a.1", foreign=(("a.1", "shared"),), poll_at=NOW + 60_000)
    server.child("shared", "a")
    server.clock.advance(60_000)

    server.fire("a")

    assert server.task("a").poll_at == NOW + 120_000
    assert server.sent == []
    server.put(server.record("shared")._replace(state=State.RESOLVED, settled_at=NOW))
    server.clock.advance(60_000)
    server.fire("a")
    assert server.task("a").state is TaskState.PENDING


def test_fire_missed_ticks_all_fire_in_order() -> None:
    server = Server()
    request = ScheduleCreate("s", "* * * * *", "{{.id}}.{{.timestamp}}", 5_000_000, Payload("1"), TARGET)
    server.do(request)
    first = every_minute("", NOW)
    server.clock.set(first + 4 * 60_000)

    server.fire("~schedule/s")

    assert [id for id in server.store.rows if id.startswith("s.")] == [f"s.{first + n * 60_000}" for n in range(5)]
    schedule = server.do(ScheduleGet("s")).schedule
    assert schedule is not None
    assert (schedule.last_run_at, schedule.next_run_at) == (first + 240_000, first + 300_000)
    assert server.store.rows["~schedule/s"].due == first + 300_000


def test_fire_a_step_that_was_cut_short_makes_the_same_ticks() -> None:
    server = Server()
    server.do(ScheduleCreate("s", "* * * * *", "{{.id}}.{{.timestamp}}", 5_000_000, Payload("1"), TARGET))
    before = server.store.rows["~schedule/s"]
    first = every_minute("", NOW)
    server.clock.set(first)
    server.fire("~schedule/s")
    server.settle(f"s.{first}")
    server.store.put(before)

    server.fire("~schedule/s")

    assert server.record(f"s.{first}").state is State.RESOLVED


def test_a_schedule_that_is_removed_is_gone() -> None:
    server = Server()
    server.do(ScheduleCreate("s", "* * * * *", "{{.id}}.{{.timestamp}}", 5, EMPTY, TARGET))

    assert server.do(ScheduleDelete("s")).status == 200
    assert server.store.rows == {}


# Searching.


def test_search_promises_is_projected_and_paged() -> None:
    server = Server()
    server.create("a", "b", "c")
    server.put(Record("a.~1", State.RESOLVED, Kind.FOLD, "a", created_at=NOW, settled_at=NOW))
    server.do(PromiseCreate("d", NOW + 5, EMPTY, {"k": "v"}))
    server.settle("b")
    server.clock.advance(5)

    def ids(request: PromiseSearch) -> list[str]:
        return [one.id for one in server.do(request).promises]

    assert ids(PromiseSearch()) == ["a", "b", "c", "d"]
    assert ids(PromiseSearch(State.PENDING)) == ["a", "c"]
    assert ids(PromiseSearch(State.RESOLVED)) == ["b"]
    assert ids(PromiseSearch(State.TIMEDOUT)) == ["d"]
    assert ids(PromiseSearch(tags={"k": "v"})) == ["d"]
    page = server.do(PromiseSearch(limit=4))
    assert page.cursor is not None
    assert ids(PromiseSearch(limit=4, cursor=page.cursor)) == ["d"]


def test_search_tasks() -> None:
    server = Server()
    server.create("a", "b", "c")
    server.suspended("t1", "a")
    server.do(TaskCreate("w", 1000, PromiseCreate("t2", LATER, EMPTY, TARGET)))
    server.do(TaskCreate("w", 1000, PromiseCreate("t3", LATER, EMPTY, TARGET)))
    server.do(TaskFulfill("t3", 1, PromiseSettle("t3", State.RESOLVED)))
    server.do(TaskCreate("w", 1000, PromiseCreate("t4", LATER, EMPTY, TARGET)))
    server.do(TaskRelease("t4", 1))

    def ids(request: TaskSearch) -> list[str]:
        found: list[str] = []
        while True:
            reply = server.do(request)
            assert len(reply.tasks) <= request.limit
            found += [one.id for one in reply.tasks]
            if reply.cursor is None:
                return found
            request = request._replace(cursor=reply.cursor)

    assert ids(TaskSearch()) == ids(TaskSearch(limit=1)) == ids(TaskSearch(limit=2)) == ["t1", "t2", "t3", "t4"]
    assert [ids(TaskSearch(state, 2)) for state in TaskState] == [["t4"], ["t2"], ["t1"], [], ["t3"]]


def test_search_schedules() -> None:
    server = Server()
    for id in ("r", "s"):
        server.do(ScheduleCreate(id, "* * * * *", "{{.id}}.{{.timestamp}}", 5, EMPTY, {**TARGET, "k": id}))
    server.create("p")

    assert [one.id for one in server.do(ScheduleSearch()).schedules] == ["r", "s"]
    assert [one.id for one in server.do(ScheduleSearch({"k": "s"})).schedules] == ["s"]
    assert [one.id for one in server.do(PromiseSearch()).promises] == ["p"]
