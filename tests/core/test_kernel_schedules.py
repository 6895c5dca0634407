"""schedule.get, create, delete: 200, 400, 404; and the ticks."""

from __future__ import annotations

import pytest

from everstep.clock import NEVER
from everstep.errors import InvalidArgument
from everstep.kernel import apply
from everstep.promise import Kind, Payload, Schedule, State, Task, TaskState
from everstep.protocol import ScheduleCreate, ScheduleDelete, ScheduleGet
from tests.core.world import NOW, TARGET, TIMER, World

START = 120_000_000
MINUTE = 60_000


def nightly(
    template: str = "{{.id}}.{{.timestamp}}", timeout: int = 5000, tags: dict[str, str] = TARGET
) -> ScheduleCreate:
    return ScheduleCreate("nightly", "* * * * *", template, timeout, Payload("1", {"h": "x"}), tags)


def test_create_200_with_its_next_run() -> None:
    world = World(START + 1)

    reply = world.do(nightly())

    assert (reply.status, reply.schedule) == (
        200,
        Schedule(
            "nightly",
            "* * * * *",
            "{{.id}}.{{.timestamp}}",
            5000,
            Payload("1", {"h": "x"}),
            TARGET,
            START + 1,
            START + MINUTE,
        ),
    )


def test_create_200_again_is_answered_with_what_stands() -> None:
    world = World(START)
    world.do(nightly())

    reply = world.do(nightly("other"))

    assert reply.schedule is not None
    assert (reply.status, reply.schedule.promise_id, world.last.puts) == (200, "{{.id}}.{{.timestamp}}", ())


@pytest.mark.parametrize(
    "request_",
    [
        nightly(tags={**TARGET, **TIMER}),
        nightly("x" * 995 + "{{.timestamp}}"),
        nightly("~schedule/x"),
        nightly("..{{.timestamp}}"),
    ],
)
def test_create_400_ticks_that_could_not_be_created(request_: ScheduleCreate) -> None:
    world = World(START)

    assert world.do(request_).status == 400
    assert world.entities == {}


def test_create_400_a_cron_that_is_none() -> None:
    def refuse(cron: str, after: int) -> int:
        raise InvalidArgument(f"cron {cron!r} is not a valid expression")

    outcome = apply(nightly(), {}, NOW, refuse)

    assert (outcome.reply.status, outcome.reply.error) == (400, "cron '* * * * *' is not a valid expression")


def test_get_and_delete_404() -> None:
    world = World()

    assert [world.do(one).status for one in (ScheduleGet("nightly"), ScheduleDelete("nightly"))] == [404, 404]


def test_get_200_delete_200() -> None:
    world = World(START)
    world.do(nightly())

    got = world.do(ScheduleGet("nightly"))
    gone = world.do(ScheduleDelete("nightly"))

    assert got.schedule is not None
    assert (got.status, got.schedule.id, gone.status, world.entities) == (200, "nightly", 200, {})


def test_nothing_fires_before_its_instant() -> None:
    world = World(START)
    world.do(nightly())
    world.now = START + MINUTE - 1

    assert not world.tick("nightly")
    assert list(world.entities) == ["~schedule/nightly"]


def test_a_tick_is_a_promise_of_its_own_instant() -> None:
    world = World(START)
    world.do(nightly())
    world.now = START + MINUTE + 7

    assert world.tick("nightly")

    tick = world.record(f"nightly.{START + MINUTE}")
    assert (tick.created_at, tick.timeout_at) == (START + MINUTE, START + MINUTE + 5000)
    assert (tick.param, tick.tags, tick.task) == (
        Payload("1", {"h": "x"}),
        TARGET,
        Task(TaskState.PENDING, retry_at=START + MINUTE),
    )
    schedule = world.do(ScheduleGet("nightly")).schedule
    assert schedule is not None
    assert (schedule.last_run_at, schedule.next_run_at) == (START + MINUTE, START + 2 * MINUTE)


def test_missed_ticks_all_fire_a_batch_to_a_step() -> None:
    world = World(START)
    world.do(nightly(timeout=NEVER))
    world.now = START + 5 * MINUTE

    steps = [world.tick("nightly", batch=2) for _ in range(4)]

    assert steps == [True, True, True, False]
    assert [id for id in world.entities if id.startswith("nightly.")] == [
        f"nightly.{START + n * MINUTE}" for n in range(1, 6)
    ]


def test_firing_again_makes_nothing_new() -> None:
    """A crash between the tick and the schedule's move fires the same tick again."""
    world = World(START)
    world.do(nightly())
    before = world.entities["~schedule/nightly"]
    world.now = START + MINUTE
    world.tick("nightly")
    world.settle(f"nightly.{START + MINUTE}")
    world.entities["~schedule/nightly"] = before

    world.tick("nightly")

    assert world.record(f"nightly.{START + MINUTE}").state is State.RESOLVED
    assert len(world.entities) == 2


def test_c2_ticks_without_a_deadline() -> None:
    world = World(START)
    world.do(nightly(timeout=NEVER))
    world.now = START + MINUTE
    world.tick("nightly")

    assert world.record(f"nightly.{START + MINUTE}").timeout_at == NEVER


def test_a_tick_with_no_time_is_born_settled() -> None:
    world = World(START)
    world.do(nightly(timeout=0))
    world.now = START + MINUTE
    world.tick("nightly")

    assert world.record(f"nightly.{START + MINUTE}").state is State.TIMEDOUT


def test_a_tick_of_our_client_is_a_run() -> None:
    world = World(START)
    world.do(nightly(tags={**TARGET, "everstep:work": "digest"}))
    world.now = START + MINUTE
    world.tick("nightly")

    assert world.record(f"nightly.{START + MINUTE}").kind == Kind.ROOT
