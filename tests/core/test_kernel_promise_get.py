"""promise.get: 200 with the projection, 404."""

from __future__ import annotations

from everstep.promise import State
from everstep.protocol import PromiseGet
from tests.core.world import NOW, TIMER, World


def test_404_what_does_not_exist() -> None:
    reply = World().do(PromiseGet("a"))

    assert reply.status == 404
    assert reply.error == "there is no promise 'a'"


def test_200_the_promise() -> None:
    world = World()
    world.create("a")

    assert world.do(PromiseGet("a")).promise == world.record("a")


def test_200_past_its_deadline_it_reads_as_settled_and_nothing_is_written() -> None:
    world = World()
    world.create("a", timeout_at=NOW + 5)
    world.create("b", TIMER, timeout_at=NOW + 5)

    before = [world.do(PromiseGet(id)).promise for id in "ab"]
    world.now = NOW + 5
    after = [world.do(PromiseGet(id)).promise for id in "ab"]

    assert [one.state for one in before if one] == [State.PENDING, State.PENDING]
    assert [(one.state, one.settled_at) for one in after if one] == [
        (State.TIMEDOUT, NOW + 5),
        (State.RESOLVED, NOW + 5),
    ]
    assert world.record("a").pending
    assert world.last.puts == ()


def test_a_schedule_is_no_promise() -> None:
    world = World()
    from everstep.protocol import ScheduleCreate

    world.do(ScheduleCreate("s", "* * * * *", "x.{{.timestamp}}", 5))

    assert world.do(PromiseGet("~schedule/s")).status == 404
