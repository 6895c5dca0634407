"""The doorbell and the worker that listens: it is woken by what it is told, by the next due instant, and no more."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from everstep import App, Client, Context
from everstep.clock import VirtualClock
from everstep.local import Runtime
from everstep.ports import Put, Wake
from everstep.testing.conformance import Rig, WakerSuite
from everstep.testing.conformance.rows import commit
from everstep_supabase.listening import ListeningWaker
from everstep_supabase.store import PostgresStore

pytestmark = pytest.mark.xdist_group("postgres")


class ListeningRig:
    """A worker's loop in miniature on a virtual clock."""

    def __init__(self, dsn: str) -> None:
        self.store = PostgresStore(dsn)
        self.waker = ListeningWaker(self.store)
        self.clock = VirtualClock()

    def now(self) -> int:
        return self.clock.now()

    async def advance(self, to: int) -> list[Wake]:
        delivered = []
        while True:
            at = self.waker.next_at()
            self.clock.set(max(self.now(), min(to, at if at is not None else to)))
            delivered += self.waker.take(self.now())
            due = await self.store.due(self.now(), 1000)
            for standing in (await self.store.load([entry.id for entry in due])).values():
                await self.store.commit(commit(Put(standing._replace(rev=standing.rev + 1, due=None), standing.rev)))
            delivered += [Wake(entry.id) for entry in due]
            if self.now() >= to:
                return delivered

    async def close(self) -> None:
        await self.waker.close()
        await self.store.close()


class TestListening(WakerSuite):
    @pytest.fixture(autouse=True)
    def _database(self, dsn: str) -> None:
        self.dsn = dsn

    async def open(self) -> Rig:
        return ListeningRig(self.dsn)


app = App("worker")


@app.workflow
async def nap(ctx: Context, seconds: float) -> str:
    await ctx.sleep(seconds)
    return "awake"


@app.workflow
async def ask(ctx: Context) -> Any:
    return await ctx.promise()


class Quiet(PostgresStore):
    """Counts how often a worker looks, and never looks by itself."""

    looks = 0

    async def due(self, now: int, limit: int) -> list[Any]:
        self.looks += 1
        return await super().due(now, limit)

    def local_waker(self) -> ListeningWaker:
        waker = super().local_waker()
        waker.idle = 3600
        return waker


async def soon(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def test_a_worker_hears_of_what_others_start_and_settle(dsn: str) -> None:
    """With an hour between its own looks, all it goes by is what it is told and the next due instant."""

    async def scenario() -> None:
        store = Quiet(dsn)
        async with Runtime(app, store) as runtime:
            serving = asyncio.create_task(runtime.serve())
            client = Client.open(dsn, app=app)
            await soon(lambda: _listening(client))
            handle = await client.start("nap", 0.3, id="n")
            assert await handle.result(20) == "awake"
            question = await client.start("ask", id="q")
            await soon(lambda: _exists(client, "q.1"))
            await client.resolve("q.1", 42)
            assert await question.result(20) == 42
            await asyncio.sleep(0.2)
            looks = store.looks
            await asyncio.sleep(0.7)
            assert store.looks == looks, "nothing happened, and it looked"
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            await client.close()

    asyncio.run(scenario())


def test_a_worker_that_lost_its_connection_listens_again(dsn: str) -> None:
    async def scenario() -> None:
        store = Quiet(dsn)
        async with Runtime(app, store) as runtime:
            serving = asyncio.create_task(runtime.serve())
            client = Client.open(dsn, app=app)
            await soon(lambda: _listening(client))
            assert isinstance(client.store, PostgresStore)
            async with client.store.pool.connection() as connection:
                await connection.execute(
                    b"select pg_terminate_backend(pid) from pg_stat_activity where query = 'listen everstep'"
                )
            await soon(lambda: _listening(client))
            handle = await client.start("nap", 0, id="n")
            assert await handle.result(20) == "awake"
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            await client.close()

    asyncio.run(scenario())


async def _listening(client: Client) -> bool:
    assert isinstance(client.store, PostgresStore)
    async with client.store.pool.connection() as connection:
        cursor = await connection.execute(b"select 1 from pg_stat_activity where query = 'listen everstep'")
        return await cursor.fetchone() is not None


async def _exists(client: Client, id: str) -> bool:
    return id in await client.store.load([id])


def test_the_command_line_runs_on_postgres_and_never_shows_the_password(dsn: str, tmp_path: Path) -> None:
    (tmp_path / "naps.py").write_text(
        "from everstep import App, Context\n"
        "app = App('naps')\n"
        "@app.workflow\n"
        "async def nap(ctx: Context, seconds: float) -> str:\n"
        "    await ctx.sleep(seconds)\n"
        "    return 'awake'\n"
    )
    command = [sys.executable, "-m", "everstep.cli", "run", "naps:app", "nap", "0.1", "--id", "n", "--store", dsn]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    for _ in range(2):
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout.strip()) == (0, '"awake"'), done.stderr
        assert dsn.split(":")[2].split("@")[0] not in done.stderr


def test_a_url_is_shown_without_its_password() -> None:
    from everstep.cli.words import without_password

    assert without_password("postgresql://u:p@ss:w@host:5/db") == "postgresql://u:***@host:5/db"
    assert without_password("postgresql://user:secret@host:5432/db") == "postgresql://user:***@host:5432/db"
    assert without_password("sqlite:///everstep.db") == "sqlite:///everstep.db"
