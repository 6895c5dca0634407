"""Round trips as the wire counts them: a resume is one, whatever is behind it and whatever it waits for."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest

from everstep import App, Client, Context
from everstep.clock import VirtualClock
from everstep.driver import Driver
from everstep.ports import Store, Wake
from everstep_supabase.rpc import RpcStore
from everstep_supabase.store import PostgresStore
from tests.adapters.supabase.sim import Deaf
from tests.adapters.supabase.standins import PostgREST, token
from tests.adapters.supabase.wire import Wire
from tools.components import postgres

pytestmark = pytest.mark.xdist_group("supabase")

app = App("trips")


@app.step
def note(what: object) -> object:
    return what


async def behind(ctx: Context, steps: int) -> None:
    """So many steps on record."""
    for first in range(0, steps, 100):
        await asyncio.gather(*[ctx.run(note, n) for n in range(first, min(first + 100, steps))])


@app.workflow
async def asleep(ctx: Context, steps: int) -> str:
    await behind(ctx, steps)
    await ctx.sleep(60)
    return "done"


@app.workflow
async def several_timers(ctx: Context, steps: int) -> str:
    await behind(ctx, steps)
    await asyncio.gather(ctx.sleep(60), ctx.sleep(50), ctx.sleep(40))
    return "done"


@app.workflow
async def approval(ctx: Context, steps: int) -> str:
    link, other = ctx.promise(), ctx.promise()
    await behind(ctx, steps)
    assert await link == "yes"
    assert not other.done()
    return "done"


@app.workflow
async def fan_in(ctx: Context, steps: int) -> str:
    await behind(ctx, steps)
    assert await asyncio.gather(*[ctx.promise() for _ in range(25)]) == ["yes"] * 25
    return "done"


@app.workflow
async def tree(ctx: Context, steps: int) -> str:
    """A race of a timer against all of two promises, one of which has settled long before."""
    await behind(ctx, steps)
    both = asyncio.ensure_future(asyncio.gather(ctx.promise(), ctx.promise()))
    done, _ = await asyncio.wait([both, asyncio.ensure_future(ctx.sleep(600))], return_when=asyncio.FIRST_COMPLETED)
    assert both in done
    return "done"


@app.workflow
async def lost_race(ctx: Context, steps: int) -> str:
    """What was cancelled before it slept is settled, and nobody waits for it."""
    await behind(ctx, steps)
    try:
        async with asyncio.timeout(30):
            await ctx.promise()
    except TimeoutError:
        pass
    await ctx.sleep(60)
    return "done"


@app.workflow
async def shared(ctx: Context, steps: int) -> str:
    await behind(ctx, steps)
    assert await ctx.options(id=f"{ctx.id}-shared").promise() == "yes"
    return "done"


@app.workflow
async def kid(ctx: Context, n: int) -> object:
    return await ctx.run(note, n)


@app.workflow
async def parent(ctx: Context, count: int) -> list[object]:
    return list(await asyncio.gather(*[ctx.rpc(kid, n) for n in range(count)]))


class Rig:
    """One function on one store, called when it is due, and a count of what went over the wire."""

    def __init__(self, store: Store, trips: Callable[[], int], client: Store, **options: Any) -> None:
        self.clock = VirtualClock()
        self.store = store
        self.client = Client(client, Deaf(), app=app, clock=self.clock)
        self.driver = Driver(app, store, Deaf(), self.clock, pid="i1", **options)
        self.trips = trips

    async def deliver(self, id: str) -> int:
        before = self.trips()
        await self.driver.deliver(Wake(id))
        return self.trips() - before

    async def settle_all(self, id: str) -> None:
        for row in await self.client.store.branch(id):
            if row.kind == "promise" and row.state == "pending":
                await self.client.resolve(row.id, "yes")
        try:
            await self.client.resolve(f"{id}-shared", "yes")
        except LookupError:
            pass

    async def resumed(self, name: str, steps: int, *, settle: bool) -> int:
        """The round trips of the invocation that resumes for the last time."""
        id = f"{name}-{steps}-{next(numbers)}".replace("_", "-")
        handle: Any = await self.client.start(name, steps, id=id)
        await self.deliver(id)
        trips = 0
        for _ in range(5):
            if settle:
                await self.settle_all(id)
            else:
                self.clock.advance(60_000)
            trips = await self.deliver(id)
            if await handle.status() != "pending":
                break
        assert await handle.result(0) == "done"
        return trips


numbers = itertools.count()


def direct(dsn: str, work: Callable[[Rig], Awaitable[None]], *, used: bool = True, **options: Any) -> None:
    """Work on one connection, which has been used for a while, or is new."""

    async def scenario(wire: Wire) -> None:
        store, client = PostgresStore(f"{wire.dsn}?pool=1"), PostgresStore(dsn)
        rig = Rig(store, lambda: wire.trips, client, **options)
        if used:
            # The third use of a statement prepares it, and that is a round trip of its own, once for a connection.
            for name in ("asleep", "approval", "asleep", "approval", "parent"):
                id = f"used-{next(numbers)}"
                await rig.client.start(name, 3, id=id)
                for _ in range(3):
                    for one in (id, *[f"{id}.{n}" for n in range(1, 4)]):
                        await rig.deliver(one)
                    await rig.settle_all(id)
                    rig.clock.advance(60_000)
        else:
            await store.load(["nobody"])  # a connection, and whether the migration is there
        await work(rig)
        rig.driver.cold()
        await store.close()
        await rig.client.close()

    with Wire(dsn) as wire:
        asyncio.run(scenario(wire))


CASES = [
    pytest.param("asleep", False, id="a timer"),
    pytest.param("several_timers", False, id="several timers"),
    pytest.param("approval", True, id="a promise"),
    pytest.param("fan_in", True, id="a fan-in"),
    pytest.param("tree", True, id="an await tree"),
    pytest.param("lost_race", False, id="after a race"),
]
RESUME, RESULT = 1, 1


@pytest.mark.parametrize("cache", [64, 0], ids=["warm", "cold"])
@pytest.mark.parametrize(("name", "settle"), CASES)
def test_a_resume_is_one_round_trip_whatever_it_waits_for(dsn: str, name: str, settle: bool, cache: int) -> None:
    async def work(rig: Rig) -> None:
        assert await rig.resumed(name, 3, settle=settle) == RESUME + RESULT

    direct(dsn, work, cache=cache)


@pytest.mark.parametrize("steps", [10, 1_000, 10_000])
def test_a_resume_is_one_round_trip_whatever_the_history(dsn: str, steps: int) -> None:
    async def work(rig: Rig) -> None:
        assert await rig.resumed("asleep", steps, settle=False) == RESUME + RESULT

    direct(dsn, work, cache=0)


@pytest.mark.parametrize(("cache", "more"), [(64, 1), (0, 3)], ids=["warm", "cold"])
def test_what_is_awaited_in_another_origin_comes_with_the_resume(dsn: str, cache: int, more: int) -> None:
    """Besides, the completion is recorded in the run's own origin; and a replay attaches once more, by offering to
    create the promise and asking what stands in the way."""

    async def work(rig: Rig) -> None:
        assert await rig.resumed("shared", 3, settle=True) == RESUME + more + RESULT

    direct(dsn, work, cache=cache)


def test_a_run_that_lets_go_after_each_step_takes_three_round_trips_for_it(dsn: str) -> None:
    async def work(rig: Rig) -> None:
        await rig.client.start("asleep", 4, id="bit-by-bit")
        # Resume, step, release; in the first round it is what nobody ever held, in the last it is put to sleep.
        assert [await rig.deliver("bit-by-bit") for _ in range(4)] == [3, 3, 3, 3]
        rig.clock.advance(60_000)
        assert await rig.deliver("bit-by-bit") == 2

    direct(dsn, work, steps_per_invocation=1)


def test_a_child_takes_three_and_tells_its_parent(dsn: str) -> None:
    async def work(rig: Rig) -> None:
        await rig.client.start("parent", 5, id="parent")
        assert await rig.deliver("parent") == RESUME + 1 + 1  # all children in one write, and the suspension
        for n in range(1, 6):
            # Besides, whom it tells is looked for, looked at and crossed off; the first does one of them a third time.
            assert await rig.deliver(f"parent.{n}") <= RESUME + 1 + RESULT + 4 + (n == 1)
        assert await rig.deliver("parent") == RESUME + RESULT
        assert await rig.client.handle("parent").result(0) == [0, 1, 2, 3, 4]

    direct(dsn, work, cache=0)


def test_a_function_that_lives_for_one_invocation_prepares_nothing(dsn: str) -> None:
    """Three steps on a new connection: the third is where it would begin to pay."""

    async def work(rig: Rig) -> None:
        await rig.client.start("asleep", 2, id="short")
        assert await rig.deliver("short") == RESUME + 2 + 1

    direct(dsn, work, used=False)


@pytest.fixture(scope="module")
def api(supabase_server: postgres.Server) -> Iterator[str]:
    with PostgREST(f"postgresql://authenticator:authenticator@127.0.0.1:{supabase_server.port}/postgres") as api:
        yield api.url


@pytest.mark.parametrize("cache", [64, 0], ids=["warm", "cold"])
@pytest.mark.parametrize(("name", "settle"), CASES)
def test_over_http_it_is_one_request(project: str, api: str, name: str, settle: bool, cache: int) -> None:
    sent = 0

    async def count(request: httpx.Request) -> None:
        nonlocal sent
        sent += 1

    async def scenario() -> None:
        http = httpx.AsyncClient(event_hooks={"request": [count]}, timeout=30)
        store, client = RpcStore(api, token("service_role"), client=http), PostgresStore(project)
        rig = Rig(store, lambda: sent, client, cache=cache)
        assert await rig.resumed(name, 3, settle=settle) == RESUME + RESULT
        rig.driver.cold()
        await store.close()
        await rig.client.close()

    asyncio.run(scenario())
