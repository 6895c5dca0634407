"""System 25, a money transfer as a saga: debit, credit, and on failure a reversal, on a ledger with operation ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from everstep import App, Context, Retry, current_step
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import Ledger, World, did, kill_at, run_process, survives

app = App("bank")


class AccountFrozen(Exception):
    """The account takes no money; `account` says which."""

    def __init__(self, account: str) -> None:
        super().__init__(f"{account} is frozen")
        self.account = account


def post(account: str, cents: int) -> str:
    """One row under the step's id, which is the same at every attempt."""
    step = current_step()
    step.dependency(Ledger).post(step.id, account, cents)
    return step.id


@app.step
def debit(account: str, cents: int) -> str:
    op = post(account, -cents)
    did("debit")
    return op


@app.step
def credit(account: str, cents: int) -> str:
    if account == "frozen":
        raise AccountFrozen(account)
    op = post(account, cents)
    did("credit")
    return op


@app.step
def reverse(account: str, cents: int, op: str) -> str:
    back = post(account, cents)
    did("reverse", of=op)
    return back


@app.workflow
async def transfer(ctx: Context, source: str, target: str, cents: int) -> str:
    taken = await ctx.run(debit, source, cents)
    try:
        await ctx.options(retry=Retry(attempts=1)).run(credit, target, cents)
    except AccountFrozen as error:
        await ctx.run(reverse, source, cents, taken)
        return f"reversed: {error.account}"
    return "done"


def prepare(folder: Path) -> None:
    """In a process of its own, the ledger is next to the store."""
    app.provide(Ledger(folder / "ledger.db", alice=200, bob=0))


BOTH = pytest.mark.parametrize("mode", ["rows", "queue"])


@pytest.fixture
def bank(tmp_path: Path) -> tuple[World, Ledger]:
    return app.provide(World()), app.provide(Ledger(tmp_path / "ledger.db", alice=200, bob=0))


@BOTH
def test_one_transfer_commits_and_one_is_reversed(mode: Mode, bank: tuple[World, Ledger]) -> None:
    world, ledger = bank
    sim = Simulation(app, mode=mode)

    assert sim.run(sim.start(transfer, "alice", "bob", 50, id="t1")) == "done"
    assert sim.run(sim.start(transfer, "alice", "frozen", 75, id="t2")) == "reversed: frozen"

    assert (ledger.balance("alice"), ledger.balance("bob")) == (150, 50)
    assert ledger.rows() == [
        ("t1.1", "alice", -50),
        ("t1.2", "bob", 50),
        ("t2.1", "alice", -75),
        ("t2.3", "alice", 75),
    ]
    assert world.tries("credit") == 1


@BOTH
def test_killed_between_debit_and_credit_there_is_one_debit(mode: Mode, bank: tuple[World, Ledger]) -> None:
    world, ledger = bank
    sim = Simulation(app, mode=mode)
    kill_at(sim, "delivered")

    assert sim.run(sim.start(transfer, "alice", "bob", 50, id="t1")) == "done"
    assert world.counts() == {"debit": 1, "credit": 1}
    assert ledger.rows() == [("t1.1", "alice", -50), ("t1.2", "bob", 50)]


@BOTH
def test_a_failed_credit_is_the_same_failure_after_a_crash(mode: Mode, bank: tuple[World, Ledger]) -> None:
    """The exception that leads to the reversal is recorded, with its attribute, and not the credit that was tried."""
    world, ledger = bank
    sim = Simulation(app, mode=mode)
    kill_at(sim, "delivered", 2)

    assert sim.run(sim.start(transfer, "alice", "frozen", 75, id="t1")) == "reversed: frozen"
    assert world.effects("reverse") == [{"of": "t1.1"}]
    assert ledger.balance("alice") == 200


@BOTH
def test_a_finished_transfer_again_changes_nothing(mode: Mode, bank: tuple[World, Ledger]) -> None:
    _, ledger = bank
    sim = Simulation(app, mode=mode)
    sim.run(sim.start(transfer, "alice", "bob", 50, id="t1"))
    rows = ledger.rows()
    sim.kill()

    assert sim.run(sim.start(transfer, "alice", "bob", 50, id="t1")) == "done"
    assert ledger.rows() == rows


@pytest.mark.parametrize("killed", ["debit", "credit"])
def test_a_process_killed_after_the_row_and_before_the_checkpoint_adds_no_row(killed: str, tmp_path: Path) -> None:
    world = World(tmp_path, {killed: ["kill"]})
    ledger = Ledger(tmp_path / "ledger.db", alice=200, bob=0)
    first = run_process(__name__, "transfer", "alice", "bob", 50, id="t1", folder=tmp_path)
    assert first.killed
    again = run_process(__name__, "transfer", "alice", "bob", 50, id="t1", folder=tmp_path)

    assert again.result == "done"
    assert world.count(killed) == 2, "the step ran twice"
    assert ledger.rows() == [("t1.1", "alice", -50), ("t1.2", "bob", 50)], "and posted once"


@pytest.mark.parametrize(
    ("target", "cents", "result", "alice"), [("bob", 50, "done", 150), ("frozen", 75, "reversed: frozen", 200)]
)
def test_it_survives_a_crash_at_every_point(target: str, cents: int, result: str, alice: int, tmp_path: Path) -> None:
    current: list[Ledger] = []

    def fresh() -> None:
        (tmp_path / "ledger.db").unlink(missing_ok=True)
        app.provide(World())
        current[:] = [app.provide(Ledger(tmp_path / "ledger.db", alice=200, bob=0))]

    def balanced(sim: Simulation, handle: Any) -> None:
        (ledger,) = current
        assert ledger.balance("alice") == alice
        assert ledger.balance("bob") == 200 - alice
        assert len({op for op, _, _ in ledger.rows()}) == len(ledger.rows()) == 2

    survives(app, transfer, "alice", target, cents, result=result, id="t1", setup=fresh, check=balanced)
