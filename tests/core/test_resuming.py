"""A store that acquires by itself: what it costs, and which plans it may go by."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from everstep import App, Context, Retry
from everstep.errors import InvalidArgument
from everstep.ports import Beside, Claim, Commit, Put, Resumed
from everstep.testing import Simulation, crash_everywhere
from everstep.testing.world import Caller, World

app = App("resuming")


@app.step
def note(what: str) -> str:
    return what


@app.workflow
async def waiting(ctx: Context) -> list[object]:
    link = ctx.promise()
    said = await ctx.run(note, "mail")
    return [said, *await asyncio.gather(link, ctx.run(note, "beside"), ctx.sleep(60))]


@app.workflow
async def either(ctx: Context) -> list[object]:
    one, other = ctx.promise(), ctx.promise()
    return [await future for future in asyncio.as_completed([one, other])]


@app.workflow
async def lives(ctx: Context, n: int) -> int:
    await ctx.run(note, str(n))
    return n if n == 0 else ctx.continue_as_new(n - 1)


@pytest.mark.parametrize("cache", [0, 64], ids=["cold", "warm"])
def test_every_resume_is_one_request(cache: int) -> None:
    sim = Simulation(app, resumes=True, cache=cache)
    run = sim.start(waiting, id="r")
    sim.run_until_idle()
    sim.resolve("r.1", "yes")
    sim.advance(seconds=60)
    assert run.result() == ["mail", "yes", "beside", None]
    requests = run.cost().requests
    assert "branch" not in requests
    assert requests["resume"] == run.cost().invocations


def test_only_a_task_that_its_holder_let_go_keeps_a_plan() -> None:
    sim = Simulation(app, resumes=True)
    run = sim.start(waiting, id="r")

    def planned() -> bool:
        task = run.record().task
        assert task is not None
        return task.planned is not None

    sim.run_until_idle()
    assert planned()
    sim.halt("r")
    assert not planned()
    sim.continue_("r")
    assert not planned()
    sim.resolve("r.1", "yes")
    sim.advance(seconds=60)
    assert run.result() == ["mail", "yes", "beside", None]


def test_a_life_that_is_left_to_the_next_invocation_is_resumed_in_one_request_too() -> None:
    sim = Simulation(app, resumes=True, steps_per_invocation=1)
    run = sim.start(lives, 4, id="r")
    assert run.result() == 0
    requests = run.cost().requests
    assert "branch" not in requests
    assert requests["resume"] >= 5


@pytest.mark.parametrize("cache", [0, 64], ids=["cold", "warm"])
def test_what_settles_between_the_claim_and_the_load_is_delivered_with_it(
    cache: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of what was claimed, in the order in which it came about: nobody has seen the other."""
    sim = Simulation(app, resumes=True, cache=cache)
    plain = World.resume

    async def resume(self: World, caller: Caller, id: str, claim: Claim, beside: Beside | None) -> Resumed:
        found = await plain(self, caller, id, claim, beside)
        row = self.store._rows.get("r.2")
        if found.inbox != ("r.1",) or row is None:
            return found
        late = row._replace(state="resolved", value='"late"', settled_at=claim.now - 1, rev=row.rev + 1)
        assert await self.store.commit(Commit("r", (Put(late, row.rev),))) is None
        return found._replace(rows=[late if one.id == "r.2" else one for one in found.rows])

    monkeypatch.setattr(World, "resume", resume)
    run = sim.start(either, id="r")
    sim.run_until_idle()
    sim.advance(seconds=1)
    sim.resolve("r.1", "first")
    assert run.result() == ["late", "first"]
    assert run.history == ["r.2", "r.1"]


def test_a_store_that_does_not_say_so_keeps_no_plan() -> None:
    sim = Simulation(app)
    run = sim.start(waiting, id="r")
    sim.run_until_idle()
    task = run.record().task
    assert task is not None
    assert task.planned is None


def test_what_a_store_acquires_by_itself_needs_due_rows() -> None:
    with pytest.raises(InvalidArgument, match="due rows"):
        Simulation(app, mode="queue", resumes=True)


@app.step(retry=Retry(attempts=3, first=10))
def shaky(what: str) -> str:
    if tries[what] < 1:
        tries[what] += 1
        raise ConnectionError("not yet")
    return what


@app.workflow
async def leaf(ctx: Context, n: int) -> str:
    await ctx.sleep(5 * n)
    return await ctx.run(note, str(n))


@app.workflow
async def everything(ctx: Context) -> list[object]:
    """Timers, a back-off, a fan-in, a race that is lost, and a promise from outside."""
    link = ctx.promise()
    try:
        async with asyncio.timeout(3):
            await ctx.promise()
    except TimeoutError:
        pass
    told = await asyncio.gather(*[ctx.rpc(leaf, n) for n in range(2)], ctx.run(shaky, ctx.id), ctx.sleep(7))
    await ctx.sleep(60)
    return [*told, await link]


tries: Counter[str] = Counter()


def test_it_is_survived_wherever_one_dies_is_overtaken_or_is_late() -> None:
    report = crash_everywhere(
        app, everything, resumes=True, modes=["rows"], settle={"{id}.1": "yes"}, setup=tries.clear, id="e"
    )
    assert report.result == ["0", "1", "e", None, "yes"]
    assert {"store.resume#2:before", "store.resume#2:after"} <= set(report.points)
