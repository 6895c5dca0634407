"""Promises a body creates: children of its own origin, shared work of other origins, detached roots.

Creating always checks the lease (rule P2.4), so whatever stands in the store under a child's id was asked for by a body
that had every delivery before it on record.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .clock import NEVER
from .errors import Conflict, LeaseLost
from .operation import DurableFuture
from .promise import TARGET, Kind, Record, State, Task, TaskState, group_of
from .recording import Ready, Recorder
from .rows import from_row, is_local
from .starts import Work, root_record, work_of

if TYPE_CHECKING:
    from .holding import Holding

_CHUNK = 50
_CHUNK_BYTES = 3_000_000
"""Of arguments in one commit: DynamoDB takes four megabytes, Firestore ten."""


class Children:
    """What a body has created.

    Attributes:
        known: children of this origin that stand in the store, and how they stood when last looked at.
        foreign: operations that wait for promises of other origins, by position.
        gone: children that the body has cancelled, which history does not deliver yet.
    """

    def __init__(self, holding: Holding, recorder: Recorder, known: dict[str, State]) -> None:
        self._holding = holding
        self._driver = holding.driver
        self._codec = holding.driver.codec
        self._recorder = recorder
        self.known = known
        self.foreign: dict[str, str] = {}
        self.gone: set[str] = set()

    def pending(self, keys: Iterable[str]) -> list[str]:
        """Those of `keys` that stand in the store and were pending when last looked at."""
        return [key for key in keys if self.known.get(key) is State.PENDING]

    def undelivered(self) -> list[str]:
        """Children that history does not deliver yet."""
        return [key for key, state in self.known.items() if state is State.PENDING or key in self.gone]

    def record(self, op: DurableFuture[Any]) -> Record:
        """A child that is to be created; its deadline is never later than its parent's (rule C2)."""
        now = self._holding.now()
        parent = self._holding.record
        limit = op.options.timeout
        if limit is None and op.kind == Kind.RPC and op.info is not None and op.info.workflow is not None:
            limit = op.info.workflow.timeout
        tags = dict(op.options.tags or {})
        task = None
        if op.kind == Kind.RPC:
            tags[TARGET] = self._target(op)
            task = Task(TaskState.PENDING, retry_at=now)
        return Record(
            op.key,
            State.PENDING,
            op.kind,
            self._holding.id,
            op.param,
            tags=tags,
            timeout_at=parent.timeout_at if limit is None else min(now + limit, parent.timeout_at),
            created_at=now,
            callbacks=(self._holding.id,),
            task=task,
        )

    async def create(self, records: list[Record]) -> None:
        """Create children, a chunk to a commit, in place of local records outside history (P2.4). Raises LeaseLost."""
        loose = self._recorder.loose
        while records:
            chunk: list[Record] = []
            size = 0
            for record in records[:_CHUNK]:
                param = await self._codec.externalize(record.param, record.id, "param")
                size += 0 if param.data is None else len(param.data.encode())
                if chunk and size > _CHUNK_BYTES:
                    break
                chunk.append(record._replace(param=param))
            changes = [(loose.get(record.id), record) for record in chunk]
            refused = await self._driver.writer.write(changes, fence=self._holding.fence())
            if refused is None:
                for old, record in changes:
                    self._created(record.id, old.rev + 1 if old is not None else 1)
                del records[: len(chunk)]
                continue
            standing = {id: row for id, row in refused.found.items() if row is not None}
            if refused.fenced or not standing:
                raise LeaseLost(self._holding.id)
            for id, row in standing.items():
                if is_local(row):
                    loose[id] = from_row(row)
                else:
                    # Created by an earlier write of ours whose answer was lost (F3): what stands is the same child.
                    self._created(id, row.rev)
            records[:] = [record for record in records if record.id not in self.known]

    def _created(self, id: str, rev: int) -> None:
        self._recorder.revs[id] = rev
        self._recorder.loose.pop(id, None)
        self.known[id] = State.PENDING
        self._driver.tell("created", id)

    async def attach(self, op: DurableFuture[Any]) -> Ready | None:
        """Wait for work of another root, starting it if nobody has; the callback crosses origins (rule W5).

        Returns its completion where it is settled already. Raises LeaseLost.
        """
        await self._holding.look()
        now = self._holding.now()
        options = op.options
        if op.kind == Kind.RPC:
            work = self._work(op)
            fresh = root_record(
                op.id, work, now, timeout=options.timeout, tags=options.tags, callbacks=(self._holding.id,)
            )
        else:
            fresh = Record(
                op.id,
                State.PENDING,
                Kind.PROMISE,
                op.id,
                tags=dict(options.tags or {}),
                timeout_at=NEVER if options.timeout is None else now + options.timeout,
                created_at=now,
                callbacks=(self._holding.id,),
            )
        try:
            existing = await self._driver.roots.join(fresh, self._holding.id, op.name)
        except Conflict as error:
            return self._refused(op, error)
        op.attached = op.id
        self._driver.tell("attached", op.id, by=op.key)
        if existing.state is State.PENDING:
            self.foreign[op.key] = op.id
            return None
        return Ready(op, op.key, existing.state, existing.value, existing.settled_at or now)

    async def detach(self, op: DurableFuture[Any]) -> Ready:
        """Start a new root, once, whatever happens to us afterwards. Raises LeaseLost."""
        await self._holding.look()
        record = root_record(
            op.id, self._work(op), self._holding.now(), timeout=op.options.timeout, tags=op.options.tags
        )
        try:
            await self._driver.roots.create(record, op.name)
        except Conflict as error:
            return self._refused(op, error)
        self._driver.tell("detached", op.id, by=op.key)
        return Ready(op, op.key, State.RESOLVED, self._codec.encode(op.id, "id"), self._holding.now())

    def _refused(self, op: DurableFuture[Any], error: Conflict) -> Ready:
        """Other work has that id: the operation fails, and the body may catch it."""
        return Ready(op, op.key, State.REJECTED, self._codec.encode_error(error), self._holding.now())

    def _work(self, op: DurableFuture[Any]) -> Work:
        app, target = self._driver.app, op.options.target
        work = work_of(app, op.name, op.info, op.args, op.kwargs, target, codec=self._codec)
        return work._replace(target=self._target(op))

    def _target(self, op: DurableFuture[Any]) -> str:
        """Who carries out an invocation: who was asked for, else the workflow's own App, else the group at work."""
        if op.options.target is not None:
            return op.options.target
        workflow = op.info.workflow if op.info is not None else None
        if workflow is not None and workflow.app is not self._driver.app:
            return workflow.app.target
        return group_of(self._holding.record.tags.get(TARGET, self._driver.app.target))

    async def cancel(self, ops: Iterable[DurableFuture[Any]]) -> None:
        """A cancelled future settles its promise as cancelled; one that is settled by now stays as it is."""
        for op in ops:
            self.foreign.pop(op.key, None)
            if op.kind in (Kind.RPC, Kind.PROMISE) and op.id == op.key and self.known.get(op.key) is State.PENDING:
                self.known[op.key] = State.CANCELED
                self.gone.add(op.key)
                self._recorder.revs.pop(op.key, None)
                await self._driver.roots.cancel(op.key, self._holding.fence())
