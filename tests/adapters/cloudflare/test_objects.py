"""Objects in trouble, on a stand-in for the platform's storage: what is told when, and what a retry does."""

from __future__ import annotations

import asyncio
import base64
import json
from types import SimpleNamespace
from typing import Any

import pytest

from everstep.clock import VirtualClock
from everstep.context import Context
from everstep.errors import OutcomeUnknown, StoreError
from everstep.http.problems import Problem
from everstep.ports import Commit, Put
from everstep.registry import App
from everstep.testing.conformance.rows import commit, row
from everstep_cloudflare.auth import access, bearer
from everstep_cloudflare.events import event_of
from everstep_cloudflare.home import Home
from everstep_cloudflare.objects import Options, client_of
from everstep_cloudflare.shift import GUARD

from .fake import FakeStorage, FakeWorld

app = App("objects")
RAN: list[str] = []


@app.step
def once(what: str) -> str:
    RAN.append(what)
    return what


@app.workflow
async def nap(ctx: Context, seconds: float) -> str:
    await ctx.run(once, "before")
    await ctx.sleep(seconds)
    return await ctx.run(once, "after")


@app.step
async def held() -> str:
    RAN.append("freed" if RAN else "stuck")
    if len(RAN) == 1:
        await asyncio.Event().wait()
    return RAN[-1]


@app.workflow
async def stuck(ctx: Context) -> str:
    return await ctx.run(held)


class World(FakeWorld):
    def __init__(self) -> None:
        RAN.clear()
        self.clock = VirtualClock()
        super().__init__(app, Options(clock=self.clock))
        self.client = client_of(app, self, clock=self.clock)
        self.told: list[dict[str, Any]] = []
        self.deaf = False

    async def index(self, message: str) -> str:
        call = json.loads(message)
        if call["op"] == "put":
            if self.deaf:
                raise OSError("the index is away")
            self.told.append(call["entry"])
        return await super().index(message)

    async def ring_all(self, until: int) -> None:
        while (found := self.next_alarm()) is not None and found[0] <= until:
            self.clock.set(max(self.clock.now(), found[0]))
            await self.ring(found[1])
        self.clock.set(until)


def test_w9_an_origin_is_in_the_index_before_its_first_row_is_written() -> None:
    async def scenario() -> None:
        world = World()
        world.deaf = True
        with pytest.raises(OutcomeUnknown):
            await world.client.start(nap, 1, id="n")
        assert await world.client.store.load(["n"]) == {}
        world.deaf = False
        await world.client.start(nap, 1, id="n")
        assert [(one["origin"], one["live"]) for one in world.told] == [("n", True)]

    asyncio.run(scenario())


def test_the_index_hears_of_a_start_and_of_an_end_and_of_nothing_between() -> None:
    async def scenario() -> None:
        world = World()
        await world.client.start(nap, 3600, id="n")
        await world.ring_all(world.clock.now() + 7_200_000)
        assert [(one["live"], one["state"]) for one in world.told] == [(True, "pending"), (False, "resolved")]

    asyncio.run(scenario())


@pytest.mark.parametrize("order", [(5, 900), (900, 5)], ids=["first", "last"])
def test_of_several_first_commits_at_once_the_index_keeps_the_earliest_instant(order: tuple[int, int]) -> None:
    """While the index is told, others come in: what they say of this origin must cover what is not written yet."""

    async def scenario() -> None:
        told: list[dict[str, Any]] = []

        async def tell(entry: dict[str, Any]) -> None:
            await asyncio.sleep(0)
            told.append(entry)

        home = Home(FakeStorage(), "a", VirtualClock(1), tell, lambda: None)
        puts = [Put(row(f"a.{due}", due=due), 0) for due in order]
        assert await asyncio.gather(*[home.commit(commit(put)) for put in puts]) == [None, None]
        assert max(told, key=lambda entry: entry["seq"])["bound"] == 5
        assert home._mark.bound == 5
        assert await home.commit(commit(Put(row("a.7", due=7), 0))) is None
        assert len(told) == 2

    asyncio.run(scenario())


def test_what_the_index_missed_it_hears_when_it_asks() -> None:
    async def scenario() -> None:
        world = World()
        await world.client.start(nap, 1, id="n")
        world.deaf = True
        await world.ring_all(world.clock.now() + 10_000)
        assert (await world.client.get("n")).state == "resolved"
        world.deaf = False
        found, _ = await world.client.search(state="resolved")
        assert [one.id for one in found] == ["n"]
        assert await world.client.store.due(world.clock.now(), 10) == []
        assert world.index_object._index.entries.overdue(world.clock.now(), 10) == []

    asyncio.run(scenario())


@pytest.mark.parametrize("anew", [False, True], ids=["the same object", "made anew"])
@pytest.mark.parametrize("early", [1, 2, 3])
def test_w9_an_alarm_that_comes_milliseconds_early_is_not_the_last_one(early: int, anew: bool) -> None:
    """The clock of a turn may say less than the instant that it was woken for."""

    async def scenario() -> None:
        world = World()
        await world.client.start(nap, 1, id="n")
        await world.ring("n")
        due, _ = world.next_alarm() or (0, "")
        world.clock.set(due - early)
        if anew:
            world.objects.pop("n")
        await world.ring("n")
        assert (await world.client.get("n")).state == "pending"
        again, _ = world.next_alarm() or (0, "")
        assert due < again <= due + 2
        world.clock.set(again)
        await world.ring("n")
        assert (await world.client.get("n")).state == "resolved"

    asyncio.run(scenario())


@pytest.mark.parametrize("anew", [False, True], ids=["the same object", "made anew"])
def test_w9_an_alarm_that_was_lost_is_set_again_when_the_index_asks(anew: bool) -> None:
    """To the platform the same instant would be no change, so that it would ring for nobody."""

    async def scenario() -> None:
        world = World()
        await world.client.start(nap, 60, id="n")
        await world.ring("n")
        due, _ = world.next_alarm() or (0, "")
        world.storages["n"].lose()
        assert world.next_alarm() is None
        if anew:
            world.objects.pop("n")
        world.clock.set(due + 3_600_000)
        await world.client.store.due(world.clock.now(), 10)
        found = world.next_alarm()
        assert found is not None, "nothing would ever wake it"
        await world.ring("n")
        assert (await world.client.get("n")).state == "resolved"

    asyncio.run(scenario())


def test_w9_an_alarm_that_begins_while_the_index_asks_still_sets_the_next_one() -> None:
    """What was to ring when it was asked for is what rings now, and rings no more."""

    class Slow(FakeStorage):
        async def alarm(self) -> int | None:
            asked = await super().alarm()
            await answered.wait()
            return asked

    answered = asyncio.Event()

    async def scenario() -> None:
        storage = Slow()

        async def tell(entry: dict[str, Any]) -> None:
            pass

        home = Home(storage, "a", VirtualClock(1), tell, lambda: None)
        assert await home.commit(commit(Put(row("a", due=50), 0))) is None
        asking = asyncio.create_task(home.look(60, 10))
        await asyncio.sleep(0)

        async def alarm() -> None:
            home.wake_up()
            answered.set()
            await asking
            await home.fall_asleep(50)

        await storage.ring(alarm)
        assert await storage.alarm() is not None, "nothing would ever wake it"

    asyncio.run(scenario())


def test_w10_an_object_that_does_not_answer_keeps_no_other_from_being_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is overdue for ever, and so the first that every sweep asks."""

    class Broken(World):
        async def run(self, origin: str, message: str) -> str:
            if origin == "a" and json.loads(message)["op"] == "look":
                raise OSError("exceeded its memory")
            return await super().run(origin, message)

    async def scenario() -> None:
        world = Broken()
        for at, id in enumerate("abc"):
            world.clock.set(world.clock.now() + at)
            await world.client.start(nap, 60, id=id)
            await world.ring(id)
            world.storages[id].lose()
        world.clock.set(world.clock.now() + 3_600_000)
        await world.client.sweep()
        for id in "bc":
            await world.ring(id)
            assert (await world.client.get(id)).state == "resolved"
        assert [one.origin for one in world.index_object._index.entries.overdue(world.clock.now(), 10)] == ["a"]

    monkeypatch.setattr("everstep_cloudflare.index._AT_ONCE", 1)
    asyncio.run(scenario())


def test_w9_an_alarm_that_died_before_is_guarded_by_another_one() -> None:
    async def scenario() -> None:
        world = World()
        await world.client.start(nap, 3600, id="n")
        seen: list[int | None] = []

        def look(what: str) -> None:
            seen.append(world.storages["n"]._alarm)

        world.objects["n"]._options = world.options._replace(tell=lambda kind, id, **_: look(kind))
        world.objects["n"]._parts = None
        began = world.clock.now()
        await world.ring("n", retries=3)
        assert began + GUARD in seen
        assert world.storages["n"]._alarm == began + 3_600_000
        assert RAN == ["before"]

    asyncio.run(scenario())


def test_an_earlier_life_is_taken_over_from_without_waiting_for_its_lease() -> None:
    """The object died with the run in its hands; the alarm that comes again finds whose it was."""

    async def scenario() -> None:
        world = World()
        await world.client.start(stuck, id="n")
        dying = asyncio.ensure_future(world.object("n").alarm())
        while not RAN:  # noqa: ASYNC110
            await asyncio.sleep(0)
        (row,) = (await world.client.store.load(["n"])).values()
        assert row.lease is not None
        world.objects.pop("n")
        await world.ring("n")
        assert RAN == ["stuck", "freed"]
        assert (await world.client.get("n")).value == "freed"
        dying.cancel()

    asyncio.run(scenario())


def test_an_object_that_was_only_asked_keeps_nothing() -> None:
    async def scenario() -> None:
        world = World()
        assert await world.client.store.load(["nobody"]) == {}
        assert await world.client.store.branch("nobody") == []
        assert world.storages["nobody"].rows("SELECT name FROM sqlite_master") == []

    asyncio.run(scenario())


def test_nonsense_is_answered_as_an_error() -> None:
    async def scenario() -> None:
        world = World()
        for message in ("", "[]", '{"op": "fly", "origin": "a"}'):
            assert "error" in json.loads(await world.run("a", message))
        for message in ("{", '{"op": "fly"}'):
            assert "error" in json.loads(await world.index_object.answer(message))
        parts = world.object("a")._at("a")
        with pytest.raises(StoreError, match="holds nothing"):
            await parts[0].commit(Commit("b", ()))

    asyncio.run(scenario())


@pytest.mark.parametrize("body", [b'{"a": 1}', '{"a": 1}', {"a": 1}])
def test_a_message_is_normalised(body: Any) -> None:
    message = SimpleNamespace(id="m1", timestamp=SimpleNamespace(getTime=lambda: 17.0), attempts=2, body=body)
    event = event_of("orders", message)
    assert (event.id, event.kind, event.source, event.data, event.time) == ("m1", "queue", "orders", {"a": 1}, 17)
    assert event.attributes == {"attempts": 2}


def test_without_a_token_nobody_passes() -> None:
    def request(text: str) -> Any:
        return SimpleNamespace(headers={"authorization": text})

    assert not bearer(None)(request("Bearer "))
    assert not bearer("")(request("Bearer "))
    assert not bearer("t")(request("Bearer x"))
    assert not bearer("t")(request("Basic t"))
    assert bearer("t")(request("bearer t"))


NOW = 1_700_000_000
GOOD = {"iss": "https://team.example", "aud": ["tag"], "exp": NOW + 60, "nbf": NOW - 60}


@pytest.mark.parametrize(
    ("claims", "header", "passes"),
    [
        ({}, {}, True),
        ({"aud": "tag"}, {}, True),
        ({"aud": ["other"]}, {}, False),
        ({"iss": "https://evil.example"}, {}, False),
        ({"exp": NOW - 3600}, {}, False),
        ({"nbf": NOW + 3600}, {}, False),
        ({}, {"alg": "none"}, False),
        ({}, {"alg": "HS256"}, False),
        ({}, {"kid": "unknown"}, False),
        ({"exp": "soon"}, {}, False),
    ],
)
def test_access_checks_every_claim_and_the_signature(
    claims: dict[str, Any], header: dict[str, Any], passes: bool
) -> None:
    def part(data: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")

    async def keys() -> list[dict[str, Any]]:
        return [{"kid": "k1", "kty": "RSA"}]

    async def verify(key: dict[str, Any], signature: bytes, message: bytes) -> bool:
        return key["kid"] == "k1" and signature == b"signed"

    check = access("team.example", "tag", keys=keys, verify=verify, clock=VirtualClock(NOW * 1000))
    signed = f"{part({'alg': 'RS256', 'kid': 'k1', **header})}.{part({**GOOD, **claims})}."

    async def scenario() -> None:
        async def ask(token: str) -> bool:
            return await check(SimpleNamespace(headers={"cf-access-jwt-assertion": token})) is not None

        assert await ask(signed + base64.urlsafe_b64encode(b"signed").decode()) is passes
        assert not await ask(signed + base64.urlsafe_b64encode(b"forged").decode())
        assert not await ask("")
        assert not await ask("a.b")
        assert not await ask("é.é.é")

    asyncio.run(scenario())


def test_access_does_not_wait_for_ever_for_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    def part(data: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")

    async def keys() -> list[dict[str, Any]]:
        await asyncio.Event().wait()
        return []

    async def scenario() -> None:
        check = access("team.example", "tag", keys=keys, clock=VirtualClock(NOW * 1000))
        token = f"{part({'alg': 'RS256', 'kid': 'k1'})}.{part(GOOD)}.{part('x')}"
        with pytest.raises(Problem) as refused:
            await check(SimpleNamespace(headers={"cf-access-jwt-assertion": token}))
        assert refused.value.status == 503

    monkeypatch.setattr("everstep_cloudflare.auth._PATIENCE", 0)
    asyncio.run(scenario())
