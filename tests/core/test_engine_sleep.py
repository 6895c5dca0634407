"""Durable timers: `ctx.sleep`, `sleep_until`, and asyncio's own."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from everstep import Context, InvalidArgument, NondeterminismError
from tests.core.play import Play, promise, rpc, say, step, timer

T0 = 1_700_000_000_000


def work(*_: Any) -> Any:
    raise AssertionError("the engine runs no step")


@pytest.mark.parametrize(
    ("duration", "milliseconds"),
    [(5, 5000), (0, 0), (0.25, 250), (1 / 3, 334), (timedelta(days=3), 3 * 86_400_000), (1e-9, 1), (0.1 + 0.2, 300)],
)
def test_a_sleep_arms_one_timer_rounded_up_and_waits_for_it(play: Any, duration: Any, milliseconds: int) -> None:
    async def body(ctx: Context) -> str:
        await ctx.sleep(duration)
        return "awake"

    live = play(body, at=T0)
    assert live.commands() == [f"r.1 timer at {T0 + milliseconds}"]
    assert live.tree == "r.1"
    live.fire()
    assert live.result == "awake"
    assert live.commands() == []


def test_a_sleep_begins_when_it_is_called(play: Any) -> None:
    async def body(ctx: Context) -> None:
        pause = ctx.sleep(10)
        await ctx.run(work)
        await pause

    live = play(body)
    assert live.commands() == ["r.2 step work()", "r.1 timer at 10000"]
    live.settle("r.2", at=7000)
    assert live.tree == "r.1"
    live.fire()
    assert live.body.returned


def test_sleep_until_an_instant(play: Any) -> None:
    async def body(ctx: Context) -> None:
        await ctx.sleep_until(datetime(2026, 1, 1, 9, tzinfo=timezone(timedelta(hours=1))))

    at = int(datetime(2026, 1, 1, 8, tzinfo=UTC).timestamp() * 1000)
    live = play(body)
    assert live.commands() == [f"r.1 timer at {at}"]
    live.fire()


def test_sleep_until_an_instant_that_has_passed_fires_now(play: Any) -> None:
    async def body(ctx: Context) -> None:
        await ctx.sleep_until(datetime(2001, 1, 1, tzinfo=UTC))

    live = play(body, at=T0)
    assert live.commands() == [f"r.1 timer at {T0}"]
    live.fire()


def refused(play: Any, call: Any) -> str:
    async def body(ctx: Context) -> str:
        try:
            call(ctx)
        except InvalidArgument as error:
            return str(error)
        return "accepted"

    live = play(body)
    assert live.commands() == []
    return str(live.result)


@pytest.mark.parametrize("bad", [-1, -0.001, math.nan, math.inf, timedelta(seconds=-5), "5", None, True, 1e300])
def test_a_bad_duration_is_refused_by_name(play: Any, bad: Any) -> None:
    assert "sleep" in refused(play, lambda ctx: ctx.sleep(bad))


@pytest.mark.parametrize("bad", [datetime(2026, 1, 1), "2026-01-01", 5])
def test_a_bad_instant_is_refused_by_name(play: Any, bad: Any) -> None:
    assert "sleep_until" in refused(play, lambda ctx: ctx.sleep_until(bad))


def test_asyncio_sleep_is_a_durable_timer(play: Any) -> None:
    async def body(ctx: Context) -> float:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await asyncio.sleep(5)
        await asyncio.sleep(0)
        await asyncio.sleep(-3)
        return loop.time() - begun

    live = play(body)
    assert live.commands() == ["r.1 timer at 5000"]
    live.fire()
    assert live.commands() == []
    assert live.result == 5


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e300])
def test_asyncio_sleep_refuses_what_is_no_instant(play: Any, bad: float) -> None:
    async def body(ctx: Context) -> str:
        try:
            await asyncio.sleep(bad)
        except ValueError as error:
            return type(error).__name__
        return "accepted"

    live = play(body)
    assert live.commands() == []
    assert live.result in ("InvalidArgument", "ValueError")


def test_a_timeout_that_fires_cancels_what_it_guards(play: Any) -> None:
    async def body(ctx: Context) -> str:
        try:
            async with asyncio.timeout(5):
                await ctx.promise()
        except TimeoutError:
            return "too late"
        return "in time"

    live = play(body)
    assert live.commands() == ["r.2 a promise", "r.1 timer at 5000"]
    live.fire()
    assert live.commands() == ["r.2 canceled"]
    assert live.result == "too late"


def test_a_timeout_that_does_not_fire_is_disarmed(play: Any) -> None:
    async def body(ctx: Context) -> Any:
        async with asyncio.timeout(5):
            return await ctx.promise()

    live = play(body)
    live.commands()
    live.settle("r.2", 1)
    assert live.commands() == ["r.1 disarmed"]
    assert live.result == 1


def test_timeout_at_and_reschedule(play: Any) -> None:
    async def body(ctx: Context) -> str:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(loop.time() + 5) as limit:
                await ctx.run(work)
                limit.reschedule(loop.time() + 60)
                await ctx.promise()
        except TimeoutError:
            return "too late"
        return "in time"

    live = play(body)
    assert live.commands() == ["r.2 step work()", "r.1 timer at 5000"]
    live.settle("r.2", at=2000)
    assert live.commands() == ["r.4 a promise", "r.3 timer at 62000", "r.1 disarmed"]
    live.fire()
    assert live.result == "too late"


def test_a_timeout_of_nothing_never_waits(play: Any) -> None:
    async def body(ctx: Context) -> str:
        try:
            async with asyncio.timeout(0):
                await ctx.promise()
        except TimeoutError:
            return "too late"
        return "in time"

    live = play(body)
    assert live.commands() == ["r.1 canceled"]
    assert live.result == "too late"


def test_wait_for_in_time_and_too_late(play: Any) -> None:
    async def body(ctx: Context) -> list[Any]:
        first = await asyncio.wait_for(ctx.promise(), 5)
        try:
            await asyncio.wait_for(ctx.promise(), 5)
        except TimeoutError:
            return [first, "too late"]
        return []

    live = play(body)
    live.settle("r.1", 1, at=1000)
    live.commands()
    live.fire()
    assert live.result == [1, "too late"]


def test_wait_with_a_timeout(play: Any) -> None:
    async def body(ctx: Context) -> tuple[int, int]:
        done, pending = await asyncio.wait([ctx.promise()], timeout=3)
        return len(done), len(pending)

    live = play(body)
    assert live.commands() == ["r.1 a promise", "r.2 timer at 3000"]
    live.fire()
    assert live.result == (0, 1)


def test_as_completed_with_a_timeout(play: Any) -> None:
    async def body(ctx: Context) -> str:
        try:
            for next in asyncio.as_completed([ctx.promise(), ctx.promise()], timeout=4):
                say(ctx, await next)
        except TimeoutError:
            return "too late"
        return "in time"

    live = play(body)
    live.settle("r.1", 0)
    live.fire()
    assert live.trace == [0]
    assert live.result == "too late"


def test_a_cancelled_sleep_is_no_longer_armed(play: Any) -> None:
    async def body(ctx: Context) -> str:
        pause = ctx.sleep(10)
        await ctx.run(work)
        pause.cancel()
        return "done"

    live = play(body)
    live.commands()
    live.settle("r.2")
    assert live.commands() == ["r.1 disarmed"]
    assert live.result == "done"


def test_a_promise_and_the_timeout_that_guards_it_may_arrive_together() -> None:
    """Both are due by the time anybody looks: the promise wins, and the timer that it disarms is not a surprise."""

    async def body(ctx: Context) -> str:
        try:
            async with asyncio.timeout(5):
                return str(await ctx.promise())
        except TimeoutError:
            return "too late"

    won = Play(body, journal=[promise("r.2", value="yes", at=4000), timer("r.1", 5000)])
    lost = Play(body, journal=[timer("r.1", 5000), promise("r.2", value="yes", at=6000)])

    assert won.result == "yes"
    assert lost.result == "too late"


def test_a_cancelled_sleep_may_have_come_due_together_with_what_cancelled_it() -> None:
    async def body(ctx: Context) -> str:
        pause, answer = ctx.sleep(5), ctx.promise()
        await asyncio.wait([pause, answer], return_when=asyncio.FIRST_COMPLETED)
        pause.cancel()
        return str(answer.done())

    assert Play(body, journal=[promise("r.2", at=4000), timer("r.1", 5000)]).result == "True"


async def sleeper(ctx: Context) -> None:
    await ctx.sleep(5)
    await ctx.run(work)


def test_a_timer_of_the_last_suspension_must_be_armed_again() -> None:
    assert Play(sleeper, armed={"r.1": 5000}).commands() == ["r.1 timer at 5000"]


@pytest.mark.parametrize(
    ("given", "recorded", "current"),
    [
        ({"armed": {"r.1": 9000}}, "a timer until 9000", "a timer until 5000"),
        ({"armed": {"r.1": 5000, "r.2": 9000}}, "a timer", "no such operation"),
        ({"journal": [step("r.1", "work")]}, "step work()", "a timer"),
        ({"pending": [promise("r.1")]}, "a promise", "a timer"),
        ({"pending": [rpc("r.1", "work")]}, "rpc of work()", "a timer"),
        ({"journal": [timer("r.1", 5000), timer("r.2", 6000)]}, "a timer", "step work()"),
        ({"journal": [timer("r.1", 5000)], "pending": [promise("r.2")]}, "a promise", "step work()"),
        ({"journal": [timer("r.1", 5000)], "pending": [rpc("r.7", "work")]}, "rpc of work()", "no such operation"),
    ],
    ids=["instant", "removed", "was step", "was promise", "was rpc", "fired", "promise to step", "removed rpc"],
)
def test_a_timer_in_another_place_is_refused_with_both_sides(given: Any, recorded: str, current: str) -> None:
    with pytest.raises(NondeterminismError) as caught:
        Play(sleeper, **given)
    assert caught.value.recorded.startswith(recorded)
    assert caught.value.current.startswith(current)
