"""What a request costs in SQLite does not depend on what sleeps beside it: each uses its index, none sorts, none scans.

A step is one statement, whatever it is conditional on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from everstep.ports import Commit, Fence, Put, Query
from everstep.promise import Kind, State
from everstep.stores import sqlite
from everstep.stores.sqlite import SqliteStore
from everstep.stores.sqlite_find import find_sql
from everstep.testing.conformance.rows import commit, row, write


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "everstep.db", synchronous="normal")
    yield store
    asyncio.run(store.close())


def plan(store: SqliteStore, sql: str, *parameters: object) -> list[str]:
    """What SQLite says it will do; that a search is an EXISTS is said by newer releases alone."""
    said = [line for *_, line in store._cursor().execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]
    return [line.replace(" EXISTS USING ", " USING ") for line in said]


def searches(lines: list[str]) -> list[str]:
    assert not [line for line in lines if line.startswith("SCAN everstep_rows")], lines
    assert not [line for line in lines if "TEMP B-TREE" in line], lines
    return [line for line in lines if line.startswith("SEARCH")]


def test_due_rows_come_from_their_index_alone(store: SqliteStore) -> None:
    (line,) = searches(plan(store, sqlite._DUE, 5, 10))
    assert line == "SEARCH everstep_rows USING COVERING INDEX everstep_due (due<?)"


IDS = "SEARCH everstep_rows USING INDEX sqlite_autoindex_everstep_rows_1"
"""The index holds ids alone: a search in it passes no large row, which SQLite would read whole to compare it."""


def test_a_branch_is_two_ranges_of_ids(store: SqliteStore) -> None:
    assert searches(plan(store, sqlite._BRANCH, *"aaaa")) == [f"{IDS} (id=?)", f"{IDS} (id>? AND id<?)"]


def test_a_step_finds_its_fence_by_id(store: SqliteStore) -> None:
    assert searches(plan(store, sqlite._INSERT_STEP, *"abcdefghijklm")) == [f"{IDS} (id=?)"]


def test_rows_that_are_deleted_together_are_found_by_id(store: SqliteStore) -> None:
    found = searches(plan(store, sqlite._DELETE_MANY, "[]"))
    assert f"{IDS} (id=?)" in [line.replace(" COVERING INDEX ", " INDEX ") for line in found]


@pytest.mark.parametrize("state", State)
def test_roots_of_a_state_come_from_their_index_in_order(store: SqliteStore, state: State) -> None:
    for query in (Query(state=state.value, roots=True), Query(state=state.value, roots=True, cursor="a", prefix="a")):
        sql, parameters = find_sql(query, sqlite._COLUMNS)
        (line,) = searches(plan(store, sql, *parameters))
        assert "USING INDEX everstep_roots (state=?" in line


def test_settled_roots_are_swept_without_a_look_at_those_asleep(store: SqliteStore) -> None:
    """Rule T1: retention asks for what settled before an instant, in any final state."""
    sql, parameters = find_sql(Query(roots=True, settled_before=7), sqlite._COLUMNS)
    lines = searches(plan(store, sql, *parameters))
    assert len(lines) == len(State) - 1
    assert all("USING INDEX everstep_roots (state=?" in line for line in lines)
    assert State.PENDING.value not in parameters


def test_roots_of_any_state_are_merged_in_order(store: SqliteStore) -> None:
    sql, parameters = find_sql(Query(roots=True, cursor="a"), sqlite._COLUMNS)
    lines = searches(plan(store, sql, *parameters))
    assert len(lines) == len(State)
    assert all("USING INDEX everstep_roots (state=? AND id>?" in line for line in lines)


def test_schedules_come_from_their_index(store: SqliteStore) -> None:
    sql, parameters = find_sql(Query(kinds=(Kind.SCHEDULE,)), sqlite._COLUMNS)
    assert [line for line in plan(store, sql, *parameters) if "everstep_schedules" in line]


def test_an_origin_is_deleted_by_its_range(store: SqliteStore) -> None:
    assert searches(plan(store, sqlite._DELETE_ORIGIN, "a", "a")) == [f"{IDS} (id>? AND id<?)"]


STEP = Put(row("a.1", state=State.RESOLVED.value), 0)
RESUME = Put(row("a", rev=2, lease=1, due=9), 1)
FENCE = Fence("a", 1)


@pytest.mark.parametrize(
    "step",
    [
        pytest.param([commit(STEP)], id="create"),
        pytest.param([commit(RESUME), commit(STEP, fence=FENCE)], id="fenced create"),
        pytest.param([commit(RESUME)], id="replace"),
        pytest.param([commit(RESUME), commit(Put(row("a", rev=3), 2), fence=FENCE)], id="fenced replace"),
        pytest.param([commit(Put(row("a", rev=2, state=State.RESOLVED.value), 1))], id="settle"),
        pytest.param(
            [commit(RESUME), commit(Put(row("a", rev=3, state=State.RESOLVED.value), 2), fence=FENCE)], id="fulfil"
        ),
    ],
)
def test_a_commit_of_one_row_is_one_statement(store: SqliteStore, step: list[Commit]) -> None:
    statements: list[str] = []

    async def scenario() -> None:
        await write(store, row("a", due=5))
        store._cursor().connection.set_trace_callback(statements.append)
        for part in step:
            assert await store.commit(part) is None
        store._cursor().connection.set_trace_callback(None)

    asyncio.run(scenario())
    assert len(statements) == len(step), statements


def test_a_resume_of_a_root_rewrites_the_due_index_alone(store: SqliteStore) -> None:
    """The UPDATE of a pending row does not mention its state: SQLite rewrites every index that a SET mentions."""
    pages = dict(store._cursor().execute("SELECT rootpage, name FROM sqlite_master").fetchall())

    def rewritten(sql: str) -> set[str]:
        program = store._cursor().execute(f"EXPLAIN {sql}", [None] * sql.count("?")).fetchall()
        opened = {first: pages[second] for _, operation, first, second, *_ in program if operation == "OpenWrite"}
        return {opened[first] for _, operation, first, *_ in program if operation in ("Insert", "IdxInsert")}

    assert "everstep_roots" in rewritten(sqlite._CHANGE)
    assert rewritten(sqlite._KEEP) == {"everstep_rows", "everstep_due"}
