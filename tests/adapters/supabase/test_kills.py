"""A process dies at every database call in turn, before it and after it: every run ends, and nothing is doubled."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

from everstep import App, Context, Retry
from everstep.errors import AlreadySettled, NotFound
from tests.adapters.supabase.sim import Platform

pytestmark = pytest.mark.xdist_group("postgres")

ran: Counter[str] = Counter()
app = App("kills")


@app.step(retry=Retry(attempts=3, first=10))
def note(what: str, failures: int = 0) -> str:
    ran[what] += 1
    if ran[what] <= failures:
        raise ValueError("not yet")
    return what


@app.workflow
async def countdown(ctx: Context, n: int) -> list[str]:
    said = []
    for left in range(n, 0, -1):
        said.append(await ctx.run(note, str(left)))
        await ctx.sleep(60)
    return said


@app.workflow
async def approval(ctx: Context) -> list[object]:
    link = ctx.promise()
    sent = await ctx.run(note, "mail")
    return [sent, await link, await ctx.run(note, "done")]


@app.workflow
async def failing(ctx: Context) -> str:
    return await ctx.run(note, "fails", 1)


@app.workflow
async def leaf(ctx: Context, n: int) -> str:
    return await ctx.run(note, f"leaf {n}")


@app.workflow
async def fan(ctx: Context, count: int) -> list[str]:
    return list(await asyncio.gather(*[ctx.rpc(leaf, n) for n in range(count)]))


@app.workflow
async def race(ctx: Context) -> str:
    try:
        async with asyncio.timeout(60):
            await ctx.promise()
    except TimeoutError:
        return await ctx.run(note, "late")
    return "in time"


async def approve(platform: Platform) -> None:
    try:
        await platform.client.resolve("x.1", "yes")
    except (AlreadySettled, NotFound):  # it is not asked yet, or was answered before
        pass


CASES: dict[str, tuple[Any, tuple[Any, ...], Any, Callable[[Platform], Awaitable[None]] | None]] = {
    "countdown": (countdown, (2,), ["2", "1"], None),
    "approval": (approval, (), ["mail", "yes", "done"], approve),
    "failing": (failing, (), "fails", None),
    "fan": (fan, (2,), ["leaf 0", "leaf 1"], None),
    "race": (race, (), "late", None),
}


async def run(dsn: str, name: str, at: int | None, **options: Any) -> int:
    workflow, args, expected, act = CASES[name]
    ran.clear()
    platform = Platform(app, dsn, at, **options)
    try:
        await platform.client.start(workflow, *args, id="x")
        await platform.until_settled("x", act=act)
        assert await platform.client.handle("x").result(0) == expected
        assert (await platform.client.verify()).problems == []
        again = Counter(what for what, times in ran.items() if times > (2 if what == "fails" else 1))
        assert sum(again.values()) <= (0 if at is None else 1), (at, ran)
        return platform.store.calls
    finally:
        await platform.close()


@pytest.mark.parametrize("cache", [64, 0], ids=["warm", "cold"])
@pytest.mark.parametrize("name", CASES)
def test_killed_at_every_database_call(dsn: str, name: str, cache: int) -> None:
    async def scenario() -> None:
        calls = await run(dsn, name, None, cache=cache)
        assert calls > 4
        with psycopg.connect(dsn, autocommit=True) as connection:
            for point in range(2 * calls):
                connection.execute("truncate everstep.rows")
                await run(dsn, name, point, cache=cache)

    asyncio.run(scenario())


def test_killed_at_every_database_call_step_by_step(dsn: str) -> None:
    async def scenario() -> None:
        calls = await run(dsn, "countdown", None, steps_per_invocation=1)
        with psycopg.connect(dsn, autocommit=True) as connection:
            for point in range(2 * calls):
                connection.execute("truncate everstep.rows")
                await run(dsn, "countdown", point, steps_per_invocation=1)

    asyncio.run(scenario())
