"""Promises that several may want: created unless they exist, joined where they do, cancelled with who asked."""

from __future__ import annotations

from .errors import Conflict, LeaseLost
from .ports import Fence
from .promise import EMPTY, Record, State, project, settled
from .rows import from_row
from .service import Service
from .starts import WORK, Work, check_same


class Roots:
    """What an invocation asks for beyond the records that it alone writes."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._store = service.store
        self._writer = service.writer
        self._clock = service.clock

    async def create(self, record: Record, name: str) -> Record:
        """Create a root unless it exists; returns what stands. Raises Conflict for other work under the same id."""
        while True:
            refused = await self._writer.write([(None, record)])
            if refused is None:
                return record
            row = refused.found.get(record.id)
            if row is not None:
                existing = from_row(row)
                if record.kind == existing.kind:
                    _check(existing, record, name)
                return project(existing, self._clock.now())

    async def join(self, fresh: Record, awaiter: str, name: str) -> Record:
        """Create shared work, or register as one who waits for it; returns what stands, settled or not.

        Raises Conflict for other work under the same id.
        """
        while True:
            refused = await self._writer.write([(None, fresh)])
            if refused is None:
                return fresh
            row = refused.found.get(fresh.id)
            if row is None:
                continue
            existing = from_row(row)
            _check(existing, fresh, name)
            shown = project(existing, self._clock.now())
            if shown.state is not State.PENDING or awaiter in existing.callbacks:
                return shown
            changed = existing._replace(callbacks=(*existing.callbacks, awaiter))
            if await self._writer.write([(existing, changed)]) is None:
                return changed

    async def cancel(self, id: str, fence: Fence) -> None:
        """Settle a promise as cancelled unless it is settled, and ask its own children to cancel. Raises LeaseLost."""
        for _ in range(8):
            row = (await self._store.load([id])).get(id)
            if row is None:
                return
            record = from_row(row)
            now = self._clock.now()
            shown = project(record, now)
            if shown.state is State.PENDING:
                shown = settled(record, State.CANCELED, EMPTY, now)._replace(callbacks=())
                refused = await self._writer.write([(record, shown)], fence=fence)
                if refused is not None:
                    if refused.fenced:
                        raise LeaseLost(fence.id)
                    continue
            await self._service.cancel_branch(shown)
            return


def _check(existing: Record, fresh: Record, name: str) -> None:
    """Raise Conflict where what stands under an id is other work, called `name`, or something else altogether."""
    digest = fresh.tags.get(WORK)
    if digest is not None:
        check_same(existing, Work(name, fresh.param, digest, "", None), within=True)
    elif existing.task is not None:
        raise Conflict(f"{existing.id!r} is a run, and no promise that waits to be settled; choose another id")
