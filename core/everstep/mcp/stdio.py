"""Standard streams for the wire alone: nothing but JSON-RPC ever reaches stdout, whatever a workflow prints.

The descriptors are moved before anything of the user's is imported: stdout then leads to stderr and stdin to nothing,
for this process and its children, and the wire is known to nobody but the transport.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import Any

import anyio
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server


class Wire:
    """The standard streams, taken."""

    def __init__(self) -> None:
        self.by_hand = os.isatty(0)
        """A person is at the other end, and not a client."""
        sys.stdout.flush()
        self._in, self._out = os.dup(0), os.dup(1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)

    async def serve(self, server: Server[Any]) -> None:
        """Serve one client until it closes its end."""
        # A read that a thread is blocked in cannot be cancelled, and nothing is lost by dying in it.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        lines = io.TextIOWrapper(os.fdopen(self._in, "rb", closefd=False), encoding="utf-8", errors="replace")
        out = io.TextIOWrapper(os.fdopen(self._out, "wb", closefd=False), encoding="utf-8", newline="\n")
        async with stdio_server(anyio.wrap_file(lines), anyio.wrap_file(out)) as (read, write):
            await server.run(read, write, server.create_initialization_options())
