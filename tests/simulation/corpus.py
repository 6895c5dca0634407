"""Workflows of every shape, for histories: what a body may do, each as small as it can be and still go wrong.

A body notes what it sees in the order it sees it and returns its notes, so that a replay which sees anything else ends
otherwise. Steps take a while, so that completions race; how long is drawn anew at each execution, as outside.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from everstep import App, Context, Retry, Workflow, current_step
from everstep.errors import PromiseCanceled, PromiseTimedOut

app = App("corpus", max_deaths=3)


class Outside:
    """What is not of this world: how long steps take, and which of them ran with what."""

    def __init__(self) -> None:
        self.begin(0)

    def begin(self, seed: int) -> None:
        """A new history."""
        self.random = Random(seed)
        self.calls: dict[str, list[tuple[str, tuple[Any, ...]]]] = {}

    async def happens(self, name: str, *args: Any) -> None:
        step = current_step()
        self.calls.setdefault(step.id, []).append((name, args))
        if self.random.random() < 0.6:
            await asyncio.sleep(self.random.choice((0.001, 0.01, 0.05, 0.3, 4)))


outside = Outside()


@app.step
async def work(label: str, value: int = 0) -> int:
    await outside.happens("work", label, value)
    return value + 1


@app.step
async def other(label: str, value: int = 0) -> int:
    await outside.happens("other", label, value)
    return value + 100


@app.step
async def dice(label: str, value: int = 0) -> int:
    """Says something else every time, so that only the record tells what it said."""
    await outside.happens("dice", label, value)
    return outside.random.randrange(1000)


class Refused(Exception):
    """A step's failure for good."""


@app.step(retry=Retry(attempts=3, first=0.5, factor=4))
async def shaky(label: str, fails: int) -> str:
    await outside.happens("shaky", label, fails)
    if current_step().attempt <= fails:
        raise Refused(f"{label}: attempt {current_step().attempt}")
    return label


class Scenario(NamedTuple):
    """A workflow to start. `confluent`: its result does not depend on who wins a race."""

    workflow: Workflow[..., Any]
    args: tuple[Any, ...]
    confluent: bool


SCENARIOS: list[Scenario] = []


def scenario(*args: Any, confluent: bool = True) -> Callable[[Workflow[..., Any]], Workflow[..., Any]]:
    """Put a workflow into the corpus."""

    def put(workflow: Workflow[..., Any]) -> Workflow[..., Any]:
        SCENARIOS.append(Scenario(workflow, args, confluent))
        return workflow

    return put


@scenario(4)
@app.workflow
async def sequence(ctx: Context, n: int) -> list[int]:
    seen = []
    value = 0
    for i in range(n):
        value = await ctx.run(work, f"s{i}", value)
        seen.append(value)
        if i % 2:
            await ctx.sleep(30)
    return seen


@scenario(3)
@app.workflow
def generator(ctx: Context, n: int) -> Any:
    seen = []
    for i in range(n):
        seen.append((yield ctx.run(work, f"g{i}", i)))
        yield ctx.sleep(61)
    both = yield [ctx.run(work, "x", 1), ctx.run(other, "y", 1)]
    return [*seen, *both]


@scenario(confluent=False)
@app.workflow
async def gathered(ctx: Context) -> list[Any]:
    seen: list[Any] = []

    async def two(label: str) -> int:
        first = await ctx.run(work, label, 1)
        seen.append([label, first])
        second = await ctx.run(dice, label, first)
        seen.append([label, second])
        return second

    results = await asyncio.gather(two("a"), two("b"), two("c"))
    return [*seen, *results, await ctx.run(work, "end", len(seen))]


@scenario(confluent=False)
@app.workflow
async def grouped(ctx: Context) -> list[Any]:
    seen: list[Any] = []

    async def one(label: str, fails: int) -> None:
        try:
            seen.append(await ctx.run(shaky, label, fails))
            seen.append(await ctx.run(work, label, 3))
        except asyncio.CancelledError:
            seen.append(f"{label} cancelled")
            raise

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(one("a", 0))
            group.create_task(one("b", 5))
            group.create_task(one("c", 1))
    except* Refused as refused:
        seen.append(sorted(str(error) for error in refused.exceptions))
    return [*seen, await ctx.run(work, "after", 1)]


@scenario(confluent=False)
@app.workflow
async def raced(ctx: Context) -> list[Any]:
    seen: list[Any] = []
    promise = ctx.promise()
    timer = asyncio.create_task(asyncio.sleep(40))
    done, _ = await asyncio.wait([promise, timer], return_when=asyncio.FIRST_COMPLETED)
    seen.append("promise" if promise in done else "timer")
    if promise in done:
        seen.append(promise.result())
    promise.cancel()
    timer.cancel()
    seen.append(await ctx.run(work, str(seen[0]), len(seen)))
    return seen


@scenario(confluent=False)
@app.workflow
async def timed(ctx: Context) -> list[Any]:
    seen: list[Any] = []
    for seconds in (0.05, 2, 90):
        try:
            async with asyncio.timeout(seconds):
                seen.append(await ctx.rpc(kid, 1))
        except TimeoutError:
            seen.append("late")
        seen.append(await ctx.run(work, str(seen[-1]), len(seen)))
    try:
        seen.append(await ctx.promise(timeout=50))
    except PromiseTimedOut:
        seen.append("timed out")
    return seen


@app.workflow
async def kid(ctx: Context, n: int) -> int:
    first = await ctx.run(work, "kid", n)
    await ctx.sleep(5)
    return await ctx.run(other, "kid", first)


@app.workflow
async def naughty(ctx: Context, n: int) -> int:
    await ctx.run(work, "naughty", n)
    raise ValueError(f"no {n}")


@scenario(6)
@app.workflow
async def fanned(ctx: Context, n: int) -> list[Any]:
    results = await asyncio.gather(*[ctx.rpc(kid, i) for i in range(n)])
    mixed = await asyncio.gather(ctx.rpc(naughty, 1), ctx.rpc(kid, 2), ctx.rpc(work, "w", 3), return_exceptions=True)
    return [*results, *[repr(one) for one in mixed]]


@scenario()
@app.workflow
async def nested(ctx: Context) -> list[Any]:
    one = await ctx.run(inner, 1)
    two, three = await asyncio.gather(ctx.run(inner, 2), ctx.rpc(inner, 3))
    try:
        await ctx.run(naughty, 9)
        failed = "no"
    except ValueError as error:
        failed = str(error)
    return [one, two, three, failed]


@app.workflow
async def inner(ctx: Context, n: int) -> list[int]:
    return [await ctx.run(work, "in", n), await ctx.rpc(kid, n), await ctx.run(other, "in", n)]


@app.workflow(timeout=12)
async def hurried(ctx: Context, n: int) -> Any:
    first = await ctx.run(work, "hurried", n)
    told = await ctx.promise()
    await ctx.sleep(n)
    return [first, told, await ctx.rpc(kid, n)]


@scenario(confluent=False)
@app.workflow
async def dated(ctx: Context) -> list[Any]:
    seen: list[Any] = []
    hurries = [ctx.rpc(hurried, n) for n in (0, 3, 7, 11)]
    for one in await asyncio.gather(*hurries, return_exceptions=True):
        seen.append(one if isinstance(one, list) else type(one).__name__)
    return [*seen, await ctx.run(work, "end", len(seen))]


@scenario("left")
@scenario("right")
@app.workflow
async def sharing(ctx: Context, side: str) -> list[Any]:
    before = await ctx.run(work, side, 1)
    shared = await ctx.options(id="shared-kid").rpc(kid, 7)
    promise = ctx.promise(id="shared-promise")
    told = await promise
    return [before, shared, told]


@scenario(confluent=False)
@app.workflow
async def cancelling(ctx: Context) -> list[Any]:
    seen: list[Any] = []
    slow = ctx.rpc(kid, 1)
    never = ctx.promise()
    step = ctx.run(other, "slow", 1)
    seen.append(await ctx.run(work, "quick", 1))
    seen.append([slow.cancel(), never.cancel(), step.cancel()])
    for future in (slow, never, step):
        try:
            seen.append(await future)
        except (asyncio.CancelledError, PromiseCanceled) as error:
            seen.append(type(error).__name__)
    task = asyncio.create_task(_patient(ctx, seen))
    await ctx.sleep(1)
    task.cancel()
    await asyncio.wait([task])
    return [*seen, await ctx.run(work, "end", len(seen))]


async def _patient(ctx: Context, seen: list[Any]) -> None:
    try:
        await ctx.sleep(1000)
    finally:
        seen.append(await ctx.run(work, "clean", 1))


@scenario("x")
@app.workflow
async def stubborn(ctx: Context, label: str) -> list[Any]:
    seen: list[Any] = [await ctx.run(shaky, label, 2)]
    try:
        await ctx.run(shaky, label, 3)
    except Refused as error:
        seen.append(str(error))
    seen.append(await asyncio.gather(ctx.run(shaky, "p", 1), ctx.run(shaky, "q", 2), ctx.run(work, "r", 0)))
    return seen


@scenario(0, 3)
@app.workflow
async def lives(ctx: Context, life: int, last: int) -> Any:
    value = await ctx.run(work, f"life{life}", life)
    await ctx.sleep(20)
    value += await ctx.rpc(kid, life)
    if life == last:
        return [life, value]
    return ctx.continue_as_new(life + 1, last)


@scenario(3)
@app.workflow
async def chain(ctx: Context, n: int) -> int:
    value = await ctx.run(work, "link", n)
    if n:
        await ctx.detached(chain, n - 1)
    await ctx.sleep(3)
    return value


@scenario(confluent=False)
@app.workflow
async def completed(ctx: Context) -> list[Any]:
    tasks = [asyncio.ensure_future(ctx.rpc(kid, i)) for i in range(3)]
    tasks += [asyncio.ensure_future(ctx.run(dice, f"c{i}", i)) for i in range(3)]
    seen = []
    for one in asyncio.as_completed(tasks):
        seen.append(await one)
    return [*seen, await ctx.run(work, "end", seen[0])]


@scenario(confluent=False)
@app.workflow
async def locked(ctx: Context) -> list[Any]:
    lock = asyncio.Lock()
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=1)
    seen: list[Any] = []

    async def producer(label: str) -> None:
        for i in range(2):
            async with lock:
                value = await ctx.run(dice, f"{label}{i}", i)
            await queue.put(value)
            seen.append([label, value])

    async def consumer() -> None:
        for _ in range(4):
            value = await queue.get()
            seen.append(await ctx.run(other, "eat", value))

    await asyncio.gather(producer("a"), producer("b"), consumer())
    return seen


@scenario(confluent=False)
@app.workflow
async def first_of(ctx: Context) -> list[Any]:
    racers = {ctx.rpc(kid, 1), ctx.run(dice, "fast", 10), ctx.sleep(3)}
    pending: set[Any] = set(racers)
    order = []
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        order.append(sorted(str(one.result()) for one in done))
    value = ctx.random()
    return [*order, value, str(ctx.uuid()), await ctx.run(work, str(value), 1)]


@scenario()
@app.workflow
async def abandoning(ctx: Context) -> int:
    ctx.promise()
    ctx.rpc(kid, 4)
    ctx.run(work, "left", 1)
    ctx.sleep(10_000)
    return await ctx.run(work, "told", 1)


@scenario(confluent=False)
@app.workflow
async def asking(ctx: Context) -> list[Any]:
    seen: list[Any] = []
    for i in range(3):
        promise = ctx.promise()
        step = ctx.run(work, f"ask{i}", i)
        done, _ = await asyncio.wait([promise, step], return_when=asyncio.FIRST_COMPLETED)
        seen.append([one is step for one in (promise, step) if one in done])
        try:
            seen.append(await promise)
        except Exception as error:
            seen.append(str(error))
        seen.append(await step)
    return seen
