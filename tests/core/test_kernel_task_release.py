"""task.release: 200, 404, 409."""

from __future__ import annotations

import pytest

from everstep.promise import Task, TaskState
from everstep.protocol import TaskRelease
from tests.core.world import NOW, World


def test_200_due_again_at_once_with_its_resumes() -> None:
    world = World()
    version = world.acquired("t")
    world.write(world.record("t")._replace(task=world.task("t")._replace(resumes=("p",))))
    world.now += 3

    assert world.do(TaskRelease("t", version)).status == 200
    assert world.task("t") == Task(TaskState.PENDING, version, retry_at=NOW + 3, resumes=("p",))


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
