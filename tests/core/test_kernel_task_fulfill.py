"""task.fulfill: 200, 400, 404, 409."""

from __future__ import annotations

import pytest

from everstep.promise import Payload, State, Task, TaskState
from everstep.protocol import PromiseRegisterCallback, PromiseSettle, Reply, TaskFulfill
from tests.core.world import NOW, TARGET, World


def fulfill(world: World, version: int, state: State = State.RESOLVED, id: str = "t", of: str = "") -> Reply:
    return world.do(TaskFulfill(id, version, PromiseSettle(of or id, state, Payload("1"))))


@pytest.mark.parametrize("state", [State.RESOLVED, State.REJECTED, State.CANCELED])
def test_200_the_promise_settles_and_the_task_is_fulfilled(state: State) -> None:
    world = World()
    version = world.acquired("t")
    world.now += 3

    reply = fulfill(world, version, state)

    assert reply.promise is not None
    assert (reply.status, reply.promise.state, reply.promise.settled_at) == (200, state, NOW + 3)
    assert world.task("t") == Task(TaskState.FULFILLED, version)


def test_200_who_waits_is_owed_a_word() -> None:
    world = World()
    version = world.acquired("t")
    world.create("u", TARGET)
    world.do(PromiseRegisterCallback("t", "u"))

    fulfill(world, version)

    assert world.last.drain == ("t",)


@pytest.mark.parametrize("state", [State.PENDING, State.TIMEDOUT])
def test_400_states_no_client_may_write(state: State) -> None:
    world = World()
    version = world.acquired("t")

    assert fulfill(world, version, state).status == 400
    assert world.record("t").pending


def test_400_anothers_promise() -> None:
    world = World()
    version = world.acquired("t")
    world.create("p")

    assert fulfill(world, version, of="p").status == 400


def test_404_no_task() -> None:
    world = World()
    world.create("p")

    assert [fulfill(world, 1, id=id).status for id in ("t", "p")] == [404, 404]


@pytest.mark.parametrize("state", [one for one in TaskState if one is not TaskState.ACQUIRED])
def test_409_not_acquired(state: TaskState) -> None:
    world = World()
    version = world.in_state(state)

    assert fulfill(world, version).status == 409
    assert world.last.puts == ()


def test_409_another_version() -> None:
    world = World()
    version = world.acquired("t")

    assert [fulfill(world, version + offset).status for offset in (-1, 1)] == [409, 409]


def test_409_past_its_deadline() -> None:
    world = World()
    version = world.acquired("t", timeout_at=NOW + 5)
    world.now += 5

    assert fulfill(world, version).status == 409
    assert world.record("t").pending
