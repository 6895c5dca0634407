"""System 43, scoring proposals off chain: an event starts a run whose steps a group of their own carries out; the score
goes back on chain with a hash over the steps, which anybody who has the run's tree can work out again."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from everstep import App, Client, Context, Retry, Runtime, current_step
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from everstep.views import TreeView
from tests.systems.scaffold import World, did, kill_at, serve_process, survives

app = App("scoring")
workers = App("chain", retry=Retry(attempts=3, first=0.1))


class Chain:
    """Votes as they stand, and the contract that takes a score. Provide another one that asks a node."""

    def votes(self, proposal: str) -> list[dict[str, Any]]:
        return [{"who": "a", "for": True, "at": "2023-11-01"}, {"who": "b", "for": False, "at": "2023-11-13"}]


workers.provide(Chain())


@workers.step
def fetch_votes(proposal: str) -> list[dict[str, Any]]:
    did("fetch")
    return current_step().dependency(Chain).votes(proposal)


@workers.step
def weigh(votes: list[dict[str, Any]], day: str) -> list[float]:
    """Old votes count for less."""
    did("weigh")
    today = datetime.fromisoformat(day)
    ages = [(today - datetime.fromisoformat(vote["at"])).days for vote in votes]
    return [round((1 if vote["for"] else -1) / (1 + age), 6) for vote, age in zip(votes, ages, strict=True)]


@workers.step
def total(weights: list[float]) -> float:
    did("total")
    return round(sum(weights), 6)


@workers.step
def submit(proposal: str, score: float, proof: str) -> str:
    did("submit", proposal=proposal, score=score, proof=proof)
    return f"transaction of {proposal}"


Done = tuple[str, list[Any], Any]
"""A step: its name, its arguments, its result."""


def proof_of(steps: Iterable[Done]) -> str:
    text = json.dumps([list(step) for step in steps], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@app.workflow
async def score_proposal(ctx: Context, proposal: str) -> dict[str, Any]:
    group = ctx.options(target="everstep://chain")
    steps: list[Done] = []

    async def call(name: str, *args: Any) -> Any:
        value = await group.rpc(name, *args)
        steps.append((name, list(args), value))
        return value

    day = ctx.info.created_at.date().isoformat()  # recorded: the day on which the event came
    votes = await call("fetch_votes", proposal)
    weights = await call("weigh", votes, day)
    score = await call("total", weights)
    proof = proof_of(steps)
    await group.rpc("submit", proposal, score, proof)
    return {"score": score, "proof": proof}


async def on_event(client: Client, event: dict[str, str]) -> str:
    """What listens to the chain calls this for each event, perhaps more than once."""
    proposal = event["proposal"]
    return (await client.options(id=f"score-proposal-{proposal}").start(score_proposal, proposal)).id


def proof_of_tree(run: TreeView) -> str:
    """The hash again, from the exported tree alone."""
    return proof_of(
        (one.promise.name, one.promise.args, one.promise.value)
        for one in run.children
        if one.promise.kind == "rpc" and one.promise.name != "submit"
    )


EVENT = {"proposal": "p7"}
STEPS = ["fetch", "weigh", "total", "submit"]
SCORE = round(1 / 14 - 1 / 2, 6)
BOTH = pytest.mark.parametrize("mode", ["rows", "queue"])


@BOTH
def test_the_same_event_twice_is_one_score_one_submission_one_hash(mode: Mode) -> None:
    world = workers.provide(World())
    sim = Simulation(app, others=[workers], instances=2, mode=mode)
    ids = [sim.call(lambda client: on_event(client, EVENT)) for _ in range(2)]

    results = [sim.run(id) for id in ids]
    assert results[0] == results[1]
    assert results[0]["score"] == SCORE
    assert world.order() == STEPS
    assert world.effects("submit") == [{"proposal": "p7", **results[0]}]


@BOTH
def test_the_hash_of_the_exported_tree_is_the_submitted_one_and_one_value_altered_breaks_it(mode: Mode) -> None:
    world = workers.provide(World())
    sim = Simulation(app, others=[workers], mode=mode)
    handle = sim.handle(sim.call(lambda client: on_event(client, EVENT)))
    sim.run(handle)
    submitted = world.effects("submit")[0]["proof"]

    assert proof_of_tree(handle.tree()) == submitted
    tree = handle.tree()
    tree.children[0].promise.value[1]["for"] = True
    assert proof_of_tree(tree) != submitted


@BOTH
@pytest.mark.parametrize("number", range(1, 12))
def test_killed_anywhere_and_gone_on_with_on_another_day_the_score_is_the_same(mode: Mode, number: int) -> None:
    world = workers.provide(World())
    sim = Simulation(app, others=[workers], mode=mode, lease=86_400)
    id = sim.call(lambda client: on_event(client, EVENT))
    kill_at(sim, "delivered", number)

    assert sim.run(id)["score"] == SCORE
    assert world.order() == STEPS


def test_processes_killed_after_the_votes_were_fetched_fetch_them_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    group = f"{__name__}:workers"

    async def start() -> None:
        async with Client.open(f"sqlite:///{tmp_path / 'store.db'}", app=app) as client:
            await on_event(client, EVENT)
            await on_event(client, EVENT)

    asyncio.run(start())
    first = asyncio.run(together(tmp_path, group))
    assert first.killed
    assert world.order() == ["fetch"]

    async def finish() -> dict[str, Any]:
        workers.provide(world)
        url = f"sqlite:///{tmp_path / 'store.db'}"
        async with Runtime(app, url) as scoring, Runtime(workers, url) as chain:
            serving = [asyncio.create_task(one.serve()) for one in (scoring, chain)]
            result: dict[str, Any] = await scoring.client.handle("score-proposal-p7").result(timeout=30)
            assert proof_of_tree(await scoring.client.tree("score-proposal-p7")) == result["proof"]
            for one in serving:
                one.cancel()
            await asyncio.gather(*serving, return_exceptions=True)
            return result

    assert asyncio.run(finish())["proof"] == world.effects("submit")[0]["proof"]
    assert world.order() == STEPS


async def together(folder: Path, group: str) -> Any:
    """The runs in this process, the group's steps in another, which is killed after its first."""
    async with Runtime(app, f"sqlite:///{folder / 'store.db'}") as scoring:
        serving = asyncio.create_task(scoring.serve())
        ended = await asyncio.to_thread(
            serve_process, group, folder=folder, until=("submit", 1), kill_at=("delivered", 1)
        )
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        return ended


def test_it_survives_a_crash_at_every_point() -> None:
    workers.provide(World())
    votes = Chain().votes("p7")
    weights = [round(1 / 14, 6), -0.5]
    steps: list[Done] = [
        ("fetch_votes", ["p7"], votes),
        ("weigh", [votes, "2023-11-14"], weights),
        ("total", [weights], SCORE),
    ]
    result = {"score": SCORE, "proof": proof_of(steps)}

    def sound(sim: Simulation, handle: Any) -> None:
        assert proof_of_tree(handle.tree()) == result["proof"]

    survives(app, score_proposal, "p7", result=result, check=sound, others=[workers])
