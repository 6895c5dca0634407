"""System 21, Lambda as a stateless trigger: 202 at once, and a pipeline of five seconds in invocations of one."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from everstep import App, Client, Context, Retry, current_step
from everstep.clock import VirtualClock
from everstep.stores.memory import MemoryStore
from tests.components import requires_component
from tests.systems.scaffold import World, did, survives

app = App("documents", retry=Retry(attempts=3, first=0.5))


PAGES = 6


class Pace:
    """How long work takes."""

    def spend(self, milliseconds: int) -> None:
        time.sleep(milliseconds / 1000)


app.provide(Pace())


def _work(name: str) -> str:
    current_step().dependency(Pace).spend(500)
    did(name)
    return name


@app.step
def download(key: str) -> str:
    return f"text of {key}, {_work('download')}"


@app.step
def extract(text: str, page: int) -> list[str]:
    _work(f"extract {page}")
    return text.split()


@app.step
def analyze(words: list[str]) -> dict[str, int]:
    _work("analyze")
    return {"words": len(words)}


@app.step
def keep(job: str, report: dict[str, int]) -> str:
    _work("keep")
    return f"reports/{job}.json"


@app.step
def notify(job: str, place: str) -> None:
    _work("notify")


@app.workflow
async def document(ctx: Context, job: str, key: str, pages: int = PAGES) -> str:
    text = await ctx.run(download, key)
    words: list[str] = []
    for page in range(1, pages + 1):
        words += await ctx.run(extract, text, page)
    place = await ctx.run(keep, job, await ctx.run(analyze, words))
    await ctx.run(notify, job, place)
    return place


STEPS = ["download", *(f"extract {page}" for page in range(1, PAGES + 1)), "analyze", "keep", "notify"]
POST = {"id": "doc-7", "args": ["7", "in/7.pdf"]}


class Virtual(Pace):
    """On the clock of the test."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance

    def spend(self, milliseconds: int) -> None:
        self._advance(milliseconds)


class Lambda:
    """The function behind API Gateway and its queue; each invocation may take `limit` milliseconds."""

    def __init__(self, world: World, limit: int) -> None:
        requires_component("botocore", hint="pip install 'everstep[aws]'")
        requires_component("mangum", hint="pip install 'everstep[aws]'")
        from everstep_aws import handler
        from tests.adapters.aws.cloud import Cloud

        self.world = app.provide(world)
        self.limit = limit
        self.cloud = Cloud()
        app.provide(Virtual(self.cloud.clock.advance))
        self.client = Client(MemoryStore(), self.cloud.waker(), app=app, clock=self.cloud.clock)
        self.function = handler(app, client=self.client, auth="token")
        self.invocations = 0

    async def invoke(self, event: Any) -> Any:
        from tests.adapters.aws.cloud import LambdaContext

        clock: VirtualClock = self.cloud.clock
        ends = clock.now() + self.limit
        context = LambdaContext()
        context.get_remaining_time_in_millis = lambda: ends - clock.now()  # type: ignore[method-assign]
        self.invocations += 1
        answer = await self.function.answer(event, context)
        assert clock.now() <= ends, "Lambda would have killed this invocation"
        return answer

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        http = {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "203.0.113.7", "userAgent": "test"}
        answer = await self.invoke(
            {
                "version": "2.0",
                "routeKey": "$default",
                "rawPath": path,
                "rawQueryString": "",
                "headers": {"authorization": "Bearer token", "content-type": "application/json", "host": "h"},
                "requestContext": {"http": http, "stage": "$default", "domainName": "h", "requestId": "r"},
                "body": "" if body is None else json.dumps(body),
                "isBase64Encoded": False,
            }
        )
        return answer["statusCode"], json.loads(answer["body"])

    async def run(self, seconds: float) -> None:
        from tests.adapters.aws.cloud import QUEUE_ARN, Message

        async def deliver(message: Message) -> bool:
            answer = await self.invoke({"Records": [message.record(QUEUE_ARN)]})
            return bool(answer == {"batchItemFailures": []})

        await self.cloud.run(self.cloud.clock.now() + round(seconds * 1000), deliver)


@pytest.mark.parametrize("limit", [60_000, 1_000], ids=["plenty", "a fifth of the pipeline"])
def test_accepted_before_the_first_step_and_finished_whatever_an_invocation_may_take(limit: int) -> None:
    function = Lambda(World(script={"analyze": ["fail"]}), limit)

    async def story() -> None:
        for _ in range(2):
            status, body = await function.call("POST", "/workflows/document", POST)
            assert (status, body["id"]) == (202, "doc-7")
        assert function.world.order() == [], "no step has begun when it is accepted"
        assert (await function.call("GET", "/promises/doc-7"))[1]["state"] == "pending"
        await function.run(60)
        status, body = await function.call("GET", "/promises/doc-7")
        assert (body["state"], body["value"]) == ("resolved", "reports/7.json")

    asyncio.run(story())
    assert function.world.order() == STEPS
    assert function.world.tries("analyze") == 2
    assert [function.world.tries(step) for step in STEPS if step != "analyze"] == [1] * (len(STEPS) - 1)
    if limit < 5_000:
        assert function.invocations > 8, "one after the other, each within its limit"


def test_the_same_job_twice_is_one_run_and_another_document_under_its_id_is_refused() -> None:
    function = Lambda(World(), 60_000)

    async def story() -> None:
        answers = await asyncio.gather(*[function.call("POST", "/workflows/document", POST) for _ in range(5)])
        assert [status for status, _ in answers] == [202] * 5
        status, _ = await function.call("POST", "/workflows/document", {"id": "doc-7", "args": ["7", "in/8.pdf"]})
        assert status == 409
        await function.run(60)

    asyncio.run(story())
    assert function.world.order() == STEPS


def test_however_it_crashes_no_recorded_step_runs_again() -> None:
    app.provide(Virtual(lambda milliseconds: None))
    app.provide(World())
    survives(app, document, "7", "in/7.pdf", 1, result="reports/7.json")
