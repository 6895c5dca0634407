"""What the live page is told while it looks on: the list of runs, and one run's tree."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from everstep.errors import NotFound

from .access import caller, within
from .answers import event_stream
from .brief import brief, brief_tree
from .feed import Feed, Topic
from .problems import problem_of
from .query import Query
from .site import Site
from .strict import dumps

HEARTBEAT = 15.0


class Live:
    """The route `/events`."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.feed = Feed(self._fetch)
        site.watchers.append(self.feed.kick)

    async def events(self, request: Request) -> Response:
        query = Query(request, ("run", "state", "prefix", "limit"))
        prefix = within(caller(request), query.text("prefix") or "")
        topics = [Topic("runs", prefix, query.state(), query.limit(100))]
        if run := query.text("run"):
            caller(request).check(run)
            topics.append(Topic("run", run))
        return event_stream(self._stream(topics))

    async def _stream(self, topics: list[Topic]) -> AsyncIterator[bytes]:
        yield b"retry: 2000\n\n"
        async with self.feed.subscribe(*topics) as subscription:
            while not self.feed.stopped:
                news = await subscription.next(HEARTBEAT)
                if not news:
                    yield b": still here\n\n"
                for topic, text in news.items():
                    data = f'{{"now":{self._site.clock.now()},{text}}}'
                    yield f"event: {topic.name}\ndata: {data}\n\n".encode()

    async def _fetch(self, topic: Topic) -> str:
        """A topic's members of a JSON object. JSON has no raw line break, so it is one line of an event."""
        try:
            if topic.name == "run":
                run = brief_tree(await self._site.client.tree(topic.prefix))
                return _members({"id": topic.prefix, "run": run})
            views, cursor = await self._site.client.search(state=topic.state, prefix=topic.prefix, limit=topic.limit)
            return _members({"promises": [brief(view) for view in views], "cursor": cursor})
        except NotFound:
            return _members({"id": topic.prefix, "run": None})
        except Exception as error:
            return _members({"trouble": problem_of(error).detail})


def _members(values: dict[str, Any]) -> str:
    return dumps(values).decode()[1:-1]
