"""crash_everywhere: it visits every point, tells the worst case, and names where a run does not survive."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from everstep import App, Context, Retry, current_step
from everstep.errors import StillPending
from everstep.testing import SimHandle, Simulation, crash_everywhere

app = App("crashing")


@app.step
def add(one: int, other: int) -> int:
    return one + other


@app.workflow
async def total(ctx: Context, last: int) -> int:
    value = 0
    for number in range(last):
        value = await ctx.run(add, value, number)
    return value


def test_each_point_is_visited_and_a_step_runs_twice_at_worst() -> None:
    report = crash_everywhere(app, total, 3)

    assert report.result == 3
    assert report.failures == []
    assert report.undisturbed == {"add": 1}
    assert report.executions == {"add": 2}
    assert {"store.commit#1:before", "store.commit#1:after", "store.branch#1:before", "waker.arm#1:after"} <= set(
        report.points
    )
    assert report.runs > len(report.points)
    assert str(report).startswith(f"{report.runs} runs over {len(report.points)} crash points; worst case")


def test_one_mode_has_fewer_points_than_both() -> None:
    both = crash_everywhere(app, total, 3, modes=["queue"])
    one = crash_everywhere(app, total, 3, modes=["queue"], steps_per_invocation=1)

    assert len(one.points) < len(both.points)


def test_a_store_that_checks_no_soft_fence_survives_as_well() -> None:
    assert crash_everywhere(app, total, 2, single_writer=False).executions == {"add": 2}


@app.workflow
async def mixed(ctx: Context) -> list[Any]:
    both = await asyncio.gather(ctx.rpc(total, 2), ctx.run(total, 1))
    await ctx.sleep(60)
    try:
        async with asyncio.timeout(5):
            await ctx.promise()
    except TimeoutError:
        both.append(await ctx.options(id="shared").rpc(total, 1))
    return both


def test_children_timers_and_shared_work_survive() -> None:
    report = crash_everywhere(app, mixed)

    assert report.result == [1, 0, 0]
    assert report.executions == {"add": 2}


@app.workflow
async def asking(ctx: Context) -> str:
    answer: str = await ctx.promise()
    await ctx.sleep(3600)
    return f"{answer}, {await ctx.promise()}"


def test_promises_are_settled_as_soon_as_they_are_there() -> None:
    report = crash_everywhere(app, asking, settle={"{id}.1": "yes", "{id}.3": "indeed"}, modes=["queue"])

    assert report.result == "yes, indeed"


def test_a_script_settles_what_the_world_outside_would() -> None:
    def person(sim: Simulation, handle: SimHandle[Any]) -> None:
        for id in handle.waiting_for:
            if id in sim.records():
                sim.resolve(id, f"told {id}")

    report = crash_everywhere(app, asking, script=person, modes=["rows"])

    assert report.result == "told asking-1.1, told asking-1.3"


def test_a_run_that_waits_for_somebody_is_told_so() -> None:
    with pytest.raises(StillPending, match=r"waiting for \['asking-1.1'\]"):
        crash_everywhere(app, asking)


class Declined(Exception):
    pass


@app.step(retry=Retry(attempts=2, first=1))
def decline(card: str) -> None:
    raise Declined(card)


@app.workflow
async def paying(ctx: Context, card: str) -> None:
    await ctx.run(decline, card)


def test_an_error_is_the_same_at_every_point() -> None:
    report = crash_everywhere(app, paying, "4711")

    assert isinstance(report.error, Declined)
    assert report.result is None
    assert report.undisturbed == {"decline": 2}
    assert report.executions["decline"] == 3


world: list[str] = []


@app.step
def once(label: str) -> int:
    world.append(current_step().id)
    return len(world)


@app.workflow
async def counting(ctx: Context) -> int:
    await ctx.run(once, "a")
    return await ctx.run(once, "b")


def test_a_workflow_that_depends_on_how_often_its_steps_ran_is_named_with_the_points() -> None:
    with pytest.raises(AssertionError, match=r"crash at store.commit#\d+:before .*: it returned 3, not it returned 2"):
        crash_everywhere(app, counting, setup=world.clear)


def test_failures_can_be_had_without_raising() -> None:
    report = crash_everywhere(
        app, counting, setup=world.clear, raising=False, modes=["rows"], steps_per_invocation=None
    )

    assert {failure.mode for failure in report.failures} == {"rows"}
    assert {failure.variant for failure in report.failures} == {"crash", "late"}  # a duplicate meets the lease
    assert all(failure.trace for failure in report.failures)


def test_a_check_of_ones_own_is_made_after_every_run() -> None:
    seen: list[int] = []

    def nothing_twice(sim: Simulation, handle: SimHandle[Any]) -> None:
        seen.append(handle.result())
        assert max(sim.executions.values()) < 3, f"{handle.id} ran a step three times"

    report = crash_everywhere(app, total, 1, check=nothing_twice, modes=["queue"])

    assert len(seen) == report.runs


@app.workflow
async def impure(ctx: Context, seen: str) -> Any:
    world.append("body")
    if len(world) > 1:
        await ctx.sleep(1)
    return await ctx.run(add, 1, 2)


def test_a_body_that_is_another_on_replay_is_caught() -> None:
    report = crash_everywhere(app, impure, "x", setup=world.clear, raising=False, modes=["rows"])

    assert any("halted" in str(failure) or "pending" in str(failure) for failure in report.failures)
