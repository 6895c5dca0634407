"""What no emulator does by itself: lost answers, aborted commits, a storm of writers, a service out of reach.

The faults are put where the vendor's library hands a request to the network, and below everything of ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from google.api_core import exceptions as cloud

from everstep.errors import OutcomeUnknown, StoreError, StoreReadOnly, StoreUnavailable
from everstep.ports import Fence, Put, Refused
from everstep.testing.conformance.rows import commit, row, write
from everstep_gcp.connection import Connection, Lost
from everstep_gcp.store import FirestoreStore

pytestmark = pytest.mark.xdist_group("firestore")


class Weather:
    """What becomes of the next requests: an error before, or instead of the answer after, they take effect."""

    def __init__(self) -> None:
        self.before: list[Exception] = []
        self.after: list[Exception] = []
        self.between: list[Callable[[], Coroutine[Any, Any, None]]] = []
        """What somebody else does when a request has been answered badly."""
        self.sent = 0


@contextmanager
def weather() -> Iterator[Weather]:
    now = Weather()
    real = Connection._send

    async def send(self: Connection, method: Any, request: Any) -> Any:
        now.sent += 1
        if now.before:
            raise now.before.pop(0)
        answer = await real(self, method, request)
        if now.after:
            error = now.after.pop(0)
            if now.between:
                await now.between.pop(0)()
            raise error
        return answer

    Connection._send = send  # type: ignore[method-assign]
    try:
        yield now
    finally:
        Connection._send = real  # type: ignore[method-assign]


def scenario(
    project: str, test: Callable[[FirestoreStore, FirestoreStore, Weather], Coroutine[Any, Any, None]]
) -> None:
    """A store, another process's store, and the weather."""

    async def run() -> None:
        store, other = FirestoreStore(project), FirestoreStore(project)
        try:
            with weather() as now:
                await test(store, other, now)
        finally:
            await store.close()
            await other.close()

    asyncio.run(run())


LOST = (cloud.ServiceUnavailable("lost"), cloud.DeadlineExceeded("lost"), cloud.InternalServerError("lost"))


@pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)
def test_a_commit_whose_answer_was_lost_knows_its_own_mark(error: Exception, project: str) -> None:
    """Rule F3: the repetition fails against its own record, and is told apart from one that somebody else wrote."""

    async def test(store: FirestoreStore, other: FirestoreStore, now: Weather) -> None:
        now.after = [error]
        assert await store.commit(commit(Put(row("a", value="mine"), 0))) is None
        now.after = [error]
        assert await store.commit(commit(Put(row("a", rev=2, value="mine too"), 1), Put(row("a.1"), 0))) is None
        assert (await other.load(["a"]))["a"].value == "mine too"
        now.after = [error, error]
        assert await store.commit(commit(Put(row("a", rev=3), 2))) is None

    scenario(project, test)


def test_a_commit_that_was_lost_on_its_way_is_written_by_the_repetition(project: str) -> None:
    async def test(store: FirestoreStore, other: FirestoreStore, now: Weather) -> None:
        now.before = [cloud.ServiceUnavailable("lost")]
        assert await store.commit(commit(Put(row("a", value="mine"), 0))) is None
        assert await other.load(["a"]) == {"a": row("a", value="mine")}

    scenario(project, test)


def test_one_that_was_lost_while_somebody_else_wrote_is_refused(project: str) -> None:
    async def test(store: FirestoreStore, other: FirestoreStore, now: Weather) -> None:
        await write(store, row("a"))

        async def overtake() -> None:
            assert await other.commit(commit(Put(row("a", rev=2, value="theirs"), 1))) is None

        real, now.before = Connection.commit, []

        async def first(self: Connection, writes: Any) -> Any:
            Connection.commit = real  # type: ignore[method-assign]
            await overtake()
            now.before = [cloud.ServiceUnavailable("lost")]
            return await real(self, writes)

        Connection.commit = first  # type: ignore[method-assign]
        refused = await store.commit(commit(Put(row("a", rev=2, value="mine"), 1)))
        assert refused == Refused(False, {"a": row("a", rev=2, value="theirs")})

    scenario(project, test)


def test_what_cannot_be_told_is_said_to_be_unknown(project: str) -> None:
    """Ours was written, and overwritten before we could look."""

    async def test(store: FirestoreStore, other: FirestoreStore, now: Weather) -> None:
        await write(store, row("a"))

        async def overwrite() -> None:
            await other.load(["a"])
            assert await other.commit(commit(Put(row("a", rev=3, value="theirs"), 2))) is None

        now.after, now.between = [cloud.ServiceUnavailable("lost")], [overwrite]
        with pytest.raises(OutcomeUnknown):
            await store.commit(commit(Put(row("a", rev=2, value="mine"), 1)))

    scenario(project, test)


def test_a_repetition_that_is_refused_does_not_tell_what_became_of_the_first(
    project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule F3: by the second commit nothing was written, but the first one may still arrive."""
    real = Connection.commit
    answers: list[Exception] = []

    async def send(self: Connection, writes: Any) -> Any:
        if answers:
            raise answers.pop(0)
        return await real(self, writes)

    async def test(store: FirestoreStore, other: FirestoreStore, now: Weather) -> None:
        answers[:] = [Lost("lost"), StoreUnavailable("slow down")]
        assert await store.commit(commit(Put(row("a", value="mine"), 0))) is None
        assert (await other.load(["a"]))["a"].value == "mine"
        answers[:] = [Lost("lost"), *[StoreReadOnly("not now")] * 20]
        with pytest.raises(OutcomeUnknown):
            await store.commit(commit(Put(row("a", rev=2), 1)))

    monkeypatch.setattr(Connection, "commit", send)
    scenario(project, test)


def test_a_service_out_of_reach_is_told(project: str) -> None:
    async def test(store: FirestoreStore, other: FirestoreStore, now: Weather) -> None:
        now.before = [cloud.ServiceUnavailable("away")] * 50
        with pytest.raises(OutcomeUnknown):
            await store.commit(commit(Put(row("a"), 0)))
        with pytest.raises(StoreUnavailable):
            await store.load(["a"])
        with pytest.raises(StoreUnavailable):
            await store.branch("a")
        now.before = []
        assert await store.load(["a"]) == {}
        now.before = [cloud.ServiceUnavailable("away"), cloud.DeadlineExceeded("slow")]
        assert await store.load(["a"]) == {}, "a read is repeated a few times"

    scenario(project, test)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (cloud.PermissionDenied("no"), StoreReadOnly),
        (cloud.Unauthenticated("who?"), StoreError),
        (cloud.ResourceExhausted("quota"), StoreUnavailable),
        (cloud.InvalidArgument("what?"), StoreError),
    ],
    ids=lambda one: getattr(one, "__name__", type(one).__name__),
)
def test_a_refusal_is_told_as_what_it_is_and_not_repeated(error: Exception, kind: type, project: str) -> None:
    async def test(store: FirestoreStore, other: FirestoreStore, now: Weather) -> None:
        now.before = [error]
        with pytest.raises(kind) as raised:
            await store.commit(commit(Put(row("a"), 0)))
        assert not isinstance(raised.value, OutcomeUnknown)
        assert now.sent == 1

    scenario(project, test)


def test_an_aborted_commit_is_sent_again_and_a_storm_of_them_is_told(project: str) -> None:
    async def test(store: FirestoreStore, other: FirestoreStore, now: Weather) -> None:
        now.before = [cloud.Aborted("contention")]
        assert await store.commit(commit(Put(row("a"), 0))) is None
        real = Connection.commit

        async def stormy(self: Connection, writes: Any) -> Any:
            now.before = [cloud.Aborted("contention")]
            return await real(self, writes)

        Connection.commit = stormy  # type: ignore[method-assign]
        try:
            with pytest.raises(StoreUnavailable, match="keep writing 'a'"):
                await store.commit(commit(Put(row("a", rev=2), 1)))
        finally:
            Connection.commit = real  # type: ignore[method-assign]
        assert await store.load(["a"]) == {"a": row("a")}

    scenario(project, test)


def test_a_document_over_the_limit_is_refused_and_nothing_of_the_commit_is_kept(project: str) -> None:
    async def test(store: FirestoreStore, other: FirestoreStore, now: Weather) -> None:
        for size in (1_100_000, 11_000_000):
            with pytest.raises(StoreError, match="bytes") as refused:
                await store.commit(commit(Put(row("a"), 0), Put(row("a.1", value="x" * size), 0)))
            assert not isinstance(refused.value, (OutcomeUnknown, StoreUnavailable))
        assert await store.load(["a", "a.1"]) == {}
        assert store.codec().hard_limit <= 1_000_000, "a payload is refused by name long before that"

    scenario(project, test)


def test_what_was_remembered_of_a_row_deleted_and_made_anew_is_not_believed(project: str) -> None:
    async def test(store: FirestoreStore, other: FirestoreStore, now: Weather) -> None:
        await write(store, row("a", lease=1))
        await other.delete("a")
        await write(other, row("a", lease=1, value="anew"))
        assert await store.commit(commit(Put(row("a.1"), 0), fence=Fence("a", 1))) is None
        assert await store.commit(commit(Put(row("a", rev=2, lease=1), 1), fence=Fence("a", 1))) is None

    scenario(project, test)


def test_a_fence_stays_while_others_touch_its_row(project: str) -> None:
    """A listener that registers changes the document and not the lease."""

    async def test(store: FirestoreStore, other: FirestoreStore, now: Weather) -> None:
        await write(store, row("a", lease=1))
        for rev in range(1, 4):
            await other.load(["a"])
            assert await other.commit(commit(Put(row("a", rev=rev + 1, lease=1), rev))) is None
            assert await store.commit(commit(Put(row(f"a.{rev}"), 0), fence=Fence("a", 1))) is None
        before = await other.load(["a"])
        assert before == {"a": row("a", rev=4, lease=1)}, "and a fence leaves it as it is"

    scenario(project, test)


def test_whoever_lost_its_lease_and_does_not_know_it_writes_nothing(project: str) -> None:
    """Rule F2, with what was remembered of the lease out of date: the commit itself is what finds out."""

    async def test(store: FirestoreStore, other: FirestoreStore, now: Weather) -> None:
        await write(store, row("a", lease=1), row("a.1"))
        await other.load(["a"])
        assert await other.commit(commit(Put(row("a", rev=2, lease=2), 1))) is None
        fence = Fence("a", 1)
        assert await store.commit(commit(Put(row("a.2"), 0), fence=fence)) == Refused(True, {})
        await other.commit(commit(Put(row("a", rev=3, lease=3), 2)))
        settled = row("a.1", rev=2, state="resolved", settled_at=5)
        assert await store.commit(commit(Put(settled, 1), fence=Fence("a", 2))) == Refused(True, {})
        await other.commit(commit(Put(row("a", rev=4, lease=4), 3)))
        suspended = commit(Put(row("a", rev=4, due=7), 3), fence=Fence("a", 3))
        assert await store.commit(suspended) == Refused(True, {"a": row("a", rev=4, lease=4)})
        assert await other.load(["a", "a.1", "a.2"]) == {"a": row("a", rev=4, lease=4), "a.1": row("a.1")}

    scenario(project, test)


def test_more_rows_than_are_remembered_are_written_right(project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everstep_gcp.store._REMEMBERED", 2)

    async def test(store: FirestoreStore, other: FirestoreStore, now: Weather) -> None:
        await write(store, *[row(f"a.{n}") for n in range(5)])
        puts = [Put(row(f"a.{n}", rev=2), 1) for n in range(2)]
        assert await store.commit(commit(*puts)) is None
        assert await store.commit(commit(Put(row("a.4", rev=3), 2))) == Refused(False, {"a.4": row("a.4")})

    scenario(project, test)


def test_a_database_that_is_not_there_is_named(emulator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the service says it; the emulator makes any."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", emulator)

    async def test(store: FirestoreStore, other: FirestoreStore, now: Weather) -> None:
        now.before = [cloud.NotFound("The database (default) does not exist")] * 2
        with pytest.raises(StoreError, match="projects/nowhere/databases"):
            await store.commit(commit(Put(row("a"), 0)))

    scenario("nowhere", test)


def test_a_document_that_is_none_of_ours_is_named(project: str) -> None:
    from google.cloud import firestore

    from everstep.errors import StoreCorrupted

    firestore.Client(project=project).document("everstep/:a").set({"hello": "world"})

    async def test(store: FirestoreStore, other: FirestoreStore, now: Weather) -> None:
        with pytest.raises(StoreCorrupted, match="everstep/:a"):
            await store.load(["a"])

    scenario(project, test)
