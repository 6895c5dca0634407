"""Systems on this platform: the countdown (3) and recursive research (46), by the modules that every platform runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from everstep import App
from tests.adapters.supabase.sim import Platform
from tests.systems import test_03_countdown as system_3
from tests.systems import test_46_deep_research as system_46
from tests.systems.scaffold import World

pytestmark = pytest.mark.xdist_group("postgres")


async def killed(
    app: App, dsn: str, id: str, workflow: Any, args: tuple[Any, ...], at: int | None
) -> tuple[Any, int, Any]:
    """The result of a run whose first instance dies at this database call, how many calls that one made, the journal.

    A timer that came due while its run was held has a record of its own, which says nothing (rule B1).
    """
    platform = Platform(app, dsn, at)
    try:
        await platform.client.start(workflow, *args, id=id)
        await platform.until_settled(id)
        result = await platform.client.handle(id).result(0)
        assert (await platform.client.verify()).problems == []
        rows = await platform.client.store.branch(id)
        journal = sorted((row.id, row.kind, row.param, row.value) for row in rows if row.kind != "timer")
        return result, platform.store.calls, journal
    finally:
        await platform.client.store.delete(id)
        await platform.close()


def test_the_countdown_keeps_its_journal_wherever_it_is_killed(dsn: str) -> None:
    async def scenario() -> None:
        world = system_3.outside()
        result, calls, journal = await killed(system_3.app, dsn, "c", "countdown", (5, 60.0), None)
        assert [one["text"] for one in world.effects("post")] == system_3.WANTED
        for point in range(0, 2 * calls, 5):  # each of them is visited in test_kills.py
            world = system_3.outside()
            again = await killed(system_3.app, dsn, "c", "countdown", (5, 60.0), point)
            assert (again[0], again[2]) == (result, journal)
            told = [one["text"] for one in world.effects("post")]
            # Only the one in flight may have gone out twice, and twice in a row.
            assert list(dict.fromkeys(told)) == system_3.WANTED
            assert len(told) <= len(system_3.WANTED) + 1

    asyncio.run(scenario())


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_research_reaches_the_same_answer_with_the_same_calls(dsn: str, depth: int) -> None:
    async def scenario() -> None:
        world = system_46.app.provide(World())
        result, calls, _ = await killed(system_46.app, dsn, "r", "research", ("tides", depth), None)
        assert result == system_46.ANSWER[depth]
        assert len(world.effects("model")) == system_46.CALLS[depth]
        for point in range(0, 2 * calls, (1, 5, 17)[depth]):
            world = system_46.app.provide(World())
            assert (await killed(system_46.app, dsn, "r", "research", ("tides", depth), point))[0] == result
            assert len(world.effects("model")) <= system_46.CALLS[depth] + 1

    asyncio.run(scenario())
