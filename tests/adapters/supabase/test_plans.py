"""What a request costs does not depend on what sleeps beside it: every statement uses its index, none scans the table.

EVERSTEP_PG_ROWS=1000000 looks at a million records (`make soak`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from everstep.ports import Beside, Claim, Commit, Fence, Guard, Put, Query
from everstep.promise import TARGET, Kind, Plan, Record, State, Task, TaskState
from everstep.rows import to_row
from everstep.testing.conformance.rows import commit, row
from everstep_supabase import store
from everstep_supabase.rows import COLUMNS, claim_parameters, commit_request, find_request, text_of

pytestmark = pytest.mark.xdist_group("postgres")

ROWS = int(os.environ.get("EVERSTEP_PG_ROWS", "20000"))

FILL = """
insert into everstep.rows (id, branch, kind, state, rev, due, created_at, settled_at, param, value)
select case when n % 10 = 0 then 'r' || n / 10 else 'r' || n / 10 || '.' || n % 10 end, 'r' || n / 10,
       case when n % 10 = 0 then 'root' else 'step' end,
       case when n % 100 = 0 then 'pending' else 'resolved' end, 1,
       case when n % 100 = 0 then 1000000 + n end, n, case when n % 100 > 0 then n end, '["charge",[1]]', '"x"'
from generate_series(0, %s - 1) n
"""


Connection = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def filled(server: Any) -> Iterator[str]:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("truncate everstep.rows")
        connection.execute(FILL.replace("%s", str(ROWS)).encode())
        with connection.cursor() as cursor:
            names, marks = ", ".join(COLUMNS), ", ".join(["%s"] * len(COLUMNS))
            sql = f"insert into everstep.rows ({names}) values ({marks})"
            cursor.executemany(sql.encode(), [to_row(record) for record in (SLEEPER, *AWAITED)])
        connection.execute("vacuum analyze everstep.rows")
    yield server.dsn
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("truncate everstep.rows")


@pytest.fixture
def connection(filled: str) -> Iterator[Connection]:
    with psycopg.connect(filled, cursor_factory=psycopg.RawCursor) as connection:
        yield connection
        connection.rollback()


def scans(connection: Connection, sql: str, parameters: list[Any]) -> int:
    """How often the statement, with the functions it calls, read the whole table."""
    connection.rollback()
    connection.execute("set local plan_cache_mode = force_generic_plan")
    connection.execute(sql.encode(), [str(one) if isinstance(one, int) else one for one in parameters])
    whole = connection.execute(
        "select seq_scan from pg_stat_xact_user_tables where relid = 'everstep.rows'::regclass"
    ).fetchone()
    assert whole is not None
    return int(whole[0])


def plan(connection: Connection, sql: str, parameters: list[Any]) -> str:
    lines = connection.execute(
        f"explain (costs off) {sql}".encode(), [str(one) if isinstance(one, int) else one for one in parameters]
    ).fetchall()
    return "\n".join(line for (line,) in lines)


KEYS = [f"sleeper.{n}" for n in range(1, 41)]
SLEEPER = Record(
    "sleeper",
    State.PENDING,
    Kind.ROOT,
    "sleeper",
    tags={TARGET: "everstep://shop"},
    rev=1,
    task=Task(
        TaskState.SUSPENDED,
        3,
        tree=("any", "sleeper.99", "sleeper.98", ("all", *KEYS)),
        timers=(("sleeper.99", 2**50),),
        foreign=(("sleeper.98", "r8"),),
        planned=Plan(9, ("sleeper.50",)),
    ),
)
AWAITED = [Record(key, State.RESOLVED, Kind.PROMISE, "sleeper", settled_at=5, rev=1) for key in KEYS]
CLAIM = Claim("everstep://shop", "i1", 60_000, 10**9)
RESUME = store._RESUME.decode()
STEP = Put(row("r7.20", state="resolved"), 0)
CHANGE = Put(row("r7", rev=2, state="resolved", due=5), 1)
MANY = Commit(
    "r7", (CHANGE, STEP, Put(row("r7.21"), 0)), ("r7.1", "r7.2"), Fence("r7", 1), (Guard("r7.3", 1), Guard("r7.30", 0))
)


def request(of: Commit) -> list[Any]:
    return [text_of(commit_request(of))]


def found(query: Query) -> list[Any]:
    return [text_of(find_request(query, query.limit, query.cursor))]


def single(of: Commit) -> tuple[str, list[Any]]:
    made = store._single(of.puts[0], of.fence)
    assert made is not None
    return made[0].decode(), list(made[1])


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        pytest.param(store._DUE, [10**9, 20], id="due"),
        pytest.param(store._BRANCH, ["r7"], id="preload"),
        pytest.param("select * from everstep.branch($1)", ["r7"], id="preload by function"),
        pytest.param(store._LOAD, [["r7", "r8.1", "nobody"]], id="load"),
        pytest.param(RESUME, [*claim_parameters("r7", CLAIM, None)], id="resume of nothing"),
        pytest.param(RESUME, [*claim_parameters("sleeper", CLAIM, None)], id="resume"),
        pytest.param(RESUME, [*claim_parameters("sleeper", CLAIM, Beside(3, tuple(KEYS)))], id="resume, warm"),
        pytest.param(*single(commit(STEP)), id="create"),
        pytest.param(*single(commit(STEP, fence=Fence("r7", 1))), id="step"),
        pytest.param(*single(commit(CHANGE)), id="replace"),
        pytest.param(*single(commit(CHANGE, fence=Fence("r7", 1))), id="suspend"),
        pytest.param(*single(commit(Put(row("r7.1", rev=2), 1), fence=Fence("r7", 1))), id="fenced replace"),
        pytest.param(store._COMMIT, request(MANY), id="commit of several"),
        pytest.param(store._DELETE, ["r7"], id="delete an origin"),
        pytest.param(store._FIND, found(Query(state="pending", roots=True)), id="pending roots"),
        pytest.param(store._FIND, found(Query(roots=True, cursor="r5", limit=20)), id="a page of roots"),
        pytest.param(store._FIND, found(Query(roots=True, settled_before=50)), id="roots to be swept"),
        pytest.param(store._FIND, found(Query(prefix="r7.")), id="by prefix"),
        pytest.param(store._FIND, found(Query(kinds=(Kind.SCHEDULE,))), id="schedules"),
    ],
)
def test_no_request_scans_the_table(connection: Connection, sql: str, parameters: list[Any]) -> None:
    assert scans(connection, sql, parameters) == 0


def test_the_resume_looked_at_is_one_that_takes(connection: Connection) -> None:
    found = connection.execute(RESUME.encode(), [*claim_parameters("sleeper", CLAIM, None)]).fetchall()
    assert len(json.loads(found[0][0])) == len(KEYS)
    assert len(found) == 1 + len(KEYS) + 1  # with the one in another origin


def test_due_preload_and_step_use_the_index_meant_for_them(connection: Connection) -> None:
    due = plan(connection, store._DUE, [10**9, 20])
    assert "rows_due on rows" in due
    assert "Sort" not in due
    preload = plan(connection, store._BRANCH, ["r7"])
    assert preload.count("rows_pkey on rows") == 2
    assert "LockRows" in plan(connection, *single(commit(STEP, fence=Fence("r7", 1))))


def test_a_scan_would_be_noticed(connection: Connection) -> None:
    assert scans(connection, "select count(*) from everstep.rows where param like $1", ["%x%"]) > 0
