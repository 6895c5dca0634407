"""What every store must do. Each test opens a fresh, empty store, and says what holds then.

A store is right when these pass and `differential.compare` finds no difference to the memory store.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

from everstep.clock import NEVER
from everstep.ids import origin_of
from everstep.ports import Fence, Guard, Put, Query, Refused, Store
from everstep.promise import Kind, Payload, Record, Schedule, State, Task, TaskState
from everstep.rows import Row, from_row, schedule_from, schedule_row, to_row

from .rows import STRANGE_IDS, commit, row, write
from .running import case

_FULL = Row(
    "run.1", "run", Kind.STEP, State.RESOLVED.value, 3, 11, 12, 13, 14, '{"a":1}', '"ü\\u0000"', 15, 16, 17,
    '{"k":"v"}', '{"s":"acquired","v":12}', '{"a":2}',
)  # fmt: skip


class StoreSuite:
    """Subclass and implement `open`.

    Attributes:
        fences_soft: False for a store that leaves a fused create-and-settle unfenced (rule F1).
        largest: characters of text that one row must be able to hold.
    """

    fences_soft = True
    largest = 1_000_000

    async def open(self) -> Store:
        """A fresh, empty store."""
        raise NotImplementedError

    async def reopen(self, store: Store) -> Store:
        """The same data through a new store object; a store that lives in memory returns itself."""
        return store

    async def caught_up(self, store: Store) -> None:
        """Wait until `find` and `due` see every write; nothing to do where they are consistent."""

    @case
    async def test_loads_what_exists_and_nothing_else(self, store: Store) -> None:
        await write(store, row("a"), row("a.1"), row("b.1"))
        assert await store.load(["a", "a.1", "b.1", "b", "a.2", "a"]) == {
            "a": row("a"),
            "a.1": row("a.1"),
            "b.1": row("b.1"),
        }
        assert await store.load([]) == {}
        assert await store.load(["nobody"]) == {}

    @case
    async def test_loads_many_at_once(self, store: Store) -> None:
        await write(store, *[row(f"many.{n}") for n in range(0, 1200, 100)])
        assert sorted(await store.load([f"many.{n}" for n in range(1200)])) == sorted(
            f"many.{n}" for n in range(0, 1200, 100)
        )

    @case
    async def test_returns_every_field_as_it_was_written(self, store: Store) -> None:
        empty = row("run")
        await write(store, _FULL, empty)
        loaded = await store.load(["run.1", "run"])
        assert loaded == {"run.1": _FULL, "run": empty}
        for got in loaded.values():
            assert type(got) is Row
            assert {type(cell) for cell in got} <= {str, int, type(None)}

    @case
    async def test_tells_empty_text_from_none(self, store: Store) -> None:
        given = row("a", param="", value=None, branch="", tags=None)
        await write(store, given)
        assert await store.load(["a"]) == {"a": given}

    @case
    async def test_keeps_any_text(self, store: Store) -> None:
        given = row("a", param="\0 \x7f \u2028 \ufeff 🦉 'x' \"y\" \\ %s {}", value="日" * (self.largest // 3))
        await write(store, given)
        assert (await store.load(["a"]))["a"] == given

    @case
    async def test_keeps_large_integers_exactly(self, store: Store) -> None:
        given = row("a", due=NEVER - 1, timeout_at=NEVER - 2, created_at=NEVER - 3)
        await write(store, given)
        assert (await store.load(["a"]))["a"] == given

    @case
    async def test_no_deadline_is_never_stored(self, store: Store) -> None:
        """Rule C2: no deadline is null, not armed, not due."""
        record = Record("a", State.PENDING, task=Task(TaskState.SUSPENDED, tree="a.1"), rev=1)
        assert record.timeout_at == NEVER
        await write(store, to_row(record))
        stored = (await store.load(["a"]))["a"]
        assert NEVER not in stored
        assert from_row(stored) == record
        await self.caught_up(store)
        assert await store.due(NEVER, 10) == []

    @case
    async def test_keeps_strange_ids_apart(self, store: Store) -> None:
        """Rule I2: up to 1,000 bytes; spaces, slashes and Unicode are legal."""
        for id in STRANGE_IDS:
            child = f"{id[:300]}.1"
            await write(store, row(id, param=id, branch=id), row(child, branch=id[:300]))
            assert [found.id for found in await store.branch(id[:300])].count(child) == 1
        assert {id: found.param for id, found in (await store.load(STRANGE_IDS)).items()} == {
            id: id for id in STRANGE_IDS
        }
        await self.caught_up(store)
        page = await store.find(Query(roots=True, limit=1000))
        assert [found.id for found in page.rows] == sorted(STRANGE_IDS)

    @case
    async def test_creates_only_what_is_absent(self, store: Store) -> None:
        assert await store.commit(commit(Put(row("a", param="first"), 0))) is None
        refused = await store.commit(commit(Put(row("a", param="second"), 0)))
        assert refused == Refused(False, {"a": row("a", param="first")})
        assert await store.load(["a"]) == {"a": row("a", param="first")}

    @case
    async def test_replaces_a_row_whole(self, store: Store) -> None:
        await write(store, _FULL)
        bare = row("run.1", rev=4, branch="other", kind=Kind.TIMER)
        assert await store.commit(commit(Put(bare, 3))) is None
        assert await store.load(["run.1"]) == {"run.1": bare}
        assert await store.branch("run") == []

    @case
    async def test_settles_and_reopens_a_row(self, store: Store) -> None:
        await write(store, row("a"))
        resolved = row("a", rev=2, state=State.RESOLVED.value, settled_at=5)
        assert await store.commit(commit(Put(resolved, 1))) is None
        await self.caught_up(store)
        assert (await store.find(Query(state=State.PENDING.value, roots=True))).rows == []
        assert await store.commit(commit(Put(row("a", rev=3), 2))) is None
        await self.caught_up(store)
        assert (await store.find(Query(state=State.RESOLVED.value, roots=True))).rows == []
        assert await store.load(["a"]) == {"a": row("a", rev=3)}

    @case
    async def test_refuses_a_stale_or_missing_rev(self, store: Store) -> None:
        await write(store, row("a", rev=7))
        for expect in (1, 6, 8):
            refused = await store.commit(commit(Put(row("a", rev=9), expect)))
            assert refused == Refused(False, {"a": row("a", rev=7)})
        assert await store.commit(commit(Put(row("b", rev=2), 1))) == Refused(False, {"b": None})
        assert await store.load(["a", "b"]) == {"a": row("a", rev=7)}

    @case
    async def test_writes_all_or_nothing(self, store: Store) -> None:
        await write(store, row("a"), row("a.1"), row("a.3"))
        stale = commit(
            Put(row("a", rev=2), 1),
            Put(row("a.1", rev=6), 5),
            Put(row("a.2"), 0),
            Put(row("a.4", rev=2), 1),
            deletes=("a.3",),
        )
        assert await store.commit(stale) == Refused(False, {"a.1": row("a.1"), "a.4": None})
        everything = ["a", "a.1", "a.2", "a.3", "a.4"]
        assert await store.load(everything) == {"a": row("a"), "a.1": row("a.1"), "a.3": row("a.3")}
        good = commit(Put(row("a", rev=2), 1), Put(row("a.1", rev=2), 1), Put(row("a.2"), 0), deletes=("a.3", "a.9"))
        assert await store.commit(good) is None
        assert await store.load(everything) == {"a": row("a", rev=2), "a.1": row("a.1", rev=2), "a.2": row("a.2")}

    @case
    async def test_deletes_without_a_put(self, store: Store) -> None:
        await write(store, row("a"), row("a.1"), row("a.2"))
        assert await store.commit(commit(deletes=("a.1", "a.7"))) is None
        assert sorted(await store.load(["a", "a.1", "a.2"])) == ["a", "a.2"]
        assert await store.commit(commit(deletes=("a.2",), fence=Fence("a", 1))) == Refused(True, {})
        assert sorted(await store.load(["a", "a.2"])) == ["a", "a.2"]

    @case
    async def test_a_deleted_row_can_be_created_again(self, store: Store) -> None:
        await write(store, row("a", rev=5))
        assert await store.commit(commit(deletes=("a",))) is None
        assert await store.commit(commit(Put(row("a", rev=6), 5))) == Refused(False, {"a": None})
        await write(store, row("a"))

    @case
    async def test_a_fence_holds_while_the_lease_does(self, store: Store) -> None:
        """Rule F1."""
        await write(store, row("a", lease=3))
        assert await store.commit(commit(Put(row("a.1"), 0), fence=Fence("a", 3))) is None
        assert await store.commit(commit(Put(row("a.1", rev=2), 1), fence=Fence("a", 3))) is None
        assert await store.commit(commit(Put(row("a.2"), 0), Put(row("a.3"), 0), fence=Fence("a", 3))) is None
        for fence in (Fence("a", 2), Fence("a", 4), Fence("b", 3), Fence("a.1", 3)):
            assert await store.commit(commit(Put(row("a.9"), 0), fence=fence)) == Refused(True, {})
            assert await store.commit(commit(Put(row("a.1", rev=3), 2), fence=fence)) == Refused(True, {})
            assert await store.commit(commit(Put(row("a.8"), 0), Put(row("a.9"), 0), fence=fence)) == Refused(True, {})
        assert await store.load(["a.1", "a.8", "a.9"]) == {"a.1": row("a.1", rev=2)}

    @case
    async def test_a_late_write_of_the_old_holder_changes_nothing(self, store: Store) -> None:
        """Rule F2."""
        await write(store, row("a", lease=1), row("a.1"))
        assert await store.commit(commit(Put(row("a", rev=2, lease=2), 1))) is None
        old, new = Fence("a", 1), Fence("a", 2)
        before = await store.load(["a", "a.1", "a.2"])
        settle = row("a.1", rev=2, state=State.RESOLVED.value, value="1", settled_at=1)
        for puts in ((Put(settle, 1),), (Put(row("a", rev=3), 2),), (Put(row("a.2"), 0), Put(settle, 1))):
            assert await store.commit(commit(*puts, fence=old)) == Refused(True, {})
        assert await store.load(["a", "a.1", "a.2"]) == before
        assert await store.commit(commit(Put(settle, 1), fence=new)) is None

    @case
    async def test_a_commit_can_release_the_lease_it_is_fenced_by(self, store: Store) -> None:
        await write(store, row("a", lease=1))
        suspend = commit(Put(row("a", rev=2, due=9), 1), fence=Fence("a", 1))
        assert await store.commit(suspend) is None
        assert await store.commit(suspend) == Refused(True, {"a": row("a", rev=2, due=9)})

    @case
    async def test_a_refused_fence_still_tells_what_stands(self, store: Store) -> None:
        """Rule F3: whoever retries can find its own stamp."""
        await write(store, row("a"), row("a.1", epoch=4, n=2))
        refused = await store.commit(commit(Put(row("a.1"), 0), Put(row("a.2"), 0), fence=Fence("a", 4)))
        assert refused == Refused(True, {"a.1": row("a.1", epoch=4, n=2)})

    @case
    async def test_a_soft_fence_may_only_be_left_out_where_the_store_says_so(self, store: Store) -> None:
        """Rule F1: one thing may stay unfenced, and then it is still conditional on its row."""
        await write(store, row("a", lease=2))
        late = commit(Put(row("a.1"), 0), fence=Fence("a", 1, soft=True))
        assert await store.commit(late) == (Refused(True, {}) if self.fences_soft else None)
        own = commit(Put(row("a.2"), 0), fence=Fence("a", 2, soft=True))
        assert await store.commit(own) is None
        assert await store.commit(own) == Refused(False, {"a.2": row("a.2")})

    @case
    async def test_a_guard_holds_while_the_row_does(self, store: Store) -> None:
        """Rule W4: a single-writer store sees in one commit that what a task awaits has not moved."""
        if not store.single_writer:
            return
        await write(store, row("a"), row("a.1", rev=4))
        suspend = Put(row("a", rev=2), 1)
        assert await store.commit(commit(suspend, guards=(Guard("a.1", 3),))) == Refused(
            False, {"a.1": row("a.1", rev=4)}
        )
        assert await store.commit(commit(suspend, guards=(Guard("a.2", 1),))) == Refused(False, {"a.2": None})
        assert await store.load(["a"]) == {"a": row("a")}
        assert await store.commit(commit(suspend, guards=(Guard("a.1", 4), Guard("a.2", 0)))) is None
        assert await store.load(["a"]) == {"a": row("a", rev=2)}

    @case
    async def test_a_guard_on_a_row_that_is_deleted_holds_on_every_store(self, store: Store) -> None:
        """Of two who delete a schedule at once one finds that it is gone; a newer one of its name stays."""
        await write(store, row("a", rev=3), row("a.1"))
        gone = commit(deletes=("a",), guards=(Guard("a", 2),))
        assert await store.commit(gone) == Refused(False, {"a": row("a", rev=3)})
        with_another = commit(Put(row("a.1", rev=2), 1), deletes=("a",), guards=(Guard("a", 2),))
        assert await store.commit(with_another) == Refused(False, {"a": row("a", rev=3)})
        assert await store.load(["a", "a.1"]) == {"a": row("a", rev=3), "a.1": row("a.1")}
        assert await store.commit(commit(deletes=("a",), guards=(Guard("a", 3),))) is None
        assert await store.commit(commit(deletes=("a",), guards=(Guard("a", 3),))) == Refused(False, {"a": None})
        assert await store.commit(commit(deletes=("a",), guards=(Guard("a", 0),))) is None
        assert await store.load(["a", "a.1"]) == {"a.1": row("a.1")}

    @case
    async def test_a_branch_is_its_row_and_the_rows_that_name_it(self, store: Store) -> None:
        """Rule I4: `root.1` is not `root.10`, and a grandchild belongs to its own branch."""
        rows = {
            id: row(id, branch=branch)
            for id, branch in (
                ("root", ""),
                ("root.1", "root"),
                ("root.2", "root.2"),
                ("root.2.1", "root.2"),
                ("root.2.g2.1", "root.2"),
                ("root.2.1.1", "root.2.1"),
                ("root.20", "root"),
                ("root.20.1", "root.20"),
                ("root.2-x.1", "root.2"),
                ("rooted", "root"),
                ("root-1.1", "root"),
                ("root/1.1", "root"),
            )
        }
        await write(store, *rows.values())

        async def branch(id: str) -> list[str]:
            found = await store.branch(id)
            assert all(rows[got.id] == got for got in found)
            return sorted(got.id for got in found)

        assert await branch("root") == ["root", "root.1", "root.20"]
        assert await branch("root.2") == ["root.2", "root.2.1", "root.2.g2.1"]
        assert await branch("root.2.1") == ["root.2.1", "root.2.1.1"]
        assert await branch("root.20") == ["root.20", "root.20.1"]
        assert await branch("root.3") == []
        assert await branch("ro") == []

    @case
    async def test_a_branch_is_complete_and_current(self, store: Store) -> None:
        rows = [row(f"long.{n}", param="x" * 500) for n in range(1, 301)]
        await write(store, row("long"), *rows)
        changed = row("long.300", rev=2, state=State.RESOLVED.value)
        assert await store.commit(commit(Put(changed, 1))) is None
        assert sorted(await store.branch("long")) == sorted([row("long"), *rows[:-1], changed])

    @case
    async def test_due_rows_come_oldest_first(self, store: Store) -> None:
        await write(
            store, row("c", due=30), row("a", due=20), row("b", due=10), row("b.1", due=40), row("d"), row("e", due=31)
        )
        await self.caught_up(store)
        assert await store.due(30, 10) == [("b", 10), ("a", 20), ("c", 30)]
        assert await store.due(100, 2) == [("b", 10), ("a", 20)]
        assert await store.due(9, 10) == []

    @case
    async def test_due_follows_the_row(self, store: Store) -> None:
        await write(store, row("a", due=10), row("b", due=10), row("c", due=10))
        assert await store.commit(commit(Put(row("a", rev=2, due=50), 1))) is None
        assert await store.commit(commit(Put(row("b", rev=2), 1))) is None
        assert await store.commit(commit(deletes=("c",))) is None
        await self.caught_up(store)
        assert await store.due(49, 10) == []
        assert await store.due(50, 10) == [("a", 50)]

    @case
    async def test_finds_by_each_field(self, store: Store) -> None:
        rows = [
            row("a", kind=Kind.ROOT, tags='{"team":"ops","x":"1"}'),
            row("a.1", state=State.RESOLVED.value, settled_at=10),
            row("a.2", kind=Kind.TIMER, tags='{"team":"ops"}'),
            row("ab", kind=Kind.ROOT, state=State.RESOLVED.value, settled_at=20, tags='{"team":"dev","x":"1"}'),
            row("b", kind="", state=State.REJECTED.value, settled_at=30, tags='{"te\\"am":"o\'p"}'),
        ]
        await write(store, *rows)
        await self.caught_up(store)

        async def found(query: Query) -> list[str]:
            page = await store.find(query)
            assert page.cursor is None
            assert all(got in rows for got in page.rows)
            return [got.id for got in page.rows]

        assert await found(Query()) == ["a", "a.1", "a.2", "ab", "b"]
        assert await found(Query(state="resolved")) == ["a.1", "ab"]
        assert await found(Query(state="pending", roots=True)) == ["a"]
        assert await found(Query(roots=True)) == ["a", "ab", "b"]
        assert await found(Query(prefix="a")) == ["a", "a.1", "a.2", "ab"]
        assert await found(Query(prefix="a.")) == ["a.1", "a.2"]
        assert await found(Query(prefix="a", roots=True)) == ["a", "ab"]
        assert await found(Query(prefix="%")) == []
        assert await found(Query(kinds=(Kind.ROOT,))) == ["a", "ab"]
        assert await found(Query(kinds=(Kind.TIMER, ""))) == ["a.2", "b"]
        assert await found(Query(settled_before=20)) == ["a.1"]
        assert await found(Query(settled_before=31, roots=True)) == ["ab", "b"]
        assert await found(Query(tags={"team": "ops"})) == ["a", "a.2"]
        assert await found(Query(tags={"team": "ops", "x": "1"})) == ["a"]
        assert await found(Query(tags={"x": "1"}, state="resolved")) == ["ab"]
        assert await found(Query(tags={'te"am': "o'p"})) == ["b"]
        assert await found(Query(tags={"team": ""})) == []
        assert await found(Query(cursor="a.2")) == ["ab", "b"]

    @case
    async def test_pages_are_complete_while_rows_come_and_go(self, store: Store) -> None:
        stay = [f"p{n:03}" for n in range(0, 60, 2)]
        await write(store, *[row(id) for id in stay], row("p100"))
        await self.caught_up(store)
        seen: list[str] = []
        query = Query(roots=True, limit=7)
        turn = 0
        while True:
            page = await store.find(query)
            assert len(page.rows) <= 7
            seen += [got.id for got in page.rows]
            if page.cursor is None:
                break
            turn += 1
            await write(store, row(f"p{turn * 14 - 13:03}"), row(f"p{turn * 14 + 3:03}"), row(f"o{turn}"))
            await store.delete("p100")
            query = query._replace(cursor=page.cursor)
        assert seen == sorted(set(seen))
        assert set(stay) <= set(seen)

    @case
    async def test_a_last_page_has_no_cursor(self, store: Store) -> None:
        await write(store, *[row(f"p{n}") for n in range(6)])
        await self.caught_up(store)
        first = await store.find(Query(limit=3))
        assert first.cursor is not None
        second = await store.find(Query(limit=3, cursor=first.cursor))
        assert [got.id for got in first.rows + second.rows] == [f"p{n}" for n in range(6)]
        assert second.cursor is None
        assert (await store.find(Query(limit=3, cursor="q"))) == ([], None)

    @case
    async def test_schedules_are_found_only_by_kind(self, store: Store) -> None:
        schedule = Schedule(
            "nightly report", "0 3 * * *", "n.{{.timestamp}}", 60, Payload("[1]"), {"k": "v"}, 5, 99, rev=1
        )
        await write(store, row("a", kind=Kind.ROOT), schedule_row(schedule))
        await self.caught_up(store)
        assert [got.id for got in (await store.find(Query())).rows] == ["a"]
        assert (await store.find(Query(prefix="~"))).rows == []
        assert (await store.find(Query(roots=True, state="pending"))).rows == [row("a", kind=Kind.ROOT)]
        (found,) = (await store.find(Query(kinds=(Kind.SCHEDULE,)))).rows
        assert schedule_from(found) == schedule
        assert len((await store.find(Query(kinds=(Kind.SCHEDULE, Kind.ROOT)))).rows) == 2
        assert [entry.id for entry in await store.due(99, 5)] == [found.id]

    @case
    async def test_deletes_exactly_one_origin(self, store: Store) -> None:
        """Rule T1."""
        ids = ["c1", "c1.1", "c1.1.2", "c1.g2.1", "c10", "c10.1", "c1-x", "c1-x.1", "c1/y", "c1 z", "c", "C1", "c1~d0"]
        await write(store, *[row(id, due=1) for id in ids])
        assert await store.delete("c1") == 4
        kept = [id for id in ids if origin_of(id) != "c1"]
        assert sorted(await store.load(ids)) == sorted(kept)
        await self.caught_up(store)
        assert sorted(entry.id for entry in await store.due(1, 100)) == sorted(kept)
        assert sorted(got.id for got in (await store.find(Query())).rows) == sorted(kept)
        assert await store.delete("c1") == 0

    @case
    async def test_of_eight_writers_one_wins_each_round(self, store: Store) -> None:
        await write(store, row("a"))
        for rev in range(1, 11):
            puts = [Put(row("a", rev=rev + 1, value=f"{rev}/{writer}"), rev) for writer in range(8)]
            answers = await asyncio.gather(*[store.commit(commit(put)) for put in puts])
            (winner,) = [put.row for put, answer in zip(puts, answers, strict=True) if answer is None]
            assert await store.load(["a"]) == {"a": winner}

    @case
    async def test_of_eight_creators_one_wins_each_round(self, store: Store) -> None:
        for turn in range(10):
            puts = [Put(row(f"n{turn}", value=str(writer)), 0) for writer in range(8)]
            answers = await asyncio.gather(*[store.commit(commit(put)) for put in puts])
            (winner,) = [put.row for put, answer in zip(puts, answers, strict=True) if answer is None]
            assert await store.load([winner.id]) == {winner.id: winner}

    @case
    async def test_no_increment_is_lost(self, store: Store) -> None:
        await write(store, row("a", value="0"), row("a.1", value="0"))

        async def increment(times: int) -> None:
            while times:
                now = await store.load(["a", "a.1"])
                puts = [Put(_incremented(now, id), now[id].rev) for id in ("a", "a.1")]
                if await store.commit(commit(*puts)) is None:
                    times -= 1

        await asyncio.gather(*[increment(5) for _ in range(8)])
        assert [got.value for got in (await store.load(["a", "a.1"])).values()] == ["40", "40"]

    @case
    async def test_data_outlives_the_object(self, store: Store) -> None:
        await write(store, _FULL, row("run", due=5))
        again = await self.reopen(store)
        try:
            assert await again.load(["run", "run.1"]) == {"run": row("run", due=5), "run.1": _FULL}
            assert ("run", 5) in await again.due(5, 5)
        finally:
            await again.close()

    @case
    async def test_closing_twice_is_harmless(self, store: Store) -> None:
        await store.close()


def _incremented(rows: Mapping[str, Row], id: str) -> Row:
    old = rows[id]
    return old._replace(rev=old.rev + 1, value=json.dumps(int(old.value or "0") + 1))
