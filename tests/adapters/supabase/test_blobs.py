"""Payloads in Supabase Storage, by reference. Storage is in no package registry: what answers here is a stand-in."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from everstep.errors import StoreError, StoreUnavailable
from everstep_supabase.blobs import SupabaseBlobs

KEYS = [
    "a/value/1",
    "a_value/1",
    "../../etc",
    "ü/日本",
    "x" * 1000,
    " ",
    "a\\b",
    "A",
    "a",
    "%2e%2e",
    "?x=1#y",
    "\ud800",
]


class Storage:
    """The routes of Storage that are used: objects of one private bucket, for who has the key."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.client = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.headers.get("authorization") != "Bearer key" or request.headers.get("apikey") != "key":
            return httpx.Response(400, json={"statusCode": "403", "error": "Unauthorized", "message": "no"})
        path = request.url.path.removeprefix("/storage/v1/object/").removeprefix("authenticated/")
        bucket, _, name = path.partition("/")
        assert bucket == "everstep"
        match request.method:
            case "POST":
                assert request.headers["x-upsert"] == "true"
                self.objects[name] = request.content
                return httpx.Response(200, json={"Key": path})
            case "GET" if name in self.objects:
                return httpx.Response(200, content=self.objects[name])
            case "DELETE" if name in self.objects:
                del self.objects[name]
                return httpx.Response(200, json={"message": "Successfully deleted"})
            case _:
                return httpx.Response(400, json={"statusCode": "404", "error": "not_found", "message": "no object"})


def test_what_was_put_is_got_whatever_the_key() -> None:
    async def scenario() -> None:
        storage = Storage()
        blobs = SupabaseBlobs("https://project.example/", "key", client=storage.client)
        for key in KEYS:
            with pytest.raises(KeyError):
                await blobs.get(key)
            await blobs.put(key, key.encode("utf-8", "surrogatepass"))
            await blobs.put(key, key.encode("utf-8", "surrogatepass"))
        assert len(storage.objects) == len(KEYS)
        for key in KEYS:
            assert await blobs.get(key) == key.encode("utf-8", "surrogatepass")
        for key in (*KEYS, KEYS[0]):
            await blobs.delete(key)
        assert storage.objects == {}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.Response(503, text="busy"), StoreUnavailable),
        (httpx.Response(429, text="slow"), StoreUnavailable),
        (httpx.Response(403, text="no"), StoreError),
        (httpx.Response(413, text="too large"), StoreError),
        (httpx.ConnectError("away"), StoreUnavailable),
        (httpx.ReadTimeout("late"), StoreUnavailable),
    ],
)
def test_trouble_is_told_apart(answer: httpx.Response | Exception, error: type[Exception]) -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    blobs = SupabaseBlobs("https://x", "key", client=httpx.AsyncClient(transport=httpx.MockTransport(respond)))
    for work in (blobs.put("a", b""), blobs.get("a"), blobs.delete("a")):
        with pytest.raises(error) as caught:
            asyncio.run(work)
        assert type(caught.value) is error


def test_a_wrong_key_is_refused() -> None:
    with pytest.raises(StoreError):
        asyncio.run(SupabaseBlobs("https://x", "other", client=Storage().client).put("a", b""))
