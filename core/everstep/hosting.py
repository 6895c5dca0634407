"""An App on a platform that calls: wake-ups and events come in, invocations run, answers go out.

What every platform's handler needs and none should write twice. A handler tells the platform's calls apart, checks who
calls, and hands over; here nothing knows which platform that is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from .driver import DONE, Answer, Driver, Retry, Tell, lives_on
from .errors import AlreadySettled, NotFound
from .events import Event, dispatch
from .ports import Wake, Waker
from .promise import State, TaskState, project
from .rows import from_row
from .service import Deliver

if TYPE_CHECKING:
    from .client import Client
    from .http.application import Application
    from .peers import Peers
    from .registry import App
    from .views import SweepReport

_remaining: ContextVar[Callable[[], int] | None] = ContextVar("everstep_remaining", default=None)
_FAR = 2**53


def _push(client: Client) -> Deliver:
    """Nobody's connection is held where the platform calls, and nothing goes on when a call is over."""
    from .http.messages import Messenger

    return Messenger(clock=client.clock)


class Host:
    """Runs the tasks of one App for a platform that calls; one for each instance of the function, kept between calls.

    Args:
        client: of the store and the waker.
        pid: names this instance on leases; unique.
        lease: milliseconds; never shorter than the platform lets an invocation live.
        bounded: whether the platform ends an invocation; then each delivery says how much time remains.
        margin: milliseconds to keep for letting go; never more than a quarter of what an invocation is given.
        steps_per_invocation: end an invocation after so many checkpoints; None: when the body waits.
        moment: milliseconds that are waited through rather than suspended for.
        cache: how many suspended bodies are kept warm.
        tell: is told of what happens: `acquired`, `replayed`, `step`, `failed`, `suspended`, `settled`, `halted`, ...
        tells_steps: whether it wants to hear of each step.
        messages: how workers and listeners that are no Apps of ours get their messages; by default they are pushed.
        dead: tells of a holder's pid that it is certainly dead, where the platform lets one know.
        peers: what calls the functions of other Apps on the same store, by the App's name.
    """

    def __init__(
        self,
        app: App,
        client: Client,
        *,
        pid: str,
        lease: int,
        bounded: bool = True,
        margin: int = 2_000,
        steps_per_invocation: int | None = None,
        moment: int = 0,
        cache: int = 64,
        tell: Tell | None = None,
        tells_steps: bool = False,
        messages: Deliver | None = None,
        dead: Callable[[str], bool] | None = None,
        peers: Mapping[str, Waker] | None = None,
    ) -> None:
        self.app = app
        self.client = client
        if messages is not None or client.service.deliver is None:
            client.service.deliver = messages if messages is not None else _push(client)
        self.driver = Driver(
            app,
            client.store,
            client.waker,
            client.clock,
            service=client.service,
            codec=client.codec,
            pid=pid,
            lease=lease,
            steps_per_invocation=steps_per_invocation,
            remaining=_time_left if bounded else None,
            margin=margin,
            moment=moment,
            cache=cache,
            tell=tell,
            tells_steps=tells_steps,
            dead=dead,
            peers=_peers(client, peers or {}),
        )

    async def deliver(
        self,
        wake: Wake,
        *,
        held: bool = False,
        key: str = "",
        attempt: int = 1,
        remaining: Callable[[], int] | None = None,
    ) -> Answer:
        """Act on a wake-up; `Driver.deliver` documents the arguments and the answer.

        Args:
            remaining: milliseconds that the platform still gives this invocation.

        Raises:
            PlatformError: the store or the waker is in trouble; the message must come back.
        """
        token = _remaining.set(self._usable(remaining) if remaining is not None else None)
        try:
            return await self.driver.deliver(wake, held=held, key=key, attempt=attempt)
        finally:
            _remaining.reset(token)

    def _usable(self, remaining: Callable[[], int]) -> Callable[[], int]:
        """What remains as the driver is to see it: where time is short, so is the margin, or nothing would ever run."""
        spare = max(0, self.driver.margin - remaining() // 4)
        return lambda: remaining() + spare

    async def dispatch(self, event: Event) -> list[str]:
        """Start what an event starts; durable when this returns, and the same event again changes nothing.

        Returns:
            The ids of the runs; none where no trigger wants the event.

        Raises:
            EventRefused: it can never start the workflow that wants it.
            PlatformError: the store or the waker is in trouble; the event must come back.
        """
        return await dispatch(self.client, self.app, event)

    async def exhausted(self, wake: Wake, reason: str, key: str = "") -> Answer:
        """Take a wake-up that the platform gave up delivering: its run is halted, visibly, and never lost (rule W9).

        A run that went on since is left alone; one that is held is looked at again when its lease ends. One whose last
        holder lived on this very message has nothing else that would wake it, however far it had come.

        Args:
            key: identifies the message, as for `deliver`.

        Raises:
            PlatformError: the store is in trouble; the message must come back.
        """
        row = (await self.client.store.load([wake.id])).get(wake.id)
        if row is None or row.task is None:
            return DONE
        record, now = from_row(row), self.client.clock.now()
        task = record.task
        assert task is not None
        if project(record, now).state is not State.PENDING:
            return DONE
        if task.version > wake.version and not (task.state is TaskState.ACQUIRED and lives_on(task, key)):
            return DONE
        if task.state is TaskState.ACQUIRED and task.expires_at is not None and task.expires_at > now:
            return Retry(task.expires_at)
        if task.state is not TaskState.HALTED:
            try:
                await self.client.halt(wake.id, reason)
            except (AlreadySettled, NotFound):
                return DONE
        return DONE

    async def sweep(self) -> SweepReport:
        """The belt to the braces: fire what is overdue, remove what is past its retention (rules W10, T1)."""
        return await self.client.sweep()

    def asgi(self, **options: Any) -> Application:
        """The HTTP app on this client; `everstep.http.asgi` documents the options."""
        from .http import asgi

        return asgi(self.client, self.app, **options)

    def cold(self) -> None:
        """Forget every body that is kept warm."""
        self.driver.cold()


def _time_left() -> int:
    remaining = _remaining.get()
    return remaining() if remaining is not None else _FAR


def _peers(client: Client, wakers: Mapping[str, Waker]) -> Peers | None:
    """Nothing is handed on where every App finds what is due for it."""
    if client.waker.by_row:
        return None
    from .peers import Peers

    return Peers(wakers)
