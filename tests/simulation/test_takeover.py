"""The moment in which a run changes hands, told step by step: races too narrow for chance to find often.

Calls are held at the points a script names, by the number of the delivery they belong to, so that another caller acts
just there. Each story is told once as it is, and once with the kernel broken in the way it guards against.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import pytest

from everstep import App, Conflict, Context, current_step
from everstep.ports import Wake
from everstep.testing import Simulation
from everstep.testing.oracle import check_wakes
from everstep.testing.world import Caller, delivery

from .mutants import BEYOND, OLD_MESSAGE, STALE, UNSEEN, Mutant, applied

app = App("takeover")
LEASE = 60_000
ran: dict[str, set[str]] = {}
lasts: Iterator[float]


class Script:
    """Holds the n-th call of a kind within a delivery until an instant, before or after its effect."""

    def __init__(self, holds: dict[tuple[int, str, int, str], int]) -> None:
        self.holds = holds
        self.counts: Counter[tuple[int, str]] = Counter()
        self.sim: Simulation

    async def before(self, caller: Caller, point: str, subject: str) -> None:
        self.counts[delivery.get(), point] += 1
        await self._at(caller, point, "before")

    async def after(self, caller: Caller, point: str, subject: str) -> None:
        await self._at(caller, point, "after")

    async def _at(self, caller: Caller, point: str, phase: str) -> None:
        number = delivery.get()
        until = self.holds.pop((number, point, self.counts[number, point], phase), None)
        if until is not None:
            await self.sim.world.hold(caller, BEGAN + until)


BEGAN = 1_700_000_000_000


def simulation(holds: dict[tuple[int, str, int, str], int], **options: Any) -> Simulation:
    script = Script(holds)
    sim = script.sim = Simulation(app, director=script, instances=2, lease=LEASE / 1000, **options)
    ran.clear()
    return sim


@app.step
async def work(label: str) -> str:
    ran.setdefault(current_step().id, set()).add(label)
    await asyncio.sleep(next(lasts))
    return label


@app.workflow
async def pair(ctx: Context) -> list[str]:
    seen: list[str] = []

    async def one(label: str) -> None:
        seen.append(await ctx.run(work, label))
        seen.append(await ctx.run(work, f"after {label}"))

    await asyncio.gather(one("a"), one("b"))
    return seen


class Story(NamedTuple):
    """Seconds that the first holder's step `a` takes; when the other is called, and what is held (milliseconds)."""

    first: float
    read_at: int
    holds: dict[tuple[int, str, int, str], int]


def take_over(story: Story) -> None:
    """One holder whose step `a` ends near its lease's end, another who reads the run about then and takes it after.

    In the first life `a` ends first, in the second `b`: what comes after must not bear the same id in both.
    """
    global lasts
    first, read_at, holds = story
    lasts = iter([first, 500.0, 3.0, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    sim = simulation(dict(holds))
    handle = sim.start(pair, id="r")
    sim.advance(milliseconds=read_at)
    sim.world.platform.send(Wake("r"))
    sim.run(handle)
    assert all(len(labels) == 1 for labels in ran.values()), f"different work under one id: {ran}"


# The record of `a` lands while the reading of the other is under way, early enough for its holder to go on unrenewed.
READ_BEFORE_THE_END = Story(58.98, 58_970, {(2, "store.branch", 1, "after"): 60_020})
# The other reads after the end, the record of `a` lands after that, and then the other takes the run.
WRITTEN_AFTER_THE_END = Story(
    59.98,
    60_001,
    {(1, "store.commit", 2, "before"): 60_030, (2, "store.commit", 1, "before"): 60_040},
)


@pytest.mark.parametrize("story", [READ_BEFORE_THE_END, WRITTEN_AFTER_THE_END])
def test_p2_4_what_a_holder_has_seen_the_next_one_sees_too(story: Story) -> None:
    take_over(story)


@pytest.mark.parametrize(("mutant", "story"), [(STALE, READ_BEFORE_THE_END), (BEYOND, WRITTEN_AFTER_THE_END)])
def test_p2_4_is_needed(mutant: Mutant, story: Story) -> None:
    with applied(mutant), pytest.raises(AssertionError, match="different work under one id"):
        take_over(story)


@app.workflow
async def waiting(ctx: Context) -> str:
    answer: str = await ctx.promise()
    return await ctx.run(work, answer)


@pytest.mark.parametrize("mutant", [None, OLD_MESSAGE])
def test_w6_a_message_that_was_given_to_another_stands_for_nothing(mutant: Mutant | None) -> None:
    """A delivery stands still until its message has come again and is acknowledged; then it takes the run, and dies."""
    global lasts
    lasts = iter([1000.0] * 9)
    with applied(mutant) if mutant is not None else nullcontext():
        sim = simulation({(2, "store.branch", 1, "before"): 200_000}, mode="queue", cache=0)
        handle = sim.start(waiting, id="r")
        sim.run_until_idle()
        task = handle.record().task
        assert task is not None
        sim.world.platform.send(Wake("r", task.version))
        sim.advance(seconds=150)
        sim.world.platform.messages.clear()  # type: ignore[attr-defined]
        sim.world.store._rows["r.1"] = sim.world.store._rows["r.1"]._replace(state="resolved", value='"yes"', rest=None)
        sim.advance(seconds=51)
        assert task.version < handle.record().task.version  # type: ignore[union-attr]

        assert (check_wakes(sim.world) == []) is (mutant is None)


@app.workflow
async def told(ctx: Context, label: str) -> str:
    return label


@app.workflow
async def telling(ctx: Context) -> str:
    first: list[str] = []

    async def one(label: str) -> None:
        await ctx.run(work, label)
        first.append(label)
        if first == [label]:
            await ctx.detached(told, label)

    await asyncio.gather(one("a"), one("b"))
    return first[0]


@pytest.mark.parametrize("mutant", [None, UNSEEN])
def test_f1_a_root_is_started_by_who_holds_the_run(mutant: Mutant | None) -> None:
    """A holder whose clock is slower than is allowed for records `a` when the run is another's, for whom `b` is first.

    No step is fenced here, and no root can be.
    """
    global lasts
    lasts = iter([58.8, 500.0, 3.0, 1.0])
    with applied(mutant) if mutant is not None else nullcontext():
        sim = simulation({}, mode="queue", single_writer=False)
        for instance in sim.world.instances:
            instance.clock.skew = -1_500
        handle = sim.start(telling, id="r")
        sim.advance(seconds=2)  # until it is the start, by the slow clock
        (other,) = [instance for instance in sim.world.instances if not instance.tasks]
        other.clock.skew = 0
        sim.advance(milliseconds=58_050)
        sim.world.platform.send(Wake("r", 1))
        if mutant is None:
            assert sim.run(handle) == "b"
        else:
            with pytest.raises(Conflict):
                sim.run(handle)
