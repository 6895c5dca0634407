"""Systems 3, 37, 39 and 46 on Google Cloud: on Firestore and Cloud Tasks, in both ways of invocation, with the process
killed at its requests. A dead process has no further effect, and the task that it held is delivered to the next one."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from everstep import App, Codec
from everstep.ports import Wake
from everstep.views import TreeView
from tests.systems import test_03_countdown as system_3
from tests.systems import test_37_infinite_chess as system_37
from tests.systems import test_39_encryption as system_39
from tests.systems.scaffold import World
from tests.systems.test_46_deep_research import ANSWER, CALLS, app, research
from tests.templates_by_path import template

from .rig import FunctionRig
from .test_auth import keys

pytestmark = pytest.mark.xdist_group("firestore")
BOTH = pytest.mark.parametrize("steps", [None, 1], ids=["until blocked", "step by step"])
SAMPLED = 10**6 if os.environ.get("EVERSTEP_SOAK") else 8


async def run(
    app: App, project: str, steps: int | None, id: str, workflow: str, *args: Any, dies_at: int | None = None
) -> tuple[TreeView, int]:
    """A run whose process dies at that moment, before a request or after it; and how many moments there were."""
    rig = FunctionRig(app, project, keys, steps)
    try:
        with rig.fate as fate:
            fate.dies_at = dies_at
            handle = await rig.client.start(workflow, *args, id=id)
            for _ in range(12):
                await rig.advance(100)  # beyond a lease, and the queue's back-off
                if not (await handle.view()).pending:
                    break
            return await rig.client.tree(id), fate.moments
    finally:
        await rig.close()


async def whole_and_killed(check: Callable[[TreeView, bool], None], new: Callable[[], object], *given: Any) -> None:
    """Undisturbed, and then killed at some of its moments: `check` is told whether it was."""
    app, project, steps, name, *rest = given
    new()
    tree, moments = await run(app, project, steps, f"{name}-0", name, *rest)
    check(tree, False)
    for at in sorted(random.Random(moments).sample(range(1, moments), min(SAMPLED, moments - 1))):
        new()
        tree, reached = await run(app, project, steps, f"{name}-{at}", name, *rest, dies_at=at)
        assert reached > at, "it died, and another one went on"
        check(tree, True)


@BOTH
def test_the_countdowns_journal_is_the_embedded_one_though_killed(
    steps: int | None, project: str, tmp_path: Path
) -> None:
    """System 3."""

    async def scenario() -> None:
        wanted = [(id.partition(".")[2], *rest) for id, *rest in await system_3.on_a_file(tmp_path)]
        worlds: list[World] = []

        def check(tree: TreeView, killed: bool) -> None:
            posted = [one["text"] for one in worlds[-1].effects("post")]
            assert list(dict.fromkeys(posted)) == system_3.WANTED
            assert len(posted) <= len(system_3.WANTED) + killed
            assert [(id.partition(".")[2], *rest) for id, *rest in system_3.journal(tree)] == wanted

        def new() -> None:
            worlds.append(system_3.outside())

        await whole_and_killed(check, new, system_3.app, project, steps, "countdown", 5, 0.01)

    asyncio.run(scenario())


@BOTH
def test_a_game_killed_at_its_requests_thinks_of_no_recorded_move_again(steps: int | None, project: str) -> None:
    """System 37."""

    async def scenario() -> None:
        worlds: list[World] = []

        def check(tree: TreeView, killed: bool) -> None:
            assert tree.promise.value == "1/2-1/2"
            pictures = [(one["game"], one["ply"]) for one in worlds[-1].effects("publish")]
            assert list(dict.fromkeys(pictures))[:4] == [(1, ply) for ply in (1, 2, 3, 4)]
            again = worlds[-1].count("move") + len(pictures) - 2 * len(set(pictures))
            assert again <= killed, "the one under way, and no other"

        await whole_and_killed(
            check, lambda: worlds.append(system_37.provide()), system_37.app, project, steps, "chess", 1, 50.0, 4
        )

    asyncio.run(scenario())


@BOTH
def test_research_killed_at_its_requests_says_the_same_and_asks_nothing_again(steps: int | None, project: str) -> None:
    """System 46."""

    async def scenario() -> None:
        worlds: list[World] = []

        def check(tree: TreeView, killed: bool) -> None:
            assert tree.promise.value == ANSWER[2]
            assert worlds[-1].count("model") <= CALLS[2] + killed

        new: Callable[[], object] = lambda: worlds.append(app.provide(World()))  # noqa: E731
        await whole_and_killed(check, new, app, project, steps, "research", "tides", 2)

    asyncio.run(scenario())


def test_nothing_of_a_customer_can_be_read_in_the_documents(project: str) -> None:
    """System 39."""

    async def scenario() -> None:
        from google.cloud import firestore

        for codec, found in ((Codec(), 3), (Codec(encryptor=system_39.aes()), 0)):
            shop = system_39.shop(codec)
            shop.provide(World(script={"validate": ["fail"]}))
            id = f"order-{found}"
            rig = FunctionRig(shop, project, keys, None)
            try:
                handle = await rig.client.start("pay", system_39.CARD, system_39.NAME, 4200, id=id)
                await rig.advance(100)
                await rig.client.resolve(f"{id}.4", system_39.SECRET)
                await rig.advance(100)
                assert await handle.result(0) == system_39.RESULT
            finally:
                await rig.close()
            documents = [
                (one.id, one.to_dict())
                for each in firestore.Client(project=project).collections()
                for one in each.stream()
            ]
            dump = [text for name, text in documents if id in name]
            assert len(dump) > 5
            assert len(system_39.in_clear(dump)) >= found
            assert found or system_39.in_clear(dump) == []

    asyncio.run(scenario())


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
