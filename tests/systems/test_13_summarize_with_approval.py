"""System 13, a page summarized until a person is content: scrape, summarize, mail two links, and again where the
answer is no."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from everstep import AlreadySettled, App, Client, Context, Retry, current_step
from everstep.models import Message, Model, Scripted, Tool, assistant, system, user
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import World, did, run_process, survives
from tests.systems.web import called, settled, until

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

app = App("summaries", retry=Retry(attempts=3, first=0.1))


class NoSuchHost(Exception):
    """The name does not resolve, and will not in a second either."""


class Web:
    """Fetches pages. Provide another one that does."""

    async def fetch(self, url: str) -> str:
        if "nowhere" in url:
            raise NoSuchHost(url)
        return f"all that {url} says"


app.provide(Web())


@app.step(retry=Retry(attempts=5, give_up_on=(NoSuchHost,)))
async def download(url: str) -> str:
    did("download")
    return await current_step().dependency(Web).fetch(url)


@app.step
async def summarize(text: str, refused: list[str]) -> str:
    talk = [system("Summarize the text in one sentence."), user(text)]
    for summary in refused:
        talk += [assistant(summary), user("No. Try again.")]
    return (await current_step().dependency(Model).reply(talk)).text


@app.step
def mail(summary: str, promise_id: str) -> None:
    did("mail", summary=summary, promise=promise_id)


@app.workflow
async def summarize_page(ctx: Context, url: str) -> str:
    text = await ctx.run(download, url)
    refused: list[str] = []
    while True:
        summary = await ctx.run(summarize, text, refused)
        content = ctx.promise()
        await ctx.run(mail, summary, content.id)
        if await content:
            return summary
        refused.append(summary)


def run_id(url: str) -> str:
    """One run for one page, however its address is written."""
    host_and_path = re.sub(r"^https?://(www\.)?", "", url.lower())
    return "summary-" + re.sub(r"[^a-z0-9]+", "-", host_and_path).strip("-")


def site(client: Client) -> Starlette:
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def start(request: Request) -> Response:
        url = (await request.json())["url"]
        handle = await client.options(id=run_id(url), on_conflict="attach").start(summarize_page, url)
        return JSONResponse({"id": handle.id}, 202)

    async def confirm(request: Request) -> Response:
        query = request.query_params
        try:
            await client.resolve(query["promise"], query["confirm"] == "yes")
        except AlreadySettled:
            return JSONResponse({"detail": "this was answered before"}, 409)
        return JSONResponse({"detail": "thank you"})

    async def status(request: Request) -> Response:
        view = await client.get(request.path_params["id"])
        return JSONResponse({"state": view.state, "summary": view.value, "error": view.error})

    return Starlette(
        routes=[
            Route("/summaries", start, methods=["POST"]),
            Route("/summaries/{id}", status),
            Route("/confirm", confirm, methods=["POST"]),
        ]
    )


def scripted(messages: Sequence[Message], tools: Sequence[Tool]) -> str:
    refused = sum(one.role == "assistant" for one in messages)
    did("model", refused=refused)
    return f"summary {refused + 1}"


app.provide(Scripted(scripted))

URL = "https://www.Example.org/tides/"
BOTH = pytest.mark.parametrize("mode", ["rows", "queue"])


@BOTH
@pytest.mark.parametrize("killed", [False, True])
def test_refused_once_it_is_summarized_twice_and_downloaded_once(mode: Mode, killed: bool) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    handle = sim.start(summarize_page, URL, id="s")
    for answer in (False, True):
        sim.advance(days=3)
        if killed:
            sim.kill()
        sim.resolve(handle.waiting_for[0], answer)
    sim.advance(seconds=1)

    assert handle.result() == "summary 2"
    assert world.counts() == {"download": 1, "model": 2, "mail": 2}


@BOTH
def test_a_name_that_does_not_resolve_is_tried_once_and_the_run_is_rejected(mode: Mode) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    handle = sim.start(summarize_page, "https://nowhere.example")

    with pytest.raises(Exception, match="nowhere"):
        sim.run(handle)
    assert (handle.status(), world.tries("download")) == ("rejected", 1)


def test_the_link_of_an_old_round_changes_nothing() -> None:
    app.provide(World())
    sim = Simulation(app)
    handle = sim.start(summarize_page, URL, id="s")
    sim.advance(seconds=1)
    (first,) = handle.waiting_for
    sim.resolve(first, False)
    sim.advance(seconds=1)

    with pytest.raises(AlreadySettled):
        sim.resolve(first, True)
    assert handle.status() == "pending"


def test_the_same_page_is_the_same_run() -> None:
    assert run_id(URL) == run_id("http://example.org/tides") == "summary-example-org-tides"


def test_over_http(tmp_path: Path) -> None:
    world = app.provide(World(tmp_path))

    async def story() -> None:
        async with called(app, tmp_path, site) as http:
            started = await http.post("/summaries", json={"url": URL})
            again = await http.post("/summaries", json={"url": "http://example.org/tides"})
            assert (started.status_code, again.json()) == (202, started.json())
            run = f"/summaries/{started.json()['id']}"

            await until(lambda: world.count("mail") == 1)
            old = world.effects("mail")[0]["promise"]
            assert (await http.post(f"/confirm?promise={old}&confirm=no")).status_code == 200
            await until(lambda: world.count("mail") == 2)
            assert (await http.post(f"/confirm?promise={old}&confirm=yes")).status_code == 409
            assert (await http.get(run)).json()["state"] == "pending"

            new = world.effects("mail")[1]["promise"]
            assert (await http.post(f"/confirm?promise={new}&confirm=yes")).status_code == 200
            assert (await settled(http, run))["summary"] == "summary 2"

            lost = (await http.post("/summaries", json={"url": "nowhere.example"})).json()["id"]
            failed = await settled(http, f"/summaries/{lost}")
            assert (failed["state"], failed["error"]["type"]) == ("rejected", "NoSuchHost")

    asyncio.run(story())
    assert (world.count("model"), world.tries("download")) == (2, 2)


def test_a_process_killed_while_it_waits_does_not_ask_the_model_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert run_process(__name__, "summarize_page", URL, id="s", folder=tmp_path, kill_at=("suspended", 1)).killed

    async def confirm() -> None:
        async with called(app, tmp_path, site, works=False) as http:
            promise = world.effects("mail")[0]["promise"]
            assert (await http.post(f"/confirm?promise={promise}&confirm=yes")).status_code == 200

    asyncio.run(confirm())

    assert run_process(__name__, "summarize_page", URL, id="s", folder=tmp_path).result == "summary 1"
    assert world.counts() == {"download": 1, "model": 1, "mail": 1}


def test_it_survives_a_crash_at_every_point() -> None:
    app.provide(World())
    settle: dict[str, Any] = {"{id}.3": False, "{id}.6": True}

    survives(app, summarize_page, URL, result="summary 2", settle=settle)
