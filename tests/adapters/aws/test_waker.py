"""The waker against the suite that every waker must pass, on a cloud whose clock the tests move."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from moto import mock_aws

from everstep.errors import WakerError
from everstep.ports import Store, Wake
from everstep.stores.memory import MemoryStore
from everstep.testing.conformance import Rig, WakerSuite
from everstep.wakers.message import wake_from_json
from everstep_aws.calls import make_client
from everstep_aws.store import open_store
from everstep_aws.waker import FARTHEST, NoWaker, SqsWaker, open_waker

from .cloud import QUEUE, QUEUE_ARN, ROLE, Cloud, Message
from .emulators import REGION

MINUTE = 60_000
DAY = 86_400_000


class CloudRig:
    """Messages are delivered as the handler would: one before its time is sent anew with the delay that is left."""

    def __init__(self) -> None:
        self.cloud = Cloud()
        self.waker = self.cloud.waker()
        self.store: Store = MemoryStore()
        self.planned: dict[str, int] = {}

    def now(self) -> int:
        return self.cloud.clock.now()

    async def advance(self, to: int) -> list[Wake]:
        delivered: list[Wake] = []

        async def handle(message: Message) -> bool:
            wake = wake_from_json(message.body)
            at = self.planned.get(wake.id, 0)
            if at > self.now():
                await self.waker.again(wake, at, 2)
            else:
                delivered.append(wake)
            return True

        await self.cloud.run(to, handle)
        return delivered

    async def close(self) -> None:
        assert self.cloud.dead == []


class TestSqsWaker(WakerSuite):
    late = 1000  # delays are whole seconds

    async def open(self) -> Rig:
        return CloudRig()

    async def plan(self, rig: Any, wake: Wake, at: int) -> str | None:
        token = await super().plan(rig, wake, at)
        rig.planned[wake.id] = at
        return token


def test_a_message_reaches_fifteen_minutes_and_a_schedule_what_lies_beyond() -> None:
    async def scenario() -> None:
        cloud = Cloud()
        waker, now = cloud.waker(), cloud.clock.now()
        assert await waker.arm(Wake("a", 1), now + 900_000) is None
        assert cloud.requests == ["SendMessage"]
        token = await waker.arm(Wake("a", 2), now + 900_001)
        assert token is not None
        assert list(cloud.schedules) == [token]
        ((at, target),) = cloud.schedules.values()
        assert at <= now + 900_001, "it aims early, for it is precise to the minute"
        assert wake_from_json(target["Input"]) == Wake("a", 2)
        other = await waker.arm(Wake("a", 2), now + 900_001)
        assert other != token, "a name is used once"
        await waker.disarm(token)
        await waker.disarm(token)
        assert list(cloud.schedules) == [other]
        await waker.arm(Wake("far"), now + 900 * DAY)
        assert max(at for at, _ in cloud.schedules.values()) <= now + FARTHEST * 1000 + MINUTE

    asyncio.run(scenario())


def test_without_a_role_what_lies_beyond_hops_from_message_to_message() -> None:
    async def scenario() -> None:
        rig = CloudRig()
        rig.waker = rig.cloud.waker(role=None)
        at = rig.now() + 3_600_000
        rig.planned["a"] = at
        await rig.waker.arm(Wake("a", 3), at)
        assert await rig.advance(at - 1) == []
        assert await rig.advance(at + 1000) == [Wake("a", 3)]
        assert rig.cloud.requests == ["SendMessage"] * 4

    asyncio.run(scenario())


@pytest.mark.parametrize("fault", ["ThrottlingException", "RequestThrottled", "lost"])
def test_a_wake_up_survives_what_passes(fault: str) -> None:
    async def scenario() -> None:
        cloud = Cloud()
        waker, now = cloud.waker(), cloud.clock.now()
        cloud.script = [fault, fault]
        await waker.send(Wake("a"))
        assert {message.body for message in cloud.queue.values()} == {'{"id":"a","version":0}'}
        cloud.script = [fault]
        token = await waker.arm(Wake("a", 1), now + DAY)
        assert list(cloud.schedules) == [token], "one that was made though nobody said so is its own"
        assert token is not None
        cloud.script = [fault]
        await waker.disarm(token)
        assert not cloud.schedules

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("ExpiredTokenException", "credentials have expired"),
        ("AccessDeniedException", "policy does not allow"),
        ("ServiceQuotaExceededException", "ServiceQuotaExceeded"),
        ("ResourceNotFoundException", "does not exist"),
    ],
)
def test_a_wake_up_that_is_refused_is_a_waker_error_that_says_why(code: str, says: str) -> None:
    async def scenario() -> None:
        cloud = Cloud()
        waker = cloud.waker()
        for at in (0, cloud.clock.now() + DAY):
            cloud.script, cloud.requests = [code], []
            with pytest.raises(WakerError, match=says):
                await waker.arm(Wake("a"), at)
            assert len(cloud.requests) == 1
        assert not cloud.queue
        assert not cloud.schedules

    asyncio.run(scenario())


def test_moto_takes_what_is_sent_and_scheduled() -> None:
    """A second opinion on the form of the requests."""
    with mock_aws():
        sqs, scheduler = make_client("sqs", region=REGION), make_client("scheduler", region=REGION)
        url = sqs.create_queue(QueueName="wakes")["QueueUrl"]
        waker = SqsWaker(url, role=ROLE, region=REGION)

        async def scenario() -> None:
            await waker.send(Wake("a/é", 7))
            await waker.again(Wake("a", 7), 0, 3)
            await waker.arm(Wake("far", 1), waker._clock.now() + DAY)
            await waker.close()

        asyncio.run(scenario())
        received: list[dict[str, Any]] = []
        while got := sqs.receive_message(QueueUrl=url, MessageAttributeNames=["All"]).get("Messages", []):
            received += got
        assert {wake_from_json(one["Body"]) for one in received} == {Wake("a/é", 7), Wake("a", 7)}
        assert [
            one["MessageAttributes"]["attempt"]["StringValue"] for one in received if "MessageAttributes" in one
        ] == ["3"]
        (listed,) = scheduler.list_schedules()["Schedules"]
        made = scheduler.get_schedule(Name=listed["Name"], GroupName="default")
        assert made["ActionAfterCompletion"] == "DELETE"
        assert json.loads(made["Target"]["Input"]) == {"id": "far", "version": 1}
        assert made["Target"]["Arn"] == f"arn:aws:sqs:{REGION}:123456789012:wakes"


@pytest.mark.parametrize(
    ("url", "arn"),
    [
        (QUEUE, QUEUE_ARN),
        ("https://sqs.cn-north-1.amazonaws.com.cn/1/q", "arn:aws-cn:sqs:cn-north-1:1:q"),
        ("https://sqs.us-gov-west-1.amazonaws.com/1/q", "arn:aws-us-gov:sqs:us-gov-west-1:1:q"),
        ("http://127.0.0.1:4566/000000000000/q", "arn:aws:sqs:us-east-1:000000000000:q"),
    ],
)
def test_the_arn_of_a_queue_follows_from_its_url(url: str, arn: str) -> None:
    assert SqsWaker(url)._queue_arn() == arn


def test_a_store_url_names_its_queue_and_so_does_the_environment() -> None:
    waker = open_waker(open_store("dynamodb://t?queue=https%3A%2F%2Fq&role=r&group=g"), {})
    assert isinstance(waker, SqsWaker)
    assert (waker.queue, waker.role, waker.group) == ("https://q", "r", "g")
    waker = open_waker(open_store("dynamodb://t"), {"EVERSTEP_QUEUE": "https://e", "EVERSTEP_SCHEDULER_ROLE": "x"})
    assert isinstance(waker, SqsWaker)
    assert (waker.queue, waker.role, waker.group) == ("https://e", "x", "default")


def test_without_a_queue_reading_works_and_waking_says_what_is_missing() -> None:
    waker = open_waker(open_store("dynamodb://t"), {})
    assert isinstance(waker, NoWaker)
    with pytest.raises(WakerError, match="EVERSTEP_QUEUE"):
        asyncio.run(waker.arm(Wake("a"), 0))
    with pytest.raises(WakerError, match="EVERSTEP_QUEUE"):
        asyncio.run(waker.send(Wake("a")))
    asyncio.run(waker.disarm("x"))
