"""The platform's storage and bindings on Python's own SQLite: for tests that are to be quick, never as evidence.

Alarms are kept, and rung by whoever plays the platform. Everything runs on one loop, in one process.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from everstep.errors import StoreError


class FakeStorage:
    """An object's storage."""

    def __init__(self) -> None:
        self._db = sqlite3.connect(":memory:", isolation_level=None)
        self._alarm: int | None = None
        self.ringing: int | None = None
        """The instant of the alarm that runs; setting it anew changes nothing, and it is over with `alarm()`."""
        self.alarms_set = 0

    def rows(self, sql: str, *values: str | int | None) -> list[list[Any]]:
        try:
            return [list(row) for row in self._db.execute(sql, values).fetchall()]
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error

    def transaction(self, body: Callable[[], None]) -> None:
        alarm = self._alarm
        self._db.execute("BEGIN")
        try:
            body()
        except BaseException:
            self._db.execute("ROLLBACK")
            self._alarm = alarm
            raise
        self._db.execute("COMMIT")

    def set_alarm(self, at: int) -> None:
        self._alarm = at if at != self.ringing else None
        self.alarms_set += 1

    async def flush(self) -> None:
        pass

    async def alarm(self) -> int | None:
        return self._alarm

    async def delete_all(self) -> None:
        self._db.close()
        self._db = sqlite3.connect(":memory:", isolation_level=None)
        self._alarm = None


class FakeWorld:
    """All objects of a Worker."""

    def __init__(self, app: Any, options: Any) -> None:
        from everstep_cloudflare.objects import IndexObject

        self.app = app
        self.options = options
        self.storages: dict[str, FakeStorage] = {}
        self.objects: dict[str, Any] = {}
        self.index_object = IndexObject(FakeStorage(), self)
        self._lives = 0

    def object(self, origin: str) -> Any:
        from everstep_cloudflare.objects import RunObject

        if origin not in self.objects:
            self._lives += 1
            storage = self.storages.setdefault(origin, FakeStorage())
            self.objects[origin] = RunObject(self.app, storage, self, self.options, str(self._lives))
        return self.objects[origin]

    async def run(self, origin: str, message: str) -> str:
        return str(await self.object(origin).answer(message))

    async def index(self, message: str) -> str:
        return await self.index_object.answer(message)

    def next_alarm(self) -> tuple[int, str] | None:
        """The earliest alarm and whose it is."""
        waiting = [(one._alarm, origin) for origin, one in self.storages.items() if one._alarm is not None]
        return min(waiting, default=None)

    async def ring(self, origin: str, retries: int = 0) -> None:
        """Run an object's `alarm()`."""
        storage = self.storages[origin]
        storage.ringing, storage._alarm = storage._alarm, None
        try:
            await self.object(origin).alarm(retries)
        finally:
            storage.ringing = None
