"""System 24, a worker of a queue: each Kafka record or SQS message starts its own run, and the consumer moves on."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from typing import Any

import pytest

from everstep import App, Client, Context, Retry, current_step
from everstep.errors import StoreUnavailable
from everstep.ports import Commit, Refused
from everstep.stores.memory import MemoryStore
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.components import requires_component
from tests.systems.scaffold import World, did, kill_at, survives

app = App("deletions", retry=Retry(attempts=3, first=0.5))


class Accounts:
    """Rows that are left of each account; a batch deletes ten."""

    def __init__(self, **rows: int) -> None:
        self.rows = rows

    def delete(self, account: str) -> int:
        left = self.rows[account] = max(0, self.rows.get(account, 10) - 10)
        return left


class Producer:
    """Publishes to the topic of completions."""

    def publish(self, account: str) -> None:
        did("published", account=account)


@app.step
def delete_batch(account: str, batch: int) -> int:
    did(f"batch of {account}", batch=batch)
    return current_step().dependency(Accounts).delete(account)


@app.step
def publish(account: str) -> None:
    current_step().dependency(Producer).publish(account)


@app.on("kafka", source="deletions", args=lambda event: (event.data["account"],))
@app.on("sqs", source="deletions", args=lambda event: (event.data["account"],))
@app.workflow
async def delete_account(ctx: Context, account: str) -> int:
    batch = 1
    while await ctx.run(delete_batch, account, batch):
        batch += 1
        await ctx.sleep(5)
    await ctx.run(publish, account)
    return batch


app.provide(Accounts())
app.provide(Producer())


def kafka(*accounts: str) -> dict[str, Any]:
    """A batch as Lambda's mapping of a topic hands it over, two partitions."""
    records: dict[str, list[dict[str, Any]]] = {}
    for offset, account in enumerate(accounts):
        partition = offset % 2
        value = b64encode(json.dumps({"account": account}).encode()).decode()
        record = {"topic": "deletions", "partition": partition, "offset": offset, "timestamp": 1, "value": value}
        records.setdefault(f"deletions-{partition}", []).append(record)
    return {"eventSource": "aws:kafka", "records": records}


class Fragile(MemoryStore):
    """Out of reach, for some accounts or for all."""

    away: tuple[str, ...] = ()

    async def commit(self, commit: Commit) -> Refused | None:
        if any(name in str(commit) for name in self.away):
            raise StoreUnavailable("out of reach")
        return await super().commit(commit)


class Consumer:
    """The function behind its topic and its queues."""

    def __init__(self, **rows: int) -> None:
        requires_component("botocore", hint="pip install 'everstep[aws]'")
        from everstep_aws import handler
        from tests.adapters.aws.cloud import Cloud

        self.world = app.provide(World())
        app.provide(Accounts(**rows))
        self.store = Fragile()
        self.cloud = Cloud()
        self.client = Client(self.store, self.cloud.waker(), app=app, clock=self.cloud.clock)
        self.function = handler(app, client=self.client)

    async def invoke(self, event: Any) -> Any:
        from tests.adapters.aws.cloud import LambdaContext

        return await self.function.answer(event, LambdaContext())

    async def run(self, seconds: float) -> None:
        from tests.adapters.aws.cloud import QUEUE_ARN, Message

        async def deliver(message: Message) -> bool:
            return bool(await self.invoke({"Records": [message.record(QUEUE_ARN)]}) == {"batchItemFailures": []})

        await self.cloud.run(self.cloud.clock.now() + round(seconds * 1000), deliver)

    def published(self) -> list[str]:
        return [one["account"] for one in self.world.effects("published")]


def test_a_hundred_records_and_the_slow_one_holds_up_nobody() -> None:
    consumer = Consumer(a7=200)
    accounts = [f"a{n}" for n in range(100)]

    async def story() -> None:
        assert await consumer.invoke(kafka(*accounts)) is None
        assert consumer.world.order() == [], "the consumer has returned, and nothing has run"
        views, _ = await consumer.client.search(limit=1000)
        assert len(views) == 100
        await consumer.run(5)
        assert sorted(consumer.published()) == sorted(set(accounts) - {"a7"})
        await consumer.run(120)
        assert consumer.published()[-1] == "a7"
        assert await consumer.invoke(kafka(*accounts)) is None, "delivered again"
        await consumer.run(120)

    asyncio.run(story())
    assert sorted(consumer.published()) == sorted(accounts), "one completion each"
    assert [one["batch"] for one in consumer.world.effects("batch of a7")] == list(range(1, 21))


def test_a_batch_of_kafka_is_not_acknowledged_while_the_store_is_down() -> None:
    consumer = Consumer()

    async def story() -> None:
        consumer.store.away = ("Commit",)
        with pytest.raises(RuntimeError, match="3 of 3 kafka records failed"):
            await consumer.invoke(kafka("x", "y", "z"))
        consumer.store.away = ("deletions-1-1",)
        with pytest.raises(RuntimeError, match="1 of 3 kafka records failed"):
            await consumer.invoke(kafka("x", "y", "z"))
        consumer.store.away = ()
        assert await consumer.invoke(kafka("x", "y", "z")) is None, "those that stood attach"
        await consumer.run(10)

    asyncio.run(story())
    assert sorted(consumer.published()) == ["x", "y", "z"]


def test_of_a_batch_of_sqs_only_what_failed_comes_again() -> None:
    consumer = Consumer()

    def message(id: str, account: str) -> dict[str, Any]:
        arn = "arn:aws:sqs:eu-central-1:123456789012:deletions"
        body = json.dumps({"account": account})
        return {"messageId": id, "body": body, "eventSource": "aws:sqs", "eventSourceARN": arn, "attributes": {}}

    batch = {"Records": [message("m1", "x"), message("m2", "y")]}

    async def story() -> None:
        consumer.store.away = ("m2",)
        assert await consumer.invoke(batch) == {"batchItemFailures": [{"itemIdentifier": "m2"}]}
        consumer.store.away = ()
        assert await consumer.invoke({"Records": batch["Records"][1:]}) == {"batchItemFailures": []}
        await consumer.run(10)

    asyncio.run(story())
    assert sorted(consumer.published()) == ["x", "y"]


@pytest.mark.parametrize("mode", ["rows", "queue"])
def test_killed_between_two_batches_it_repeats_none_that_is_recorded(mode: Mode) -> None:
    world = app.provide(World())
    app.provide(Accounts(big=40))
    sim = Simulation(app, mode=mode)
    handle = sim.start(delete_account, "big", id="d")
    kill_at(sim, "delivered", number=3)
    sim.advance(minutes=5)
    assert handle.result() == 4
    assert [one["batch"] for one in world.effects("batch of big")] == [1, 2, 3, 4]
    assert world.effects("published") == [{"account": "big"}]


class Always(Accounts):
    """Two batches for whoever asks, so that a run that is begun anew finds the same."""

    def delete(self, account: str) -> int:
        return 10 if current_step().id.endswith(".1") else 0


def test_however_it_crashes_no_recorded_batch_is_deleted_again() -> None:
    app.provide(World())
    app.provide(Always())
    survives(app, delete_account, "a", result=2)
