"""System 22, onboarding: a database's webhook on a new row starts four steps, once for each user, however often the
database says so."""

from __future__ import annotations

import asyncio
import hmac
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from everstep import App, Client, Context, NotFound, Retry
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import World, did, kill_at, run_process, survives
from tests.systems.web import called, settled

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

app = App("onboarding", retry=Retry(attempts=3, first=0.05))

SECRET = "the webhook's header"


@app.step
def validate(user: dict[str, Any]) -> str:
    did("validate")
    return str(user["email"])


@app.step
def welcome(email: str) -> None:
    did("mail", to=email)


@app.step
def provision(user_id: str) -> str:
    did("trial")
    return f"ws_{user_id.replace('-', '')[:8]}"


@app.step
def to_crm(email: str, workspace: str) -> None:
    did("crm")


@app.workflow
async def onboard(ctx: Context, user: dict[str, Any]) -> dict[str, str]:
    email = await ctx.run(validate, user)
    await ctx.run(welcome, email)
    workspace = await ctx.run(provision, user["id"])
    await ctx.run(to_crm, email, workspace)
    return {"workspace": workspace}


async def on_webhook(client: Client, payload: dict[str, Any]) -> str | None:
    """Start what a change of a row asks for; None where it asks for nothing."""
    if (payload.get("type"), payload.get("table")) != ("INSERT", "users"):
        return None
    user = payload["record"]
    return (await client.options(id=f"onboard/{user['id']}").start(onboard, user)).id


def site(client: Client) -> Starlette:
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def hook(request: Request) -> Response:
        if not hmac.compare_digest(request.headers.get("x-webhook-secret", ""), SECRET):
            return JSONResponse({"detail": "who are you?"}, 401)
        return JSONResponse({"started": await on_webhook(client, await request.json())})

    async def probe(request: Request) -> Response:
        try:
            view = await client.get(f"onboard/{request.path_params['user']}")
        except NotFound:
            return JSONResponse({"detail": "nobody of that name"}, 404)
        return JSONResponse({"state": view.state, "value": view.value})

    return Starlette(routes=[Route("/hook", hook, methods=["POST"]), Route("/users/{user}", probe)])


USER = {"id": "3f2b8c1d-7aa4", "email": "kim@example.org"}
INSERT = {"type": "INSERT", "table": "users", "schema": "public", "record": USER, "old_record": None}
STEPS = ["validate", "mail", "trial", "crm"]
RESULT = {"workspace": "ws_3f2b8c1d"}


def test_over_http(tmp_path: Path) -> None:
    world = app.provide(World(tmp_path, {"mail": ["fail"]}))

    async def story() -> None:
        async with called(app, tmp_path, site) as http:
            headers = {"x-webhook-secret": SECRET}
            three = await asyncio.gather(*[http.post("/hook", json=INSERT, headers=headers) for _ in range(3)])
            assert [one.json()["started"] for one in three] == [f"onboard/{USER['id']}"] * 3
            for other in ({**INSERT, "type": "UPDATE"}, {**INSERT, "table": "orders"}):
                assert (await http.post("/hook", json=other, headers=headers)).json() == {"started": None}
            assert (await http.post("/hook", json=INSERT)).status_code == 401
            assert await settled(http, f"/users/{USER['id']}") == {"state": "resolved", "value": RESULT}
            assert (await http.get("/users/nobody")).status_code == 404

    asyncio.run(story())
    assert world.order() == STEPS
    assert [world.tries(step) for step in STEPS] == [1, 2, 1, 1]


@pytest.mark.parametrize("mode", ["rows", "queue"])
@pytest.mark.parametrize("done", [1, 2, 3, 4])
def test_killed_after_any_step_none_is_repeated(mode: Mode, done: int) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    kill_at(sim, "delivered", done)
    id = sim.call(lambda client: on_webhook(client, INSERT))
    assert id is not None

    assert sim.run(id) == RESULT
    assert world.order() == STEPS


def test_a_process_killed_after_the_second_step_repeats_neither(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert run_process(__name__, "onboard", USER, id="onboard/u", folder=tmp_path, kill_at=("delivered", 2)).killed

    assert run_process(__name__, "onboard", USER, id="onboard/u", folder=tmp_path).result == RESULT
    assert world.order() == STEPS


def test_it_survives_a_crash_at_every_point() -> None:
    app.provide(World())

    survives(app, onboard, USER, result=RESULT)
