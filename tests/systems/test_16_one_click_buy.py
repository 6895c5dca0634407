"""System 16, one-click buy: a purchase that can be cancelled for a few seconds, by racing a promise against a timer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from everstep import AlreadySettled, App, Client, Context, PromiseTimedOut
from everstep.testing import Simulation
from everstep.testing.simulation import Mode, SimHandle
from tests.systems.scaffold import World, did, run_process, survives

app = App("buy")


@app.step
def checkout(item: str) -> str:
    did("checkout", item=item)
    return f"order-of-{item}"


@app.workflow
async def buy(ctx: Context, item: str, window: float = 5.0) -> str:
    """A race: whichever of the two is recorded first has won, on every replay."""
    cancelled = ctx.promise()  # the button settles `<id>.1`
    await asyncio.wait([cancelled, ctx.sleep(window)], return_when=asyncio.FIRST_COMPLETED)
    if cancelled.done():
        return "CANCELLED"
    cancelled.cancel()  # too late from here on: the button is told so
    return f"CONFIRMED {await ctx.run(checkout, item)}"


@app.workflow
async def buy_in_time(ctx: Context, item: str, window: float = 5.0) -> str:
    """The same with one promise that has a deadline: one record decides, and there is nothing to race."""
    try:
        await ctx.promise(timeout=window)
    except PromiseTimedOut:
        return f"CONFIRMED {await ctx.run(checkout, item)}"
    return "CANCELLED"


BOTH = pytest.mark.parametrize("workflow", [buy, buy_in_time], ids=lambda workflow: workflow.name)
CONFIRMED = "CONFIRMED order-of-book"


def started(workflow: object, mode: Mode = "rows", instances: int = 1) -> tuple[Simulation, World, SimHandle[Any]]:
    world = app.provide(World())
    sim = Simulation(app, mode=mode, instances=instances)
    handle = sim.start(workflow, "book", id="buy-1")  # type: ignore[call-overload]
    sim.run_until_idle()
    return sim, world, handle


@BOTH
@pytest.mark.parametrize("mode", ["rows", "queue"])
def test_without_a_click_it_is_confirmed_after_the_window(workflow: object, mode: Mode) -> None:
    sim, world, handle = started(workflow, mode)

    sim.advance(seconds=4.999)
    assert (handle.status(), world.count("checkout")) == ("pending", 0)

    sim.advance(milliseconds=1)
    assert (handle.result(), world.count("checkout")) == (CONFIRMED, 1)


@BOTH
@pytest.mark.parametrize("mode", ["rows", "queue"])
def test_a_click_in_time_that_another_instance_takes_cancels_it(workflow: object, mode: Mode) -> None:
    sim, world, handle = started(workflow, mode, instances=2)
    sim.advance(seconds=3)
    sim.kill()  # whoever suspended it is gone

    sim.resolve("buy-1.1", True)
    sim.advance(days=1)

    assert (handle.result(), world.count("checkout")) == ("CANCELLED", 0)


@BOTH
@pytest.mark.parametrize("mode", ["rows", "queue"])
def test_a_crash_in_the_window_leaves_the_deadline_where_it_was(workflow: object, mode: Mode) -> None:
    sim, world, handle = started(workflow, mode)
    sim.advance(seconds=2)
    sim.kill()

    sim.advance(seconds=2.999)
    assert handle.status() == "pending"
    sim.advance(milliseconds=1)

    assert (handle.result(), world.count("checkout")) == (CONFIRMED, 1)


@BOTH
def test_a_click_after_the_window_is_refused(workflow: object) -> None:
    sim, world, handle = started(workflow)
    sim.advance(seconds=6)

    with pytest.raises(AlreadySettled):
        sim.resolve("buy-1.1", True)
    sim.advance(days=1)

    assert (handle.result(), world.count("checkout")) == (CONFIRMED, 1)


@BOTH
@pytest.mark.parametrize("mode", ["rows", "queue"])
def test_a_tie_has_one_winner_on_every_replay(workflow: object, mode: Mode) -> None:
    sim, world, handle = started(workflow, mode)
    sim.world.clock.advance(5000)  # the timer is due, and nobody was called yet
    try:
        sim.resolve("buy-1.1", True)
        winner = "CANCELLED"
    except AlreadySettled:
        winner = CONFIRMED
    for _ in range(3):
        sim.kill()
        sim.redeliver("buy-1")
    sim.advance(minutes=5)
    outcome = handle.result()

    if workflow is buy_in_time:
        assert outcome == winner, "one record decides: the deadline is over at its instant"
    assert world.count("checkout") == (outcome == CONFIRMED)
    assert sim.run(sim.start(workflow, "book", id="buy-1")) == outcome  # type: ignore[call-overload]


@app.workflow
async def buy_slowly(ctx: Context, item: str) -> list[str]:
    """What the race decided must be found again by every replay after it."""
    button, timer = ctx.promise(), ctx.sleep(5)
    done, _ = await asyncio.wait([button, timer], return_when=asyncio.FIRST_COMPLETED)
    first = "cancelled" if button in done else "confirmed"
    second = "both" if len(done) == 2 else "one"
    await ctx.run(checkout, f"{item}-{first}-{second}")
    await ctx.sleep(60)
    await ctx.run(checkout, f"{item}-{first}-{second}-again")
    return [first, second]


@pytest.mark.parametrize("mode", ["rows", "queue"])
def test_the_winner_of_a_tie_is_the_same_when_it_is_replayed_much_later(mode: Mode) -> None:
    sim, world, handle = started(buy_slowly, mode)
    sim.world.clock.advance(5000)
    sim.resolve("buy-1.1", True)
    sim.advance(seconds=1)
    sim.kill()

    sim.advance(minutes=10)

    first, second = handle.result()
    assert world.effects("checkout") == [
        {"item": f"book-{first}-{second}"},
        {"item": f"book-{first}-{second}-again"},
    ]


def test_a_process_killed_in_the_window_confirms_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert run_process(__name__, "buy", "book", 0.3, id="b1", folder=tmp_path, kill_at=("suspended", 1)).killed
    assert world.order() == []

    assert run_process(__name__, "buy", "book", 0.3, id="b1", folder=tmp_path).result == CONFIRMED
    assert world.order() == ["checkout"]


def test_a_process_killed_in_the_window_and_cancelled_never_checks_out(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert run_process(__name__, "buy", "book", 3600.0, id="b1", folder=tmp_path, kill_at=("suspended", 1)).killed
    asyncio.run(_press(tmp_path))

    assert run_process(__name__, "buy", "book", 3600.0, id="b1", folder=tmp_path).result == "CANCELLED"
    assert world.order() == []


async def _press(folder: Path) -> None:
    async with Client.open(f"sqlite:///{folder / 'store.db'}", app=app) as client:
        await client.resolve("b1.1", True)


@BOTH
def test_it_survives_a_crash_at_every_point(workflow: object) -> None:
    app.provide(World())

    survives(app, workflow, "book", result=CONFIRMED)  # type: ignore[arg-type]


@BOTH
def test_a_cancelled_one_survives_a_crash_at_every_point(workflow: object) -> None:
    app.provide(World())

    survives(app, workflow, "book", 86_400, result="CANCELLED", settle={"{id}.1": True})  # type: ignore[arg-type]
