"""The embedded runtime's own business: who holds what in one process, and what is left when work is cancelled."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from everstep import App, Context, NotFound, Runtime, StoreUnavailable, current_step
from everstep.ports import Commit

app = App("shop")
begun: list[str] = []


@app.step
async def slow(name: str) -> str:
    begun.append(name)
    if len(begun) == 1:
        current_step().dependency(asyncio.Event).set()
        await asyncio.Event().wait()  # until it is cancelled
    return name


@app.workflow
async def work(ctx: Context) -> str:
    return await ctx.run(slow, "one")


@app.workflow
async def parent(ctx: Context) -> list[str]:
    return await asyncio.gather(ctx.rpc(work), ctx.rpc(work))


@pytest.fixture(autouse=True)
def nothing_begun() -> None:
    begun.clear()


@pytest.mark.parametrize("url", ["memory:", "sqlite:///{}/shop.db"])
def test_work_that_was_cancelled_here_is_taken_up_at_once(url: str, tmp_path: Path) -> None:
    """The lease of a delivery ends with it: nobody waits a minute for oneself."""

    async def main() -> Any:
        started = app.provide(asyncio.Event())
        async with Runtime(app, url.format(tmp_path)) as runtime:
            handle = await runtime.client.start(work, id="w1")
            working = asyncio.create_task(runtime.drive("w1"))
            await started.wait()
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            await asyncio.wait_for(runtime.drive("w1"), 20)
            return await handle.result(timeout=0)

    assert asyncio.run(main()) == "one"
    assert begun == ["one", "one"]


def test_another_runtime_of_the_same_process_does_not_take_what_is_held(tmp_path: Path) -> None:
    async def main() -> None:
        started = app.provide(asyncio.Event())
        url = f"sqlite:///{tmp_path / 'shop.db'}"
        async with Runtime(app, url) as one, Runtime(app, url) as other:
            await one.client.start(work, id="w1")
            working = asyncio.create_task(one.drive("w1"))
            await started.wait()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(other.drive("w1"), 0.1)
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    asyncio.run(main())
    assert begun == ["one"]


def test_after_trouble_the_same_process_goes_on_by_itself(tmp_path: Path) -> None:
    """A store that is busy at the wrong moment: the run is tried again in a second, not at the end of its lease."""

    async def main() -> tuple[Any, list[str]]:
        troubles: list[str] = []

        def on_event(event: Any) -> None:
            if event.kind == "trouble":
                troubles.append(event.detail["error"])

        async with Runtime(app, f"sqlite:///{tmp_path / 'shop.db'}", on_event=on_event) as runtime:
            store: Any = runtime.store
            commit = store.commit

            async def busy(one: Commit) -> Any:
                if any(put.row.kind == "step" for put in one.puts) and not troubles:
                    raise StoreUnavailable("busy")
                return await commit(one)

            store.commit = busy
            begun.append("before")
            handle = await asyncio.wait_for(runtime.run(parent, id="p1"), 30)
            return await handle.result(timeout=0), troubles

    result, troubles = asyncio.run(main())
    assert result == ["one", "one"]
    assert troubles == ["busy"] or troubles == ["busy", "busy"]


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        async with Runtime(app, f"sqlite:///{tmp_path / 'shop.db'}") as runtime:
            await runtime.drive("nobody")

    with pytest.raises(NotFound, match="'nobody'"):
        asyncio.run(main())
