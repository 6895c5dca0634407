"""Requests carried out: load, decide, arm, commit, disarm, send; decided anew when somebody else wrote first.

The kernel decides and the writer writes; what is added here is who must be told. A settled promise keeps its awaiters
and listeners until each has been told in a durable way (rule W3): the awaiter's record changed, or a message armed
before the commit that settled. So a word that was lost is said again by whoever comes by next: a repeated settle, a
delivery, a sweep.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from .clock import NEVER, Clock
from .errors import PlatformError, StoreUnavailable
from .ids import origin_of
from .kernel import Config, Entity, NextCron, Outcome, apply, internal, reads, schedules
from .kernel.internal import Resume
from .ports import Guard, Store, Wake, Waker
from .promise import (
    SCHEDULE_PREFIX,
    Kind,
    Record,
    Schedule,
    State,
    TaskState,
    due_at,
    leaves,
    project,
    ready_at,
    satisfied,
)
from .protocol import (
    Message,
    PromiseSearch,
    PromiseSettle,
    Reply,
    Request,
    ScheduleSearch,
    Search,
    TaskFence,
    TaskSearch,
)
from .rows import from_row, schedule_from
from .search import search
from .writer import Change, Writer

Deliver = Callable[[Message], Awaitable[None]]
"""Hands a message to its address. Raises PlatformError only when it is to be tried again."""

_TOLD_AT_ONCE = 40
_NO_MESSAGE = "-"
"""No delivery stands behind a request, so no alarm is spared when it is replaced."""
_FIRST_LOOK = 4
_POLL_FIRST = 60_000
_POLL_LAST = 3_600_000
_CANCELLED_WITH_IT = (Kind.TIMER, Kind.PROMISE, Kind.RPC, Kind.CHILD, Kind.ROOT)


def _default_cron(cron: str, after: int) -> int:
    from .cron import next_cron

    return next_cron(cron, after)


class Service:
    """The protocol's server over one store and one waker.

    Args:
        next_cron: the calendar; by default the `cronsim` library, loaded when it is first needed.
        deliver: where messages to workers and listeners elsewhere go. Without it an execute is dropped, for it is
            offered again anyway; and where the store's own rows are the alarm clock, what is owed to listeners is left
            to whoever serves the store.
    """

    def __init__(
        self,
        store: Store,
        waker: Waker,
        clock: Clock,
        *,
        next_cron: NextCron = _default_cron,
        config: Config | None = None,
        deliver: Deliver | None = None,
    ) -> None:
        self.store = store
        self.waker = waker
        self.clock = clock
        self.config = config if config is not None else Config()
        self.writer = Writer(store, waker, clock, settle_delay=self.config.settle_delay)
        self._next_cron = next_cron
        self.deliver = deliver

    async def perform(self, request: Request) -> Reply:
        """Carry out a request of the protocol.

        Raises:
            StoreError, WakerError: of the ports; the request may or may not have been carried out, and can be repeated.
            StoreUnavailable: others wrote the same records first, again and again.
        """
        if isinstance(request, PromiseSearch | TaskSearch | ScheduleSearch):
            return await self._search(request)
        for _ in range(self.config.attempts):
            now = self.clock.now()
            records = await self.load(reads(request))
            outcome = apply(request, records, now, self._next_cron)
            if not (outcome.puts or outcome.deletes):
                for id in outcome.drain:
                    await self.drain(id, asked=True)
            elif not await self._commit(outcome, records, _home(request)):
                continue
            if isinstance(request, PromiseSettle) and request.state is State.CANCELED:
                await self.cancel_branch(outcome.reply.promise)
            return await self._with_preload(outcome, now)
        raise _contended(_home(request))

    async def load(self, ids: Sequence[str]) -> dict[str, Entity]:
        """The records and schedules of these row ids that exist."""
        if not ids:
            return {}
        rows = await self.store.load(ids)
        return {id: schedule_from(row) if row.kind == Kind.SCHEDULE else from_row(row) for id, row in rows.items()}

    async def _record(self, id: str) -> Record | None:
        found = (await self.load([id])).get(id)
        return found if isinstance(found, Record) else None

    async def _search(self, request: Search) -> Reply:
        return await search(self.store, request, self.clock.now())

    async def _with_preload(self, outcome: Outcome, now: int) -> Reply:
        if outcome.branch is None:
            return outcome.reply
        branch, own = outcome.branch
        rows = await self.store.branch(branch)
        found = [
            project(from_row(row), now)
            for row in rows
            if row.branch == branch and row.id != own and row.kind != Kind.FOLD
        ]
        return outcome.reply._replace(preload=tuple(sorted(found, key=lambda record: record.id)))

    async def _commit(self, outcome: Outcome, records: dict[str, Entity], home: str) -> bool:
        """Commit a decision, the origin of the request last; False when somebody else wrote first.

        What is written in other origins (callbacks, other leases) is harmless if the rest is refused: it is written
        again, or is found to be there.
        """
        origins: dict[str, list[Change]] = {}
        for entity in outcome.puts:
            id = _row_id(entity)
            origins.setdefault(origin_of(id), []).append((records.get(id), entity))
        last = origin_of(home)
        for origin, changes in origins.items():
            if origin != last and await self.writer.write(changes) is not None:
                return False
        fence = outcome.fence
        wakes: tuple[Wake, ...] = ()
        covered: tuple[str, ...] = ()
        if outcome.drain:
            if self.waker.by_row:
                covered = outcome.drain
            else:
                wakes, covered = await self._ahead(outcome)
        if last in origins or outcome.deletes or fence is not None:
            refused = await self.writer.write(
                origins.get(last, ()),
                fence=fence,
                deletes=outcome.deletes,
                guards=tuple([Guard(id, records[id].rev) for id in outcome.deletes]),
                covered=covered,
                wakes=wakes,
                hand=_NO_MESSAGE,
            )
            if refused is not None:
                return False
        if self.waker.by_row:
            for id in outcome.drain:
                try:
                    await self.drain(id, asked=True)
                except PlatformError:
                    pass  # it is settled, and its row is due until it is drained
        return True

    async def _ahead(self, outcome: Outcome) -> tuple[tuple[Wake, ...], tuple[str, ...]]:
        """Wake-ups to arm before the commit that settles: to the awaiters themselves where that is all they need."""
        wakes: list[Wake] = []
        covered: list[str] = []
        for record in outcome.puts:
            if not isinstance(record, Record) or record.id not in outcome.drain:
                continue
            found = await self.load(record.callbacks)
            direct: list[Wake] = []
            enough = not record.listeners
            for awaiter in found.values():
                task = awaiter.task if isinstance(awaiter, Record) else None
                if task is None or task.state is TaskState.FULFILLED:
                    continue
                if isinstance(awaiter, Record) and internal.engine_task(awaiter):
                    direct.append(Wake(awaiter.id, task.version))
                else:
                    enough = False
            if enough:
                wakes += direct
                covered.append(record.id)
        return tuple(wakes), tuple(covered)

    async def cancel_branch(self, record: Record | None) -> None:
        """A cancelled run takes along what it waits for and asks its children to cancel (rule C5)."""
        if record is None or record.task is None or record.kind == Kind.FOREIGN or record.state is not State.CANCELED:
            return
        for row in await self.store.branch(record.id):
            if row.id != record.id and row.state == State.PENDING.value and row.kind in _CANCELLED_WITH_IT:
                await self.perform(PromiseSettle(row.id, State.CANCELED))

    async def drain(self, id: str, *, asked: bool = False) -> None:
        """Tell everybody who waits for a settled promise, and forget them once that is durable.

        Args:
            asked: by a request, which may come from a process that delivers nothing; its row stays due for one that
                does.

        Raises:
            StoreError, WakerError: of the ports, and of the delivery of a message; whoever was not told is still kept.
        """
        told: set[str] = set()
        failures = 0
        while failures < self.config.attempts:
            now = self.clock.now()
            record = await self._record(id)
            if record is None:
                return
            shown = project(record, now)
            if shown.pending or not (shown.callbacks or shown.listeners):
                return
            if asked and shown.listeners and self.deliver is None and self.waker.by_row:
                return
            callbacks = shown.callbacks[:_TOLD_AT_ONCE]
            listeners = shown.listeners[:_TOLD_AT_ONCE]
            awaiters = await self._awaiters(callbacks, shown, now)
            if awaiters is None:
                failures += 1
                continue
            for notice in internal.notices(shown._replace(listeners=listeners)):
                if notice.address not in told:
                    await self._send(notice)
                    told.add(notice.address)
            left = internal.drained(shown, callbacks, listeners)
            if await self.writer.write([(record, left), *awaiters]) is not None:
                failures += 1
            elif not (left.callbacks or left.listeners):
                return
        raise _contended(id)

    async def _send(self, message: Message) -> None:
        if self.deliver is not None:
            await self.deliver(message)

    async def _awaiters(self, ids: Sequence[str], settled: Record, now: int) -> list[Change] | None:
        """Resume the awaiters of other origins; returns the changes to those of this one, None if one was refused."""
        found = await self.load(ids)
        here: list[Change] = []
        for id in ids:
            awaiter = found.get(id)
            if not isinstance(awaiter, Record):
                continue
            states = await self._awaited(awaiter, settled, now)
            resumed = internal.resume(awaiter, settled.id, now, states, nudge=True)
            if resumed.record is None:
                continue
            if origin_of(id) == origin_of(settled.id):
                here.append((awaiter, resumed.record))
            elif await self.writer.write([(awaiter, resumed.record)]) is not None:
                return None
        return here

    async def _awaited(self, awaiter: Record, settled: Record | None, now: int) -> dict[str, State]:
        """The states of as many leaves of an awaiter's tree as it takes to tell whether it is satisfied.

        Its neighbours are looked at first: whichever way a fan-in fills up, one next to what has just settled is likely
        to be pending still. One such is enough: were another rejected, that would have told the awaiter itself.
        """
        task = awaiter.task
        if task is None or task.state is not TaskState.SUSPENDED or task.tree is None:
            return {}
        tree = task.tree
        foreign = dict(task.foreign)
        timers = dict(task.timers)
        states = {key: State.RESOLVED for key, at in timers.items() if at <= now}
        unknown: list[str] = []
        here = 0
        for key in leaves(tree):
            if settled is not None and foreign.get(key, key) == settled.id:
                states[key] = settled.state
                here = len(unknown)
            elif key not in timers:
                unknown.append(key)
        unknown = [key for _, key in sorted(enumerate(unknown), key=lambda item: abs(item[0] - here + 0.5))]
        best = State.REJECTED if settled is None or settled.state is not State.RESOLVED else State.RESOLVED
        due = due_at(awaiter) or NEVER

        def hoped(key: str) -> State:
            return states.get(key, State.PENDING if key in timers else best)

        size = _FIRST_LOOK
        while unknown:
            if satisfied(tree, lambda key: states.get(key, State.PENDING)):
                break
            if not satisfied(tree, hoped) and ready_at(tree, timers, hoped) >= due:
                break  # nor could its timers satisfy it before somebody looks anyway
            chunk, unknown = unknown[:size], unknown[size:]
            size *= 4
            found = await self.load(list(dict.fromkeys(foreign.get(key, key) for key in chunk)))
            for key in chunk:
                record = found.get(foreign.get(key, key))
                states[key] = project(record, now).state if isinstance(record, Record) else State.PENDING
        return states

    async def fire(self, wake: Wake) -> None:
        """Do what is due for a record that no driver here runs: deadlines, undrained promises, ticks, dispatch.

        Returns when nothing is due any more for that id, whatever the wake-up was once armed for.

        Raises:
            StoreError, WakerError: of the ports; the wake-up must come back.
        """
        if wake.id.startswith(SCHEDULE_PREFIX):
            await self._tick(wake.id)
            return
        for _ in range(self.config.attempts):
            now = self.clock.now()
            record = await self._record(wake.id)
            if record is None:
                return
            overdue = internal.time_out(record, now)
            if overdue is not None:
                if await self.writer.write([(record, overdue)], covered=(record.id,)) is not None:
                    continue
                record = overdue
            if not record.pending:
                await self.drain(record.id)
                return
            task = record.task
            if task is None:
                return
            if task.state is TaskState.SUSPENDED:
                changed = await self._look(record, now)
                if changed is None:
                    return
                going = changed.task is not None and changed.task.state is TaskState.PENDING
                refused = await self.writer.write([(record, changed)], covered=(record.id,) if going else ())
                if refused is None and not going:
                    await self.look(record.id)  # who settled it meanwhile may have left the rest to this look
                    return
                continue
            freed = internal.expire_lease(record, now)
            if freed is not None:
                await self.writer.write([(record, freed)], covered=(record.id,))
                continue
            offered = internal.dispatch(record, now, self.config.retry_timeout)
            if offered is None:
                return
            again, execute = offered
            if await self.writer.write([(record, again)]) is None:
                await self._send(execute)
                return
        raise _contended(wake.id)

    async def _look(self, record: Record, now: int) -> Record | None:
        """A suspended task whose look at its await tree is due: pending if satisfied, else due later or not at all."""
        task = record.task
        due = due_at(record)
        if task is None or task.tree is None or due is None or due > now:
            return None
        states = await self._awaited(record, None, now)
        resumed = internal.resume(record._replace(task=task._replace(poll_at=None)), None, now, states)
        if resumed.outcome is Resume.RESUMED:
            return resumed.record
        changed = resumed.record if resumed.record is not None else record._replace(task=task._replace(poll_at=None))
        if changed.task is None or not task.foreign:
            return changed
        later = now + min(max(now - record.created_at, _POLL_FIRST), _POLL_LAST)
        return changed._replace(task=changed.task._replace(poll_at=min(later, changed.task.poll_at or NEVER)))

    async def look(self, id: str) -> None:
        """Make a run that has just suspended due at once, if what it waits for is settled already (rules W4, W5).

        A promise of another origin may settle, and forget who waits for it, while its awaiter is still running.

        Raises:
            StoreError, WakerError: of the ports.
        """
        for _ in range(self.config.attempts):
            now = self.clock.now()
            record = await self._record(id)
            if record is None or record.task is None or record.task.state is not TaskState.SUSPENDED:
                return
            states = await self._awaited(record, None, now)
            nudged = internal.resume(record, None, now, states, nudge=True).record
            if nudged is None or await self.writer.write([(record, nudged)]) is None:
                return
        raise _contended(id)

    async def _tick(self, row_id: str) -> None:
        """Fire the ticks of a schedule that are due, a batch to a step: created first, then the schedule moves on."""
        failures = 0
        while failures < self.config.attempts:
            now = self.clock.now()
            schedule = (await self.load([row_id])).get(row_id)
            if not isinstance(schedule, Schedule):
                return
            fired = schedules.fire(schedule, now, self._next_cron, self.config.batch)
            if fired is None:
                return
            for tick in fired.ticks:
                await self.writer.write([(None, tick)])  # refused: it exists already, from a step that was cut short
            more = fired.schedule.next_run_at <= now
            if await self.writer.write([(schedule, fired.schedule)], covered=(row_id,) if more else ()) is not None:
                failures += 1
        raise _contended(row_id)


def _row_id(entity: Entity) -> str:
    return entity.id if isinstance(entity, Record) else schedules.row_id(entity.id)


def _home(request: Request) -> str:
    """The row whose origin a request is about."""
    ids = reads(request)
    match request:
        case TaskFence():
            return request.action.id
        case _:
            return ids[0] if ids else ""


def _contended(id: str) -> StoreUnavailable:
    return StoreUnavailable(f"{id!r} is written by others all the time; try again later")
