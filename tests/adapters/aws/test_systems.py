"""Systems 3, 32, 39 and 46 on AWS: the countdown of the template, a batch of five megabytes, encrypted payments, and
research that splits itself, through the function's own handler on DynamoDB Local and the queue, with the process killed
at writes of every kind.

A killed process is an instance whose calls never come back: what it had under way ends there, the message it held comes
again after its visibility timeout, and a new instance with a cold cache takes it.
"""

from __future__ import annotations

import asyncio
import os
import random
from base64 import b64encode
from collections.abc import Awaitable, Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from moto import mock_aws

from everstep import App, Client, Codec, Runtime
from everstep.views import TreeView
from everstep_aws import S3Blobs, handler
from everstep_aws.calls import Answer, Caller, make_client
from everstep_aws.store import DynamoStore
from tests.systems import test_32_batch as system_32
from tests.systems import test_39_encryption as system_39
from tests.systems.scaffold import World
from tests.systems.test_03_countdown import WANTED, countdown, outside
from tests.systems.test_46_deep_research import ANSWER, CALLS, NODES
from tests.systems.test_46_deep_research import app as researcher

from .cloud import QUEUE_ARN, Cloud, LambdaContext, Message
from .emulators import REGION, Inline, dynamodb, local_store
from .faults import no_pause

pytestmark = pytest.mark.xdist_group("dynamodb-local")

BOTH = pytest.mark.parametrize("steps", [None, 1], ids=["until blocked", "step by step"])
SAMPLED = 10**6 if os.environ.get("EVERSTEP_SOAK") else 4


class Life:
    """Of one process. `reached` counts the points at which it may die: before each write and after it."""

    def __init__(self, until: int, reached: int = 0) -> None:
        self.until = until
        self.reached = reached
        self.over = asyncio.Event()

    async def point(self) -> None:
        self.check()
        self.reached += 1
        if self.reached == self.until:
            self.over.set()
            await asyncio.get_running_loop().create_future()

    def check(self) -> None:
        if self.over.is_set():
            raise asyncio.CancelledError  # the dead call nobody


class Mortal(Caller):
    """Calls of a process that may die."""

    def __init__(self, life: Life, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._life = life

    async def __call__(self, name: str, /, *, writes: bool = False, **parameters: Any) -> Answer:
        pause: Callable[[], Awaitable[None]] = self._life.point if writes or name == "send_message" else self._alive
        await pause()
        answer = await super().__call__(name, writes=writes, **parameters)
        await pause()
        return answer

    async def _alive(self) -> None:
        self._life.check()


class Rig:
    """The function behind its queue, one process after the other; the `until`th point is the end of the first."""

    def __init__(self, app: App, steps: int | None, until: int = 0) -> None:
        self.app = app
        self.steps = steps
        self.deaths = 0
        self.cloud = Cloud()
        self.outside = Client(local_store(), self.cloud.waker(), app=app, clock=self.cloud.clock)
        self._born(Life(until))

    def _born(self, life: Life) -> None:
        self.life = life
        caller = partial(Mortal, life)
        store = self.outside.store
        assert isinstance(store, DynamoStore)
        client = Client(
            DynamoStore(store.table, caller=caller(dynamodb, "the table", pause=no_pause)),
            self.cloud.waker(caller=caller),
            app=self.app,
            clock=self.cloud.clock,
        )
        self.function = handler(self.app, client=client, steps_per_invocation=self.steps)

    async def run(self, workflow: str, *args: Any, id: str) -> TreeView:
        """Start a run by a direct invocation, and let ten minutes pass."""
        started = None
        while started is None:
            started = await self._invoke({"workflow": workflow, "args": list(args), "id": id})
        assert started == {"id": id}
        await self.wait()
        assert self.cloud.dead == []
        assert self.cloud.queue == {}, "nothing goes round for ever"
        return await self.outside.tree(id)

    async def wait(self) -> None:
        """Ten minutes."""
        await self.cloud.run(self.cloud.clock.now() + 600_000, self._deliver)

    async def _deliver(self, message: Message) -> bool:
        return bool(await self._invoke({"Records": [message.record(QUEUE_ARN)]}) == {"batchItemFailures": []})

    async def _invoke(self, event: Any) -> Any:
        """Its answer; None where the process died over it."""
        before = asyncio.all_tasks()
        answer = asyncio.ensure_future(self.function.answer(event, LambdaContext()))
        over = asyncio.ensure_future(self.life.over.wait())
        await asyncio.wait({answer, over}, return_when=asyncio.FIRST_COMPLETED)
        if not over.done():
            over.cancel()
            return await answer
        left = asyncio.all_tasks() - before
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=10)
        self.deaths += 1
        self._born(Life(0, self.life.reached))
        return None

    async def close(self) -> None:
        await self.function.client.close()
        await self.outside.close()


async def ran(app: App, steps: int | None, until: int, workflow: str, *args: Any) -> tuple[Rig, TreeView]:
    rig = Rig(app, steps, until)
    try:
        return rig, await rig.run(workflow, *args, id="r")
    finally:
        await rig.close()


def sampled(points: int) -> list[int]:
    """A few of them, and others every day; all of them with EVERSTEP_SOAK."""
    return sorted(random.Random(date.today().toordinal()).sample(range(1, points + 1), min(SAMPLED, points)))


@BOTH
def test_research_splits_itself_and_asks_nothing_twice_though_killed_at_writes(steps: int | None) -> None:
    """System 46."""

    async def scenario() -> None:
        world = researcher.provide(World())
        rig, tree = await ran(researcher, steps, 0, "research", "tides", 2)
        assert tree.promise.value == ANSWER[2]
        assert world.count("model") == CALLS[2]
        assert sum(one.kind in ("root", "rpc") for one in tree.walk()) == NODES[2]
        assert rig.life.reached > 2 * CALLS[2], "each record of a step is a write, before and after"
        for point in sampled(rig.life.reached):
            world = researcher.provide(World())
            killed, tree = await ran(researcher, steps, point, "research", "tides", 2)
            assert killed.deaths == 1 or killed.life.reached < point, "batches may differ by a write"
            assert tree.promise.value == ANSWER[2], f"killed at {point}"
            assert world.count("model") <= CALLS[2] + 1, f"killed at {point}: the step under way, and no other"

    asyncio.run(scenario())


def journal(tree: TreeView) -> list[tuple[Any, ...]]:
    """All that is recorded of a run, in its order, but for the instants."""
    return [(one.id, one.kind, one.name, one.args, one.state, one.value) for one in tree.walk()]


async def embedded(folder: Path) -> list[tuple[Any, ...]]:
    outside()
    async with Runtime(countdown.app, f"sqlite:///{folder / 'store.db'}") as runtime:
        await runtime.run(countdown.countdown, 5, 0.01, id="r")
    async with Client.open(f"sqlite:///{folder / 'store.db'}", app=countdown.app) as client:
        return journal(await client.tree("r"))


@BOTH
def test_the_countdowns_journal_is_the_embedded_one_though_killed_at_writes(steps: int | None, tmp_path: Path) -> None:
    """System 3."""

    async def scenario() -> None:
        wanted = await embedded(tmp_path)
        assert [entry[3] for entry in wanted if entry[1] == "step"] == [[text] for text in WANTED]
        world = outside()
        rig, tree = await ran(countdown.app, steps, 0, "countdown", 5, 0.01)
        assert tree.promise.value == "counted down from 5"
        assert journal(tree) == wanted
        assert [one["text"] for one in world.effects("post")] == WANTED
        for point in sampled(rig.life.reached):
            world = outside()
            killed, tree = await ran(countdown.app, steps, point, "countdown", 5, 0.01)
            assert killed.deaths == 1 or killed.life.reached < point, "batches may differ by a write"
            assert journal(tree) == wanted, f"killed at {point}"
            posted = [one["text"] for one in world.effects("post")]
            assert list(dict.fromkeys(posted)) == WANTED, f"killed at {point}"
            assert len(posted) <= len(WANTED) + 1, f"killed at {point}: what was under way, and no other"

    asyncio.run(scenario())


@BOTH
def test_a_countdown_that_a_kafka_record_starts_has_the_same_journal(steps: int | None, tmp_path: Path) -> None:
    """System 3, the shape that is a topic: Lambda's mapping hands over a batch, twice."""
    app = countdown.app
    app.on("kafka", source="countdowns", args=lambda event: tuple(event.data), id=lambda event: "r")(
        countdown.countdown
    )
    record = {
        "topic": "countdowns",
        "partition": 0,
        "offset": 7,
        "timestamp": 1,
        "value": b64encode(b"[5, 0.01]").decode(),
    }
    batch = {"eventSource": "aws:kafka", "records": {"countdowns-0": [record]}}

    async def scenario() -> None:
        wanted = await embedded(tmp_path)
        world = outside()
        rig = Rig(app, steps)
        try:
            assert await rig._invoke(batch) is None
            assert world.order() == [], "acknowledged once it is durable, before anything runs"
            await rig.wait()
            assert await rig._invoke(batch) is None
            await rig.wait()
            assert journal(await rig.outside.tree("r")) == wanted
        finally:
            await rig.close()
        assert [one["text"] for one in world.effects("post")] == WANTED

    asyncio.run(scenario())


@BOTH
@pytest.mark.parametrize("dies_at", [0, 4, 9, 14])
def test_five_megabytes_of_records_are_imported_once(steps: int | None, dies_at: int) -> None:
    """System 32: an item of DynamoDB holds 400 KB, so that they are in a bucket, and the item says where."""

    async def scenario() -> None:
        bucket = make_client("s3", region=REGION)
        bucket.create_bucket(Bucket="payloads")
        blobs = S3Blobs("payloads", caller=Inline(lambda: bucket, "the bucket"))
        app = App("batch", codec=Codec(blobs=blobs, limit=180_000))
        app.step(system_32.load)
        app.workflow(name="import_rows")(system_32.import_rows.fn)
        world = app.provide(World())
        rig = Rig(app, steps, dies_at)
        try:
            await rig.outside.start("import_rows", system_32.records(text=system_32.LARGE), id="r")
            await rig.wait()
            assert await rig.outside.handle("r").result(0) == system_32.RESULT
        finally:
            await rig.close()
        assert rig.deaths == (dies_at > 0)
        assert list(dict.fromkeys(world.order())) == system_32.BATCHES
        assert len(world.order()) <= len(system_32.BATCHES) + rig.deaths
        assert sum(one["Size"] for one in bucket.list_objects_v2(Bucket="payloads")["Contents"]) > 5_000_000

    with mock_aws():
        asyncio.run(scenario())


@pytest.mark.parametrize("sealed", [False, True])
def test_nothing_of_a_customer_can_be_read_in_the_table(sealed: bool) -> None:
    """System 39."""

    async def scenario() -> None:
        app = system_39.shop(Codec(encryptor=system_39.aes()) if sealed else Codec())
        app.provide(World(script={"validate": ["fail"]}))
        rig = Rig(app, None)
        try:
            await rig.outside.start("pay", system_39.CARD, system_39.NAME, 4200, id="o1")
            await rig.wait()
            await rig.outside.resolve("o1.4", system_39.SECRET)
            await rig.wait()
            assert await rig.outside.handle("o1").result(0) == system_39.RESULT
            store = rig.outside.store
            assert isinstance(store, DynamoStore)
            items = dynamodb().scan(TableName=store.table)["Items"]
        finally:
            await rig.close()
        assert len(items) > 5
        found = system_39.in_clear(items)
        assert found == [] if sealed else len(found) > 3, "the dump would show it"

    asyncio.run(scenario())
