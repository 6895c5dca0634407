"""What inspection answers: a promise, a tree, a report, as plain values that any edge can print.

A view is a picture of one instant. Nothing here refers to a store, and `to_dict` is JSON as it stands: instants in
milliseconds since 1970, states under their protocol names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class PromiseView:
    """One promise, with its task where it has one.

    Attributes:
        id: as given or derived.
        state: pending, resolved, rejected, rejected_canceled or rejected_timedout (protocol: promise record).
        kind: what made it: `root`, `step`, `child`, `rpc`, `timer`, `promise`, `detached`, or "" for a protocol client.
        name: of the function, "" where there is none.
        args: positional arguments as JSON.
        kwargs: keyword arguments as JSON.
        value: the result as JSON; None unless resolved.
        error: `type`, `message` and what else was recorded; None unless rejected.
        created_at: milliseconds.
        settled_at: milliseconds, None while pending.
        timeout_at: its deadline in milliseconds, None for never.
        tags: as given; the protocol's own included.
        task: pending, acquired, suspended, halted or fulfilled; None for a promise without a task.
        version: of the task: how often it was acquired.
        generation: how often it continued as new, from 1.
        attempt: how often it failed and began again.
        waiting_for: ids of the promises it waits for.
        due_at: when somebody looks at it next, in milliseconds.
        reason: why it is halted.
    """

    id: str
    state: str
    kind: str = ""
    name: str = ""
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    value: Any = None
    error: dict[str, Any] | None = None
    created_at: int = 0
    settled_at: int | None = None
    timeout_at: int | None = None
    tags: dict[str, str] = field(default_factory=dict)
    task: str | None = None
    version: int = 0
    generation: int = 1
    attempt: int = 0
    waiting_for: list[str] = field(default_factory=list)
    due_at: int | None = None
    reason: str | None = None

    @property
    def pending(self) -> bool:
        return self.state == "pending"

    @property
    def halted(self) -> bool:
        return self.pending and self.task == "halted"

    @property
    def word(self) -> str:
        """What a person calls this state: one word or two, the same on every edge."""
        if self.state != "pending":
            return _SETTLED.get(self.state, self.state)
        if self.task is not None:
            return _AT_WORK.get(self.task, self.task)
        if self.kind == "timer":
            return "sleeping"
        if self.kind in ("step", "child"):
            return "retrying" if self.attempt and self.due_at is not None else "running"
        return "open"

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


_SETTLED = {
    "resolved": "done",
    "rejected": "failed",
    "rejected_canceled": "cancelled",
    "rejected_timedout": "timed out",
}
_AT_WORK = {"pending": "queued", "acquired": "running", "suspended": "waiting", "halted": "halted"}


@dataclass(frozen=True, slots=True)
class TreeView:
    """A promise and what its execution created, in id order."""

    promise: PromiseView
    children: list[TreeView] = field(default_factory=list)

    def walk(self) -> Iterator[PromiseView]:
        """Every promise, a parent before its children."""
        stack: list[TreeView] = [self]
        while stack:
            node = stack.pop()
            yield node.promise
            stack.extend(reversed(node.children))

    def to_dict(self) -> dict[str, Any]:
        """The promise, with `children` alike. Iterative: an id has room for a deeper tree than the stack has."""
        top: dict[str, Any] = {}
        stack: list[tuple[TreeView, dict[str, Any]]] = [(self, top)]
        while stack:
            node, target = stack.pop()
            children: list[dict[str, Any]] = [{} for _ in node.children]
            target.update(node.promise.to_dict(), children=children)
            stack.extend(zip(node.children, children, strict=True))
        return top


@dataclass(frozen=True, slots=True)
class Problem:
    """A run that would never move again, or a record that contradicts itself (rule W1)."""

    id: str
    what: str
    repaired: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {"id": self.id, "what": self.what, "repaired": self.repaired}


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` looked at and found."""

    checked: int
    problems: list[Problem] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """No problem is left."""
        return all(problem.repaired for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        return {"checked": self.checked, "problems": [problem.to_dict() for problem in self.problems]}


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What `sweep` did: wake-ups that were overdue and sent again, settled trees past their retention and removed."""

    fired: int
    purged: int

    def to_dict(self) -> dict[str, Any]:
        return {"fired": self.fired, "purged": self.purged}


@dataclass(frozen=True, slots=True)
class CostReport:
    """What a recorded run took.

    Attributes:
        requests: to the store, by kind.
        bytes: stored.
        wakeups: armed or sent.
        records: kept.
        dollars: for this run, by platform (`aws`, `gcp`, `supabase`, `cloudflare`), at list prices.
    """

    requests: dict[str, int]
    bytes: int
    wakeups: int
    records: int
    dollars: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(self)}
