"""The platform's storage and bindings on Python's own SQLite: for tests that are to be quick, never as evidence.

Alarms are kept, and rung by whoever plays the platform. Everything runs on one loop, in one process.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

from everstep.errors import StoreError


class FakeStorage:
    """An object's storage."""

    def __init__(self) -> None:
        self._db = sqlite3.connect(":memory:", isolation_level=None)
        self._alarm: int | None = None
        """What will ring."""
        self._asked: int | None = None
        """What the platform keeps beside the rows: it tells the alarm clock when this changes, and only then."""
        self.alarms_set = 0

    def rows(self, sql: str, *values: str | int | None) -> list[list[Any]]:
        try:
            return [list(row) for row in self._db.execute(sql, values).fetchall()]
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error

    def transaction(self, body: Callable[[], None]) -> None:
        before = self._alarm, self._asked
        self._db.execute("BEGIN")
        try:
            body()
        except BaseException:
            self._db.execute("ROLLBACK")
            self._alarm, self._asked = before
            raise
        self._db.execute("COMMIT")

    def set_alarm(self, at: int) -> None:
        if at != self._asked:
            self._alarm = self._asked = at
        self.alarms_set += 1

    async def ring(self, alarm: Callable[[], Awaitable[None]]) -> None:
        """Run `alarm()`. What was asked for is forgotten at its end, unless it was asked for anew."""
        count, self._alarm = self.alarms_set, None
        await alarm()
        if self.alarms_set == count:
            self._asked = None

    def lose(self) -> None:
        """The alarm clock forgets, and nobody notices."""
        self._alarm = None

    async def flush(self) -> None:
        pass

    async def alarm(self) -> int | None:
        return self._asked

    async def delete_all(self) -> None:
        self._db.close()
        self._db = sqlite3.connect(":memory:", isolation_level=None)
        self._alarm = self._asked = None


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
        await self.storages[origin].ring(lambda: self.object(origin).alarm(retries))
