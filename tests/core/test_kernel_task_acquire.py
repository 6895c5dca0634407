"""task.acquire: 200, 404, 409."""

from __future__ import annotations

import pytest

from everstep.promise import Task, TaskState
from tests.core.world import NOW, TARGET, World


def test_200_a_lease_and_the_next_version() -> None:
    world = World()
    world.create("t", TARGET)
    world.now += 3

    reply = world.acquire("t", 0, ttl=500)

    assert reply.status == 200
    assert world.task("t") == Task(TaskState.ACQUIRED, 1, "worker", 500, NOW + 503)
    assert reply.task == reply.promise
    assert world.last.branch == ("t", "t")


def test_404_no_task() -> None:
    world = World()
    world.create("p")

    assert [world.acquire(id, 0).status for id in ("t", "p")] == [404, 404]


@pytest.mark.parametrize("state", [TaskState.ACQUIRED, TaskState.SUSPENDED, TaskState.HALTED, TaskState.FULFILLED])
def test_409_not_pending(state: TaskState) -> None:
    world = World()
    version = world.in_state(state)

    assert world.acquire("t", version).status == 409
    assert world.last.puts == ()


@pytest.mark.parametrize("offset", [-1, 1])
def test_409_another_version(offset: int) -> None:
    """Question C9 of the specification: the server hands out versions, nobody may run ahead."""
    world = World()
    version = world.in_state(TaskState.PENDING)

    assert world.acquire("t", version + offset).status == 409


def test_409_past_its_deadline() -> None:
    world = World()
    world.create("t", TARGET, timeout_at=NOW + 5)
    world.now += 5

    assert world.acquire("t", 0).status == 409


def test_409_the_second_of_two() -> None:
    """Question C10 of the specification: one valid claim at a time."""
    world = World()
    world.create("t", TARGET)

    assert [world.acquire("t", 0).status for _ in range(2)] == [200, 409]
    assert world.task("t").version == 1


def test_a_lease_that_ended_is_not_taken_until_it_is_given_back() -> None:
    world = World()
    version = world.acquired("t", ttl=0)

    assert world.acquire("t", version).status == 409
    assert world.expire_lease("t")
    assert world.acquire("t", version).status == 200
    assert world.task("t").version == version + 1
