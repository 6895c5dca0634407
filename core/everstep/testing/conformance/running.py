"""Running an asynchronous test of a suite without a plugin: open, test, close, each on a loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar


class _Closes(Protocol):
    async def close(self) -> None: ...


class _Opens(Protocol):
    async def open(self) -> Any: ...


Subject = TypeVar("Subject", bound=_Closes)


def case(test: Callable[[Any, Subject], Awaitable[None]]) -> Callable[[Any], None]:
    """Make `async def test_x(self, subject)` a plain test that opens a fresh subject by `self.open()` and closes it."""

    async def scenario(self: _Opens) -> None:
        subject = await self.open()
        try:
            await test(self, subject)
        finally:
            await subject.close()

    def run(self: _Opens) -> None:
        asyncio.run(scenario(self))

    run.scenario = scenario  # type: ignore[attr-defined]  # for a platform whose loop is running already
    # Not functools.wraps: pytest follows __wrapped__ and would look for a fixture called like the second parameter.
    run.__name__, run.__qualname__, run.__doc__ = test.__name__, test.__qualname__, test.__doc__
    return run
