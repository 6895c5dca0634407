"""`everstep mcp`: the tools, and beside them whoever carries out what they start.

Over stdio the process lives as long as its client holds the other end, over HTTP until it is stopped. Either way it may
be killed at any time: runs are kept, and the next process, or any other that works on the store, goes on with them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import uvicorn
from rich.console import Console

from everstep.client import Client
from everstep.errors import InvalidArgument, PlatformError
from everstep.local import Runtime
from everstep.mcp import Tools, asgi, server
from everstep.mcp.stdio import Wire
from everstep.stores import open_store
from everstep.wakers.local import LocalWaker

from .serve import IDLE, EventLog, Server, listen, local_names
from .tools import token, until_stopped

__all__ = ["Wire", "serve"]


async def serve(
    tools: Tools,
    url: str,
    wire: Wire | None,
    host: str,
    port: int,
    console: Console,
    *,
    wait: float,
    work: bool,
    bash: bool,
    quiet: bool,
) -> int:
    """Serve one client over the wire, or everybody over HTTP until stopped. Raises CannotListen, InvalidArgument."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    listener = None if wire is not None else listen(host, port)
    async with _working(tools, url, console, work=work, bash=bash, quiet=quiet) as client:
        if wire is not None:
            if wire.by_hand:
                console.print("MCP on stdin and stdout, for a client that starts this; --http serves a port instead")
            await wire.serve(server(client, tools, wait=wait))
            return 0
        assert listener is not None
        site = asgi(client, tools, auth=token(), hosts=local_names(host), wait=wait)
        config = uvicorn.Config(
            site, log_level="warning", timeout_graceful_shutdown=1, timeout_keep_alive=IDLE, lifespan="on"
        )
        web = Server(config)
        shown = f"[{host}]" if ":" in host else host
        console.print(
            f"MCP on http://{shown}:{listener.getsockname()[1]}/mcp; Ctrl-C stops", style="bold", markup=False
        )
        if local_names(host) is None and token() is None:
            console.print("anyone who reaches this address can call the tools; set EVERSTEP_TOKEN", style="yellow")
        serving = asyncio.create_task(web.serve(sockets=[listener]))
        await until_stopped(asyncio.shield(serving))
        web.should_exit = True
        await site.close()
        await serving
    return 0


@contextlib.asynccontextmanager
async def _working(
    tools: Tools, url: str, console: Console, *, work: bool, bash: bool, quiet: bool
) -> AsyncIterator[Client]:
    """A client, and around it what carries runs out."""
    tasks: list[asyncio.Task[None]] = []
    async with contextlib.AsyncExitStack() as stack:
        store = open_store(url)
        if work and getattr(store, "waker", None) is None:
            log = None if quiet else EventLog(console)
            runtime = await stack.enter_async_context(Runtime(tools.app, store, on_event=log))
            client = runtime.client
            tasks.append(asyncio.create_task(_or_say(runtime.serve(), console)))
        else:
            make = getattr(store, "waker", None)
            client = Client(store, make() if make is not None else LocalWaker(), app=tools.app)
            stack.push_async_callback(client.close)
        if bash:
            from everstep.scripts import runner

            if tools.scripts is None:
                raise InvalidArgument("there is no group of scripts to run")
            tasks.append(asyncio.create_task(_or_say(runner(client, tools.scripts).serve(), console)))
        try:
            yield client
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _or_say(work: object, console: Console) -> None:
    """Tools go on to look and to start when nothing can be carried out here any longer."""
    try:
        await work  # type: ignore[misc]
    except PlatformError as error:
        console.print(f"nothing is carried out here any longer: {error}", style="red", markup=False)
