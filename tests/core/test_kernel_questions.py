"""The specification's own list of questions that implementations got wrong (Part C), each answered by a test."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from everstep.kernel.internal import Resume
from everstep.promise import State, TaskState, due_at
from everstep.protocol import (
    PromiseCreate,
    PromiseGet,
    PromiseRegisterCallback,
    PromiseRegisterListener,
    PromiseSettle,
    Request,
    TaskAcquire,
    TaskContinue,
    TaskCreate,
    TaskFence,
    TaskFulfill,
    TaskGet,
    TaskHalt,
    TaskHeartbeat,
    TaskRelease,
    TaskSuspend,
)
from tests.core.world import EXTERNAL, LATER, NOW, TARGET, TIMER, World, ref

DEADLINE = NOW + 5


def dying(state: TaskState) -> tuple[World, int]:
    """A task in a state whose promise has reached its deadline, which nobody has written yet."""
    world = World()
    world.create("p")
    version = world.in_state(state, timeout_at=DEADLINE)
    world.now = DEADLINE
    return world, version


def test_question_c1_external_promises_carry_an_armed_deadline_and_internal_ones_do_not() -> None:
    world = World()
    for id, tags in (("a", EXTERNAL), ("b", TARGET), ("c", TIMER), ("d", {})):
        world.create(id, tags)

    due = {id: due_at(world.record(id)) for id in "abcd"}

    assert due == {"a": LATER, "b": NOW, "c": LATER, "d": None}


def test_question_c2_no_callback_attaches_to_an_internal_promise() -> None:
    world = World()
    world.create("p", {})
    world.create("t", TARGET)

    assert world.do(PromiseRegisterCallback("p", "t")).status == 422
    version = world.acquired("u")
    assert world.do(TaskSuspend("u", version, (PromiseRegisterCallback("p", "u"),))).status == 422


def test_question_c3_no_listener_attaches_to_an_internal_promise() -> None:
    world = World()
    world.create("p", {})

    assert world.do(PromiseRegisterListener("p", "http://x")).status == 422


def test_question_c4_create_halt_and_continue_ask_the_projection() -> None:
    pending, _ = dying(TaskState.PENDING)
    running, _ = dying(TaskState.ACQUIRED)
    halted, _ = dying(TaskState.HALTED)

    created = pending.do(TaskCreate("w", 5, PromiseCreate("t", LATER, tags=TARGET)))

    assert created.task is not None
    assert created.task.task is not None
    assert (created.status, created.task.task.state) == (200, TaskState.FULFILLED)
    assert running.do(TaskHalt("t")).status == 409
    assert halted.do(TaskContinue("t")).status == 409


def test_question_c5_lease_expiry_and_dispatch_ask_the_projection() -> None:
    running, _ = dying(TaskState.ACQUIRED)
    pending, _ = dying(TaskState.PENDING)
    running.now = pending.now = NOW + 50_000

    assert not running.expire_lease("t")
    assert pending.dispatch("t") is None


def test_question_c6_no_awaiter_past_its_own_deadline_is_woken() -> None:
    world, _ = dying(TaskState.SUSPENDED)
    world.settle("p")

    assert world.drain_callback("p", "t") is Resume.EXPIRED
    assert world.task("t").state is TaskState.SUSPENDED
    assert world.time_out("t")
    assert world.task("t").state is TaskState.FULFILLED


def test_question_c7_heartbeat_asks_the_projection() -> None:
    world, version = dying(TaskState.ACQUIRED)

    world.do(TaskHeartbeat("worker", (ref("t", version),)))

    assert world.task("t").expires_at == NOW + 1000


ANSWERS: list[Callable[[int], Request]] = [
    lambda version: PromiseGet("t"),
    lambda version: PromiseCreate("t", LATER, tags=TARGET),
    lambda version: PromiseSettle("t", State.RESOLVED),
    lambda version: PromiseRegisterCallback("t", "u"),
    lambda version: PromiseRegisterListener("t", "http://x"),
    lambda version: TaskGet("t"),
    lambda version: TaskCreate("w", 5, PromiseCreate("t", LATER, tags=TARGET)),
    lambda version: TaskFence("u", 1, PromiseCreate("t", LATER, tags=TARGET)),
    lambda version: TaskFence("u", 1, PromiseSettle("t", State.RESOLVED)),
]


@pytest.mark.parametrize("ask", ANSWERS)
@pytest.mark.parametrize("state", list(TaskState))
def test_question_c8_every_answer_is_projected(ask: Callable[[int], Request], state: TaskState) -> None:
    world, version = dying(state)
    world.acquired("u")

    reply = world.do(ask(version))

    inner = reply.action or reply
    for record in (inner.promise, inner.task):
        if record is not None:
            assert not record.pending
            assert record.task is not None
            assert record.task.state is TaskState.FULFILLED
    assert reply.status == 200
    assert [one.id for one in world.last.puts] == []


def test_question_c9_no_version_is_dispatched_before_it_is_issued() -> None:
    world = World()
    world.create("t", TARGET)
    first = world.dispatch("t")
    world.acquire("t", 0)
    world.now += 1000
    world.expire_lease("t")
    second = world.dispatch("t")

    assert first is not None
    assert second is not None
    assert (first.version, second.version) == (0, 1)
    assert world.acquire("t", 0).status == 409


def test_question_c10_two_workers_never_hold_one_task() -> None:
    world = World()
    version = world.acquired("t", ttl=10)
    world.now += 10
    world.expire_lease("t")
    world.acquire("t", version)

    late: list[Request] = [
        TaskRelease("t", version),
        TaskFulfill("t", version, PromiseSettle("t", State.RESOLVED)),
        TaskFence("t", version, PromiseCreate("x", LATER)),
        TaskAcquire("t", version, "other", 5),
    ]

    assert [world.do(request).status for request in late] == [409, 409, 409, 409]
    assert world.task("t").version == version + 1


def test_question_c11_a_settled_promise_accepts_nobody_new() -> None:
    world = World()
    world.create("p")
    world.create("t", TARGET)
    world.settle("p")

    world.do(PromiseRegisterCallback("p", "t"))
    world.do(PromiseRegisterListener("p", "http://x"))

    assert (world.record("p").callbacks, world.record("p").listeners) == ((), ())


def test_question_c12_there_is_no_debug_surface() -> None:
    from everstep.protocol_json import BadRequest, parse

    for kind in ("debug.start", "debug.reset", "debug.tick", "debug.snap", "debug.stop"):
        with pytest.raises(BadRequest, match="is not a request"):
            parse({"kind": kind, "head": {"corrId": "1", "version": "2026-04-01"}, "data": {}})


def test_question_p11_one_now_per_operation() -> None:
    """A suspend that sees one awaited promise expire sees all of them at that instant."""
    world = World()
    version = world.acquired("t")
    world.create("p", timeout_at=DEADLINE)
    world.create("q", timeout_at=DEADLINE)
    world.now = DEADLINE

    callbacks = tuple(PromiseRegisterCallback(id, "t") for id in "pq")

    assert world.do(TaskSuspend("t", version, callbacks)).status == 300
