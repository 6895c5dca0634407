"""`SyncClient` is `Client` for code without an event loop, method by method."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from everstep import AlreadySettled, App, Conflict, Context, Runtime, StillPending, SyncClient, UsageError
from everstep.sync import missing

app = App("shop")


@app.workflow
async def ask(ctx: Context, what: str) -> str:
    return f"{what}: {await ctx.promise()}"


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'shop.db'}"


def work(folder: Path, id: str) -> None:
    async def main() -> None:
        async with Runtime(app, url(folder)) as runtime:
            await runtime.drive(id)

    asyncio.run(main())


def test_it_mirrors_every_method() -> None:
    assert missing() == []


def test_a_run_from_start_to_result(tmp_path: Path) -> None:
    with SyncClient.open(url(tmp_path), app=app) as client:
        handle = client.options(id="a1", tags={"team": "ops"}).start(ask, "tea?")
        assert client.start(ask, "tea?", id="a1").id == client.start("ask", "tea?", id="a1").id == "a1"
        assert handle.status() == "pending"
        with pytest.raises(StillPending):
            handle.result(timeout=0)
        with pytest.raises(Conflict):
            client.start(ask, "coffee?", id="a1")
        assert client.options(id="a1", on_conflict="attach").start(ask, "coffee?").id == "a1"
        found, _ = client.search(tags={"team": "ops"})
        assert [one.id for one in found] == ["a1"]

        client.cancel("a1")
        with pytest.raises(AlreadySettled):
            client.resolve("a1", "yes")

        handle = client.start(ask, "cake?", id="a2")
        client.halt("a2", "wait")
        assert handle.view().halted
        client.continue_("a2")
    work_until_asked(tmp_path, "a2")
    with SyncClient.open(url(tmp_path), app=app) as client:
        client.resolve("a2.1", "yes")
    work(tmp_path, "a2")
    with SyncClient.open(url(tmp_path), app=app) as client:
        assert client.handle("a2").result(timeout=0) == "cake?: yes"
        assert [child.promise.id for child in client.tree("a2").children] == ["a2.1"]


def work_until_asked(folder: Path, id: str) -> None:
    async def main() -> None:
        asked = asyncio.Event()
        async with Runtime(
            app, url(folder), on_event=lambda event: event.kind == "suspended" and asked.set()
        ) as runtime:
            working = asyncio.create_task(runtime.drive(id))
            await asked.wait()
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    asyncio.run(main())


def test_where_an_event_loop_runs_it_says_what_to_use(tmp_path: Path) -> None:
    async def main() -> None:
        client.start(ask, "tea?")

    with SyncClient.open(url(tmp_path), app=app) as client, pytest.raises(UsageError, match=r"everstep\.Client"):
        asyncio.run(main())
