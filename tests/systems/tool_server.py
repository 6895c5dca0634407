"""The real thing: `everstep mcp` in a process of its own, and the official client on its pipe or its port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from everstep import App
from tests.components import requires_component
from tests.systems.scaffold import ROOT, World

if TYPE_CHECKING:
    from mcp import Client

requires_component("mcp", hint="pip install 'everstep[mcp]'")

FOLDER = "EVERSTEP_TEST_FOLDER"
TRANSPORTS = ("stdio", "http")


def settle_in(app: App) -> None:
    """In a process that serves tools: give the App the world in its folder."""
    if folder := os.environ.get(FOLDER):
        app.provide(World(folder))


def command(program: str | None, folder: Path, *options: str) -> list[str]:
    named = [program] if program is not None else []
    store = f"sqlite:///{folder / 'store.db'}"
    return [sys.executable, "-m", "everstep.cli", "mcp", *named, "--store", store, *options]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), FOLDER: str(folder)}


@contextlib.contextmanager
def process(program: str | None, folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server over HTTP, and its address; killed by SIGKILL in the end."""
    child = subprocess.Popen(
        command(program, folder, "--http", "--port", "0", *options),
        cwd=ROOT,
        env=environment(folder),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    try:
        lines = []
        for line in child.stderr:
            lines.append(line)
            if line.startswith("MCP on "):
                yield child, line.split()[2].rstrip(";")
                return
        raise AssertionError("".join(lines))
    finally:
        child.kill()
        child.wait()
        child.stderr.close()


@contextlib.asynccontextmanager
async def connected(transport: str, program: str | None, folder: Path, *options: str) -> AsyncIterator[Client]:
    """A client of a fresh server, which dies with the session."""
    from mcp import Client, StdioServerParameters
    from mcp.client.stdio import stdio_client

    if transport == "http":
        with process(program, folder, *options) as (_, url):
            async with Client(url) as client:
                yield client
        return
    words = command(program, folder, *options)
    server = StdioServerParameters(command=words[0], args=words[1:], env=environment(folder), cwd=ROOT)
    # By default it is the stderr of the test in which `mcp` happened to be imported first, which may be none of a file.
    async with Client(stdio_client(server, errlog=sys.__stderr__ or sys.stderr)) as client:
        yield client


async def call(client: Client, tool: str, /, **arguments: Any) -> dict[str, Any]:
    """The structured answer of a tool that must not fail."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    return dict(result.structured_content)


async def settled(client: Client, tool: str, /, **arguments: Any) -> dict[str, Any]:
    """Ask until there is a value or an error."""
    while not {"value", "error"} & (found := await call(client, tool, **arguments)).keys():  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    return found


async def until(true: Callable[[], bool]) -> None:
    """Wait for something outside this process."""
    while not true():  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def refused(client: Client, tool: str, /, **arguments: Any) -> str:
    """What a tool that must fail says; one clean sentence, whatever happened behind it."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    (block,) = result.content
    assert "Traceback" not in block.text
    assert ".py" not in block.text
    said = str(result.structured_content["error"]["message"])
    assert block.text.startswith(said)
    return said


async def dies_in(transport: str, program: str | None, folder: Path, *calls: tuple[str, dict[str, Any]]) -> None:
    """Call tools of a fresh server that dies in one of them. How a client tells that is its own business."""
    survived = True
    try:
        async with connected(transport, program, folder) as client:
            for tool, arguments in calls:
                await client.call_tool(tool, arguments)
    except* Exception:
        survived = False
    assert not survived
