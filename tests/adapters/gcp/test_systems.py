"""Systems 3 and 46 on Google Cloud: the countdown of the template, and research that splits itself, on Firestore and
Cloud Tasks in both ways of invocation."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from everstep.ports import Wake
from tests.systems.scaffold import World
from tests.systems.test_46_deep_research import ANSWER, CALLS, app, research
from tests.templates_by_path import template

from .rig import FunctionRig
from .test_auth import keys

pytestmark = pytest.mark.xdist_group("firestore")
BOTH = pytest.mark.parametrize("steps", [None, 1], ids=["until blocked", "step by step"])


@BOTH
def test_research_splits_itself_over_instances_that_come_and_go(steps: int | None, project: str) -> None:
    """System 46."""

    async def scenario() -> None:
        world = app.provide(World())
        rig = FunctionRig(app, project, keys, steps)
        try:
            handle = await rig.client.start(research, "tides", 2, id="r")
            for _ in range(40):
                await rig.advance(0.5)
                rig.function._threads.stop()
                rig.born()
            await rig.advance(600)
            assert await handle.result(0) == ANSWER[2]
            assert world.count("model") == CALLS[2], "no prompt is paid for twice"
        finally:
            await rig.close()

    asyncio.run(scenario())


class Heard:
    """Keeps what a countdown says."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def send(self, id: str, text: str) -> None:
        self.said.append((id, text))


@BOTH
def test_a_countdown_over_three_months_in_hops(steps: int | None, project: str) -> None:
    """System 3, with pauses that no task can wait for at once, every delivery made twice, and early ones in between."""

    async def scenario() -> None:
        countdown = template("countdown")
        heard = Heard()
        notifier: Any = type("Said", (countdown.Notifier,), {"send": lambda self, id, text: heard.send(id, text)})
        countdown.app.provide(notifier())
        rig = FunctionRig(countdown.app, project, keys, steps)
        rig.dispatcher.duplicates = 1.0
        day = 86_400
        try:
            handle = await rig.client.start(countdown.countdown, 2, 45.0 * day, id="slow")
            for _ in range(5):
                await rig.advance(20 * day)
                await rig.deliver(Wake("slow", (await handle.view()).version or 0))
            assert await handle.result(0) == "counted down from 2"
            assert heard.said == [("slow.1", "2"), ("slow.3", "1"), ("slow.5", "Done")]
            await rig.advance(day)
            assert rig.dispatcher.waiting == 0
        finally:
            await rig.close()

    asyncio.run(scenario())
