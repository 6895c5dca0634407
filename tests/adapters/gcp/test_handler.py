"""The handler as functions-framework calls it, against the suite every handler must pass, and at its own edges."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import flask
import grpc
import pytest

from everstep import App, Context
from everstep.errors import NotFound, WakerError
from everstep.ports import Wake
from everstep.testing.conformance import HandlerSuite
from everstep.testing.conformance.handlers import Rig, Work
from everstep_gcp.logs import CloudFormatter

from .rig import ACCOUNT, URL, FunctionRig
from .test_auth import BAD, keys
from .test_events import given

pytestmark = pytest.mark.xdist_group("firestore")


class TestUntilBlocked(HandlerSuite):
    steps: int | None = None

    @pytest.fixture(autouse=True)
    def _project(self, project: str) -> None:
        self.project = project

    async def rig(self, work: Work) -> Rig:
        return FunctionRig(work.app, self.project, keys, self.steps)


class TestStepByStep(TestUntilBlocked):
    steps = 1


def scenario(
    work: Work, project: str, test: Callable[[FunctionRig], Coroutine[Any, Any, None]], **options: Any
) -> None:
    async def run() -> None:
        rig = FunctionRig(work.app, project, keys, **options)
        try:
            await test(rig)
        finally:
            await rig.close()

    asyncio.run(run())


@pytest.mark.parametrize("path", ["/wake", "/sweep", "/events"])
def test_a_caller_without_proof_gets_401_and_nothing_is_read(path: str, project: str) -> None:
    work = Work()

    async def test(rig: FunctionRig) -> None:
        handle = await rig.client.start("nap", 60, id="n")
        for what, (header, _) in BAD.items():
            answer = await asyncio.to_thread(
                rig.call, "POST", path, {"id": "n", "version": 0}, headers={"Authorization": header}
            )
            assert answer.status_code == 401, what
        assert not hasattr(rig.function, "_host"), "not even the store was opened"
        assert (await handle.view()).version == 0
        assert not work.ran

    scenario(work, project, test)


def test_a_delivery_that_is_no_wake_up_is_refused_and_opens_nothing(project: str) -> None:
    async def test(rig: FunctionRig) -> None:
        for body in (b"", b"{", b"[]", b'{"id": 5, "version": 1}', b'{"id": "a"}', b'{"id": "a.", "version": 1}'):
            answer = await asyncio.to_thread(rig.call, "POST", "/wake", body)
            assert answer.status_code == 400, body
            assert answer.json["title"] == "bad request"
        assert not hasattr(rig.function, "_host")

    scenario(Work(), project, test)


def test_events_start_what_wants_them_once(project: str) -> None:
    work = Work()
    seen: list[Any] = []

    @work.app.on("pubsub", source="orders*")
    @work.app.workflow
    async def ship(ctx: Context, data: dict[str, Any]) -> str:
        seen.append(data)
        return str(data["order"])

    async def test(rig: FunctionRig) -> None:
        for name in ("pubsub_push", "pubsub_push", "eventarc_pubsub"):
            headers, body = given(name)
            path = "/events" if name == "pubsub_push" else "/"
            answer = await asyncio.to_thread(rig.call, "POST", path, body, headers=headers)
            assert answer.status_code == 200
            assert len(answer.json["started"]) == 1
        await rig.advance(10)
        found, _ = await rig.client.search(state="resolved")
        assert [view.value for view in found] == ["o-17", "o-17"], "one a subscription, however often it came"
        headers, body = given("eventarc_storage")
        answer = await asyncio.to_thread(rig.call, "POST", "/", body, headers=headers)
        assert (answer.status_code, answer.json) == (200, {"started": []}), "nobody wants it: it is done with"

    scenario(work, project, test)
    assert len(seen) == 2


def test_an_event_that_can_start_nothing_is_refused_and_one_in_bad_weather_comes_again(project: str) -> None:
    work = Work()

    @work.app.on("pubsub", args=lambda event: (event.data["missing"],))
    @work.app.workflow
    async def ship(ctx: Context, data: str) -> str:
        return data

    async def test(rig: FunctionRig) -> None:
        headers, body = given("pubsub_push")
        answer = await asyncio.to_thread(rig.call, "POST", "/events", body, headers=headers)
        assert answer.status_code == 400
        assert "2070443601311540" in answer.json["detail"]
        assert (await asyncio.to_thread(rig.call, "POST", "/events", b"no json")).status_code == 400
        rig.broken(True)
        good = {"message": {"messageId": "1", "data": "eyJtaXNzaW5nIjogIngifQ=="}, "subscription": "s"}
        assert (await asyncio.to_thread(rig.call, "POST", "/events", good)).status_code == 500
        rig.broken(False)
        assert (await asyncio.to_thread(rig.call, "POST", "/events", good)).status_code == 200

    scenario(work, project, test)


def test_the_http_api_is_behind_flask_whole(project: str) -> None:
    async def test(rig: FunctionRig) -> None:
        def ask(method: str, path: str, body: Any = None) -> Any:
            return rig.call(method, path, body)

        started = await asyncio.to_thread(ask, "POST", "/workflows/ask", {"id": "a/b c", "args": []})
        assert (started.status_code, started.json["id"]) == (202, "a/b c")
        await rig.advance(5)
        settled = await asyncio.to_thread(ask, "POST", "/promises/a%2Fb%20c.1/resolve", {"value": 7})
        assert settled.status_code == 200, settled.get_data(True)
        await rig.advance(5)
        got = await asyncio.to_thread(ask, "GET", "/promises/a%2Fb%20c")
        assert got.json["value"] == 7
        assert (await asyncio.to_thread(ask, "GET", "/promises/nobody")).status_code == 404
        assert (await asyncio.to_thread(ask, "POST", "/workflows/ask", b"{")).status_code == 400
        envelope = {"kind": "promise.get", "head": {"corrId": "1", "version": "2026-04-01"}, "data": {"id": "a/b c"}}
        answer = await asyncio.to_thread(ask, "POST", "/", envelope)
        assert answer.content_type.startswith("application/json")
        assert answer.json["data"]["promise"]["state"] == "resolved"

    scenario(Work(), project, test)


def test_the_http_api_is_for_callers_and_for_who_has_the_token(project: str) -> None:
    async def test(rig: FunctionRig) -> None:
        for header, status in (("", 401), ("Bearer wrong", 401), (f"Bearer {keys.token('x@y', URL)}", 401)):
            answer = await asyncio.to_thread(rig.call, "GET", "/promises", headers={"Authorization": header})
            assert answer.status_code == status
        assert (await asyncio.to_thread(rig.call, "GET", "/promises")).status_code == 200
        rig.function.settings = dataclasses.replace(rig.function.settings, token="t0ken")
        with_token = {"Authorization": "Bearer t0ken"}
        assert (await asyncio.to_thread(rig.call, "GET", "/promises", headers=with_token)).status_code == 200

    scenario(Work(), project, test)


def test_a_sweep_sends_again_what_is_overdue(project: str) -> None:
    """Rule W10: the belt to the braces."""
    work = Work()

    async def test(rig: FunctionRig) -> None:
        handle = await rig.client.start("nap", 60, id="n")
        await rig.advance(5)
        rig.dispatcher._tasks.clear()  # what the service never does
        await rig.advance(600)
        assert await handle.status() == "pending"
        answer = await asyncio.to_thread(rig.call, "POST", "/sweep")
        assert (answer.status_code, answer.json) == (200, {"fired": 1, "purged": 0})
        await rig.advance(5)
        assert await handle.result(0) == "before after"

    scenario(work, project, test)


def test_wake_ups_in_time_slow_the_queue_never_and_late_ones_are_put_off(project: str) -> None:
    """Rule W9: neither 429 nor 503; what is early by much is armed anew, and what is early by little comes again."""
    work = Work()

    async def test(rig: FunctionRig) -> None:
        await rig.client.start("nap", 3600, id="n")
        await rig.advance(5)
        version = (await rig.client.get("n")).version
        waiting = rig.dispatcher.waiting
        for attempt in range(3):
            body = {"id": "n", "version": version}
            headers = {"X-CloudTasks-TaskRetryCount": str(attempt + 4)}
            answer = await asyncio.to_thread(rig.call, "POST", "/wake", body, headers=headers)
            assert answer.status_code == 200
        assert rig.dispatcher.waiting == waiting + 3, "each was put off to the instant that it stands for"
        assert rig.dispatcher.created[-1].http_request.headers["x-everstep-attempt"] == "7"
        assert rig.dispatcher.slowed == 0
        await rig.advance(7200)
        assert rig.dispatcher.waiting == 0
        assert work.ran == {"before": 1, "after": 1}

    scenario(work, project, test)


def test_a_task_made_in_place_of_the_one_that_a_holder_lives_on_stands_for_his_lease(project: str) -> None:
    """Rule W6: it comes while the function's clock, a little behind, says that the lease is still held."""
    work = Work()
    lived: list[int] = []
    rigs: list[FunctionRig] = []

    @work.app.step
    def once() -> str:
        lived.append(rigs[0].clock.now())
        rigs[0].away = len(lived) == 1
        return "done"

    @work.app.workflow
    async def mortal(ctx: Context) -> str:
        return await ctx.run(once)

    async def test(rig: FunctionRig) -> None:
        rigs.append(rig)
        rig.clock.behind = 700
        await rig.client.start(mortal, id="m")
        await rig.advance(2)
        assert len(lived) == 1
        rig.away = False
        await rig.advance(60)
        assert (await rig.client.get("m")).value == "done"
        assert lived[1] - lived[0] >= 30_000

    scenario(work, project, test)


def test_a_wake_up_for_a_commit_that_never_was_is_given_up(project: str) -> None:
    """Rule W2: it comes back for a bounded grace, over however many tasks, and stops slowing nothing down."""

    async def test(rig: FunctionRig) -> None:
        await rig.client.waker.arm(Wake("never", 7), rig.clock.now() + 1000)
        await rig.client.start("nap", 7 * 86_400, id="n")
        await rig.advance(10)
        await rig.client.waker.arm(Wake("n", 99), rig.clock.now() + 1000)
        await rig.advance(3600)
        assert rig.dispatcher.waiting == 1, "that of the run itself"
        assert rig.dispatcher.slowed == 0
        assert len(rig.dispatcher.log) < 40

    scenario(Work(), project, test)


def test_a_queue_that_refuses_leaves_the_message_where_it_is(project: str) -> None:
    work = Work()

    async def test(rig: FunctionRig) -> None:
        handle = await rig.client.start("nap", 60, id="n")
        rig.dispatcher.refuse = [grpc.StatusCode.PERMISSION_DENIED]
        await rig.advance(5)
        assert rig.dispatcher.log[0].answer == 500
        await rig.advance(600)
        assert await handle.result(0) == "before after"
        rig.dispatcher.refuse = [grpc.StatusCode.PERMISSION_DENIED]
        with pytest.raises(WakerError):
            await rig.client.start("nap", 60, id="never")
        with pytest.raises(NotFound):
            await rig.client.get("never")

    scenario(work, project, test)


def test_of_eight_instances_with_the_same_wake_up_one_runs_it(project: str) -> None:
    work = Work()

    async def test(rig: FunctionRig) -> None:
        handle = await rig.client.start("nap", 60, id="n")
        targets = []
        for _ in range(8):
            rig.born()
            targets.append(rig.target)
        body = json.dumps({"id": "n", "version": 0}).encode()

        def deliver(target: Any, number: int) -> int:
            token = f"Bearer {keys.token(ACCOUNT, URL)}"
            environ = {"HTTP_AUTHORIZATION": token, "HTTP_X_CLOUDTASKS_TASKNAME": str(number)}
            with rig.app.test_request_context("/wake", method="POST", data=body, environ_overrides=environ):
                return int(target(flask.request).status_code)

        await asyncio.gather(*[asyncio.to_thread(deliver, target, n) for n, target in enumerate(targets)])
        assert work.ran == {"before": 1}
        await rig.advance(300)
        assert await handle.result(0) == "before after"
        assert work.ran == {"before": 1, "after": 1}
        for target in targets[:-1]:
            await asyncio.to_thread(target.function.close)

    scenario(work, project, test)


def test_a_function_that_is_one_workflow(project: str) -> None:
    from everstep_gcp import durable

    events: list[Any] = []

    async def greet(ctx: Context, event: Any) -> str:
        events.append(event)
        return f"hello {event['name']}"

    app = App("greet")

    def make(app: App, **options: Any) -> Any:
        return durable(app=app, **options)(greet)

    async def run() -> None:
        rig = FunctionRig(app, project, keys, make=make)
        try:
            key = {"Idempotency-Key": "k.1"}
            answers = [
                await asyncio.to_thread(rig.call, "POST", "/", {"name": "Ada"}, headers=key),
                await asyncio.to_thread(rig.call, "POST", "/", {"name": "Ada"}, headers=key),
                await asyncio.to_thread(rig.call, "POST", "/", {"name": "Bob"}),
            ]
            assert [answer.status_code for answer in answers] == [202] * 3
            ids = [answer.json["id"] for answer in answers]
            assert ids[0] == ids[1] != ids[2]
            other = await asyncio.to_thread(rig.call, "POST", "/", {"name": "Eve"}, headers=key)
            assert other.status_code == 409, "the same identity, and another event"
            assert (await asyncio.to_thread(rig.call, "POST", "/", b"{")).status_code == 400
            nobody = await asyncio.to_thread(rig.call, "POST", "/", {}, headers={"Authorization": ""})
            assert nobody.status_code == 401
            headers, body = given("pubsub_push")
            pushed = await asyncio.to_thread(rig.call, "POST", "/events", body, headers=headers)
            assert len(pushed.json["started"]) == 1
            await rig.advance(5)
            assert await rig.client.handle(ids[0]).result(0) == "hello Ada"
            with pytest.raises(KeyError):
                await rig.client.handle(pushed.json["started"][0]).result(0)
        finally:
            await rig.close()

    asyncio.run(run())
    assert len(events) == 3


def test_logs_are_lines_of_json_in_the_request_s_trace(project: str, caplog: pytest.LogCaptureFixture) -> None:
    work = Work()
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(CloudFormatter("demo"))
    log = logging.getLogger("everstep.gcp")
    log.addHandler(handler)
    log.setLevel(logging.INFO)

    async def test(rig: FunctionRig) -> None:
        await rig.client.start("nap", 60, id="n")
        trace = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
        await asyncio.to_thread(rig.call, "POST", "/wake", {"id": "n", "version": 0}, headers=trace)

    try:
        scenario(work, project, test)
    finally:
        log.removeHandler(handler)
    entries = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert "acquired n" in [entry["message"] for entry in entries]
    for entry in entries:
        assert entry["severity"] == "INFO"
        assert entry["logging.googleapis.com/trace"] == f"projects/demo/traces/{'a' * 32}"
        assert entry["logging.googleapis.com/spanId"] == "b" * 16
        assert entry["logging.googleapis.com/trace_sampled"] is True
        assert entry["logging.googleapis.com/labels"] == {"everstep_run": "n"}
