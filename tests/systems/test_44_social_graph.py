"""System 44, a walk over a graph of followers: one run for each person, page by page, started by the run before it and
not waited for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, ClassVar, TypedDict

import pytest

from everstep import App, Conflict, Context, Retry, current_step
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import World, did, kill_at, serve_process, survives

app = App("graph", retry=Retry(attempts=3, first=0.1))


class Page(TypedDict):
    followers: list[str]
    next: int | None


class Network:
    """Who follows whom, two to a page; there is a cycle. Provide another one that asks an API."""

    FOLLOWERS: ClassVar[dict[str, list[str]]] = {
        "ann": ["ben", "cid", "dot"],
        "ben": ["ann", "eve"],
        "cid": ["ann", "ben", "eve"],
        "dot": [],
        "eve": ["fay", "ann"],
        "fay": ["gus"],
        "gus": [],
    }

    def page(self, person: str, number: int) -> Page:
        found = self.FOLLOWERS[person]
        more = 2 * number + 2 < len(found)
        return {"followers": found[2 * number : 2 * number + 2], "next": number + 1 if more else None}


app.provide(Network())


@app.step
def profile(person: str) -> str:
    did(f"profile {person}")
    return person.title()


@app.step
def page(person: str, number: int) -> Page:
    did(f"page {person} {number}", run=current_step().id.partition(".")[0])
    return current_step().dependency(Network).page(person, number)


@app.workflow
async def walk(ctx: Context, person: str, depth: int, once: bool = False, pause: float = 1.0) -> str:
    """`once`: a person is visited by one run only, which bears the person's name."""
    name = await ctx.run(profile, person)
    number: int | None = 0
    while number is not None and depth > 0:
        if number:
            await ctx.sleep(pause)  # no more than a page a second
        found = await ctx.run(page, person, number)
        for follower in found["followers"]:
            named = ctx.options(id=f"walk-{follower}") if once else ctx
            try:
                await named.detached(walk, follower, depth - 1, once, pause)
            except Conflict:
                pass  # somebody else came there by another way
        number = found["next"]
    return name


BOTH = pytest.mark.parametrize("mode", ["rows", "queue"])


def everybody(sim: Simulation) -> Counter[str]:
    """How many runs each person had."""
    return Counter(sim.handle(id).tree().promise.args[0] for id in sim.records() if "." not in id)


TWO_STEPS = Counter(ann=1 + 2, ben=1 + 1, cid=1, dot=1, eve=2)
"""Who is two steps away from ann, by every way there is: ann again over ben and cid, ben over cid too."""


@BOTH
def test_the_walk_ends_in_spite_of_a_cycle_and_each_run_reads_each_page_once(mode: Mode) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    sim.start(walk, "ann", 2, id="walk-ann")
    sim.advance(hours=1)

    assert everybody(sim) == TWO_STEPS
    assert all(not record.pending for record in sim.records().values())
    pages = Counter((one["what"], one["run"]) for one in world.effects() if one["what"].startswith("page"))
    assert set(pages.values()) == {1}


@BOTH
def test_a_parent_is_done_while_its_children_still_walk(mode: Mode) -> None:
    app.provide(World())
    sim = Simulation(app, mode=mode)
    handle = sim.start(walk, "ann", 2, id="walk-ann")
    sim.run(handle)

    assert handle.result() == "Ann"
    assert any(record.pending for id, record in sim.records().items() if "." not in id)


@BOTH
@pytest.mark.parametrize("depth", [2, 9])
def test_with_one_run_a_person_everybody_is_visited_once(mode: Mode, depth: int) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    sim.start(walk, "ann", depth, True, id="walk-ann")
    sim.advance(hours=1)

    visited = {"ann", "ben", "cid", "dot", "eve"} | ({"fay", "gus"} if depth > 2 else set())
    assert everybody(sim) == dict.fromkeys(visited, 1)
    assert set(world.counts().values()) == {1}


@BOTH
@pytest.mark.parametrize("number", range(1, 12))
def test_killed_in_a_page_no_follower_is_visited_twice(mode: Mode, number: int) -> None:
    app.provide(World())
    sim = Simulation(app, mode=mode)
    sim.start(walk, "ann", 2, id="walk-ann")
    kill_at(sim, "detached", number)
    sim.advance(hours=1)

    assert everybody(sim) == TWO_STEPS


def test_a_process_killed_in_a_page_spawns_nobody_twice(tmp_path: Path) -> None:
    import asyncio

    from everstep import Client

    world = World(tmp_path)

    async def start() -> None:
        async with Client.open(f"sqlite:///{tmp_path / 'store.db'}", app=app) as client:
            await client.start(walk, "cid", 1, False, 0.01, id="walk-cid")

    asyncio.run(start())
    assert serve_process(__name__, folder=tmp_path, until=("never", 1), kill_at=("detached", 1)).killed
    ended = serve_process(__name__, folder=tmp_path, until=("profile eve", 1))

    assert not ended.killed
    assert world.counts() == {
        **{f"profile {person}": 1 for person in ("cid", "ann", "ben", "eve")},
        "page cid 0": 1,
        "page cid 1": 1,
    }


def test_it_survives_a_crash_at_every_point() -> None:
    app.provide(World())

    def each_once(sim: Simulation, handle: Any) -> None:
        sim.advance(hours=1)
        assert everybody(sim) == Counter(cid=1, ann=1, ben=1, eve=1)

    survives(app, walk, "cid", 1, result="Cid", check=each_once)
