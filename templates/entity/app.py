"""A shopping cart that lives: messages reach it from outside, it keeps its state, and goes away when left alone.

The entity is a run, its id is the entity's name, and its inbox is a row of promises, `<name>/in-1`, `<name>/in-2`, ...:
a message settles the next one, which exists before the message before it is handled, so there is always an address.
Every so many messages it starts over under its own id with its state, and its history stays short.
"""

from __future__ import annotations

import asyncio
from typing import Any

from everstep import AlreadySettled, App, Client, Context, NotFound, Retry

app = App("entity", retry=Retry(attempts=5, first=0.5))


@app.step
def note(customer: str, what: str) -> None:
    """Whatever has to be told of it: a search index, a page, a till."""
    print(f"{customer}: {what}", flush=True)


@app.workflow
async def cart(
    ctx: Context, customer: str, idle: float = 1800.0, number: int = 1, items: dict[str, int] | None = None
) -> dict[str, Any]:
    """Messages: `{"add": "book"}`, `{"remove": "book"}`, `{"check out": true}`."""
    held = dict(items or {})
    inbox = ctx.promise(id=f"{ctx.id}/in-{number}")
    for _ in range(100):
        try:
            async with asyncio.timeout(idle):
                message = await inbox
        except TimeoutError:
            await ctx.run(note, customer, "left the cart")
            return {"state": "abandoned", "items": held}
        number += 1
        inbox = ctx.promise(id=f"{ctx.id}/in-{number}")
        match message:
            case {"add": str(item)}:
                held[item] = held.get(item, 0) + 1
                await ctx.run(note, customer, f"added {item}")
            case {"remove": str(item)} if item in held:
                held[item] -= 1
                held = {name: count for name, count in held.items() if count}
                await ctx.run(note, customer, f"removed {item}")
            case {"check out": True}:
                inbox.cancel()
                await ctx.run(note, customer, "checks out")
                return {"state": "checked out", "items": held}
            case _:
                await ctx.run(note, customer, "sent something that is no message")
    return ctx.continue_as_new(customer, idle, number, held)  # type: ignore[no-any-return]


class Gone(Exception):
    """The cart was checked out or abandoned."""


async def send(client: Client, customer: str, key: str, message: dict[str, Any], idle: float = 1800.0) -> str:
    """Make sure that the cart is there, and give it a message; returns where the message went.

    Args:
        key: of the message: sent again under the same key it arrives once, and two equal messages need two.

    Raises Gone, and TimeoutError when nobody creates the cart's inbox, because nobody works on it.
    """
    cart_id = f"cart-{customer}"
    handle = await client.options(id=cart_id, on_conflict="attach").start(cart, customer, idle)
    number = 1
    async with asyncio.timeout(10):
        while await handle.status() == "pending":
            try:
                await client.resolve(f"{cart_id}/in-{number}", {**message, "key": key})
                return f"{cart_id}/in-{number}"
            except AlreadySettled:
                number += 1
            except NotFound:
                await asyncio.sleep(0.01)
    raise Gone(cart_id)
