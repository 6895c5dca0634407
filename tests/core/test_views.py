"""Views: one word for each state on every edge, JSON as it stands, timers with the span they slept."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from everstep import App, Context, Retry, current_step
from everstep.inspection import timer_views
from everstep.promise import Record, Segment, State, Task, TaskState
from everstep.testing import Simulation
from everstep.views import CostReport, Problem, PromiseView, SweepReport, TreeView, VerifyReport


@pytest.mark.parametrize(
    ("view", "word"),
    [
        ({"state": "resolved"}, "done"),
        ({"state": "rejected"}, "failed"),
        ({"state": "rejected_canceled"}, "cancelled"),
        ({"state": "rejected_timedout"}, "timed out"),
        ({"state": "resolved", "task": "fulfilled"}, "done"),
        ({"state": "pending", "kind": "root", "task": "pending"}, "queued"),
        ({"state": "pending", "kind": "root", "task": "acquired"}, "running"),
        ({"state": "pending", "kind": "rpc", "task": "suspended"}, "waiting"),
        ({"state": "pending", "kind": "root", "task": "halted"}, "halted"),
        ({"state": "pending", "kind": "timer"}, "sleeping"),
        ({"state": "pending", "kind": "promise"}, "open"),
        ({"state": "pending", "kind": ""}, "open"),
        ({"state": "pending", "kind": "step"}, "running"),
        ({"state": "pending", "kind": "step", "attempt": 2, "due_at": 5}, "retrying"),
    ],
)
def test_a_state_has_one_word(view: dict[str, Any], word: str) -> None:
    assert PromiseView("a", **view).word == word


def test_views_are_json_as_they_stand() -> None:
    children = [TreeView(PromiseView("a.1", "resolved", value=[1])), TreeView(PromiseView("a.2", "pending"))]
    tree = TreeView(PromiseView("a", "pending"), children)
    data = json.loads(json.dumps(tree.to_dict()))

    assert [child["id"] for child in data["children"]] == ["a.1", "a.2"]
    assert data["children"][0] == {**PromiseView("a.1", "resolved", value=[1]).to_dict(), "children": []}
    assert [view.id for view in tree.walk()] == ["a", "a.1", "a.2"]
    assert VerifyReport(3, [Problem("a", "x")]).to_dict() == {
        "checked": 3,
        "problems": [{"id": "a", "what": "x", "repaired": False}],
    }
    assert SweepReport(1, 2).to_dict() == {"fired": 1, "purged": 2}
    assert CostReport({"write": 1}, 2, 3, 4).to_dict()["requests"] == {"write": 1}


def test_a_report_is_sound_when_nothing_is_left() -> None:
    assert VerifyReport(1).sound
    assert VerifyReport(1, [Problem("a", "x", True)]).sound
    assert not VerifyReport(1, [Problem("a", "x", True), Problem("b", "x")]).sound


def test_a_tree_as_deep_as_ids_allow_is_no_recursion() -> None:
    tree = TreeView(PromiseView("deepest", "pending"))
    for _ in range(5000):
        tree = TreeView(PromiseView("a", "pending"), [tree])

    data, depth = tree.to_dict(), 0
    while data["children"]:
        data, depth = data["children"][0], depth + 1
    assert (depth, data["id"]) == (5000, "deepest")


def test_a_timer_that_fired_slept_since_the_acquisition_before_it() -> None:
    segments = (Segment(1, 0, (), 1000), Segment(2, 1, ("r.2",), 5000))
    task = Task(TaskState.SUSPENDED, 2, segments=segments, timers=(("r.4", 9000),))
    slept, sleeps = timer_views(Record("r", State.PENDING, created_at=900, task=task), 6000)

    assert (slept.id, slept.created_at, slept.settled_at) == ("r.2", 1000, 5000)
    assert (sleeps.id, sleeps.created_at, sleeps.settled_at, sleeps.timeout_at) == ("r.4", 5000, None, 9000)


def test_a_sleep_begins_no_earlier_than_what_was_asked_for_before_it() -> None:
    app = App("a")

    @app.step
    async def slow() -> None:
        await asyncio.sleep(5)

    @app.workflow
    async def work(ctx: Context) -> None:
        await ctx.run(slow)
        await ctx.run(slow)
        await ctx.sleep(60)
        await ctx.sleep(60)

    sim = Simulation(app)
    handle = sim.start(work, id="r")
    sim.advance(seconds=30)
    asleep = handle.tree().children
    sim.advance(minutes=5)
    over = handle.tree().children

    begin = asleep[0].promise.created_at
    assert [node.promise.created_at - begin for node in asleep] == [0, 5_000, 10_000]
    assert [node.promise.created_at - begin for node in over] == [0, 5_000, 10_000, 70_000]
    assert over[3].promise.settled_at == over[3].promise.created_at + 60_000


def test_a_step_that_was_tried_again_began_with_its_first_attempt() -> None:
    app = App("a", retry=Retry(attempts=2, first=1))

    @app.step
    async def slow() -> None:
        await asyncio.sleep(5)
        if current_step().attempt == 1:
            raise ConnectionError("hung up")

    @app.workflow
    async def work(ctx: Context) -> None:
        await ctx.run(slow)

    sim = Simulation(app)
    handle = sim.start(work, id="r")
    sim.advance(minutes=1)
    (step,) = (node.promise for node in handle.tree().children)

    assert step.settled_at == step.created_at + 5_000 + 1_000 + 5_000


def test_a_sleep_beside_a_longer_step_did_not_begin_after_it() -> None:
    app = App("a")

    @app.step
    async def slow() -> None:
        await asyncio.sleep(60)

    @app.workflow
    async def work(ctx: Context) -> None:
        await asyncio.gather(ctx.run(slow), ctx.sleep(5))

    sim = Simulation(app)
    handle = sim.start(work, id="r")
    sim.advance(minutes=5)
    step, sleep = (node.promise for node in handle.tree().children)

    assert (sleep.kind, sleep.created_at) == ("timer", step.created_at)


def test_the_runs_of_a_schedule_are_found_by_its_id_and_the_dot() -> None:
    app = App("nights")

    @app.step
    def note(n: int) -> int:
        return n

    @app.workflow
    async def report(ctx: Context, n: int) -> int:
        return await ctx.run(note, n)

    sim = Simulation(app, seed=1)
    sim.schedule("hourly", "0 * * * *", report, 3)
    sim.start(report, 4, id="hourly")
    sim.advance(hours=3)

    found, cursor = sim.call(lambda client: client.search(prefix="hourly.", limit=2))
    more, end = sim.call(lambda client: client.search(prefix="hourly.", limit=2, cursor=cursor))
    assert [(one.kind, one.name, one.value) for one in [*found, *more]] == [("root", "report", 3)] * 3
    assert all(one.id.startswith("hourly.") for one in [*found, *more])
    assert end is None
    assert [one.id for one in sim.call(lambda client: client.search(prefix="hourly"))[0]] == ["hourly"]
