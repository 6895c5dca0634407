"""Programs with an HTTP face: called in this process, or served by a process that can be killed.

A program's face is a function `site(client)` that gives an ASGI app.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from everstep import App, Client, Runtime
from tests.components import requires_component
from tests.systems.scaffold import ROOT

if TYPE_CHECKING:
    import httpx

Site = Callable[[Client], Any]


@asynccontextmanager
async def called(app: App, folder: Path, site: Site, *, works: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    """The routes, called in this process on `folder/store.db`; without `works` there is nobody who carries out runs."""
    requires_component("starlette", hint="pip install -e '.[dev]'")
    requires_component("httpx", hint="pip install -e '.[test]'")
    import httpx

    async with Runtime(app, f"sqlite:///{folder / 'store.db'}") as runtime:
        working = asyncio.create_task(runtime.serve()) if works else None
        transport = httpx.ASGITransport(app=site(runtime.client))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            try:
                yield http
            finally:
                if working is not None:
                    working.cancel()
                    await asyncio.gather(working, return_exceptions=True)


async def until(condition: Callable[[], Any]) -> None:
    """Until something outside has happened."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # it happens in another process, or another thread
            await asyncio.sleep(0.01)


async def settled(http: httpx.AsyncClient, address: str, state: str = "pending") -> dict[str, Any]:
    """What an address answers once its `state` is another one."""
    async with asyncio.timeout(30):
        while True:
            body: dict[str, Any] = (await http.get(address)).json()
            if body["state"] != state:
                return body
            await asyncio.sleep(0.01)


class Server:
    """A process that serves a program, and works on its runs unless told otherwise."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process = process
        self.url = f"http://127.0.0.1:{port}"

    def kill(self) -> None:
        """SIGKILL, now."""
        self._process.kill()
        self._process.wait()

    @property
    def killed(self) -> bool:
        """Whether it dies by itself, as it was told to, within half a minute."""
        return self._process.wait(timeout=30) == -signal.SIGKILL


@contextmanager
def server(
    program: str, folder: Path, *, works: bool = True, kill_at: tuple[str, int] | None = None
) -> Iterator[Server]:
    """Serve `program.site(client)` for `program.app` in a process of its own, which is killed in the end."""
    requires_component("uvicorn", hint="pip install -e '.[dev]'")
    order = {"program": program, "folder": str(folder), "works": works, "kill_at": kill_at}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.systems.web", json.dumps(order)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                errors.seek(0)
                raise AssertionError(errors.read())
            yield Server(process, int(line))
        finally:
            process.kill()
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]


async def _serve(order: dict[str, Any]) -> None:
    import importlib
    import socket

    import uvicorn

    from everstep.local import Event
    from tests.systems.scaffold import World

    program = importlib.import_module(order["program"])
    app: App = program.app
    folder = Path(order["folder"])
    app.provide(World(folder))
    if hasattr(program, "prepare"):
        program.prepare(folder)
    kill_at, seen = order["kill_at"], dict[str, int]()

    def on_event(event: Event) -> None:
        seen[event.kind] = seen.get(event.kind, 0) + 1
        if [event.kind, seen[event.kind]] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    async with Runtime(app, f"sqlite:///{folder / 'store.db'}", on_event=on_event) as runtime:
        working = asyncio.create_task(runtime.serve()) if order["works"] else None
        listener = socket.create_server(("127.0.0.1", 0))
        serving = uvicorn.Server(uvicorn.Config(program.site(runtime.client), log_level="warning", lifespan="off"))
        print(listener.getsockname()[1], flush=True)
        await serving.serve(sockets=[listener])
        if working is not None:
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working


def patiently(call: Callable[[], Any]) -> Any:
    """Call until there is an answer that is not None."""
    for _ in range(3000):
        answer = call()
        if answer is not None:
            return answer
        time.sleep(0.01)
    raise AssertionError("nothing came of it")


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.argv[1])))
