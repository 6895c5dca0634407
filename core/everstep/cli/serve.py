"""`everstep dev`: the embedded runtime, the HTTP API and the live page in one process."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import signal
import socket
from collections.abc import Iterator

import uvicorn
from rich.console import Console

from everstep.errors import UsageError
from everstep.http import asgi
from everstep.local import Event, Runtime
from everstep.registry import App

from .words import clean, moment

GRACE = 3
"""Seconds that requests under way get when the server goes down; everything durable is durable already."""


class CannotListen(UsageError):
    """The address cannot be had; the message names it."""


class Server(uvicorn.Server):
    """Signals are ours: the runtime and the streams of the live page must end with the server."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(app: App, url: str, host: str, port: int, console: Console, *, quiet: bool) -> int:
    """Serve until SIGINT or SIGTERM. Raises CannotListen."""
    listener = listen(host, port)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    log = None if quiet else EventLog(console)
    async with Runtime(app, url, on_event=log) as runtime:
        if log is not None:
            log.runtime = runtime
        site = asgi(
            runtime.client,
            app,
            auth=os.environ.get("EVERSTEP_TOKEN") or None,
            secret=os.environ.get("EVERSTEP_SECRET") or None,
            hosts=local_names(host),
        )
        config = uvicorn.Config(site, log_level="warning", timeout_graceful_shutdown=GRACE, lifespan="off")
        server = Server(config)
        web = asyncio.create_task(server.serve(sockets=[listener]))
        work = asyncio.create_task(runtime.serve())
        stopping = asyncio.create_task(stop.wait())
        try:
            _announce(app, url, host, listener.getsockname()[1], console)
            await asyncio.wait([web, work, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            site.stop()
            server.should_exit = True
            work.cancel()
            stopping.cancel()
            await asyncio.wait([web, work])
        for task in (web, work):
            if not task.cancelled() and task.exception() is not None:
                raise task.exception()  # type: ignore[misc]
    console.print("stopped; every run is kept", style="bright_black")
    return 0


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises CannotListen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CannotListen(f"port {port} is taken; choose another with --port") from None
        raise CannotListen(f"cannot listen on {host}:{port}: {error.strerror or error}") from None


def local_names(host: str) -> tuple[str, ...] | None:
    """On this machine alone, only its own names are served: a page of another site cannot pose as one of them."""
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    return ("localhost", "127.0.0.1", "::1", host) if local else None


def _announce(app: App, url: str, host: str, port: int, console: Console) -> None:
    shown = f"[{host}]" if ":" in host else host
    names = ", ".join(sorted(one.name for one in app.workflows)) or "none"
    console.print(f"Everstep serves {app.name} on http://{shown}:{port}/", style="bold", markup=False)
    console.print(f"store {clean(url)}, workflows: {clean(names)}; Ctrl-C stops", style="bright_black", markup=False)
    if local_names(host) is None and not os.environ.get("EVERSTEP_TOKEN"):
        console.print(
            "anyone who reaches this address can start and settle runs; set EVERSTEP_TOKEN to ask for a token",
            style="yellow",
        )


class EventLog:
    """One line for what a person looks up from work for: ends, halts, trouble."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.runtime: Runtime | None = None

    def __call__(self, event: Event) -> None:
        match event.kind:
            case "settled":
                ok = event.detail.get("state") == "resolved"
                text, style = ("done", "green") if ok else (str(event.detail.get("state")), "red")
            case "failed":
                text, style = f"{event.detail.get('name')} failed: {event.detail.get('error')}", "yellow"
            case "halted":
                text, style = f"halted: {event.detail.get('reason')}", "magenta"
            case "trouble":
                text, style = str(event.detail.get("error")), "yellow"
            case _:
                return
        self._console.print(f"{moment(event.at, event.at)} {clean(event.id)} {clean(text)}", style=style, markup=False)
