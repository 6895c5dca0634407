"""The Worker of the tests: what a user writes, an object that remembers what steps did, and a platform in trouble."""

from __future__ import annotations

import importlib
import json
import pkgutil
from typing import Any
from urllib.parse import unquote

import js
from flows import Ledger as LedgerClient
from flows import app
from mode import STEPS
from workers import DurableObject, Response

from everstep.clock import SystemClock
from everstep_cloudflare import handler
from everstep_cloudflare.objects import client_of
from everstep_cloudflare.platform import EnvBindings, ObjectStorage, R2Blobs, blobs_of


def setup(env: Any) -> None:
    app.provide(LedgerClient(env))


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


async def check_bucket(blobs: Any) -> list[str]:
    """What comes back from the bucket, where it is not what was put there."""
    everything = {"plain": b"a", "empty": b"", "every byte": bytes(range(256)) * 20_000, "a/é/\U0001f40d?&#%": b"\0"}
    everything |= {"k" * 1000: b"1000", "k" * 1001: b"1001", "é" * 700: b"long", "é" * 700 + "x": b"longer"}
    for key, data in everything.items():
        await blobs.put(key, b"before")
        await blobs.put(key, data)
    wrong = [key for key, data in everything.items() if await blobs.get(key) != data]
    for key in everything:
        await blobs.delete(key)
        await blobs.delete(key)
        try:
            await blobs.get(key)
            wrong.append(f"{key} is still there")
        except KeyError:
            pass
    return wrong


class Away:
    """A bucket in trouble."""

    def put(self, *given: Any) -> Any:
        return js.Promise.reject(js.Error.new("We encountered an internal error. Please try again. (10001)"))

    get = delete = put


async def bucket_away() -> list[str]:
    """What is said of that."""
    blobs = R2Blobs(Away())
    said = []
    for call in (blobs.put("a", b""), blobs.get("a"), blobs.delete("a")):
        try:
            await call
        except Exception as error:
            said.append(f"{type(error).__name__}: {error}")
    return said


def import_all() -> dict[str, str]:
    """Imports whatever is vendored; tells what each module says that refuses."""
    import everstep
    import everstep_cloudflare

    found = [
        module.name
        for package in (everstep, everstep_cloudflare)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]
    said = {}
    for name in [*found, *everstep._left_out.WHY]:
        try:
            importlib.import_module(name)
            said[name] = ""
        except ImportError as error:
            said[name] = str(error)
    return said


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
            case ["", "bucket"]:
                return Response(
                    json.dumps([[one.key, one.size] for one in (await self.env.EVERSTEP_BLOBS.list()).objects])
                )
            case ["", "bucket", "check"]:
                return Response(json.dumps(await check_bucket(blobs_of(self.env))))
            case ["", "bucket", "away"]:
                return Response(json.dumps(await bucket_away()))
            case ["", "bucket", "lose", key]:
                await self.env.EVERSTEP_BLOBS.delete(key)
                return Response("null")
            case ["", "imports"]:
                return Response(json.dumps(import_all()))
            case ["", "counted"]:
                return Response(json.dumps(COUNTED))
        return await super().fetch(request)
