"""The function of the loop tests: workflows of every shape, and a process that can be killed at any call it makes.

Where `DEATHS` names a folder, the process is killed on behalf of a run at the call its number says: the one that works
for `k12` at the twelfth call that was made for `k12`, in whatever process. A call counts twice: before it is made, and
after it was answered.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from string import ascii_letters
from typing import Any

import everstep_aws
from everstep import App, Context, Retry, current_step
from everstep_aws import waker
from everstep_aws.calls import Caller

app = App("loop", max_deaths=int(os.environ.get("MAX_DEATHS", "5")))
DEATHS = os.environ.get("DEATHS")
working_for = ""
SHORT = float(os.environ.get("SHORT_DELAYS", "0"))
if space := os.environ.get("ADDRESS_SPACE"):
    resource.setrlimit(resource.RLIMIT_AS, (int(space) << 20, int(space) << 20))
if SHORT:
    waker.LONGEST_DELAY = 1  # so that a sleep of three seconds takes the way of one of three hours
    waker.EARLY = 1


def root_of(event: Any) -> str:
    """The root of the run that an event is about: a wake-up, a start, a settlement; nothing where it is about none."""
    match event:
        case {"Records": [{"body": str(body)}]} | {"rawPath": "/workflows/everything", "body": str(body)}:
            id = json.loads(body)["id"]
        case {"rawPath": str(path)}:
            id = path.removeprefix("/promises/").partition("/")[0]
        case _:
            id = event.get("id", "")
    return str(id).partition(".")[0]


def point(root: str, what: str) -> None:
    """One more point at which this process may die; a file of the run counts them over all processes."""
    if not root:
        return
    with open(f"{DEATHS}/{root}", "ab", buffering=0) as file:
        file.write(b".")
        reached = file.tell()
    if reached == int(root.strip(ascii_letters) or 0):
        Path(f"{DEATHS}/{root}.died").write_text(what)
        os.kill(os.getpid(), signal.SIGKILL)


if DEATHS:
    original = Caller._run

    async def run(self: Caller, call: Any) -> Mapping[str, Any]:
        root, what = working_for, call.func.__name__
        point(root, f"before {what}")
        answer = await original(self, call)
        point(root, f"after {what}")
        return answer

    Caller._run = run  # type: ignore[method-assign]


@app.step(retry=Retry(attempts=5, first=1))
def note(text: str, failures: int = 0) -> str:
    step = current_step()
    if ran := os.environ.get("RAN"):
        with (Path(ran) / step.id).open("a") as file:
            file.write(".")
    if step.attempt <= failures:
        raise ValueError("not yet")
    return text


@app.step
def busy(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@app.workflow
async def countdown(ctx: Context, count: int, pause: float = 1.0) -> str:
    for left in range(count, 0, -1):
        await ctx.run(note, f"{left}")
        await ctx.sleep(pause)
    await ctx.run(note, "Done")
    return f"counted down from {count}"


@app.workflow
async def approve(ctx: Context) -> Any:
    return await ctx.promise(timeout=timedelta(days=30))


@app.workflow
async def flaky(ctx: Context) -> str:
    return await ctx.run(note, "at last", 2)


@app.workflow
async def fan(ctx: Context, count: int) -> int:
    return sum(await asyncio.gather(*[ctx.rpc(one, n) for n in range(count)]))


@app.workflow
async def one(ctx: Context, n: int) -> int:
    return n


@app.workflow
async def long(ctx: Context, steps: int, seconds: float) -> int:
    """Steps that together take longer than the function may."""
    return len([await ctx.run(busy, seconds) for _ in range(steps)])


@app.workflow
async def poison(ctx: Context, how: str) -> None:
    await ctx.run(die, how)


@app.step(retry=Retry(attempts=1))
def die(how: str) -> None:
    match how:
        case "exit":
            os._exit(17)
        case "refused":
            bytearray(5 << 30)
        case "grow":
            held: list[bytes] = []
            while len(held) < 256:  # a gigabyte at most, should nobody kill it
                held.append(b"x" * (4 << 20))
                time.sleep(0.005)
    time.sleep(3600)


@app.workflow
async def everything(ctx: Context, pause: float) -> list[Any]:
    """A step, then a child, a sleep and a promise at once, then a sleep alone: every kind of call there is."""
    first = await ctx.run(note, "first")
    child, nap = ctx.rpc(one, 7), ctx.sleep(pause)
    values = await asyncio.gather(child, nap, ctx.promise(timeout=timedelta(days=1)))
    last = await ctx.run(note, "last")
    await ctx.sleep(pause)
    return [first, values[0], values[2], last]


steps = os.environ.get("STEPS")
durable = everstep_aws.handler(app, steps_per_invocation=int(steps) if steps else None)


def handler(event: Any, context: Any) -> Any:
    global working_for
    working_for = root_of(event)
    return durable(event, context)
