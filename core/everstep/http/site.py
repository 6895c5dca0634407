"""What every route works with: the client, opened when it is first needed, the App, and who is told of a change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from everstep.clock import Clock

from .messages import Messenger

if TYPE_CHECKING:
    from everstep.client import Client
    from everstep.registry import App, Workflow


class Site:
    """Args:
    client: or the URL of a store.
    messages: where those of the client's service go, unless it has a way of its own.
    """

    def __init__(
        self, client: Client | str, app: App | None, clock: Clock, messages: Messenger, max_body: int, max_wait: float
    ) -> None:
        self._url = client if isinstance(client, str) else None
        self._opened: Client | None = None if isinstance(client, str) else client
        self.app = app
        self.clock = clock
        self.messages = messages
        self.max_body = max_body
        self.max_wait = max_wait
        self.stopping = asyncio.Event()
        self.watchers: list[Callable[[], None]] = []
        if self._opened is not None:
            self._deliver_for(self._opened)

    @property
    def client(self) -> Client:
        if self._opened is None:
            from everstep.client import Client

            assert self._url is not None
            self._opened = Client.open(self._url, app=self.app)
            self._deliver_for(self._opened)
        return self._opened

    def workflow(self, name: str) -> Workflow[..., Any] | str:
        """What to start: ours, if we know any, else whatever the client's store has a worker for."""
        return name if self.app is None else self.app.find(name).workflow or name

    def kick(self) -> None:
        """Something was changed here: who waits or watches looks at once."""
        for watcher in self.watchers:
            watcher()

    async def close(self) -> None:
        """Give up messages under way, and close the client if it was opened here."""
        await self.messages.close()
        if self._url is not None and self._opened is not None:
            opened, self._opened = self._opened, None
            await opened.close()

    def _deliver_for(self, client: Client) -> None:
        standing = client.service.deliver
        if standing is None:
            client.service.deliver = self.messages
        elif isinstance(standing, Messenger):
            self.messages = standing
