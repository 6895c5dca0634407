"""What type checkers must reject: every line marked with `!` is an error, and no other line is. Checked, never run."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from everstep import App, Client, Context, Retry, SyncClient

app = App("shop")


@app.step
def charge(order: str, cents: int) -> str:
    return f"{order} {cents}"


@app.step
async def ship(order: str, *, fast: bool = False) -> int:
    return int(fast)


@app.workflow
async def order(ctx: Context, number: str, cents: int = 1) -> float:
    return 1.0


@app.workflow(name="chess")
def chess(ctx: Context, game: int) -> Generator[Any, Any, list[str]]:
    yield ctx.sleep(1)
    return []


async def inside(ctx: Context) -> None:
    ctx.run(charge, "o")  # !
    ctx.run(charge, "o", "x")  # !
    ctx.run(charge, "o", 1, 2)  # !
    ctx.run(charge, order="o", centz=1)  # !
    ctx.run(ship, "o", True)  # !
    ctx.run(order, 5)  # !
    ctx.run(order)  # !
    ctx.run(chess, "x")  # !
    ctx.run("charge", 1)  # !
    ctx.run(17)  # !
    ctx.run(ship("o"))  # !
    ctx.rpc(order, 5)  # !
    ctx.rpc(chess, 1, 2)  # !
    ctx.rpc(charge, 1)  # !
    ctx.rpc(17)  # !
    ctx.detached(17)  # !
    ctx.options(id="x").run(charge, 5)  # !
    ctx.options(target="x").rpc(order)  # !
    ctx.options(timeouts=5)  # !
    ctx.options(retry=5)  # !
    ctx.options(id=5)  # !
    ctx.sleep("5")  # !
    ctx.sleep_until("tomorrow")  # !
    ctx.promise(timeout="long")  # !
    number: int = await ctx.run(charge, "o", 1)  # !
    text: str = await ctx.rpc(chess, 1)  # !
    ctx.run(charge, "o", await ctx.run(ship, "o"))
    ctx.run(ship, await ctx.run(charge, "o", number), fast=bool(text))


async def outside(client: Client) -> None:
    await client.options(id="x").start(order, 5)  # !
    await client.options(id="x").start(order)  # !
    await client.options(id="x").start(order, "a", cents="b")  # !
    await client.options(id="x").start(order, "a", 1, 2)  # !
    await client.options(id="x").start(charge, "a", 1)  # !
    await client.options(on_conflict="ignore").start(order, "a")  # !
    await client.options(idd="x").start(order, "a")  # !
    await client.start(17)  # !
    await client.start(charge, "a", 1)  # !
    text: str = await (await client.start(order, "a")).result()  # !
    await client.start(order, text)


def outside_of_asyncio(client: SyncClient) -> None:
    client.options(id="x").start(order, 5)  # !
    client.options(id="x").start(chess)  # !


@app.workflow  # !
async def without_context(number: str) -> str:
    return number


@app.workflow  # !
def without_waiting(ctx: Context) -> int:
    return 5


@app.workflow(versions=3)  # !
async def misspelt(ctx: Context) -> int:
    return 5


@app.step(retry=3)  # !
def impatient() -> None: ...


Retry(attempt=3)  # !
App("shop", retry=5)  # !
