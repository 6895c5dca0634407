"""A worker of the official Python SDK, told by lines of JSON on its standard input what to do as a client.

`NOTES` names a file that gets one line for each body that really ran. `PUSH` makes it a worker with an address of its
own, to which messages are pushed, on `PORT` if there is one. It runs in an environment of its own, and imports nothing
of ours.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from aiohttp import web
from resonate.connections import HttpConnection
from resonate.context import Context
from resonate.resonate import Resonate
from resonate.retry import Never
from resonate.types import Value

ME = os.environ["PID_NAME"]
GROUP = os.environ["GROUP"]


class Pushed:
    """A source of messages: a small server of its own."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[str], None]] = []
        app = web.Application()
        app.router.add_post("/", self._receive)
        self._runner = web.AppRunner(app)

    async def listen(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", int(os.environ.get("PORT", "0"))).start()
        self._own = f"http://127.0.0.1:{self._runner.addresses[0][1]}/"

    async def _receive(self, request: web.Request) -> web.Response:
        said = await request.text()
        for callback in self._callbacks:
            callback(said)
        return web.Response()

    def unicast(self) -> str:
        return self._own

    def resolve_target(self, target: str) -> str:
        return self._own if target == GROUP else f"poll://any@{target}"

    def recv(self, callback: Callable[[str], None]) -> None:
        self._callbacks.append(callback)

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        await self._runner.cleanup()


def note(text: str) -> None:
    with open(os.environ["NOTES"], "a") as file:
        file.write(text + "\n")


async def shout(ctx: Context, text: str) -> str:
    note(f"shout {text}")
    return text.upper() + "!"


async def local(ctx: Context, name: str) -> list[str]:
    first = await ctx.run(shout, name)
    return [first, await ctx.run(shout, first)]


async def greet(ctx: Context, name: str) -> str:
    note(f"greet {name} by {ME}")
    return f"hello {name}"


async def remote(ctx: Context, name: str, target: str) -> str:
    return "got " + await ctx.options(target=target).rpc("greet", name)


async def nap(ctx: Context, seconds: float) -> str:
    await ctx.sleep(timedelta(seconds=seconds))
    return "rested"


async def mail(ctx: Context, question: str, id: str) -> None:
    note(f"mail {question} {id}")


async def ask(ctx: Context, question: str) -> str:
    answer = ctx.promise()
    await ctx.run(mail, question, await answer.id())
    return f"{question}: {await answer}"


async def chain(ctx: Context, n: int) -> str:
    if n == 0:
        return "end"
    return await ctx.options(target=GROUP).detached("chain", n - 1).id()


async def factorial(ctx: Context, n: int) -> int:
    note(f"factorial {n}")
    return 1 if n < 2 else n * await ctx.options(target=GROUP).rpc("factorial", n - 1)


async def tick(ctx: Context, step: int) -> None:
    note(f"tick {step} by {ME}")
    await asyncio.sleep(float(os.environ.get("PAUSE", "0")))


async def slow(ctx: Context, count: int) -> int:
    for step in range(count):
        await ctx.run(tick, step)
    return count


async def where(ctx: Context, what: int) -> str:
    note(f"where {what} by {ME}")
    await asyncio.sleep(0.02)
    return ME


async def across(ctx: Context, name: str, target: str, *args: Any) -> Any:
    try:
        return {"value": await ctx.options(target=target).rpc(name, *args)}
    except Exception as error:
        return {"error": str(error)}


async def refuse(ctx: Context, what: str) -> None:
    raise ValueError(f"no {what}")


async def main() -> None:
    ttl = timedelta(milliseconds=int(os.environ.get("TTL", "60000")))
    url, token = os.environ["GATEWAY"], os.environ.get("TOKEN")
    pushed = Pushed() if os.environ.get("PUSH") else None
    if pushed is None:
        resonate = Resonate(url=url, group=GROUP, pid=ME, ttl=ttl, token=token)
    else:
        await pushed.listen()
        network = HttpConnection(url, token)
        resonate = Resonate(network=network, sources=[pushed], group=GROUP, pid=ME, ttl=ttl, token=token)
    for fn in (local, remote, greet, nap, ask, chain, factorial, slow, where, across):
        resonate.register(fn)
    resonate.register(refuse, retry_policy=Never())
    schedules: dict[str, Any] = {}

    async def carry_out(op: str, id: str, name: str = "", args: Any = (), target: str = "", **rest: Any) -> Any:
        match op:
            case "run":
                return await resonate.run(id, name, *args).result()
            case "rpc":
                return await resonate.options(target=target or GROUP).rpc(id, name, *args).result()
            case "result":
                return await (await resonate.get(id)).result()
            case "resolve":
                await resonate.promises.resolve(id, Value(data=rest["value"]))
            case "schedule":
                schedules[id] = await resonate.options(target=GROUP).schedule(id, rest["cron"], name, list(args))
            case "unschedule":
                await schedules[id].delete()
            case "pause":
                await asyncio.sleep(0.01)

    async def answer(n: int, **command: Any) -> None:
        try:
            said = {"n": n, "value": await carry_out(**command)}
        except Exception as error:
            said = {"n": n, "error": str(error), "name": type(error).__name__}
        print(json.dumps(said), flush=True)

    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(json.dumps({"ready": ME, "address": pushed and pushed.unicast()}), flush=True)
    tasks = set()
    while line := await reader.readline():
        task = asyncio.create_task(answer(**json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await resonate.stop()


asyncio.run(main())
