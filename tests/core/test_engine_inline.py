"""Rule P6: a recorded completion may be handed over at the `await`, if nobody can tell it from waiting. And rule P2:
whatever order completions took, the record of that order alone brings everything back.

Random bodies of three tasks share operations, sleep, cancel each other and themselves, and completions come in random
order. Then each body is replayed from random prefixes of its history, with inline delivery and without.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from everstep import Context
from everstep.operation import DurableFuture
from tests.core.play import Play, say, workflow_named


def charge(*_: Any) -> Any:
    raise AssertionError("the engine runs no step")


async def kid(ctx: Context, depth: int) -> Any:
    if depth == 0:
        return await ctx.run(charge, "kid")
    return [await ctx.run(workflow_named(ctx, "kid"), depth - 1), await ctx.run(charge, depth)]


async def tangle(ctx: Context, seed: int) -> list[str]:
    shared = ctx.run(charge, 0)
    tasks: list[asyncio.Task[None]] = []
    event = asyncio.Event()

    async def branch(number: int) -> None:
        try:
            for round in range(3):
                match (seed * 7 + number * 3 + round * round) % 9:
                    case 0:
                        say(ctx, (number, await shared))
                    case 1:
                        await asyncio.sleep(0)
                    case 2 if tasks:
                        tasks[(number + 1) % len(tasks)].cancel()
                    case 3 if (seed + round) % 2:
                        task = asyncio.current_task()
                        assert task is not None
                        task.cancel()
                    case 4:
                        try:
                            async with asyncio.timeout(number + 1):
                                say(ctx, await ctx.run(charge, "timed"))
                        except TimeoutError:
                            say(ctx, "late")
                    case 5:
                        say(ctx, await ctx.run(workflow_named(ctx, "kid"), 1))
                    case 6:
                        say(ctx, await asyncio.gather(ctx.run(charge, 1), shared, return_exceptions=True))
                    case 7:
                        event.set()
                    case _:
                        done, _ = await asyncio.wait(
                            [ctx.run(charge, i) for i in range(3)], return_when=asyncio.FIRST_COMPLETED
                        )
                        say(
                            ctx,
                            sorted(one.id for one in done if isinstance(one, asyncio.Future) and hasattr(one, "id")),
                        )
                first, second = ctx.run(charge, number, round), ctx.run(charge, number, round, 9)
                say(ctx, (number, round, first.id, second.id, first.done(), second.done(), ctx.random()))
                say(ctx, await second)
                say(ctx, first.done())
                say(ctx, (await first, ctx.now().timestamp()))
        except asyncio.CancelledError:
            say(ctx, (number, "cancelled"))
            say(ctx, await ctx.run(charge, "compensate", number))
            raise

    tasks[:] = [asyncio.create_task(branch(number)) for number in range(3)]
    return [repr(one) for one in await asyncio.gather(*tasks, return_exceptions=True)]


def play_live(seed: int, chance: random.Random) -> Play:
    """Complete whatever is open, in random order, until the body has ended."""
    live = Play(tangle, seed, workflows=[kid])
    at = 0
    ended: dict[str, Any] = {}
    while not live.body.returned:
        for op, completion in live.body.take_ended_children():
            ended[op.key] = completion.value
        open_steps = [id for id, op in live.body.ops.items() if not op.done() and op.kind == "step"]
        choices = [*open_steps, *live.body.timers, *ended]
        if not choices:
            break
        id = chance.choice(sorted(choices))
        at += chance.randrange(500)
        if id in live.body.timers:
            live.fire(id)
        elif id in ended:
            value = ended.pop(id)
            if not live.body.ops[id].done():
                live.settle(id, value, at=at)
        else:
            live.settle(id, f"v{id}", at=at)
    return live


PLAIN = asyncio.Future.__await__
OURS = DurableFuture.__await__


def inline_deliveries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the operations whose `await` returned at once although they were not done when it began."""
    seen: list[str] = []

    def noting(future: DurableFuture[Any]) -> Any:
        before = future.done()
        waiting = OURS(future)
        try:
            waited = next(waiting)
        except BaseException as ended:
            if not before:
                seen.append(future.key)
            if isinstance(ended, StopIteration):
                return ended.value
            raise
        yield waited
        return future.result()

    monkeypatch.setattr(DurableFuture, "__await__", noting)
    return seen


@pytest.mark.parametrize("block", range(8))
def test_p6_inline_delivery_and_replay_from_any_prefix_are_indistinguishable(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    inline = 0
    for seed in range(block * 25, block * 25 + 25):
        chance = random.Random(seed)
        live = play_live(seed, chance)
        expected = live.picture()
        cuts = {len(live.deliveries), *(chance.randrange(len(live.deliveries) + 1) for _ in range(3))}
        for cut in cuts:
            for allowed in (True, False):
                with monkeypatch.context() as patch:
                    if allowed:
                        seen = inline_deliveries(patch)
                    else:
                        patch.setattr(DurableFuture, "__await__", PLAIN)
                    again = Play(tangle, seed, workflows=[kid], journal=live.deliveries[:cut])
                    for one in live.deliveries[cut:]:
                        again._deliver(one)
                    inline += len(seen) if allowed else 0
                assert again.picture() == expected, (seed, cut, allowed)
                again.close()
        live.close()
    assert inline > 50, "the fuzz must meet what it is about"


def test_p6_a_straight_line_is_delivered_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(ctx: Context) -> int:
        return sum([await ctx.run(charge, number) for number in range(5)])

    live = Play(body)
    for number in range(1, 6):
        live.settle(f"r.{number}", number)
    seen = inline_deliveries(monkeypatch)

    again = Play(body, journal=live.deliveries)

    assert seen == ["r.1", "r.2", "r.3", "r.4", "r.5"]
    assert again.result == 15


def test_p6_nothing_is_delivered_inline_while_something_else_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(ctx: Context) -> None:
        asyncio.get_running_loop().call_soon(say, ctx, "soon")
        say(ctx, await ctx.run(charge))

    live = Play(body)
    live.settle("r.1", "value")
    seen = inline_deliveries(monkeypatch)
    again = Play(body, journal=live.deliveries)

    assert seen == []
    assert again.trace == live.trace == ["soon", "value"]


def test_p6_nothing_is_delivered_inline_to_a_task_that_is_being_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody settled the promise before our cancellation of it arrived."""

    async def body(ctx: Context) -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await ctx.promise()
        except asyncio.CancelledError:
            task.uncancel()
            return f"cancelled {await ctx.run(charge)}"
        return "delivered"

    live = Play(body)
    live.settle("r.1", "value")
    live.settle("r.2", "too late")
    seen = inline_deliveries(monkeypatch)
    again = Play(body, journal=live.deliveries)
    assert (seen, live.result, again.result) == ([], "cancelled too late", "cancelled too late")


def test_p6_a_future_with_a_callback_is_not_delivered_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(ctx: Context) -> None:
        wanted = ctx.run(charge)
        wanted.add_done_callback(lambda _: say(ctx, "callback"))
        say(ctx, await wanted)

    live = Play(body)
    live.settle("r.1", "value")
    seen = inline_deliveries(monkeypatch)
    again = Play(body, journal=live.deliveries)
    assert seen == []
    assert again.trace == live.trace


def test_p6_a_future_is_never_done_at_the_call(play: Any) -> None:
    async def body(ctx: Context) -> None:
        for number in range(3):
            wanted = ctx.run(charge, number)
            say(ctx, wanted.done())
            await wanted

    live = play(body)
    for number in (1, 2, 3):
        live.settle(f"r.{number}")
    assert live.trace == [False, False, False]
