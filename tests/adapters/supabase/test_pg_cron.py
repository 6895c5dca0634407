"""The real pg_cron: it takes the migration's jobs, runs them by its own workers, and forgets them with the schema."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from everstep.testing.conformance.rows import row, write
from everstep_supabase.store import PostgresStore
from tests.adapters.supabase.conftest import migration
from tests.components import requires_component
from tools.components import pg_cron, postgres

BINARIES = pg_cron.find()
requires_component("pg_cron", hint=pg_cron.HINT, present=BINARIES is not None, installable=False)

SETTINGS = {
    "shared_preload_libraries": "pg_cron",
    "cron.database_name": "postgres",
    "cron.use_background_workers": "on",
    "fsync": "off",
}


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    """The stand-ins of everything but pg_cron."""
    text = (Path(__file__).parent / "standins.sql").read_text()
    others = text[: text.index("create schema cron;")] + text[text.index("create schema net;") :]
    with postgres.Server(BINARIES, settings=SETTINGS) as server:
        ask(server, others)
        ask(server, "create extension pg_cron")
        ask(server, migration().decode())
        ask(server, "select vault.create_secret('http://127.0.0.1:9/wake', 'everstep_url')")
        yield server


def ask(server: postgres.Server, statement: str) -> list[Any]:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        found = connection.execute(statement.encode())
        return found.fetchall() if found.description is not None else []


def put(server: postgres.Server, id: str) -> None:
    async def scenario() -> None:
        store = PostgresStore(server.dsn)
        await write(store, row(id, due=1))
        await store.close()

    asyncio.run(scenario())


def rung(server: postgres.Server) -> str:
    """The id that the bell rings for; in a queue that nobody empties but this."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if found := ask(server, "delete from net.http_request_queue returning body"):
            ((body,),) = found
            return str(json.loads(bytes(body))["id"])
        time.sleep(0.05)
    raise AssertionError(f"nobody rang: {ask(server, 'select * from cron.job_run_details')}\n{server.log.read_text()}")


def knows_seconds(server: postgres.Server) -> bool:
    ((version,),) = ask(server, "select extversion from pg_extension where extname = 'pg_cron'")
    major, minor = re.findall(r"\d+", version)[:2]
    return (int(major), int(minor)) >= (1, 5)


def test_it_takes_the_jobs_of_the_migration(server: postgres.Server) -> None:
    bell = ("1 second", "select everstep.ring()") if knows_seconds(server) else ("* * * * *", RINGING)
    for _ in range(2):
        jobs = ask(server, "select jobname, schedule, command, active from cron.job order by jobname")
        assert jobs == [
            ("everstep", *bell, True),
            ("everstep-purge", "17 * * * *", "select everstep.purge()", True),
        ]
        ask(server, migration().decode())


RINGING = "call everstep.ring_for_a_minute()"


def test_its_worker_rings_for_what_is_due_and_goes_on_ringing(server: postgres.Server) -> None:
    """A job of a minute would have to be waited for; the same one at the start of the server need not be."""
    if not knows_seconds(server):
        ask(server, f"select cron.schedule('everstep', '@reboot', '{RINGING}')")
        put(server, "a")
        server.stop()
        server.start()
    else:
        put(server, "a")
    assert rung(server) == "a"
    put(server, "b")  # while the procedure is in its loop, which commits: else nothing would leave pg_net
    assert rung(server) == "b"
    ((said, status),) = ask(
        server, "select distinct command, status from cron.job_run_details where status <> 'failed'"
    )
    assert (said, status) == (RINGING, "running") or knows_seconds(server)


def test_its_diary_is_purged(server: postgres.Server) -> None:
    ask(
        server,
        "insert into cron.job_run_details (jobid, runid, status, end_time)"
        " values (9, 900001, 'succeeded', now() - interval '25 hours'), (9, 900002, 'succeeded', now())",
    )
    ask(server, "select everstep.purge()")
    assert ask(server, "select runid from cron.job_run_details where runid > 900000") == [(900002,)]


def test_it_forgets_the_jobs_when_the_migration_is_undone(server: postgres.Server) -> None:
    ask(server, migration("everstep_down").decode())
    assert ask(server, "select * from cron.job") == []
    ask(server, migration().decode())
    assert len(ask(server, "select * from cron.job")) == 2
