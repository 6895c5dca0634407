"""What things cost: write units computed from item sizes, and measured on DynamoDB Local where its figures are right.

Single writes are measured, indexes included. Transactions are computed, twice the units of the same writes alone: the
emulator's figure for them is a constant (rule B5).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from everstep import App, Context
from everstep.client import Client
from everstep.ports import Put
from everstep.promise import Kind
from everstep.testing.conformance.rows import commit, row
from everstep_aws import handler, pricing
from everstep_aws.calls import Caller, make_client
from everstep_aws.item import LARGEST, bucket, encode, size, units
from everstep_aws.store import DynamoStore

from .cloud import QUEUE_ARN, Cloud, LambdaContext, Message
from .emulators import REGION, dynamodb_url, new_table

pytestmark = pytest.mark.xdist_group("dynamodb-local")

DAY = 86_400_000
RUNNING = '{"s":"suspended","v":1}'


class Meter:
    """A store whose every request says what it took."""

    def __init__(self) -> None:
        client = make_client("dynamodb", region=REGION, endpoint=dynamodb_url())
        table = new_table(client)
        client.meta.events.register("before-parameter-build.dynamodb", self._ask)
        client.meta.events.register("after-call.dynamodb", self._note)
        self.store = DynamoStore(table, caller=Caller(lambda: client, "the table"))
        self.reset()

    def reset(self) -> None:
        self.calls: Counter[str] = Counter()
        self.written = self.indexed = self.read = 0.0
        self.transacted = 0

    def _ask(self, params: dict[str, Any], **_: Any) -> None:
        params["ReturnConsumedCapacity"] = "INDEXES"
        for action in params.get("TransactItems", ()):
            self.transacted += 2 * units(size(action["Put"]["Item"]) if "Put" in action else 1)

    def _note(self, model: Any, parsed: Any, **_: Any) -> None:
        self.calls[model.name] += 1
        taken = parsed.get("ConsumedCapacity", {})
        for one in taken if isinstance(taken, list) else [taken]:
            capacity = one.get("CapacityUnits", 0.0)
            if model.name in ("PutItem", "DeleteItem", "BatchWriteItem"):
                self.written += capacity
                self.indexed += sum(index["CapacityUnits"] for index in one.get("GlobalSecondaryIndexes", {}).values())
            elif model.name != "TransactWriteItems":
                self.read += capacity


@pytest.mark.parametrize("beyond", [-1, 0, 1, 2])
def test_the_size_of_an_item_is_what_dynamodb_counts(beyond: int) -> None:
    """One byte more than a kilobyte is another unit: the bound is met exactly, with every type of cell in the item."""

    async def scenario() -> None:
        meter = Meter()
        plain = row("a.1", epoch=12, n=345, settled_at=1_700_000_000_000, value="", lease=100, timeout_at=-7, due=90)
        rest = 1024 - size(encode(plain, "a", meter.store._stamp + "1", bucket(plain, None)).item)
        filled = plain._replace(value="é" + "x" * (rest + beyond - 2))
        assert await meter.store.commit(commit(Put(filled, 0))) is None
        assert meter.written - meter.indexed == units(1024 + beyond) == (1 if beyond <= 0 else 2)

    asyncio.run(scenario())


def test_a_step_is_one_write_unit_for_each_kilobyte_and_touches_no_index() -> None:
    async def scenario() -> None:
        meter = Meter()
        for text, expected in ((500, 1), (1500, 2), (10_000, 10)):
            meter.reset()
            step = row(f"a.{text}", epoch=1, n=text, value="x" * text, settled_at=1)
            assert await meter.store.commit(commit(Put(step, 0))) is None
            assert (meter.written, meter.indexed, dict(meter.calls)) == (expected, 0, {"PutItem": 1})

    asyncio.run(scenario())


def test_the_index_of_what_is_due_is_left_alone_while_a_run_goes_on() -> None:
    """Rule B2: leased, due, suspended and waiting by turns; only another day moves the entry."""

    async def scenario() -> None:
        meter, noon = Meter(), 20_000 * DAY + DAY // 2
        turns: list[tuple[int | None, float]] = [
            (noon, 2),  # created: one entry in each index
            (noon + 60_000, 0),
            (noon + 1000, 0),
            (None, 0),  # waits for a promise
            (noon + DAY // 2 + 60_000, 0),  # a lease over midnight
            (noon + 30 * DAY, 2),  # sleeps for a month
            (noon + 30 * DAY + 60_000, 0),
            (noon + 3 * DAY, 2),  # is due sooner: a search must find it
        ]
        for rev, (due, indexed) in enumerate(turns):
            meter.reset()
            run = row("a", rev=rev + 1, kind=Kind.ROOT, task=RUNNING, due=due, branch="a")
            assert await meter.store.commit(commit(Put(run, rev))) is None
            assert (meter.written - meter.indexed, meter.indexed) == (1, indexed), (rev, due)
            if due is not None:
                assert [one.id for one in await meter.store.due(due, 10)] == ["a"]
        meter.reset()
        ended = row("a", rev=len(turns) + 1, kind=Kind.ROOT, state="resolved", settled_at=noon, branch="a")
        assert await meter.store.commit(commit(Put(ended, len(turns)))) is None
        assert meter.indexed == 2, "from the pending to the settled"

    asyncio.run(scenario())


app = App("units")


@app.step
def note(left: int) -> str:
    return f"{left} to go"


@app.workflow
async def countdown(ctx: Context, count: int) -> None:
    for left in range(count, 0, -1):
        await ctx.run(note, left)
        await ctx.sleep(60)


@app.workflow
async def walk(ctx: Context, count: int) -> None:
    for left in range(count, 0, -1):
        await ctx.run(note, left)


@app.workflow
async def one(ctx: Context) -> None:
    return None


@app.workflow
async def fan(ctx: Context, count: int) -> None:
    await asyncio.gather(*[ctx.rpc(one) for _ in range(count)])


class Function:
    """The handler behind its queue, over a metered table; nothing is kept warm unless said."""

    def __init__(self, *, steps: int | None = None, cache: int = 0) -> None:
        self.cloud, self.meter = Cloud(), Meter()
        self.client = Client(self.meter.store, self.cloud.waker(), app=app, clock=self.cloud.clock)
        self.function = handler(app, client=self.client, steps_per_invocation=steps, cache=cache)

    async def run(self, seconds: float) -> None:
        async def deliver(message: Message) -> bool:
            answer = await self.function.answer({"Records": [message.record(QUEUE_ARN)]}, LambdaContext())
            return bool(answer == {"batchItemFailures": []})

        await self.cloud.run(self.cloud.clock.now() + round(seconds * 1000), deliver)

    def reset(self) -> None:
        self.meter.reset()
        self.cloud.requests.clear()


def test_an_iteration_of_the_countdown_is_three_write_units_one_query_and_one_message() -> None:
    async def scenario() -> None:
        function = Function()
        await function.client.start(countdown, 20, id="c")
        await function.run(70)
        function.reset()
        await function.run(360)
        assert function.meter.written == 18
        assert function.meter.indexed == 0
        assert dict(function.meter.calls) == {"Query": 6, "PutItem": 18}
        assert function.cloud.requests == ["SendMessage"] * 6
        assert function.meter.read <= 12

    asyncio.run(scenario())


def test_a_long_run_costs_what_a_short_one_does() -> None:
    """Each acquisition adds a segment to the run's own item; every ten of them are folded before it outgrows a unit."""

    async def scenario() -> None:
        function = Function()
        await function.client.start(countdown, 100, id="countdown-of-a-hundred")
        await function.run(70)
        function.reset()
        await function.run(3600)
        assert function.meter.written == 180, "three for each of sixty"
        assert 0 < function.meter.transacted <= 42, "and less than one more for the folds"
        assert (await function.client.get("countdown-of-a-hundred")).state == "pending"

    asyncio.run(scenario())


def test_a_body_that_is_kept_warm_reads_its_own_record_alone() -> None:
    async def scenario() -> None:
        function = Function(cache=64)
        await function.client.start(countdown, 20, id="c")
        await function.run(70)
        function.reset()
        await function.run(360)
        assert (function.meter.written, function.meter.read) == (18, 6)
        assert dict(function.meter.calls) == {"GetItem": 6, "PutItem": 18}

    asyncio.run(scenario())


def test_step_by_step_each_step_is_three_write_units_and_one_message() -> None:
    async def scenario() -> None:
        function = Function(steps=1)
        await function.client.start(walk, 12, id="w")
        await function.run(1)
        before = (await function.client.get("w")).version
        function.reset()
        await function.run(5)
        done = (await function.client.get("w")).version - before
        assert done >= 3
        assert function.meter.written == 3 * done
        assert function.cloud.requests.count("SendMessage") <= 2 * done

    asyncio.run(scenario())


def test_a_fan_in_writes_each_child_twice_and_wakes_its_parent_once() -> None:
    """Rule B3: creation is a transaction of fifty, so two units each; then a child is acquired and settled."""

    async def scenario() -> None:
        function = Function()
        await function.client.start(fan, 150, id="f")
        await function.run(300)
        assert (await function.client.get("f")).state == "resolved"
        assert (await function.client.get("f")).version <= 3, "woken once they are all there, not once for each"
        puts = function.meter.calls["PutItem"]
        assert puts <= 3 * 150 + 10, "acquire and settle; the drain forgets who waits"
        assert function.meter.calls["TransactWriteItems"] <= 5

    asyncio.run(scenario())


def test_what_dynamodb_does_not_take_is_beyond_what_we_count() -> None:
    async def scenario() -> None:
        meter = Meter()
        stamp = f"{meter.store._stamp}1"
        plain = row("a", value="")
        largest = plain._replace(value="x" * (LARGEST - size(encode(plain, "a", stamp, None).item)))
        assert await meter.store.commit(commit(Put(largest, 0))) is None

    asyncio.run(scenario())


def test_the_price_of_a_recorded_run_is_that_of_what_was_measured() -> None:
    """Every unit of a run from its start to its end, and the arithmetic of its price."""

    async def scenario() -> None:
        function = Function()
        await function.client.start(countdown, 5, id="c")
        await function.run(400)
        assert (await function.client.get("c")).state == "resolved"
        measured = function.meter.written + function.meter.transacted
        seen: list[Any] = []

        def price(taken: Any, wakeups: int) -> dict[str, float]:
            seen.append((pricing.units_of(taken), wakeups))
            return pricing.price(taken, wakeups)

        function.meter.store.price = price  # type: ignore[method-assign]
        report = await function.client.cost("c")
        ((counted, wakeups),) = seen
        assert abs(counted.write - measured) <= 0.1 * measured, (counted, measured)
        assert report.dollars["aws"] == pytest.approx(
            counted.write * 0.625e-6 + counted.read * 0.125e-6 + wakeups * (3 * 0.40e-6 + 0.20e-6)
        )

    asyncio.run(scenario())
