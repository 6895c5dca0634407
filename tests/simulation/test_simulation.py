"""The simulated platform itself: time, deliveries, deaths, counts, and that a seed tells one history."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from everstep import App, Context
from everstep.errors import AlreadySettled, Conflict, Halted, InvalidArgument, NotFound, StillPending
from everstep.ports import Wake
from everstep.promise import Record, State, Task, TaskState
from everstep.rows import Row, to_row
from everstep.testing import Faults, Simulation
from everstep.testing.oracle import InFlight, Wakes, check_wakes

app = App("simulated")
NOW = 1_700_000_000_000


@pytest.fixture(params=["rows", "queue"])
def sim(request: pytest.FixtureRequest) -> Iterator[Simulation]:
    made = Simulation(app, mode=request.param)
    yield made
    made.close()


@app.step
def double(value: int) -> int:
    return 2 * value


@app.workflow
async def slow(ctx: Context, value: int) -> int:
    first = await ctx.run(double, value)
    await ctx.sleep(timedelta(days=3))
    return await ctx.run(double, first)


@app.workflow
async def asking(ctx: Context) -> str:
    answer: str = await ctx.promise()
    return answer


def test_time_stands_still_until_it_is_told_to_pass(sim: Simulation) -> None:
    began = sim.now
    handle = sim.start(slow, 5)

    sim.run_until_idle()
    assert (handle.status(), sim.now) == ("pending", began)

    sim.advance(days=2, hours=23, minutes=59, seconds=59, milliseconds=999)
    assert handle.status() == "pending"

    sim.advance(milliseconds=1)
    assert handle.result() == 20
    assert sim.now == began + timedelta(days=3)


def test_run_jumps_to_the_end_and_says_the_result(sim: Simulation) -> None:
    handle = sim.start(slow, 5, id="s-1")

    assert sim.run(handle) == 20
    assert sim.run("s-1") == 20
    assert sim.now_ms == NOW + 3 * 86_400_000


def test_run_says_when_nothing_would_ever_happen(sim: Simulation) -> None:
    handle = sim.start(asking)

    with pytest.raises(StillPending):
        sim.run(handle)
    with pytest.raises(StillPending):
        sim.run(sim.start(slow, 1), limit=60)


def test_runs_are_numbered_unless_they_have_an_id(sim: Simulation) -> None:
    assert [sim.start(slow, 1).id, sim.start(slow, 2).id, sim.start("slow", 1, id="mine").id] == [
        "slow-1",
        "slow-2",
        "mine",
    ]
    with pytest.raises(Conflict):
        sim.start(slow, 2, id="mine")


def test_settling_from_outside(sim: Simulation) -> None:
    handle = sim.start(asking)
    sim.run_until_idle()
    assert handle.waiting_for == ["asking-1.1"]

    sim.resolve("asking-1.1", "yes")
    sim.run_until_idle()

    assert handle.result() == "yes"
    with pytest.raises(AlreadySettled):
        sim.reject("asking-1.1", "no")
    with pytest.raises(NotFound):
        sim.cancel("asking-1.2")


def test_a_run_that_is_halted_says_so_and_goes_on_when_it_is_told_to(sim: Simulation) -> None:
    handle = sim.start(slow, 1)
    sim.run_until_idle()
    sim.halt(handle.id, "looks odd")

    with pytest.raises(Halted, match="looks odd"):
        sim.run(handle)

    sim.continue_(handle.id)
    assert sim.run(handle) == 4


def test_a_dead_instance_leaves_its_work_to_the_next(sim: Simulation) -> None:
    @app.step(name="nap-" + sim.world.mode)
    async def nap() -> str:
        await asyncio.sleep(10)
        return "slept"

    @app.workflow(name="napping-" + sim.world.mode)
    async def napping(ctx: Context) -> str:
        return await ctx.run(nap)

    handle = sim.start(napping)
    sim.advance(seconds=5)
    sim.kill()

    assert sim.run(handle) == "slept"
    assert sim.executions == {"nap-" + sim.world.mode: 2}
    assert sim.now_ms >= NOW + 60_000  # not before the lease has ended


def test_a_cold_instance_replays_and_a_warm_one_does_not(sim: Simulation) -> None:
    warm, cold = sim.start(slow, 1), sim.start(slow, 2)
    sim.run_until_idle()
    sim.cold()
    sim.run(cold)
    again = sim.start(slow, 3)
    sim.run(again)

    assert warm.history == ["slow-1.1", "slow-1.2", "slow-1.3"]
    assert [event.kind for event in sim.events if event.id == cold.id].count("replayed") == 2
    assert [event.kind for event in sim.events if event.id == again.id].count("resumed") == 1


def test_what_a_run_costs_is_counted(sim: Simulation) -> None:
    handle = sim.start(slow, 5)
    sim.run(handle)

    cost = handle.cost()

    assert cost.requests == {"branch": 1, "commit": 6, "load": 1}
    assert (cost.total, cost.invocations, cost.per_step) == (8, 2, 4)
    assert cost.steps == {"slow-1.1": 1, "slow-1.3": 1}
    assert cost.wakeups["delivered"] == 2
    assert cost.outside["commit"] == 1
    assert cost.rows_written == 6
    assert cost.characters_written > cost.rows_written


def test_real_input_and_output_in_a_step_is_refused(sim: Simulation) -> None:
    @app.step(name="fetch-" + sim.world.mode)
    async def fetch() -> None:
        await asyncio.open_connection("127.0.0.1", 9)

    @app.workflow(name="fetching-" + sim.world.mode)
    async def fetching(ctx: Context) -> None:
        await ctx.run(fetch)

    with pytest.raises(Exception, match="give the step a stand-in"):
        sim.run(sim.start(fetching), limit=3600)


def test_a_thread_is_a_call(sim: Simulation) -> None:
    @app.step(name="beside-" + sim.world.mode)
    async def beside() -> str:
        return await asyncio.to_thread(socket.gethostname)

    @app.workflow(name="threading-" + sim.world.mode)
    async def threading(ctx: Context) -> bool:
        return bool(await ctx.run(beside))

    assert sim.run(sim.start(threading)) is True


def test_a_wake_up_that_comes_twice_changes_nothing(sim: Simulation) -> None:
    handle = sim.start(slow, 5)
    sim.run_until_idle()
    for _ in range(3):
        sim.redeliver(handle.id)
    sim.run(handle)
    sim.redeliver(handle.id)

    assert handle.cost().invocations == 2
    assert handle.executions() == {"slow-1.1": 1, "slow-1.3": 1}


def test_a_simulation_within_a_running_loop() -> None:
    async def main() -> int:
        sim = Simulation(app)
        return sim.run(sim.start(slow, 5))

    assert asyncio.run(main()) == 20


def test_a_seed_tells_one_history_and_another_seed_another() -> None:
    def told(seed: int) -> list[str]:
        sim = Simulation(app, seed, instances=3, faults=Faults().scaled(5), mode="queue")
        sim.run(sim.start(slow, 5))
        return [str(event) for event in sim.events]

    assert told(3) == told(3)
    assert told(3) != told(4)


def test_faults_happen_and_are_survived() -> None:
    kinds = set()
    for seed in range(20):
        sim = Simulation(app, seed, instances=2, faults=Faults().scaled(4), mode="queue")
        assert sim.run(sim.start(slow, 5)) == 20
        kinds |= {event.kind for event in sim.events}

    assert {"crash", "stall", "unavailable", "unknown", "lost answer", "trouble"} <= kinds


def test_rows_need_a_store_with_one_writer() -> None:
    with pytest.raises(InvalidArgument, match="single writer"):
        Simulation(app, mode="rows", single_writer=False)


def test_verify_agrees(sim: Simulation) -> None:
    sim.start(slow, 5)
    sim.start(asking)
    sim.run_until_idle()

    assert sim.call(lambda client: client.verify()).sound
    assert check_wakes(sim.world) == []


def run_of(task: Task, id: str = "r", **changes: object) -> Row:
    record = Record(id, State.PENDING, "root", id, tags={"resonate:target": "everstep://x"}, created_at=NOW, task=task)
    return to_row(record._replace(**changes))  # type: ignore[arg-type]


def problems(rows: list[Row], messages: list[InFlight] | None) -> list[str]:
    return Wakes().check({row.id: row for row in rows}, NOW, messages)


HELD = Task(TaskState.ACQUIRED, 3, "i1/7", 60_000, NOW + 60_000)
WAITS = Task(TaskState.SUSPENDED, 3, tree="r.1")
ASLEEP = Task(TaskState.SUSPENDED, 3, tree="r.1", timers=(("r.1", NOW + 5000),))
PROMISE = to_row(Record("r.1", State.PENDING, "promise", "r", created_at=NOW, callbacks=("r",)))
SETTLED = to_row(Record("r.1", State.RESOLVED, "promise", "r", created_at=NOW, settled_at=NOW))


@pytest.mark.parametrize(
    ("rows", "messages", "sound"),
    [
        ([run_of(HELD)], [], False),
        ([run_of(HELD)], [InFlight(Wake("r", 3), NOW + 60_000, "9", False)], True),
        ([run_of(HELD)], [InFlight(Wake("r", 2), NOW + 10, "9", False)], False),
        ([run_of(HELD)], [InFlight(Wake("r", 2), NOW + 90_000, "7", True)], True),
        ([run_of(HELD)], [InFlight(Wake("r", 2), NOW + 90_000, "8", True)], False),
        ([run_of(HELD)], [InFlight(Wake("r", 3), NOW + 90_000_000, "9", False)], False),
        ([run_of(HELD)], [InFlight(Wake("x", 3), NOW + 60_000, "9", False)], False),
        ([run_of(ASLEEP)], [InFlight(Wake("r", 3), NOW + 5000, "9", False)], True),
        ([run_of(ASLEEP)], [InFlight(Wake("r", 2), NOW + 4000, "9", False)], False),
        ([run_of(WAITS), PROMISE], [], True),
        ([run_of(WAITS), SETTLED], [], False),
        ([run_of(WAITS), SETTLED], None, False),
        ([run_of(WAITS), SETTLED], [InFlight(Wake("r", 3), NOW + 1000, "9", False)], True),
        ([run_of(WAITS)], [], False),
        ([run_of(Task(TaskState.HALTED, 3))], [], True),
        ([run_of(Task(TaskState.PENDING, 3))], None, False),
        ([run_of(Task(TaskState.PENDING, 3, retry_at=NOW))], None, True),
        ([run_of(Task(TaskState.PENDING, 3, retry_at=NOW))], [], False),
    ],
)
def test_w1_every_pending_run_has_its_wake_up(rows: list[Row], messages: list[InFlight] | None, sound: bool) -> None:
    assert (problems(rows, messages) == []) is sound


def test_the_clock_is_utc(sim: Simulation) -> None:
    assert sim.now == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
