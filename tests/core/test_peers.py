"""Several Apps on one store where a queue calls the function: each task reaches the function of its App."""

from __future__ import annotations

import asyncio
import logging

import pytest

from everstep import App, Client, Context, InvalidArgument
from everstep.driver import Retry
from everstep.hosting import Host
from everstep.peers import read_peers
from everstep.ports import Wake, Waker
from everstep.stores.memory import MemoryStore

shop, billing, ledger = App("shop"), App("billing"), App("ledger")


@ledger.workflow
async def book(ctx: Context, cents: int) -> str:
    return f"booked {cents}"


@billing.workflow
async def bill(ctx: Context, cents: int) -> str:
    await ctx.sleep(3600)
    return f"{await ctx.options(target=ledger.target).rpc('book', cents)}, billed"


@shop.workflow
async def order(ctx: Context, cents: int) -> str:
    return f"{await ctx.options(target=billing.target).rpc('bill', cents)}, ordered"


class Clock:
    at = 1_700_000_000_000

    def now(self) -> int:
        return self.at


class Queue:
    """What calls one function: at an instant, as often as it takes."""

    by_row = False

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.messages: list[tuple[int, Wake]] = []

    async def arm(self, wake: Wake, at: int) -> str | None:
        self.messages.append((at, wake))
        return None

    async def disarm(self, token: str) -> None:
        raise AssertionError("no token was given")

    async def send(self, wake: Wake) -> None:
        self.messages.append((self._clock.now(), wake))


class Cloud:
    """Three functions, a queue each, one table. `knows`: whether they know of each other."""

    def __init__(self, *, knows: bool) -> None:
        self.clock, store = Clock(), MemoryStore()
        self.queues = {app.name: Queue(self.clock) for app in (shop, billing, ledger)}
        self.clients = {
            app.name: Client(store, self.queues[app.name], app=app, clock=self.clock) for app in (shop, billing, ledger)
        }
        self.hosts = {
            app.name: Host(app, self.clients[app.name], pid=app.name, lease=60_000, peers=self._peers(app, knows))
            for app in (shop, billing, ledger)
        }
        self.delivered: list[tuple[str, str]] = []

    def _peers(self, app: App, knows: bool) -> dict[str, Waker]:
        return {name: queue for name, queue in self.queues.items() if knows and name != app.name}

    async def run(self, until: int) -> None:
        """Deliver what is due, in order, up to an instant."""
        for _ in range(500):
            found = sorted(
                ((at, name, wake) for name, queue in self.queues.items() for at, wake in queue.messages),
                key=lambda one: (one[0], one[1]),
            )
            if not found or found[0][0] > until:
                return
            at, name, wake = found[0]
            self.queues[name].messages.remove((at, wake))
            self.clock.at = max(self.clock.at, at)
            self.delivered.append((name, wake.id))
            answer = await self.hosts[name].deliver(wake, held=True)
            if isinstance(answer, Retry):
                self.queues[name].messages.append((max(answer.at, self.clock.at + 1), wake))


def test_a_call_of_another_app_reaches_its_function_and_the_answer_comes_back() -> None:
    async def story() -> None:
        cloud = Cloud(knows=True)
        handle = await cloud.clients["shop"].start(order, 42, id="o")
        await cloud.run(cloud.clock.at + 10_000)
        assert cloud.queues["billing"].messages, "it sleeps where its own function is called"
        await cloud.run(cloud.clock.at + 7_200_000)
        assert await handle.result(0) == "booked 42, billed, ordered"
        assert ("billing", "o.1") in cloud.delivered
        assert ("ledger", "o.1.2") in cloud.delivered
        assert not any(queue.messages and queue.messages[0][0] < cloud.clock.at for queue in cloud.queues.values())

    asyncio.run(story())


def test_a_function_that_is_not_known_is_named_and_its_task_stays(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        cloud = Cloud(knows=False)
        handle = await cloud.clients["shop"].start(order, 42, id="o")
        with caplog.at_level(logging.ERROR, "everstep"):
            await cloud.run(cloud.clock.at + 10_000)
        assert await handle.status() == "pending"
        assert "o.1 waits for the App 'billing', whose function is not known here (known: none)" in caplog.text
        # It is deployed later, and told to the others.
        late = Host(shop, cloud.clients["shop"], pid="late", lease=60_000, peers={"billing": cloud.queues["billing"]})
        cloud.hosts["shop"] = late
        await cloud.run(cloud.clock.at + 120_000)
        assert ("billing", "o.1") in cloud.delivered

    asyncio.run(story())


def test_peers_are_read_from_one_variable() -> None:
    assert read_peers("") == {}
    assert read_peers("billing=https://q/1?a=b, ledger = https://q/2,") == {
        "billing": "https://q/1?a=b",
        "ledger": "https://q/2",
    }


@pytest.mark.parametrize("text", ["billing", "=https://q", "billing=", "a=b,a=c"])
def test_peers_that_cannot_be_read_are_quoted(text: str) -> None:
    with pytest.raises(InvalidArgument, match="EVERSTEP_PEERS"):
        read_peers(text)
