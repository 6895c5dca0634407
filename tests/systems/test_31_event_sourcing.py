"""System 31, a projection of events: events are folded into an account, one checkpoint each, the state handed along."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from pathlib import Path

import pytest

from everstep import App, Context, Retry
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import World, did, kill_at, run_process, survives

app = App("projection", retry=Retry(attempts=3, first=0.1))


@dataclass(frozen=True)
class Happened:
    kind: str
    subject: str = ""


@dataclass(frozen=True)
class Account:
    owner: str = ""
    orders: int = 0
    shipped: list[str] = field(default_factory=list)
    cancelled: int = 0
    renewals: int = 0
    processed: int = 0


def fold(account: Account, event: Happened) -> Account:
    """What an event means. Pure; unknown kinds are counted and change nothing."""
    account = replace(account, processed=account.processed + 1)
    match event:
        case Happened("opened", owner):
            return replace(account, owner=owner)
        case Happened("ordered"):
            return replace(account, orders=account.orders + 1)
        case Happened("shipped", order):
            return replace(account, shipped=[*account.shipped, order])
        case Happened("cancelled"):
            return replace(account, cancelled=account.cancelled + 1)
        case Happened("renewed"):
            return replace(account, renewals=account.renewals + 1)
    return account


@app.step
def apply(index: int, account: Account, event: Happened) -> Account:
    did(f"event {index}")
    return fold(account, event)


@app.workflow
async def project(ctx: Context, events: list[Happened]) -> Account:
    account = Account()
    for index, event in enumerate(events):
        account = await ctx.run(apply, index, account, event)
    return account


EVENTS = [
    Happened("opened", "kim"),
    Happened("ordered", "ord_001"),
    Happened("subscribed", "monthly"),
    Happened("shipped", "ord_001"),
    Happened("ordered", "ord_002"),
    Happened("cancelled", "ord_002"),
    Happened("renewed", "monthly"),
    Happened("moved", "12 Elm Street"),
]
EXPECTED = Account("kim", orders=2, shipped=["ord_001"], cancelled=1, renewals=1, processed=8)
ONCE = {f"event {index}": 1 for index in range(8)}
BOTH = pytest.mark.parametrize("mode", ["rows", "queue"])


@BOTH
def test_the_projection_is_what_a_plain_fold_gives(mode: Mode) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)

    assert sim.run(sim.start(project, EVENTS)) == EXPECTED == reduce(fold, EVENTS, Account())
    assert world.counts() == ONCE


@BOTH
def test_an_event_that_fails_is_tried_again_and_none_before_it(mode: Mode) -> None:
    world = app.provide(World(script={"event 5": ["fail"]}))
    sim = Simulation(app, mode=mode)

    assert sim.run(sim.start(project, EVENTS)) == EXPECTED
    assert [world.tries(f"event {index}") for index in range(8)] == [1, 1, 1, 1, 1, 2, 1, 1]


@BOTH
@pytest.mark.parametrize("steps", [None, 1])
@pytest.mark.parametrize("index", range(8))
def test_killed_at_any_event_the_projection_is_the_same(mode: Mode, steps: int | None, index: int) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode, steps_per_invocation=steps)
    kill_at(sim, "step", index + 1)

    assert sim.run(sim.start(project, EVENTS)) == EXPECTED
    assert world.counts() == ONCE


def test_what_is_kept_grows_with_the_state_and_not_with_its_square() -> None:
    app.provide(World())
    sim = Simulation(app)
    few, many = sim.start(project, EVENTS), sim.start(project, EVENTS * 4)
    sim.run(few)
    sim.run(many)

    assert many.cost().characters_written < 5.5 * few.cost().characters_written


def test_a_process_killed_at_the_fifth_event_applies_none_before_it_again(tmp_path: Path) -> None:
    world = World(tmp_path, {"event 5": ["kill"]})
    events = [asdict(event) for event in EVENTS]
    assert run_process(__name__, "project", events, id="p", folder=tmp_path).killed

    assert run_process(__name__, "project", events, id="p", folder=tmp_path).result == asdict(EXPECTED)
    assert world.counts() == {**ONCE, "event 5": 2}


def test_it_survives_a_crash_at_every_point() -> None:
    app.provide(World())

    survives(app, project, EVENTS[:4], result=reduce(fold, EVENTS[:4], Account()))
