"""Internal steps: deadlines, leases, dispatch, listeners, and each outcome of waking an awaiter (rules W7, W8)."""

from __future__ import annotations

import pytest

from everstep.clock import NEVER
from everstep.kernel.internal import Resume, engine_task, resume
from everstep.promise import Record, Segment, State, Task, TaskState, Tree, due_at
from everstep.protocol import (
    Execute,
    PromiseRegisterCallback,
    PromiseRegisterListener,
    TaskAcquire,
    TaskContinue,
    TaskHalt,
)
from tests.core.world import EXTERNAL, LATER, NOW, TARGET, TIMER, World


def test_a_deadline_settles_the_promise_and_fulfils_the_task() -> None:
    world = World()
    version = world.acquired("t", timeout_at=NOW + 5)
    world.now = NOW + 9

    assert world.time_out("t")

    assert (world.record("t").state, world.record("t").settled_at) == (State.TIMEDOUT, NOW + 5)
    assert world.task("t") == Task(TaskState.FULFILLED, version)


def test_a_deadline_means_not_before() -> None:
    world = World()
    world.create("p", timeout_at=NOW + 5)
    world.now = NOW + 4

    assert not world.time_out("p")


def test_a_timer_resolves() -> None:
    world = World()
    world.create("p", TIMER, timeout_at=NOW + 5)
    world.now = NOW + 5

    assert world.time_out("p")
    assert world.record("p").state is State.RESOLVED
    assert not world.time_out("p")


@pytest.mark.parametrize(
    ("tags", "armed"),
    [(EXTERNAL, True), (TARGET, True), (TIMER, True), ({"resonate:scope": "global"}, True), ({}, False)],
)
def test_c1_only_external_promises_arm_their_deadline(tags: dict[str, str], armed: bool) -> None:
    world = World()
    world.create("p", tags)
    record = world.record("p")
    if record.task is not None:
        record = record._replace(task=record.task._replace(retry_at=None))

    assert due_at(record) == (LATER if armed else None)


def test_a_lease_ends() -> None:
    world = World()
    version = world.acquired("t", ttl=100)
    world.now = NOW + 99
    early = world.expire_lease("t")
    world.now = NOW + 100

    assert (early, world.expire_lease("t")) == (False, True)
    assert world.task("t") == Task(TaskState.PENDING, version, retry_at=NOW + 100)


def test_the_lease_of_the_dead_is_left_to_the_deadline() -> None:
    """Question C5 of the specification: lease expiry asks the projection."""
    world = World()
    world.acquired("t", timeout_at=NOW + 100, ttl=100)
    world.now = NOW + 100

    assert not world.expire_lease("t")


@pytest.mark.parametrize("state", [one for one in TaskState if one is not TaskState.ACQUIRED])
def test_only_a_lease_can_end(state: TaskState) -> None:
    world = World()
    world.in_state(state)
    world.now += 50_000

    assert not world.expire_lease("t")


def test_dispatch_again_until_somebody_acquires() -> None:
    world = World()
    world.create("t", TARGET)

    first = world.dispatch("t", 5000)
    too_early = world.dispatch("t", 5000)
    world.now += 5000
    again = world.dispatch("t", 5000)

    assert (first, too_early, again) == (Execute("t", 0, "poll://any@workers"), None, first)


def waited(world: World, id: str, count: int) -> list[int]:
    """Offer so often, each time when it is due; returns the seconds between."""
    found = []
    for _ in range(count):
        before = world.now
        assert world.dispatch(id, 5000)
        world.now = world.task(id).retry_at or 0
        found.append((world.now - before) // 1000)
    return found


def test_offers_in_vain_become_rare_until_somebody_comes() -> None:
    world = World()
    world.create("t", TARGET, timeout_at=NEVER)

    assert waited(world, "t", 6) == [5, 10, 20, 40, 60, 60]
    assert world.task("t").offers == 6

    assert world.do(TaskAcquire("t", 0, "w", 100)).status == 200
    world.now += 100
    assert world.expire_lease("t")
    assert waited(world, "t", 2) == [5, 10]
    world.do(TaskHalt("t"))
    world.do(TaskContinue("t"))
    assert waited(world, "t", 1) == [5]


def test_what_an_app_carries_out_is_due_as_often_as_ever() -> None:
    """Its workers look for what is due; nobody tells them that they may come."""
    world = World()
    world.create("t", {"resonate:target": "everstep://shop"}, timeout_at=NEVER)

    assert waited(world, "t", 4) == [5, 5, 5, 5]


def test_the_dead_are_not_dispatched() -> None:
    """Question C5 of the specification: dispatch asks the projection."""
    world = World()
    world.create("t", TARGET, timeout_at=NOW + 5)
    world.now += 5

    assert world.dispatch("t") is None


@pytest.mark.parametrize("state", [one for one in TaskState if one is not TaskState.PENDING])
def test_only_the_pending_are_dispatched(state: TaskState) -> None:
    world = World()
    world.in_state(state)

    assert world.dispatch("t") is None


def test_a_listener_is_told_once_with_the_settled_promise() -> None:
    world = World()
    world.create("p")
    world.do(PromiseRegisterListener("p", "http://x"))
    world.do(PromiseRegisterListener("p", "http://y"))

    early = world.drain_listener("p", "http://x")
    world.settle("p")
    notice = world.drain_listener("p", "http://x")
    again = world.drain_listener("p", "http://x")

    assert (early, again) == (None, None)
    assert notice is not None
    assert (notice.address, notice.promise.state) == ("http://x", State.RESOLVED)
    assert world.record("p").listeners == ("http://y",)


def test_resumed_by_any_of_what_a_client_suspended_on() -> None:
    world = World()
    version = world.suspended("t", "p")
    world.settle("p")
    world.now += 3

    assert world.drain_callback("p", "t") is Resume.RESUMED
    assert world.task("t") == Task(TaskState.PENDING, version, retry_at=NOW + 3, resumes=("p",))
    assert world.record("p").callbacks == ()
    assert world.drain_callback("p", "t") is None


@pytest.mark.parametrize("state", [TaskState.PENDING, TaskState.ACQUIRED, TaskState.HALTED])
def test_buffered_then_duplicate(state: TaskState) -> None:
    """C5: also a halted task buffers its resumes."""
    world = World()
    world.in_state(state)
    world.create("q")
    world.do(PromiseRegisterCallback("q", "t"))
    world.settle("q")
    before = world.task("t")

    assert world.drain_callback("q", "t") is Resume.BUFFERED
    assert world.task("t") == before._replace(resumes=("q",))
    assert resume(world.record("t"), "q", NOW).outcome is Resume.DUPLICATE


def test_a_pending_promise_wakes_nobody() -> None:
    world = World()
    world.suspended("t", "p")

    assert world.drain_callback("p", "t") is None
    assert world.task("t").state is TaskState.SUSPENDED


def test_w8_expired_an_awaiter_past_its_own_deadline_is_never_woken() -> None:
    """Question C6 of the specification: the one that every implementation missed."""
    world = World()
    version = world.suspended("t", "p", timeout_at=NOW + 5)
    world.now = NOW + 5
    world.settle("p")

    assert world.drain_callback("p", "t") is Resume.EXPIRED
    assert world.task("t") == Task(TaskState.SUSPENDED, version)
    assert world.record("p").callbacks == ()


def test_fulfilled_and_absent() -> None:
    world = World()
    world.suspended("t", "p")
    world.settle("t")
    world.settle("p")

    assert world.drain_callback("p", "t") is Resume.FULFILLED
    assert resume(None, "p", NOW).outcome is Resume.ABSENT
    assert resume(world.record("p"), "q", NOW).outcome is Resume.ABSENT


def engine(tree: Tree, state: TaskState = TaskState.SUSPENDED, **fields: object) -> Record:
    """A task as the engine leaves it: its last acquisition is a segment, its tree is in the record."""
    task = Task(state, 3, tree=tree, timers=(("t.9", NOW + 50),), segments=(Segment(3, 0, (), NOW),))
    return Record("t", State.PENDING, tags=TARGET, timeout_at=LATER, task=task._replace(**fields))


STATES = {"t.1": State.RESOLVED, "t.2": State.PENDING, "t.3": State.REJECTED, "t.4": State.RESOLVED}


@pytest.mark.parametrize(
    ("tree", "outcome"),
    [
        ("t.1", Resume.RESUMED),
        ("t.2", Resume.UNSATISFIED),
        (("any", "t.1", "t.2"), Resume.RESUMED),
        (("all", "t.1", "t.2"), Resume.UNSATISFIED),
        (("all", "t.1", "t.3"), Resume.RESUMED),
        (("try", "t.1", "t.2"), Resume.UNSATISFIED),
        (("try", "t.3", "t.2"), Resume.RESUMED),
        (("try", "t.1", "t.4"), Resume.RESUMED),
        (("all", ("any", "t.2", "t.1"), "t.4"), Resume.RESUMED),
        (("all", ("all", "t.2", "t.1"), "t.4"), Resume.UNSATISFIED),
        (("all", "t.1", "unknown"), Resume.UNSATISFIED),
    ],
)
def test_w7_an_engines_task_resumes_when_its_tree_is_satisfied(tree: Tree, outcome: Resume) -> None:
    resumed = resume(engine(tree), "t.1", NOW, STATES)

    assert resumed.outcome is outcome
    if outcome is Resume.RESUMED:
        assert resumed.record is not None
        task = resumed.record.task
        assert task is not None
        assert (task.state, task.tree, task.retry_at, task.resumes) == (TaskState.PENDING, None, NOW, ("t.1",))
        assert task.timers == (("t.9", NOW + 50),)
    else:
        assert resumed.record is None


def test_w8_holds_for_trees_too() -> None:
    assert resume(engine("t.1")._replace(timeout_at=NOW), "t.1", NOW, STATES).outcome is Resume.EXPIRED


def test_w7_nudged_it_stays_suspended_and_is_due_now() -> None:
    nudged = resume(engine("t.1"), "t.1", NOW, STATES, nudge=True)

    assert nudged.outcome is Resume.NUDGED
    assert nudged.record == engine("t.1", poll_at=NOW)
    assert due_at(nudged.record) == NOW
    assert resume(nudged.record, "t.4", NOW, STATES, nudge=True).outcome is Resume.DUPLICATE


@pytest.mark.parametrize("state", [TaskState.PENDING, TaskState.ACQUIRED])
def test_w4_a_task_an_engine_has_is_not_written(state: TaskState) -> None:
    held = engine("t.1", state)

    assert resume(held, "t.1", NOW, STATES) == (Resume.HELD, None)


def test_c5_a_halted_engine_task_buffers() -> None:
    assert resume(engine("t.1", TaskState.HALTED), "t.1", NOW, STATES).outcome is Resume.BUFFERED


def test_a_task_that_a_client_took_over_is_no_longer_the_engines() -> None:
    assert engine_task(engine("t.1"))
    assert not engine_task(engine("t.1", version=4))


def test_halting_does_not_lose_a_timer() -> None:
    world = World()
    world.write(engine("t.9"))

    world.do(TaskHalt("t"))

    assert world.task("t").timers == (("t.9", NOW + 50),)
