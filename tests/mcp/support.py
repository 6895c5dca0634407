"""A server over a store in memory and the official client, in one process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from everstep import App, Runtime
from tests.components import requires_component

requires_component("mcp", hint="pip install 'everstep[mcp]'")

from everstep.mcp import Tools, server  # noqa: E402

if TYPE_CHECKING:
    from mcp import Client


@contextlib.asynccontextmanager
async def desk(tools: Tools | App, **options: Any) -> AsyncIterator[tuple[Client, Runtime]]:
    """A client of the tools, and the runtime that carries out what they start."""
    from mcp import Client

    app = tools.app if isinstance(tools, Tools) else tools
    async with Runtime(app, "memory:") as runtime:
        work = asyncio.create_task(runtime.serve())
        try:
            async with Client(server(runtime.client, tools, **options)) as client:
                yield client, runtime
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)


def at_desk(tools: Tools | App, talk: Callable[[Client, Runtime], Awaitable[Any]], **options: Any) -> Any:
    """Run a conversation to its end."""

    async def run() -> Any:
        async with desk(tools, **options) as (client, runtime):
            return await talk(client, runtime)

    return asyncio.run(run())


async def said(client: Client, tool: str, /, **arguments: Any) -> tuple[bool, dict[str, Any]]:
    """Whether the answer is an error, and what it holds."""
    result = await client.call_tool(tool, arguments)
    return bool(result.is_error), dict(result.structured_content)


async def asking(client: Client, tool: str, /, **arguments: Any) -> dict[str, Any]:
    """Start a run and see it to where it waits for somebody, however long it takes on a busy machine."""
    _, data = await said(client, tool, **arguments, wait_seconds=0)
    while not data.get("open"):
        await asyncio.sleep(0.01)
        _, data = await said(client, "get_run", id=data["id"])
    return data
