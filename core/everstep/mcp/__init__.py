"""Workflows as tools of the Model Context Protocol, over stdio and HTTP.

A call starts a durable run and waits for a moment; what takes longer is answered with its id, and asked for again by
it, by this client or any other, of this server or its successor. The server keeps nothing: a run's id is made from the
tool and its arguments, so that the same call twice is one run.

The `mcp` package does the protocol and is imported by `server` and `asgi` alone; `Tools` and what goes into them are
plain declarations. Install the extra `mcp`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .tools import Await, Probe, Tool, Tools

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server

    from everstep.client import Client
    from everstep.registry import App

    from .site import Site

__all__ = ["Await", "Probe", "Tool", "Tools", "asgi", "server"]


def server(client: Client, tools: Tools | App, *, wait: float = 20.0, max_wait: float = 55.0) -> Server[Any]:
    """The tools as a server of the `mcp` package, for any of its transports.

    Args:
        client: of the store the runs are kept in; who carries them out is not this server's business.
        tools: what to offer; an App offers each of its workflows under its name.
        wait: seconds a call waits for its run before it answers with the id.
        max_wait: seconds a caller may ask for.

    Raises:
        InvalidArgument: two tools have one name, a template names no argument, or a limit is out of range.
    """
    from .serving import build

    return build(client, tools if isinstance(tools, Tools) else Tools(tools), wait, max_wait)


def asgi(
    client: Client,
    tools: Tools | App,
    *,
    path: str = "/mcp",
    auth: str | None = None,
    hosts: Sequence[str] | None = None,
    wait: float = 20.0,
    max_wait: float = 55.0,
) -> Site:
    """The same as an ASGI application of the streamable HTTP transport, without sessions: any instance can answer.

    Args:
        path: where it is served; mounted in another application, it begins below the mount.
        auth: a bearer token that callers must send; without it, everybody may call.
        hosts: the names it may be reached by, each with any port; a browser that was led here under another name is
            refused. Any name by default.

    Raises:
        InvalidArgument: as `server`, and for an empty token.
    """
    from .site import Site

    return Site(server(client, tools, wait=wait, max_wait=max_wait), path, auth, hosts)
