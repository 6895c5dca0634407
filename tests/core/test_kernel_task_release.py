"""task.release: 200, 404, 409."""

from __future__ import annotations

import pytest

from everstep.promise import State, Task, TaskState
from everstep.protocol import PromiseRegisterCallback, PromiseSettle, TaskAcquire, TaskRelease, TaskSuspend
from tests.core.world import EXTERNAL, NOW, World


def test_200_due_again_at_once_with_its_resumes() -> None:
    world = World()
    version = world.acquired("t")
    world.write(world.record("t")._replace(task=world.task("t")._replace(resumes=("p",))))
    world.now += 3

    assert world.do(TaskRelease("t", version)).status == 200
    assert world.task("t") == Task(TaskState.PENDING, version, retry_at=NOW + 3, resumes=("p",), deaths=1)


def test_let_go_again_and_again_it_is_offered_later_each_time_until_it_gets_on() -> None:
    """Worker after worker takes it and cannot run it: the first time another may have it at once."""
    world = World()
    version = world.acquired("t")
    delays = []
    for _ in range(9):
        assert world.do(TaskRelease("t", version)).status == 200
        delays.append((world.task("t").retry_at or 0) - world.now)
        world.now += delays[-1]
        assert world.do(TaskAcquire("t", version, "w", 60_000)).status == 200
        version += 1
    assert delays == [0, 250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]

    world.create("p", EXTERNAL)
    assert world.do(TaskSuspend("t", version, (PromiseRegisterCallback("p", "t"),))).status == 200
    world.do(PromiseSettle("p", State.RESOLVED))
    world.drain_callback("p", "t")
    assert world.do(TaskAcquire("t", version, "w", 60_000)).status == 200
    assert world.do(TaskRelease("t", version + 1)).status == 200
    assert world.task("t").retry_at == world.now


def test_404_no_task() -> None:
    world = World()
    world.create("p")

    assert [world.do(TaskRelease(id, 1)).status for id in ("t", "p")] == [404, 404]


@pytest.mark.parametrize("state", [one for one in TaskState if one is not TaskState.ACQUIRED])
def test_409_not_acquired(state: TaskState) -> None:
    world = World()
    version = world.in_state(state)

    assert world.do(TaskRelease("t", version)).status == 409
    assert world.last.puts == ()


def test_409_another_version_or_past_its_deadline() -> None:
    world = World()
    version = world.acquired("t", timeout_at=NOW + 5)

    assert [world.do(TaskRelease("t", version + offset)).status for offset in (-1, 1)] == [409, 409]
    world.now += 5
    assert world.do(TaskRelease("t", version)).status == 409
