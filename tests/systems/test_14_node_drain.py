"""System 14, draining the nodes of a cluster one by one; where a disruption budget is in the way, an operator decides.
A drain takes longer than any function may run, so it is short steps with timers in between."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from everstep import App, Client, Context, Retry, current_step
from everstep.testing import Simulation
from everstep.testing.simulation import Mode, SimHandle
from tests.systems.scaffold import World, did, kill_at, run_process, survives
from tests.systems.web import called

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

app = App("drain", retry=Retry(attempts=3, first=0.1))

DECISIONS = ("skip", "retry", "abort", "force")


class BudgetExceeded(Exception):
    """Evicting would leave too few replicas."""


class Cluster:
    """Three nodes; the second holds a pod that its budget protects. Provide another one that talks to a real API."""

    def __init__(self, protected: tuple[str, ...] = ("node-2",)) -> None:
        self.protected = protected

    def evict(self, node: str, force: bool) -> None:
        did(f"evict {node}", force=force)
        if node in self.protected and not force:
            raise BudgetExceeded(f"{node} holds the last replica of web")

    def pods_left(self, node: str, looked: int) -> int:
        return max(0, 3 - looked)


app.provide(Cluster())


@app.step(retry=Retry(give_up_on=(BudgetExceeded,)))
def evict(node: str, force: bool) -> None:
    current_step().dependency(Cluster).evict(node, force)


@app.step
def pods_left(node: str, looked: int) -> int:
    return current_step().dependency(Cluster).pods_left(node, looked)


@app.workflow
async def drain(ctx: Context, node: str, pause: float, force: bool = False) -> None:
    await ctx.run(evict, node, force)
    looked = 1
    while await ctx.run(pods_left, node, looked):
        await ctx.sleep(pause)
        looked += 1


@app.workflow
async def drain_all(ctx: Context, nodes: list[str], pause: float = 60.0) -> dict[str, str]:
    outcome: dict[str, str] = {}
    for node in nodes:
        force = False
        while node not in outcome:
            try:
                await ctx.run(drain, node, pause, force)
                outcome[node] = "forced" if force else "drained"
            except BudgetExceeded as blocked:
                match await ctx.promise(tags={"node": node, "why": str(blocked)}):
                    case "skip":
                        outcome[node] = "skipped"
                    case "abort":
                        return {**outcome, node: "aborted"}
                    case decision:
                        force = decision == "force"
    return outcome


def site(client: Client) -> Starlette:
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def start(request: Request) -> Response:
        body = await request.json()
        handle = await client.options(id=body["id"]).start(drain_all, body["nodes"], body.get("pause", 60.0))
        return JSONResponse({"id": handle.id}, 202)

    async def status(request: Request) -> Response:
        tree = await client.tree(request.query_params["id"])
        blocked = [one.promise for one in tree.children if one.promise.pending and "node" in one.promise.tags]
        decide = [{"promise": one.id, **one.tags} for one in blocked]
        return JSONResponse({"state": tree.promise.state, "value": tree.promise.value, "decide": decide})

    async def decision(request: Request) -> Response:
        body = await request.json()
        if body["decision"] not in DECISIONS:
            return JSONResponse({"detail": f"decision: one of {', '.join(DECISIONS)}"}, 400)
        await client.resolve(body["promise"], body["decision"])
        return JSONResponse({"detail": "so be it"})

    return Starlette(
        routes=[
            Route("/drain", start, methods=["POST"]),
            Route("/status", status),
            Route("/decision", decision, methods=["POST"]),
        ]
    )


NODES = ["node-1", "node-2", "node-3"]
BOTH = pytest.mark.parametrize("mode", ["rows", "queue"])


def begun(mode: Mode, **options: Any) -> tuple[Simulation, World, SimHandle[dict[str, str]]]:
    world = app.provide(World())
    app.provide(Cluster())
    sim = Simulation(app, mode=mode, **options)
    return sim, world, sim.start(drain_all, NODES, id="d")


def decide(sim: Simulation, handle: SimHandle[Any], decision: str) -> None:
    sim.advance(minutes=10)
    (promise,) = handle.waiting_for
    assert sim.record(promise).tags["node"] == "node-2"
    sim.resolve(promise, decision)


@BOTH
def test_skip_moves_on(mode: Mode) -> None:
    sim, world, handle = begun(mode)
    decide(sim, handle, "skip")

    assert sim.run(handle) == {"node-1": "drained", "node-2": "skipped", "node-3": "drained"}
    assert world.counts() == {"evict node-1": 1, "evict node-2": 1, "evict node-3": 1}


@BOTH
def test_retry_drains_only_the_blocked_node_again(mode: Mode) -> None:
    sim, world, handle = begun(mode)
    decide(sim, handle, "retry")
    decide(sim, handle, "retry")
    app.provide(Cluster(protected=()))

    assert sim.run(handle) == dict.fromkeys(NODES, "drained")
    assert world.counts() == {"evict node-1": 1, "evict node-2": 3, "evict node-3": 1}


@BOTH
def test_abort_ends_the_run(mode: Mode) -> None:
    sim, world, handle = begun(mode)
    decide(sim, handle, "abort")

    assert sim.run(handle) == {"node-1": "drained", "node-2": "aborted"}
    assert world.count("evict node-3") == 0


@BOTH
def test_force_passes_the_budget(mode: Mode) -> None:
    sim, world, handle = begun(mode)
    decide(sim, handle, "force")

    assert sim.run(handle) == {"node-1": "drained", "node-2": "forced", "node-3": "drained"}
    assert world.effects("evict node-2") == [{"force": False}, {"force": True}]


@BOTH
def test_a_drain_may_take_longer_than_a_function_may_run(mode: Mode) -> None:
    sim, _, handle = begun(mode, budget=5)
    began = sim.now_ms
    decide(sim, handle, "force")

    assert sim.run(handle)["node-3"] == "drained"
    assert sim.now_ms - began > 6 * 60_000 > 5_000, "three nodes, two pauses of a minute each"


@BOTH
@pytest.mark.parametrize("done", [1, 3, 6, 8])
def test_killed_in_the_middle_no_node_is_drained_twice(mode: Mode, done: int) -> None:
    sim, world, handle = begun(mode)
    kill_at(sim, "delivered", done)
    decide(sim, handle, "skip")
    sim.run(handle)

    assert world.counts() == {"evict node-1": 1, "evict node-2": 1, "evict node-3": 1}


def test_over_http_after_a_kill(tmp_path: Path) -> None:
    world = World(tmp_path)
    first = run_process(__name__, "drain_all", NODES, 0.01, id="d", folder=tmp_path, kill_at=("delivered", 3))
    assert first.killed
    app.provide(world)
    app.provide(Cluster())

    async def story() -> None:
        async with called(app, tmp_path, site) as http:
            same = await http.post("/drain", json={"id": "d", "nodes": NODES, "pause": 0.01})
            assert same.status_code == 202
            shown = await wait_for(http, lambda shown: shown["decide"])
            assert shown["decide"][0]["node"] == "node-2"
            promise = shown["decide"][0]["promise"]
            unknown = await http.post("/decision", json={"promise": promise, "decision": "explode"})
            assert unknown.status_code == 400
            assert (await http.post("/decision", json={"promise": promise, "decision": "force"})).status_code == 200
            shown = await wait_for(http, lambda shown: shown["state"] != "pending")
            assert shown["value"] == {"node-1": "drained", "node-2": "forced", "node-3": "drained"}

    asyncio.run(story())
    assert world.counts() == {"evict node-1": 1, "evict node-2": 2, "evict node-3": 1}


async def wait_for(http: Any, condition: Any) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            shown: dict[str, Any] = (await http.get("/status?id=d")).json()
            if condition(shown):
                return shown
            await asyncio.sleep(0.02)


def test_it_survives_a_crash_at_every_point() -> None:
    app.provide(World())
    app.provide(Cluster())

    def operator(sim: Simulation, handle: SimHandle[Any]) -> None:
        for id, record in sim.records(handle.id).items():
            if "node" in record.tags and record.pending:
                sim.resolve(id, "force")

    survives(app, drain_all, ["node-2"], result={"node-2": "forced"}, script=operator)
