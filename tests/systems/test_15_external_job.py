"""System 15, an external job: it is handed the id of a promise, and calls back with its result, however long it took.
Should it never call, its service is asked."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from everstep import AlreadySettled, App, Client, Context, NotFound, PromiseTimedOut, Retry, current_step
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import World, did, run_process, survives
from tests.systems.web import called, settled, until

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

app = App("jobs", retry=Retry(attempts=3, first=0.1))

SECRET = b"shared with the notebook"


class Jobs:
    """The service that runs notebooks. A run key that it knows starts nothing again."""

    def __init__(self) -> None:
        self.results: dict[str, Any] = {}

    def submit(self, notebook: str, key: str, callback: str) -> None:
        did("submit", notebook=notebook, key=key, callback=callback)

    def result(self, key: str) -> Any:
        did("poll", key=key)
        return self.results.get(key)


app.provide(Jobs())


@app.step
def submit(notebook: str, promise_id: str) -> None:
    jobs = current_step().dependency(Jobs)
    jobs.submit(notebook, promise_id, f"https://shop.example/callback/{promise_id}")


@app.step
def poll(promise_id: str) -> Any:
    return current_step().dependency(Jobs).result(promise_id)


@app.workflow
async def run_notebook(ctx: Context, notebook: str) -> Any:
    finished = ctx.promise(timeout=timedelta(hours=2))
    await ctx.run(submit, notebook, finished.id)
    try:
        return await finished
    except PromiseTimedOut:
        return await ctx.run(poll, finished.id)


def signature(promise_id: str, body: bytes) -> str:
    return hmac.new(SECRET, promise_id.encode() + b"\n" + body, hashlib.sha256).hexdigest()


def site(client: Client) -> Starlette:
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def run(request: Request) -> Response:
        id, notebook = request.query_params["id"], request.query_params["notebook"]
        handle = await client.options(id=id).start(run_notebook, notebook)
        view = await handle.view()
        return JSONResponse({"id": id, "state": view.state, "value": view.value})

    async def callback(request: Request) -> Response:
        id, body = request.path_params["id"], await request.body()
        if not hmac.compare_digest(signature(id, body), request.headers.get("x-signature", "")):
            return JSONResponse({"detail": "wrong signature"}, 401)
        try:
            await client.resolve(id, json.loads(body))
        except NotFound:
            return JSONResponse({"detail": "nobody waits for this"}, 404)
        except AlreadySettled:
            return JSONResponse({"detail": "answered before; nothing was changed"})
        return JSONResponse({"detail": "thank you"})

    return Starlette(routes=[Route("/run", run), Route("/callback/{id}", callback, methods=["POST"])])


RESULT = {"rows": 12, "table": "sales"}
BOTH = pytest.mark.parametrize("mode", ["rows", "queue"])


@BOTH
@pytest.mark.parametrize("killed", [False, True])
def test_the_value_of_the_callback_reaches_the_workflow(mode: Mode, killed: bool) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    handle = sim.start(run_notebook, "sales", id="j")
    sim.advance(hours=1)
    if killed:
        sim.kill()
    sim.resolve("j.1", RESULT)
    sim.advance(seconds=1)

    assert handle.result() == RESULT
    assert [one["key"] for one in world.effects("submit")] == ["j.1"]


@BOTH
def test_without_a_callback_the_service_is_asked_when_the_time_is_over(mode: Mode) -> None:
    world = app.provide(World())
    app.provide(Jobs()).results["j.1"] = RESULT
    sim = Simulation(app, mode=mode)
    handle = sim.start(run_notebook, "sales", id="j")
    sim.advance(hours=1.9)
    assert world.count("poll") == 0
    sim.advance(hours=0.2)

    assert (handle.result(), world.order()) == (RESULT, ["submit", "poll"])


def test_over_http(tmp_path: Path) -> None:
    world = app.provide(World(tmp_path))

    async def story() -> None:
        async with called(app, tmp_path, site) as http:

            async def call(id: str, value: Any, signed: str | None = None) -> int:
                body = json.dumps(value).encode()
                headers = {"x-signature": signed if signed is not None else signature(id, body)}
                return (await http.post(f"/callback/{id}", content=body, headers=headers)).status_code

            for _ in range(3):
                assert (await http.get("/run?id=j&notebook=sales")).json()["state"] == "pending"
            await until(lambda: world.count("submit"))
            assert await call("j.1", RESULT, signed="0" * 64) == 401
            assert await call("j.1", RESULT, signed=signature("j.1", b"{}")) == 401
            assert await call("nobody.1", RESULT) == 404
            assert await call("j.1", RESULT) == 200
            assert await call("j.1", RESULT) == 200
            assert await call("j.1", {"rows": 0}) == 200, "a duplicate is ignored, whatever it says"
            assert (await settled(http, "/run?id=j&notebook=sales"))["value"] == RESULT

    asyncio.run(story())
    assert world.count("submit") == 1


def test_a_callback_that_comes_before_the_workflow_waits_is_kept(tmp_path: Path) -> None:
    world = World(tmp_path, {"submit": ["kill"]})
    assert run_process(__name__, "run_notebook", "sales", id="j", folder=tmp_path).killed
    assert world.count("submit") == 1, "the job runs, and nobody knows"

    async def call() -> None:
        async with called(app, tmp_path, site, works=False) as http:
            body = json.dumps(RESULT).encode()
            headers = {"x-signature": signature("j.1", body)}
            assert (await http.post("/callback/j.1", content=body, headers=headers)).status_code == 200

    asyncio.run(call())

    assert run_process(__name__, "run_notebook", "sales", id="j", folder=tmp_path).result == RESULT
    assert {one["key"] for one in world.effects("submit")} == {"j.1"}, "the service knows the key, and starts one job"


def test_it_survives_a_crash_at_every_point() -> None:
    app.provide(World())

    survives(app, run_notebook, "sales", result=RESULT, settle={"{id}.1": RESULT})
