"""System 40, tokens: whoever calls must bear a signed one, and its `prefix` says which ids it may touch. Runs carry
their tenant in front, and what they start carries it on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from everstep import App, Client, Context
from everstep.promise import SCHEDULE_PREFIX
from everstep.testing import Simulation, crash_everywhere
from tests.components import requires_component
from tests.systems.scaffold import World, did, survives
from tests.systems.web import called, settled

requires_component("jwt", hint="pip install -e '.[gateway]'")

import jwt  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: E402
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: E402

if TYPE_CHECKING:
    import httpx

app = App("tenants")
KEY = rsa.generate_private_key(65537, 2048)
PUBLIC = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@app.step
def note(what: str) -> str:
    did("note", of=what)
    return what


@app.workflow
async def child(ctx: Context, what: str) -> str:
    return await ctx.run(note, what)


@app.workflow
async def job(ctx: Context, what: str) -> list[str]:
    below = await ctx.rpc(child, what)
    follow_up = await ctx.detached(child, f"{what}, later")
    agreed = await ctx.promise()
    return [below, follow_up, str(agreed)]


def site(client: Client) -> Any:
    from everstep.http import Bearer, asgi

    return asgi(client, app, auth=Bearer(PUBLIC))


def bearer(key: Any = KEY, **claims: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {jwt.encode({'exp': 4_000_000_000, **claims}, key, 'RS256')}"}


ONE, TWO, ADMIN = bearer(prefix="worker-1:"), bearer(prefix="worker-2:"), bearer(role="admin")
REFUSED = {
    "none": ({}, 401),
    "bad signature": (bearer(rsa.generate_private_key(65537, 2048), prefix="worker-1:"), 401),
    "expired": (bearer(prefix="worker-1:", exp=1_000_000), 401),
    "no prefix": (bearer(sub="somebody"), 403),
    "empty prefix": (bearer(prefix=""), 403),
    "another's prefix": (TWO, 403),
}


async def protocol(http: httpx.AsyncClient, headers: dict[str, str], kind: str, data: dict[str, Any]) -> int:
    """The same over the protocol's envelope."""
    envelope = {"kind": kind, "head": {"corrId": "c", "version": "2026-04-01"}, "data": data}
    return (await http.post("/", json=envelope, headers=headers)).status_code


@pytest.mark.parametrize(("headers", "status"), REFUSED.values(), ids=REFUSED)
def test_who_may_not_is_refused_on_every_way_in(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    world = app.provide(World(tmp_path))

    async def story() -> None:
        async with called(app, tmp_path, site) as http:
            start = {"id": "worker-1:x", "args": ["a"]}
            assert (await http.post("/workflows/job", json=start, headers=headers)).status_code == status
            assert (await http.post("/workflows/job", json=start, headers=ONE)).status_code == 202
            await wait_until_it_asks(http)
            for path in ("/promises/worker-1:x", "/promises/worker-1:x/tree"):
                assert (await http.get(path, headers=headers)).status_code == status
            settle = {"json": {"value": "yes"}, "headers": headers}
            assert (await http.post("/promises/worker-1:x.3/resolve", **settle)).status_code == status
            assert await protocol(http, headers, "promise.get", {"id": "worker-1:x"}) == status
            data = {"id": "worker-1:x.3", "state": "resolved", "value": {}}
            assert await protocol(http, headers, "promise.settle", data) == status
            assert (await http.get("/promises/worker-1:x", headers=ONE)).json()["state"] == "pending"

    asyncio.run(story())
    assert world.effects("note")[0] == {"of": "a"}


async def wait_until_it_asks(http: httpx.AsyncClient) -> None:
    async with asyncio.timeout(30):
        while (await http.get("/promises/worker-1:x.3", headers=ONE)).status_code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_who_may_sees_its_own_and_an_administrator_everything(tmp_path: Path) -> None:
    app.provide(World(tmp_path))

    async def story() -> None:
        async with called(app, tmp_path, site) as http:
            for tenant, headers in (("1", ONE), ("2", TWO)):
                start = {"id": f"worker-{tenant}:x", "args": ["a"]}
                assert (await http.post("/workflows/job", json=start, headers=headers)).status_code == 202
            await wait_until_it_asks(http)
            http.headers.update(ONE)
            assert (await http.post("/promises/worker-1:x.3/resolve", json={"value": "yes"})).status_code == 200
            assert (await settled(http, "/promises/worker-1:x"))["value"][2] == "yes"
            own = (await http.get("/promises?roots=false")).json()["promises"]
            assert own
            assert all(one["id"].startswith("worker-1:") for one in own), "children and detached runs too"
            http.headers.update(ADMIN)
            everything = (await http.get("/promises?roots=false")).json()["promises"]
            assert {one["id"][:9] for one in everything} == {"worker-1:", "worker-2:"}

            cron = {"cron": "0 3 * * *", "workflow": "child", "args": ["nightly"]}
            for headers, status in ((TWO, 403), (ONE, 201)):
                made = await http.post("/schedules", json={"id": "worker-1:nightly", **cron}, headers=headers)
                assert made.status_code == status

    asyncio.run(story())


def test_a_schedules_runs_and_what_a_run_starts_keep_the_prefix() -> None:
    app.provide(World())
    sim = Simulation(app)
    sim.schedule("worker-1:nightly", "0 3 * * *", child, "nightly")
    sim.start(job, "a", id="worker-1:x")
    sim.advance(days=1)

    ids = [id for id in sim.records() if not id.startswith(SCHEDULE_PREFIX)]
    assert {"worker-1:x", "worker-1:x.1", "worker-1:x.1.1"} < set(ids)
    assert any("~d" in id for id in ids), "a detached run"
    assert any("nightly." in id for id in ids), "a tick of the schedule"
    assert all(id.startswith("worker-1:") for id in ids)


def test_it_survives_a_crash_at_every_point() -> None:
    app.provide(World())
    answers: dict[str, Any] = {"id": "worker-1:x", "settle": {"worker-1:x.3": "yes"}}

    def prefixed(sim: Simulation, handle: Any) -> None:
        assert all(id.startswith("worker-1:") for id in sim.records())

    undisturbed = crash_everywhere(app, job, "a", variants=(), **answers).result
    survives(app, job, "a", result=undisturbed, check=prefixed, **answers)
