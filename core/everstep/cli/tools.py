"""Commands for machines that ask and machines that do: mcp, bash."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
from typing import TYPE_CHECKING

import click

from .loading import load_app, load_tools
from .options import DONE, common, inspecting, opened, pairs, store_option

if TYPE_CHECKING:
    from rich.console import Console

    from everstep.mcp import Tools


@click.command("mcp")
@click.argument("target", metavar="[MODULE:APP]", required=False)
@click.option("--http", is_flag=True, help="Serve HTTP, at /mcp, instead of stdin and stdout.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8002, show_default=True, help="0 takes a free one.")
@click.option("--wait", type=click.FloatRange(0, 55), default=20, show_default=True, metavar="SECONDS",
              help="A call waits so long for its run, then answers with the id.")  # fmt: skip
@click.option("--work/--no-work", default=True, help="Carry runs out in this process too.")
@click.option("--bash", is_flag=True, help="Offer run_script, and run what it is given here. Any program, as you.")
@click.option("--quiet", is_flag=True, help="Do not tell what runs do.")
@store_option
@common
def mcp(
    target: str | None,
    http: bool,
    host: str,
    port: int,
    wait: float,
    work: bool,
    bash: bool,
    quiet: bool,
    store: str,
    as_json: bool,
) -> int:
    """Offer workflows as tools over the Model Context Protocol.

    MODULE:APP names an App, or an everstep.mcp.Tools. Without --work, a process elsewhere runs what is started here.
    Over HTTP, EVERSTEP_TOKEN asks callers for a bearer token. Logs go to stderr.
    """
    if target is None and not bash:
        raise click.UsageError("name an App to offer, or --bash, or both")
    try:
        from .mcp import Wire, serve
    except ImportError as error:
        raise click.ClickException(f"everstep mcp needs {error.name}: pip install 'everstep[mcp]'") from error
    from .show import console

    # Before the user's module is imported, which may print.
    wire = None if http else Wire()
    log = console(stderr=True)
    return asyncio.run(
        serve(_tools(target, bash), store, wire, host, port, log, wait=wait, work=work, bash=bash, quiet=quiet)
    )


def _tools(target: str | None, bash: bool) -> Tools:
    from everstep.mcp.tools import Tools
    from everstep.registry import App

    found = load_tools(target) if target is not None else App("scripts")
    tools = found if isinstance(found, Tools) else Tools(found)
    if bash and tools.scripts is None:
        tools.scripts = ""
    return tools


@click.command("bash")
@click.option("--group", multiple=True, default=("",), help="Run what is addressed to bash://GROUP. Repeatable.")
@click.option("--command", metavar="WORDS", help="Instead of '/bin/bash {file}'; may name {folder} too.")
@click.option("--concurrency", type=click.IntRange(1, 1000), default=4, show_default=True)
@click.option("--seconds", type=click.FloatRange(min=0.1), default=3600, show_default=True, help="For one script.")
@click.option("--memory", type=click.IntRange(1), metavar="MIB", help="Of address space, for each process.")
@click.option("--cpu-seconds", type=click.IntRange(1), metavar="SECONDS")
@click.option("--lease", type=click.FloatRange(min=0.1), default=15, show_default=True, metavar="SECONDS",
              help="Another runner takes over from a dead one after so long.")  # fmt: skip
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="Added to the environment of scripts.")
@inspecting
def bash(
    group: tuple[str, ...],
    command: str | None,
    concurrency: int,
    seconds: float,
    memory: int | None,
    cpu_seconds: int | None,
    lease: float,
    env: tuple[str, ...],
    store: str,
    target: str | None,
    as_json: bool,
) -> int:
    """Run the scripts that are addressed to this machine.

    The limits keep an honest script in bounds and are no wall against a hostile one: name a container in --command.
    """
    from everstep.scripts import Shell, runner

    from .show import console

    app = load_app(target) if target is not None else None
    shell = Shell(
        ("/bin/bash", "{file}") if command is None else tuple(shlex.split(command)),
        seconds=seconds,
        memory=None if memory is None else memory * 1024 * 1024,
        cpu_seconds=cpu_seconds,
        env=pairs(env, "--env", json_values=False),
    )

    async def work(log: Console) -> int:
        async with opened(store, app, create=True) as client:
            puller = runner(client, *group, shell=shell, concurrency=concurrency, lease=round(lease * 1000))
            log.print(f"runs scripts for {', '.join(puller.targets)}; Ctrl-C stops", markup=False)
            await until_stopped(puller.serve())
        log.print("stopped; what was under way goes to another runner", style="bright_black")
        return DONE

    return asyncio.run(work(console(stderr=True)))


async def until_stopped(*work: object) -> None:
    """Let these coroutines work until one fails, or SIGINT or SIGTERM comes."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    stopping = asyncio.create_task(stop.wait())
    tasks = [asyncio.ensure_future(one) for one in work]  # type: ignore[call-overload]
    await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in (stopping, *tasks):
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            raise error
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(stopping, *tasks)


def token() -> str | None:
    """What EVERSTEP_TOKEN asks callers for."""
    return os.environ.get("EVERSTEP_TOKEN") or None
