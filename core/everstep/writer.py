"""Arm the deadline, commit, disarm the old one, send (rule W2).

A committed state whose wake-up was never armed is the one state nothing repairs, so arming comes first; a message must
be a consequence of committed state, so sending comes last. A wake-up armed for a commit that did not happen finds
nothing to do, so it is harmless, and taken back where that is worth a request.

A record says in `wake` whether a wake-up of its own stands for its due instant: a waker's token, or ARMED where the
waker gives none. That it is due says nothing: the message that a holder lives on may have stood for that instant, and
it goes with the holder.

Where the waker reads the store's `due` column (`by_row`), the commit itself is the arming; what follows only shortens
the wait, and its failure is nobody's loss.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from .clock import Clock
from .errors import WakerError
from .ids import origin_of
from .ports import Commit, Fence, Guard, Put, Refused, Store, Wake, Waker
from .promise import Record, Schedule, due_at
from .rows import Row, schedule_row, to_row

ARMED = "+"
"""A wake-up is armed, and the waker gave no token by which to take it back."""

_NEAR = 60_000
"""Milliseconds: a wake-up that comes soon is not taken back. It costs less to let it come; and it may be in somebody's
hand by now, who acquired the task with it and lives on its coming again."""

Entity = Record | Schedule
Change = tuple[Entity | None, Entity]
"""What stood before (None: nothing) and what is to stand now. The new one's `rev` and `wake` are set by the writer."""


class Written(NamedTuple):
    """A commit that happened: what stands now, in the order of the changes."""

    entities: tuple[Entity, ...]


class Writer:
    """Writes sets of records of one origin, and keeps their wake-ups in step with them.

    Args:
        settle_delay: milliseconds by which a wake-up that is due at once is delayed when it is armed ahead of its
            commit (rule W3): long enough for the commit to be there when it is delivered.
    """

    def __init__(self, store: Store, waker: Waker, clock: Clock, *, settle_delay: int = 1000) -> None:
        self.store = store
        self.waker = waker
        self.clock = clock
        self.settle_delay = settle_delay

    async def write(
        self,
        changes: Sequence[Change],
        *,
        fence: Fence | None = None,
        guards: tuple[Guard, ...] = (),
        deletes: tuple[str, ...] = (),
        covered: Collection[str] = (),
        wakes: Sequence[Wake] = (),
        hand: str = "",
    ) -> Refused | None:
        """`commit`, for callers that do not need the records as they now stand."""
        answer = await self.commit(
            changes, fence=fence, guards=guards, deletes=deletes, covered=covered, wakes=wakes, hand=hand
        )
        return answer if isinstance(answer, Refused) else None

    async def commit(
        self,
        changes: Sequence[Change],
        *,
        fence: Fence | None = None,
        guards: tuple[Guard, ...] = (),
        deletes: tuple[str, ...] = (),
        covered: Collection[str] = (),
        wakes: Sequence[Wake] = (),
        hand: str = "",
    ) -> Written | Refused:
        """Arm, commit, disarm, send. All ids are of one origin.

        Args:
            covered: ids that need no wake-up, because a message that is held comes back for them.
            hand: the token of that message, where it is known: it is not taken back. Where it is not known, no token of
                a covered record is.
            wakes: more deliveries that are to follow from this commit, whatever becomes of the records' own (rule W3).

        Raises:
            StoreError, WakerError: of the ports. After OutcomeUnknown whatever was armed stays armed.
        """
        now = self.clock.now()
        soon = now + self.settle_delay
        by_row = self.waker.by_row
        origin = ""
        puts: list[Put] = []
        entities: list[Entity] = []
        rung: list[tuple[Wake, int]] = []
        armed: list[tuple[Wake, int, str | None]] = []
        disarm: list[tuple[str, int]] = []

        for wake in wakes:
            if by_row:
                rung.append((wake, now))
            else:
                armed.append((wake, soon, await self.waker.arm(wake, soon)))
        for old, new in changes:
            rev = old.rev if old is not None else 0
            before, token = (_due(old), old.wake) if old is not None else (None, None)
            row = _row(new)
            due = row.due
            if due is None or row.id in covered:
                if token is not None and before is not None and (due is None or hand):
                    disarm.append((token, before))
                token = None
            elif due != before or (token is None and not by_row):
                wake = Wake(row.id, version_of(new))
                if by_row:
                    rung.append((wake, due))
                else:
                    at = due if due > now else soon
                    made = await self.waker.arm(wake, at)
                    armed.append((wake, at, made))
                    if token is not None and before is not None and made != token:
                        disarm.append((token, before))
                    token = made if made is not None else ARMED
            if token == new.wake:
                new = new._replace(rev=rev + 1)
                row = row._replace(rev=rev + 1)
            else:
                new = new._replace(rev=rev + 1, wake=token)
                row = _row(new)
            origin = origin or origin_of(row.id)
            puts.append(Put(row, rev))
            entities.append(new)

        refused = await self.store.commit(
            Commit(origin or origin_of(deletes[0]), tuple(puts), tuple(deletes), fence, guards)
        )
        if refused is not None:
            for _, at, made in armed:
                # A waker that names its alarms by their id hands out the token that stands already: keep that one.
                if made is not None and all(old is None or made != old.wake for old, _ in changes):
                    await self.disarm(made, at)
            return refused
        for gone, at in disarm:
            if gone != hand:
                await self.disarm(gone, at)
        if rung:
            await self._ring(rung)
        elif armed:
            now = self.clock.now()
            for wake, at, _ in armed:
                if at <= now:
                    # It may have been delivered already, and have found nothing.
                    await self.waker.send(wake)
        return Written(tuple(entities))

    async def disarm(self, token: str, at: int) -> None:
        """Take back a wake-up armed for `at` (milliseconds). One that stays nevertheless finds nothing to do."""
        if token == ARMED or at - self.clock.now() < _NEAR:
            return
        try:
            await self.waker.disarm(token)
        except WakerError:
            pass

    async def _ring(self, rung: Sequence[tuple[Wake, int]]) -> None:
        now = self.clock.now()
        try:
            for wake, at in rung:
                if at <= now:
                    await self.waker.send(wake)
                else:
                    await self.waker.arm(wake, at)
        except WakerError:
            pass  # the row is due, and is found by itself


def _row(entity: Entity) -> Row:
    return to_row(entity) if isinstance(entity, Record) else schedule_row(entity)


def _due(entity: Entity | None) -> int | None:
    if entity is None:
        return None
    return due_at(entity) if isinstance(entity, Record) else entity.next_run_at


def version_of(entity: Entity) -> int:
    """The version a wake-up for this record carries (rule W2)."""
    return entity.task.version if isinstance(entity, Record) and entity.task is not None else 0
