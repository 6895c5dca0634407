"""The kernel does what the tables say, for every state and every event; the document is what the tables say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from everstep import lifecycle, transitions
from everstep.kernel import internal
from everstep.promise import Payload, Record, State, Task, TaskState
from everstep.protocol import (
    PromiseRegisterCallback,
    PromiseSettle,
    TaskContinue,
    TaskFulfill,
    TaskHalt,
    TaskHeartbeat,
    TaskRelease,
    TaskSuspend,
)
from everstep.transitions import ENGINE, Fused, PromiseEvent, TaskEvent, promise_after, task_after
from tests.core.world import EXTERNAL, LATER, NOW, TARGET, TIMER, World, ref

SETTLEMENTS = {
    PromiseEvent.RESOLVE: State.RESOLVED,
    PromiseEvent.REJECT: State.REJECTED,
    PromiseEvent.CANCEL: State.CANCELED,
}


def promise_in(state: State, tags: dict[str, str]) -> World:
    world = World()
    world.create("p", tags)
    if state is State.TIMEDOUT:
        world.now = LATER
        world.write(world.record("p")._replace(state=state, settled_at=LATER))
        world.now = NOW
    elif state is not State.PENDING:
        world.settle("p", state)
    return world


@pytest.mark.parametrize("event", list(PromiseEvent))
@pytest.mark.parametrize("state", list(State))
def test_a_promise_in_every_state_meets_every_event(state: State, event: PromiseEvent) -> None:
    world = promise_in(state, TIMER if event is PromiseEvent.TIMER else EXTERNAL)

    if event in SETTLEMENTS:
        world.do(PromiseSettle("p", SETTLEMENTS[event]))
    else:
        world.now = LATER
        world.time_out("p")

    assert world.record("p").state is promise_after(state, event)


def act(world: World, event: TaskEvent, version: int) -> None:
    match event:
        case TaskEvent.ACQUIRE:
            world.acquire("t", version)
        case TaskEvent.HEARTBEAT:
            world.now += 1
            world.do(TaskHeartbeat("worker", (ref("t", version),)))
        case TaskEvent.SUSPEND | TaskEvent.SUSPEND_READY:
            world.create("q")
            if event is TaskEvent.SUSPEND_READY:
                world.settle("q")
            world.do(TaskSuspend("t", version, (PromiseRegisterCallback("q", "t"),)))
        case TaskEvent.RELEASE:
            world.do(TaskRelease("t", version))
        case TaskEvent.FULFILL:
            world.do(TaskFulfill("t", version, PromiseSettle("t", State.RESOLVED)))
        case TaskEvent.HALT:
            world.do(TaskHalt("t"))
        case TaskEvent.CONTINUE:
            world.do(TaskContinue("t"))
        case TaskEvent.SETTLE:
            world.settle("t", State.CANCELED)
        case TaskEvent.WAKE:
            if "p" not in world.entities:
                world.create("p")
            record = world.record("p")
            world.write(record._replace(state=State.RESOLVED, settled_at=NOW, callbacks=("t",)))
            world.drain_callback("p", "t")
        case TaskEvent.LEASE_ENDS:
            world.now += 1000
            world.expire_lease("t")
        case TaskEvent.RETRY:
            world.dispatch("t")


@pytest.mark.parametrize("event", list(TaskEvent))
@pytest.mark.parametrize("state", list(TaskState))
def test_a_task_in_every_state_meets_every_event(state: TaskState, event: TaskEvent) -> None:
    world = World()
    version = world.in_state(state)
    before = world.record("t")

    act(world, event, version)

    after = world.record("t")
    assert world.task("t").state is task_after(state, event)
    assert world.task("t").version == version + (event is TaskEvent.ACQUIRE and state is TaskState.PENDING)
    # What a table does not name changes nothing, and what it names changes something.
    assert (after._replace(rev=0) != before._replace(rev=0)) == (
        (state, event) in transitions.TASKS and event is not TaskEvent.SUSPEND_READY
    )


@pytest.mark.parametrize("event", [one for one in TaskEvent if one is not TaskEvent.SETTLE])
@pytest.mark.parametrize("state", list(TaskState))
def test_past_its_deadline_a_task_meets_every_event_as_fulfilled(state: TaskState, event: TaskEvent) -> None:
    """Nothing is done on behalf of the dead (rule W8, questions C4 to C7)."""
    world = World()
    version = world.in_state(state, timeout_at=NOW + 500)
    before = world.record("t")
    world.now = NOW + 500

    act(world, event, version)

    assert world.record("t") == before


def taken(record: Record, event: Fused, now: int) -> Record | None:
    match event:
        case Fused.AGAIN:
            return lifecycle.acquire(record, now, "me", 50, (), 0, progressed=True, again=True)
        case Fused.CONTINUE_AS_NEW:
            version = record.task.version if record.task else 0
            return lifecycle.continue_as_new(record, now, version, Payload("1"), stay=False)
        case _:
            return lifecycle.acquire(record, now, "me", 50, (), 0, progressed=True)


@pytest.mark.parametrize(("state", "event"), list(ENGINE))
def test_the_engines_steps(state: TaskState, event: Fused) -> None:
    world = World()
    version = world.in_state(state)

    after = taken(world.record("t"), event, NOW + (1000 if event is Fused.TAKE_OVER else 1))

    assert after is not None
    assert after.task is not None
    assert after.task.state is ENGINE[state, event]
    assert after.task.version == version + (event is not Fused.CONTINUE_AS_NEW)


@pytest.mark.parametrize("event", list(Fused))
@pytest.mark.parametrize("state", [TaskState.HALTED, TaskState.FULFILLED])
def test_the_engine_takes_no_task_that_is_halted_or_fulfilled(state: TaskState, event: Fused) -> None:
    world = World()
    world.in_state(state)

    assert taken(world.record("t"), event, NOW + 1000) is None


@pytest.mark.parametrize("event", [Fused.RESUME, Fused.TAKE_OVER])
def test_a_fused_step_is_the_protocols_steps_next_to_each_other(event: Fused) -> None:
    world = World()
    state = TaskState.SUSPENDED if event is Fused.RESUME else TaskState.ACQUIRED
    version = world.in_state(state)
    now = NOW + 1000
    fused = taken(world.record("t"), event, now)
    world.now = now
    if event is Fused.RESUME:
        world.settle("p")
        world.drain_callback("p", "t")
    else:
        world.expire_lease("t")
    world.acquire("t", version, ttl=50)

    assert fused is not None
    assert fused.task is not None
    assert fused.task._replace(segments=(), pid="worker") == world.task("t")


def test_an_engine_task_that_is_leased_is_taken_by_nobody() -> None:
    world = World()
    world.in_state(TaskState.ACQUIRED)

    assert taken(world.record("t"), Fused.ACQUIRE, NOW + 999) is None


def test_what_the_kernel_never_does() -> None:
    """`drained` and `notices` of something pending would be a bug upstream; they do nothing."""
    record = Record("p", State.PENDING, tags=TARGET, listeners=("http://x",), task=Task(TaskState.PENDING))

    assert internal.notices(record) == ()


def test_the_document_is_drawn_from_the_tables() -> None:
    path = Path(__file__).resolve().parents[2] / "docs" / "state-machine.md"
    printed = subprocess.run(
        [sys.executable, "-m", "everstep.transitions"], capture_output=True, text=True, check=True
    ).stdout

    assert path.read_text() == transitions.document() == printed, (
        "stale: python -m everstep.transitions > docs/state-machine.md"
    )


def test_the_diagrams_hold_every_arrow() -> None:
    text = transitions.document()

    for (one, event), two in [*transitions.PROMISES.items(), *transitions.TASKS.items(), *transitions.ENGINE.items()]:
        assert f"    {one.value} --> {two.value}: {event.value}\n" in text
    assert text.count("```mermaid") == 3
