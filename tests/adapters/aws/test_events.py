"""Every kind of event Lambda is invoked with, in its recorded shape, starts what wants it, once, and answers as its
source expects; what cannot start anything is refused and not acknowledged."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pytest

from everstep import App, Context
from everstep.client import Client
from everstep.errors import StoreUnavailable, UnknownFunction
from everstep.events import Event
from everstep.ports import Commit, Put, Refused, Wake
from everstep.promise import TaskState
from everstep.stores.memory import MemoryStore
from everstep.testing.conformance.rows import row
from everstep.tokens import sign
from everstep.wakers.message import wake_to_json
from everstep_aws import MalformedEvent, UnknownEvent, durable, handler
from everstep_aws.deadletters import DeadLetters
from everstep_aws.events import read

from .cloud import QUEUE_ARN, Cloud, LambdaContext, Message

EVENTS = Path(__file__).parent / "events"
SECRET = "a secret of sixteen bytes or more"
TOKEN = "the-function-s-own-token"


class Fragile(MemoryStore):
    """A memory store that is out of reach for some ids, and checks no guard: it stands for a table."""

    single_writer = False

    def __init__(self) -> None:
        super().__init__()
        self.away: tuple[str, ...] = ()

    async def commit(self, commit: Commit) -> Refused | None:
        if any(part in commit.origin for part in self.away):
            raise StoreUnavailable("out of reach")
        return await super().commit(commit)


class Shop:
    """An App that every kind of event starts something of."""

    def __init__(self, **options: Any) -> None:
        self.app = app = App("shop")
        self.cloud = Cloud()
        self.store = Fragile()

        @app.on("sqs", source="orders*")
        @app.on("sns", source="alerts")
        @app.on("s3", type="ObjectCreated:*")
        @app.on("kinesis", source="clicks")
        @app.on("dynamodb", source="customers")
        @app.on("kafka", source="deletions")
        @app.on("eventbridge")
        @app.on("direct", when=lambda event: isinstance(event.data, dict) and "mine" in event.data)
        @app.workflow
        async def take(ctx: Context, data: Any) -> Any:
            return data

        @app.workflow
        async def order(ctx: Context, id: str) -> object:
            return await ctx.promise()

        self.client = Client(self.store, self.cloud.waker(), app=app, clock=self.cloud.clock)
        self.function = handler(app, client=self.client, **options)

    def invoke(self, event: Any, remaining: int = 60_000) -> Any:
        return asyncio.run(self.function.answer(event, LambdaContext(remaining)))

    def started(self) -> dict[str, list[Any]]:
        """The arguments of every run, by id."""
        views, _ = asyncio.run(self.client.search())
        return {view.id: view.args for view in views}

    def deliver(self) -> None:
        """Hand every message over that is visible now."""

        async def invoke(message: Message) -> bool:
            answer = await self.function.answer({"Records": [message.record(QUEUE_ARN)]}, LambdaContext())
            return bool(answer == {"batchItemFailures": []})

        asyncio.run(self.cloud.run(self.cloud.clock.now() + 5_000, invoke))


def recorded(name: str) -> Any:
    return json.loads((EVENTS / f"{name}.json").read_text())


def events(name: str) -> list[Event]:
    batch = read(recorded(name))
    assert batch is not None
    return [item.event for item in batch.items]


STARTED: dict[str, dict[str, Any]] = {
    "sqs": {
        "take:orders:059f36b4-87a3-44ab-83d2-661975830a7d": {"order": "o-17", "cents": 4200},
        "take:orders:2e1424d4-f796-459a-8184-9c92662be6da": "no JSON at all",
    },
    "sns": {"take:alerts:95df01b4-ee98-5cb9-9903-4c221d41eb5e": {"alarm": "disk"}},
    "kafka_msk": {
        "take:deletions:deletions-0-15": {"user": "u1"},
        "take:deletions:deletions-0-16": {"user": "u2"},
        "take:deletions:deletions-1-3": {"user": "u3"},
    },
    "kafka_self_managed": {
        "take:deletions:deletions-0-15": {"user": "u1"},
        "take:deletions:deletions-0-16": {"user": "u2"},
        "take:deletions:deletions-1-3": {"user": "u3"},
    },
    "dynamodb": {
        "take:customers:c4ca4238a0b923820dcc509a6f75849b": {
            "keys": {"Id": 101},
            "new": {
                "Id": 101,
                "Total": 42.5,
                "Name": "New item!",
                "Tags": ["a", None, True],
                "Where": {"City": "Köln"},
                "Exact": "0.12345678901234567890",
            },
        },
        "take:customers:c81e728d9d4c2f636f067f89cc14862c": {
            "keys": {"Id": 102},
            "old": {"Id": 102, "Sizes": [1, 2.5]},
        },
    },
}
PARTIAL = ("sqs", "sqs_fifo", "kinesis", "dynamodb")
OTHERS = ("sqs_fifo", "kinesis", "s3", "eventbridge", "scheduler")


@pytest.mark.parametrize("name", STARTED)
def test_a_recorded_event_starts_its_runs_and_again_starts_nothing(name: str) -> None:
    shop = Shop()
    for _ in range(2):
        assert shop.invoke(recorded(name)) == ({"batchItemFailures": []} if name in PARTIAL else None)
        assert shop.started() == {id: [data] for id, data in STARTED[name].items()}


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_recorded_event_starts_one_run_a_record(name: str) -> None:
    shop = Shop()
    for _ in range(2):
        assert shop.invoke(recorded(name)) == ({"batchItemFailures": []} if name in PARTIAL else None)
        assert len(shop.started()) == len(events(name))


def test_what_a_record_says_of_itself() -> None:
    (s3,) = events("s3")
    assert s3.id == "invoices/2026/Rechnung für o-17.pdf/0C0F6F405D6ED209E1"
    assert (s3.source, s3.type, s3.time) == ("invoices", "ObjectCreated:Put", 1782987330123)
    assert s3.data["key"] == "2026/Rechnung für o-17.pdf"
    first, _, last = events("kinesis")
    assert (first.source, first.data, first.time) == ("clicks", {"page": "/"}, 1782987330428)
    assert last.data == b"\xff\x00"
    kafka, bare, signed = events("kafka_msk")
    assert kafka.attributes == {"partition": 0, "offset": 15, "headers": {"trace": "abc"}, "key": "user-1"}
    assert "key" not in bare.attributes
    assert signed.attributes["headers"] == {"signed": "界"}
    assert [event.type for event in events("dynamodb")] == ["INSERT", "REMOVE"]
    (bridge,) = events("eventbridge")
    assert (bridge.source, bridge.type) == ("aws.ec2", "EC2 Instance State-change Notification")
    assert bridge.data == {"instance-id": "i-1234567890abcdef0", "state": "terminated"}
    assert events("sqs")[0].attributes["tenant"] == "acme"
    assert [event.attributes["MessageGroupId"] for event in events("sqs_fifo")] == ["acme", "acme", "other"]
    assert events("scheduler")[0].data == {}


def test_a_part_of_a_batch_fails_alone_and_is_delivered_again() -> None:
    shop = Shop()
    shop.store.away = ("059f36b4",)
    first, second = STARTED["sqs"]
    assert shop.invoke(recorded("sqs")) == {"batchItemFailures": [{"itemIdentifier": first.rpartition(":")[2]}]}
    assert sorted(shop.started()) == [second]
    shop.store.away = ()
    assert shop.invoke(recorded("sqs")) == {"batchItemFailures": []}
    assert sorted(shop.started()) == sorted([first, second])


def test_what_must_be_taken_in_order_stops_at_the_first_that_fails() -> None:
    shop = Shop()
    shop.store.away = ("11d6ee51",)
    answer = shop.invoke(recorded("sqs_fifo"))
    failed = [one["itemIdentifier"][:8] for one in answer["batchItemFailures"]]
    assert failed == ["11d6ee51", "22d6ee51"], "of the same group, and not of the other one"
    shop = Shop()
    shop.store.away = ("36136642",)
    answer = shop.invoke(recorded("kinesis"))
    assert [one["itemIdentifier"][-1] for one in answer["batchItemFailures"]] == ["2", "3"]


@pytest.mark.parametrize("name", ["sns", "s3", "kafka_msk", "eventbridge"])
def test_a_source_without_partial_answers_gets_an_error_and_repeats_all(name: str) -> None:
    shop = Shop()
    shop.store.away = ("take",)
    with pytest.raises(RuntimeError, match="records failed"):
        shop.invoke(recorded(name))
    shop.store.away = ()
    assert shop.invoke(recorded(name)) is None
    assert len(shop.started()) == len(events(name))


def test_an_event_that_nobody_wants_is_acknowledged_and_said(caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop()
    event = recorded("sns")
    event["Records"][0]["Sns"]["TopicArn"] = "arn:aws:sns:eu-central-1:1:others"
    assert shop.invoke(event) is None
    assert shop.started() == {}
    assert "no workflow wants the sns event" in caplog.text


def test_an_event_that_can_never_start_what_wants_it_is_not_acknowledged(caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop()

    @shop.app.on("sqs", source="orders", id=lambda event: "dotted.id")
    @shop.app.workflow
    async def wrong(ctx: Context, data: Any) -> None: ...

    answer = shop.invoke(recorded("sqs"))
    assert len(answer["batchItemFailures"]) == 2
    assert "cannot start 'wrong'" in caplog.text


@pytest.mark.parametrize(
    ("event", "says"),
    [
        ({"Records": [{"eventSource": "aws:codecommit"}]}, "'aws:codecommit'"),
        ({"Records": []}, "0 records"),
        ({"Records": [{"eventSource": "aws:s3"}, {"eventSource": "aws:sqs"}]}, "2 records"),
        ({"surprise": 1}, r"keys \['surprise'\]"),
        ([1, 2], "list"),
        ("text", "str"),
        (None, "NoneType"),
    ],
)
def test_an_event_of_an_unknown_kind_says_what_it_was(event: Any, says: str) -> None:
    with pytest.raises(UnknownEvent, match=says):
        Shop().invoke(event)


@pytest.mark.parametrize("name", sorted(path.stem for path in EVENTS.glob("*.json")))
def test_a_record_without_one_of_its_fields_is_malformed_or_understood_and_nothing_else(name: str) -> None:
    """Take each field away in turn: a clear error or a batch, and no other exception."""
    event = recorded(name)
    for path in _paths(event):
        damaged = copy.deepcopy(event)
        inner = damaged
        for step in path[:-1]:
            inner = inner[step]
        del inner[path[-1]]
        with contextlib.suppress(MalformedEvent, UnknownEvent):
            read(damaged)


def _paths(value: Any) -> list[tuple[Any, ...]]:
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for step, inner in steps for path in [(step,), *[(step, *rest) for rest in _paths(inner)]]]


def test_the_test_event_of_a_bucket_is_acknowledged() -> None:
    assert Shop().invoke({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}) is None


# Wake-ups.


def test_a_malformed_wake_up_is_not_acknowledged_and_ends_among_the_dead_letters(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shop = Shop()
    for body in ("", "no JSON", "{}", '{"id": "a"}', '{"id": "a..b", "version": 1}', "[1]", '{"id":"a","version":-1}'):
        answer = shop.invoke({"Records": [Message("m1", body, {}, 0).record(QUEUE_ARN)]})
        assert answer == {"batchItemFailures": [{"itemIdentifier": "m1"}]}, body
    assert caplog.text.count("refused: ") == 7
    dead = DeadLetters(shop.client)
    answer = asyncio.run(dead.answer({"Records": [Message("m1", "no", {}, 0).record(QUEUE_ARN)]}, LambdaContext()))
    assert answer == {"batchItemFailures": []}
    assert "no wake-up" in caplog.text


def test_a_schedule_that_fires_a_day_late_or_twice_changes_nothing_but_the_hour() -> None:
    shop = Shop()

    @shop.app.workflow
    async def nap(ctx: Context) -> str:
        await ctx.sleep(7200)
        return "woken"

    async def scenario() -> None:
        handle = await shop.client.start(nap, id="n")
        await shop.cloud.run(shop.cloud.clock.now() + 10_000, _by(shop))
        ((name, (at, target)),) = shop.cloud.schedules.items()
        shop.cloud.schedules[name] = (at + 86_400_000, target)
        await shop.cloud.run(at + 3_600_000, _by(shop))
        assert await handle.status() == "pending"
        await shop.cloud.run(at + 86_500_000, _by(shop))
        assert await handle.result(0) == "woken"
        shop.cloud.send(target["Input"], {}, 0)
        await shop.cloud.run(at + 86_600_000, _by(shop))
        assert not shop.cloud.queue

    asyncio.run(scenario())


def _by(shop: Shop) -> Any:
    async def invoke(message: Message) -> bool:
        answer = await shop.function.answer({"Records": [message.record(QUEUE_ARN)]}, LambdaContext())
        return bool(answer == {"batchItemFailures": []})

    return invoke


@pytest.mark.parametrize("fault", ["ThrottlingException", "ExpiredTokenException", "lost"])
def test_a_message_whose_run_cannot_arm_what_wakes_it_comes_again(fault: str) -> None:
    shop = Shop()

    @shop.app.workflow
    async def nap(ctx: Context) -> str:
        await ctx.sleep(7200)
        return "woken"

    async def scenario() -> None:
        handle = await shop.client.start(nap, id="n")
        shop.cloud.script = [fault] * 6
        await shop.cloud.run(shop.cloud.clock.now() + 60_000, _by(shop))
        assert shop.cloud.script == ([] if fault != "ExpiredTokenException" else [fault] * 5)
        assert len(shop.cloud.queue) == 1, "it was not acknowledged"
        shop.cloud.script = []
        await shop.cloud.run(shop.cloud.clock.now() + 7_500_000, _by(shop))
        assert await handle.result(0) == "woken"
        assert not shop.cloud.queue
        assert not shop.cloud.schedules

    asyncio.run(scenario())


@pytest.mark.parametrize("timeout", [4_000, 900_000])
def test_a_message_that_comes_back_while_its_holder_may_live_stands_for_the_end_of_his_lease(timeout: int) -> None:
    """Whenever it comes, and however often it had to be sent again: at the lease's end somebody must come (W6)."""
    shop = Shop()
    shop.cloud.visibility = 500
    lived = []

    @shop.app.step
    def once() -> str:
        lived.append(shop.cloud.clock.now())
        shop.store.away = ("m",) if len(lived) == 1 else ()
        return "done"

    @shop.app.workflow
    async def mortal(ctx: Context) -> str:
        return await ctx.run(once)

    async def invoke(message: Message) -> bool:
        answer = await shop.function.answer({"Records": [message.record(QUEUE_ARN)]}, LambdaContext(timeout))
        shop.store.away = ()
        for sent in shop.cloud.queue.values():
            sent.visible_at -= 700  # the queue's clock and the function's may differ
        return bool(answer == {"batchItemFailures": []})

    async def scenario() -> None:
        handle = await shop.client.start(mortal, id="m")
        await shop.cloud.run(shop.cloud.clock.now() + timeout + 5_000, invoke)
        assert await handle.result(0) == "done"
        assert lived[1] - lived[0] >= timeout
        assert not shop.cloud.queue
        assert not shop.cloud.schedules

    asyncio.run(scenario())


def test_a_dead_letter_halts_its_run_in_sight_and_continue_sets_it_going_again() -> None:
    """Rule W9: an import error never reaches the acquire; the consumer imports no user code."""
    shop = Shop()

    async def scenario() -> None:
        await shop.client.start("order", "o", id="o")
        await shop.client.start("order", "p", id="p")
        await shop.cloud.run(shop.cloud.clock.now() + 20 * 60_000, _fails)
        assert {message.body for message in shop.cloud.dead} == {wake_to_json(Wake(id)) for id in "op"}
        records = [message.record(QUEUE_ARN) for message in shop.cloud.dead]
        dead = DeadLetters(Client(shop.store, shop.client.waker, clock=shop.cloud.clock))
        assert await dead.answer({"Records": records}, LambdaContext()) == {"batchItemFailures": []}
        view = await shop.client.get("o")
        assert (view.state, view.task) == ("pending", TaskState.HALTED.value)
        assert "the queue gave up" in (view.reason or "")
        await shop.client.continue_("o")
        await shop.cloud.run(shop.cloud.clock.now() + 5_000, _by(shop))
        assert (await shop.client.get("o")).task == TaskState.SUSPENDED.value

    async def _fails(message: Message) -> bool:
        return False

    asyncio.run(scenario())


def test_a_dead_letter_that_cannot_be_told_keeps_no_other_from_being_halted(caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop()

    async def scenario() -> None:
        await shop.client.start("order", "o", id="o")
        damaged = row("c", task='{"s":"acq')
        assert await shop.store.commit(Commit("c", (Put(damaged, 0),))) is None
        records = [Message(id, wake_to_json(Wake(id)), {}, 0).record(QUEUE_ARN) for id in "co"]
        dead = DeadLetters(Client(shop.store, shop.client.waker, clock=shop.cloud.clock))
        assert await dead.answer({"Records": records}, LambdaContext()) == {
            "batchItemFailures": [{"itemIdentifier": "c"}]
        }
        assert (await shop.client.get("o")).task == TaskState.HALTED.value

    asyncio.run(scenario())
    assert "c: its row cannot be read" in caplog.text


# Direct invocations, the sweep, `durable`.


def test_a_direct_invocation_starts_a_workflow_and_again_attaches() -> None:
    shop = Shop()
    assert shop.invoke(recorded("direct")) == {"id": "o-17"}
    assert shop.invoke(recorded("direct")) == {"id": "o-17"}
    assert shop.invoke({"workflow": "order", "args": ["x"]}) == {"id": "order-5e1c"}, "Lambda's retries keep their id"
    assert shop.invoke({"mine": 1}) == {"ids": ["take:f:5e1c"]}
    assert sorted(shop.started()) == ["o-17", "order-5e1c", "take:f:5e1c"]
    with pytest.raises(UnknownFunction):
        shop.invoke({"workflow": "nobody"})


def test_the_sweep_is_a_direct_invocation() -> None:
    shop = Shop()
    shop.invoke(recorded("direct"))
    shop.cloud.queue.clear()
    shop.cloud.clock.advance(600_000)
    assert shop.invoke({"everstep": "sweep"}) == {"fired": 1, "purged": 0}
    shop.deliver()
    assert asyncio.run(shop.client.get("o-17")).task == TaskState.SUSPENDED.value


def test_a_function_that_is_one_workflow() -> None:
    cloud, store = Cloud(), Fragile()

    async def body(ctx: Context, event: Any) -> Any:
        await ctx.sleep(60)
        return {"seen": event}

    home = App("thumbnails")
    client = Client(store, cloud.waker(), app=home, clock=cloud.clock)
    function = durable(name="thumbnail", app=home, client=client)(body)

    async def scenario() -> None:
        assert await function.answer({"path": "a.png"}, LambdaContext()) == {"ids": ["thumbnail:f:5e1c"]}
        assert await function.answer(recorded("s3"), LambdaContext()) is None
        await cloud.run(cloud.clock.now() + 120_000, lambda m: _acked(function.answer(_queue(m), LambdaContext())))
        views, _ = await client.search()
        values = [view.value["seen"] for view in views]
        assert {"path": "a.png"} in values
        assert [value["key"] for value in values if "key" in value] == ["2026/Rechnung für o-17.pdf"]

    asyncio.run(scenario())


def _queue(message: Message) -> Any:
    return {"Records": [message.record(QUEUE_ARN)]}


async def _acked(answer: Any) -> bool:
    return bool(await answer == {"batchItemFailures": []})


# HTTP.


@pytest.mark.parametrize("name", ["function_url", "apigateway_v1", "apigateway_v2", "alb"])
def test_each_way_of_http_starts_durably_and_answers_202(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERSTEP_TOKEN", TOKEN)
    shop = Shop(base_path="/prod" if name == "apigateway_v2" else "/")
    for _ in range(2):
        answer = shop.invoke(recorded(name))
        assert answer["statusCode"] == 202, answer
        assert json.loads(answer["body"])["id"] == "o-17"
    assert shop.started() == {"o-17": ["o-17"]}
    assert {message.body for message in shop.cloud.queue.values()} == {wake_to_json(Wake("o-17"))}


def _call(shop: Shop, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    event = recorded("function_url")
    event["rawPath"] = event["requestContext"]["http"]["path"] = path
    event["requestContext"]["http"]["method"] = method
    del event["requestContext"]["authorizer"]
    event["headers"] |= {"content-type": "application/json", **headers}
    event["body"] = base64.b64encode(json.dumps(body).encode() if body is not None else b"").decode()
    event["isBase64Encoded"] = True  # as it does what is neither JSON nor text
    answer = shop.invoke(event)
    return answer["statusCode"], answer["body"]


def test_without_authorisation_nobody_passes_but_with_a_signed_link(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(secret=SECRET)
    shop.invoke(recorded("direct"))
    shop.deliver()
    for token in (None, TOKEN):
        if token is None:
            monkeypatch.delenv("EVERSTEP_TOKEN", raising=False)
        else:
            monkeypatch.setenv("EVERSTEP_TOKEN", token)
            shop.function = handler(shop.app, client=shop.client, secret=SECRET)
        for method, path in (
            ("POST", "/promises/o-17.1/resolve"),
            ("GET", "/promises/o-17"),
            ("POST", "/workflows/order"),
        ):
            assert _call(shop, method, path, {})[0] == 401
            assert _call(shop, method, path, {}, authorization="Bearer wrong")[0] == 401
    assert _call(shop, "GET", "/promises/o-17", authorization=f"Bearer {TOKEN}")[0] == 200
    link = sign(SECRET, "o-17.1", shop.cloud.clock.now() + 60_000)
    assert _call(shop, "GET", f"/approve/{link[:-3]}AAA")[0] in (400, 403, 404)
    status, page = _call(shop, "GET", f"/approve/{link}")
    assert (status, "Approve" in page) == (200, True)
    assert _call(shop, "POST", "/promises/o-17.1/resolve", {"value": True}, authorization=f"Bearer {TOKEN}")[0] == 200
    shop.deliver()
    assert asyncio.run(shop.client.get("o-17")).value is True


def test_bad_input_is_answered_as_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERSTEP_TOKEN", TOKEN)
    shop = Shop()
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert _call(shop, "GET", "/promises/nobody", **bearer)[0] == 404
    assert _call(shop, "POST", "/workflows/order", {"args": "text"}, **bearer)[0] == 400
    status, body = _call(shop, "POST", "/workflows/order", {"args": ["x" * 1_100_000]}, **bearer)
    assert status == 413, body
    assert _call(shop, "PATCH", "/promises", **bearer)[0] == 405


def test_a_payload_that_an_item_cannot_hold_is_413(monkeypatch: pytest.MonkeyPatch) -> None:
    from everstep_aws.store import CODEC_LIMIT, DynamoStore

    monkeypatch.setenv("EVERSTEP_TOKEN", TOKEN)
    shop = Shop()
    client = Client(DynamoStore("t"), shop.cloud.waker(), app=shop.app)
    assert client.codec.limit == CODEC_LIMIT
    shop.function = handler(shop.app, client=client)
    bearer = {"authorization": f"Bearer {TOKEN}"}
    status, body = _call(shop, "POST", "/workflows/order", {"args": ["x" * 200_000]}, **bearer)
    assert status == 413
    assert "180000" in body
