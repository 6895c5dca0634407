"""task.get: 200 with the projection, 404."""

from __future__ import annotations

from everstep.promise import Task, TaskState
from everstep.protocol import TaskGet
from tests.core.world import NOW, TARGET, World


def test_200_the_task() -> None:
    world = World()
    world.create("t", TARGET)

    reply = world.do(TaskGet("t"))

    assert (reply.status, reply.task) == (200, world.record("t"))


def test_404_no_promise_and_no_task() -> None:
    world = World()
    world.create("p")

    assert [world.do(TaskGet(id)).status for id in ("t", "p")] == [404, 404]


def test_200_fulfilled_as_soon_as_its_promise_is_past_its_deadline() -> None:
    world = World()
    version = world.acquired("t", timeout_at=NOW + 5)
    world.now += 5

    reply = world.do(TaskGet("t"))

    assert reply.task is not None
    assert reply.task.task == Task(TaskState.FULFILLED, version)
    assert world.task("t").state is TaskState.ACQUIRED
