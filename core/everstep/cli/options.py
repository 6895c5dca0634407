"""What commands share: options, arguments that are JSON, a client for the time of one command."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import json
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import click

from everstep.errors import NotFound

from .loading import load_app

if TYPE_CHECKING:
    from everstep.client import Client
    from everstep.registry import App

DONE, FAILED, USAGE, PENDING = 0, 1, 2, 3
DEFAULT_STORE = "sqlite:///everstep.db"
WORK = {"ignore_unknown_options": True}
"""A negative number is an argument of a workflow, not an option."""

Command = Callable[..., Any]


class Work(click.Command):
    """A command with a workflow's arguments: what begins like an option and is none was mistyped, and is no argument.

    A text that begins so is written as JSON, or after `--`.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first, after = _split(args)
        rest = super().parse_args(ctx, args)
        taken = [ctx.params.get(name) or () for name in ("target", "workflow", "arguments")]
        for text in (one for value in taken for one in ([value] if isinstance(value, str) else value)):
            if text in first and text not in after and sayable(text) != text:
                name = text.partition("=")[0]
                known = [one for option in self.get_params(ctx) for one in option.opts if one.startswith("--")]
                raise click.NoSuchOption(name, possibilities=difflib.get_close_matches(name, known), ctx=ctx)
        return rest


def _split(args: list[str]) -> tuple[list[str], list[str]]:
    at = args.index("--") if "--" in args else len(args)
    return args[:at], args[at + 1 :]


def sayable(text: str) -> str:
    """A workflow's argument as it can be given without `--`: a text that looks like an option becomes JSON."""
    return json.dumps(text) if text.startswith("-") and parse(text) == text else text


def parse(text: str) -> Any:
    """JSON where it parses, else the text itself."""
    try:
        return json.loads(text, parse_constant=_not_json)
    except (ValueError, RecursionError):
        return text


def _not_json(name: str) -> Any:
    raise ValueError(name)


def pairs(texts: Sequence[str], what: str, *, json_values: bool) -> dict[str, Any]:
    """`name=value`, repeated."""
    found: dict[str, Any] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise click.BadParameter(f"{text!r} is not name=value", param_hint=what)
        found[name] = parse(value) if json_values else value
    return found


def store_option(command: Command) -> Command:
    return click.option(
        "--store",
        metavar="URL",
        envvar="EVERSTEP_STORE",
        default=DEFAULT_STORE,
        show_default=True,
        help="Where runs are kept.",
    )(command)


def common(command: Command) -> Command:
    """Options that every command has."""
    command = click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")(command)
    return click.option("--json", "as_json", is_flag=True, help="For machines.")(command)


def inspecting(command: Command) -> Command:
    """Options of a command that looks at a store, or settles something in it."""
    command = click.option(
        "--app", "target", metavar="MODULE:APP", help="Whose codec reads the values, where they are encrypted."
    )(command)
    return store_option(common(command))


@contextlib.asynccontextmanager
async def opened(url: str, app: App | None = None, *, create: bool = False) -> AsyncIterator[Client]:
    """A client of the store. A file that is not there is an error, unless the command is one that makes it."""
    from everstep.client import Client

    if not create:
        _must_exist(url)
    client = Client.open(url, app=app)
    try:
        yield client
    finally:
        await client.close()


def _must_exist(url: str) -> None:
    path = url.partition("?")[0].removeprefix("sqlite:///")
    if url.startswith("sqlite:///") and not os.path.exists(path):
        raise NotFound(f"there is no store at {path}; name another one with --store, or start something first")


def asked(work: Callable[[Client], Coroutine[Any, Any, int]], url: str, target: str | None = None) -> int:
    """Carry out `work` with a client, to the end."""
    app = load_app(target) if target is not None else None

    async def ask() -> int:
        async with opened(url, app) as client:
            return await work(client)

    return asyncio.run(ask())
