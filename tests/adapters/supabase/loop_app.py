"""The function of the real loop, in a process of its own that can be told to die at a database call."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import everstep_supabase
from everstep import App, Context, Retry
from everstep_supabase.connections import Connection
from everstep_supabase.store import PostgresStore

T = TypeVar("T")

app = App("loop")


@app.step(retry=Retry(attempts=3, first=0.2, factor=1))
def note(what: str, failures: int = 0) -> str:
    """Leave a line behind before anything else can go wrong, and fail as often as asked."""
    log = Path(os.environ["EVERSTEP_TEST_LOG"])
    with log.open("a") as file:
        file.write(f"{what}\n")
        file.flush()
        os.fsync(file.fileno())
    if log.read_text().splitlines().count(what) <= failures:
        raise ConnectionError("not yet")
    return what


@app.workflow
async def countdown(ctx: Context, n: int, pause: float = 0.05) -> list[str]:
    said = []
    for left in range(n, 0, -1):
        said.append(await ctx.run(note, f"{ctx.id} {left}"))
        await ctx.sleep(pause)
    return said


@app.workflow
async def approval(ctx: Context) -> object:
    link = ctx.promise()
    await ctx.run(note, f"{ctx.id} mail")
    return await link


@app.workflow
async def failing(ctx: Context) -> str:
    return await ctx.run(note, f"{ctx.id} fails", 2)


@app.workflow
async def leaf(ctx: Context, n: int) -> int:
    return n


@app.workflow
async def fan(ctx: Context, count: int) -> int:
    return sum(await asyncio.gather(*[ctx.rpc(leaf, n) for n in range(count)]))


@app.on("postgres", source="public.users", type="INSERT", id=lambda event: f"onboard-{event.data['id']}")
@app.workflow
async def onboard(ctx: Context, user: dict[str, Any]) -> str:
    for what in ("validate", "welcome", "crm"):
        await ctx.run(note, f"{ctx.id} {what}")
    return f"ws_{user['id']}"


class Mortal(PostgresStore):
    """SIGKILL at the n-th database call: before it where n is even, after it where n is odd."""

    calls = 0
    at = -1

    async def _on_connection(self, work: Callable[[Connection], Awaitable[T]], *, writing: bool) -> T:
        Mortal.calls += 1
        due = Mortal.calls == self.at
        if due and self.at % 2 == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        result = await super()._on_connection(work, writing=writing)
        if due:
            os.kill(os.getpid(), signal.SIGKILL)
        return result


def serve(listener: socket.socket, folder: Path) -> None:
    """Be the function, one process after the other: a fork has nothing to import, and dies where `die_at` says."""
    import uvicorn

    while True:
        plan = folder / "die_at"
        turns = plan.read_text().split() if plan.exists() else []
        plan.write_text(" ".join(turns[1:]))
        child = os.fork()
        if child == 0:
            Mortal.at = int(turns[0]) if turns else -1
            store = Mortal(os.environ["EVERSTEP_TEST_DSN"])
            handler = everstep_supabase.handler(app, store, auth="token", timeout=1.5)
            config = uvicorn.Config(handler, log_level="error", lifespan="off")
            uvicorn.Server(config).run(sockets=[listener])
            os._exit(0)
        (folder / "pid").write_text(str(child))
        os.waitpid(child, 0)
        with (folder / "deaths").open("a") as deaths:
            deaths.write("x")


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=512) as listener:
        serve(listener, Path(sys.argv[2]))
