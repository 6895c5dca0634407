"""Messages to workers and listeners elsewhere: pushed to `http(s)://`, pulled at `poll://` (protocol: messages).

An `execute` may be lost: the task is offered again until somebody acquires it. An `unblock` may not, before its
receiver has had a fair chance: a push that fails is tried again until the promise has been settled for a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from everstep.clock import Clock, SystemClock
from everstep.errors import WakerError
from everstep.protocol import Execute, Message, Unblock
from everstep.protocol_json import render_message

from .strict import dumps

if TYPE_CHECKING:
    from .hub import Hub, Letter

log = logging.getLogger("everstep.http")

_AGAIN = (408, 425, 429)
_AT_ONCE = 32


class Post(Protocol):
    def __call__(self, url: str, body: bytes, headers: Mapping[str, str]) -> Awaitable[int]:
        """POST and return the status; anything raised means that it did not arrive."""
        ...


class Messenger:
    """Delivers messages; what `everstep.service.Service` calls `deliver`.

    Args:
        hub: workers that pull; None where the platform cannot hold a connection, so that only pushes arrive.
        server_url: told to receivers of a push, who send their requests there.
        push_to: what the address of a push must begin with, one of these; None for any. Whoever may create a promise
            chooses the address.
        headers: sent with each push, such as a bearer token: to any address, where `push_to` names none.
        post: sends a push; by default the `httpx` library, which follows no redirect.
        background: push an execute without waiting for the receiver: for a server process, which lives on.
        patience: milliseconds after its settlement that an unblock is tried.
        timeout: seconds that a receiver has to answer.
    """

    def __init__(
        self,
        hub: Hub | None = None,
        *,
        server_url: str | None = None,
        push_to: Sequence[str] | None = None,
        headers: Mapping[str, str] | None = None,
        post: Post | None = None,
        background: bool = False,
        patience: int = 300_000,
        timeout: float = 10.0,
        clock: Clock | None = None,
    ) -> None:
        self.hub = hub
        self.server_url = server_url
        self._push_to = None if push_to is None else tuple(map(_with_path, push_to))
        self._headers = {"content-type": "application/json", **(headers or {})}
        self._post: Callable[..., Awaitable[int]] = post if post is not None else self._with_httpx
        self._background = background
        self._patience = patience
        self._timeout = timeout
        self._clock = clock if clock is not None else SystemClock()
        self._http: Any = None
        self.under_way: dict[tuple[str, str, int], asyncio.Task[None]] = {}

    async def __call__(self, message: Message) -> None:
        """Deliver a message. Raises WakerError when it is to be tried again."""
        address = message.address
        if address.startswith("poll://"):
            if self.hub is not None:
                self.hub.send(address, _letter(message))
            return
        if not address.startswith(("http://", "https://")):
            return  # a target of some other scheme: a worker of ours, or nobody
        if self._push_to is not None and not _with_path(address).startswith(self._push_to):
            log.warning("a message to %s is not sent: pushes there are not allowed", address)
            return
        match message:
            case Execute():
                await self._offer(message)
            case Unblock():
                await self._tell(message)

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = list(self.under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._http is not None:
            http, self._http = self._http, None
            await http.aclose()

    async def _offer(self, message: Execute) -> None:
        if not self._background:
            await self._push(message)
            return
        key = (message.address, message.id, message.version)
        if key in self.under_way or len(self.under_way) >= _AT_ONCE:
            return  # it is offered again
        task = self.under_way[key] = asyncio.create_task(self._push(message))  # type: ignore[arg-type]
        task.add_done_callback(lambda _: self.under_way.pop(key, None))

    async def _tell(self, message: Unblock) -> None:
        status = await self._push(message)
        if 200 <= status < 300:
            return
        again = status == 0 or status >= 500 or status in _AGAIN
        settled_at = message.promise.settled_at or 0
        if again and self._clock.now() < settled_at + self._patience:
            raise WakerError(f"{message.address} was not told of {message.promise.id!r} (status {status or 'none'})")
        log.warning("%s was not told of %r: status %s", message.address, message.promise.id, status or "none")

    async def _push(self, message: Message) -> int:
        """The receiver's status; 0 where there was no answer."""
        body = dumps(render_message(message, self.server_url))
        try:
            async with asyncio.timeout(self._timeout):
                return await self._post(message.address, body, self._headers)
        except ImportError as error:
            log.error("pushing messages needs httpx: pip install 'everstep[gateway]' (%s)", error)
            return 0
        except Exception as error:
            log.info("a push to %s failed: %s: %s", message.address, type(error).__name__, error)
            return 0

    async def _with_httpx(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        if not self._background:
            # The next push may be made on another event loop, which could not use this one's connections.
            async with self._client() as http:
                return await _send(http, url, body, headers)
        if self._http is None:
            self._http = self._client()
        return await _send(self._http, url, body, headers)

    def _client(self) -> Any:
        import httpx

        return httpx.AsyncClient(timeout=self._timeout, follow_redirects=False)


async def _send(http: Any, url: str, body: bytes, headers: Mapping[str, str]) -> int:
    async with http.stream("POST", url, content=body, headers=dict(headers)) as answer:
        return int(answer.status_code)  # whatever else it says is not read


def _with_path(url: str) -> str:
    """A host's name ends before a slash, or another's could begin with it."""
    return url if url.count("/") > 2 else f"{url}/"


def _letter(message: Message) -> Letter:
    from .hub import Letter  # only where workers pull

    text = dumps(render_message(message)).decode()
    match message:
        case Execute():
            return Letter(f"execute {message.id}", message.id, text)
        case Unblock():
            return Letter(f"unblock {message.promise.id}", message.promise.id, text)
