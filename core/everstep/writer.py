"""Arm the deadline, commit, disarm the old one, send (rule W2).

A committed state whose wake-up was never armed is the one state nothing repairs, so arming comes first; a message must
be a consequence of committed state, so sending comes last. A wake-up armed for a commit that did not happen finds
nothing to do, so it is harmless, and taken back where it can be.

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
from .promise import Record, Row, Schedule, due_at, schedule_row, to_row

ARMED = "+"
"""A wake-up is armed, and the waker gave no token by which to take it back."""

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
        disarm: list[str] = []

        for wake in wakes:
            if by_row:
                rung.append((wake, now))
            else:
                armed.append((wake, soon, await self.waker.arm(wake, soon)))
        for old, new in changes:
            rev = old.rev if old is not None else 0
            token = old.wake if old is not None else None
            row = _row(new)
            due = row.due
            if due is None:
                if token is not None:
                    disarm.append(token)
                    token = None
            elif row.id in covered:
                if token is not None and hand:
                    disarm.append(token)
                token = None
            elif due != _due(old) or (token is None and not by_row):
                wake = Wake(row.id, version_of(new))
                if by_row:
                    rung.append((wake, due))
                else:
                    at = due if due > now else soon
                    before, made = token, await self.waker.arm(wake, at)
                    token = made if made is not None else ARMED
                    armed.append((wake, at, made))
                    if before is not None and before != token:
                        disarm.append(before)
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
            for _, _, made in armed:
                # A waker that names its alarms by their id hands out the token that stands already: keep that one.
                if made is not None and all(old is None or made != old.wake for old, _ in changes):
                    await self.disarm(made)
            return refused
        for gone in disarm:
            if gone != hand:
                await self.disarm(gone)
        if rung:
            await self._ring(rung)
        elif armed:
            now = self.clock.now()
            for wake, at, _ in armed:
                if at <= now:
                    # It may have been delivered already, and have found nothing.
                    await self.waker.send(wake)
        return Written(tuple(entities))

    async def disarm(self, token: str) -> None:
        """Take a wake-up back. One that stays nevertheless finds nothing to do."""
        if token == ARMED:
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
