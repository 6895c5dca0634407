"""Systems on this platform: the countdown (3), encrypted payments (39) and recursive research (46), by the modules that
every platform runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import psycopg
import pytest

from everstep import App, Codec
from tests.adapters.supabase.sim import Platform
from tests.systems import test_03_countdown as system_3
from tests.systems import test_39_encryption as system_39
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


def test_the_countdowns_journal_is_the_embedded_one(dsn: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        wanted = await system_3.on_a_file(tmp_path)
        system_3.outside()
        platform = Platform(system_3.app, dsn)
        try:
            await platform.client.start("countdown", 5, 60.0, id="c")
            await platform.until_settled("c")
            assert system_3.journal(await platform.client.tree("c")) == wanted
        finally:
            await platform.client.store.delete("c")
            await platform.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("sealed", [False, True])
def test_nothing_of_a_customer_can_be_read_in_the_table(dsn: str, sealed: bool) -> None:
    async def scenario() -> None:
        app = system_39.shop(Codec(encryptor=system_39.aes()) if sealed else Codec())
        app.provide(World(script={"validate": ["fail"]}))
        id = f"o-{sealed}"

        async def answered(platform: Platform) -> None:
            if f"{id}.4" in await platform.client.store.load([f"{id}.4"]):
                await platform.client.resolve(f"{id}.4", system_39.SECRET)

        platform = Platform(app, dsn)
        try:
            await platform.client.start("pay", system_39.CARD, system_39.NAME, 4200, id=id)
            await platform.until_settled(id, act=answered)
            assert await platform.client.handle(id).result(0) == system_39.RESULT
            with psycopg.connect(dsn) as connection:
                rows = connection.execute("select one::text from everstep.rows one").fetchall()
        finally:
            await platform.client.store.delete(id)
            await platform.close()
        assert len(rows) > 5
        found = system_39.in_clear(rows)
        assert found == [] if sealed else len(found) > 3, "the dump would show it"

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
