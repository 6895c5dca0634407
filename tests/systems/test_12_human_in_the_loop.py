"""System 12, a human in the loop: a workflow mails a link and waits, however long, for somebody to follow it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from everstep import AlreadySettled, App, Client, Context, NotFound, Runtime
from everstep.testing import Simulation
from everstep.testing.simulation import Mode, SimHandle
from everstep.tokens import sign
from tests.components import requires_component
from tests.systems.scaffold import World, did, run_process, survives
from tests.systems.web import called

app = App("human")


@app.step
async def send_email(address: str, promise_id: str) -> None:
    did("email", address=address, promise=promise_id)
    await asyncio.sleep(3)  # a slow mail server


@app.workflow
async def signup(ctx: Context, address: str) -> str:
    confirmed = ctx.promise()
    await ctx.run(send_email, address, confirmed.id)  # the id is final before anything waits
    return f"{address}: {await confirmed}"


def begun(mode: Mode = "rows") -> tuple[Simulation, World, SimHandle[str]]:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    return sim, world, sim.start(signup, "ann@example.org", id="signup-ann")


@pytest.mark.parametrize("mode", ["rows", "queue"])
@pytest.mark.parametrize("killed", [False, True])
def test_nothing_runs_for_thirty_days_and_then_it_completes(mode: Mode, killed: bool) -> None:
    sim, world, handle = begun(mode)
    sim.advance(seconds=5)
    before = handle.cost()
    assert handle.waiting_for == ["signup-ann.1"]
    if killed:
        sim.kill()

    sim.advance(days=30)
    assert (handle.status(), handle.cost()) == ("pending", before)

    sim.resolve("signup-ann.1", "confirmed")
    sim.run_until_idle()
    assert handle.result() == "ann@example.org: confirmed"
    assert world.effects("email") == [{"address": "ann@example.org", "promise": "signup-ann.1"}]


def test_a_second_click_changes_nothing_and_says_so() -> None:
    sim, _, handle = begun()
    sim.advance(seconds=5)
    sim.resolve("signup-ann.1", "confirmed")
    sim.run_until_idle()
    settled = sim.record("signup-ann.1").settled_at
    sim.advance(hours=1)

    assert sim.resolve("signup-ann.1", "confirmed").settled_at == settled
    with pytest.raises(AlreadySettled, match=r"signup-ann\.1"):
        sim.resolve("signup-ann.1", "declined")
    with pytest.raises(AlreadySettled):
        sim.cancel("signup-ann.1")

    sim.run_until_idle()
    assert handle.result() == "ann@example.org: confirmed"


@pytest.mark.parametrize("mode", ["rows", "queue"])
def test_a_click_before_the_workflow_waits_is_not_lost(mode: Mode) -> None:
    sim, _, handle = begun(mode)
    sim.advance(seconds=1)  # the mail is on its way, the step not recorded

    sim.resolve("signup-ann.1", "confirmed")
    assert handle.status() == "pending"
    sim.advance(seconds=2)

    assert handle.result() == "ann@example.org: confirmed"


def test_a_link_nobody_was_given_is_refused() -> None:
    sim, _, _ = begun()

    with pytest.raises(NotFound):
        sim.resolve("signup-ben.1", "confirmed")


def test_a_process_killed_while_it_waits_sends_nothing_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    fast = f"{__name__}:brief"
    assert run_process(fast, "brief_signup", "ann", id="s", folder=tmp_path, kill_at=("suspended", 1)).killed
    asyncio.run(_click(tmp_path))

    assert run_process(fast, "brief_signup", "ann", id="s", folder=tmp_path).result == "ann: confirmed"
    assert world.order() == ["email"]


brief = App("human-brief")


@brief.step
def email(address: str) -> None:
    did("email", address=address)


@brief.workflow
async def brief_signup(ctx: Context, address: str) -> str:
    confirmed = ctx.promise()
    await ctx.run(email, address)
    return f"{address}: {await confirmed}"


async def _click(folder: Path) -> None:
    async with Client.open(f"sqlite:///{folder / 'store.db'}", app=brief) as client:
        await client.resolve("s.1", "confirmed")


def test_it_survives_a_crash_at_every_point() -> None:
    app.provide(World())

    survives(app, signup, "ann@example.org", result="ann@example.org: confirmed", settle={"{id}.1": "confirmed"})


FAR = 4_000_000_000_000
SECRET = "a secret of more than sixteen bytes"


@asynccontextmanager
async def gateway(folder: Path) -> AsyncIterator[tuple[Any, World]]:
    """The HTTP routes, called in this process, over a runtime that works on the same file."""
    requires_component("httpx", hint="pip install -e '.[test]'")
    requires_component("starlette", hint="pip install -e '.[dev]'")
    import httpx

    from everstep.http import asgi

    world = brief.provide(World())
    async with Runtime(brief, f"sqlite:///{folder / 'store.db'}") as runtime:
        serving = asyncio.create_task(runtime.serve())
        transport = httpx.ASGITransport(app=asgi(runtime.client, brief, secret=SECRET))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            try:
                yield http, world
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)


async def mailed(world: World) -> None:
    """Until the mail is out, and so the link exists."""
    async with asyncio.timeout(30):
        while not world.count("email"):  # noqa: ASYNC110  # the step may run in a thread, which cannot set an Event
            await asyncio.sleep(0.005)


def site(client: Client) -> Any:
    """Routes of one's own over the same client: a form that starts it, and the address that is mailed."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def start(request: Any) -> Any:
        handle = await client.options(id="s").start(brief_signup, (await request.json())["address"])
        return JSONResponse({"id": handle.id})

    async def unblock(request: Any) -> Any:
        id = request.query_params["promise_id"]
        before = await client.get(id)
        await client.resolve(id, "confirmed")
        return JSONResponse({"said": "thank you" if before.pending else "this was confirmed before"})

    return Starlette(
        routes=[Route("/start-workflow", start, methods=["POST"]), Route("/unblock-workflow", unblock, methods=["GET"])]
    )


def test_over_routes_of_its_own_it_starts_and_is_unblocked(tmp_path: Path) -> None:
    world = brief.provide(World())

    async def story() -> None:
        async with called(brief, tmp_path, site) as http:
            started = await http.post("/start-workflow", json={"address": "ann"})
            assert (started.status_code, started.json()) == (200, {"id": "s"})
            await mailed(world)
            said = [(await http.get("/unblock-workflow?promise_id=s.1")).json()["said"] for _ in range(2)]
            assert said == ["thank you", "this was confirmed before"]
            async with Client.open(f"sqlite:///{tmp_path / 'store.db'}", app=brief) as client:
                assert await client.handle("s").result(timeout=30) == "ann: confirmed"

    asyncio.run(story())
    assert world.order() == ["email"]


START = {"id": "s", "args": ["ann"]}


def test_over_http_a_start_answers_at_once_and_a_click_completes(tmp_path: Path) -> None:
    async def story() -> None:
        async with gateway(tmp_path) as (http, world):
            answer = await http.post("/workflows/brief_signup", json=START)
            assert (answer.status_code, answer.json()["id"]) == (202, "s")
            assert (await http.post("/workflows/brief_signup", json=START)).status_code == 202
            assert (await http.get("/promises/s")).json()["state"] == "pending"

            await mailed(world)
            clicked = await http.post("/promises/s.1/resolve", json={"value": "confirmed"})
            assert clicked.status_code == 200
            done = (await http.get("/promises/s?wait=30")).json()
            assert (done["state"], done["value"]) == ("resolved", "ann: confirmed")

            again = await http.post("/promises/s.1/resolve", json={"value": "confirmed"})
            assert (again.status_code, again.json()["settled_at"]) == (200, clicked.json()["settled_at"])
            refused = await http.post("/promises/s.1/resolve", json={"value": "declined"})
            assert (refused.status_code, refused.headers["content-type"]) == (409, "application/problem+json")
            assert (await http.post("/promises/nobody.1/resolve", json={"value": 1})).status_code == 404
            assert world.order() == ["email"]

    asyncio.run(story())


def test_over_http_a_signed_link_asks_first_and_counts_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with gateway(tmp_path) as (http, world):
            await http.post("/workflows/brief_signup", json=START)
            await mailed(world)
            link = "/approve/" + sign(SECRET, "s.1", FAR, choices={"Confirm": "confirmed", "No": "declined"})

            assert (await http.get(link)).status_code == 200, "a mail scanner that follows the link settles nothing"
            assert (await http.get("/promises/s.1")).json()["state"] == "pending"
            assert (await http.post(link, json={"choice": "Confirm"})).status_code == 200
            assert (await http.get("/promises/s?wait=30")).json()["value"] == "ann: confirmed"

            second = await http.post(link, json={"choice": "No"})
            assert (second.status_code, "Nothing was changed" in second.text) == (409, True)
            assert (await http.get(link[:-4])).status_code == 403

    asyncio.run(story())
