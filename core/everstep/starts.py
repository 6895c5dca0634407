"""New roots and children as records: what `start`, `rpc`, `detached` and shared work have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .clock import NEVER
from .codec import Codec
from .errors import Conflict
from .operation import encode_call, plain_call
from .promise import RETENTION, TARGET, Kind, Payload, Record, State, Tags, Task, TaskState
from .registry import App, FunctionInfo

WORK = "everstep:work"
"""Tag with the keyed digest of what a root does, by which `start` tells the same work from other work (rule I6)."""


class Work(NamedTuple):
    """A call that is to be started somewhere."""

    name: str
    param: Payload
    digest: str
    target: str
    timeout: int | None
    retention: int | None = None


def work_of(
    app: App,
    name: str,
    info: FunctionInfo | None,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    target: str | None,
    codec: Codec | None = None,
) -> Work:
    """Check and encode a call. Raises NotSerializable, PayloadTooLarge, TypeError."""
    flat, named = plain_call(name, info, args, kwargs)
    codec = codec if codec is not None else app.codec
    workflow = info.workflow if info is not None else None
    return Work(
        name,
        encode_call(codec, name, info, args, kwargs),
        codec.digest(name, flat, named),
        target if target is not None else workflow.app.target if workflow is not None else app.target,
        workflow.timeout if workflow is not None else None,
        workflow.retention if workflow is not None else app.retention,
    )


def root_record(
    id: str,
    work: Work,
    now: int,
    *,
    timeout: int | None = None,
    tags: Tags | None = None,
    callbacks: tuple[str, ...] = (),
    delay: int = 0,
) -> Record:
    """A root that is due at once: a promise with a pending task."""
    limit = timeout if timeout is not None else work.timeout
    own = {TARGET: work.target, WORK: work.digest}
    if work.retention is not None:
        own[RETENTION] = str(work.retention)
    return Record(
        id,
        State.PENDING,
        Kind.ROOT,
        id,
        work.param,
        tags={**own, **(tags or {})},
        timeout_at=NEVER if limit is None else min(now + limit, NEVER),
        created_at=now,
        callbacks=callbacks,
        task=Task(TaskState.PENDING, retry_at=now + delay),
    )


def check_same(existing: Record, work: Work, *, within: bool = False) -> None:
    """Raise Conflict when an id is taken by other work (rule I6); the timeout does not count, nor does a ciphertext.

    Args:
        within: a body asks, and has no `on_conflict` to choose.
    """
    known = existing.tags.get(WORK)
    if known is not None and known != work.digest:
        raise Conflict(
            f"{existing.id!r} exists and does other work than {work.name}() with these arguments; choose another id",
            attachable=not within,
        )
