"""System 20, embedded in Flask, FastAPI and Django: a route runs a function durably in its own process and answers with
the value, or, where the function waits for something, with 202 and the id."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from everstep import App, Background, Context, Runtime, StillPending, UsageError
from tests.components import requires_component
from tests.systems.scaffold import World, did, run_process, survives

if TYPE_CHECKING:
    import httpx

app = App("embedded")


@app.step
def one() -> int:
    did("one")
    return 1


@app.step
def two() -> int:
    did("two")
    return 2


@app.step
async def slowly(seconds: float) -> float:
    did("slow")
    await asyncio.sleep(seconds)
    return seconds


@app.step
def say(name: str) -> str:
    did("say")
    return f"hello {name}!"


@app.workflow
async def rest(ctx: Context) -> int:
    return await ctx.run(two)


@app.workflow
async def add(ctx: Context) -> int:
    return await ctx.run(one) + await ctx.run(rest)


@app.workflow
async def greet(ctx: Context, name: str) -> str:
    return await ctx.run(say, name)


@app.workflow
async def slow(ctx: Context, seconds: float) -> float:
    return await ctx.run(slowly, seconds)


@app.workflow
async def wait(ctx: Context) -> str:
    return str(await ctx.promise())


def flask_site(background: Background) -> Any:
    from flask import Flask

    site = Flask(__name__)

    @site.get("/")
    def index() -> Any:
        return background.run(greet, "world", id="greeting")

    @site.get("/wait")
    def waiting() -> Any:
        try:
            return {"value": background.run(wait, id="waiting", timeout=0.1)}
        except StillPending:
            return {"id": "waiting"}, 202

    return site


def fastapi_site(url: str) -> Any:
    from fastapi import FastAPI
    from fastapi.responses import JSONResponse

    @asynccontextmanager
    async def lifespan(site: FastAPI) -> AsyncIterator[None]:
        async with Runtime(app, url) as runtime:
            site.state.client = runtime.client
            working = asyncio.create_task(runtime.serve())
            yield
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    site = FastAPI(lifespan=lifespan)

    @site.get("/")
    async def index() -> Any:
        handle = await site.state.client.start(add, id="sum")
        return {"value": await handle.result(timeout=10)}

    @site.get("/slow/{number}")
    async def slow_one(number: int) -> Any:
        handle = await site.state.client.start(slow, 0.3, id=f"slow-{number}")
        return {"value": await handle.result(timeout=10)}

    @site.get("/wait")
    async def waiting() -> Any:
        handle = await site.state.client.start(wait, id="waiting")
        try:
            return {"value": await handle.result(timeout=0.1)}
        except StillPending:
            return JSONResponse({"id": handle.id}, 202)

    return site


def django_site(background: Background) -> Any:
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpRequest, JsonResponse
    from django.urls import path

    def index(request: HttpRequest) -> JsonResponse:
        return JsonResponse({"value": background.run(add, id="sum")})

    def waiting(request: HttpRequest) -> JsonResponse:
        try:
            return JsonResponse({"value": background.run(wait, id="waiting", timeout=0.1)})
        except StillPending:
            return JsonResponse({"id": "waiting"}, status=202)

    routes = (path("", index), path("wait", waiting))
    if not settings.configured:
        settings.configure(SECRET_KEY="for signing", ALLOWED_HOSTS=["*"], ROOT_URLCONF=routes, LOGGING_CONFIG=None)
    settings.ROOT_URLCONF = routes
    return WSGIHandler()


@contextmanager
def synchronous(make: Any, folder: Path) -> Iterator[httpx.Client]:
    import httpx

    with (
        Background(app, f"sqlite:///{folder / 'store.db'}") as background,
        httpx.Client(transport=httpx.WSGITransport(app=make(background)), base_url="http://localhost") as http,
    ):
        yield http


@asynccontextmanager
async def asynchronous(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    import httpx

    site = fastapi_site(f"sqlite:///{folder / 'store.db'}")
    async with (
        site.router.lifespan_context(site),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=site), base_url="http://test") as http,
    ):
        yield http


def test_flask(tmp_path: Path) -> None:
    requires_component("flask")
    world = app.provide(World(tmp_path))
    for _ in range(2):  # a second time in what could be another process
        with synchronous(flask_site, tmp_path) as http:
            assert [http.get("/").text for _ in range(2)] == ["hello world!"] * 2
    assert world.order() == ["say"]


def test_django(tmp_path: Path) -> None:
    requires_component("django")
    world = app.provide(World(tmp_path))
    for _ in range(2):
        with synchronous(django_site, tmp_path) as http:
            assert [http.get("/").json() for _ in range(2)] == [{"value": 3}] * 2
    assert world.order() == ["one", "two"]


def test_fastapi(tmp_path: Path) -> None:
    requires_component("fastapi")
    world = app.provide(World(tmp_path))

    async def story() -> None:
        for _ in range(2):
            async with asynchronous(tmp_path) as http:
                assert [(await http.get("/")).json() for _ in range(2)] == [{"value": 3}] * 2

    asyncio.run(story())
    assert world.order() == ["one", "two"]


def test_two_slow_requests_of_fastapi_overlap(tmp_path: Path) -> None:
    requires_component("fastapi")
    running, most = 0, 0

    class Watched(World):
        def did(self, name: str, /, **detail: object) -> int:
            nonlocal running, most
            running += 1
            most = max(most, running)
            asyncio.get_running_loop().call_later(0.2, done)
            return 0

    def done() -> None:
        nonlocal running
        running -= 1

    app.provide(Watched())

    async def story() -> None:
        async with asynchronous(tmp_path) as http:
            both = await asyncio.gather(http.get("/slow/1"), http.get("/slow/2"))
            assert [one.json() for one in both] == [{"value": 0.3}] * 2

    asyncio.run(story())
    assert most == 2


@pytest.mark.parametrize("make", [flask_site, django_site], ids=["flask", "django"])
def test_a_function_that_waits_is_answered_with_its_id(make: Any, tmp_path: Path) -> None:
    requires_component("flask")
    requires_component("django")
    with synchronous(make, tmp_path) as http:
        answer = http.get("/wait")
        assert (answer.status_code, answer.json()) == (202, {"id": "waiting"})

    with Background(app, f"sqlite:///{tmp_path / 'store.db'}") as background:
        background.resolve("waiting.1", "at last")
        assert background.handle("waiting").result(timeout=20) == "at last"
    with synchronous(make, tmp_path) as http:
        assert http.get("/wait").json() == {"value": "at last"}


def test_a_function_that_waits_is_answered_with_its_id_by_fastapi(tmp_path: Path) -> None:
    requires_component("fastapi")

    async def story() -> None:
        async with asynchronous(tmp_path) as http:
            answer = await http.get("/wait")
            assert (answer.status_code, answer.json()) == (202, {"id": "waiting"})

    asyncio.run(story())


def test_a_background_refuses_to_block_an_event_loop(tmp_path: Path) -> None:
    with Background(app, f"sqlite:///{tmp_path / 'store.db'}") as background:

        async def handler() -> None:
            background.run(add, id="sum")

        with pytest.raises(UsageError, match="Runtime"):
            asyncio.run(handler())


def test_a_route_after_a_killed_process_repeats_nothing(tmp_path: Path) -> None:
    requires_component("flask")
    requires_component("django")
    world = app.provide(World(tmp_path))
    assert run_process(__name__, "add", id="sum", folder=tmp_path, kill_at=("delivered", 1)).killed
    with synchronous(django_site, tmp_path) as http:
        assert http.get("/").json() == {"value": 3}
    assert world.order() == ["one", "two"]


def test_it_survives_a_crash_at_every_point() -> None:
    app.provide(World())

    survives(app, add, result=3)
