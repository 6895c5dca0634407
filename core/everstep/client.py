"""Starting, settling and inspecting from outside. A client decides nothing: it asks the service, or reads.

The same client works inside a function and outside one, next to a runtime and far from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from .clock import NEVER, Clock, SystemClock
from .context import check_tags
from .errors import AlreadySettled, DecodeError, Halted, InvalidArgument, NotFound, StillPending
from .ids import check_any, check_root
from .lifecycle import halt, resume_halted
from .operation import Completion, failure
from .ports import Store, Waker
from .promise import Kind, Payload, Record, State, TaskState, group_of, project
from .protocol import PromiseSettle, ScheduleCreate, ScheduleDelete, ScheduleSearch
from .registry import App, OnConflict, Seconds, Workflow, milliseconds
from .rows import from_row
from .service import Service
from .starts import Work, check_same, root_record, work_of
from .views import CostReport, PromiseView, SweepReport, TreeView, VerifyReport

if TYPE_CHECKING:
    from .codec import Codec

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Handle(Generic[T_co]):
    """A run, by its id."""

    def __init__(self, client: Client, id: str, workflow: Workflow[..., Any] | None = None) -> None:
        self.client = client
        self.id = id
        self._workflow = workflow

    async def result(self, timeout: float | None = None) -> T_co:
        """The run's result.

        Args:
            timeout: seconds to wait; None for as long as it takes.

        Raises:
            StillPending: it is not there in time.
            Halted: the run was halted; the message says why.
            Exception: what the workflow raised, under its own type where that is known here.
        """
        record = await self.client.settled_record(self.id, timeout)
        payload = await self.client.codec.internalize(record.value)
        completion = Completion(record.state, self.client.codec.decode(payload))
        if completion.state is not State.RESOLVED:
            raise failure(completion.state, completion.value, self.id)
        if self._workflow is not None:
            info = self._workflow.app.info(self._workflow)
            return info.signature.coerce_result(completion.value)  # type: ignore[no-any-return]
        return completion.value  # type: ignore[no-any-return]

    async def status(self) -> str:
        """The state of the promise: pending, resolved, rejected, rejected_canceled or rejected_timedout."""
        return (await self.view()).state

    async def view(self) -> PromiseView:
        return await self.client.get(self.id)

    def __repr__(self) -> str:
        return f"<run {self.id}>"


class Starter:
    """A client with options for the next start; every keyword of `start` goes to the workflow."""

    def __init__(self, client: Client, options: dict[str, Any]) -> None:
        self._client = client
        self._options = options

    @overload
    async def start(self, workflow: Workflow[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Handle[T]: ...
    @overload
    async def start(self, workflow: str, /, *args: Any, **kwargs: Any) -> Handle[Any]: ...
    async def start(self, workflow: Any, /, *args: Any, **kwargs: Any) -> Any:
        return await self._client._start(workflow, args, kwargs, **self._options)


class Client:
    """Starts, settles and inspects durable work in one store.

    Args:
        store, waker: the two ports.
        app: finds workflows by name, and gives the codec; not needed to start registered workflows themselves.
        clock: the machine's by default.
        codec: how values are stored; the App's by default.
    """

    def __init__(
        self,
        store: Store,
        waker: Waker,
        *,
        app: App | None = None,
        clock: Clock | None = None,
        codec: Codec | None = None,
        service: Service | None = None,
    ) -> None:
        from .cron import next_cron

        self.store = store
        self.waker = waker
        self.app = app
        self.clock: Clock = clock if clock is not None else SystemClock()
        self._codec = codec
        self.service = service if service is not None else Service(store, waker, self.clock, next_cron=next_cron)

    @classmethod
    def open(
        cls, url: str, *, app: App | None = None, codec: Codec | None = None, clock: Clock | None = None
    ) -> Client:
        """A client of the store a URL names: `sqlite:///everstep.db`, `memory:`, `dynamodb://table`, ...

        Raises:
            InvalidArgument: the URL is malformed or its extra is not installed.
            StoreError: the store is there and cannot be used.
        """
        from .stores import open_store
        from .wakers.local import LocalWaker

        store = open_store(url)
        make: Any = getattr(store, "waker", None)
        return cls(store, make() if make is not None else LocalWaker(), app=app, codec=codec, clock=clock)

    @property
    def codec(self) -> Codec:
        """How values are stored: as given here, or by the App; the store says where large payloads go."""
        if self._codec is None:
            self._codec = self._suited(self.app.own_codec if self.app is not None else None)
        return self._codec

    def _suited(self, own: Codec | None) -> Codec:
        from .codec import Codec

        suggest: Callable[[], Codec] | None = getattr(self.store, "codec", None)
        suggested = suggest() if suggest is not None else None
        if own is None:
            return suggested if suggested is not None else Codec()
        if suggested is None or own.blobs is not None or type(own) is not Codec:
            return own
        limit = min(own.limit, suggested.limit)
        return Codec(encryptor=own.encryptor, blobs=suggested.blobs, limit=limit, hard_limit=suggested.hard_limit)

    async def close(self) -> None:
        await self.store.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # Starting.

    def options(
        self,
        *,
        id: str | None = None,
        timeout: Seconds | None = None,
        tags: Mapping[str, str] | None = None,
        on_conflict: OnConflict = "raise",
        target: str | None = None,
    ) -> Starter:
        """Options for one start, fully typed: `client.options(id="o-17").start(order, "o-17", 4200)`."""
        return Starter(self, {"id": id, "timeout": timeout, "tags": tags, "on_conflict": on_conflict, "target": target})

    @overload
    async def start(self, workflow: str, /, *args: Any, id: str | None = None, **kwargs: Any) -> Handle[Any]: ...
    @overload
    async def start(
        self, workflow: Workflow[..., T], /, *args: Any, id: str | None = None, **kwargs: Any
    ) -> Handle[T]: ...
    async def start(
        self,
        workflow: Any,
        /,
        *args: Any,
        id: str | None = None,
        on_conflict: OnConflict = "raise",
        timeout: Seconds | None = None,
        tags: Mapping[str, str] | None = None,
        target: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Start a workflow; the start is durable when this returns. The same id and work again attaches.

        Args:
            workflow: registered, or the name of one.
            id: without a dot; one is made up by default.
            on_conflict: "attach" takes what exists under the id, whatever it does.
            timeout: seconds or timedelta; the workflow's by default.
            tags: for `search`.
            target: who carries it out; the workflow's App by default.

        Raises:
            Conflict: the id exists with other work.
            InvalidId, InvalidArgument, NotSerializable, PayloadTooLarge, TypeError, UnknownFunction: they name it.
        """
        return await self._start(
            workflow, args, kwargs, id=id, on_conflict=on_conflict, timeout=timeout, tags=tags, target=target
        )

    async def _start(
        self,
        workflow: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        id: str | None,
        on_conflict: OnConflict,
        timeout: Seconds | None,
        tags: Mapping[str, str] | None,
        target: str | None,
    ) -> Handle[Any]:
        if on_conflict not in ("raise", "attach"):
            raise InvalidArgument(f'on_conflict={on_conflict!r}: "raise" or "attach"')
        work, found = self._work(workflow, args, kwargs, target)
        chosen = check_root(id) if id is not None else _new_id(work.name)
        work = work._replace(param=await self.codec.externalize(work.param, chosen, "param"))
        record = root_record(
            chosen,
            work,
            self.clock.now(),
            timeout=None if timeout is None else milliseconds(timeout, "timeout"),
            tags=check_tags(tags) if tags is not None else None,
        )
        while True:
            refused = await self.service.writer.write([(None, record)])
            if refused is None:
                break
            row = refused.found.get(chosen)
            if row is not None:
                if on_conflict == "raise":
                    check_same(from_row(row), work)
                break
        return Handle(self, chosen, found)

    def _work(
        self, workflow: Any, args: tuple[Any, ...], kwargs: dict[str, Any], target: str | None
    ) -> tuple[Work, Workflow[..., Any] | None]:
        if isinstance(workflow, str):
            ours = self.app is not None and (target is None or group_of(target) == self.app.target)
            info = self.app.find(workflow) if ours and self.app is not None else None
        elif isinstance(workflow, Workflow):
            info = workflow.app.info(workflow)
        else:
            raise InvalidArgument(
                f"start takes a workflow or the name of one, not {workflow!r}; decorate it with @app.workflow"
            )
        app = info.workflow.app if info is not None and info.workflow is not None else self.app or _ANYBODY
        if info is not None and info.workflow is None:
            info = app.as_workflow(info)
        name = info.name if info is not None else str(workflow)
        work = work_of(app, name, info, args, kwargs, target, codec=self.codec)
        return work, info.workflow if info is not None else None

    def handle(self, id: str) -> Handle[Any]:
        """A run by its id, whether it exists or not."""
        return Handle(self, check_any(id))

    # Settling.

    async def resolve(self, id: str, value: Any = None) -> PromiseView:
        """Settle a promise with a value.

        Raises:
            NotFound: no promise has that id.
            AlreadySettled: it was settled before, with another outcome; the same outcome again is fine.
            NotSerializable, PayloadTooLarge: the value cannot be stored.
        """
        payload = self.codec.encode(value, f"value of {id}")
        return await self._settle(id, State.RESOLVED, await self.codec.externalize(payload, id, "value"))

    async def reject(self, id: str, error: str | BaseException | Mapping[str, Any]) -> PromiseView:
        """Settle a promise with a failure: an exception, its description, or a text. Raises as `resolve`."""
        from .errors import Failed

        if isinstance(error, Mapping):
            return await self._settle(id, State.REJECTED, self.codec.encode(dict(error), f"error of {id}"))
        raised = error if isinstance(error, BaseException) else Failed(error)
        return await self._settle(id, State.REJECTED, self.codec.encode_error(raised))

    async def cancel(self, id: str) -> PromiseView:
        """Cancel a promise; a run's children are asked to cancel with it (rule C5). Raises as `resolve`."""
        return await self._settle(id, State.CANCELED, Payload())

    async def _settle(self, id: str, state: State, value: Payload) -> PromiseView:
        check_any(id)
        reply = await self.service.perform(PromiseSettle(id, state, value))
        if reply.status == 404 or reply.promise is None:
            raise NotFound(f"no promise {id!r}")
        record = reply.promise
        if record.state is not state or (state is State.RESOLVED and not await self._same(record.value, value)):
            raise AlreadySettled(f"{id!r} was settled before: {record.state.value}")
        return await self.get(id)

    async def _same(self, one: Payload, other: Payload) -> bool:
        if one == other:
            return True
        codec = self.codec
        try:
            return bool(codec.decode(await codec.internalize(one)) == codec.decode(await codec.internalize(other)))
        except DecodeError:
            return False  # what stands there was written by another hand, or under another key

    # Inspecting.

    async def record(self, id: str) -> Record:
        """The record of an id as it shows now. Raises NotFound."""
        row = (await self.store.load([check_any(id)])).get(id)
        if row is None or row.kind == Kind.SCHEDULE:
            raise NotFound(f"no promise {id!r}")
        return project(from_row(row), self.clock.now())

    async def get(self, id: str) -> PromiseView:
        """A promise as it shows now; a timer lives in its run and shows as a promise of its own (rule B1).

        Raises NotFound.
        """
        from .inspection import timer_view, view_of

        try:
            return await view_of(await self.record(id), self.codec)
        except NotFound:
            parent = id
            while "." in parent:
                parent = parent.rpartition(".")[0]
                row = (await self.store.load([parent])).get(parent)
                if row is not None:
                    shown = timer_view(from_row(row), id, self.clock.now())
                    if shown is not None:
                        return shown
            raise

    async def settled_record(self, id: str, timeout: float | None = None) -> Record:
        """Wait for a promise. Raises NotFound, StillPending at the timeout, Halted."""
        loop = asyncio.get_running_loop()
        until = None if timeout is None else loop.time() + timeout
        pause = 0.01
        while True:
            record = await self.record(id)
            if record.state is not State.PENDING:
                return record
            if record.task is not None and record.task.state is TaskState.HALTED:
                raise Halted(f"{id} is halted: {self.codec.unseal(record.task.reason or 'by hand')}")
            left = None if until is None else until - loop.time()
            if left is not None and left <= 0:
                raise StillPending(f"{id} is still pending")
            await asyncio.sleep(pause if left is None else min(pause, left))
            pause = min(pause * 1.5, 0.5)

    async def wait(self, id: str, timeout: float | None = None) -> PromiseView:
        """The promise once it is settled or halted, or as it shows at the timeout (seconds). Raises NotFound."""
        from .inspection import view_of

        try:
            return await view_of(await self.settled_record(id, timeout), self.codec)
        except (StillPending, Halted):
            return await self.get(id)

    async def tree(self, id: str) -> TreeView:
        """A promise and everything its execution created, timers included. Raises NotFound."""
        from .inspection import tree_of

        return await tree_of(self, check_any(id))

    async def search(
        self,
        *,
        state: str | None = None,
        tags: Mapping[str, str] | None = None,
        prefix: str = "",
        roots: bool = True,
        limit: int = 100,
        cursor: str | None = None,
    ) -> tuple[list[PromiseView], str | None]:
        """Promises by state, tags and id prefix, in id order, and the cursor of the next page where there is one.

        A search may lag behind writes. Raises InvalidArgument.
        """
        from .inspection import search

        return await search(self, state, tags or {}, prefix, roots, limit, cursor)

    async def verify(self, repair: bool = False) -> VerifyReport:
        """Check that every pending run has its next wake-up (rule W1), and restore it if asked."""
        from .upkeep import verify

        return await verify(self, repair)

    async def sweep(self) -> SweepReport:
        """Fire what is overdue and remove what is past its retention (rules W10, T1)."""
        from .upkeep import sweep

        return await sweep(self)

    async def cost(self, id: str) -> CostReport:
        """What a recorded run took, priced per platform. Raises NotFound."""
        from .costs import cost

        return await cost(self, id)

    # Schedules, and a person's hand.

    async def schedule(
        self,
        id: str,
        cron: str,
        workflow: Workflow[..., Any] | str,
        *args: Any,
        timezone: str | None = None,
        timeout: Seconds | None = None,
        tags: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Start a workflow at every tick of a cron; each tick is a run `<id>.<timestamp in milliseconds>`.

        Args:
            cron: five fields (or six, with seconds), in UTC unless `timezone` names a zone of the IANA database.
            timeout: of each run, in seconds or as a timedelta.

        Raises:
            InvalidArgument: the cron or the time zone is not one.
            Conflict: the schedule exists and differs.
        """
        from .errors import Conflict
        from .inspection import schedule_view

        check_root(id, "schedule id")
        work, _ = self._work(workflow, args, kwargs, None)
        wanted = f"CRON_TZ={timezone} {cron}" if timezone is not None else cron
        probe = root_record(id, work, 0, tags=check_tags(tags) if tags is not None else None)
        request = ScheduleCreate(
            id,
            wanted,
            "{{.id}}.{{.timestamp}}",
            NEVER if timeout is None else milliseconds(timeout, "timeout"),
            work.param,
            dict(probe.tags),
        )
        reply = await self.service.perform(request)
        stood = reply.schedule
        if stood is None:
            raise InvalidArgument(f"schedule {id!r}: {reply.error or f'refused (status {reply.status})'}")
        if (stood.cron, stood.promise_param, dict(stood.promise_tags)) != (wanted, work.param, dict(probe.tags)):
            raise Conflict(f"schedule {id!r} already exists and differs; remove it first")
        return await schedule_view(stood, self.codec)

    async def unschedule(self, id: str) -> None:
        """Remove a schedule; runs it started go on. Raises NotFound.

        A sweep finds the settled runs of a schedule by the schedule: those of one that is gone are kept for good.
        """
        if (await self.service.perform(ScheduleDelete(check_any(id)))).status == 404:
            raise NotFound(f"no schedule {id!r}")

    async def schedules(self) -> list[dict[str, Any]]:
        """Every schedule, in id order."""
        from .inspection import schedule_view

        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            reply = await self.service.perform(ScheduleSearch(limit=100, cursor=cursor))
            found += [await schedule_view(schedule, self.codec) for schedule in reply.schedules]
            cursor = reply.cursor
            if cursor is None:
                return found

    async def halt(self, id: str, reason: str = "") -> PromiseView:
        """Stop a run until somebody continues it. Raises NotFound, AlreadySettled."""
        while True:
            record = await self._task_record(id)
            changed = halt(record, self.clock.now(), self.codec.seal(reason or "by hand"))
            if changed is None or await self.service.writer.write([(record, changed)]) is None:
                return await self.get(id)

    async def continue_(self, id: str) -> PromiseView:
        """Set a halted run going again. Raises NotFound, AlreadySettled."""
        while True:
            record = await self._task_record(id)
            changed = resume_halted(record, self.clock.now())
            if changed is None or await self.service.writer.write([(record, changed)]) is None:
                return await self.get(id)

    async def _task_record(self, id: str) -> Record:
        row = (await self.store.load([check_any(id)])).get(id)
        if row is None or row.task is None:
            raise NotFound(f"no run {id!r}")
        record = from_row(row)
        if project(record, self.clock.now()).state is not State.PENDING:
            raise AlreadySettled(f"{id!r} was settled before: {project(record, self.clock.now()).state.value}")
        return record


_ANYBODY = App("anybody")
_ANYBODY.target = "everstep://"


def _new_id(name: str) -> str:
    from .edge import new_id

    return new_id(name)
