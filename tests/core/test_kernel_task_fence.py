"""task.fence: 200 around the inner answer, 400, 404, 409."""

from __future__ import annotations

import pytest

from everstep.ports import Fence
from everstep.promise import Payload, State, TaskState
from everstep.protocol import PromiseCreate, PromiseSettle, TaskFence
from tests.core.world import EXTERNAL, LATER, NOW, World


def test_200_create_under_the_lease() -> None:
    world = World()
    version = world.acquired("t")

    reply = world.do(TaskFence("t", version, PromiseCreate("t.1", LATER, Payload("1"), EXTERNAL)))

    assert reply.status == 200
    assert reply.action is not None
    assert (reply.action.status, reply.action.promise) == (200, world.last.puts[0])
    assert world.last.fence == Fence("t", version)
    assert world.record("t.1").param == Payload("1")


def test_200_settle_under_the_lease() -> None:
    world = World()
    version = world.acquired("t")
    world.create("t.1")

    reply = world.do(TaskFence("t", version, PromiseSettle("t.1", State.REJECTED, Payload("x"))))

    assert reply.action is not None
    assert (reply.status, reply.action.status) == (200, 200)
    assert world.last.fence == Fence("t", version)
    assert world.record("t.1").state is State.REJECTED


def test_200_an_inner_refusal_is_the_inner_answer() -> None:
    world = World()
    version = world.acquired("t")

    bad = world.do(TaskFence("t", version, PromiseCreate("t.1", LATER, tags={"resonate:delay": "soon"})))
    absent = world.do(TaskFence("t", version, PromiseSettle("t.2", State.RESOLVED)))

    assert [(one.status, one.action.status) for one in (bad, absent) if one.action] == [(200, 400), (200, 404)]
    assert world.last.fence is None


def test_400_a_task_may_not_act_on_its_own_promise() -> None:
    world = World()
    version = world.acquired("t")

    assert world.do(TaskFence("t", version, PromiseSettle("t", State.RESOLVED))).status == 400
    assert world.record("t").pending


def test_404_no_task() -> None:
    world = World()
    world.create("p")

    assert [world.do(TaskFence(id, 1, PromiseCreate("x", LATER))).status for id in ("t", "p")] == [404, 404]


@pytest.mark.parametrize("state", [one for one in TaskState if one is not TaskState.ACQUIRED])
def test_409_not_acquired(state: TaskState) -> None:
    world = World()
    version = world.in_state(state)

    assert world.do(TaskFence("t", version, PromiseCreate("t.1", LATER))).status == 409
    assert "t.1" not in world.entities


def test_409_another_version() -> None:
    world = World()
    version = world.acquired("t")

    assert world.do(TaskFence("t", version + 1, PromiseCreate("t.1", LATER))).status == 409
    assert world.do(TaskFence("t", version - 1, PromiseCreate("t.1", LATER))).status == 409


def test_409_past_its_deadline() -> None:
    world = World()
    version = world.acquired("t", timeout_at=NOW + 5)
    world.now += 5

    assert world.do(TaskFence("t", version, PromiseCreate("t.1", LATER))).status == 409


def test_c3_across_origins_the_lease_is_checked_as_it_was_read() -> None:
    world = World()
    version = world.acquired("t")

    reply = world.do(TaskFence("t", version, PromiseCreate("other", LATER)))

    assert (reply.status, world.last.fence) == (200, None)
