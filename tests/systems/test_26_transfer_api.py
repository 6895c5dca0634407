"""System 26, the money transfer behind an HTTP API: one run for an id, one row in the ledger for an operation."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from everstep import App, Client, Conflict, Context, Retry, current_step
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import Ledger, World, did, kill_at, survives
from tests.systems.web import called, patiently, server

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

app = App("transfers", retry=Retry(attempts=3, first=0.05))


class AccountFrozen(Exception):
    """The account takes no money."""


@app.step(retry=Retry(attempts=3, first=0.05, give_up_on=(AccountFrozen,)))
def post(account: str, cents: int) -> str:
    """One row under the step's id, the same at every attempt: posted twice, it is there once."""
    if account == "frozen":
        raise AccountFrozen(account)
    step = current_step()
    step.dependency(Ledger).post(step.id, account, cents)
    did(f"post {account}")
    return step.id


@app.workflow
async def transfer(ctx: Context, source: str, target: str, cents: int) -> str:
    await ctx.run(post, source, -cents)
    try:
        await ctx.run(post, target, cents)
    except AccountFrozen:
        await ctx.run(post, source, cents)
        return "reversed"
    return "done"


def site(client: Client) -> Starlette:
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def start(request: Request) -> Response:
        id, body = request.path_params["id"], await request.json()
        try:
            handle = await client.options(id=f"transfer-{id}").start(
                transfer, body["source"], body["target"], body["cents"]
            )
        except Conflict:
            return JSONResponse({"detail": f"transfer {id} exists and is another one"}, 409)
        return JSONResponse({"id": id, "outcome": await handle.result(timeout=20)})

    return Starlette(routes=[Route("/transfers/{id}", start, methods=["POST"])])


def prepare(folder: Path) -> None:
    app.provide(Ledger(folder / "ledger.db", ann=200_00, ben=0))


BODY = {"source": "ann", "target": "ben", "cents": 50_00}
ROWS = [("ann", -50_00), ("ben", 50_00)]


def rows(ledger: Ledger) -> list[tuple[str, int]]:
    return [(account, cents) for _, account, cents in ledger.rows()]


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    app.provide(World(tmp_path))
    return app.provide(Ledger(tmp_path / "ledger.db", ann=200_00, ben=0))


def test_two_requests_at_once_are_one_transfer_and_get_one_answer(tmp_path: Path, ledger: Ledger) -> None:
    async def story() -> None:
        async with called(app, tmp_path, site) as http:
            both = await asyncio.gather(*[http.post("/transfers/t1", json=BODY) for _ in range(2)])
            assert [one.json() for one in both] == [{"id": "t1", "outcome": "done"}] * 2
            other = await http.post("/transfers/t1", json={**BODY, "cents": 75_00})
            assert (other.status_code, other.json()["detail"]) == (409, "transfer t1 exists and is another one")
            frozen = await http.post("/transfers/t2", json={**BODY, "target": "frozen"})
            assert frozen.json()["outcome"] == "reversed"

    asyncio.run(story())
    assert rows(ledger) == [*ROWS, ("ann", -50_00), ("ann", 50_00)]
    assert (ledger.balance("ann"), ledger.balance("ben")) == (150_00, 50_00)


def test_killed_between_the_row_and_the_checkpoint_the_step_runs_again_and_adds_no_row(tmp_path: Path) -> None:
    import httpx

    world = World(tmp_path, {"post ann": ["kill"]})
    ledger = Ledger(tmp_path / "ledger.db", ann=200_00, ben=0)
    with server(__name__, tmp_path) as first:
        with pytest.raises(httpx.TransportError):
            httpx.post(f"{first.url}/transfers/t1", json=BODY)
        assert first.killed
    assert rows(ledger) == ROWS[:1]

    with server(__name__, tmp_path) as second:

        def answer() -> Any:
            return httpx.post(f"{second.url}/transfers/t1", json=BODY, timeout=30).json().get("outcome")

        assert patiently(answer) == "done"
    assert rows(ledger) == ROWS
    assert world.counts() == {"post ann": 2, "post ben": 1}


@pytest.mark.parametrize("mode", ["rows", "queue"])
@pytest.mark.parametrize("done", [1, 2])
def test_killed_anywhere_there_is_one_debit_and_one_credit(mode: Mode, done: int, ledger: Ledger) -> None:
    sim = Simulation(app, mode=mode)
    kill_at(sim, "delivered", done)

    assert sim.run(sim.start(transfer, "ann", "ben", 50_00)) == "done"
    assert rows(ledger) == ROWS


def test_it_survives_a_crash_at_every_point(tmp_path: Path) -> None:
    app.provide(World())
    ledgers: list[Ledger] = []

    def fresh() -> None:
        ledgers.append(app.provide(Ledger(tmp_path / f"{len(ledgers)}.db", ann=200_00, ben=0)))

    def balanced(*_: object) -> None:
        assert rows(ledgers[-1]) == [("ann", -50_00), ("ann", 50_00)]

    survives(app, transfer, "ann", "frozen", 50_00, result="reversed", setup=fresh, check=balanced)
