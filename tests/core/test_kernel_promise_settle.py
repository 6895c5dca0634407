"""promise.settle: 200 with what stands, whoever came first; 400; 404."""

from __future__ import annotations

import pytest

from everstep.promise import EMPTY, Payload, State, Task, TaskState
from everstep.protocol import PromiseSettle
from tests.core.world import NOW, TARGET, World


@pytest.mark.parametrize("state", [State.RESOLVED, State.REJECTED, State.CANCELED])
def test_200_settled(state: State) -> None:
    world = World()
    world.create("a")
    world.now += 7

    promise = world.settle("a", state, "x").promise

    assert promise is not None
    assert (promise.state, promise.value, promise.settled_at) == (state, Payload("x"), NOW + 7)
    assert world.last.drain == ()


@pytest.mark.parametrize("state", [State.PENDING, State.TIMEDOUT])
def test_400_states_no_client_may_write(state: State) -> None:
    world = World()
    world.create("a")

    assert world.do(PromiseSettle("a", state)).status == 400
    assert world.record("a").pending


def test_404_what_does_not_exist() -> None:
    assert World().settle("a").status == 404


def test_200_settling_again_absorbs() -> None:
    world = World()
    world.create("a")
    world.settle("a", State.RESOLVED, "1")

    again = world.settle("a", State.REJECTED, "2")

    assert again.status == 200
    assert again.promise == world.record("a")
    assert (world.record("a").state, world.record("a").value) == (State.RESOLVED, Payload("1"))
    assert world.last.puts == ()


def test_200_a_late_settle_is_answered_with_the_deadlines_verdict() -> None:
    world = World()
    world.create("a", timeout_at=NOW + 5)
    world.now = NOW + 5

    late = world.settle("a").promise

    assert late is not None
    assert (late.state, late.value, late.settled_at) == (State.TIMEDOUT, EMPTY, NOW + 5)
    assert world.last.puts == ()


@pytest.mark.parametrize("before", [TaskState.PENDING, TaskState.ACQUIRED, TaskState.SUSPENDED, TaskState.HALTED])
def test_c5_settling_a_promise_fulfils_its_task(before: TaskState) -> None:
    world = World()
    version = world.in_state(before)

    world.settle("t", State.CANCELED, None)

    assert world.task("t") == Task(TaskState.FULFILLED, version)


def test_w3_who_waits_is_owed_a_word_also_when_it_was_settled_before() -> None:
    world = World()
    world.suspended("t", "p")

    world.settle("p")
    first = world.last.drain
    world.settle("p")

    assert first == ("p",)
    assert world.last.drain == ("p",)


def test_a_target_makes_no_difference_to_who_may_settle() -> None:
    world = World()
    world.create("a", TARGET)

    assert world.settle("a").status == 200
