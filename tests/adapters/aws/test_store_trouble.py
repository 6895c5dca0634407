"""Trouble below the store: what is survived, what is refused, and that a lost answer never loses or doubles a write."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from botocore.exceptions import ConnectionClosedError

from everstep.errors import InvalidArgument, OutcomeUnknown, StoreError, StoreUnavailable
from everstep.ports import Fence, Guard, Put, Refused
from everstep.promise import Kind, TaskState
from everstep.rows import Row
from everstep.testing.conformance.rows import commit, row, write
from everstep_aws.calls import Caller, make_client
from everstep_aws.store import DynamoStore, open_store

from .emulators import REGION, dynamodb, dynamodb_url
from .faults import Faults, faulty_store, no_pause

pytestmark = pytest.mark.xdist_group("dynamodb-local")

ONE = commit(Put(row("a"), 0))
TWO = commit(Put(row("a"), 0), Put(row("a.1"), 0))

Scenario = Callable[[DynamoStore, Faults], Awaitable[None]]


def run(scenario: Scenario) -> None:
    async def go() -> None:
        store, faults = faulty_store()
        try:
            await scenario(store, faults)
        finally:
            await store.close()

    asyncio.run(go())


@pytest.mark.parametrize("fault", ["throttled", "slowed", "conflict", "busy", "internal", "refused", "lost"])
def test_a_write_survives_what_passes(fault: str) -> None:
    async def scenario(store: DynamoStore, faults: Faults) -> None:
        for what in (ONE._replace(puts=(Put(row("b"), 0),), origin="b"), TWO):
            faults.script = [fault, fault]
            assert await store.commit(what) is None
        assert sorted(await store.load(["a", "a.1", "b"])) == ["a", "a.1", "b"]

    run(scenario)


@pytest.mark.parametrize("fault", ["throttled", "internal", "refused", "lost"])
def test_a_read_survives_what_passes(fault: str) -> None:
    async def scenario(store: DynamoStore, faults: Faults) -> None:
        await write(store, row("a"), row("a.1"))
        for read in (store.load(["a"]), store.load(["a", "a.1"]), store.branch("a")):
            faults.script = [fault]
            assert "a" in {getattr(one, "id", one) for one in await read}

    run(scenario)


def test_a_transaction_that_only_met_others_is_tried_again() -> None:
    async def scenario(store: DynamoStore, faults: Faults) -> None:
        faults.script = [{"reasons": ["None", "TransactionConflict"]}, {"reasons": ["ThrottlingError", "None"]}]
        assert await store.commit(TWO) is None
        assert faults.sent == ["TransactWriteItems"] * 3

    run(scenario)


def test_a_lost_answer_is_known_by_its_stamp_and_not_taken_for_another_writer() -> None:
    """Rule F3: the second try meets the first one's record."""

    async def scenario(store: DynamoStore, faults: Faults) -> None:
        faults.script = ["lost"]
        assert await store.commit(ONE) is None
        assert faults.sent == ["PutItem", "PutItem"]
        faults.script = ["internal-done"]
        assert await store.commit(commit(Put(row("a", rev=2, value="2"), 1))) is None
        faults.script = ["lost"]
        assert await store.commit(commit(Put(row("a", rev=3, lease=7), 2), Put(row("a.1"), 0))) is None
        faults.script = ["lost"]
        released = Put(row("a", rev=4), 3)
        assert await store.commit(commit(released, fence=Fence("a", 7))) is None, "though its own lease is gone by now"
        assert (await store.load(["a"]))["a"] == released.row

    run(scenario)


def test_a_lost_answer_whose_record_moved_on_is_an_unknown_outcome() -> None:
    async def scenario(store: DynamoStore, faults: Faults) -> None:
        await write(store, row("a"))
        send = faults.send

        def overtaken(request: object) -> object:
            faults.send = send  # type: ignore[method-assign]
            send(request)
            standing = dynamodb().get_item(TableName=store.table, Key={"pk": {"S": "a"}, "sk": {"S": "a"}})["Item"]
            dynamodb().put_item(TableName=store.table, Item={**standing, "rev": {"N": "3"}, "by": {"S": "other"}})
            raise ConnectionClosedError(endpoint_url="")

        faults.send = overtaken  # type: ignore[method-assign]
        with pytest.raises(OutcomeUnknown, match="moved on"):
            await store.commit(commit(Put(row("a", rev=2), 1)))

    run(scenario)


def test_a_lost_answer_that_another_writer_was_before_is_a_refusal() -> None:
    """The record bears the rev this write would have made, and another's stamp: so it was never made."""

    async def scenario(store: DynamoStore, faults: Faults) -> None:
        await write(store, row("a"))
        rival = DynamoStore(store.table, caller=store.call)
        assert await rival.commit(commit(Put(row("a", rev=2, value="rival"), 1))) is None
        faults.script = ["lost"]
        refused = await store.commit(commit(Put(row("a", rev=2, value="late"), 1)))
        assert refused == Refused(False, {"a": row("a", rev=2, value="rival")})

    run(scenario)


def test_what_does_not_pass_says_whether_it_was_written() -> None:
    async def scenario(store: DynamoStore, faults: Faults) -> None:
        for fault in ("throttled", "refused", "conflict"):
            faults.script = [fault] * 6
            with pytest.raises(StoreUnavailable, match="tried 6 times"):
                await store.commit(ONE)
        for what in ({"reasons": ["TransactionConflict", "None"]}, "throttled"):
            faults.script = [what] * 6
            with pytest.raises(StoreUnavailable):
                await store.commit(TWO)
        assert await store.load(["a"]) == {}
        faults.script = ["lost", *["refused"] * 5]
        with pytest.raises(OutcomeUnknown, match="unknown"):
            await store.commit(ONE)
        assert sorted(await store.load(["a"])) == ["a"]
        faults.script = ["refused"] * 6
        with pytest.raises(StoreUnavailable):
            await store.branch("a")

    run(scenario)


@pytest.mark.parametrize(
    ("code", "error", "says"),
    [
        ("ExpiredTokenException", StoreUnavailable, "credentials have expired"),
        ("UnrecognizedClientException", StoreUnavailable, "credentials"),
        ("AccessDeniedException", StoreError, "policy does not allow"),
        ("ResourceNotFoundException", StoreError, "does not exist"),
        ("ValidationException", StoreError, "ValidationException"),
    ],
)
def test_what_is_refused_for_good_is_said_once(code: str, error: type[StoreError], says: str) -> None:
    async def scenario(store: DynamoStore, faults: Faults) -> None:
        for ask in (store.commit(ONE), store.commit(TWO), store.load(["a"]), store.branch("a"), store.delete("a")):
            faults.script, faults.sent = [code], []
            with pytest.raises(error, match=says):
                await ask
            assert len(faults.sent) == 1

    run(scenario)


def test_a_transaction_refused_for_its_content_is_a_store_error() -> None:
    async def scenario(store: DynamoStore, faults: Faults) -> None:
        faults.script = [{"reasons": ["None", "ItemCollectionSizeLimitExceeded"]}]
        with pytest.raises(StoreError, match="ItemCollectionSizeLimitExceeded"):
            await store.commit(TWO)

    run(scenario)


def test_what_an_item_cannot_hold_is_refused_by_name() -> None:
    async def scenario(store: DynamoStore, faults: Faults) -> None:
        with pytest.raises(StoreError, match=r"'big' has \d+ bytes, and an item holds 409600; name a bucket"):
            await store.commit(commit(Put(row("big", value="x" * 500_000), 0)))
        with pytest.raises(StoreError, match="'odd'"):
            await store.commit(commit(Put(row("odd", value="\ud800"), 0)))
        with pytest.raises(StoreError, match="101 records in a commit"):
            await store.commit(commit(*[Put(row(f"a.{n}"), 0) for n in range(101)]))
        assert faults.sent == []

    run(scenario)


def test_a_guarded_delete_is_conditional() -> None:
    """Two that delete the same row: one of them did."""

    async def scenario(store: DynamoStore, faults: Faults) -> None:
        await write(store, row("a", rev=4))
        delete = commit(deletes=("a",), guards=(Guard("a", 4),))
        assert await store.commit(delete._replace(guards=(Guard("a", 3),))) == Refused(False, {"a": row("a", rev=4)})
        assert await store.commit(delete) is None
        assert await store.commit(delete) == Refused(False, {"a": None})

    run(scenario)


def _run_of(id: str, param: str, **changes: object) -> Row:
    return row(id, kind=Kind.ROOT, param=param, task=f'{{"s":"{TaskState.PENDING.value}","v":0}}', **changes)


def test_large_arguments_lie_apart_and_are_read_with_their_run() -> None:
    """Rule B2: a run's own item stays small, whatever it was called with."""

    async def scenario(store: DynamoStore, faults: Faults) -> None:
        big, other = _run_of("a", "x" * 5000), _run_of("a.1", "y" * 5000, branch="a")
        await write(store, big, other, row("a.2"))
        fresh = DynamoStore(store.table, caller=store.call)
        faults.sent = []
        assert sorted(await fresh.branch("a")) == sorted([big, other, row("a.2")])
        assert faults.sent == ["Query"]
        fresh = DynamoStore(store.table, caller=store.call)
        assert await fresh.load(["a", "a.1"]) == {"a": big, "a.1": other}
        faults.sent = []
        moved = big._replace(rev=2)
        assert await fresh.commit(commit(Put(moved, 1))) is None
        assert faults.sent == ["PutItem"], "its arguments are there already"
        assert await fresh.commit(commit(Put(big, 0))) == Refused(False, {"a": moved})
        assert await store.delete("a") == 3
        assert await store.query(
            KeyConditionExpression="pk = :pk", ExpressionAttributeValues={":pk": {"S": "a"}}
        ) == []  # fmt: skip
        await write(fresh, big)
        assert await DynamoStore(store.table, caller=store.call).load(["a"]) == {"a": big}

    run(scenario)


def test_the_root_is_deleted_last() -> None:
    """While it stands nobody starts anew under its id, whose rows would then be deleted with the old ones (rule T1)."""

    async def scenario(store: DynamoStore, faults: Faults) -> None:
        await write(store, *[row(f"a.{n}") for n in range(60)], row("a"))
        faults.script = ["ok", "ok", *["refused"] * 6]
        with pytest.raises(StoreUnavailable):
            await store.delete("a")
        assert "a" in await store.load(["a"])
        assert await store.delete("a") == 61 - 25

    run(scenario)


def test_eight_writers_with_trouble_lose_and_double_nothing() -> None:
    """Each with a client of its own, one row by itself and one by a transaction; a fifth of the answers is lost."""
    rng = random.Random(7)
    faults = ["ok"] * 12 + ["lost", "lost", "lost", "throttled", "conflict", "internal-done"]

    async def writer(number: int, table: str, done: Counter[str]) -> None:
        client = make_client("dynamodb", region=REGION, endpoint=dynamodb_url())
        trouble = Faults(client)
        store = DynamoStore(table, caller=Caller(lambda: client, "the table", pause=no_pause))
        made = Counter[str]()
        while made.total() < 8:
            trouble.script = []
            now = await store.load(["a", "b", "b.1"])
            both = made["a"] > made["b"]
            ids = ("b", "b.1") if both else ("a",)
            puts = [Put(row(id, now[id].rev + 1, value=f"{now[id].value}{number}"), now[id].rev) for id in ids]
            trouble.script = [rng.choice(faults) for _ in range(4)]
            try:
                if await store.commit(commit(*puts)) is None:
                    made[ids[0]] += 1
            except OutcomeUnknown:
                done["unknown " + ids[0]] += 1
        done.update(made)
        await store.close()

    async def scenario(store: DynamoStore, _: Faults) -> None:
        await write(store, row("a", value=""), row("b", value=""), row("b.1", value=""))
        done = Counter[str]()
        await asyncio.gather(*[writer(number, store.table, done) for number in range(8)])
        rows = await store.load(["a", "b", "b.1"])
        assert rows["b"].value == rows["b.1"].value
        assert done["a"] + done["b"] == 64
        for id in ("a", "b"):
            length = len(rows[id].value or "")
            assert rows[id].rev == length + 1
            assert done[id] <= length <= done[id] + done[f"unknown {id}"]

    run(scenario)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("dynamodb:", "names no table"),
        ("dynamodb://", "names no table"),
        ("dynamodb://a/b", "names no table"),
        ("dynamodb://t?regoin=x", "'regoin' is not an option"),
    ],
)
def test_a_url_that_is_wrong_says_how_it_would_be_right(url: str, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        open_store(url)


def test_a_url_names_table_region_and_endpoint() -> None:
    store = open_store("dynamodb://my-table?region=eu-central-1&endpoint=http%3A%2F%2F127.0.0.1%3A8000&bucket=b")
    assert (store.table, store.region, store.endpoint) == ("my-table", "eu-central-1", "http://127.0.0.1:8000")
    assert store.options == {"bucket": "b"}
    assert store.codec().limit == 180_000
