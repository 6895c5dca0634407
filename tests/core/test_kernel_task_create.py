"""task.create: 200 with the lease or with what is fulfilled, 400, 409, 422."""

from __future__ import annotations

import pytest

from everstep.promise import EMPTY, State, Task, TaskState
from everstep.protocol import PromiseCreate, Reply, TaskCreate, TaskRelease
from tests.core.world import EXTERNAL, LATER, NOW, TARGET, TIMER, World


def create(world: World, id: str = "t", tags: dict[str, str] = TARGET, timeout_at: int = LATER) -> Reply:
    return world.do(TaskCreate("w", 1000, PromiseCreate(id, timeout_at, EMPTY, tags)))


def test_200_a_new_task_is_born_acquired() -> None:
    world = World()

    reply = create(world)

    assert reply.status == 200
    assert world.task("t") == Task(TaskState.ACQUIRED, 1, "w", 1000, NOW + 1000)
    assert reply.task == reply.promise
    assert world.record("t").created_at == NOW


def test_200_born_past_its_deadline() -> None:
    world = World()

    promise = create(world, timeout_at=NOW).promise

    assert promise is not None
    assert (promise.state, promise.created_at, promise.settled_at) == (State.TIMEDOUT, NOW, NOW)
    assert promise.task == Task(TaskState.FULFILLED, 0)


@pytest.mark.parametrize("tags", [EXTERNAL, {**TARGET, **TIMER}])
def test_400_only_a_target_has_a_task(tags: dict[str, str]) -> None:
    world = World()

    assert create(world, tags=tags).status == 400
    assert world.entities == {}


def test_200_a_pending_task_is_acquired_even_before_it_is_due() -> None:
    world = World()
    world.create("t", {**TARGET, "resonate:delay": str(NOW + 500)})

    reply = create(world)

    assert reply.status == 200
    assert world.task("t") == Task(TaskState.ACQUIRED, 1, "w", 1000, NOW + 1000)


def test_200_acquiring_clears_the_resumes() -> None:
    world = World()
    version = world.suspended("t", "p")
    world.settle("p")
    world.drain_callback("p", "t")
    assert world.task("t").resumes == ("p",)

    create(world)

    assert world.task("t") == Task(TaskState.ACQUIRED, version + 1, "w", 1000, NOW + 1000)


def test_200_a_fulfilled_task_is_shown() -> None:
    world = World()
    version = world.acquired("t")
    world.settle("t")

    reply = create(world)

    assert (reply.status, world.last.puts) == (200, ())
    assert reply.task is not None
    assert reply.task.task == Task(TaskState.FULFILLED, version)


def test_200_past_its_deadline_it_is_shown_fulfilled() -> None:
    """Question C4 of the specification: create asks the projection."""
    world = World()
    world.create("t", TARGET, timeout_at=NOW + 5)
    world.now += 5

    reply = create(world)

    assert reply.promise is not None
    assert (reply.status, reply.promise.state, world.last.puts) == (200, State.TIMEDOUT, ())


@pytest.mark.parametrize("state", [TaskState.ACQUIRED, TaskState.SUSPENDED, TaskState.HALTED])
def test_409_a_task_that_is_not_pending(state: TaskState) -> None:
    world = World()
    world.in_state(state)

    assert create(world).status == 409
    assert world.last.puts == ()


def test_422_a_promise_without_a_target() -> None:
    world = World()
    world.create("t", EXTERNAL)

    assert create(world).status == 422


def test_the_preload_is_that_of_the_branch_without_the_task() -> None:
    """Rule I4."""
    world = World()
    version = world.acquired("t")
    world.do(TaskRelease("t", version))
    world.create("b.t", {**TARGET, "resonate:branch": "b"})

    create(world)
    own = world.last.branch
    create(world, "b.t")

    assert (own, world.last.branch) == (("t", "t"), ("b", "b.t"))
