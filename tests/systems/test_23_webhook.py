"""System 23, webhooks processed once: the provider's event id is the run's id, and its retries attach."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from everstep import App, Client, Context, Retry
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import World, did, kill_at, survives
from tests.systems.web import called, settled

if TYPE_CHECKING:
    import httpx
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

app = App("payments", retry=Retry(attempts=3, first=0.05))
SECRET = b"whsec of the provider"


@app.step
def validate(event: dict[str, Any]) -> int:
    did("validate")
    return int(event["amount"])


@app.step
def charge(customer: str, cents: int) -> str:
    did("charge", customer=customer, cents=cents)
    return f"charge of {cents}"


@app.step
def receipt(customer: str, charged: str) -> None:
    did("receipt")


@app.step
def ledger(event: str, charged: str) -> None:
    did("ledger")


@app.workflow
async def paid(ctx: Context, event: dict[str, Any]) -> str:
    cents = await ctx.run(validate, event)
    charged = await ctx.run(charge, event["customer"], cents)
    await ctx.run(receipt, event["customer"], charged)
    await ctx.run(ledger, event["id"], charged)
    return charged


def signed(body: bytes) -> str:
    """What the provider sends beside a body."""
    return hmac.new(SECRET, body, hashlib.sha256).hexdigest()


def site(client: Client) -> Starlette:
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def hook(request: Request) -> Response:
        body = await request.body()
        if not hmac.compare_digest(request.headers.get("signature", ""), signed(body)):
            return JSONResponse({"detail": "the signature is not the provider's"}, 400)
        event = json.loads(body)
        # Durable before the answer; the provider's next delivery of the same event finds it, whatever it says by then.
        handle = await client.options(id=f"webhook/{event['id']}", on_conflict="attach").start(paid, event)
        return JSONResponse({"run": handle.id})

    async def status(request: Request) -> Response:
        view = await client.get(f"webhook/{request.path_params['id']}")
        return JSONResponse({"state": "processing" if view.state == "pending" else "done", "value": view.value})

    return Starlette(routes=[Route("/webhook", hook, methods=["POST"]), Route("/webhook/{id}", status)])


EVENT = {"id": "evt_1", "customer": "c-7", "amount": 4200}
STEPS = ["validate", "charge", "receipt", "ledger"]


async def deliver(http: httpx.AsyncClient, event: dict[str, Any], signature: str | None = None) -> httpx.Response:
    body = json.dumps(event).encode()
    headers = {"signature": signed(body) if signature is None else signature}
    return await http.post("/webhook", content=body, headers=headers)


def test_ten_deliveries_at_once_are_one_charge(tmp_path: Path) -> None:
    world = app.provide(World(tmp_path, {"charge": ["fail"]}))

    async def story() -> None:
        async with called(app, tmp_path, site) as http:
            answers = await asyncio.gather(*[deliver(http, EVENT) for _ in range(10)])
            assert {(one.status_code, one.json()["run"]) for one in answers} == {(200, "webhook/evt_1")}
            done = await settled(http, "/webhook/evt_1", state="processing")
            assert done == {"state": "done", "value": "charge of 4200"}
            assert (await deliver(http, {**EVENT, "attempt": 2})).status_code == 200, (
                "a delivery that says more attaches"
            )

    asyncio.run(story())
    assert world.order() == STEPS
    assert [world.tries(step) for step in STEPS] == [1, 2, 1, 1]


def test_before_it_is_done_it_is_processing(tmp_path: Path) -> None:
    app.provide(World(tmp_path))

    async def story() -> None:
        async with called(app, tmp_path, site, works=False) as http:
            assert (await deliver(http, EVENT)).status_code == 200
            assert (await http.get("/webhook/evt_1")).json() == {"state": "processing", "value": None}

    asyncio.run(story())


@pytest.mark.parametrize("signature", ["", "0" * 64])
def test_a_bad_signature_creates_nothing(tmp_path: Path, signature: str) -> None:
    world = app.provide(World(tmp_path))

    async def story() -> None:
        async with called(app, tmp_path, site) as http:
            assert (await deliver(http, EVENT, signature)).status_code == 400
        async with Client.open(f"sqlite:///{tmp_path / 'store.db'}", app=app) as client:
            assert await client.search() == ([], None)

    asyncio.run(story())
    assert world.order() == []


@pytest.mark.parametrize("mode", ["rows", "queue"])
def test_killed_after_the_charge_it_charges_nobody_again(mode: Mode) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    handle = sim.start(paid, EVENT, id="webhook/evt_1")
    kill_at(sim, "delivered", number=2)
    sim.advance(minutes=5)
    assert handle.result() == "charge of 4200"
    assert world.order() == STEPS


def test_however_it_crashes_no_recorded_step_runs_again() -> None:
    app.provide(World())
    survives(app, paid, EVENT, result="charge of 4200")
