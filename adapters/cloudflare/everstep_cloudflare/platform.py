"""The platform's own things, in Python's terms. Nothing else here imports JavaScript.

Values cross the boundary as text, integers and null, bound one by one and read as one JSON text; nothing richer, since
a converted value is seldom the one that was meant. Callbacks are handed over once, or the boundary keeps them for ever.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import js  # type: ignore[import-not-found]  # the platform's
from pyodide.ffi import JsException, create_once_callable, jsnull, to_js  # type: ignore[import-not-found]

from everstep.clock import NEVER
from everstep.errors import StoreError, StoreFull, StoreUnavailable

INDEX = "index"
RUNS_BINDING = "EVERSTEP_RUNS"
INDEX_BINDING = "EVERSTEP_INDEX"
BLOBS_BINDING = "EVERSTEP_BLOBS"


class ObjectStorage:
    """`ctx.storage` of a Durable Object with SQLite; see `everstep_cloudflare.rows.Storage`."""

    def __init__(self, ctx: Any) -> None:
        self._storage = getattr(ctx, "_ctx", ctx).storage
        self._exec = self._storage.sql.exec
        self._written: list[Any] = []

    def rows(self, sql: str, *values: str | int | None) -> list[list[Any]]:
        try:
            cursor = self._exec(sql, *map(_bound, values))
            text = js.JSON.stringify(cursor.raw().toArray())
        except JsException as error:
            raise _trouble(error) from error
        found: list[list[Any]] = json.loads(text)
        return found

    def transaction(self, body: Callable[[], None]) -> None:
        try:
            self._storage.transactionSync(create_once_callable(body))
        except JsException as error:
            raise _trouble(error) from error

    def set_alarm(self, at: int) -> None:
        # One long past makes workerd wait for ever, and one past the platform's range would never come.
        self._written.append(self._storage.setAlarm(min(max(at, int(js.Date.now())), _LAST)))

    async def flush(self) -> None:
        """Alarms are asked for; rows need no waiting, as no answer leaves an object before they are durable."""
        written, self._written = self._written, []
        try:
            for one in written:
                await one
        except JsException as error:
            raise _trouble(error) from error

    async def alarm(self) -> int | None:
        try:
            at = await self._storage.getAlarm()
        except JsException as error:
            raise _trouble(error) from error
        return int(at) if isinstance(at, (int, float)) else None

    async def delete_all(self) -> None:
        try:
            await self._storage.deleteAlarm()
            await self._storage.deleteAll()
        except JsException as error:
            raise _trouble(error) from error


def _bound(value: str | int | None) -> Any:
    """A value as the platform takes it: its integers are doubles, and a larger one would come as a BigInt."""
    if value is None:
        return jsnull
    return float(value) if isinstance(value, int) and value >= NEVER else value


_LAST = 6_000_000_000_000
"""The year 2160: the platform knows no instant after 2189."""


class EnvBindings:
    """The namespaces in a Worker's `env`; see `everstep_cloudflare.peers.Bindings`."""

    def __init__(self, env: Any) -> None:
        self._env = getattr(env, "_env", env)

    async def run(self, origin: str, message: str) -> str:
        return str(await self._stub(RUNS_BINDING, origin).everstep(message))

    async def index(self, message: str) -> str:
        return str(await self._stub(INDEX_BINDING, INDEX).everstep(message))

    def _stub(self, binding: str, name: str) -> Any:
        namespace = getattr(self._env, binding)
        return namespace.get(namespace.idFromName(name))


class R2Blobs:
    """Payloads in an R2 bucket; see `everstep.blobs.Blobs`. Methods raise StoreUnavailable where R2 is in trouble."""

    def __init__(self, bucket: Any) -> None:
        self._bucket = getattr(bucket, "_binding", bucket)

    async def put(self, key: str, data: bytes) -> None:
        await _told(self._bucket.put(_object_key(key), to_js(data)))

    async def get(self, key: str) -> bytes:
        """Raises KeyError: there is no such blob."""
        found = await _told(self._bucket.get(_object_key(key)))
        if found is None or found is jsnull:
            raise KeyError(key)
        data: bytes = (await _told(found.arrayBuffer())).to_bytes()
        return data

    async def delete(self, key: str) -> None:
        await _told(self._bucket.delete(_object_key(key)))


async def _told(call: Any) -> Any:
    try:
        return await call
    except JsException as error:
        raise _trouble(error) from error


async def post(url: str, body: bytes, headers: Mapping[str, str]) -> int:
    """Push a message to a worker or a listener elsewhere; see `everstep.http.messages.Post`."""
    options = {"method": "POST", "headers": dict(headers), "body": body.decode(), "redirect": "manual"}
    response = await js.fetch(url, to_js(options, dict_converter=js.Object.fromEntries))
    return int(response.status)


def _object_key(key: str) -> str:
    """A key of at most 1,024 bytes: a longer one is told by its digest."""
    if len(key.encode()) <= 1000:
        return key
    import hashlib

    return f"{key.encode()[:900].decode(errors='ignore')}~{hashlib.sha256(key.encode()).hexdigest()}"


def blobs_of(env: Any) -> R2Blobs | None:
    """The bucket that is bound, if one is."""
    bucket = getattr(getattr(env, "_env", env), BLOBS_BINDING, None)
    return R2Blobs(bucket) if bucket is not None and bucket is not jsnull else None


def text_of(env: Any, name: str) -> str | None:
    """A variable or a secret, if it is set."""
    value = getattr(getattr(env, "_env", env), name, None)
    return value if isinstance(value, str) and value else None


def _trouble(error: JsException) -> StoreError:
    text = str(error)
    if "SQLITE_FULL" in text:
        return StoreFull(text)
    if "SQLITE" in text and "SQLITE_BUSY" not in text:
        return StoreError(text)
    return StoreUnavailable(text)
