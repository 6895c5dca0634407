"""Deliveries: what a wake-up means for a task, and who may act on it.

A delivery carries an id and a version, never a value. Early, late, duplicate and reordered deliveries are harmless: the
record decides. The answer says whether the message is done with, or when it must come back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .clock import NEVER, Clock
from .errors import DecodeError, LeaseLost, StoreCorrupted
from .ids import origin_of
from .invocation import Invocation
from .journal import Journal, read, read_arrivals
from .kernel import internal
from .lifecycle import halt, put_off
from .ports import Beside, Claim, Commit, Store, Wake, Waker, resumer
from .promise import (
    TARGET,
    Record,
    State,
    Task,
    TaskState,
    group_of,
    is_ours,
    leaves,
    member_of,
    project,
    satisfied,
)
from .registry import App
from .roots import Roots
from .rows import Row, from_row
from .service import Service
from .steps import Threads, in_thread
from .warm import Kept, Warm

if TYPE_CHECKING:
    from .codec import Codec
    from .peers import Peers


class Done(NamedTuple):
    """The message is done with: its obligation is durable elsewhere, or void."""


class Retry(NamedTuple):
    """The same message must come back at `at` (milliseconds), or soon after."""

    at: int


Answer = Done | Retry
DONE = Done()


class Tell(Protocol):
    def __call__(self, kind: str, id: str, /, **detail: Any) -> None: ...


def _silent(kind: str, id: str, /, **detail: Any) -> None:
    return None


def lives_on(task: Task, key: str) -> bool:
    """Whether this message is what stands for the lease of a task's holder (rule W6)."""
    return bool(key) and task.pid is not None and task.pid.endswith(f"/{key}")


_ADVICE = 1_000
"""Milliseconds for which work that prefers one member of a group is left to it by the others."""

_UNKNOWN, _UNKNOWN_MOST = 5_000, 900_000
"""Milliseconds until the function of another App that is not known is looked for again: at first, and at most."""

_GRACE = 12
"""How often a message is sent back that is ahead of the store: about five minutes in all (rule W2)."""


class Driver:
    """Runs the tasks of one App against one store and one waker.

    Args:
        codec: how values become text; the App's by default.
        pid: names this holder on leases; unique to the process.
        lease: milliseconds; never shorter than the platform lets an invocation live.
        heartbeat: renew the lease while steps run, where nothing bounds an invocation.
        steps_per_invocation: end an invocation after so many checkpoints; None: when the body waits.
        remaining: milliseconds the platform still gives this invocation; None where there is no limit.
        margin: milliseconds to keep for letting go.
        moment: milliseconds that are waited through rather than suspended for.
        cache: how many suspended bodies are kept warm.
        fold_after: by how many deliveries history must have grown to be folded, when a run is put down; while it is
            short, an eighth of that where the fold goes with the write that puts the run down.
        use_threads: run blocking steps beside the loop: "never", "auto" (when others run too) or "always".
        member: which member of its group this is, for targets that prefer one; None takes everything.
        dead: tells of a holder's pid that it is certainly dead.
        peers: calls the functions of other Apps, where each has a queue of its own.
        tell: is told of what happens, for people and tests.
        tells_steps: whether it wants to hear of each step and each delivery.
    """

    def __init__(
        self,
        app: App,
        store: Store,
        waker: Waker,
        clock: Clock,
        *,
        service: Service | None = None,
        codec: Codec | None = None,
        pid: str = "driver",
        lease: int = 60_000,
        heartbeat: bool = False,
        steps_per_invocation: int | None = None,
        remaining: Callable[[], int] | None = None,
        margin: int = 2_000,
        moment: int = 0,
        cache: int = 64,
        fold_after: int = 512,
        use_threads: str = "never",
        member: str | None = None,
        dead: Callable[[str], bool] | None = None,
        peers: Peers | None = None,
        tell: Tell | None = None,
        tells_steps: bool = True,
    ) -> None:
        self.app = app
        self.store = store
        self.waker = waker
        self.clock = clock
        self.service = service if service is not None else Service(store, waker, clock)
        self.writer = self.service.writer
        self.resumer = resumer(store)
        self._codec = codec
        self.pid = pid
        self.lease = lease
        self.heartbeat = heartbeat
        self.steps_per_invocation = steps_per_invocation
        self.remaining = remaining
        self.margin = margin
        self.moment = moment
        self.tell: Tell = tell if tell is not None else _silent
        self.tells_steps = tell is not None and tells_steps
        self.fold_after = fold_after
        self._use_threads = use_threads
        self._member = member
        self._dead = dead
        self._peers = peers
        self.roots = Roots(self.service)
        self.warm = Warm(cache)

    origin_of = staticmethod(origin_of)

    @property
    def codec(self) -> Codec:
        return self._codec if self._codec is not None else self.app.codec

    def mine(self, record: Record) -> bool:
        """Whether a task is addressed to this App's group."""
        target = record.tags.get(TARGET)
        return target is not None and group_of(target) in (self.app.target, "everstep://")

    def prefers_another(self, record: Record) -> bool:
        """Whether a task is addressed to another member of this group."""
        wanted = member_of(record.tags.get(TARGET, ""))
        return self._member is not None and wanted not in ("", self._member)

    def out_of_time(self) -> bool:
        return self.remaining is not None and self.remaining() <= self.margin

    def threads(self, *, alone: bool) -> Threads | None:
        if self._use_threads == "always" or (self._use_threads == "auto" and not alone):
            return in_thread
        return None

    async def deliver(self, wake: Wake, *, held: bool = False, key: str = "", attempt: int = 1) -> Answer:
        """Act on a delivery.

        Args:
            held: the platform delivers this message again unless it is acknowledged, a lease from now or later, so that
                it stands for a lease taken until then.
            key: identifies the message where the platform does, by the waker's token where there is one; a duplicate of
                the message a holder lives on must not be acknowledged (rule W6).
            attempt: which delivery of this message it is, from 1, where the platform counts.

        Raises:
            PlatformError: the store or the waker is in trouble; the message must come back.
        """
        holder = f"{self.pid}/{key}" if key else self.pid
        until = self.clock.now() + self.lease if held else 0
        for _ in range(4):
            kept = self.warm.take(wake.id)
            try:
                answer = await self._deliver(wake, kept, until, key, holder, attempt)
            finally:
                if kept is not None and not kept.taken and not self.warm.holds(wake.id, kept):
                    kept.body.drop()
            if answer is not None:
                return answer
        return Retry(self.clock.now() + 1000)

    async def _deliver(
        self, wake: Wake, kept: Kept | None, until: int, key: str, holder: str, attempt: int
    ) -> Answer | None:
        id = wake.id
        since = self.clock.now()
        if self.resumer is not None:
            claim = Claim(self.app.target, holder, self.lease, since)
            beside = Beside(kept.version, kept.awaited) if kept is not None else None
            rows, inbox = await self.resumer.resume(id, claim, beside)
            if inbox is not None:
                return await self._claimed(rows, inbox, claim, kept, until)
            if kept is not None and not _at_version(rows, kept.version):
                kept = None  # somebody else went on with the run: these are its records
        else:
            rows = list((await self.store.load([id, *kept.awaited])).values()) if kept else await self.store.branch(id)
        row = next((row for row in rows if row.id == id), None)
        now = self.clock.now()
        if row is None:
            return self._not_yet(now, attempt)
        if row.task is None:
            return await self._fire(wake, row, now)
        record = from_row(row)
        task = record.task
        assert task is not None
        loaded = rows
        rows = _of_branch(id, rows) if task.foreign else rows
        if project(record, now).state is not State.PENDING:
            return await self._fire(wake, row, now)
        if not self.mine(record):
            return await self._not_mine(wake, row, record.tags.get(TARGET, ""), attempt, now)
        if wake.version > task.version:
            return self._not_yet(now, attempt)
        if kept is not None and not kept.fits(task):
            return None  # somebody else went on with the run: once more, from its records
        match task.state:
            case TaskState.HALTED | TaskState.FULFILLED:
                return DONE
            case TaskState.ACQUIRED if task.expires_at is not None and task.expires_at > since:
                # Until its end, or his, the holder may have written what was not there yet when this was read (P2).
                if not self._is_dead(task.pid):
                    if task.expires_at <= now:
                        return None
                    return Retry(task.expires_at) if lives_on(task, key) else self._early(wake, row, task.version)
                rows = await self.store.branch(id)
                if not any(other.id == id and other.rev == row.rev for other in rows):
                    return None
            case TaskState.PENDING if task.retry_at is not None and task.retry_at > now:
                return self._early(wake, row, task.version)
            case TaskState.PENDING if self.prefers_another(record) and now < (row.due or now) + _ADVICE:
                return DONE if self.waker.by_row else Retry((row.due or now) + _ADVICE)
            case TaskState.SUSPENDED:
                foreign = await self._foreign(record, loaded, now)
                states = self._states(record, rows, foreign, now)
                if task.tree is not None and not satisfied(task.tree, lambda id: states.get(id, State.PENDING)):
                    if kept is not None:
                        self.warm.put_back(id, kept)
                    if task.poll_at is not None and task.poll_at <= now:
                        return await self._poll_later(record, states, now)
                    left = internal.left_to_timers(record, states)
                    if left is not None:
                        return DONE if await self.writer.write([(record, left)]) is None else None
                    if attempt == 1 and wake.version == task.version and not self.waker.by_row:
                        return Retry(now + self.writer.settle_delay)  # perhaps it is ahead of its commit (W3)
                    return self._early(wake, row, task.version)
                if kept is not None:
                    kept.arrived = foreign
            case _:
                pass
        try:
            if kept is not None:
                journal = await self._arrivals(kept, record, rows, now)
            else:
                journal = await read(record, rows, self.codec, now)
        except DecodeError as error:
            return await self._put_off(record, f"DecodeError: {error}", now)
        if journal.stale:
            await self.forget(origin_of(id), journal.stale)
        invocation = Invocation(self, record, journal, kept, held_until=until, holder=holder)
        expired = task.state is TaskState.ACQUIRED and self._is_dead(task.pid)
        if not await invocation.acquire(expired=expired):
            return None
        return await self._run(invocation, kept)

    async def _claimed(
        self, rows: list[Row], inbox: tuple[str, ...], claim: Claim, kept: Kept | None, until: int
    ) -> Answer | None:
        """Go on with a task that the store has acquired: what stands now follows from what stood before."""
        from .resuming import taken  # only where a store resumes by itself

        before = from_row(rows[0])
        acquired = taken(before, inbox, claim)
        if acquired is None or before.task is None:
            raise StoreCorrupted(f"{before.id}: claimed though it cannot be acquired")
        acquired = acquired._replace(rev=before.rev + 1)
        if kept is not None and not kept.fits(before.task):
            kept = None
        foreign = await self._foreign(before, rows, claim.now)
        rows = _of_branch(before.id, rows) if before.task.foreign else rows
        try:
            if kept is not None:
                kept.arrived = foreign
                journal = await self._arrivals(kept, before, rows, claim.now)
            else:
                journal = await read(before, rows, self.codec, claim.now)
        except DecodeError as error:
            return await self._put_off(acquired, f"DecodeError: {error}", self.clock.now())
        if journal.stale:
            await self.forget(origin_of(before.id), journal.stale)
        invocation = Invocation(
            self, acquired, journal, kept, held_until=until, holder=claim.holder, armed=before.task.timers
        )
        return await self._run(invocation, kept, adopt=True)

    async def _arrivals(self, kept: Kept, record: Record, rows: Sequence[Row], now: int) -> Journal:
        return await read_arrivals(
            record, rows, kept.known, kept.body.delivered, kept.revs, kept.loose, self.codec, now, kept.gone
        )

    async def _run(self, invocation: Invocation, kept: Kept | None, *, adopt: bool = False) -> Answer | None:
        if kept is not None:
            kept.taken = True
        try:
            if adopt:
                await invocation.adopt()
            await invocation.run()
        except LeaseLost:
            self.tell("lost", invocation.id)
            invocation.drop()
            return None  # to its own deadline, perhaps, and then this message is all that stands for it (W1)
        except BaseException:
            invocation.drop()
            raise
        return DONE

    async def _put_off(self, record: Record, reason: str, now: int) -> Answer | None:
        """A record that cannot be read here (a key is missing) fails nothing: try again later, and halt in the end."""
        deaths = record.task.deaths + 1 if record.task is not None else 1
        note = self.codec.seal(reason)
        stopping = deaths > self.app.max_deaths
        delay = min(1000 * 2**deaths, 600_000)
        changed = halt(record, now, note) if stopping else put_off(record, now, now + delay, note)
        if changed is None or await self.writer.write([(record, changed)]) is not None:
            return None
        self.tell("halted" if stopping else "put off", record.id, reason=reason)
        return DONE

    def _not_yet(self, now: int, attempt: int) -> Answer:
        """The store has not caught up with the message, or never will: its commit did not happen (W2)."""
        if self.waker.by_row or attempt > _GRACE:
            return DONE
        return Retry(now + min(1000 * 2 ** (attempt - 1), 60_000))

    async def _fire(self, wake: Wake, row: Row, now: int) -> Answer:
        if row.due is not None and row.due > now:
            return self._early(wake, row, None)
        await self.service.fire(wake)
        return DONE

    async def _not_mine(self, wake: Wake, row: Row, target: str, attempt: int, now: int) -> Answer:
        """A task of another App, or of a worker of the protocol."""
        if self.waker.by_row and is_ours(target):
            return DONE  # the App it is addressed to reads the same rows; to offer it would put it off
        if self._peers is None or not is_ours(target):
            return await self._fire(wake, row, now)
        if await self._peers.hand_on(wake, target):
            return DONE
        return Retry(now + min(_UNKNOWN << min(attempt - 1, 20), _UNKNOWN_MOST))

    def _is_dead(self, pid: str | None) -> bool:
        return pid is not None and self._dead is not None and self._dead(pid)

    def _early(self, wake: Wake, row: Row, version: int | None) -> Answer:
        """Nothing to do yet. The message that stands for the row's due instant must not be lost by coming early."""
        if row.due is None or self.waker.by_row or (version is not None and wake.version != version):
            return DONE
        return Retry(row.due)

    async def _foreign(self, record: Record, rows: Sequence[Row], now: int) -> dict[str, Record]:
        """Promises of other origins that the body waits for and that are settled, by operation (rule W5); in `rows`
        where the store has loaded them already."""
        task = record.task
        if task is None or not task.foreign:
            return {}
        wanted = {id for _, id in task.foreign}
        found = {row.id: row for row in rows if row.id in wanted}
        if len(found) < len(wanted):
            found |= await self.store.load([id for id in wanted if id not in found])
        shown = {key: project(from_row(found[id]), now) for key, id in task.foreign if id in found}
        return {key: other for key, other in shown.items() if other.state is not State.PENDING}

    def _states(
        self, record: Record, rows: Sequence[Row], foreign: Mapping[str, Record], now: int
    ) -> Mapping[str, State]:
        """How what a suspended task waits for stands now; what is not in it is pending."""
        task = record.task
        if task is None or task.tree is None:
            return {}
        wanted = set(leaves(task.tree))
        states = {key: other.state for key, other in foreign.items()}
        for row in rows:
            if row.id in wanted:
                states[row.id] = project(from_row(row), now).state
        for id, at in task.timers:
            if at <= now:
                states[id] = State.RESOLVED
        return states

    async def _poll_later(self, record: Record, states: Mapping[str, State], now: int) -> Answer:
        """A look found nothing: look again when its timers are all that is left, or later, more and more rarely, if the
        body waits for another origin (W5)."""
        task = record.task
        assert task is not None
        unlooked = record._replace(task=task._replace(poll_at=None))
        left = internal.left_to_timers(unlooked, states)
        later = left.task.poll_at if left is not None and left.task is not None else None
        if task.foreign:
            later = min(now + min(max(now - record.created_at, 60_000), 3_600_000), later or NEVER)
        await self.writer.write([(record, record._replace(task=task._replace(poll_at=later)))])
        if task.foreign:
            # Who settled it meanwhile may have found this look due, and have left the rest to it.
            await self.service.look(record.id)
        return DONE

    def cold(self) -> None:
        """Forget every body that is kept warm."""
        self.warm.clear()

    async def forget(self, origin: str, ids: Sequence[str]) -> None:
        """Delete records nobody reads any more, a bounded number to a commit."""
        for at in range(0, len(ids), 90):
            await self.store.commit(Commit(origin, (), tuple(ids[at : at + 90])))


def _at_version(rows: Sequence[Row], version: int) -> bool:
    """Whether the task in the first row has this version, so that only what is beside it was loaded."""
    task = from_row(rows[0]).task if rows else None
    return task is not None and task.version == version


def _of_branch(id: str, rows: Sequence[Row]) -> list[Row]:
    """A task's rows, without those that it waits for in other origins."""
    return [row for row in rows if row.id == id or row.branch == id]
