"""System 38, write last, read first: an account in a database refers to a ledger, which is the record of it, without a
transaction over both. What cannot be is a panic: nothing is settled, and somebody is told."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Literal

import pytest

from everstep import App, Context, Halted, current_step
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import World, did, kill_at, run_process, survives

app = App("accounts")

Answer = Literal["created", "exists_same", "exists_different"]


class Table:
    """Keys and values in a file; inserting one again says whether it is the same. Stands for either database."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as db:
            db.execute("CREATE TABLE IF NOT EXISTS accounts (key TEXT PRIMARY KEY, value TEXT, op TEXT)")

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path)
        db.execute("PRAGMA synchronous=OFF")
        return db

    def insert(self, key: str, value: str, op: str = "") -> Answer:
        """`op` names who inserts: to that one, its own row is created, and not something it meets."""
        with self._open() as db:
            if db.execute("INSERT OR IGNORE INTO accounts VALUES (?, ?, ?)", (key, value, op)).rowcount == 1:
                return "created"
            stood, by = db.execute("SELECT value, op FROM accounts WHERE key = ?", (key,)).fetchone()
            if stood != value:
                return "exists_different"
            return "created" if op and by == op else "exists_same"

    def rows(self) -> list[tuple[str, str]]:
        with self._open() as db:
            return list(db.execute("SELECT key, value FROM accounts ORDER BY rowid"))


class Accounts(Table):
    """The system of reference: user to account."""


class LedgerOfRecord(Table):
    """The system of record: account to its opening entry."""


@app.step
def insert_account(user: str, guid: str) -> Answer:
    answer = current_step().dependency(Accounts).insert(user, guid)
    did("account")
    return answer


@app.step
def insert_record(guid: str, user: str) -> Answer:
    """A step runs at least once: without its id it would take its own row, from before a crash, for another's."""
    step = current_step()
    answer = step.dependency(LedgerOfRecord).insert(guid, f"opened for {user}", step.id)
    did("record")
    return answer


@app.workflow
async def create_account(ctx: Context, user: str, guid: str | None = None) -> str:
    chosen = guid or str(ctx.uuid())  # the same on every replay
    account = await ctx.run(insert_account, user, chosen)
    if account == "exists_different":
        ctx.panic(f"{user} has another account than {chosen}")
    record = await ctx.run(insert_record, chosen, user)
    if record == "exists_different" or (account == "created" and record == "exists_same"):
        ctx.panic(f"the ledger knew {chosen} before the account was created")
    return chosen


BOTH = pytest.mark.parametrize("mode", ["rows", "queue"])
GUID = "7f0c1f9e-5a0e-4c3b-9d4e-1f5f3a9a0001"


def prepare(folder: Path) -> None:
    app.provide(Accounts(folder / "accounts.db"))
    app.provide(LedgerOfRecord(folder / "ledger.db"))


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Accounts, LedgerOfRecord]:
    app.provide(World())
    prepare(tmp_path)
    return app.dependency(Accounts), app.dependency(LedgerOfRecord)


@BOTH
def test_an_account_is_in_both_under_one_generated_id(mode: Mode, tables: tuple[Accounts, LedgerOfRecord]) -> None:
    sim = Simulation(app, mode=mode)
    guid = sim.run(sim.start(create_account, "kim"))

    assert tables[0].rows() == [("kim", guid)]
    assert tables[1].rows() == [(guid, "opened for kim")]


@BOTH
def test_the_same_id_again_is_fine_and_adds_nothing(mode: Mode, tables: tuple[Accounts, LedgerOfRecord]) -> None:
    sim = Simulation(app, mode=mode)
    sim.run(sim.start(create_account, "kim", GUID))
    assert sim.run(sim.start(create_account, "kim", GUID)) == GUID

    assert len(tables[0].rows()) == len(tables[1].rows()) == 1


@pytest.mark.parametrize("killed", ["account", "record"])
def test_a_process_killed_after_an_insert_finishes_with_the_same_id(killed: str, tmp_path: Path) -> None:
    """The row is found again under the id that was derived and not drawn."""
    world = World(tmp_path, {killed: ["kill"]})
    prepare(tmp_path)
    assert run_process(__name__, "create_account", "kim", id="a1", folder=tmp_path).killed
    ((_, guid),) = app.dependency(Accounts).rows()

    assert run_process(__name__, "create_account", "kim", id="a1", folder=tmp_path).result == guid
    assert world.counts() == {"account": 1, "record": 1, killed: 2}
    assert app.dependency(Accounts).rows() == [("kim", guid)]


def panicked(sim: Simulation, handle: Any, why: str) -> None:
    """Nothing is settled, nobody holds the task, and whoever asks is told."""
    record = handle.record()
    assert handle.status() == "pending"
    assert handle.halted
    assert record.task.pid is None
    with pytest.raises(Halted, match=why):
        handle.result()
    found, _ = sim.call(lambda client: client.search(state="pending"))
    assert [(one.id, one.halted) for one in found] == [(handle.id, True)]


@BOTH
def test_another_id_for_the_same_user_is_a_panic(mode: Mode, tables: tuple[Accounts, LedgerOfRecord]) -> None:
    tables[0].insert("kim", "another")
    sim = Simulation(app, mode=mode)
    handle = sim.start(create_account, "kim", GUID)
    sim.advance(days=30)

    panicked(sim, handle, "kim has another account")
    assert tables[1].rows() == []


@BOTH
def test_a_record_without_an_account_is_a_panic(mode: Mode, tables: tuple[Accounts, LedgerOfRecord]) -> None:
    tables[1].insert(GUID, "opened for kim")
    sim = Simulation(app, mode=mode)
    handle = sim.start(create_account, "kim", GUID)
    sim.advance(days=30)

    panicked(sim, handle, "the ledger knew")


@BOTH
def test_a_panic_cannot_be_swallowed_and_is_over_when_the_cause_is_mended(mode: Mode) -> None:
    careful = App("careful")
    broken = [True]

    @careful.workflow
    async def stubborn(ctx: Context) -> str:
        try:
            if broken[0]:
                ctx.panic("impossible")
        except BaseException:
            return "swallowed"
        return "mended"

    sim = Simulation(careful, mode=mode)
    handle = sim.start(stubborn)
    sim.advance(days=1)
    panicked(sim, handle, "impossible")

    broken[0] = False
    sim.continue_(handle.id)
    assert sim.run(handle) == "mended"


@BOTH
def test_a_panic_in_a_step_halts_the_run_too(mode: Mode) -> None:
    from everstep.errors import Panic

    careful = App("careful")

    @careful.step
    def impossible() -> None:
        raise Panic("two and two are five")

    @careful.workflow
    async def count(ctx: Context) -> str:
        try:
            await ctx.run(impossible)
        except Exception:
            return "swallowed"
        return "counted"

    sim = Simulation(careful, mode=mode)
    handle = sim.start(count)
    sim.advance(days=1)
    panicked(sim, handle, "two and two are five")


@BOTH
def test_killed_between_the_two_writes_it_goes_on(mode: Mode, tables: tuple[Accounts, LedgerOfRecord]) -> None:
    sim = Simulation(app, mode=mode)
    handle = sim.start(create_account, "kim")
    kill_at(sim, "delivered")

    guid = sim.run(handle)
    assert app.dependency(World).counts() == {"account": 1, "record": 1}
    assert tables[0].rows() == [("kim", guid)]


def test_it_survives_a_crash_at_every_point(tmp_path: Path) -> None:
    def fresh() -> None:
        for name in ("accounts.db", "ledger.db"):
            (tmp_path / name).unlink(missing_ok=True)
        prepare(tmp_path)

    app.provide(World())
    fresh()
    guid = Simulation(app)
    expected = guid.run(guid.start(create_account, "kim"))
    survives(app, create_account, "kim", result=expected, setup=fresh)
