"""Commands that make, start and carry out: new, dev, run, start, schedule."""

from __future__ import annotations

import asyncio
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .loading import load_app
from .options import DEFAULT_STORE, DONE, WORK, Work, asked, common, opened, pairs, parse, sayable, store_option

if TYPE_CHECKING:
    from everstep.client import Client


@click.command("new")
@click.argument("template", required=False)
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option(
    "--platform",
    type=click.Choice(["local", "aws", "gcp", "supabase", "cloudflare"]),
    default="local",
    show_default=True,
    help="What to deploy it to: adds the files for that.",
)
@click.option("--list", "listing", is_flag=True, help="Say what there is.")
@common
def new(template: str | None, folder: Path | None, platform: str, listing: bool, as_json: bool) -> int:
    """Make a folder from a template: everstep new countdown my-app."""
    from .new import create, templates
    from .show import console, print_json

    if listing:
        found = list(templates().values())
        if as_json:
            print_json([{"name": one.name, "about": one.about, "platforms": one.platforms} for one in found])
        else:
            for one in found:
                console().print(f"[bold]{one.name}[/]  {one.about} ({', '.join(one.platforms)})")
        return DONE
    if template is None or folder is None:
        raise click.UsageError("name a template and a folder, or ask for --list")
    files = create(template, folder, platform)
    if as_json:
        print_json({"folder": str(folder), "files": [str(path.relative_to(folder)) for path in files]})
    else:
        console(stderr=True).print(f"{folder}: {len(files)} files; README.md says how to go on", markup=False)
    return DONE


@click.command("dev")
@click.argument("target", metavar="MODULE:APP")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8001, show_default=True, help="0 takes a free one.")
@click.option("--quiet", is_flag=True, help="Do not tell what runs do.")
@click.option(
    "--jwt",
    metavar="FILE",
    help="Ask for JSON Web Tokens: a public key, a secret or a JWKS; env: the key in EVERSTEP_JWT_KEY.",
)
@click.option("--issuer", metavar="TEXT", help="What the iss claim must be.")
@click.option("--audience", metavar="TEXT", help="What the aud claim must hold.")
@click.option("--origin", "origins", multiple=True, metavar="URL", help="Of pages elsewhere that may call this (CORS).")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), metavar="N", help="Requests a second for each caller."
)
@click.option("--max-body", type=click.IntRange(min=1), default=1_000_000, show_default=True, metavar="BYTES")
@click.option(
    "--push-to", multiple=True, metavar="URL", help="Push messages to addresses that begin so, and no others."
)
@click.option("--public-url", metavar="URL", help="Under which workers that are pushed to reach this.")
@click.option("--workers", type=click.IntRange(min=0), default=1000, show_default=True, help="That may pull at a time.")
@click.option("--debug-requests", is_flag=True, help="Let an administrator's token send the protocol's debug requests.")
@store_option
@common
def dev(
    target: str, host: str, port: int, quiet: bool, store: str, as_json: bool, debug_requests: bool, **door: Any
) -> int:
    """Run workflows, the HTTP API and the live page.

    All in one process, with the gateway for Resonate SDKs.

    EVERSTEP_TOKEN asks callers for a bearer token; EVERSTEP_SECRET signs the links under /approve/.
    """
    try:
        from .serve import Door, serve
    except ImportError as error:
        raise click.ClickException(f"everstep dev needs {error.name}: pip install 'everstep[dev]'") from error
    from .show import console

    guard = Door(debug=debug_requests, **door)
    return asyncio.run(serve(load_app(target), store, host, port, console(stderr=True), quiet=quiet, door=guard))


@click.command("run", cls=Work, context_settings=WORK)
@click.argument("target", metavar="MODULE:APP")
@click.argument("workflow")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--id", help="Of the run: give the same one to resume it.")
@click.option("-k", "--keyword", multiple=True, metavar="NAME=VALUE", help="A keyword argument; repeatable.")
@click.option("--tag", multiple=True, metavar="NAME=VALUE", help="To find it by; repeatable.")
@click.option("--attach", is_flag=True, help="Take the run of that id whatever its arguments are.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Stop working on it after so long.")
@click.option("--each-step", is_flag=True, help="Make every checkpoint an invocation of its own.")
@click.option("--quiet", is_flag=True, help="Do not tell what it does.")
@store_option
@common
def run_command(
    target: str,
    workflow: str,
    arguments: tuple[str, ...],
    id: str | None,
    keyword: tuple[str, ...],
    tag: tuple[str, ...],
    attach: bool,
    timeout: float | None,
    each_step: bool,
    quiet: bool,
    store: str,
    as_json: bool,
) -> int:
    """Run a workflow to its end in this process.

    Run it again with the same --id, and it resumes.

    Each argument is JSON where it parses, else a string. The result is JSON on stdout, the rest goes to stderr.
    """
    from .running import run
    from .show import console

    app = load_app(target)
    kwargs, tags = pairs(keyword, "--keyword", json_values=True), pairs(tag, "--tag", json_values=False)
    again = ["everstep", "run", target, workflow, *map(sayable, arguments)]
    for name in keyword:
        again += ["-k", name]
    if store != DEFAULT_STORE and "EVERSTEP_STORE" not in os.environ:
        again += ["--store", store]
    return asyncio.run(
        run(
            app,
            store,
            workflow,
            [parse(text) for text in arguments],
            kwargs,
            id=id,
            tags=tags,
            attach=attach,
            timeout=timeout,
            each_step=each_step,
            as_json=as_json,
            quiet=quiet,
            console=console(stderr=True),
            again=shlex.join(again),
        )
    )


@click.command("start", cls=Work, context_settings=WORK)
@click.argument("target", metavar="MODULE:APP")
@click.argument("workflow")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--id", help="Of the run.")
@click.option("-k", "--keyword", multiple=True, metavar="NAME=VALUE", help="A keyword argument; repeatable.")
@click.option("--tag", multiple=True, metavar="NAME=VALUE", help="To find it by; repeatable.")
@click.option("--attach", is_flag=True, help="Take the run of that id whatever its arguments are.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Its deadline; none by default.")
@store_option
@common
def start(
    target: str,
    workflow: str,
    arguments: tuple[str, ...],
    id: str | None,
    keyword: tuple[str, ...],
    tag: tuple[str, ...],
    attach: bool,
    timeout: float | None,
    store: str,
    as_json: bool,
) -> int:
    """Start a workflow and do not wait.

    A process that runs the app carries it out.
    """
    from .show import print_json

    app = load_app(target)
    kwargs, tags = pairs(keyword, "--keyword", json_values=True), pairs(tag, "--tag", json_values=False)

    async def work() -> int:
        async with opened(store, app, create=True) as client:
            starter = client.options(
                id=id, timeout=timeout, tags=tags or None, on_conflict="attach" if attach else "raise"
            )
            handle = await starter.start(workflow, *[parse(text) for text in arguments], **kwargs)
            if as_json:
                print_json({"id": handle.id})
            else:
                click.echo(handle.id)
            return DONE

    return asyncio.run(work())


@click.group("schedule", no_args_is_help=True)
def schedule() -> None:
    """Start workflows by a cron expression."""


@schedule.command("add", cls=Work, context_settings=WORK)
@click.argument("id")
@click.argument("cron")
@click.argument("target", metavar="MODULE:APP")
@click.argument("workflow")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("-k", "--keyword", multiple=True, metavar="NAME=VALUE", help="A keyword argument; repeatable.")
@click.option("--timezone", help="Of the cron expression, such as Europe/Berlin; UTC by default.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="The deadline of each run.")
@click.option("--tag", multiple=True, metavar="NAME=VALUE", help="To find it by; repeatable.")
@store_option
@common
def schedule_add(
    id: str,
    cron: str,
    target: str,
    workflow: str,
    arguments: tuple[str, ...],
    keyword: tuple[str, ...],
    timezone: str | None,
    timeout: float | None,
    tag: tuple[str, ...],
    store: str,
    as_json: bool,
) -> int:
    """everstep schedule add nightly "0 3 * * *" app:app report sales."""
    from .show import print_json
    from .words import clean

    app = load_app(target)
    app.find(workflow)

    async def work() -> int:
        async with opened(store, app, create=True) as client:
            stood = any(one["id"] == id for one in await client.schedules())
            made = await client.schedule(
                id,
                cron,
                workflow,
                *[parse(text) for text in arguments],
                timezone=timezone,
                timeout=timeout,
                tags=pairs(tag, "--tag", json_values=False) or None,
                **pairs(keyword, "--keyword", json_values=True),
            )
            if as_json:
                print_json(made)
            else:
                click.echo(f"{clean(id)}{' already exists' if stood else ''}: next run {made['next_run']}")
            return DONE

    return asyncio.run(work())


@schedule.command("list")
@store_option
@common
def schedule_list(store: str, as_json: bool) -> int:
    """Every schedule."""
    from rich.table import Table
    from rich.text import Text

    from .show import console, print_json
    from .words import clean

    async def work(client: Client) -> int:
        found = await client.schedules()
        if as_json:
            print_json({"schedules": found})
            return DONE
        if not found:
            console(stderr=True).print("no schedules yet")
            return DONE
        table = Table("id", "workflow", "cron", "time zone", "next run", box=None, pad_edge=False)
        for one in found:
            texts = (one[key] for key in ("id", "workflow", "cron", "timezone", "next_run"))
            table.add_row(*(Text(clean(text)) for text in texts))
        console().print(table)
        return DONE

    return asked(work, store)


@schedule.command("rm")
@click.argument("id")
@store_option
@common
def schedule_remove(id: str, store: str, as_json: bool) -> int:
    """Remove a schedule; runs it started go on."""

    async def work(client: Client) -> int:
        await client.unschedule(id)
        return DONE

    return asked(work, store)
