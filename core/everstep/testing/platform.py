"""Two models of what calls a function: a durable message queue, and the store's own `due` column.

`queue`: messages carry a wake-up, are delivered at their instant or later and at least once; one that is being handled
is held, and comes back after the visibility timeout unless its invocation answers. Nothing sweeps: rule W1 must hold by
messages alone. `rows`: a scheduler reads due rows; what is armed or sent only shortens the wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from everstep.clock import VirtualClock
from everstep.driver import Answer, Retry
from everstep.ports import Wake
from everstep.stores.memory import MemoryStore


@dataclass(eq=False, slots=True)
class Message:
    """A wake-up on its way. `held_until`: it is handled now, and comes back then; `soon`: armed ahead of its commit."""

    number: int
    wake: Wake
    at: int
    held_until: int | None = None
    received: int = 0
    rev: int = 0
    gone: bool = False
    copy_of: int | None = None
    soon: bool = False

    @property
    def key(self) -> str:
        return str(self.copy_of or self.number)


class Receipt(NamedTuple):
    """One delivery of a message; void once the message was delivered again."""

    message: Message
    number: int


class Platform(Protocol):
    by_row: bool
    eager: bool
    """Nobody is between an arming and its commit: what was armed for a moment later may be delivered now."""

    visibility: int

    def arm(self, wake: Wake, at: int, *, soon: bool = False) -> str | None: ...
    def disarm(self, token: str) -> None: ...
    def send(self, wake: Wake) -> None: ...
    def due(self) -> list[Message]:
        """What can be delivered now, oldest first."""
        ...

    def next_at(self) -> int | None:
        """The next instant at which something may be delivered."""
        ...

    def take(self, message: Message) -> Receipt:
        """An invocation begins."""
        ...

    def answered(self, receipt: Receipt, answer: Answer) -> None: ...
    def failed(self, receipt: Receipt) -> None:
        """The invocation ended with an error."""
        ...

    def died(self, receipt: Receipt) -> None:
        """The invocation will never answer."""
        ...

    def repeat(self, message: Message) -> None:
        """Deliver it a second time as well."""
        ...

    def postpone(self, message: Message, at: int) -> None:
        """Deliver it late."""
        ...


class Queue:
    """A durable, at-least-once message queue."""

    by_row = False

    def __init__(self, clock: VirtualClock, visibility: int, *, tokens: bool = True) -> None:
        self.clock = clock
        self.visibility = visibility
        self.tokens = tokens
        self.eager = True
        self.messages: dict[int, Message] = {}
        self._count = 0

    def arm(self, wake: Wake, at: int, *, soon: bool = False) -> str | None:
        message = self._add(wake, at)
        message.soon = soon
        return str(message.number) if self.tokens else None

    def disarm(self, token: str) -> None:
        message = self.messages.get(int(token))
        if message is not None:  # one that is being handled does not come back either
            self._remove(message)

    def send(self, wake: Wake) -> None:
        self._add(wake, self.clock.now())

    def due(self) -> list[Message]:
        now = self.clock.now()
        eager = self.eager
        found = [
            one
            for one in self.messages.values()
            if (one.held_until or 0) <= now and (one.at <= now or (eager and one.soon))
        ]
        found.sort(key=lambda one: (one.at, one.number))
        return found

    def next_at(self) -> int | None:
        return min((max(one.held_until or 0, one.at) for one in self.messages.values()), default=None)

    def take(self, message: Message) -> Receipt:
        message.received += 1
        message.held_until = self.clock.now() + self.visibility
        return Receipt(message, message.received)

    def answered(self, receipt: Receipt, answer: Answer) -> None:
        if isinstance(answer, Retry):
            self._back(receipt, max(answer.at, self.clock.now() + 1))
        elif receipt.number == receipt.message.received:
            self._remove(receipt.message)

    def failed(self, receipt: Receipt) -> None:
        self._back(receipt, self.clock.now() + 1000 * 2 ** min(receipt.number, 6))

    def died(self, receipt: Receipt) -> None:
        self._back(receipt, receipt.message.held_until or self.clock.now())

    def repeat(self, message: Message) -> None:
        self._add(message.wake, self.clock.now(), copy_of=message.copy_of or message.number)

    def postpone(self, message: Message, at: int) -> None:
        message.at = at

    def _add(self, wake: Wake, at: int, copy_of: int | None = None) -> Message:
        self._count += 1
        message = Message(self._count, wake, at, copy_of=copy_of)
        self.messages[message.number] = message
        return message

    def _back(self, receipt: Receipt, at: int) -> None:
        message, number = receipt
        message.soon = False
        if not message.gone and number == message.received:
            message.at = at
            message.held_until = None

    def _remove(self, message: Message) -> None:
        message.gone = True
        self.messages.pop(message.number, None)


class Rows:
    """A scheduler that reads the store's due rows. What is armed is the commit's business, what is sent may be lost."""

    by_row = True

    def __init__(self, clock: VirtualClock, store: MemoryStore, visibility: int) -> None:
        self.clock = clock
        self.store = store
        self.visibility = visibility
        self.eager = True
        self._sent: dict[str, Message] = {}
        self._count = 0
        self._busy: dict[str, int] = {}
        self._later: dict[str, tuple[int, int]] = {}

    def arm(self, wake: Wake, at: int, *, soon: bool = False) -> str | None:
        return None

    def disarm(self, token: str) -> None:
        pass

    def send(self, wake: Wake) -> None:
        self._sent.setdefault(wake.id, self._message(wake))

    def due(self) -> list[Message]:
        now = self.clock.now()
        found = dict(self._sent)
        for id, at in self.store._due.items():
            if at <= now and id not in found and self._free(id, now):
                found[id] = self._message(Wake(id), at)
        return sorted(found.values(), key=lambda one: (one.at, one.wake.id))

    def next_at(self) -> int | None:
        if self._sent:
            return self.clock.now()
        moments = []
        for id, at in self.store._due.items():
            later = self._later.get(id)
            if later is not None and later[0] == self.store._rev(id):
                at = max(at, later[1])
            moments.append(max(at, self._busy.get(id, 0)))
        return min(moments, default=None)

    def take(self, message: Message) -> Receipt:
        id = message.wake.id
        self._sent.pop(id, None)
        message.rev = self.store._rev(id)
        self._busy[id] = self.clock.now() + self.visibility
        return Receipt(message, 1)

    def answered(self, receipt: Receipt, answer: Answer) -> None:
        message = receipt.message
        id = message.wake.id
        self._busy.pop(id, None)
        if self.store._rev(id) == message.rev:  # nothing came of it: a scheduler looks again, but not at once
            self._later[id] = (message.rev, self.clock.now() + 1000)

    def failed(self, receipt: Receipt) -> None:
        id = receipt.message.wake.id
        self._busy.pop(id, None)
        self._later[id] = (self.store._rev(id), self.clock.now() + 1000)

    def died(self, receipt: Receipt) -> None:
        self._busy.pop(receipt.message.wake.id, None)

    def repeat(self, message: Message) -> None:
        self._sent[message.wake.id] = self._message(message.wake)

    def postpone(self, message: Message, at: int) -> None:
        id = message.wake.id
        self._sent.pop(id, None)
        self._later[id] = (self.store._rev(id), at)

    def _free(self, id: str, now: int) -> bool:
        if self._busy.get(id, 0) > now:
            return False
        later = self._later.get(id)
        return later is None or later[1] <= now or later[0] != self.store._rev(id)

    def _message(self, wake: Wake, at: int | None = None) -> Message:
        self._count += 1
        return Message(self._count, wake, self.clock.now() if at is None else at)
