"""The protocol's server over any store, under a clock that the test moves: requests in, answers out, and what is due
done when the test says so."""

from __future__ import annotations

import heapq
import itertools
from typing import Any

from everstep.clock import VirtualClock
from everstep.ports import Store, Wake, Waker
from everstep.promise import SCHEDULE_PREFIX, Kind, project
from everstep.protocol import Message
from everstep.protocol_json import BadRequest, parse, render, render_error
from everstep.record_json import promise_json, schedule_json, task_json
from everstep.rows import from_row, schedule_from
from everstep.service import Service
from everstep.wakers.local import LocalWaker


class QueueWaker:
    """Messages of a queue, in memory: armed ones come at their instant, sent ones at once."""

    by_row = False

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._numbers = itertools.count()
        self._messages: list[tuple[int, int, Wake]] = []
        self._gone: set[int] = set()

    async def arm(self, wake: Wake, at: int) -> str | None:
        number = next(self._numbers)
        heapq.heappush(self._messages, (at, number, wake))
        return str(number)

    async def disarm(self, token: str) -> None:
        self._gone.add(int(token))

    async def send(self, wake: Wake) -> None:
        await self.arm(wake, self._clock.now())

    def take(self) -> Wake | None:
        """The next message that is due."""
        while self._messages and self._messages[0][0] <= self._clock.now():
            _, number, wake = heapq.heappop(self._messages)
            if number not in self._gone:
                return wake
        return None


_ROUNDS = 1000
"""How often one look at the clock may find something due; a store that loses writes finds it for ever."""


class Server:
    """A store behind the protocol. `sent` are the messages that went out."""

    def __init__(self, store: Store, clock: VirtualClock, *, queue: bool = False) -> None:
        self.store = store
        self.clock = clock
        self.queue = QueueWaker(clock) if queue else None
        waker: Waker = self.queue if self.queue is not None else LocalWaker()
        self.sent: list[Message] = []
        self.service = Service(store, waker, clock, deliver=self._deliver)

    async def _deliver(self, message: Message) -> None:
        self.sent.append(message)

    async def ask(self, envelope: dict[str, Any]) -> dict[str, Any]:
        """What `POST /` answers."""
        try:
            request = parse(envelope)
        except BadRequest as error:
            return render_error(envelope, 400, str(error))
        return render(request, await self.service.perform(request), envelope["head"]["corrId"])

    async def work(self) -> None:
        """Do all that is due by now."""
        if self.queue is not None:
            while (wake := self.queue.take()) is not None:
                await self.service.fire(wake)
                record = (await self.store.load([wake.id])).get(wake.id)
                if record is not None and record.due is not None and record.due > self.clock.now():
                    # A message that comes early for its record comes back (the driver says so to the platform).
                    await self.queue.arm(wake, record.due)
            return
        for _ in range(_ROUNDS):
            due = await self.store.due(self.clock.now(), 100)
            if not due:
                return
            for one in sorted(due):
                await self.service.fire(Wake(one.id))
        raise AssertionError(f"what is due does not come to rest: {due}")

    async def shown(self, ids: list[str], schedules: list[str]) -> dict[str, Any]:
        """Everything a client could see of these ids now."""
        rows = await self.store.load([*ids, *[SCHEDULE_PREFIX + id for id in schedules]])
        found: dict[str, Any] = {}
        for id, row in rows.items():
            if row.kind == Kind.SCHEDULE:
                found[id] = schedule_json(schedule_from(row))
                continue
            record = project(from_row(row), self.clock.now())
            found[id] = (promise_json(record), task_json(record) if record.task is not None else None)
        return found
