"""System 6, calls across services: nine services, each an App of its own, show three shapes of call. A chain that is
awaited (a, b, c), one that is not (d, e, f), and a fan-out (g calls h and i); a gateway starts them under fixed ids."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from everstep import App, Client, Context, Runtime
from everstep.testing import Simulation, crash_everywhere
from everstep.testing.simulation import Mode
from tests.systems.scaffold import World, did, kill_at, serve_process, survives
from tests.systems.web import called, settled, until

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

services = {letter: App(f"service-{letter}") for letter in "abcdefghi"}
a, b, c, d, e, f, g, h, i = services.values()
gateway = App("gateway")


def one(letter: str) -> int:
    did(letter)
    return 1


@a.workflow(name="foo")
async def foo(ctx: Context) -> int:
    return await ctx.run(one, "a") + await ctx.options(target="everstep://service-b").rpc("bar")


@b.workflow(name="bar")
async def bar(ctx: Context) -> int:
    return await ctx.run(one, "b") + await ctx.options(target="everstep://service-c").rpc("baz")


@c.workflow(name="baz")
async def baz(ctx: Context) -> int:
    return await ctx.run(one, "c")


@d.workflow(name="first")
async def first(ctx: Context) -> str:
    await ctx.run(one, "d")
    return await ctx.options(target="everstep://service-e").detached("second", 1)


@e.workflow(name="second")
async def second(ctx: Context, so_far: int) -> str:
    more = so_far + await ctx.run(one, "e")
    return await ctx.options(target="everstep://service-f").detached("third", more)


@f.workflow(name="third")
async def third(ctx: Context, so_far: int) -> int:
    return so_far + await ctx.run(one, "f")


@g.workflow(name="fan")
async def fan(ctx: Context) -> int:
    calls = [ctx.options(target=f"everstep://service-{letter}").rpc("leaf", letter) for letter in "hi"]
    return await ctx.run(one, "g") + sum(await asyncio.gather(*calls))


async def leaf(ctx: Context, letter: str) -> int:
    return await ctx.run(one, letter)


h.workflow(leaf)
i.workflow(leaf)

ROUTES = {"await-chain": (a, "foo"), "detached-chain": (d, "first"), "fan-out-workflow": (g, "fan")}


def site(client: Client) -> Starlette:
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def start(request: Request) -> Response:
        id = request.path_params["id"]
        app, name = ROUTES[id]
        await client.options(id=id, target=app.target).start(name)
        return JSONResponse({"id": id}, 202)

    async def look(request: Request) -> Response:
        view = await client.get(request.path_params["id"])
        return JSONResponse({"state": view.state, "value": view.value})

    return Starlette(routes=[Route("/{id}", start, methods=["POST"]), Route("/{id}", look)])


def provide(world: World) -> World:
    for service in services.values():
        service.provide(world)
    return world


BOTH = pytest.mark.parametrize("mode", ["rows", "queue"])
OTHERS = [*services.values()]


def start(sim: Simulation, id: str) -> Any:
    app, name = ROUTES[id]
    sim.call(lambda client: client.options(id=id, target=app.target).start(name))
    return sim.handle(id)


@BOTH
def test_each_shape_gives_three_and_each_body_runs_in_its_service(mode: Mode) -> None:
    world = provide(World())
    sim = Simulation(gateway, others=OTHERS, mode=mode)
    ran: dict[str, str] = {}
    sim.world.listeners.append(lambda event: ran.__setitem__(event.id, event.who) if event.kind == "step" else None)

    assert sim.run(start(sim, "await-chain")) == 3
    assert sim.run(start(sim, "fan-out-workflow")) == 3
    end = sim.run(sim.run(start(sim, "detached-chain")))
    assert sim.run(end) == 3
    assert world.counts() == dict.fromkeys("abcdefghi", 1)
    assert len(set(ran.values())) == 9, "nine services"


@BOTH
def test_a_detached_chain_is_done_before_its_last_service(mode: Mode) -> None:
    world = provide(World())
    sim = Simulation(gateway, others=OTHERS, mode=mode)
    handle = start(sim, "detached-chain")
    seen: list[int] = []
    sim.world.listeners.append(
        lambda event: seen.append(world.count("f")) if (event.kind, event.id) == ("settled", "detached-chain") else None
    )
    sim.run(handle)
    sim.run_until_idle()

    assert seen == [0]
    assert world.count("f") == 1


@BOTH
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_service_killed_in_the_chain_gives_the_same_answer_and_no_effect_twice(mode: Mode, number: int) -> None:
    world = provide(World())
    sim = Simulation(gateway, others=OTHERS, mode=mode)
    kill_at(sim, "delivered", number)

    assert sim.run(start(sim, "await-chain")) == 3
    assert world.counts() == dict.fromkeys("abc", 1)


@asynccontextmanager
async def serving(folder: Path, letters: str) -> AsyncIterator[None]:
    async with Runtime(services[letters[0]], f"sqlite:///{folder / 'store.db'}") as runtime:
        working = asyncio.create_task(runtime.serve())
        try:
            if letters[1:]:
                async with serving(folder, letters[1:]):
                    yield
            else:
                yield
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


def test_over_http_a_service_killed_in_the_chain_and_a_route_that_is_posted_again(tmp_path: Path) -> None:
    world = provide(World(tmp_path))

    async def story() -> None:
        async with called(gateway, tmp_path, site) as http, serving(tmp_path, "ac"):
            assert (await http.post("/await-chain")).status_code == 202
            await until(lambda: world.count("a"))
            ended = await asyncio.to_thread(
                serve_process, f"{__name__}:b", folder=tmp_path, until=("never", 1), kill_at=("delivered", 1)
            )
            assert ended.killed
            assert world.counts() == {"a": 1, "b": 1}
            async with serving(tmp_path, "b"):
                assert await settled(http, "/await-chain") == {"state": "resolved", "value": 3}
                assert (await http.post("/await-chain")).status_code == 202
                assert (await http.get("/await-chain")).json()["value"] == 3

    asyncio.run(story())
    assert world.counts() == dict.fromkeys("abc", 1)


def test_over_http_each_shape(tmp_path: Path) -> None:
    world = provide(World(tmp_path))

    async def story() -> None:
        async with called(gateway, tmp_path, site) as http, serving(tmp_path, "abcdefghi"):
            for route in ROUTES:
                assert (await http.post(f"/{route}")).status_code == 202
            for route in ("await-chain", "fan-out-workflow"):
                assert (await settled(http, f"/{route}"))["value"] == 3
            second = (await settled(http, "/detached-chain"))["value"]
            third = (await settled(http, f"/{second}"))["value"]
            assert (await settled(http, f"/{third}"))["value"] == 3

    asyncio.run(story())
    assert world.counts() == dict.fromkeys("abcdefghi", 1)


def test_it_survives_a_crash_at_every_point() -> None:
    provide(World())
    options: dict[str, Any] = {"others": OTHERS}

    survives(a, foo, result=3, **options)
    survives(g, fan, result=3, **options)

    def followed(sim: Simulation, handle: Any) -> None:
        assert sim.run(sim.run(handle.result())) == 3

    assert crash_everywhere(d, first, check=followed, **options).executions == {"one": 2}
