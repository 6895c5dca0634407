"""The Lambda handler against the suite that every handler must pass: DynamoDB Local below, SQS messages above."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from moto import mock_aws

from everstep.client import Client
from everstep.ports import Wake
from everstep.testing.conformance import HandlerSuite
from everstep.testing.conformance.handlers import Rig, Work
from everstep.wakers.message import wake_to_json
from everstep_aws import handler
from everstep_aws.calls import Caller
from everstep_aws.store import DynamoStore

from .cloud import QUEUE_ARN, Cloud, LambdaContext, Message
from .emulators import Inline, dynamodb, local_store, mocked_dynamodb, moto_store
from .faults import no_pause

pytestmark = pytest.mark.xdist_group("dynamodb-local")


class Away(Caller):
    """A store that can be out of reach."""

    away = False

    async def _run(self, call: Callable[[], Any]) -> Mapping[str, Any]:
        if self.away:
            raise EndpointConnectionError(endpoint_url="")
        return await super()._run(call)


class AwayInline(Away, Inline):
    pass


class QueueRig:
    """The function behind its queue: a message that is reported as failed comes back after its visibility timeout."""

    def __init__(self, work: Work, store: DynamoStore, steps: int | None) -> None:
        self.cloud = Cloud()
        self.store = store
        self.client = Client(store, self.cloud.waker(), app=work.app, clock=self.cloud.clock)
        self.function = handler(work.app, client=self.client, steps_per_invocation=steps)

    async def deliver(self, wake: Wake) -> bool:
        return await self._invoke(Message("extra", wake_to_json(wake), {}, 0))

    async def advance(self, seconds: float) -> None:
        await self.cloud.run(self.cloud.clock.now() + round(seconds * 1000), self._invoke)

    async def _invoke(self, message: Message) -> bool:
        before = set(self.cloud.queue)
        message.received = max(message.received, 1)
        answer = await self.function.answer({"Records": [message.record(QUEUE_ARN)]}, LambdaContext())
        if message.id == "extra" and set(self.cloud.queue) - before:
            return False  # it was taken, and comes again as another message
        return bool(answer == {"batchItemFailures": []})

    def broken(self, broken: bool) -> None:
        assert isinstance(self.store.call, Away)
        self.store.call.away = broken

    async def close(self) -> None:
        assert self.cloud.dead == []
        await self.store.close()


class TestUntilBlocked(HandlerSuite):
    steps: int | None = None

    async def rig(self, work: Work) -> Rig:
        table = local_store().table
        return QueueRig(work, DynamoStore(table, caller=Away(dynamodb, "the table", pause=no_pause)), self.steps)


class TestStepByStep(TestUntilBlocked):
    steps = 1


class TestMoto(HandlerSuite):
    @pytest.fixture(autouse=True)
    def _mocked(self) -> Iterator[None]:
        with mock_aws():
            yield

    async def rig(self, work: Work) -> Rig:
        caller = AwayInline(mocked_dynamodb, "the table", pause=no_pause)
        return QueueRig(work, DynamoStore(moto_store().table, caller=caller), None)
