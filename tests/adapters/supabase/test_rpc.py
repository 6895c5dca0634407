"""The store over PostgREST's RPC: the same suite, the same oracle, and keys that must not come in."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import httpx
import psycopg
import pytest

from everstep.errors import OutcomeUnknown, StoreError, StoreUnavailable
from everstep.ports import Put, Store
from everstep.stores.memory import MemoryStore
from everstep.testing.conformance import StoreSuite
from everstep.testing.conformance.differential import Outcome, compare
from everstep.testing.conformance.rows import commit, row, write
from everstep_supabase.rpc import Answer, RpcStore
from tests.adapters.supabase.standins import PostgREST, token
from tests.adapters.supabase.test_hostile import TEXTS, kept
from tests.adapters.supabase.test_store import QUIET, ROUNDS, SEED
from tools.components import postgres

pytestmark = pytest.mark.xdist_group("supabase")


@pytest.fixture(scope="module")
def api(supabase_server: postgres.Server) -> Iterator[str]:
    with PostgREST(f"postgresql://authenticator:authenticator@127.0.0.1:{supabase_server.port}/postgres") as api:
        yield api.url


class Kept(RpcStore):
    """With one client for its loop, as a process that lives longer has."""

    async def _post(self, body: bytes) -> Answer:
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=30)
        return await super()._post(body)


class TestRpc(StoreSuite):
    @pytest.fixture(autouse=True)
    def _project(self, project: str, api: str) -> None:
        self.url = api

    async def open(self) -> Store:
        return Kept(self.url, token("service_role"))

    async def reopen(self, store: Store) -> Store:
        await store.close()
        return RpcStore(self.url, token("service_role"))


def test_rpc_agrees_with_memory_until_nothing_new_is_reached(project: str, api: str) -> None:
    async def run() -> Outcome:
        store = Kept(api, token("service_role"))
        try:
            return await compare(MemoryStore(), store, random.Random(SEED), quiet_rounds=QUIET, most_rounds=ROUNDS // 5)
        finally:
            await store.close()

    assert asyncio.run(run()).signatures > 100


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:12]))
def test_any_text_is_kept_as_it_is_and_harms_nobody(project: str, api: str, text: str) -> None:
    asyncio.run(kept(Kept(api, token("service_role")), text[:1_000_000]))


@pytest.mark.parametrize("role", ["anon", "authenticated", None])
def test_no_other_role_comes_in(project: str, api: str, role: str | None) -> None:
    async def scenario() -> None:
        store = RpcStore(api, token(role))
        with pytest.raises(StoreError, match="permission denied"):
            await store.load(["a"])
        with pytest.raises(StoreError, match="permission denied"):
            await store.commit(commit(Put(row("a"), 0)))

    asyncio.run(scenario())


@pytest.mark.parametrize("key", [token("service_role", -5), token("service_role", secret="x" * 32)])
def test_no_bad_key_comes_in(project: str, api: str, key: str) -> None:
    with pytest.raises(StoreError, match="401"):
        asyncio.run(RpcStore(api, key).load(["a"]))


def test_a_project_without_the_migration_says_so(project: str, api: str) -> None:
    store = RpcStore(api, token("service_role"))
    store.url = store.url.replace("everstep_rpc", "nothing")
    with pytest.raises(StoreError, match="db push"):
        asyncio.run(store.load(["a"]))


def answering(*answers: httpx.Response | Exception) -> tuple[RpcStore, list[httpx.Request]]:
    """A store whose requests are answered so, in turn: faults that no server makes on demand."""
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        given = answers[len(asked) - 1]
        if isinstance(given, Exception):
            raise given
        return given

    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return RpcStore("https://project.example", "key", client=client), asked


PUT = commit(Put(row("a"), 0))


def problem(status: int, code: str) -> httpx.Response:
    return httpx.Response(status, json={"code": code, "message": "no"})


def test_a_deadlock_is_sent_again() -> None:
    store, asked = answering(problem(500, "40P01"), httpx.Response(200, content=b"null"))
    assert asyncio.run(store.commit(PUT)) is None
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("answer", "reading", "writing"),
    [
        (httpx.ConnectError("refused"), StoreUnavailable, StoreUnavailable),
        (httpx.ReadTimeout("late"), StoreUnavailable, OutcomeUnknown),
        (httpx.RemoteProtocolError("gone"), StoreUnavailable, OutcomeUnknown),
        (problem(503, "PGRST000"), StoreUnavailable, StoreUnavailable),
        (problem(503, "08006"), StoreUnavailable, OutcomeUnknown),
        (httpx.Response(502, text="bad gateway"), StoreUnavailable, OutcomeUnknown),
        (problem(500, "57P01"), StoreUnavailable, OutcomeUnknown),
        (problem(500, "57P03"), StoreUnavailable, StoreUnavailable),
        (httpx.Response(522, text="<html>timed out"), StoreUnavailable, OutcomeUnknown),
        (httpx.Response(200, text="<html>be back soon"), StoreUnavailable, OutcomeUnknown),
        (httpx.Response(429, text="slow down"), StoreUnavailable, StoreUnavailable),
        (problem(500, "57014"), StoreUnavailable, StoreUnavailable),
        (problem(400, "22P02"), StoreError, StoreError),
    ],
)
def test_a_lost_answer_to_a_write_is_an_unknown_outcome(
    answer: httpx.Response | Exception, reading: type[StoreError], writing: type[StoreError]
) -> None:
    with pytest.raises(reading):
        asyncio.run(answering(answer)[0].load(["a"]))
    with pytest.raises(writing) as caught:
        asyncio.run(answering(answer)[0].commit(PUT))
    assert type(caught.value) is writing


def test_both_ways_see_the_same_rows(project: str, api: str) -> None:
    async def scenario() -> None:
        from everstep_supabase.store import PostgresStore

        direct, remote = PostgresStore(project), RpcStore(api, token("service_role"))
        await write(direct, row("a", due=3, param="\0", value="x" * 3_000_000))
        assert await remote.load(["a"]) == await direct.load(["a"])
        await remote.poke("a")
        await direct.close()

    asyncio.run(scenario())
    with psycopg.connect(project) as connection:
        assert connection.execute("select count(*) from net.http_request_queue").fetchone() == (0,)
