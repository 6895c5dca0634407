"""The function against the suite that every handler must pass, and at its doors: secrets, webhooks, tokens."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import httpx
import pytest

import everstep_supabase
from everstep import App, Client, Context, Retry
from everstep.clock import VirtualClock
from everstep.errors import InvalidArgument, StoreUnavailable
from everstep.events import Event
from everstep.ports import Wake
from everstep.testing.conformance import HandlerSuite
from everstep.testing.conformance.handlers import Rig, Work
from everstep_supabase.auth import NotAllowed, verify_token
from everstep_supabase.events import webhook
from everstep_supabase.handler import Function, supabase_auth
from everstep_supabase.store import PostgresStore
from tests.adapters.supabase.sim import Platform
from tests.adapters.supabase.standins import SECRET, token

pytestmark = pytest.mark.xdist_group("postgres")

HEADERS = {"x-everstep-secret": SECRET}


class Away(PostgresStore):
    away = False

    async def _on_connection(self, work: Any, *, writing: bool) -> Any:
        if self.away:
            raise StoreUnavailable("away")
        return await super()._on_connection(work, writing=writing)

    async def poke(self, id: str) -> None:
        """No bell: what is due is found."""


class HandlerRig:
    """pg_cron and pg_net in miniature, over the function's real door."""

    def __init__(self, app: App, dsn: str, **options: Any) -> None:
        self.clock = VirtualClock()
        self.store = Away(dsn)
        self.function: Function = everstep_supabase.handler(
            app, self.store, secret=SECRET, auth="token", clock=self.clock, **options
        )
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app=self.function), base_url="http://function")

    @property
    def client(self) -> Client:
        return self.function.host.client

    async def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> httpx.Response:
        return await self.http.post(path, content=json.dumps(body), headers=HEADERS if headers is None else headers)

    async def deliver(self, wake: Wake) -> bool:
        return (await self.post("/wake", {"id": wake.id, "version": wake.version})).status_code == 200

    async def advance(self, seconds: float) -> None:
        until = self.clock.now() + round(seconds * 1000)
        while due := await self.store.due(until, 1):
            self.clock.set(max(self.clock.now(), due[0].due))
            await self.deliver(Wake(due[0].id))
        self.clock.set(until)

    def broken(self, broken: bool) -> None:
        self.store.away = broken

    async def close(self) -> None:
        self.function.host.cold()
        await self.http.aclose()
        await self.store.close()


class TestHandler(HandlerSuite):
    by_row = True

    @pytest.fixture(autouse=True)
    def _database(self, dsn: str) -> None:
        self.dsn = dsn

    async def rig(self, work: Work) -> Rig:
        return HandlerRig(work.app, self.dsn)


class TestHandlerStepByStep(TestHandler):
    async def rig(self, work: Work) -> Rig:
        return HandlerRig(work.app, self.dsn, steps_per_invocation=1)


# System 22: onboarding.

ran: Counter[str] = Counter()
app = App("onboarding")


@app.step(retry=Retry(attempts=3, first=1))
def work(what: str, failures: int = 0) -> str:
    ran[what] += 1
    if ran[what] <= failures:
        raise ConnectionError("smtp")
    return what


@app.on("postgres", source="public.users", type="INSERT", id=lambda event: f"onboard-{event.data['id']}")
@app.workflow
async def onboard(ctx: Context, user: dict[str, Any]) -> str:
    await ctx.run(work, "validate")
    await ctx.run(work, "welcome", 1)
    workspace = await ctx.run(work, f"ws_{str(user['id'])[:8]}")
    await ctx.run(work, "crm")
    return workspace


USER = {"id": "0a1b2c3d4e5f", "email": "ada@example.org", "credit": 4.20}


def insert(**changes: Any) -> dict[str, Any]:
    plain = {"type": "INSERT", "table": "users", "schema": "public", "record": USER, "old_record": None}
    return {**plain, **changes}


def test_the_same_insert_delivered_three_times_onboards_once(dsn: str) -> None:
    ran.clear()

    async def scenario() -> None:
        rig = HandlerRig(app, dsn)
        answers = await asyncio.gather(*[rig.post("/webhook", insert()) for _ in range(3)])
        assert [answer.json() for answer in answers] == [{"started": ["onboard-0a1b2c3d4e5f"]}] * 3
        for ignored in (
            insert(type="UPDATE", old_record=USER),
            insert(table="orders"),
            insert(type="DELETE", record=None, old_record=USER),
        ):
            assert (await rig.post("/webhook", ignored)).json() == {"started": []}
        await rig.advance(60)
        assert (await rig.post("/webhook", insert())).status_code == 200
        await rig.advance(60)
        probe = await rig.http.get("/promises/onboard-0a1b2c3d4e5f", headers={"authorization": "Bearer token"})
        assert (probe.json()["state"], probe.json()["value"]) == ("resolved", "ws_0a1b2c3d")
        await rig.close()

    asyncio.run(scenario())
    assert ran == {"validate": 1, "welcome": 2, "ws_0a1b2c3d": 1, "crm": 1}


def test_onboarding_killed_anywhere_repeats_only_the_step_in_flight(dsn: str) -> None:
    async def once(at: int | None) -> int:
        ran.clear()
        ran["welcome"] = 1  # the mail server is well today
        platform = Platform(app, dsn, at)
        await platform.client.start(onboard, USER, id="onboard-x")
        await platform.until_settled("onboard-x")
        assert await platform.client.handle("onboard-x").result(0) == "ws_0a1b2c3d"
        assert sum(ran.values()) <= (5 if at is None else 6)
        await platform.store.delete("onboard-x") if at is None else await platform.client.store.delete("onboard-x")
        calls = platform.store.calls
        await platform.close()
        return calls

    async def scenario() -> None:
        for point in range(2 * (await once(None) - 1)):
            await once(point)

    asyncio.run(scenario())


def test_only_the_secret_opens_the_doors_of_the_database(dsn: str) -> None:
    async def scenario() -> None:
        rig = HandlerRig(app, dsn)
        for path in ("/wake", "/webhook", "/sweep"):
            for headers in (
                {},
                {"x-everstep-secret": ""},
                {"x-everstep-secret": SECRET[:-1]},
                {"authorization": SECRET},
            ):
                assert (await rig.post(path, insert(), headers)).status_code == 401
        assert (await rig.client.search())[0] == []
        assert (await rig.post("/sweep", {})).status_code == 200
        await rig.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/wake", "nothing"),
        ("/wake", {"id": "a"}),
        ("/wake", {"id": "", "version": 0}),
        ("/wake", {"id": "a", "version": -1}),
        ("/webhook", []),
        ("/webhook", {"type": "INSERT"}),
        ("/webhook", {"type": "TRUNCATE", "table": "t", "schema": "s", "record": {}}),
        ("/webhook", {"type": "INSERT", "table": "t", "schema": "s", "record": None}),
        ("/webhook", {"type": "DELETE", "table": "t", "schema": "s", "record": None, "old_record": [1]}),
        ("/webhook", insert(record={"id": "a.b"})),
        ("/webhook", insert(record={"no": "id"})),
    ],
)
def test_bad_input_is_refused_and_starts_nothing(dsn: str, path: str, body: Any) -> None:
    async def scenario() -> None:
        rig = HandlerRig(app, dsn)
        answer = await rig.post(path, body)
        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/problem+json"
        assert (await rig.client.search())[0] == []
        await rig.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("body", [b'{"id": "\xff\xfe", "version": 0}', b"\x80", b'{"id": "\\ud800", "version": 0}'])
def test_what_is_no_unicode_is_refused_and_starts_nothing(dsn: str, body: bytes) -> None:
    async def scenario() -> None:
        rig = HandlerRig(app, dsn)
        for path in ("/wake", "/webhook"):
            assert (await rig.http.post(path, content=body, headers=HEADERS)).status_code == 400
        assert (await rig.client.search())[0] == []
        await rig.close()

    asyncio.run(scenario())


def test_trouble_of_the_store_asks_for_the_call_again(dsn: str) -> None:
    async def scenario() -> None:
        rig = HandlerRig(app, dsn)
        rig.broken(True)
        for path, body in (("/wake", {"id": "a", "version": 0}), ("/webhook", insert()), ("/sweep", {})):
            assert (await rig.post(path, body)).status_code == 503
        await rig.close()

    asyncio.run(scenario())


def test_a_webhooks_event_is_named_by_its_row() -> None:
    def event(**changes: Any) -> Event:
        return webhook(json.dumps(insert(**changes)).encode())

    assert event() == event()
    assert (event().id, event().source, event().type) == ("0a1b2c3d4e5f", "public.users", "INSERT")
    first = event(type="UPDATE", record={"id": 7, "n": 1}, old_record={"id": 7, "n": 0})
    second = event(type="UPDATE", record={"id": 7, "n": 2}, old_record={"id": 7, "n": 1})
    assert first.id != second.id
    assert event(type="DELETE", record=None, old_record={"id": 7}).id == "delete/7"
    exact = webhook(b'{"type": "INSERT", "table": "t", "schema": "s", "record": {"id": 1, "sum": 0.10, "n": [1.5, 2]}}')
    assert exact.data == {"id": 1, "sum": "0.10", "n": ["1.5", 2]}
    assert webhook(b'{"type": "INSERT", "table": "t", "schema": "s", "record": {"a": 1}}').id


def test_supabase_tokens_open_the_http_routes(dsn: str) -> None:
    async def scenario() -> None:
        store = PostgresStore(dsn)
        function = everstep_supabase.handler(app, store, secret=SECRET, auth=supabase_auth(secret=SECRET))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=function), base_url="http://f") as http:

            async def get(key: str | None) -> int:
                headers = {"authorization": f"Bearer {key}"} if key is not None else {}
                return (await http.get("/promises", headers=headers)).status_code

            assert await get(token("authenticated", aud="authenticated")) == 200
            assert await get(token("service_role")) == 200
            assert await get(token("anon")) == 403
            assert await get(token("authenticated", aud="elsewhere")) == 401
            assert await get(token("authenticated", -5, aud="authenticated")) == 401
            assert await get(token("service_role", secret="y" * 32)) == 401
            assert await get("nonsense") == 401
            assert await get(None) == 401
        await store.close()

    asyncio.run(scenario())


def test_without_a_way_to_know_users_nobody_comes_in(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SUPABASE_JWT_SECRET", "SUPABASE_URL", "EVERSTEP_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABASE_URL", dsn)
    monkeypatch.setenv("EVERSTEP_SECRET", SECRET)

    async def scenario() -> None:
        function = everstep_supabase.handler(app)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=function), base_url="http://f") as http:
            assert (await http.get("/promises", headers={"authorization": "Bearer x"})).status_code == 401
            assert (await http.post("/sweep", headers=HEADERS)).status_code == 200
        await function.host.client.close()

    asyncio.run(scenario())


def test_what_is_missing_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EVERSTEP_SECRET", "EVERSTEP_STORE", "DATABASE_URL", "SUPABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InvalidArgument, match="16 bytes"):
        everstep_supabase.handler(app, "postgresql://x/y")
    with pytest.raises(InvalidArgument, match="no store"):
        everstep_supabase.handler(app, secret=SECRET)
    with pytest.raises(InvalidArgument, match="one of them"):
        verify_token()
    with pytest.raises(NotAllowed):
        verify_token(secret=SECRET)(token(None))
