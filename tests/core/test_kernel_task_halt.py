"""task.halt: 200, 404, 409."""

from __future__ import annotations

import pytest

from everstep.promise import Task, TaskState, due_at
from everstep.protocol import TaskHalt
from tests.core.world import LATER, NOW, World


@pytest.mark.parametrize("state", [TaskState.PENDING, TaskState.ACQUIRED, TaskState.SUSPENDED])
def test_200_stopped_without_lease_or_dispatch(state: TaskState) -> None:
    world = World()
    version = world.in_state(state)

    assert world.do(TaskHalt("t")).status == 200
    assert world.task("t")._replace(deaths=0) == Task(TaskState.HALTED, version, reason="halted")


def test_200_again() -> None:
    world = World()
    world.in_state(TaskState.HALTED)

    assert world.do(TaskHalt("t")).status == 200
    assert world.last.puts == ()


def test_404_no_task() -> None:
    world = World()
    world.create("p")

    assert [world.do(TaskHalt(id)).status for id in ("t", "p")] == [404, 404]


def test_409_fulfilled() -> None:
    world = World()
    world.in_state(TaskState.FULFILLED)

    assert world.do(TaskHalt("t")).status == 409


def test_409_past_its_deadline() -> None:
    """Question C4 of the specification: halt asks the projection."""
    world = World()
    world.in_state(TaskState.SUSPENDED, timeout_at=NOW + 5)
    world.now += 5

    assert world.do(TaskHalt("t")).status == 409


def test_c5_a_halted_task_keeps_its_deadline_armed() -> None:
    world = World()
    world.in_state(TaskState.ACQUIRED)
    world.do(TaskHalt("t"))

    assert due_at(world.record("t")) == LATER
