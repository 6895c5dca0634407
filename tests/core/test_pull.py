"""A worker that fetches its work: one lease, renewed; given back, taken over, or dropped; settled once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from everstep import Client, InvalidArgument
from everstep.clock import Clock
from everstep.errors import StoreUnavailable
from everstep.pull import Puller, Taken
from everstep.stores.memory import MemoryStore
from everstep.wakers.local import LocalWaker

TARGET = "poll://gpu"


class Hand(Clock):
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.at = 1_000_000

    def now(self) -> int:
        return self.at


def on_clock(talk: Callable[[Client, Hand], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        clock = Hand()
        return await talk(Client(MemoryStore(), LocalWaker(), clock=clock), clock)

    return asyncio.run(run())


def puller(client: Client, work: Any, pid: str = "w1", **options: Any) -> Puller:
    return Puller(client, options.pop("targets", [TARGET]), work, pid=pid, lease=options.pop("lease", 300), **options)


async def never(taken: Taken) -> None:
    await asyncio.Event().wait()


def test_what_it_returns_resolves_and_what_it_raises_rejects() -> None:
    async def talk(client: Client, clock: Hand) -> None:
        seen: list[Taken] = []

        async def work(taken: Taken) -> Any:
            seen.append(taken)
            if taken.id == "bad":
                raise ValueError("no such thing")
            if taken.id == "odd":
                return object()
            return {"got": taken.param}

        for id in ("good", "bad", "odd"):
            await client.start("train", 7, id=id, target=TARGET, timeout=60)
        await client.start("train", 7, id="other", target="poll://cpu")
        worker = puller(client, work)

        assert await worker.fetch() == 3
        await worker.idle()

        assert (await client.get("good")).value == {"got": ["train", [7]]}
        bad = await client.get("bad")
        assert (bad.state, bad.error and bad.error["message"]) == ("rejected", "no such thing")
        assert (await client.get("odd")).state == "rejected"
        assert (await client.get("other")).task == "pending"
        assert {one.timeout_at for one in seen} == {clock.at + 60_000}
        assert await worker.fetch() == 0

    on_clock(talk)


def test_it_takes_no_more_than_it_has_hands() -> None:
    async def talk(client: Client, clock: Hand) -> list[int]:
        for number in range(50):
            await client.start("train", id=f"t{number:02}", target=TARGET)
        worker = puller(client, never, concurrency=3)
        begun = [await worker.fetch(), await worker.fetch()]
        serving = asyncio.create_task(worker.serve())
        await asyncio.sleep(0)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        return begun

    assert on_clock(talk) == [3, 0]


def test_who_dies_is_followed_by_another_once_the_lease_is_over_and_settles_nothing_any_more() -> None:
    async def talk(client: Client, clock: Hand) -> None:
        await client.start("train", id="t", target=TARGET)
        gate = asyncio.Event()

        async def slow(taken: Taken) -> str:
            await gate.wait()
            return "first"

        async def quick(taken: Taken) -> str:
            return "second"

        one = puller(client, slow, lease=60_000)
        two = puller(client, quick, "w2", lease=60_000)
        assert await one.fetch() == 1
        assert await two.fetch() == 0, "it is leased"
        clock.at += 60_000

        assert await two.fetch() == 1
        await two.idle()
        gate.set()
        await one.idle()

        view = await client.get("t")
        assert (view.value, view.version) == ("second", 2)

    on_clock(talk)


def test_a_lease_is_renewed_while_the_work_goes_on() -> None:
    async def talk(client: Client, clock: Hand) -> None:
        await client.start("train", id="t", target=TARGET)
        beats = 0
        gate = asyncio.Event()

        async def slow(taken: Taken) -> str:
            await gate.wait()
            return "done"

        worker = puller(client, slow)
        still = worker._still

        async def counted(ref: Any) -> bool:
            nonlocal beats
            clock.at += 200
            beats += 1
            if beats == 5:
                gate.set()
            return await still(ref)

        worker._still = counted  # type: ignore[method-assign]
        assert await worker.fetch() == 1
        await worker.idle()

        view = await client.get("t")
        assert (view.value, view.version) == ("done", 1)

    on_clock(talk)


@pytest.mark.parametrize("how", ["cancel", "resolve"])
def test_a_task_that_was_settled_meanwhile_is_dropped(how: str) -> None:
    async def talk(client: Client, clock: Hand) -> str:
        stopped = asyncio.Event()

        async def slow(taken: Taken) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

        await client.start("train", id="t", target=TARGET)
        worker = puller(client, slow)
        await worker.fetch()
        await asyncio.sleep(0)
        await getattr(client, how)("t")
        await worker.idle()
        assert stopped.is_set()
        return (await client.get("t")).state

    assert on_clock(talk) == {"cancel": "rejected_canceled", "resolve": "resolved"}[how]


def test_stopping_gives_back_what_is_under_way() -> None:
    async def talk(client: Client, clock: Hand) -> None:
        await client.start("train", id="t", target=TARGET)
        worker = puller(client, never)
        serving = asyncio.create_task(worker.serve())
        while (await client.get("t")).task != "acquired":  # noqa: ASYNC110
            await asyncio.sleep(0)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        assert (await client.get("t")).task == "pending"

    on_clock(talk)


def test_trouble_with_the_store_does_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    async def talk(client: Client, clock: Hand) -> str:
        async def work(taken: Taken) -> str:
            return "done"

        await client.start("train", id="t", target=TARGET)
        worker = puller(client, work)
        fetch, faults = worker.fetch, ["a", "b"]

        async def faulty() -> int:
            if faults:
                raise StoreUnavailable(faults.pop())
            return await fetch()

        worker.fetch = faulty  # type: ignore[method-assign]
        serving = asyncio.create_task(worker.serve())
        view = await client.wait("t", 20)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        return str(view.value)

    assert on_clock(talk) == "done"
    assert "no work could be fetched" in caplog.text


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"lease": 1}])
def test_a_worker_without_hands_or_time_is_refused(options: dict[str, int]) -> None:
    async def talk(client: Client, clock: Hand) -> None:
        with pytest.raises(InvalidArgument):
            puller(client, never, **options)

    on_clock(talk)
