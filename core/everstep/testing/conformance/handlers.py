"""What every platform handler must do: turn a delivery into an invocation, and acknowledge only what is durable.

A rig holds the handler in its platform, or in a faithful emulator of it: it hands over wake-ups as the platform would,
lets time pass, and can take the store away for a while. What runs is the suite's own App.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Protocol

from everstep.client import Client
from everstep.context import Context
from everstep.ports import Wake
from everstep.promise import TaskState
from everstep.registry import App
from everstep.retry import Retry

from .running import case


class Work:
    """The suite's App, and how often each of its steps ran."""

    def __init__(self) -> None:
        self.ran: Counter[str] = Counter()
        self.failures = 0
        self.poisoned = False
        self.app = app = App("conformance")

        @app.step(retry=Retry(attempts=5, first=30))
        def note(what: str) -> str:
            self.ran[what] += 1
            if self.failures:
                self.failures -= 1
                raise ValueError("not yet")
            return what

        @app.workflow
        async def nap(ctx: Context, seconds: float) -> str:
            before = await ctx.run(note, "before")
            await ctx.sleep(seconds)
            return f"{before} {await ctx.run(note, 'after')}"

        @app.workflow
        async def ask(ctx: Context) -> object:
            return await ctx.promise()

        @app.workflow
        async def fan(ctx: Context, count: int) -> int:
            return len(await asyncio.gather(*[ctx.rpc(one, n) for n in range(count)]))

        @app.workflow
        async def one(ctx: Context, n: int) -> int:
            return n

        @app.workflow
        async def poison(ctx: Context) -> str:
            if self.poisoned:
                ctx.panic("poisoned")
            return await ctx.run(note, "mended")


class Rig(Protocol):
    """A handler under test and its world."""

    @property
    def client(self) -> Client:
        """Of the store that the handler works on; what it starts reaches the handler."""
        ...

    async def deliver(self, wake: Wake) -> bool:
        """Hand a wake-up over as the platform does. True: acknowledged. False: the platform delivers it again."""
        ...

    async def advance(self, seconds: float) -> None:
        """Let time pass; whatever falls due meanwhile is delivered, and what was not acknowledged comes again."""
        ...

    def broken(self, broken: bool) -> None:
        """From now on every call of the store fails as when it cannot be reached, or works again."""
        ...

    async def close(self) -> None: ...


class HandlerSuite:
    """Subclass and implement `rig`; each `test_*` runs against a fresh handler.

    Attributes:
        by_row: the store's due rows are the alarm clock, so that a message ahead of its commit need not come back.
    """

    by_row = False
    work: Work

    async def open(self) -> Rig:
        """`rig(work)` with a fresh Work."""
        self.work = Work()
        return await self.rig(self.work)

    async def rig(self, work: Work) -> Rig:
        """A handler of `work.app` over an empty store."""
        raise NotImplementedError

    @case
    async def test_a_run_goes_from_wake_up_to_wake_up_until_it_ends(self, rig: Rig) -> None:
        handle = await rig.client.start("nap", 60, id="n")
        await rig.advance(30)
        assert await handle.status() == "pending"
        await rig.advance(60)
        assert await handle.result(0) == "before after"
        assert self.work.ran == {"before": 1, "after": 1}

    @case
    async def test_an_early_delivery_changes_nothing_and_loses_nothing(self, rig: Rig) -> None:
        handle = await rig.client.start("nap", 3600, id="n")
        await rig.advance(1)
        version = (await handle.view()).version
        await rig.deliver(Wake("n", version))
        assert await handle.status() == "pending"
        await rig.advance(2 * 3600)
        assert await handle.result(0) == "before after"

    @case
    async def test_repeated_deliveries_run_nothing_twice(self, rig: Rig) -> None:
        handle = await rig.client.start("nap", 60, id="n")
        for _ in range(5):
            await rig.deliver(Wake("n"))
        await rig.advance(120)
        for _ in range(5):
            assert await rig.deliver(Wake("n")), "a settled run owes nobody anything"
        assert await handle.result(0) == "before after"
        assert self.work.ran == {"before": 1, "after": 1}

    @case
    async def test_a_message_ahead_of_the_store_comes_back(self, rig: Rig) -> None:
        """Rule W2: it was armed for a commit that is not there yet."""
        await rig.client.start("nap", 60, id="n")
        await rig.advance(1)
        version = (await rig.client.get("n")).version
        assert await rig.deliver(Wake("n", version + 5)) is self.by_row

    @case
    async def test_an_unknown_id_creates_nothing(self, rig: Rig) -> None:
        await rig.deliver(Wake("nobody", 3))
        assert await rig.client.search() == ([], None)

    @case
    async def test_nothing_is_acknowledged_while_the_store_is_away(self, rig: Rig) -> None:
        handle = await rig.client.start("nap", 60, id="n")
        rig.broken(True)
        assert not await rig.deliver(Wake("n"))
        rig.broken(False)
        await rig.advance(600)
        assert await handle.result(0) == "before after"
        assert self.work.ran["after"] == 1

    @case
    async def test_a_back_off_is_waited_for_outside(self, rig: Rig) -> None:
        self.work.failures = 2
        handle = await rig.client.start("nap", 1, id="n")
        await rig.advance(1)
        assert self.work.ran["before"] == 1
        await rig.advance(600)
        assert await handle.result(0) == "before after"
        assert self.work.ran["before"] == 3

    @case
    async def test_a_promise_settled_from_outside_wakes_its_run(self, rig: Rig) -> None:
        handle = await rig.client.start("ask", id="a")
        await rig.advance(30)
        await rig.client.resolve("a.1", {"yes": True})
        await rig.advance(30)
        assert await handle.result(0) == {"yes": True}

    @case
    async def test_children_wake_their_parent(self, rig: Rig) -> None:
        handle = await rig.client.start("fan", 25, id="f")
        await rig.advance(120)
        assert await handle.result(0) == 25

    @case
    async def test_a_poisoned_run_is_halted_in_sight_and_goes_on_when_continued(self, rig: Rig) -> None:
        """Rule W9: exhaustion is a state, not a leak."""
        self.work.poisoned = True
        handle = await rig.client.start("poison", id="p")
        await rig.advance(60)
        view = await handle.view()
        assert view.task == TaskState.HALTED.value
        assert view.reason is not None
        assert "poisoned" in view.reason
        assert await rig.deliver(Wake("p")), "a halted run owes nobody anything"
        self.work.poisoned = False
        await rig.client.continue_("p")
        await rig.advance(60)
        assert await handle.result(0) == "mended"
