"""Calls to other objects, typed. What they answer is text (see `wire`); what fails on the way is said as a store's
trouble: a read is `StoreUnavailable`, a write is `OutcomeUnknown`, since it may have happened (rule F3)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from everstep.errors import OutcomeUnknown, StoreError, StoreUnavailable
from everstep.ports import Commit, Due, Page, Query, Refused, Wake
from everstep.rows import Row

from . import wire

T = TypeVar("T")


class Bindings(Protocol):
    """The two namespaces of objects."""

    async def run(self, origin: str, message: str) -> str:
        """Call the object of an origin. Raises whatever the platform does."""
        ...

    async def index(self, message: str) -> str:
        """Call the index. Raises whatever the platform does."""
        ...


class Peers:
    """Every object but this one."""

    def __init__(self, bindings: Bindings) -> None:
        self._bindings = bindings

    async def load(self, origin: str, ids: Sequence[str]) -> list[Row]:
        return wire.rows_from(await self._run(origin, "load", ids=list(ids)))

    async def branch(self, origin: str, id: str) -> list[Row]:
        return wire.rows_from(await self._run(origin, "branch", id=id))

    async def commit(self, commit: Commit) -> Refused | None:
        data = wire.commit_to(commit)
        return wire.refused_from(await self._run(commit.origin, "commit", commit=data, writing=True))

    async def find(self, origin: str, query: Query) -> list[Row]:
        return wire.rows_from(await self._run(origin, "find", query=wire.query_to(query)))

    async def look(self, origin: str, now: int, limit: int) -> tuple[list[Due], Mapping[str, Any]]:
        due, entry = await self._run(origin, "look", now=now, limit=limit)
        return [Due(*one) for one in due], entry

    async def delete(self, origin: str) -> int:
        return int(await self._run(origin, "delete", writing=True))

    async def wake(self, origin: str, wake: Wake) -> None:
        await self._run(origin, "wake", wake=list(wake))

    async def tell_index(self, entry: Mapping[str, Any]) -> None:
        await self._index("put", entry=dict(entry), writing=True)

    async def due_anywhere(self, now: int, limit: int) -> list[Due]:
        return [Due(*one) for one in await self._index("due", now=now, limit=limit)]

    async def find_anywhere(self, query: Query) -> Page:
        rows, cursor = await self._index("find", query=wire.query_to(query))
        return Page(wire.rows_from(rows), cursor)

    async def _run(self, origin: str, op: str, *, writing: bool = False, **arguments: Any) -> Any:
        message = wire.request(op, origin=origin, **arguments)
        return await _answered(self._bindings.run(origin, message), f"the object of {origin!r}", writing)

    async def _index(self, op: str, *, writing: bool = False, **arguments: Any) -> Any:
        return await _answered(self._bindings.index(wire.request(op, **arguments)), "the index", writing)


async def _answered(call: Awaitable[str], whom: str, writing: bool) -> Any:
    try:
        text = await call
    except asyncio.CancelledError:
        raise
    except Exception as error:
        trouble: type[StoreError] = OutcomeUnknown if writing else StoreUnavailable
        raise trouble(f"{whom} did not answer: {error}") from error
    return wire.answer(text)


async def all_of(calls: Sequence[Awaitable[T]]) -> list[T]:
    """Wait for all, then raise the first failure, if any."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results  # type: ignore[return-value]
