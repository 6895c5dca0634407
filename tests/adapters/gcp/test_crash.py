"""The adapter in a simulation: its process dies before and after every request to Firestore and Cloud Tasks in turn.

The store is the emulator, the queue is on a virtual clock, and a process that died has no further effect on either.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter

import pytest

from everstep import App, Context
from everstep.promise import State

from .rig import FunctionRig
from .test_auth import keys

pytestmark = pytest.mark.xdist_group("firestore")

THOROUGH = bool(os.environ.get("EVERSTEP_FIRESTORE_QUIET"))
"""A soak dies at every request in both ways of invocation; otherwise at every third one in the second way."""
LEASE = 31
BACK_OFF = 60


class Trip:
    """A run with a step, a timer, a child and a promise, and how often each of its steps ran."""

    def __init__(self) -> None:
        self.ran: Counter[str] = Counter()
        self.app = app = App("trip")

        @app.step
        def note(id: str) -> str:
            self.ran[id] += 1
            return id

        @app.workflow
        async def hotel(ctx: Context, number: int) -> int:
            return number * 2

        @app.workflow
        async def trip(ctx: Context, id: str) -> list[object]:
            first = await ctx.run(note, f"{id} first")
            await ctx.run(note, f"{id} second")
            await ctx.sleep(5)
            booked = await ctx.rpc(hotel, 21)
            return [first, booked, await ctx.run(note, f"{id} last")]


async def go(rig: FunctionRig, id: str) -> None:
    handle = await rig.client.start("trip", id, id=id)
    for _ in range(4):
        await rig.advance(LEASE + BACK_OFF)
        if await handle.status() != State.PENDING.value:
            break
    assert await handle.result(0) == [f"{id} first", 42, f"{id} last"]


@pytest.mark.parametrize("steps", [None, 1], ids=["until blocked", "step by step"])
def test_a_process_that_dies_at_any_request_is_survived(steps: int | None, project: str) -> None:
    async def scenario() -> None:
        trip = Trip()
        rig = FunctionRig(trip.app, project, keys, steps)
        try:
            with rig.fate as fate:
                await go(rig, "whole")
                moments = fate.moments
                assert moments > 20
                for at in range(1, moments + 1, 1 if steps is None or THOROUGH else 3):
                    id = f"dies-{at}"
                    fate.moments, fate.dies_at = 0, at
                    rig.function.cold()
                    await go(rig, id)
                    assert fate.moments > at, "it died, and another one went on"
                    assert sum(trip.ran[f"{id} {step}"] for step in ("first", "second", "last")) <= 4
                await rig.advance(600)
                assert rig.dispatcher.waiting == 0, "no wake-up is left behind"
                assert rig.dispatcher.slowed == 0
                report = await rig.client.verify()
                assert report.problems == []
        finally:
            await rig.close()

    asyncio.run(scenario())
