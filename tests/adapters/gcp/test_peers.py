"""Two Apps on one database, a function each: a wake-up for the other's task becomes a task that calls the other."""

from __future__ import annotations

import asyncio

from everstep import App, Client, Context
from everstep.stores.memory import MemoryStore
from everstep_gcp import handler
from everstep_gcp.auth import Verifier
from everstep_gcp.settings import Settings
from everstep_gcp.waker import CloudTasksWaker

from .dispatcher import Delivery, Dispatcher
from .rig import ACCOUNT, QUEUE, START, URL, QueueClock, certificates
from .test_auth import keys

THERE = "https://billing.example"
shop, billing = App("shop"), App("billing")


@billing.workflow
async def bill(ctx: Context, cents: int) -> str:
    return f"billed {cents}"


@shop.workflow
async def order(ctx: Context, cents: int) -> str:
    return f"{await ctx.options(target=billing.target).rpc('bill', cents)}, ordered"


def test_a_call_becomes_a_task_that_calls_the_other_function() -> None:
    import flask

    sites: dict[str, flask.Flask] = {}
    called: list[tuple[str, int]] = []

    def send(delivery: Delivery) -> int:
        at, _, path = delivery.url.partition("/wake")
        status = sites[at].test_client().post(f"/wake{path}", data=delivery.body, headers=delivery.headers).status_code
        called.append((at, int(status)))
        return int(status)

    dispatcher = Dispatcher(keys, send=send, start=START)
    clock, store = QueueClock(dispatcher), MemoryStore()
    functions = []
    for app, at, other in ((shop, URL, f"billing={THERE}"), (billing, THERE, f"shop={URL}")):
        settings = Settings.read(
            {
                "EVERSTEP_QUEUE": QUEUE,
                "EVERSTEP_URL": at,
                "EVERSTEP_ACCOUNT": ACCOUNT,
                "EVERSTEP_TASKS_HOST": dispatcher.host,
                "EVERSTEP_PEERS": other,
            }
        )
        client = Client(store, CloudTasksWaker.of(settings, clock), app=app, clock=clock)
        verifier = Verifier((at,), (ACCOUNT,), fetch=lambda _: certificates(keys))
        target = handler(app, settings=settings, client=client, verifier=verifier)
        functions.append(target.function)  # type: ignore[attr-defined]
        sites[at] = site = flask.Flask(app.name)
        site.add_url_rule("/<path:path>", "any", lambda path, target=target: target(flask.request), methods=["POST"])
        if app is shop:
            starter = client

    async def start() -> None:
        await starter.start(order, 42, id="o")

    try:
        asyncio.run(start())
        dispatcher.advance(dispatcher.now() + 60)
        assert {status for _, status in called} <= {200, 409}, called
        assert (THERE, 200) in called
        assert asyncio.run(starter.get("o")).value == "billed 42, ordered"
    finally:
        for function in functions:
            function.close()
        dispatcher.close()
