"""promise.register_callback: 200, 400, 404, 422."""

from __future__ import annotations

import pytest

from everstep.promise import State
from everstep.protocol import PromiseRegisterCallback
from tests.core.world import EXTERNAL, LATER, NOW, TARGET, TIMER, World


def test_200_the_awaiter_is_remembered_once() -> None:
    world = World()
    world.create("p")
    world.create("t", TARGET)

    first = world.do(PromiseRegisterCallback("p", "t"))
    again = world.do(PromiseRegisterCallback("p", "t"))

    assert (first.status, again.status) == (200, 200)
    assert world.record("p").callbacks == ("t",)
    assert world.last.puts == ()


def test_400_a_promise_cannot_wait_for_itself() -> None:
    world = World()
    world.create("t", TARGET)

    assert world.do(PromiseRegisterCallback("t", "t")).status == 400


def test_404_no_awaited() -> None:
    world = World()
    world.create("t", TARGET)

    assert world.do(PromiseRegisterCallback("p", "t")).status == 404


def test_422_no_awaiter() -> None:
    world = World()
    world.create("p")

    assert world.do(PromiseRegisterCallback("p", "t")).status == 422


def test_422_an_awaiter_without_a_target() -> None:
    world = World()
    world.create("p")
    world.create("t", EXTERNAL)

    assert world.do(PromiseRegisterCallback("p", "t")).status == 422


def test_422_an_internal_promise() -> None:
    """Question C2 of the specification: nothing arms its deadline, so who waits for it would wait for ever."""
    world = World()
    world.create("p", {})
    world.create("t", TARGET)

    assert world.do(PromiseRegisterCallback("p", "t")).status == 422


@pytest.mark.parametrize("tags", [EXTERNAL, TARGET, TIMER, {"resonate:scope": "global"}])
def test_c1_external_promises_accept_callbacks(tags: dict[str, str]) -> None:
    world = World()
    world.create("p", tags)
    world.create("t", TARGET)

    assert world.do(PromiseRegisterCallback("p", "t")).status == 200
    assert world.record("p").callbacks == ("t",)


@pytest.mark.parametrize("tags", [{"resonate:scope": "local"}, {"resonate:external": "yes"}])
def test_c1_and_others_do_not(tags: dict[str, str]) -> None:
    world = World()
    world.create("p", tags)
    world.create("t", TARGET)

    assert world.do(PromiseRegisterCallback("p", "t")).status == 422


def test_200_a_settled_promise_registers_nothing() -> None:
    world = World()
    world.create("p")
    world.settle("p")
    world.create("t", TARGET)

    reply = world.do(PromiseRegisterCallback("p", "t"))

    assert reply.status == 200
    assert reply.promise is not None
    assert reply.promise.state is State.RESOLVED
    assert world.last.puts == ()


def test_200_a_promise_past_its_deadline_registers_nothing() -> None:
    world = World()
    world.create("p", timeout_at=NOW + 5)
    world.create("t", TARGET)
    world.now += 5

    reply = world.do(PromiseRegisterCallback("p", "t"))

    assert reply.promise is not None
    assert reply.promise.state is State.TIMEDOUT
    assert world.last.puts == ()


def test_200_an_awaiter_past_its_deadline_registers_nothing() -> None:
    world = World()
    world.create("p")
    world.create("t", TARGET, timeout_at=NOW + 5)
    world.now += 5

    reply = world.do(PromiseRegisterCallback("p", "t"))

    assert (reply.status, world.last.puts) == (200, ())


def test_c3_across_origins() -> None:
    world = World()
    world.create("one.p", timeout_at=LATER)
    world.create("other.t", TARGET)

    assert world.do(PromiseRegisterCallback("one.p", "other.t")).status == 200
    assert world.record("one.p").callbacks == ("other.t",)
