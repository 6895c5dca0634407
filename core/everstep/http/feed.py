"""Live updates: one poller of the store for all connections.

A connection subscribes to topics (a list of runs, one run's tree). Every topic somebody watches is fetched once per
round however many watch it, and a text goes out only when it differs from the one before. A slow connection skips
texts, it never queues them. With nobody watching, nothing is polled.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

INTERVAL = 0.4
_SHARE = 10
"""A round may take a tenth of the time: a store that answers slowly is asked less often."""


class Topic(NamedTuple):
    """`runs` with a query, or `run` with an id in `prefix`."""

    name: str
    prefix: str = ""
    state: str | None = None
    limit: int = 0


class Subscription:
    """The news of some topics for one connection."""

    def __init__(self, topics: tuple[Topic, ...]) -> None:
        self.topics = topics
        self.changed = asyncio.Event()
        self.news: dict[Topic, str] = {}

    def put(self, topic: Topic, text: str) -> None:
        self.news[topic] = text
        self.changed.set()

    async def next(self, patience: float) -> dict[Topic, str]:
        """What is new, as soon as there is something; empty after `patience` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self.changed.wait()
        self.changed.clear()
        news, self.news = self.news, {}
        return news


class Feed:
    """Args:
    fetch: the text of a topic; must not raise.
    interval: seconds between two rounds, at least.
    """

    def __init__(self, fetch: Callable[[Topic], Awaitable[str]], interval: float = INTERVAL) -> None:
        self._fetch = fetch
        self._interval = interval
        self._subscriptions: list[Subscription] = []
        self._latest: dict[Topic, str] = {}
        self._kick = asyncio.Event()
        self._poller: asyncio.Task[None] | None = None
        self.stopped = False
        self.rounds = 0

    @contextlib.asynccontextmanager
    async def subscribe(self, *topics: Topic) -> AsyncIterator[Subscription]:
        """Watch topics; the first news is their present text."""
        subscription = Subscription(topics)
        for topic in topics:
            if topic in self._latest:
                subscription.put(topic, self._latest[topic])
        self._subscriptions.append(subscription)
        if self._poller is None:
            self._poller = asyncio.create_task(self._poll(), name="everstep feed")
        self._kick.set()
        try:
            yield subscription
        finally:
            self._subscriptions.remove(subscription)
            if not self._subscriptions and self._poller is not None:
                self._poller.cancel()
                self._poller = None
                self._latest.clear()

    def kick(self) -> None:
        """Something was changed here: look at once."""
        self._kick.set()

    def stop(self) -> None:
        """Let every connection end."""
        self.stopped = True
        for subscription in self._subscriptions:
            subscription.changed.set()

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._kick.clear()
            began = loop.time()
            watched = {topic: None for one in self._subscriptions for topic in one.topics}
            for topic in watched:
                text = await self._fetch(topic)
                if self._latest.get(topic) != text:
                    self._latest[topic] = text
                    for one in self._subscriptions:
                        if topic in one.topics:
                            one.put(topic, text)
            for topic in self._latest.keys() - watched.keys():
                del self._latest[topic]
            self.rounds += 1
            pause = max(self._interval, (loop.time() - began) * _SHARE)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._kick.wait()
