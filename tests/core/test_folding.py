"""A history that is folded is replayed as it was, and no more of it is read, or kept, than a body has come to."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from bench.programs import app, countdown, long
from bench.rig import Rig
from everstep import App, Context
from everstep.errors import DecodeError
from everstep.folding import Entry, Fold, fold_record, folded_records, unfold
from everstep.journal import _history, read
from everstep.operation import Recorded
from everstep.past import Past
from everstep.promise import Kind, Record, Segment, State, Task, TaskState
from everstep.rows import Row, from_row, to_row
from everstep.stores.memory import MemoryStore


def step_row(number: int, **cells: Any) -> Row:
    row = Row(
        f"r.{number}", "r", Kind.STEP, State.RESOLVED.value, 1, None, None, 1, number, f'["charge",[{number}]]',
        str(number), None, 5, 10 + number, None, None, None,
    )  # fmt: skip
    return row._replace(**cells)


def fold(number: int, entries: list[Entry]) -> Row:
    return to_row(fold_record("r", "r.", number, 3, entries)._replace(rev=1))


def entries(numbers: range) -> list[Entry]:
    return [(f"r.{number}", 10 + number, step_row(number)) for number in numbers]


def test_a_fold_gives_back_what_it_was_given() -> None:
    rows = [
        step_row(1),
        step_row(2, state=State.REJECTED.value, value='{"type":"Boom"}'),
        None,
        step_row(4, kind=Kind.TIMER, param=None, value=None),
        step_row(5, param="secret", value="sealed", rest='{"vh":{"everstep:key":"k"}}'),
        step_row(6, value="[1,\n 2]"),
    ]
    row = fold(1, [(f"r.{index + 1}", 11 + index, one) for index, one in enumerate(rows)])
    read_back = Fold(row)
    instants, records = read_back.entries()

    assert read_back.ids == [f"r.{number}" for number in range(1, 7)]
    assert instants == [11, 12, 13, 14, 15, 16]
    assert records == [
        Recorded(Kind.STEP, ["charge", [1]], State.RESOLVED, 1),
        Recorded(Kind.STEP, ["charge", [2]], State.REJECTED, {"type": "Boom"}),
        None,
        Recorded(Kind.TIMER, ["", []], State.RESOLVED, None),
        None,
        Recorded(Kind.STEP, ["charge", [6]], State.RESOLVED, [1, 2]),
    ]
    (special,) = read_back.special()
    assert (special.id, special.param, special.value, special.rest) == ("r.5", "secret", "sealed", rows[4].rest)  # type: ignore[union-attr]
    assert {record.id for record in folded_records(row)} == {"r.1", "r.2", "r.4", "r.5", "r.6"}
    assert json.loads(row.value or "")[0] == read_back.ids  # it is JSON, whoever looks at it


def test_folds_are_read_one_at_a_time_and_let_go() -> None:
    folds = unfold([fold(2, entries(range(101, 201))), fold(1, entries(range(1, 101)))])
    past = Past(["r.201"], [211], {"r.201": Recorded(Kind.STEP, ["charge", [201]], State.RESOLVED, 201)}, folds)
    ahead = iter(past)

    assert len(past) == 201
    assert past._read == {}
    for number in range(1, 202):
        id, at, record = next(ahead)
        assert (id, at) == (f"r.{number}", 10 + number)
        assert record is not None
        assert record[3] == number
        assert len(past._read) <= 1
    assert next(ahead) == (None, 0, None)
    assert next(ahead) == (None, 0, None)


def test_what_is_delivered_later_is_found_by_its_place() -> None:
    folds = unfold(
        [fold(1, entries(range(1, 101))), fold(2, entries(range(101, 201))), fold(3, entries(range(201, 301)))]
    )
    past = Past(["r.301"], [311], {"r.301": Recorded(Kind.STEP, ["charge", [301]], State.RESOLVED, 301)}, folds)
    next(iter(past))

    for number in (1, 250, 201, 300, 301):
        found = past.find(f"r.{number}")
        assert found is not None
        assert found.value == number
    assert past.find("r.302") is None
    assert "r.300" in past
    assert "r.302" not in past
    assert set(past._read) == {0, 2}  # the second fold was nobody's business


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: text.replace('"step"', '"step'),
        lambda text: text.replace('["resolved",', '["undone",'),
        lambda text: text.replace('[["step", 3]]', '[["step", 2]]'),
        lambda text: text.replace("11, 12, 13", "11, 12"),
    ],
    ids=["cut", "empty", "torn", "state", "kinds", "instants"],
)
def test_a_damaged_fold_is_named_and_never_replayed(damage: Any) -> None:
    row = fold(1, entries(range(1, 4)))
    row = row._replace(value=damage(row.value or ""))
    with pytest.raises((DecodeError, ValueError)):
        list(zip(range(3), Past(folds=[Fold(row)]), strict=False))


def test_a_missing_fold_is_noticed_on_load() -> None:
    record = Record("r", State.PENDING, task=Task(TaskState.SUSPENDED))
    with pytest.raises(DecodeError, match="a fold of its history is damaged: one is missing"):
        asyncio.run(read(record, [fold(2, entries(range(1, 4)))], app.codec, 0))


def test_a_fold_that_is_damaged_where_the_body_has_not_come_to_yet_fails_nothing() -> None:
    """The run is put off, and names the fold; with the fold restored it goes on."""

    async def work() -> None:
        rig = Rig(app, MemoryStore(), fold_after=8, cache=0)
        await rig.start(long, 200, id="r")
        await rig.work()
        store = rig.store.store
        assert isinstance(store, MemoryStore)
        last = max((id for id in store._rows if "~" in id), key=lambda id: int(id.rpartition("~")[2]))
        sound = store._rows[last]
        store._rows[last] = sound._replace(value=(sound.value or "").replace('"resolved"', '"undone"'))
        await rig.sleep(60)
        task = (await rig.record("r")).task
        assert task is not None
        assert task.reason is not None
        assert task.reason.startswith(f"DecodeError: {last}: a fold of its history is damaged")
        store._rows[last] = sound
        await rig.sleep(60)
        task = (await rig.record("r")).task
        assert task is not None
        assert task.state is TaskState.SUSPENDED

    asyncio.run(work())


def test_a_suspension_that_folds_is_one_request_and_so_is_a_countdown_of_any_length() -> None:
    async def work() -> None:
        rig = Rig(app, MemoryStore(), cache=0)
        await rig.start(countdown, 200, id="c")
        await rig.work()
        for _ in range(199):
            await rig.sleep(600)
        assert len(rig.before["folded"]) > 3
        assert set(rig.writes["done"]) == {0}
        # Acquire, step, suspend: whether it folds or not.
        assert [sum(rig.writes[kind]) for kind in ("acquired", "delivered")] == [200, 200]
        assert sum(rig.writes["folded"]) + sum(rig.writes["suspended"]) == 200

    asyncio.run(work())


def test_the_number_of_folds_stays_small_beside_what_is_in_them() -> None:
    many = App("many")

    @many.step
    def look(number: int) -> int:
        return number

    @many.workflow
    async def turns(ctx: Context, count: int) -> int:
        for number in range(count):
            await ctx.run(look, number)
            await ctx.sleep(60)
        return count

    async def work() -> None:
        rig = Rig(many, MemoryStore(), fold_after=64)
        await rig.start(turns, 2000, id="t")
        await rig.work()
        for _ in range(1990):
            await rig.sleep(60)
        rows = [row for row in await rig.store.branch("t") if row.kind == Kind.FOLD]
        assert sum(from_row(row).attempt for row in rows) > 3900
        assert len(rows) < 8 + 8 * 3 + 4000 // 64

    asyncio.run(work())


def stamped(id: str, epoch: int, n: int) -> Row:
    return step_row(n)._replace(id=id, epoch=epoch)


@pytest.mark.parametrize(
    ("folded", "left"),
    [
        (0, ["r.1", "r.2", "a", "b", "c", "r.4"]),
        (1, ["r.2", "a", "b", "c", "r.4"]),
        (2, ["a", "b", "c", "r.4"]),
        (3, ["b", "c", "r.4"]),
        (4, ["c", "r.4"]),
        (5, ["r.4"]),
        (6, []),
    ],
)
def test_a_fold_may_end_anywhere_in_an_inbox_too(folded: int, left: list[str]) -> None:
    """What the folds hold and what follows them is the history, whole, wherever the fold was cut (rule P2.3)."""
    segments = (Segment(1, 0, (), 1), Segment(2, 2, ("a", "b", "c"), 2))
    rows = [stamped("r.1", 1, 1), stamped("r.2", 1, 2), stamped("r.3", 1, 3), stamped("r.4", 2, 6)]

    ids, instants, _ = _history(segments, {row.id: row for row in rows}, folded)

    assert ids == left
    assert len(instants) == len(left)
