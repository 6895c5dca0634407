"""One test for each numbered rule of the core that no other file shows by name; the index at the end holds the list.

I: identity. P: replay. F: fencing. W: wake-ups. B: costs. T: retention.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from everstep import App, Client, Context, InvalidId, NondeterminismError, RealIOError, Retry
from everstep.clock import NEVER
from everstep.errors import StoreUnavailable
from everstep.ids import MAX_BYTES, detached_id
from everstep.ports import Commit, Put, Query
from everstep.promise import RETENTION, TARGET, Kind, Record, State
from everstep.protocol import PromiseCreate
from everstep.rows import to_row
from everstep.starts import WORK
from everstep.stores.sqlite import SqliteStore
from everstep.testing import Simulation
from everstep.testing.conformance.rows import row
from everstep.testing.simulation import Mode
from everstep.views import SweepReport

TESTS = Path(__file__).resolve().parents[1]

CORE_RULES = [
    *(f"I{n}" for n in range(1, 7)),
    *(f"P{n}" for n in range(1, 7)),
    *(f"F{n}" for n in range(1, 4)),
    *(f"W{n}" for n in range(1, 10)),
    *(f"C{n}" for n in range(1, 6)),
    "B1",
    "B3",
    "B4",
    "T1",
]


def test_i1_ids_follow_the_order_of_calls_and_not_of_completions() -> None:
    """Rule I1: whatever finishes first, an operation has the id of the place where it was called."""
    app = App("ids")
    order: list[str] = []

    @app.step
    async def wait(name: str, turns: int) -> str:
        for _ in range(turns):
            await asyncio.sleep(0)
        order.append(name)
        return name

    @app.workflow
    async def race(ctx: Context, first: int, second: int) -> list[str]:
        return list(await asyncio.gather(ctx.run(wait, "a", first), ctx.run(wait, "b", second)))

    for first, second in ((0, 9), (9, 0)):
        sim = Simulation(app)
        handle = sim.start(race, first, second, id="r")
        assert sim.run(handle) == ["a", "b"]
        recorded = {id: record.value.data for id, record in sim.records("r").items() if record.kind == Kind.STEP}
        assert recorded == {"r.1": '"a"', "r.2": '"b"'}
    assert order == ["a", "b", "b", "a"]


def test_i3_detached_ids_are_free_of_dots_of_constant_length_and_keep_the_prefix() -> None:
    """Rule I3: a chain of any length, and the caller's prefix, at which token authorisation looks."""
    root = "worker-1:chess"
    ids = [root]
    for _ in range(100):
        ids.append(detached_id(ids[-1], f"{ids[-1]}.7"))
    assert len(set(ids)) == 101
    assert {len(id) for id in ids[1:]} == {len(ids[1])}
    assert all(id.startswith("worker-1:chess") and "." not in id for id in ids)
    longest = detached_id("é" * (MAX_BYTES // 2), "x")
    assert len(longest.encode()) <= MAX_BYTES


def test_p3_folding_drops_local_steps_and_never_a_promise_that_outsiders_may_know() -> None:
    """Rule P3: after hundreds of folded deliveries an rpc and a latent promise are still found under their ids."""
    app = App("fold")

    @app.step
    def one(n: int) -> int:
        return n

    @app.workflow
    async def kid(ctx: Context) -> str:
        return "kid"

    @app.workflow
    async def long(ctx: Context) -> int:
        asked = ctx.promise()
        value = await asked
        await ctx.rpc(kid)
        total = 0
        for n in range(1200):
            total += await ctx.run(one, n)
        await ctx.sleep(60)
        return total + value

    sim = Simulation(app)
    handle = sim.start(long, id="l")
    sim.run_until_idle()
    sim.resolve("l.1", 1)
    sim.run_until_idle()
    rows = sim.records("l")
    assert sum(record.kind == Kind.FOLD for record in rows.values()) == 1
    assert sum(record.kind == Kind.STEP for record in rows.values()) < 512
    assert rows["l.1"].state is State.RESOLVED
    assert rows["l.2"].state is State.RESOLVED
    sim.cold()
    assert sim.run(handle) == sum(range(1200)) + 1
    shown = {view.id for view in handle.tree().walk()}
    assert {f"l.{n}" for n in range(1, 1203)} <= shown


def test_p4_an_aborted_task_group_unwinds_in_the_same_order_every_time() -> None:
    """Rule P4: tasks and futures hash by creation number, so that a set of them has one order."""
    app = App("sets")
    orders: set[tuple[int, ...]] = set()
    junk: list[bytearray] = []

    @app.step(retry=Retry(attempts=1))
    def fail() -> None:
        raise ValueError("boom")

    @app.workflow
    async def group(ctx: Context) -> list[int]:
        unwound: list[int] = []

        async def member(n: int) -> None:
            try:
                await ctx.promise()
            finally:
                unwound.append(n)

        try:
            async with asyncio.TaskGroup() as tasks:
                for n in range(6):
                    tasks.create_task(member(n))
                    junk.append(bytearray(n * 977 % 701))
                await ctx.run(fail)
        except* ValueError:
            pass
        return unwound

    for round in range(12):
        junk.append(bytearray(round * 131))
        sim = Simulation(app)
        orders.add(tuple(sim.run(sim.start(group, id=f"g{round}"))))
    assert len(orders) == 1


def test_p4_a_refused_call_cannot_be_hidden_by_except_exception() -> None:
    """Rule P4: real I/O in a body is raised again after the drain; the run is kept and says what to do."""
    app = App("io")

    @app.workflow
    async def sneaky(ctx: Context) -> str:
        try:
            await asyncio.open_connection("127.0.0.1", 1)
        except BaseException:
            return "hidden"
        return "connected"

    sim = Simulation(app)
    handle = sim.start(sneaky, id="s")
    sim.run_until_idle()
    assert handle.halted
    task = handle.record().task
    assert task is not None
    assert task.reason is not None
    assert "ctx.run" in task.reason
    assert issubclass(RealIOError, BaseException)
    assert not issubclass(RealIOError, Exception)


def test_w6_duplicates_do_not_breed() -> None:
    """Rule W6: however often its wake-up is repeated, a sleeping run has one, and runs once."""
    app = App("dup")

    @app.workflow
    async def nap(ctx: Context) -> str:
        await ctx.sleep(3600)
        return "rested"

    sim = Simulation(app, mode="queue")
    handle = sim.start(nap, id="n")
    sim.run_until_idle()
    armed = sim.cost("n").wakeups.get("armed", 0)
    for _ in range(25):
        sim.redeliver("n")
        sim.advance(seconds=1)
    assert sim.cost("n").wakeups.get("armed", 0) == armed
    assert sim.run(handle) == "rested"
    assert handle.cost().invocations == 2


def test_w9_an_invocation_that_keeps_dying_ends_halted_and_visible() -> None:
    """Rule W9, the part that is the core's: exhaustion is a state. Continued by hand, the run goes on."""
    app = App("poison", max_deaths=3)
    poison = [True]
    sim = Simulation(app)

    @app.step
    def die() -> str:
        if poison[0]:
            sim.kill()
        return "alive"

    @app.workflow
    async def run(ctx: Context) -> str:
        return await ctx.run(die)

    handle = sim.start(run, id="p")
    sim.advance(hours=2)
    assert handle.halted
    poison[0] = False
    sim.continue_("p")
    assert sim.run(handle) == "alive"


def test_b3_a_fan_in_of_a_hundred_wakes_its_parent_once_and_writes_twice_for_each_child() -> None:
    """Rule B3: one wake-up of the parent, at most two writes for a completed child."""
    app = App("fan")

    @app.workflow
    async def kid(ctx: Context, n: int) -> int:
        return n

    @app.workflow
    async def parent(ctx: Context) -> int:
        return sum(await asyncio.gather(*[ctx.rpc(kid, n) for n in range(100)]))

    sim = Simulation(app)
    handle = sim.start(parent, id="f")
    assert sim.run(handle) == sum(range(100))
    assert [event.id for event in sim.events if event.kind == "acquired"].count("f") == 2
    kids = [record for record in sim.records("f").values() if record.kind == Kind.RPC]
    # created, acquired, settled, and its callback cleared: two of the four are owed to the completion
    assert {record.rev for record in kids} == {4}


def test_b4_sqlite_runs_on_the_loops_own_thread(tmp_path: Path) -> None:
    """Rule B4: no method of the embedded store ever suspends, so no thread can be behind it."""
    store = SqliteStore(tmp_path / "db")

    def at_once(work: Coroutine[Any, Any, Any]) -> Any:
        with pytest.raises(StopIteration) as stop:
            work.send(None)
        return stop.value.value

    row = to_row(Record("a", State.PENDING, created_at=1))._replace(rev=1)
    assert at_once(store.commit(Commit("a", (Put(row, 0),)))) is None
    assert at_once(store.load(["a"])) == {"a": row}
    assert at_once(store.branch("a")) == [row]
    assert at_once(store.due(10**15, 10)) == []
    assert at_once(store.find(Query())).rows == [row]
    assert at_once(store.delete("a")) == 1
    at_once(store.close())


def test_t1_endless_chains_leave_nothing_behind() -> None:
    """Rule T1: with a retention, a chain of detached roots takes constant room."""
    app = App("chain", retention=timedelta(hours=1))

    @app.step
    def play(game: int) -> int:
        return game

    @app.workflow
    async def chess(ctx: Context, game: int) -> None:
        await ctx.run(play, game)
        await ctx.sleep(600)
        await ctx.detached(chess, game + 1)

    sim = Simulation(app)
    sim.start(chess, 1, id="c")
    sizes = []
    for _ in range(30):
        sim.advance(hours=1)
        sim.call(lambda client: client.sweep())
        sizes.append(len(sim.records()))
    assert max(sizes[3:]) <= sizes[3] + 3
    with pytest.raises(LookupError):
        sim.record("c")


@pytest.mark.parametrize("mode", ["rows", "queue"])
def test_t1_the_runs_of_a_schedule_are_removed_too_and_what_they_made_with_them(mode: Mode) -> None:
    """Rule T1: their ids have a dot, and they share an origin, so that no tree of theirs is an origin's."""
    app = App("nightly", retention=timedelta(hours=1))

    @app.step
    def count(what: str) -> str:
        return what

    @app.workflow
    async def part(ctx: Context, what: str) -> str:
        return await ctx.run(count, what)

    @app.workflow
    async def report(ctx: Context, what: str) -> list[str]:
        return await asyncio.gather(ctx.rpc(part, what), ctx.run(count, what))

    sim = Simulation(app, mode=mode)
    sim.schedule("n", "*/10 * * * *", report, "sales")
    sizes = []
    for _ in range(30):
        sim.advance(hours=1)
        sim.call(lambda client: client.sweep())
        sizes.append(len(sim.records()))
    roots = [id for id in sim.records() if id.count(".") == 1]
    assert len(roots) in (6, 7), "an hour's"
    assert max(sizes[3:]) <= sizes[3] + 4
    assert sizes[-1] <= 7 * 4 + 1, "each with its child, and a step of each, and the schedule"


def test_t1_a_sweep_that_died_within_a_run_is_made_good_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule T1: the run of a schedule is removed in several commits, and is found by its root, which goes last."""
    app = App("large", retention=timedelta(hours=1))

    @app.workflow
    async def report(ctx: Context) -> None:
        return None

    sim = Simulation(app)
    sim.schedule("n", "0 * * * *", report)
    sim.advance(hours=1)
    (root,) = [id for id in sim.records() if id.startswith("n.")]
    sim.call(lambda client: client.unschedule("n"))
    sim.schedule("n", "0 0 1 1 *", report)
    sim.advance(hours=2)

    async def grow_and_die(client: Client) -> None:
        for n in range(200):
            one = row(f"{root}.{n}", branch=root, kind=Kind.STEP, state="resolved", settled_at=1)
            assert await client.store.commit(Commit("n", (Put(one, 0),))) is None
        commit, made = client.store.commit, []

        async def dying(one: Commit) -> object:
            made.append(one)
            if len(made) == 2:
                raise StoreUnavailable("it died")
            return await commit(one)

        monkeypatch.setattr(client.store, "commit", dying)
        with pytest.raises(StoreUnavailable):
            await client.sweep()
        monkeypatch.undo()

    sim.call(grow_and_die)
    assert 100 < len(sim.records()) < 150
    sim.call(lambda client: client.sweep())
    assert not [id for id in sim.records() if id.startswith("n.")]


def test_w10_what_cannot_be_read_keeps_a_sweep_from_nothing_else() -> None:
    """Rule W10: a damaged row is overdue for ever, and so the first that every sweep meets."""
    app = App("swept", retention=timedelta(hours=1))

    @app.workflow
    async def quick(ctx: Context) -> None:
        return None

    sim = Simulation(app)
    sim.start(quick, id="b")
    sim.advance(hours=2)

    async def damage(client: Client) -> SweepReport:
        damaged = [row("a", due=1, task='{"s":"acq'), row("a1", state="resolved", settled_at=1, rest="[1]")]
        for one in (*damaged, row("c", due=2)):
            assert await client.store.commit(Commit(one.id, (Put(one, 0),))) is None
        return await client.sweep()

    report = sim.call(damage)
    assert (report.fired, report.purged) == (1, 1)


def test_t1_a_retention_that_is_none_keeps_its_own_root_and_hinders_no_other() -> None:
    """Rule T1: whoever may create a promise chooses its tags, and one sweep and one driver are for all."""
    app = App("shop", retention=timedelta(hours=1))

    @app.workflow
    async def pay(ctx: Context) -> str:
        return "paid"

    sim = Simulation(app)
    own = sim.start(pay, id="own")
    for id, retention in (("a", "9" * 5000), ("b", "\u0661"), ("c", "-1")):
        tags = {RETENTION: retention, TARGET: app.target, WORK: "x"}
        param = sim.record("own").param
        sim.call(lambda client, id=id, tags=tags, param=param: client.service.perform(
            PromiseCreate(id, NEVER, param, tags)
        ))  # fmt: skip
    sim.advance(hours=2)
    assert own.result() == "paid"
    sim.call(lambda client: client.sweep())
    assert sorted(sim.records()) == ["a", "b", "c"]
    assert {sim.record(id).state for id in "abc"} == {State.RESOLVED}


def test_i2_a_root_id_has_no_dot() -> None:
    """Rule I2: `c1.1` would collide with a child of `c1`."""
    app = App("dots")

    @app.workflow
    async def run(ctx: Context) -> None:
        return None

    with pytest.raises(InvalidId, match="has a dot"):
        Simulation(app).start(run, id="c1.1")


@pytest.mark.parametrize("rule", CORE_RULES)
def test_every_rule_of_the_core_is_cited_by_a_test(rule: str) -> None:
    cited = re.compile(rf"\b{rule}\b|test_{rule.lower()}_")
    here = Path(__file__).name
    texts = {path: path.read_text() for path in TESTS.rglob("test_*.py")}
    texts[Path(__file__)] = re.sub(r"CORE_RULES = .*?\]\n\n", "", texts[Path(__file__)], flags=re.DOTALL)
    assert any(cited.search(text) for text in texts.values()), f"no test cites rule {rule} ({here} holds the list)"
    assert issubclass(NondeterminismError, Exception)
