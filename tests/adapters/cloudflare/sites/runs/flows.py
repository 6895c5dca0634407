"""Workflows of the tests. What a step does is noted outside of the run, in an object that outlives a kill."""

from __future__ import annotations

import asyncio
from typing import Any

from everstep import App, Context, Retry, current_step

app = App("runs")


class Ledger:
    """Where steps leave a trace: each call is one row, whether its step was recorded or not."""

    def __init__(self, env: Any) -> None:
        self._namespace = env.LEDGER

    async def note(self, id: str, text: str) -> None:
        await self._namespace.get(self._namespace.idFromName("ledger")).note(id, text)


@app.step
async def notify(text: str) -> None:
    step = current_step()
    await step.dependency(Ledger).note(step.id, text)


@app.workflow
async def countdown(ctx: Context, count: int, pause: float = 0.05) -> str:
    for left in range(count, 0, -1):
        await ctx.run(notify, f"{left}")
        await ctx.sleep(pause)
    await ctx.run(notify, "Done")
    return f"counted down from {count}"


@app.workflow
async def approval(ctx: Context) -> str:
    answer = ctx.promise()
    await ctx.run(notify, f"asked {answer.id}")
    return f"answered {await answer}"


@app.step(retry=Retry(attempts=3, first=0.2, factor=2))
async def flaky(times: int) -> str:
    step = current_step()
    await step.dependency(Ledger).note(step.id, f"attempt {step.attempt}")
    if step.attempt <= times:
        raise ValueError(f"attempt {step.attempt} fails")
    return f"attempt {step.attempt}"


@app.workflow
async def failing(ctx: Context, times: int) -> str:
    return await ctx.run(flaky, times)


@app.workflow
async def square(ctx: Context, n: int) -> int:
    await ctx.run(notify, f"square {n}")
    return n * n


@app.workflow
async def fan(ctx: Context, count: int) -> list[int]:
    return list(await asyncio.gather(*[ctx.rpc(square, n) for n in range(count)]))


@app.workflow
async def shared(ctx: Context, n: int) -> int:
    """Work that other roots share: each waits across origins."""
    if n <= 1:
        return 1
    below = await ctx.options(id=f"factorial-{n - 1}").rpc(shared, n - 1)
    await ctx.run(notify, f"factorial {n}")
    return n * below


@app.workflow
async def monitor(ctx: Context, round: int, rounds: int) -> str:
    """Watches for ever: every round is a root of its own, so that no history grows."""
    await ctx.run(notify, f"round {round}")
    await ctx.sleep(0.02)
    if round < rounds:
        ctx.detached(monitor, round + 1, rounds)
    return f"round {round}"


@app.step
async def think(topic: str, depth: int) -> list[str]:
    """A language model that always divides a topic in two, while it may."""
    step = current_step()
    await step.dependency(Ledger).note(step.id, f"think {topic}")
    return [f"{topic}a", f"{topic}b"] if depth else []


@app.workflow
async def research(ctx: Context, topic: str, depth: int) -> str:
    parts = await ctx.run(think, topic, depth)
    found = await asyncio.gather(*[ctx.rpc(research, part, depth - 1) for part in parts])
    return f"{topic}({' '.join(found)})" if found else topic


@app.on("queue", source="orders")
@app.workflow
async def order(ctx: Context, body: Any) -> Any:
    await ctx.run(notify, f"order {body['number']}")
    return body


class Broken(list[Any]):
    """Arguments that cannot be had."""

    def __iter__(self) -> Any:
        raise RuntimeError("broken")


@app.on("queue", source="odd", args=lambda event: Broken() if event.data == "odd" else (event.data,))
@app.workflow
async def same(ctx: Context, value: Any) -> Any:
    return value


@app.workflow
async def large(ctx: Context, size: int) -> int:
    return len(await ctx.run(blow_up, size))


@app.step
def blow_up(size: int) -> str:
    return "x" * size
