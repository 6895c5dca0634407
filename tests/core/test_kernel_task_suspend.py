"""task.suspend: 200, 300, 400, 404, 409, 422."""

from __future__ import annotations

import pytest

from everstep.promise import Task, TaskState
from everstep.protocol import PromiseRegisterCallback, Reply, TaskSuspend
from tests.core.world import NOW, TIMER, World


def suspend(world: World, version: int, *awaited: str, id: str = "t") -> Reply:
    return world.do(TaskSuspend(id, version, tuple(PromiseRegisterCallback(one, id) for one in awaited)))


def test_200_the_lease_is_given_up_and_each_awaited_remembers_the_task() -> None:
    world = World()
    version = world.acquired("t")
    world.create("p")
    world.create("q", TIMER)

    assert suspend(world, version, "p", "q").status == 200

    assert world.task("t") == Task(TaskState.SUSPENDED, version)
    assert [world.record(id).callbacks for id in "pq"] == [("t",), ("t",)]


def test_w7_a_task_suspended_by_a_client_has_no_tree() -> None:
    world = World()
    version = world.acquired("t")
    world.write(world.record("t")._replace(task=world.task("t")._replace(tree="p", poll_at=NOW)))
    world.create("p")

    suspend(world, version, "p")

    assert (world.task("t").tree, world.task("t").poll_at) == (None, None)


def test_200_a_callback_that_stands_is_not_written_again() -> None:
    world = World()
    version = world.acquired("t")
    world.create("p")
    world.do(PromiseRegisterCallback("p", "t"))

    suspend(world, version, "p")

    assert [one.id for one in world.last.puts] == ["t"]


@pytest.mark.parametrize("awaited", [("q", "p"), ("p", "q")])
@pytest.mark.parametrize("late", [False, True])
def test_300_something_is_settled_already(late: bool, awaited: tuple[str, str]) -> None:
    world = World()
    version = world.acquired("t")
    world.create("p", timeout_at=NOW + 5)
    world.create("q")
    world.do(PromiseRegisterCallback("p", "t"))
    if late:
        world.now += 5
    else:
        world.settle("p")
    world.write(world.record("t")._replace(task=world.task("t")._replace(resumes=("x",))))

    reply = suspend(world, version, *awaited)

    assert reply.status == 300
    assert world.task("t") == Task(TaskState.ACQUIRED, version, "worker", 1000, NOW + 1000)
    assert world.record("q").callbacks == ()
    assert world.last.branch == ("t", "t")


def test_300_without_resumes_writes_nothing() -> None:
    world = World()
    version = world.acquired("t")
    world.create("p")
    world.settle("p")

    assert suspend(world, version, "p").status == 300
    assert world.last.puts == ()


@pytest.mark.parametrize("awaited", [(), ("t",), ("p", "t"), ("p", "p")])
def test_400_nothing_itself_or_twice(awaited: tuple[str, ...]) -> None:
    world = World()
    version = world.acquired("t")
    world.create("p")

    assert suspend(world, version, *awaited).status == 400
    assert world.task("t").state is TaskState.ACQUIRED


def test_404_no_task() -> None:
    world = World()
    world.create("p")
    world.create("q")

    assert suspend(world, 1, "p").status == 404
    assert suspend(world, 1, "p", id="q").status == 404


@pytest.mark.parametrize("state", [one for one in TaskState if one is not TaskState.ACQUIRED])
def test_409_not_acquired(state: TaskState) -> None:
    world = World()
    version = world.in_state(state)
    world.create("q")

    assert suspend(world, version, "q").status == 409
    assert world.record("q").callbacks == ()


def test_409_another_version() -> None:
    world = World()
    version = world.acquired("t")
    world.create("p")

    assert [suspend(world, version + offset, "p").status for offset in (-1, 1)] == [409, 409]


def test_409_past_its_deadline() -> None:
    world = World()
    version = world.acquired("t", timeout_at=NOW + 5)
    world.create("p")
    world.now += 5

    assert suspend(world, version, "p").status == 409


@pytest.mark.parametrize("awaited", [("p", "nothing"), ("nothing", "p"), ("p", "internal"), ("settled", "internal")])
def test_422_what_does_not_exist_or_is_internal(awaited: tuple[str, ...]) -> None:
    world = World()
    version = world.acquired("t")
    world.create("p")
    world.create("internal", {})
    world.create("settled")
    world.settle("settled")

    assert suspend(world, version, *awaited).status == 422
    assert world.record("p").callbacks == ()
    assert world.task("t").state is TaskState.ACQUIRED


def test_c3_across_origins() -> None:
    world = World()
    version = world.acquired("one.t")
    world.create("other.p")

    assert suspend(world, version, "other.p", id="one.t").status == 200
    assert world.record("other.p").callbacks == ("one.t",)
