"""What a platform's handler may rely on: deliveries bounded in time, exhausted messages halting in sight, bodies of
messages that are wake-ups or refused."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everstep import App, Client, Context, InvalidArgument, current_step
from everstep.driver import DONE, Retry
from everstep.hosting import Host
from everstep.ports import Wake
from everstep.stores.memory import MemoryStore
from everstep.wakers.local import LocalWaker
from everstep.wakers.message import wake_from_json, wake_to_json


class Time:
    def __init__(self) -> None:
        self.at = 1_700_000_000_000
        self.step = 0

    def now(self) -> int:
        return self.at


app = App("hosted")
ran: list[str] = []


@app.step
def note(what: str) -> str:
    ran.append(what)
    clock = current_step().dependency(Time)
    clock.at += clock.step
    return what


@app.workflow
async def three(ctx: Context) -> str:
    return "".join([await ctx.run(note, letter) for letter in "abc"])


@app.workflow
async def ask(ctx: Context) -> object:
    return await ctx.promise()


def host() -> tuple[Host, Time]:
    ran.clear()
    clock = app.provide(Time())
    client = Client(MemoryStore(), LocalWaker(), app=app, clock=clock)
    return Host(app, client, pid="one", lease=60_000), clock


@pytest.mark.parametrize("given", [60_000, 1_000], ids=["much time", "less than the margin"])
def test_an_invocation_stops_at_the_checkpoint_after_its_time_and_the_next_one_goes_on(given: int) -> None:
    async def story() -> None:
        there, clock = host()
        handle = await there.client.start(three, id="t")
        for done in ("a", "ab", "abc"):
            assert await handle.status() == "pending"
            ends = clock.at + given
            clock.step = given
            await there.deliver(Wake("t"), remaining=lambda ends=ends: ends - clock.at)  # type: ignore[misc]
            assert ran == list(done)
        await there.deliver(Wake("t"), remaining=lambda: given)
        assert await handle.result(0) == "abc"
        assert ran == ["a", "b", "c"]

    asyncio.run(story())


def test_two_deliveries_at_once_have_each_their_own_time() -> None:
    async def story() -> None:
        there, _ = host()
        short, long = await there.client.start(three, id="s"), await there.client.start(three, id="l")
        await asyncio.gather(
            there.deliver(Wake("s"), remaining=lambda: 0), there.deliver(Wake("l"), remaining=lambda: 60_000)
        )
        assert await short.status() == "pending"
        assert await long.result(0) == "abc"

    asyncio.run(story())


def test_w9_a_run_whose_message_was_given_up_is_halted_in_sight_and_goes_on_when_continued() -> None:
    async def story() -> None:
        there, _ = host()
        handle = await there.client.start(three, id="t")
        assert await there.exhausted(Wake("t"), "the function cannot be imported") == DONE
        view = await handle.view()
        assert view.task == "halted"
        assert view.reason == "the function cannot be imported"
        assert await there.exhausted(Wake("t"), "again") == DONE
        assert (await handle.view()).reason == "the function cannot be imported"
        await there.client.continue_("t")
        await there.deliver(Wake("t"))
        assert await handle.result(0) == "abc"

    asyncio.run(story())


def test_a_message_given_up_late_leaves_alone_what_went_on() -> None:
    async def story() -> None:
        there, _ = host()
        await there.client.start(ask, id="a")
        before = (await there.client.get("a")).version
        await there.deliver(Wake("a"))
        assert await there.exhausted(Wake("a", before), "old") == DONE
        assert (await there.client.get("a")).task == "suspended"
        assert await there.exhausted(Wake("nobody", 3), "unknown") == DONE

    asyncio.run(story())


def test_a_run_that_is_held_is_not_halted_under_its_holder() -> None:
    async def story() -> None:
        there, clock = host()
        begun, release = asyncio.Event(), asyncio.Event()
        own = App("held")

        @own.workflow
        async def held(ctx: Context) -> str:
            return await ctx.run(wait)

        @own.step
        async def wait() -> str:
            begun.set()
            await release.wait()
            return "done"

        busy = Host(own, Client(there.client.store, LocalWaker(), app=own, clock=clock), pid="two", lease=60_000)
        handle = await busy.client.start(held, id="h")
        working = asyncio.ensure_future(busy.deliver(Wake("h")))
        await begun.wait()
        version = (await handle.view()).version
        assert await there.exhausted(Wake("h", version), "late") == Retry(clock.at + 60_000)
        release.set()
        await working
        assert await handle.result(0) == "done"

    asyncio.run(story())


def test_a_run_that_died_with_the_message_it_lived_on_is_halted_however_far_it_had_come() -> None:
    async def story() -> None:
        there, clock = host()
        begun = asyncio.Event()
        own = App("dying")

        @own.workflow
        async def dies(ctx: Context) -> None:
            await ctx.run(die)

        @own.step
        async def die() -> None:
            begun.set()
            await asyncio.Event().wait()

        function = Host(own, Client(there.client.store, LocalWaker(), app=own, clock=clock), pid="f", lease=60_000)
        handle = await function.client.start(dies, id="d")
        for _ in range(2):
            working = asyncio.ensure_future(function.deliver(Wake("d"), held=True, key="m1"))
            await begun.wait()
            begun.clear()
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            assert await there.exhausted(Wake("d"), "died", "m1") == Retry(clock.at + 60_000)
            clock.at += 60_000
        assert await there.exhausted(Wake("d"), "another message", "m2") == DONE
        assert (await handle.view()).task == "acquired"
        assert await there.exhausted(Wake("d"), "died", "m1") == DONE
        view = await handle.view()
        assert (view.task, view.reason) == ("halted", "died")

    asyncio.run(story())


@given(st.text(min_size=1, max_size=30), st.integers(0, 2**53))
def test_a_wake_up_survives_its_message(id: str, version: int) -> None:
    try:
        text = wake_to_json(Wake(id, version))
        wake = wake_from_json(text)
    except (InvalidArgument, UnicodeEncodeError):
        return
    assert wake == Wake(id, version)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "null",
        '"x"',
        '{"id":"a"}',
        '{"id":1,"version":1}',
        '{"id":"a","version":"1"}',
        '{"id":"a","version":true}',
        '{"id":"a","version":-1}',
        '{"id":"","version":1}',
        '{"id":"a","version":1,"url":"http://elsewhere"}',
        "[" * 100_000,
        b"\xff\xfe{",
        json.dumps({"id": "x" * 1001, "version": 1}),
    ],
    ids=range(15),
)
def test_what_is_no_wake_up_is_refused(body: str | bytes) -> None:
    with pytest.raises(InvalidArgument):
        wake_from_json(body)
