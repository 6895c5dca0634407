"""What pg_cron calls: the bell, once for a due instant and again if nothing moved; and the purge of what is over."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from everstep.clock import NEVER
from everstep.promise import EMPTY, RETENTION, Kind, Schedule, State
from everstep.rows import schedule_row
from everstep.testing.conformance.rows import row, write
from everstep_supabase.store import PostgresStore
from tests.adapters.supabase.conftest import migration
from tools.components import postgres

pytestmark = pytest.mark.xdist_group("supabase")


def ask(dsn: str, statement: str) -> Any:
    with psycopg.connect(dsn, autocommit=True) as connection:
        found = connection.execute(statement.encode())
        return found.fetchall() if found.description is not None else None


def put(dsn: str, *rows: Any) -> None:
    async def scenario() -> None:
        store = PostgresStore(dsn)
        await write(store, *rows)
        await store.close()

    asyncio.run(scenario())


def queued(dsn: str) -> list[Any]:
    return [json.loads(body) for (body,) in ask(dsn, "delete from net.http_request_queue returning body")]


@pytest.fixture
def rung(project: str) -> str:
    ask(project, "select vault.create_secret('http://127.0.0.1:9/wake', 'everstep_url')")
    return project


def test_the_bell_rings_once_for_a_due_instant_and_again_after_a_while(rung: str) -> None:
    put(rung, row("a", due=1), row("b", due=2**52), row("c"))
    assert ask(rung, "select everstep.ring()") == [(1,)]
    assert queued(rung) == [{"id": "a", "version": 0}]
    assert ask(rung, "select everstep.ring()") == [(0,)]
    assert ask(rung, "select everstep.ring(again => 0)") == [(0,)]
    ask(rung, "update everstep.bells set again_at = 0")
    assert ask(rung, "select everstep.ring()") == [(1,)]
    ask(rung, "update everstep.rows set due = 2 where id = 'a'")
    assert ask(rung, "select everstep.ring()") == [(1,)], "another instant is another bell"
    ask(rung, "truncate everstep.bells")
    assert ask(rung, "select everstep.ring()") == [(1,)], "an emptied table of bells rings once more"


def test_a_poke_calls_the_function_at_once_and_the_bell_does_not_repeat_it(rung: str) -> None:
    put(rung, row("a", due=1))
    ask(rung, "select everstep.poke('a')")
    assert queued(rung) == [{"id": "a", "version": 0}]
    assert ask(rung, "select everstep.ring()") == [(0,)]


def test_without_a_url_nothing_is_sent_and_nothing_fails(project: str) -> None:
    put(project, row("a", due=1))
    ask(project, "select everstep.poke('a')")
    ask(project, "select everstep.ring()")
    assert queued(project) == []


def test_the_purge_takes_settled_trees_past_their_retention_and_nothing_else(project: str) -> None:
    def settled(id: str, at: int = 1, keep: str | None = "1000", **more: Any) -> Any:
        tags = json.dumps({RETENTION: keep}, separators=(",", ":")) if keep is not None else None
        return row(id, state=State.RESOLVED.value, settled_at=at, tags=tags, branch=id, **more)

    put(
        project,
        settled("gone"), row("gone.1"), row("gone.1.1"), settled("gone2"),
        settled("fresh", at=2**52), row("fresh.1"),
        settled("ever", keep=None),
        settled("awaited", rest='{"c":["x"]}'), settled("listened", rest='{"l":["x"]}'),
        settled("odd", keep="soon"), settled("huge", keep="9" * 30),
        row("pending", tags=json.dumps({RETENTION: "1"}, separators=(",", ":"))),
        row("gone-not"),
    )  # fmt: skip
    ask(project, "insert into cron.job_run_details (end_time) values (now() - interval '2 days'), (now())")
    assert ask(project, "select everstep.purge()") == [(4,)]
    left = [id for (id,) in ask(project, "select id from everstep.rows order by id")]
    assert left == sorted(["fresh", "fresh.1", "ever", "awaited", "listened", "odd", "huge", "pending", "gone-not"])
    assert ask(project, "select count(*) from cron.job_run_details") == [(1,)]
    assert ask(project, "select everstep.purge()") == [(0,)]


def test_the_purge_takes_the_runs_of_schedules_one_by_one(project: str) -> None:
    """Their ids have a dot, and they share an origin."""

    def run(id: str, state: State = State.RESOLVED, at: int | None = 1, kind: str = Kind.ROOT) -> Any:
        tags = json.dumps({RETENTION: "1000"}, separators=(",", ":"))
        return row(id, kind=kind, state=state.value, settled_at=at, tags=tags, branch=id)

    schedule = Schedule("n", "* * * * *", "{{.id}}.{{.timestamp}}", NEVER, EMPTY, {}, 1, 2)
    other = schedule._replace(id="odd", promise_id="tick-{{.timestamp}}")
    put(
        project,
        schedule_row(schedule), schedule_row(other),
        run("n.100"), row("n.100.1"), row("n.100.1.2"), run("n.1000"),
        run("n.200", at=2**52), row("n.200.1"), run("n.300", State.PENDING, None), row("n.300.1"),
        run("n.400", kind=Kind.STEP), run("m.100"), run("n-1.100"),
    )  # fmt: skip
    assert ask(project, "select everstep.purge()") == [(4,)]
    left = [id for (id,) in ask(project, "select id from everstep.rows where kind <> 'schedule' order by id")]
    assert left == sorted(["n.200", "n.200.1", "n.300", "n.300.1", "n.400", "m.100", "n-1.100"])


def test_an_older_pg_cron_gets_a_minutely_job_that_loops(supabase_server: postgres.Server) -> None:
    jobs = "select jobname, schedule from cron.job order by jobname"
    assert ask(supabase_server.dsn, jobs) == [("everstep", "1 second"), ("everstep-purge", "17 * * * *")]
    ask(supabase_server.dsn, "drop database if exists older with (force)")
    ask(supabase_server.dsn, "create database older")
    dsn = supabase_server.dsn.rsplit("/", 1)[0] + "/older"
    standins = (Path(__file__).parent / "standins.sql").read_text()
    older = "\n".join(line for line in standins[standins.index("create schema cron") :].splitlines())
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            older.replace("if schedule !~* '^\\s*([1-9]|[1-5][0-9])\\s+seconds?\\s*$' and", "if").encode()
        )
        connection.execute(migration())
        connection.execute(migration())
    assert ask(dsn, jobs) == [("everstep", "* * * * *"), ("everstep-purge", "17 * * * *")]
    ask(dsn, "select vault.create_secret('http://127.0.0.1:9/wake', 'everstep_url')")
    put(dsn, row("a", due=1))
    ask(dsn, "call everstep.ring_for_a_minute(1)")
    assert queued(dsn) == [{"id": "a", "version": 0}]
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(migration("everstep_down"))
    assert ask(dsn, jobs) == []
