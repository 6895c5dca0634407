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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import uvicorn
from rich.console import Console

from everstep.errors import UsageError
from everstep.http import Hub, Messenger, Rate, asgi
from everstep.local import Event, Runtime
from everstep.registry import App

from .words import clean, moment, without_password

if TYPE_CHECKING:
    from everstep.http import Bearer

GRACE = 3
"""Seconds that requests under way get when the server goes down; everything durable is durable already."""


IDLE = 75
"""Seconds that a connection may rest between two requests. It must be the client who ends it: one that picks a resting
connection from its pool just as the server closes it gets no answer, and cannot tell whether its request was carried
out. Pools let go after seconds (httpx 5, undici 4), a busy client's or a proxy's after up to a minute."""


class CannotListen(UsageError):
    """The address cannot be had; the message names it."""


class Server(uvicorn.Server):
    """Signals are ours: the runtime and the streams of the live page must end with the server."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass(frozen=True, slots=True)
class Door:
    """Who may come in; durations in seconds, sizes in bytes.

    Attributes:
        jwt: a file with a public key, a secret or a JWKS; "env" for the environment's EVERSTEP_JWT_KEY.
        origins: of pages elsewhere that may call this.
        rate: requests a second for each caller.
        push_to: what the address of a pushed message must begin with.
        public_url: under which workers reach this.
        workers: how many may pull.
    """

    jwt: str | None = None
    issuer: str | None = None
    audience: str | None = None
    origins: tuple[str, ...] = ()
    rate: float | None = None
    max_body: int = 1_000_000
    push_to: tuple[str, ...] = ()
    public_url: str | None = None
    workers: int = 1000
    debug: bool = False

    def auth(self) -> Bearer | str | None:
        """What asks for tokens. Raises InvalidArgument."""
        if self.jwt is None:
            return os.environ.get("EVERSTEP_TOKEN") or None
        from everstep.http import Bearer

        claims: dict[str, Any] = {"issuer": self.issuer, "audience": self.audience}
        return Bearer.from_environment(**claims) if self.jwt == "env" else Bearer.from_file(self.jwt, **claims)


OPEN = Door()


async def serve(app: App, url: str, host: str, port: int, console: Console, *, quiet: bool, door: Door = OPEN) -> int:
    """Serve until SIGINT or SIGTERM. Raises CannotListen, InvalidArgument."""
    auth = door.auth()
    listener = listen(host, port)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    log = None if quiet else EventLog(console)
    async with Runtime(app, url, on_event=log) as runtime:
        if log is not None:
            log.runtime = runtime
        bound = listener.getsockname()[1]
        messages = Messenger(
            Hub(door.workers),
            server_url=door.public_url or f"http://{_shown(host)}:{bound}",
            push_to=door.push_to or None,
            background=True,
        )
        site = asgi(
            runtime.client,
            app,
            auth=auth,
            secret=os.environ.get("EVERSTEP_SECRET") or None,
            max_body=door.max_body,
            hosts=local_names(host),
            messages=messages,
            origins=door.origins,
            rate=None if door.rate is None else Rate(door.rate, max(1, round(2 * door.rate))),
            debug=door.debug,
        )
        config = uvicorn.Config(
            site, log_level="warning", timeout_graceful_shutdown=GRACE, timeout_keep_alive=IDLE, lifespan="off"
        )
        server = Server(config)
        web = asyncio.create_task(server.serve(sockets=[listener]))
        work = asyncio.create_task(runtime.serve())
        stopping = asyncio.create_task(stop.wait())
        try:
            _announce(app, url, host, bound, console, guarded=auth is not None)
            await asyncio.wait([web, work, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            site.stop()
            server.should_exit = True
            work.cancel()
            stopping.cancel()
            await asyncio.wait([web, work])
            await messages.close()
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


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _announce(app: App, url: str, host: str, port: int, console: Console, *, guarded: bool) -> None:
    names = ", ".join(sorted(one.name for one in app.workflows)) or "none"
    console.print(f"Everstep serves {app.name} on http://{_shown(host)}:{port}/", style="bold", markup=False)
    console.print(
        f"store {clean(without_password(url))}, workflows: {clean(names)}; Ctrl-C stops",
        style="bright_black",
        markup=False,
    )
    if local_names(host) is None and not guarded:
        console.print(
            "anyone who reaches this address can start and settle runs; set EVERSTEP_TOKEN to ask for a token",
            style="yellow",
        )


class EventLog:
    """One line for what a person looks up from work for: ends, halts, trouble."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.runtime: Runtime | None = None
        self._put_off: dict[str, str] = {}

    def __call__(self, event: Event) -> None:
        if event.kind in ("settled", "halted"):
            self._put_off.pop(event.id, None)
        match event.kind:
            case "settled":
                ok = event.detail.get("state") == "resolved"
                text, style = ("done", "green") if ok else (_failure(event), "red")
            case "failed":
                text, style = f"{event.detail.get('name')} failed: {_failure(event)}", "yellow"
            case "halted":
                text, style = f"halted: {event.detail.get('reason')}", "magenta"
            case "trouble":
                text, style = str(event.detail.get("error")), "yellow"
            case "put off" if self._put_off.get(event.id) != (reason := str(event.detail.get("reason"))):
                # It is looked at again and again, perhaps for days: once is enough.
                self._put_off[event.id] = reason
                text, style = f"has to wait: {reason}", "yellow"
            case _:
                return
        self._console.print(f"{moment(event.at, event.at)} {clean(event.id)} {clean(text)}", style=style, markup=False)


def _failure(event: Event) -> str:
    detail = event.detail
    text = str(detail.get("error") or detail.get("state"))
    return f"{text} ({detail['place']})" if detail.get("place") else text
