"""task.heartbeat: always 200; extends what is held, and only that."""

from __future__ import annotations

import pytest

from everstep.promise import TaskState
from everstep.protocol import TaskHeartbeat
from tests.core.world import NOW, World, ref


def test_200_the_lease_is_extended_by_its_ttl() -> None:
    world = World()
    version = world.acquired("t", ttl=500)
    world.now += 400

    assert world.do(TaskHeartbeat("worker", (ref("t", version),))).status == 200
    assert world.task("t").expires_at == NOW + 900


def test_c3_several_origins_at_once() -> None:
    world = World()
    refs = [ref(id, world.acquired(id, ttl=500)) for id in ("a", "b", "c.d")]
    world.now += 100

    world.do(TaskHeartbeat("worker", tuple(refs)))

    assert [world.task(id).expires_at for id in ("a", "b", "c.d")] == [NOW + 600] * 3


def test_c3_no_tasks_is_a_no_op() -> None:
    world = World()

    assert world.do(TaskHeartbeat("worker", ())).status == 200
    assert world.last.puts == ()


def test_a_task_named_twice_is_written_once() -> None:
    world = World()
    version = world.acquired("t")
    world.now += 1

    world.do(TaskHeartbeat("worker", (ref("t", version), ref("t", version))))

    assert len(world.last.puts) == 1


@pytest.mark.parametrize(("pid", "offset"), [("other", 0), ("worker", 1), ("worker", -1)])
def test_200_anothers_lease_is_left_alone(pid: str, offset: int) -> None:
    world = World()
    version = world.acquired("t")
    world.now += 1

    assert world.do(TaskHeartbeat(pid, (ref("t", version + offset), ref("nothing", 1)))).status == 200
    assert world.last.puts == ()


@pytest.mark.parametrize("state", [one for one in TaskState if one is not TaskState.ACQUIRED])
def test_200_what_is_not_leased_is_left_alone(state: TaskState) -> None:
    world = World()
    version = world.in_state(state)

    assert world.do(TaskHeartbeat("worker", (ref("t", version),))).status == 200
    assert world.last.puts == ()


def test_200_the_dead_are_not_kept_alive() -> None:
    """Question C7 of the specification: heartbeat asks the projection."""
    world = World()
    version = world.acquired("t", timeout_at=NOW + 5)
    world.now += 5

    assert world.do(TaskHeartbeat("worker", (ref("t", version),))).status == 200
    assert world.last.puts == ()
