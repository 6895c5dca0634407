"""Workers that pull: who is connected now, and which of them gets a message (protocol: the poll transport).

`poll://uni@group/id` is that worker or nobody; `poll://any@group/id` prefers that worker and takes any of its group
otherwise, `poll://any@group` any. The store is not asked for any of this: a message comes here from whoever settles or
dispatches, and waits here, in memory and for a limited time, while nobody is connected who may have it. Losing it costs
time alone, since an execute is offered again until its task is acquired, and a listener that asks again is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

_BUFFER = 1000
_PARKED = 10_000
_PATIENCE = 600.0
_SCHEME = "poll://"


class Full(Exception):
    """There are as many connections as there may be."""


class Address(NamedTuple):
    """A parsed `poll://cast@group/id`; `id` is "" where there is none."""

    cast: str
    group: str
    id: str


class Letter(NamedTuple):
    """A message on its way. `key` is what a newer one of the same purpose has in common with it; `about` an id."""

    key: str
    about: str
    text: str


def parse(address: str) -> Address | None:
    """The parts of a poll address; None for what is none."""
    if not address.startswith(_SCHEME):
        return None
    cast, at, rest = address.removeprefix(_SCHEME).partition("@")
    group, _, id = rest.partition("/")
    if not at or cast not in ("any", "uni") or not group or (cast == "uni" and not id):
        return None
    return Address(cast, group, id)


class Connection:
    """One worker's stream.

    Args:
        allowed: tells whether it may learn of an id.
        emptied: called once all it had room for is taken, if there was more.
    """

    def __init__(self, group: str, id: str, allowed: Callable[[str], bool], emptied: Callable[[], None]) -> None:
        self.group = group
        self.id = id
        self.allowed = allowed
        self.taken = 0
        self.turn = 0
        self._emptied = emptied
        self._overfull = False
        self._letters: deque[tuple[str, Letter]] = deque()
        self._changed = asyncio.Event()
        self.closed = False

    def put(self, address: str, letter: Letter) -> bool:
        """Give it a message for that address; False where it takes none."""
        if self.closed or len(self._letters) >= _BUFFER:
            self._overfull = not self.closed
            return False
        self._letters.append((address, letter))
        self.taken += 1
        self._changed.set()
        return True

    async def next(self, patience: float) -> str | None:
        """The next message; None when there is none within so many seconds, or ever."""
        if not self._letters and not self.closed:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._changed.wait()
        if not self._letters:
            return None
        _, letter = self._letters.popleft()
        if self._overfull and not self._letters:
            self._overfull = False
            self._emptied()
        return letter.text

    def left(self) -> list[tuple[str, Letter]]:
        """What nobody took from it, and the address that each was for."""
        return list(self._letters)

    def close(self) -> None:
        self.closed = True
        self._changed.set()


class Hub:
    """The connections of one process.

    Args:
        most: how many connections there may be.
    """

    def __init__(self, most: int = 1000) -> None:
        self._most = most
        self._groups: dict[str, list[Connection]] = {}
        self._parked: OrderedDict[tuple[str, str], tuple[float, Address, Letter]] = OrderedDict()
        self._stopped = False
        self._turn = 0
        self.connections = 0

    @property
    def full(self) -> bool:
        return self.connections >= self._most

    @contextlib.contextmanager
    def connect(self, group: str, id: str, allowed: Callable[[str], bool]) -> Iterator[Connection]:
        """A worker's connection while it lasts; what was kept for it is there at once, and what it leaves behind is for
        others, or for its next one. Raises Full.
        """
        if self.full:
            raise Full(f"there are {self._most} workers connected, and no room for more")
        connection = Connection(group, id, allowed, lambda: self._unpark(group))
        connection.closed = self._stopped
        self._groups.setdefault(group, []).append(connection)
        self.connections += 1
        self._unpark(group)
        try:
            yield connection
        finally:
            connection.close()
            self.connections -= 1
            members = self._groups[group]
            members.remove(connection)
            if not members:
                del self._groups[group]
            for address, letter in connection.left():
                self.send(address, letter)

    def send(self, address: str, letter: Letter) -> None:
        """Give a message to who may have it, or keep it for a while. One for nobody's address is dropped."""
        parsed = parse(address)
        if parsed is None:
            return
        key = (address, letter.key)
        self._parked.pop(key, None)
        if not self._give(address, parsed, letter):
            self._parked[key] = (asyncio.get_running_loop().time() + _PATIENCE, parsed, letter)
            while len(self._parked) > _PARKED:
                self._parked.popitem(last=False)

    def reaches(self, address: str, prefix: str) -> bool:
        """Whether somebody is connected to whom messages there, about any id with this prefix, may be given."""
        to = parse(address)
        if to is None:
            return False
        members = [one for one in self._groups.get(to.group, ()) if one.allowed(prefix)]
        return any(to.cast == "any" or one.id == to.id for one in members)

    def stop(self) -> None:
        """Let every connection end."""
        self._stopped = True
        for members in self._groups.values():
            for connection in members:
                connection.close()

    def _give(self, address: str, to: Address, letter: Letter) -> bool:
        members = [one for one in self._groups.get(to.group, ()) if one.allowed(letter.about)]
        # Of two connections of the same name the older one belongs to a worker that is gone.
        preferred = [one for one in reversed(members) if one.id == to.id]
        others = [] if to.cast == "uni" else sorted(members, key=lambda one: one.turn)
        for one in [*preferred, *others]:
            if one.put(address, letter):
                self._turn += 1
                one.turn = self._turn
                return True
        return False

    def _unpark(self, group: str) -> None:
        now = asyncio.get_running_loop().time()
        for key, (until, to, letter) in list(self._parked.items()):
            if until <= now or (to.group == group and self._give(key[0], to, letter)):
                del self._parked[key]
