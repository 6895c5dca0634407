"""The workflows that are measured: as small as they can be, so that what is measured is ours."""

from __future__ import annotations

import asyncio

from everstep import App, Context

app = App("bench")


@app.step
async def charge(number: int, card: str) -> int:
    return number


@app.workflow
async def steps(ctx: Context, count: int) -> int:
    """A sequence of steps, to its end."""
    total = 0
    for number in range(count):
        total += await ctx.run(charge, number, "card-17")
    return total


@app.workflow
async def long(ctx: Context, count: int) -> int:
    """A sequence of steps, then one minute after the other."""
    total = 0
    for number in range(count):
        total += await ctx.run(charge, number, "card-17")
    while True:
        await ctx.sleep(60)


@app.workflow
async def countdown(ctx: Context, count: int) -> str:
    for left in range(count, 0, -1):
        await ctx.run(charge, left, "card-17")
        await ctx.sleep(600)
    return "done"


@app.workflow
async def nap(ctx: Context) -> None:
    while True:
        await ctx.sleep(86_400)


@app.workflow
async def kid(ctx: Context, number: int) -> int:
    return number


@app.workflow
async def fan(ctx: Context, count: int) -> int:
    """Remote children, all of them waited for."""
    return sum(await asyncio.gather(*[ctx.rpc(kid, number) for number in range(count)]))


@app.workflow
async def approvals(ctx: Context, count: int) -> int:
    """Promises that people settle, all of them waited for."""
    return len(await asyncio.gather(*[ctx.promise() for _ in range(count)]))
