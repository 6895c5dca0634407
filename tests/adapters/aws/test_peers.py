"""Two Apps on one table, a function and a queue each: a call from one to the other goes through both queues."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import boto3
import pytest
from moto import mock_aws

from everstep import App, Client, Context
from everstep.stores.memory import MemoryStore
from everstep.wakers.message import wake_from_json
from everstep_aws import handler

from .cloud import QUEUE_ARN, Cloud, LambdaContext, Message
from .emulators import REGION

shop, billing = App("shop"), App("billing")


@billing.workflow
async def bill(ctx: Context, cents: int) -> str:
    return f"billed {cents}"


@shop.workflow
async def order(ctx: Context, cents: int) -> str:
    return f"{await ctx.options(target=billing.target).rpc('bill', cents)}, ordered"


class Function:
    """One App's function and its queue."""

    def __init__(self, app: App, store: MemoryStore, **options: Any) -> None:
        self.cloud = Cloud()
        self.client = Client(store, self.cloud.waker(), app=app, clock=self.cloud.clock)
        self.handler = handler(app, client=self.client, **options)

    async def invoke(self, message: Message) -> bool:
        message.received = max(message.received, 1)
        answer = await self.handler.answer({"Records": [message.record(QUEUE_ARN)]}, LambdaContext())
        return bool(answer == {"batchItemFailures": []})

    async def work(self) -> None:
        await self.cloud.run(self.cloud.clock.now() + 3_000, self.invoke)


def test_a_call_goes_to_the_other_function_s_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(url: str, sqs: Any) -> None:
        monkeypatch.setenv("EVERSTEP_PEERS", f"billing={url}")
        there = Function(shop, MemoryStore())
        handle = await there.client.start(order, 42, id="o")
        await there.work()

        (message,) = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
        assert wake_from_json(message["Body"]).id == "o.1"
        assert there.cloud.queue == {}, "the obligation has moved"

        monkeypatch.delenv("EVERSTEP_PEERS")
        client = Client(there.client.store, there.cloud.waker(), app=billing, clock=there.cloud.clock)
        other = handler(billing, client=client)
        record = Message("m", message["Body"], {}, 0)
        record.received = 1
        assert await other.answer({"Records": [record.record(QUEUE_ARN)]}, LambdaContext()) == {"batchItemFailures": []}
        await there.work()
        assert await handle.result(0) == "billed 42, ordered"

    with mock_aws():
        sqs = boto3.client("sqs", region_name=REGION)
        asyncio.run(story(sqs.create_queue(QueueName="billing")["QueueUrl"], sqs))


def test_without_a_peer_the_message_comes_again_ever_later_and_says_what_is_missing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story() -> None:
        there = Function(shop, MemoryStore())
        await there.client.start(order, 42, id="o")
        with caplog.at_level(logging.ERROR, "everstep"):
            await there.work()
        (message,) = there.cloud.queue.values()
        assert json.loads(message.body)["id"] == "o.1"
        assert "'billing', whose function is not known here" in caplog.text
        waits = []
        for _ in range(12):
            (message,) = there.cloud.queue.values()
            waits.append((message.visible_at - there.cloud.clock.now()) // 1000)
            await there.cloud.run(message.visible_at, there.invoke)
        assert waits == sorted(waits)
        assert waits[-1] == 900

    asyncio.run(story())
