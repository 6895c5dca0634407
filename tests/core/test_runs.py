"""Runs on a simulated platform, where the engine, the driver and the store meet: what each alone cannot show."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from everstep import AesGcm, App, Codec, Context, Retry
from everstep.testing import Simulation

Modes = pytest.mark.parametrize("mode", ["rows", "queue"])


class Flaky:
    """Fails so many times; counts outside of every run."""

    def __init__(self, failures: int) -> None:
        self.left = failures
        self.calls: Counter[str] = Counter()

    def call(self, name: str) -> str:
        self.calls[name] += 1
        if self.left:
            self.left -= 1
            raise ValueError("not yet")
        return name


@Modes
def test_a_back_off_is_not_held_up_by_what_it_is_gathered_with(mode: Any) -> None:
    """A person answers the mail that is being retried: waiting for all of both would wait for ever."""
    app, flaky = App("a"), Flaky(1)

    @app.step(retry=Retry(first=600))
    def mail() -> str:
        return flaky.call("mail")

    @app.workflow
    async def ask(ctx: Context) -> list[Any]:
        answer = ctx.promise()
        return await asyncio.gather(ctx.run(mail), answer)

    sim = Simulation(app, mode=mode)
    handle = sim.start(ask, id="a1")
    sim.advance(hours=1)
    assert flaky.calls["mail"] == 2

    sim.resolve("a1.1", "yes")
    assert sim.run(handle) == ["mail", "yes"]


@Modes
def test_a_step_left_behind_is_retried_whatever_else_was_left_behind(mode: Any) -> None:
    app, flaky = App("a"), Flaky(1)

    @app.step(retry=Retry(first=600))
    def mail() -> str:
        return flaky.call("mail")

    @app.workflow
    async def slow(ctx: Context) -> None:
        await ctx.sleep(7 * 86_400)

    @app.workflow
    async def ask(ctx: Context) -> str:
        ctx.run(mail)
        ctx.rpc(slow)
        return "done"

    sim = Simulation(app, mode=mode)
    handle = sim.start(ask, id="a1")
    sim.advance(hours=1)
    assert flaky.calls["mail"] == 2
    assert sim.run(handle) == "done"


@Modes
@pytest.mark.parametrize("cold", [True, False])
def test_an_inline_child_left_behind_is_finished_first(mode: Any, cold: bool) -> None:
    app, flaky = App("a"), Flaky(0)

    @app.step
    def work() -> str:
        return flaky.call("work")

    @app.workflow
    async def kid(ctx: Context) -> None:
        await ctx.sleep(60)
        await ctx.run(work)

    @app.workflow
    async def parent(ctx: Context) -> str:
        ctx.run(kid)
        return "done"

    sim = Simulation(app, mode=mode)
    handle = sim.start(parent, id="p1")
    sim.run_until_idle()
    assert handle.status() == "pending"
    if cold:
        sim.cold()
    assert sim.run(handle, limit=3600) == "done"
    assert flaky.calls["work"] == 1


@Modes
@pytest.mark.parametrize("cold", [True, False])
def test_a_promise_and_the_timeout_that_guards_it_arrive_together(mode: Any, cold: bool) -> None:
    """Nobody was called for a day: the promise was settled in time, and the timer is overdue as well."""
    app = App("a")

    @app.workflow
    async def ask(ctx: Context) -> str:
        answer = ctx.promise()
        try:
            async with asyncio.timeout(5):
                return str(await answer)
        except TimeoutError:
            return "too late"

    sim = Simulation(app, mode=mode)
    handle = sim.start(ask, id="a1")
    sim.run_until_idle()
    if cold:
        sim.cold()
    sim.world.clock.advance(4000)
    sim.resolve("a1.1", "yes")
    sim.world.clock.advance(86_400_000)
    assert sim.run(handle) == "yes"


@Modes
def test_the_attempt_count_is_durable_under_encryption(mode: Any) -> None:
    """The same argument is another ciphertext every time; it is the same step nevertheless."""
    pytest.importorskip("cryptography")
    codec = Codec(encryptor=AesGcm({"k1": bytes(32)}, "k1"))
    app, flaky = App("a", codec=codec), Flaky(99)

    @app.step(retry=Retry(attempts=4, first=60, factor=1))
    def charge(card: str) -> str:
        return flaky.call("charge")

    @app.workflow
    async def order(ctx: Context, card: str) -> str:
        try:
            return await ctx.run(charge, card)
        except ValueError as error:
            return f"gave up: {error}"

    sim = Simulation(app, mode=mode)
    handle = sim.start(order, "4111", id="o1")
    for expected in (1, 2, 3, 4):
        sim.run_until_idle()
        assert flaky.calls["charge"] == expected
        sim.kill()
        sim.advance(seconds=30)
        assert flaky.calls["charge"] == expected, "the back-off is kept"
        sim.advance(seconds=30)
    assert sim.run(handle) == "gave up: not yet"
    assert flaky.calls["charge"] == 4


@Modes
def test_a_line_is_logged_once_whatever_happens_to_the_instances(mode: Any, caplog: pytest.LogCaptureFixture) -> None:
    app, flaky = App("a"), Flaky(1)

    @app.step(retry=Retry(first=60))
    def work(name: str) -> str:
        return flaky.call(name)

    @app.workflow
    async def talk(ctx: Context) -> None:
        ctx.log.info("begins")
        await ctx.promise()
        ctx.log.info("answered")
        for number in range(3):
            await ctx.run(work, str(number))
            ctx.log.info("worked %d", number)
            await ctx.sleep(5)
            ctx.log.info("slept %d", number)

    caplog.set_level("INFO", "everstep.workflow")
    for steps in (None, 1):
        caplog.clear()
        flaky.left = 1
        sim = Simulation(app, mode=mode, steps_per_invocation=steps)
        handle = sim.start(talk, id="t1")
        sim.run_until_idle()
        sim.cold()
        sim.resolve("t1.1")
        for _ in range(20):
            sim.run_until_idle()
            sim.cold()
            sim.advance(seconds=10)
        assert handle.status() == "resolved"
        assert [record.getMessage() for record in caplog.records if record.name == "everstep.workflow"] == [
            "[t1] begins",
            "[t1] answered",
            *(f"[t1] {what} {number}" for number in range(3) for what in ("worked", "slept")),
        ]
