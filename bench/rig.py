"""One instance on a virtual clock over any store, which says between which events each request was made."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from everstep import App, Client
from everstep.clock import VirtualClock
from everstep.driver import Driver
from everstep.ports import Store, Wake
from everstep.promise import Record, State
from everstep.rows import from_row
from everstep.stores.counted import Counted


class Bell:
    """A waker like the embedded one: the store's due rows are the truth. It only counts."""

    by_row = True

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    async def arm(self, wake: Wake, at: int) -> str | None:
        self.counts["armed"] += 1
        return None

    async def disarm(self, token: str) -> None:
        self.counts["disarmed"] += 1

    async def send(self, wake: Wake) -> None:
        self.counts["sent"] += 1


class Rig:
    """
    Attributes:
        before: for each kind of event, the requests made since the event before it, each time it happened.
        writes: the same, of commits alone. A delivery ends with the event "done".
        acquired: how often each run was woken up to run.
        deliveries: rows read by each delivery.
    """

    def __init__(self, app: App, store: Store, **options: Any) -> None:
        self.app = app
        self.clock = VirtualClock()
        self.store = Counted(store)
        self.bell = Bell()
        self.client = Client(self.store, self.bell, app=app, clock=self.clock)
        self.driver = Driver(app, self.store, self.bell, self.clock, tell=self._tell, **options)
        self.forget()

    def forget(self) -> None:
        """Count anew."""
        self.store.reset()
        self.bell.counts.clear()
        self.before: dict[str, list[int]] = defaultdict(list)
        self.writes: dict[str, list[int]] = defaultdict(list)
        self.acquired: Counter[str] = Counter()
        self.deliveries: list[int] = []
        self._seen = self._written = 0

    def _tell(self, kind: str, id: str, /, **_: Any) -> None:
        total, written = sum(self.store.counts.values()), self.store.counts["commit"]
        self.before[kind].append(total - self._seen)
        self.writes[kind].append(written - self._written)
        self._seen, self._written = total, written
        if kind == "acquired":
            self.acquired[id] += 1

    async def start(self, workflow: Any, *args: Any, id: str) -> None:
        """Start a run; what a client asks for is not counted."""
        await self.client.start(workflow, *args, id=id)
        self.forget()

    async def deliver(self, id: str) -> None:
        """One delivery, whatever it finds to do."""
        read = self.store.rows_read
        await self.driver.deliver(Wake(id))
        self.deliveries.append(self.store.rows_read - read)
        self._tell("done", id)

    async def due(self) -> list[str]:
        """What is due, found as a loop finds it; not counted."""
        return [due.id for due in await self.store.store.due(self.clock.now(), 1000)]

    async def work(self) -> None:
        """Deliver what is due until nothing is."""
        while due := await self.due():
            for id in due:
                await self.deliver(id)

    async def sleep(self, seconds: float) -> None:
        """Let time pass, and deliver what has come due then."""
        self.clock.advance(int(seconds * 1000))
        await self.work()

    async def record(self, id: str) -> Record:
        return from_row((await self.store.store.load([id]))[id])

    async def settled(self, id: str) -> bool:
        return (await self.record(id)).state is State.RESOLVED
