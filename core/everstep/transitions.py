"""The states of promises and tasks and what moves them: docs/state-machine.md is drawn from these tables.

What is not in a table changes nothing: it is refused, or it is idempotent. The kernel is checked against every pair.
`python -m everstep.transitions` prints the document.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from enum import Enum

from .promise import State, TaskState


class PromiseEvent(str, Enum):
    """What may happen to a promise."""

    RESOLVE = "resolve"
    REJECT = "reject"
    CANCEL = "cancel"
    DEADLINE = "deadline passes"
    TIMER = "deadline of a timer passes"


class TaskEvent(str, Enum):
    """What may happen to a task."""

    ACQUIRE = "acquire"
    HEARTBEAT = "heartbeat"
    SUSPEND = "suspend"
    SUSPEND_READY = "suspend on something settled"
    RELEASE = "release"
    FULFILL = "fulfill"
    HALT = "halt"
    CONTINUE = "continue"
    SETTLE = "promise settles or reaches its deadline"
    WAKE = "awaited promise settles"
    LEASE_ENDS = "lease ends"
    RETRY = "dispatch is due"


class Fused(str, Enum):
    """Steps the engine takes in one write; each is the protocol's steps done next to each other."""

    ACQUIRE = "acquire"
    RESUME = "resume + acquire"
    TAKE_OVER = "lease ends + acquire"
    AGAIN = "deliver under the next version"
    CONTINUE_AS_NEW = "continue as new"


PROMISES: Mapping[tuple[State, PromiseEvent], State] = {
    (State.PENDING, PromiseEvent.RESOLVE): State.RESOLVED,
    (State.PENDING, PromiseEvent.REJECT): State.REJECTED,
    (State.PENDING, PromiseEvent.CANCEL): State.CANCELED,
    (State.PENDING, PromiseEvent.DEADLINE): State.TIMEDOUT,
    (State.PENDING, PromiseEvent.TIMER): State.RESOLVED,
}

TASKS: Mapping[tuple[TaskState, TaskEvent], TaskState] = {
    (TaskState.PENDING, TaskEvent.ACQUIRE): TaskState.ACQUIRED,
    (TaskState.PENDING, TaskEvent.HALT): TaskState.HALTED,
    (TaskState.PENDING, TaskEvent.RETRY): TaskState.PENDING,
    (TaskState.PENDING, TaskEvent.WAKE): TaskState.PENDING,
    (TaskState.PENDING, TaskEvent.SETTLE): TaskState.FULFILLED,
    (TaskState.ACQUIRED, TaskEvent.HEARTBEAT): TaskState.ACQUIRED,
    (TaskState.ACQUIRED, TaskEvent.SUSPEND): TaskState.SUSPENDED,
    (TaskState.ACQUIRED, TaskEvent.SUSPEND_READY): TaskState.ACQUIRED,
    (TaskState.ACQUIRED, TaskEvent.RELEASE): TaskState.PENDING,
    (TaskState.ACQUIRED, TaskEvent.LEASE_ENDS): TaskState.PENDING,
    (TaskState.ACQUIRED, TaskEvent.FULFILL): TaskState.FULFILLED,
    (TaskState.ACQUIRED, TaskEvent.HALT): TaskState.HALTED,
    (TaskState.ACQUIRED, TaskEvent.WAKE): TaskState.ACQUIRED,
    (TaskState.ACQUIRED, TaskEvent.SETTLE): TaskState.FULFILLED,
    (TaskState.SUSPENDED, TaskEvent.WAKE): TaskState.PENDING,
    (TaskState.SUSPENDED, TaskEvent.HALT): TaskState.HALTED,
    (TaskState.SUSPENDED, TaskEvent.SETTLE): TaskState.FULFILLED,
    (TaskState.HALTED, TaskEvent.CONTINUE): TaskState.PENDING,
    (TaskState.HALTED, TaskEvent.WAKE): TaskState.HALTED,
    (TaskState.HALTED, TaskEvent.SETTLE): TaskState.FULFILLED,
}

ENGINE: Mapping[tuple[TaskState, Fused], TaskState] = {
    (TaskState.PENDING, Fused.ACQUIRE): TaskState.ACQUIRED,
    (TaskState.SUSPENDED, Fused.RESUME): TaskState.ACQUIRED,
    (TaskState.ACQUIRED, Fused.TAKE_OVER): TaskState.ACQUIRED,
    (TaskState.ACQUIRED, Fused.AGAIN): TaskState.ACQUIRED,
    (TaskState.ACQUIRED, Fused.CONTINUE_AS_NEW): TaskState.PENDING,
}

_BIRTHS = {
    "promise.create": TaskState.PENDING,
    "task.create": TaskState.ACQUIRED,
    "created past its deadline": TaskState.FULFILLED,
}


def promise_after(state: State, event: PromiseEvent) -> State:
    """The state of a promise after an event."""
    return PROMISES.get((state, event), state)


def task_after(state: TaskState, event: TaskEvent) -> TaskState:
    """The state of a task after an event."""
    return TASKS.get((state, event), state)


def promise_diagram() -> str:
    """The promise's states as a mermaid diagram."""
    arrows = [f"{one.value} --> {two.value}: {event.value}" for (one, event), two in PROMISES.items()]
    ends = [f"{state.value} --> [*]" for state in State if state is not State.PENDING]
    return _diagram(["[*] --> pending: create", *arrows, *ends])


def task_diagram() -> str:
    """The task's states as a mermaid diagram."""
    births = [f"[*] --> {state.value}: {how}" for how, state in _BIRTHS.items()]
    arrows = [f"{one.value} --> {two.value}: {event.value}" for (one, event), two in TASKS.items()]
    return _diagram([*births, *arrows, f"{TaskState.FULFILLED.value} --> [*]"])


def engine_diagram() -> str:
    """The engine's combined steps as a mermaid diagram."""
    return _diagram([f"{one.value} --> {two.value}: {event.value}" for (one, event), two in ENGINE.items()])


def _diagram(lines: list[str]) -> str:
    return "\n".join(["```mermaid", "stateDiagram-v2", *[f"    {line}" for line in lines], "```"])


def document() -> str:
    """The text of docs/state-machine.md."""
    return f"""# States

This page is drawn from the tables in `everstep/transitions.py` (`python -m everstep.transitions`); a test compares the
two, and another compares the tables with the kernel, pair by pair.

## A promise

A promise is settled once, by whoever comes first. Reads never wait for the write: a promise whose deadline has passed
reads as settled at that deadline, whatever the store still says, and settling it then answers with what stands.

{promise_diagram()}

## A task

A promise with a target carries a task: the leased right to execute it. The version rises by one with each acquisition
and with nothing else, so that a late holder is known by its number. A task is fulfilled when its promise is settled,
by whomever; a task past its promise's deadline is never dispatched, woken or continued.

{task_diagram()}

## What the engine does in one write

The result is that of the steps above done next to each other.

{engine_diagram()}
"""


if __name__ == "__main__":
    sys.stdout.write(document())
