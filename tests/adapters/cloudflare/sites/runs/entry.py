"""The Worker of the tests: what a user writes, an object that remembers what steps did, and a platform in trouble."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

from flows import Ledger as LedgerClient
from flows import app
from mode import BLOBS, STEPS
from workers import DurableObject, Response

from everstep.clock import SystemClock
from everstep_cloudflare import handler, platform
from everstep_cloudflare.objects import client_of
from everstep_cloudflare.platform import EnvBindings, ObjectStorage, R2Blobs


def setup(env: Any) -> None:
    app.provide(LedgerClient(env))


class Bucket:
    """In place of R2, which workerd alone does not have: the same calls, on a dictionary of this process."""

    def __init__(self) -> None:
        self.held: dict[str, Any] = {}

    async def put(self, key: str, data: Any) -> None:
        self.held[key] = data.to_bytes() if hasattr(data, "to_bytes") else bytes(data.to_py())

    async def get(self, key: str) -> Any:
        return Body(self.held[key]) if key in self.held else None

    async def delete(self, key: str) -> None:
        self.held.pop(key, None)


class Body:
    def __init__(self, data: bytes) -> None:
        self._data = data

    async def arrayBuffer(self) -> Body:
        return self

    def to_bytes(self) -> bytes:
        return self._data


BUCKET = Bucket()
if BLOBS:
    platform.blobs_of = lambda env: R2Blobs(BUCKET)

worker = handler(app, setup=setup, steps_per_invocation=STEPS)
Index = worker.Index

COUNTED = {"rows": 0, "alarms": 0}
"""Rows written by all objects of this process, as the platform counts them, and alarms set."""

plain_exec, plain_alarm = ObjectStorage.__init__, ObjectStorage.set_alarm


def counting(self: ObjectStorage, ctx: Any) -> None:
    plain_exec(self, ctx)
    given = self._exec

    def exec(sql: str, *values: Any) -> Any:
        cursor = given(sql, *values)
        COUNTED["rows"] += int(cursor.rowsWritten)
        return cursor

    self._exec = exec


def counting_alarm(self: ObjectStorage, at: int) -> None:
    COUNTED["alarms"] += 1
    plain_alarm(self, at)


ObjectStorage.__init__, ObjectStorage.set_alarm = counting, counting_alarm  # type: ignore[method-assign]


class Run(worker.Run):  # type: ignore[name-defined]
    async def hurt(self, how: str) -> str:
        storage = ObjectStorage(self.ctx)
        match how:
            case "lose the alarm":
                await self.ctx.storage.deleteAlarm()
            case "forget what is due":
                await self.ctx.storage.deleteAlarm()
                storage.rows("UPDATE everstep_row SET due = NULL")
            case "ring":
                await self.alarm()
            case "ring twice at once":
                import asyncio

                await asyncio.gather(self.alarm(), self.alarm())
        return json.dumps(await storage.alarm())


class Ledger(DurableObject):
    def __init__(self, ctx: Any, env: Any) -> None:
        super().__init__(ctx, env)
        self.sql = self.ctx.storage.sql
        self.sql.exec("CREATE TABLE IF NOT EXISTS note (id TEXT, text TEXT)")

    async def note(self, id: str, text: str) -> None:
        self.sql.exec("INSERT INTO note VALUES (?, ?)", id, text)

    async def notes(self, prefix: str) -> str:
        sql = (
            "SELECT json_group_array(json_array(id, text)) AS found FROM "
            "(SELECT * FROM note WHERE substr(id, 1, ?) = ? ORDER BY rowid)"
        )
        return str(self.sql.exec(sql, len(prefix), prefix).one()["found"])


class Later(SystemClock):
    """Two minutes ahead: a sweep leaves alone what is late by less than one."""

    def now(self) -> int:
        return super().now() + 120_000


class Default(worker.Default):  # type: ignore[name-defined]
    async def scheduled(self, controller: Any) -> None:
        await super().scheduled(controller)
        await client_of(app, EnvBindings(self.env), clock=Later()).sweep()

    async def fetch(self, request: Any) -> Any:
        path = "/" + request.url.split("/", 3)[3]
        match [unquote(part) for part in path.split("?")[0].split("/")]:
            case ["", "notes", prefix]:
                stub = self.env.LEDGER.get(self.env.LEDGER.idFromName("ledger"))
                return Response(await stub.notes(prefix))
            case ["", "hurt", origin, how]:
                stub = self.env.EVERSTEP_RUNS.get(self.env.EVERSTEP_RUNS.idFromName(origin))
                return Response(await stub.hurt(how))
            case ["", "verify", repair]:
                report = await client_of(app, EnvBindings(self.env)).verify(repair == "repair")
                return Response(json.dumps(report.to_dict()))
            case ["", "counted"]:
                return Response(json.dumps(COUNTED))
        return await super().fetch(request)
