"""The protocol's debug requests, for administrators, where they are switched on.

`debug.snap` shows every record, `debug.tick` does at once what is due by now. This is a real store under a real clock,
so that pausing, resetting and travelling in time are not offered (501).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from everstep.ports import Query, Wake
from everstep.promise import Kind, project
from everstep.record_json import promise_json, schedule_json, task_json
from everstep.rows import from_row, schedule_from

from .problems import Problem, bad

if TYPE_CHECKING:
    from collections.abc import Callable

    from everstep.client import Client

_PAGE = 200


class Debug:
    """Debug requests on a client's store."""

    def __init__(self, client: Callable[[], Client]) -> None:
        self._client = client

    async def perform(self, kind: str, data: Any) -> Any:
        """The data of the answer. Raises Problem 400, 501."""
        match kind:
            case "debug.snap":
                return await self._snap()
            case "debug.tick":
                return await self._tick(data)
        raise Problem(501, f"{kind!r} is not offered: this is a store in use")

    async def _snap(self) -> dict[str, Any]:
        client = self._client()
        now = client.clock.now()
        promises, tasks, callbacks, listeners, schedules = [], [], [], [], []
        for kinds in ((), (Kind.SCHEDULE,)):
            cursor: str | None = None
            while True:
                page = await client.store.find(Query(kinds=kinds, limit=_PAGE, cursor=cursor))
                for row in page.rows:
                    if row.kind == Kind.SCHEDULE:
                        schedules.append(schedule_json(schedule_from(row)))
                        continue
                    if row.kind == Kind.FOLD:
                        continue
                    record = project(from_row(row), now)
                    promises.append(promise_json(record))
                    callbacks += [{"awaited": record.id, "awaiter": id} for id in record.callbacks]
                    listeners += [{"promiseId": record.id, "address": address} for address in record.listeners]
                    if record.task is not None:
                        tasks.append(task_json(record))
                cursor = page.cursor
                if cursor is None:
                    break
        return {
            "promises": promises,
            "tasks": tasks,
            "callbacks": callbacks,
            "listeners": listeners,
            "schedules": schedules,
        }

    async def _tick(self, data: Any) -> list[Any]:
        client = self._client()
        now = client.clock.now()
        time = data.get("time", now) if isinstance(data, dict) else None
        if isinstance(time, bool) or not isinstance(time, int):
            raise bad("data.time", "data.time must be an integer")
        if not 0 <= time <= now:
            raise bad("data.time", f"data.time may lie neither before 0 nor in the future: the clock here says {now}")
        seen: set[str] = set()
        while due := [one for one in await client.store.due(time, _PAGE) if one.id not in seen]:
            for one in due:
                seen.add(one.id)
                await client.service.fire(Wake(one.id))
        return []
