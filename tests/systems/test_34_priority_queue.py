"""System 34, a priority queue: eight jobs in strict order of their tiers, two at a time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TypedDict

import pytest

from everstep import App, Context, Retry, current_step
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import World, did, kill_at, run_process, survives

app = App("queue", retry=Retry(attempts=3, first=0.5))

TIERS = ["critical", "high", "normal", "low"]


class Job(TypedDict):
    id: str
    tier: str


class Gauge:
    """How many jobs run at once, and the most there ever were."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.log: list[str] = []


app.provide(Gauge())


@app.step
async def work(job: Job) -> str:
    gauge = current_step().dependency(Gauge)
    gauge.running += 1
    gauge.most = max(gauge.most, gauge.running)
    gauge.log.append(f"start {job['tier']}")
    try:
        await asyncio.sleep(0.05 + 0.01 * int(job["id"][-1]))
        did(job["id"], tier=job["tier"])
    finally:
        gauge.running -= 1
        gauge.log.append(f"end {job['tier']}")
    return job["id"]


@app.workflow
async def work_off(ctx: Context, jobs: list[Job], at_once: int = 2) -> list[str]:
    done: list[str] = []
    for tier in TIERS:
        wanted = [job for job in jobs if job["tier"] == tier]
        for first in range(0, len(wanted), at_once):
            done += await asyncio.gather(*[ctx.run(work, job) for job in wanted[first : first + at_once]])
    return done


@app.workflow
async def work_off_with_semaphore(ctx: Context, jobs: list[Job], at_once: int = 2) -> list[str]:
    """The same with a semaphore: the next job begins when any of the two has ended."""
    room = asyncio.Semaphore(at_once)

    async def one(job: Job) -> str:
        async with room:
            return await ctx.run(work, job)

    done: list[str] = []
    for tier in TIERS:
        done += await asyncio.gather(*[one(job) for job in jobs if job["tier"] == tier])
    return done


JOBS: list[Job] = [
    {"id": "job-001", "tier": "low"},
    {"id": "job-002", "tier": "critical"},
    {"id": "job-003", "tier": "normal"},
    {"id": "job-004", "tier": "high"},
    {"id": "job-005", "tier": "critical"},
    {"id": "job-006", "tier": "normal"},
    {"id": "job-007", "tier": "high"},
    {"id": "job-008", "tier": "normal"},
]
RESULT = [job["id"] for tier in TIERS for job in JOBS if job["tier"] == tier]
ONCE = dict.fromkeys(sorted(RESULT), 1)
BOTH = pytest.mark.parametrize("mode", ["rows", "queue"])
WAYS = pytest.mark.parametrize("workflow", [work_off, work_off_with_semaphore], ids=["in pairs", "with a semaphore"])


def tiers_in_order(log: list[str]) -> bool:
    """No job of a tier starts before the tier above is done."""
    seen: list[str] = []
    running: list[str] = []
    for line in log:
        what, tier = line.split()
        if what == "start":
            if any(other != tier for other in running) or (seen and TIERS.index(tier) < TIERS.index(seen[-1])):
                return False
            seen.append(tier)
            running.append(tier)
        else:
            running.remove(tier)
    return True


@BOTH
@WAYS
def test_tiers_come_one_after_the_other_with_two_jobs_at_once(mode: Mode, workflow: object) -> None:
    world, gauge = app.provide(World()), app.provide(Gauge())
    sim = Simulation(app, mode=mode)

    assert sim.run(sim.start(workflow, JOBS)) == RESULT  # type: ignore[call-overload]
    assert world.counts() == ONCE
    assert gauge.most == 2
    assert tiers_in_order(gauge.log)


@BOTH
@WAYS
def test_a_job_that_fails_is_tried_again_and_the_tiers_above_are_not(mode: Mode, workflow: object) -> None:
    world, gauge = app.provide(World(script={"job-006": ["fail"]})), app.provide(Gauge())
    sim = Simulation(app, mode=mode)

    assert sim.run(sim.start(workflow, JOBS)) == RESULT  # type: ignore[call-overload]
    assert {job: world.tries(job) for job in ONCE} == {**ONCE, "job-006": 2}
    assert gauge.most == 2
    assert tiers_in_order(gauge.log)


@BOTH
@WAYS
@pytest.mark.parametrize("number", [1, 3, 6])
def test_after_a_crash_nothing_recorded_runs_again(mode: Mode, workflow: object, number: int) -> None:
    world = app.provide(World())
    app.provide(Gauge())
    sim = Simulation(app, mode=mode)
    kill_at(sim, "delivered", number)

    assert sim.run(sim.start(workflow, JOBS)) == RESULT  # type: ignore[call-overload]
    assert world.counts() == ONCE


def test_a_killed_process_goes_on_with_what_is_left(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert run_process(__name__, "work_off", JOBS, id="q1", folder=tmp_path, kill_at=("delivered", 3)).killed

    assert run_process(__name__, "work_off", JOBS, id="q1", folder=tmp_path).result == RESULT
    assert world.counts() == ONCE


@WAYS
def test_it_survives_a_crash_at_every_point(workflow: object) -> None:
    app.provide(World())
    app.provide(Gauge())

    survives(app, workflow, JOBS[:5], result=[one for one in RESULT if one < "job-006"])  # type: ignore[arg-type]
