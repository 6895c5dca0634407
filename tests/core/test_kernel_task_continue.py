"""task.continue: 200, 404, 409."""

from __future__ import annotations

import pytest

from everstep.promise import Task, TaskState
from everstep.protocol import TaskContinue, TaskHalt, TaskRelease
from tests.core.world import NOW, World


def test_200_due_again_at_once() -> None:
    world = World()
    version = world.in_state(TaskState.HALTED)
    world.now += 3

    assert world.do(TaskContinue("t")).status == 200
    assert world.task("t") == Task(TaskState.PENDING, version, retry_at=NOW + 3)


def test_200_with_the_resumes_it_buffered() -> None:
    world = World()
    world.suspended("t", "p")
    world.do(TaskHalt("t"))
    world.settle("p")
    world.drain_callback("p", "t")

    world.do(TaskContinue("t"))

    assert world.task("t").resumes == ("p",)


def test_halt_then_continue_is_release() -> None:
    one, other = World(), World()
    version = one.acquired("t")
    other.acquired("t")

    one.do(TaskHalt("t"))
    one.do(TaskContinue("t"))
    other.do(TaskRelease("t", version))

    assert one.task("t") == other.task("t")._replace(deaths=0)  # it was not a worker who let go


def test_404_no_task() -> None:
    world = World()
    world.create("p")

    assert [world.do(TaskContinue(id)).status for id in ("t", "p")] == [404, 404]


@pytest.mark.parametrize("state", [one for one in TaskState if one is not TaskState.HALTED])
def test_409_not_halted(state: TaskState) -> None:
    world = World()
    world.in_state(state)

    assert world.do(TaskContinue("t")).status == 409
    assert world.last.puts == ()


def test_409_past_its_deadline() -> None:
    """Question C4 of the specification: continue asks the projection."""
    world = World()
    world.in_state(TaskState.HALTED, timeout_at=NOW + 5)
    world.now += 5

    assert world.do(TaskContinue("t")).status == 409
