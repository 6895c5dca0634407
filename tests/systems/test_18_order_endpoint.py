"""System 18, an order endpoint: a POST starts four steps in the same process; what was answered with 202 is durable."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from everstep import App, Client, Context, NotFound, Retry
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import World, did, kill_at, survives
from tests.systems.web import called, patiently, server, settled

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

app = App("orders", retry=Retry(attempts=3, first=0.05))


@dataclass(frozen=True)
class Order:
    id: str
    sku: str
    quantity: int


@app.step
def validate(order: Order) -> int:
    """The total in cents."""
    did("validate")
    return 1250 * order.quantity


@app.step
def reserve(sku: str, quantity: int) -> str:
    did("reserve")
    return f"reservation of {quantity} {sku}"


@app.step
def charge(order: str, cents: int) -> str:
    did("charge", cents=cents)
    return f"receipt for {cents}"


@app.step
def confirm(order: str, receipt: str) -> None:
    did("mail")


@app.workflow
async def handle_order(ctx: Context, order: Order) -> dict[str, int]:
    total = await ctx.run(validate, order)
    await ctx.run(reserve, order.sku, order.quantity)
    receipt = await ctx.run(charge, order.id, total)
    await ctx.run(confirm, order.id, receipt)
    return {"total": total}


def site(client: Client) -> Starlette:
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def place(request: Request) -> Response:
        body = await request.json()
        missing = [name for name in ("id", "sku", "quantity") if name not in body]
        if missing:
            return JSONResponse({"detail": f"missing: {', '.join(missing)}"}, 400)
        order = Order(body["id"], body["sku"], body["quantity"])
        await client.options(id=f"order/{order.id}").start(handle_order, order)
        return JSONResponse({"order": order.id}, 202)

    async def look(request: Request) -> Response:
        try:
            view = await client.get(f"order/{request.path_params['id']}")
        except NotFound:
            return JSONResponse({"detail": "there is no such order"}, 404)
        return JSONResponse({"state": view.state, "value": view.value})

    return Starlette(routes=[Route("/orders", place, methods=["POST"]), Route("/orders/{id}", look)])


ORDER = {"id": "17", "sku": "book", "quantity": 3}
STEPS = ["validate", "reserve", "charge", "mail"]
TOTAL = {"total": 3750}


def test_an_order_posted_twice_runs_each_step_once(tmp_path: Path) -> None:
    world = app.provide(World(tmp_path, {"reserve": ["fail"]}))

    async def story() -> None:
        async with called(app, tmp_path, site) as http:
            first, second = await asyncio.gather(http.post("/orders", json=ORDER), http.post("/orders", json=ORDER))
            assert (first.status_code, second.status_code) == (202, 202)
            assert await settled(http, "/orders/17") == {"state": "resolved", "value": TOTAL}
            assert (await http.post("/orders", json=ORDER)).status_code == 202
            assert (await http.post("/orders", json={"id": "18"})).json() == {"detail": "missing: sku, quantity"}
            assert (await http.post("/orders", json={"id": "18"})).status_code == 400
            assert (await http.get("/orders/18")).status_code == 404

    asyncio.run(story())
    assert world.order() == STEPS
    assert [world.tries(step) for step in STEPS] == [1, 2, 1, 1]


def test_killed_after_the_answer_and_before_the_first_step_the_order_is_still_handled(tmp_path: Path) -> None:
    import httpx

    world = World(tmp_path, {"validate": ["kill-before"]})
    with server(__name__, tmp_path) as first:
        assert httpx.post(f"{first.url}/orders", json=ORDER).status_code == 202
        assert first.killed
    assert world.order() == []

    with server(__name__, tmp_path) as second:

        def handled() -> object:
            return httpx.get(f"{second.url}/orders/17").json()["value"]

        assert patiently(handled) == TOTAL
    assert world.order() == STEPS


@pytest.mark.parametrize("mode", ["rows", "queue"])
@pytest.mark.parametrize("done", [1, 2, 3, 4])
def test_killed_after_any_step_none_is_repeated(mode: Mode, done: int) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    kill_at(sim, "delivered", done)

    assert sim.run(sim.start(handle_order, Order("17", "book", 3))) == TOTAL
    assert world.order() == STEPS


def test_it_survives_a_crash_at_every_point() -> None:
    app.provide(World())

    survives(app, handle_order, Order("17", "book", 3), result=TOTAL)
