"""Suspended bodies, kept warm: an invocation goes on with one where nobody else went on with its run meanwhile."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .engine import Body
from .folding import Entry
from .operation import DurableFuture
from .promise import Record, State, Task, TaskState

if TYPE_CHECKING:
    from .invocation import Invocation


@dataclass(eq=False, slots=True)
class Kept:
    """A suspended body: the version of the task that suspended it, and what it waits for.

    `arrived` are settled promises of other origins; `taken`: an invocation goes on with it.
    """

    version: int
    generation: int
    body: Body
    awaited: tuple[str, ...]
    revs: dict[str, int]
    known: dict[str, State]
    gone: set[str]
    backoff: Mapping[str, tuple[int, DurableFuture[Any]]]
    loose: dict[str, Record]
    foreign: Mapping[str, str]
    tail: list[Entry]
    folds: int
    arrived: Mapping[str, Record] = field(default_factory=dict)
    taken: bool = False

    def fits(self, task: Task) -> bool:
        """Whether the run still is where this body left it."""
        return task.state is TaskState.SUSPENDED and task.version == self.version and task.generation == self.generation


class Warm:
    """A bounded number of bodies by the id of their run; the one that was not used for longest is let go.

    Args:
        size: how many are kept; none if it is 0.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[str, Kept] = OrderedDict()

    def take(self, id: str) -> Kept | None:
        """The body of a run, if it is here: the caller's from now on, to go on with, put back or drop."""
        return self._kept.pop(id, None)

    def put_back(self, id: str, kept: Kept) -> None:
        self._kept[id] = kept

    def holds(self, id: str, kept: Kept) -> bool:
        return self._kept.get(id) is kept

    def keep(self, invocation: Invocation, body: Body, awaited: Sequence[str]) -> None:
        """Keep the body that an invocation has suspended, or drop it where none is kept."""
        if self._size <= 0:
            body.drop()
            return
        task, children, recorder = invocation.holding.task, invocation.children, invocation.recorder
        self._kept[invocation.id] = Kept(
            task.version,
            task.generation,
            body,
            tuple(awaited),
            recorder.revs,
            children.known,
            children.gone,
            invocation.backoff,
            recorder.loose,
            children.foreign,
            recorder.tail,
            recorder.folds,
        )
        while len(self._kept) > self._size:
            _, oldest = self._kept.popitem(last=False)
            oldest.body.drop()

    def clear(self) -> None:
        """Forget every body."""
        for kept in self._kept.values():
            kept.body.drop()
        self._kept.clear()
