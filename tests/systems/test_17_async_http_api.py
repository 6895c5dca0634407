"""System 17, an asynchronous HTTP API: a gateway that keeps nothing hands work to a group of workers, and a client
asks how far it is. The gateway knows the group by name and has none of its code."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from everstep import App, Client, Context, NotFound, Retry
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import World, did, serve_process, survives
from tests.systems.web import called

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

workers = App("workers", retry=Retry(attempts=2, first=0.05))
gateway = App("gateway")
app = workers


class Unreadable(Exception):
    """The task cannot be done."""


@workers.step
def digest(task: str) -> str:
    did("digest", task=task)
    if task == "bad":
        raise Unreadable(task)
    return task.upper()


@workers.step
def file_away(task: str, text: str) -> str:
    did("file", task=task)
    return f"{task}: {text}"


@workers.workflow
async def process(ctx: Context, task: str) -> str:
    try:
        text = await ctx.run(digest, task)
    finally:
        await ctx.run(note, task)
    return await ctx.run(file_away, task, text)


@workers.step
def note(task: str) -> None:
    did("noted")


def site(client: Client) -> Starlette:
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def begin(request: Request) -> Response:
        id = request.query_params["id"]
        task = request.query_params.get("task", id)
        handle = await client.options(id=id, target="everstep://workers").start("process", task)
        return JSONResponse({"promise": id, "state": await handle.status(), "wait": f"/wait?id={id}"}, 202)

    async def wait(request: Request) -> Response:
        """How it stands; `for=` seconds holds the answer until there is news."""
        query = request.query_params
        try:
            view = await client.wait(query["id"], min(float(query.get("for", 0)), 20.0))
        except NotFound:
            return JSONResponse({"detail": "there is no such promise"}, 404)
        return JSONResponse({"state": view.state, "value": view.value, "error": view.error})

    return Starlette(routes=[Route("/begin", begin, methods=["POST"]), Route("/wait", wait)])


def test_a_task_is_begun_polled_and_done_across_restarts_of_everything(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def first_gateway() -> None:
        async with called(gateway, tmp_path, site) as http:
            begun = (await http.post("/begin?id=ci-task-001")).json()
            assert begun == {"promise": "ci-task-001", "state": "pending", "wait": "/wait?id=ci-task-001"}
            assert (await http.get(begun["wait"])).json()["state"] == "pending"
            assert (await http.post("/begin?id=ci-task-001")).json() == begun
            assert (await http.get("/wait?id=nobody")).status_code == 404

    asyncio.run(first_gateway())
    assert serve_process(__name__, folder=tmp_path, until=("never", 1), kill_at=("delivered", 1)).killed
    assert world.order() == ["digest"]

    async def second_gateway() -> None:
        async with called(gateway, tmp_path, site) as http:
            assert (await http.get("/wait?id=ci-task-001")).json()["state"] == "pending"
            working = asyncio.to_thread(serve_process, __name__, folder=tmp_path, until=("file", 1))
            answer, _ = await asyncio.gather(http.get("/wait?id=ci-task-001&for=20"), working)
            expected = {"state": "resolved", "value": "ci-task-001: CI-TASK-001", "error": None}
            assert answer.json() == expected
            assert (await http.post("/begin?id=ci-task-001")).json()["state"] == "resolved"

    asyncio.run(second_gateway())
    assert world.counts() == {"digest": 1, "noted": 1, "file": 1}


def test_a_function_that_raises_is_a_rejected_promise_and_no_error_of_the_gateway(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def story() -> None:
        async with called(gateway, tmp_path, site) as http:
            await http.post("/begin?id=bad")
            working = asyncio.to_thread(serve_process, __name__, folder=tmp_path, until=("noted", 1))
            answer, _ = await asyncio.gather(http.get("/wait?id=bad&for=20"), working)
            assert (answer.status_code, answer.json()["state"]) == (200, "rejected")
            assert answer.json()["error"]["type"] == "Unreadable"

    asyncio.run(story())
    assert world.tries("digest") == 2


@pytest.mark.parametrize("mode", ["rows", "queue"])
def test_the_same_id_is_worked_on_once_by_several_workers(mode: Mode) -> None:
    world = workers.provide(World())
    sim = Simulation(gateway, others=[workers], instances=3, mode=mode)
    for _ in range(3):
        sim.call(lambda client: client.options(id="t", target="everstep://workers").start("process", "t"))

    assert sim.run("t") == "t: T"
    assert world.count("digest") == 1


def test_it_survives_a_crash_at_every_point() -> None:
    workers.provide(World())

    survives(workers, process, "t", result="t: T")
