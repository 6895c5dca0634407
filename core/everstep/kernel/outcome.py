"""What a decision of the kernel is: an answer, and the effects that make it true, which nobody has carried out yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from everstep.ports import Fence
from everstep.promise import Record, Schedule
from everstep.protocol import Message, Reply

Entity = Record | Schedule
Records = Mapping[str, Entity]
"""What was loaded, by row id; a schedule's row id is `SCHEDULE_PREFIX` and its id."""

NextCron = Callable[[str, int], int]
"""The first occurrence of a cron expression strictly after an instant (milliseconds). Raises InvalidArgument."""


class Config(NamedTuple):
    """The operator's dials, in milliseconds where they are durations.

    Attributes:
        retry_timeout: how long a dispatched task waits for somebody to acquire it before it is dispatched again.
        settle_delay: by how much a wake-up is delayed that is armed ahead of its commit (rule W3).
        batch: how many missed ticks of a schedule are fired in one step.
        attempts: how often a request is decided anew when others write at the same time.
    """

    retry_timeout: int = 5000
    settle_delay: int = 1000
    batch: int = 50
    attempts: int = 16


class Outcome(NamedTuple):
    """A decision.

    Attributes:
        reply: the answer, valid once the effects are committed.
        puts: entities to be written, whole; `rev` and `wake` are those of what was read.
        deletes: row ids to be removed.
        messages: to be sent after the commit.
        drain: settled promises that still owe their awaiters and listeners a word.
        fence: must hold with the commit (rule F1).
        branch: the branch whose promises the answer is to carry along (`preload`), and the id to leave out.
    """

    reply: Reply
    puts: tuple[Entity, ...] = ()
    deletes: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()
    drain: tuple[str, ...] = ()
    fence: Fence | None = None
    branch: tuple[str, str] | None = None


def refuse(status: int, error: str) -> Outcome:
    """An answer that changes nothing."""
    return Outcome(Reply(status, error=error))
