"""System 36, infinite monitoring: check, alert, sleep, for ever; what is read per wake-up never grows."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from everstep import App, Context, Retry
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import World, did, run_process, survives

app = App("monitor", retry=Retry(attempts=3, first=0.1), retention=timedelta(hours=1))

SERVICES = ["web", "database"]
DOWN_AT = 5


@app.step
def check(service: str, iteration: int) -> bool:
    did(f"check {iteration}", service=service)
    return not (service == "database" and iteration == DOWN_AT)


@app.step
def alert(service: str, iteration: int) -> None:
    did("alert", service=service, iteration=iteration)


@app.workflow
async def monitor(
    ctx: Context, services: list[str], last: int, life: int = 10, iteration: int = 1, alerts: int = 0
) -> str:
    """After `life` iterations it starts over under its own id, carrying its state: history stays short for ever."""
    for _ in range(life):
        for service in services:
            if not await ctx.run(check, service, iteration):
                await ctx.run(alert, service, iteration)
                alerts += 1
        if iteration == last:
            return f"{iteration} iterations, {alerts} alerts"
        await ctx.sleep(60)
        iteration += 1
    return ctx.continue_as_new(services, last, life, iteration, alerts)  # type: ignore[no-any-return]


@app.workflow
async def link(ctx: Context, iteration: int, last: int) -> None:
    """The same as a chain of runs, each of which starts the next."""
    await ctx.run(check, "web", iteration)
    await ctx.sleep(60)
    if iteration < last:
        await ctx.detached(link, iteration + 1, last)


@pytest.mark.parametrize("mode", ["rows", "queue"])
def test_eight_iterations_with_a_failure_at_three_and_an_alert_at_five(mode: Mode) -> None:
    world = app.provide(World(script={"check 3": ["fail"]}))
    sim = Simulation(app, mode=mode)
    handle = sim.start(monitor, SERVICES, 8)

    assert sim.run(handle) == "8 iterations, 1 alerts"
    assert [world.count(f"check {one}") for one in range(1, 9)] == [2] * 8
    assert [world.tries(f"check {one}") for one in range(1, 9)] == [2, 2, 3, 2, 2, 2, 2, 2]
    assert world.effects("alert") == [{"service": "database", "iteration": 5}]


@pytest.mark.parametrize("mode", ["rows", "queue"])
def test_state_is_carried_when_it_starts_over(mode: Mode) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    handle = sim.start(monitor, SERVICES, 35)
    for _ in range(40):
        sim.advance(minutes=1)
        sim.kill()

    assert handle.result() == "35 iterations, 1 alerts"
    assert [world.count(f"check {one}") for one in range(1, 36)] == [2] * 35
    assert world.count("alert") == 1


class Growth:
    """What one invocation reads, how long its ids are, and what the store keeps, over a long history."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.read: list[int] = []
        self.ids: set[int] = set()
        self.kept: list[int] = []
        sim.world.verbose = False
        sim.world.readers.append(lambda caller, id, rows: self.read.append(len(rows)))

    def calls_in(self, *, minutes: int) -> int:
        """How many functions are called while time goes on: what wall time is made of, without a clock."""
        calls = 0

        def profile(frame: object, event: str, _: object) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")

        before = sys.getprofile()
        sys.setprofile(profile)
        try:
            self.sim.advance(minutes=minutes)
        finally:
            sys.setprofile(before)
        return calls

    def look(self) -> None:
        self.sim.call(lambda client: client.sweep())
        rows = self.sim.world.store._rows
        self.kept.append(len(rows))
        self.ids |= {len(id) for id in rows}


def test_ten_thousand_iterations_read_and_keep_no_more_than_a_few_do() -> None:
    app.provide(_Deaf())
    sim = Simulation(app, cache=0)  # every wake-up is a cold one and replays
    growth = Growth(sim)
    handle = sim.start(monitor, ["web"], 10_000, id="monitor")

    calls = []
    for _ in range(50):
        sim.advance(minutes=100)
        calls.append(growth.calls_in(minutes=100))
        growth.look()
    sim.advance(minutes=1)

    assert handle.result() == "10000 iterations, 0 alerts"
    assert max(calls[1:]) <= 1.02 * min(calls[1:]), "an iteration costs as many calls at the end as at the beginning"
    assert max(growth.read) <= 25, "ten iterations' records and the run's own"
    assert max(growth.kept[1:]) <= 120, "an hour's iterations and the run's own record"
    assert max(growth.ids) <= len("monitor.g1001.20")


def test_a_chain_of_ten_thousand_runs_keeps_its_ids_and_its_store_at_one_size() -> None:
    app.provide(_Deaf())
    sim = Simulation(app, cache=0)
    growth = Growth(sim)
    sim.start(link, 1, 10_000, id="chain")

    calls = []
    for _ in range(49):
        sim.advance(minutes=100)
        calls.append(growth.calls_in(minutes=100))
        growth.look()
    sim.advance(minutes=200)
    growth.look()

    assert sim.executions["check"] == 10_000
    assert max(calls[1:]) <= 1.02 * min(calls[1:]), "a link costs as many calls at the end as at the beginning"
    assert max(growth.read) <= 4
    assert max(growth.kept) <= 4 * 62, "an hour's runs"
    assert max(growth.ids) == len("chain~d0123456789abcdef.1")
    sim.advance(hours=2)
    growth.look()
    assert growth.kept[-1] == 0, "a chain that has ended leaves nothing behind"


class _Deaf(World):
    """Counts nothing: ten thousand effects are counted by the simulation."""

    def did(self, name: str, /, **detail: object) -> int:
        return 0


def test_a_process_killed_in_an_iteration_repeats_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, {"watch 12": ["kill"]})
    quick = f"{__name__}:quick"
    assert run_process(quick, "watch", 25, id="w", folder=tmp_path, kill_at=("delivered", 5)).killed
    assert run_process(quick, "watch", 25, id="w", folder=tmp_path).killed
    assert run_process(quick, "watch", 25, id="w", folder=tmp_path, kill_at=("continued", 1)).killed

    assert run_process(quick, "watch", 25, id="w", folder=tmp_path).result == 25
    assert world.counts() == {f"watch {one}": 2 if one == 12 else 1 for one in range(1, 26)}


quick = App("monitor-quick")


@quick.step
def look(iteration: int) -> None:
    did(f"watch {iteration}")


@quick.workflow
async def watch(ctx: Context, last: int, iteration: int = 1) -> int:
    """The monitor in a hurry, for processes that are killed."""
    for _ in range(10):
        await ctx.run(look, iteration)
        await ctx.sleep(0.001)
        if iteration == last:
            return iteration
        iteration += 1
    return ctx.continue_as_new(last, iteration)  # type: ignore[no-any-return]


def test_it_survives_a_crash_at_every_point() -> None:
    app.provide(World())

    survives(app, monitor, ["database"], 6, 2, 4, result="6 iterations, 1 alerts")


def test_a_chain_survives_a_crash_at_every_point() -> None:
    app.provide(World())

    def all_of_it(sim: Simulation, handle: Any) -> None:
        sim.advance(minutes=10)
        assert sorted(sim.handle(id).tree().promise.args[0] for id in sim.records() if "." not in id) == [1, 2, 3]

    survives(app, link, 1, 3, result=None, check=all_of_it)
