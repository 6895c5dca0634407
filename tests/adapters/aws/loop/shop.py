"""The function behind the gateway tests: a workflow for official Resonate SDKs to call, and one that calls them."""

from __future__ import annotations

import everstep_aws
from everstep import App, Context

app = App("shop")


@app.step
def price(item: str) -> int:
    return len(item) * 100


@app.workflow
async def quote(ctx: Context, item: str, count: int = 1) -> dict[str, object]:
    return {"item": item, "cents": count * await ctx.run(price, item)}


@app.workflow
async def calls(ctx: Context, target: str, name: str, *args: object) -> object:
    return await ctx.options(target=target).rpc(name, *args)


handler = everstep_aws.handler(app)
