"""Commands that act on a promise: resolve, reject, cancel, halt, continue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from everstep.views import PromiseView

from .options import DONE, WORK, asked, inspecting, parse

if TYPE_CHECKING:
    from everstep.client import Client


def _settled(client: Client, view: PromiseView, as_json: bool) -> int:
    from .show import console, line_of, print_json

    if as_json:
        print_json(view.to_dict())
    else:
        console(stderr=True).print(line_of(view, client.clock.now()))
    return DONE


@click.command("resolve", context_settings=WORK)
@click.argument("id")
@click.argument("value", required=False, type=click.UNPROCESSED)
@inspecting
def resolve(id: str, value: str | None, store: str, target: str | None, as_json: bool) -> int:
    """Give a promise its value.

    JSON where it parses, else a string; null by default.
    """

    async def work(client: Client) -> int:
        return _settled(client, await client.resolve(id, None if value is None else parse(value)), as_json)

    return asked(work, store, target)


@click.command("reject", context_settings=WORK)
@click.argument("id")
@click.argument("message", default="rejected by hand")
@click.option("--type", "kind", help="The exception's type, as the workflow knows it.")
@inspecting
def reject(id: str, message: str, kind: str | None, store: str, target: str | None, as_json: bool) -> int:
    """Give a promise an error."""

    async def work(client: Client) -> int:
        error = message if kind is None else {"type": kind, "message": message}
        return _settled(client, await client.reject(id, error), as_json)

    return asked(work, store, target)


@click.command("cancel")
@click.argument("id")
@inspecting
def cancel(id: str, store: str, target: str | None, as_json: bool) -> int:
    """Cancel a promise, and what it started."""

    async def work(client: Client) -> int:
        return _settled(client, await client.cancel(id), as_json)

    return asked(work, store, target)


@click.command("halt")
@click.argument("id")
@click.argument("reason", default="")
@inspecting
def halt(id: str, reason: str, store: str, target: str | None, as_json: bool) -> int:
    """Stop a run until it is continued."""

    async def work(client: Client) -> int:
        return _settled(client, await client.halt(id, reason), as_json)

    return asked(work, store, target)


@click.command("continue")
@click.argument("id")
@inspecting
def continue_(id: str, store: str, target: str | None, as_json: bool) -> int:
    """Let a halted run go on."""

    async def work(client: Client) -> int:
        return _settled(client, await client.continue_(id), as_json)

    return asked(work, store, target)
