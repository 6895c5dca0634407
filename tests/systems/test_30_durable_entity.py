"""System 30, a durable entity: a user's session that logs in, is active, idles, expires and cleans up."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TypedDict

import pytest

from everstep import App, Context, Retry
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import World, did, run_process, survives

app = App("session", retry=Retry(attempts=3, first=0.1))

ACTIVITIES = ["page_viewed", "search", "added_to_cart", "checkout_started", "payment"]


class Summary(TypedDict):
    user: str
    status: str
    activities: list[str]


@app.step
def login(user: str) -> None:
    did("login", user=user)


@app.step
def record(user: str, activity: str) -> str:
    did(activity, user=user)
    return activity


@app.step
def expire(user: str) -> None:
    did("expire", user=user)


@app.step
def clean_up(user: str) -> str:
    did("clean_up", user=user)
    return "cleaned_up"


@app.workflow
async def session(ctx: Context, user: str, activities: list[str], idle: float = 1800) -> Summary:
    await ctx.run(login, user)
    done = [await ctx.run(record, user, activity) for activity in activities]
    await ctx.sleep(idle)
    await ctx.run(expire, user)
    return {"user": user, "status": await ctx.run(clean_up, user), "activities": done}


@app.workflow
async def live_session(ctx: Context, user: str, idle: float = 1800) -> Summary:
    """With an inbox: each activity settles the promise named last, and starts the idle time over."""
    await ctx.run(login, user)
    done: list[str] = []
    while True:
        inbox = ctx.promise()
        timer = ctx.sleep(idle)
        await asyncio.wait([inbox, timer], return_when=asyncio.FIRST_COMPLETED)
        if not inbox.done():
            break
        timer.cancel()
        done.append(await ctx.run(record, user, await inbox))
    inbox.cancel()
    await ctx.run(expire, user)
    return {"user": user, "status": await ctx.run(clean_up, user), "activities": done}


WHOLE: Summary = {"user": "ann", "status": "cleaned_up", "activities": ACTIVITIES}
ONCE = dict.fromkeys(["login", *ACTIVITIES, "expire", "clean_up"], 1)


@pytest.mark.parametrize("mode", ["rows", "queue"])
def test_an_activity_that_fails_once_is_retried_and_the_others_run_once(mode: Mode) -> None:
    world = app.provide(World(script={"checkout_started": ["fail"]}))
    sim = Simulation(app, mode=mode)

    assert sim.run(sim.start(session, "ann", ACTIVITIES)) == WHOLE
    assert world.counts() == ONCE
    assert {name: world.tries(name) for name in ONCE} == {**ONCE, "checkout_started": 2}


@pytest.mark.parametrize("mode", ["rows", "queue"])
def test_a_crash_in_the_idle_time_leaves_its_end_where_it_was(mode: Mode) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    handle = sim.start(session, "ann", ACTIVITIES)
    sim.run_until_idle()
    sim.advance(minutes=20)
    sim.kill()

    sim.advance(minutes=9, seconds=59.999)
    assert world.count("expire") == 0
    sim.advance(milliseconds=1)

    assert handle.result() == WHOLE
    assert world.counts() == ONCE


@pytest.mark.parametrize("mode", ["rows", "queue"])
def test_activities_from_outside_each_start_the_idle_time_over(mode: Mode) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    handle = sim.start(live_session, "ann", id="session-ann")
    for activity in ACTIVITIES:
        sim.advance(minutes=29)
        (inbox, _timer) = handle.waiting_for
        sim.resolve(inbox, activity)
        sim.run_until_idle()
        sim.kill()
    assert handle.status() == "pending"

    sim.advance(minutes=29, seconds=59)
    assert world.count("expire") == 0
    sim.advance(seconds=1)

    assert handle.result() == WHOLE
    assert world.counts() == ONCE


@pytest.mark.parametrize("kill_at", [("delivered", 4), ("suspended", 1)])
def test_a_process_killed_on_the_way_repeats_nothing(tmp_path: Path, kill_at: tuple[str, int]) -> None:
    world = World(tmp_path)
    assert run_process(__name__, "session", "ann", ACTIVITIES, 0.2, id="s", folder=tmp_path, kill_at=kill_at).killed

    assert run_process(__name__, "session", "ann", ACTIVITIES, 0.2, id="s", folder=tmp_path).result == WHOLE
    assert world.counts() == ONCE


def test_it_survives_a_crash_at_every_point() -> None:
    app.provide(World())

    survives(app, session, "ann", ACTIVITIES[:2], result={**WHOLE, "activities": ACTIVITIES[:2]})


def test_with_an_inbox_it_survives_a_crash_at_every_point() -> None:
    app.provide(World())
    settle = {"{id}.2": "search"}

    survives(app, live_session, "ann", result={**WHOLE, "activities": ["search"]}, settle=settle)
