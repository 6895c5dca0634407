"""What type checkers must infer: each `reveal_type` says on its line what it must be. Checked, never run."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from datetime import datetime, timedelta
from typing import Any, reveal_type

from everstep import App, Client, Context, Retry, SyncClient

app = App("shop")


class Mailer:
    def __call__(self, address: str) -> bytes:
        return address.encode()


@app.step
def charge(order: str, cents: int) -> str:
    return f"{order} {cents}"


@app.step(retry=Retry(attempts=3, give_up_on=(ValueError,)), name="send")
async def ship(order: str, *, fast: bool = False) -> int:
    return int(fast)


@app.workflow
async def order(ctx: Context, number: str, cents: int = 1) -> float:
    reveal_type(ctx.run(charge, "o", 1))  # DurableFuture[str]
    reveal_type(await ctx.run(charge, "o", 1))  # str
    reveal_type(await ctx.run(charge, order="o", cents=1))  # str
    reveal_type(await ctx.run(ship, "o", fast=True))  # int
    reveal_type(await ctx.run(chess, 1))  # list[str]
    reveal_type(await ctx.run(order, "a"))  # float
    reveal_type(await ctx.run(order, "a", cents=5))  # float
    reveal_type(await ctx.run(lambda: 5))  # int
    reveal_type(await ctx.run(Mailer(), "kim@example.com"))  # bytes
    reveal_type(await ctx.rpc(order, "a", 5))  # float
    reveal_type(await ctx.rpc(chess, game=5))  # list[str]
    reveal_type(await ctx.rpc(charge, "a", 5))  # str
    reveal_type(await ctx.rpc(ship, "a"))  # int
    reveal_type(await ctx.rpc("order", "a", 5))  # Any
    reveal_type(await ctx.options(id="x", timeout=5, retry=Retry()).run(ship, "o"))  # int
    reveal_type(await ctx.options(timeout=timedelta(days=1), tags={"a": "b"}).rpc(order, "o"))  # float
    reveal_type(await ctx.options(target="poll://gpu", version=2).rpc(chess, 2))  # list[str]
    reveal_type(await ctx.detached(order, "a"))  # str
    reveal_type(await ctx.sleep(5))  # None
    reveal_type(await ctx.sleep(timedelta(days=1)))  # None
    reveal_type(await ctx.sleep_until(ctx.now()))  # None
    reveal_type(ctx.promise(timeout=timedelta(days=30)).id)  # str
    reveal_type(await ctx.promise("named"))  # Any
    reveal_type(await asyncio.gather(ctx.run(charge, "o", 1), ctx.run(ship, "o")))  # tuple[str, int]
    reveal_type(await asyncio.wait_for(ctx.run(charge, "o", 1), 5))  # str
    reveal_type(await asyncio.shield(ctx.run(ship, "o")))  # int
    reveal_type([await one for one in [ctx.run(ship, "o")]])  # list[int]
    reveal_type(ctx.dependency(Mailer))  # Mailer
    reveal_type(ctx.now())  # datetime
    reveal_type(ctx.random())  # float
    reveal_type(ctx.uuid())  # UUID
    reveal_type(ctx.info.created_at)  # datetime
    return 1.0


@app.workflow(name="chess", version=2, timeout=5, retry=Retry(), retention=timedelta(days=7))
def chess(ctx: Context, game: int) -> Generator[Any, Any, list[str]]:
    move = yield ctx.run(charge, "a", 1)
    yield ctx.sleep(1)
    yield [ctx.run(ship, "a"), ctx.run(ship, "b")]
    yield ctx.detached(chess, game + 1)
    return [move]


@app.workflow
async def endless(ctx: Context, state: list[int]) -> int:
    if not state:
        return 0
    return ctx.continue_as_new(state[1:])


reveal_type(charge("o", 1))  # str
reveal_type(order.name)  # str
reveal_type(app.provide(Mailer()))  # Mailer


async def outside(client: Client, when: datetime) -> None:
    reveal_type(await client.start(order, "a", 1, id="x"))  # Handle[float]
    reveal_type(await client.start("order", "a", 1, id="x"))  # Handle[Any]
    reveal_type(await (await client.start(chess, 1)).result())  # list[str]
    reveal_type(await client.options(id="x", tags={"a": "b"}, on_conflict="attach").start(order, "a"))  # Handle[float]
    reveal_type(await (await client.options(id="x", timeout=5).start(chess, game=4)).result())  # list[str]
    reveal_type(await (await client.options().start(endless, [1])).result())  # int
    reveal_type(await client.options().start("order", 1, 2, 3))  # Handle[Any]
    reveal_type(await (await client.start(order, "a")).status())  # str


def outside_of_asyncio(client: SyncClient) -> None:
    reveal_type(client.start(order, "a", 1, id="x").result())  # float
    reveal_type(client.options(id="x").start(chess, 1).result())  # list[str]
