"""Cloud Tasks as the waker: the suite every waker must pass, against a dispatcher that the real client talks to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
import pytest

from everstep.errors import InvalidArgument, WakerError
from everstep.ports import Wake
from everstep.testing.conformance import Rig, WakerSuite
from everstep_gcp import CloudTasksWaker, Settings
from everstep_gcp.waker import ATTEMPT, HORIZON, RETRIES, WANTED, attempts_of, wanted_later

from .rig import ACCOUNT, QUEUE, URL, WakerRig
from .tokens import Keys

keys = Keys()


class TestCloudTasks(WakerSuite):
    late = 1

    async def open(self) -> Rig:
        return WakerRig(keys)


def scenario(test: Callable[[WakerRig], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        rig = WakerRig(keys)
        try:
            await test(rig)
        finally:
            await rig.close()

    asyncio.run(run())


def test_a_wake_up_carries_an_id_a_version_and_a_token_for_this_function() -> None:
    async def test(rig: WakerRig) -> None:
        await rig.waker.arm(Wake("order 1/é", 3), rig.now() + 5000)
        (task,) = rig.dispatcher.created
        assert task.http_request.url == f"{URL}/wake"
        assert task.http_request.body.decode() == '{"id":"order 1/é","version":3}'
        assert task.http_request.oidc_token.service_account_email == ACCOUNT
        assert task.http_request.oidc_token.audience == URL
        assert task.schedule_time.timestamp() * 1000 == rig.now() + 5000
        assert task.dispatch_deadline.total_seconds() == 65

    scenario(test)


def test_what_is_far_ahead_hops() -> None:
    """The service refuses more than 30 days."""

    async def test(rig: WakerRig) -> None:
        at = rig.now() + 3 * HORIZON + 1000
        await rig.waker.arm(Wake("a", 1), at)
        assert await rig.advance(at - 1) == []
        assert await rig.advance(at) == [("a", 1)]
        assert len(rig.dispatcher.created) == 4
        assert rig.dispatcher.waiting == 0

    scenario(test)


def test_the_service_chooses_the_names() -> None:
    """One of our own would stay blocked for hours after its task was deleted."""

    async def test(rig: WakerRig) -> None:
        first = await rig.waker.arm(Wake("a"), rig.now() + 5000)
        assert first is not None
        await rig.waker.disarm(first)
        second = await rig.waker.arm(Wake("a"), rig.now() + 5000)
        assert second not in (None, first)
        assert "/" not in first
        assert rig.dispatcher.deleted == [f"{QUEUE}/tasks/{first}"]

    scenario(test)


def test_trouble_that_passes_is_waited_through() -> None:
    async def test(rig: WakerRig) -> None:
        rig.dispatcher.refuse = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED]
        await rig.waker.arm(Wake("a"), rig.now() + 5000)
        assert rig.dispatcher.waiting == 1

    scenario(test)


@pytest.mark.parametrize(
    "code",
    [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND],
)
def test_a_queue_that_refuses_is_told(code: grpc.StatusCode) -> None:
    async def test(rig: WakerRig) -> None:
        rig.dispatcher.refuse = [code] * 4
        with pytest.raises(WakerError, match=QUEUE):
            await rig.waker.arm(Wake("a"), rig.now() + 5000)
        assert rig.dispatcher.waiting == 0

    scenario(test)


def test_a_delivery_counts_itself() -> None:
    assert attempts_of({}) == 1
    assert attempts_of({RETRIES: "4", ATTEMPT: "3"}) == 8
    assert attempts_of({RETRIES: "many"}) == 1
    assert wanted_later({WANTED: "9000"}, 5000) == 9000
    assert wanted_later({WANTED: "9000"}, 9001) is None
    assert wanted_later({WANTED: "soon"}, 1) is None


@pytest.mark.parametrize(("queue", "url"), [("", URL), ("wake", URL), (QUEUE, "fn.example"), (QUEUE, "")])
def test_a_queue_or_an_address_that_is_none_is_refused(queue: str, url: str) -> None:
    with pytest.raises(InvalidArgument, match="EVERSTEP_QUEUE"):
        CloudTasksWaker(queue, url, ACCOUNT)


def test_settings_come_from_the_environment() -> None:
    env = {
        "GOOGLE_CLOUD_PROJECT": "demo",
        "EVERSTEP_URL": "https://fn.example/",
        "EVERSTEP_ACCOUNT": "a@x",
        "EVERSTEP_CALLERS": "b@x, a@x,",
        "EVERSTEP_TIMEOUT": "3600",
    }
    settings = Settings.read(env)
    assert settings.store == "firestore://demo"
    assert settings.audiences == ("https://fn.example",)
    assert settings.callers == ("a@x", "b@x")
    assert settings.deadline == 1800


def test_w9_a_task_for_another_function_is_given_as_long_as_any_may_take() -> None:
    """Rule W9: an answer that comes later than it is waited for is none, and how long the other takes is unknown."""
    settings = Settings.read({"EVERSTEP_URL": URL, "EVERSTEP_TIMEOUT": "60"})
    assert settings.deadline == 65
    assert settings.of_peer("https://billing.example/").deadline == 1800
    assert settings.steps_per_invocation is None
    with pytest.raises(InvalidArgument, match="EVERSTEP_TIMEOUT"):
        Settings.read({"EVERSTEP_TIMEOUT": "soon"})
