"""System 19, a form that starts a report: the action returns an id at once, another route answers how far it is. Both
are plain functions over a client, for whichever framework calls them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from everstep import App, Client, Context, Retry
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import World, did, kill_at, survives
from tests.systems.web import called, patiently, server

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

app = App("reports", retry=Retry(attempts=3, first=0.05))


@app.step
def query(topic: str) -> list[int]:
    did("query")
    return list(range(len(topic)))


@app.step
def generate(topic: str, rows: list[int]) -> str:
    did("generate")
    return f"{topic}: {len(rows)} rows"


@app.step
def store(text: str) -> str:
    did("store")
    return f"/files/{len(text)}.pdf"


@app.step
def notify(email: str, path: str) -> None:
    did("notify")


@app.workflow
async def report(ctx: Context, topic: str, email: str) -> dict[str, Any]:
    rows = await ctx.run(query, topic)
    text = await ctx.run(generate, topic, rows)
    path = await ctx.run(store, text)
    await ctx.run(notify, email, path)
    return {"path": path, "rows": len(rows)}


async def submit_report(client: Client, form: dict[str, str]) -> str:
    """The action. When it returns, the report is under way for good."""
    topic, email = form["topic"], form["email"]
    return (await client.options(id=f"report/{topic}").start(report, topic, email)).id


async def report_status(client: Client, id: str) -> dict[str, Any]:
    """For polling."""
    view = await client.get(id)
    return {"status": "processing" if view.pending else "done" if view.value else "failed", "report": view.value}


def site(client: Client) -> Starlette:
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def action(request: Request) -> Response:
        return JSONResponse({"id": await submit_report(client, await request.json())})

    async def status(request: Request) -> Response:
        return JSONResponse(await report_status(client, request.query_params["id"]))

    return Starlette(routes=[Route("/action", action, methods=["POST"]), Route("/status", status)])


FORM = {"topic": "sales", "email": "kim@example.org"}
STEPS = ["query", "generate", "store", "notify"]
RESULT = {"path": "/files/13.pdf", "rows": 5}


def test_processes_that_start_and_that_answer_agree_whoever_is_killed(tmp_path: Path) -> None:
    import httpx

    world = World(tmp_path)
    asking = "/status?id=report/sales"
    with server(__name__, tmp_path, works=False) as polled:
        with server(__name__, tmp_path, kill_at=("delivered", 1)) as starting:
            assert httpx.post(f"{starting.url}/action", json=FORM).json() == {"id": "report/sales"}
            assert starting.killed
        assert world.order() == ["query"]
        assert httpx.get(polled.url + asking).json() == {"status": "processing", "report": None}

        with server(__name__, tmp_path):

            def done() -> Any:
                return httpx.get(polled.url + asking).json()["report"]

            assert patiently(done) == RESULT
        assert httpx.get(polled.url + asking).json() == {"status": "done", "report": RESULT}
    assert world.order() == STEPS


def test_the_action_returns_before_anybody_works_on_the_report(tmp_path: Path) -> None:
    world = app.provide(World(tmp_path))

    async def story() -> None:
        async with called(app, tmp_path, site, works=False) as http:
            id = (await http.post("/action", json=FORM)).json()["id"]
            assert (await http.get(f"/status?id={id}")).json()["status"] == "processing"
        assert world.order() == []
        async with called(app, tmp_path, site) as http:
            async with asyncio.timeout(20):
                while (await http.get(f"/status?id={id}")).json()["status"] != "done":  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

    asyncio.run(story())
    assert world.order() == STEPS


@pytest.mark.parametrize("mode", ["rows", "queue"])
@pytest.mark.parametrize("done", [1, 2, 3, 4])
def test_killed_between_steps_the_query_is_not_repeated_and_the_count_is_the_same(mode: Mode, done: int) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    kill_at(sim, "delivered", done)

    assert sim.run(sim.start(report, "sales", "kim@example.org")) == RESULT
    assert world.order() == STEPS


def test_it_survives_a_crash_at_every_point() -> None:
    app.provide(World())

    survives(app, report, "sales", "kim@example.org", result=RESULT)
