"""Rule B1: a pending timer lives inside the suspended task's record, and is a promise of its own to everybody else."""

from __future__ import annotations

import pytest

from everstep.kernel import owners, reads
from everstep.promise import Kind, Record, Segment, State, Task, TaskState
from everstep.protocol import (
    PromiseCreate,
    PromiseGet,
    PromiseRegisterCallback,
    PromiseRegisterListener,
    PromiseSettle,
    TaskCreate,
    TaskSuspend,
)
from tests.core.world import EXTERNAL, LATER, NOW, TARGET, TIMER, World

TASK = Task(
    TaskState.SUSPENDED,
    2,
    tree=("any", "a.3", "a.4"),
    timers=(("a.3", NOW + 50), ("a.4", NOW + 90)),
    segments=(Segment(1, 0, (), NOW - 20), Segment(2, 0, (), NOW - 10)),
)
WAITING = Record("a", State.PENDING, Kind.ROOT, "a", tags=TARGET, created_at=NOW - 20, task=TASK)
AS_PROMISE = Record(
    "a.3",
    State.PENDING,
    Kind.TIMER,
    "a",
    tags=TIMER,
    timeout_at=NOW + 50,
    created_at=NOW - 10,
    callbacks=("a",),
)


@pytest.fixture
def world() -> World:
    world = World()
    world.write(WAITING)
    return world


def test_whose_timer_it_may_be() -> None:
    assert owners("a.g2.3.1") == ("a.g2.3", "a.g2", "a")
    assert owners("a") == ()
    assert reads(PromiseGet("a.1.2")) == ("a.1.2", "a.1", "a")


def test_it_is_read_as_a_promise(world: World) -> None:
    before = world.do(PromiseGet("a.3")).promise
    world.now = NOW + 50
    after = world.do(PromiseGet("a.3")).promise

    assert before == AS_PROMISE
    assert after == AS_PROMISE._replace(state=State.RESOLVED, settled_at=NOW + 50)
    assert world.do(PromiseGet("a.5")).status == 404
    assert list(world.entities) == ["a"]


def test_creating_it_finds_it(world: World) -> None:
    assert world.do(PromiseCreate("a.3", LATER)).promise == AS_PROMISE
    assert world.last.puts == ()
    assert world.do(TaskCreate("w", 5, PromiseCreate("a.3", LATER, tags=TARGET))).status == 422


def test_settling_it_makes_it_a_record_and_takes_it_out_of_its_owner(world: World) -> None:
    world.do(PromiseSettle("a.3", State.CANCELED))

    assert (world.record("a.3").state, world.record("a.3").callbacks) == (State.CANCELED, ("a",))
    assert world.task("a") == TASK._replace(timers=(("a.4", NOW + 90),))
    assert world.last.drain == ("a.3",)


def test_settling_it_after_its_instant_changes_nothing(world: World) -> None:
    world.now = NOW + 50

    late = world.do(PromiseSettle("a.3", State.CANCELED)).promise

    assert late is not None
    assert (late.state, world.last.puts, world.last.drain) == (State.RESOLVED, (), ())


def test_waiting_for_it_makes_it_a_record(world: World) -> None:
    world.create("t", TARGET)

    world.do(PromiseRegisterCallback("a.3", "t"))
    world.do(PromiseRegisterListener("a.4", "http://x"))

    assert world.record("a.3").callbacks == ("a", "t")
    assert (world.record("a.4").callbacks, world.record("a.4").listeners) == (("a",), ("http://x",))
    assert world.task("a").timers == ()


def test_suspending_on_it_and_on_something_else(world: World) -> None:
    version = world.acquired("t")
    world.create("p", EXTERNAL)

    reply = world.do(TaskSuspend("t", version, tuple(PromiseRegisterCallback(id, "t") for id in ("p", "a.3", "a.4"))))

    assert reply.status == 200
    assert [world.record(id).callbacks for id in ("p", "a.3", "a.4")] == [("t",), ("a", "t"), ("a", "t")]
    assert world.task("a").timers == ()


def test_an_owner_that_is_settled_has_no_timers(world: World) -> None:
    world.settle("a")

    assert world.do(PromiseGet("a.3")).status == 404
