"""Promises: found, read, waited for and settled."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from everstep.errors import NotFound
from everstep.promise import Record, TaskState, project
from everstep.rows import from_row

from .access import caller, within
from .answers import answer
from .body import Fields, read_object, seconds_of
from .brief import brief, brief_tree
from .problems import bad
from .query import Query
from .site import Site
from .waits import Waits

if TYPE_CHECKING:
    from everstep.views import PromiseView


class Promises:
    """The routes under `/promises`."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._waits = Waits(self._worth_a_look)
        site.watchers.append(self._waits.kick)

    async def search(self, request: Request) -> Response:
        query = Query(request, ("state", "tag", "prefix", "limit", "cursor", "roots", "brief"))
        views, cursor = await self._site.client.search(
            state=query.state(),
            tags=query.tags(),
            prefix=within(caller(request), query.text("prefix") or ""),
            roots=query.flag("roots", True),
            limit=query.limit(100),
            cursor=query.text("cursor") or None,
        )
        shape = brief if query.flag("brief", False) else _full
        body: dict[str, Any] = {"promises": [shape(view) for view in views], "cursor": cursor}
        if shape is brief:
            body["now"] = self._site.clock.now()
        return answer(body)

    async def get(self, id: str, request: Request) -> Response:
        query = Query(request, ("wait",))
        wait = query.text("wait")
        if wait is None:
            return answer((await self._site.client.get(id)).to_dict())
        limit = min(seconds_of(wait, "wait"), self._site.max_wait)
        return answer((await self._wait(id, limit, request)).to_dict())

    async def _wait(self, id: str, limit: float, request: Request) -> PromiseView:
        """Hold the request until the promise settles, the time is over, the caller leaves or the server goes down."""
        view = await self._site.client.get(id)
        if not view.pending or view.halted or limit <= 0:
            return view
        waiting = asyncio.ensure_future(self._waits.until(id, limit))
        others = [asyncio.ensure_future(_left(request)), asyncio.ensure_future(self._site.stopping.wait())]
        try:
            await asyncio.wait([waiting, *others], return_when=asyncio.FIRST_COMPLETED)
            if others[0].done() and not waiting.done():
                raise ClientDisconnect
            return await self._site.client.get(id)
        finally:
            for one in (waiting, *others):
                one.cancel()
            await asyncio.gather(waiting, *others, return_exceptions=True)

    async def _worth_a_look(self, ids: Collection[str]) -> list[str]:
        """Those of the promises somebody waits for that are settled, halted or gone."""
        client = self._site.client
        rows = await client.store.load(list(ids))
        now = client.clock.now()
        shown = {id: project(from_row(row), now) for id, row in rows.items()}
        found = [id for id, record in shown.items() if not record.pending or _halted(record)]
        for id in ids:
            # A timer that lives in its run has no row (rule B1).
            if id not in rows:
                with contextlib.suppress(NotFound):
                    if (await client.get(id)).pending:
                        continue
                found.append(id)
        return found

    async def tree(self, id: str, request: Request) -> Response:
        query = Query(request, ("brief",))
        tree = await self._site.client.tree(id)
        if query.flag("brief", False):
            return answer({"now": self._site.clock.now(), "run": brief_tree(tree)})
        return answer(tree.to_dict())

    async def settle(self, id: str, verb: str, request: Request) -> Response:
        client = self._site.client
        match verb:
            case "resolve":
                body = await read_object(request, self._site.max_body, known=("value",))
                view = await client.resolve(id, body.any("value"))
            case "reject":
                body = await read_object(request, self._site.max_body, known=("error",))
                view = await client.reject(id, _error(body))
            case "cancel":
                await read_object(request, self._site.max_body, known=())
                view = await client.cancel(id)
            case "halt":
                body = await read_object(request, self._site.max_body, known=("reason",))
                await client.halt(id, body.optional_text("reason") or "")
                view = await client.get(id)
            case _:
                await read_object(request, self._site.max_body, known=())
                await client.continue_(id)
                view = await client.get(id)
        self._site.kick()
        return answer(view.to_dict())


def _halted(record: Record) -> bool:
    return record.task is not None and record.task.state is TaskState.HALTED


async def _left(request: Request) -> None:
    """Return when the caller closes the connection."""
    with contextlib.suppress(RuntimeError):
        while (await request.receive())["type"] != "http.disconnect":
            pass


def _error(body: Fields) -> str | dict[str, Any]:
    error = body.any("error")
    if error is None:
        return "rejected from outside"
    if isinstance(error, str):
        return error
    if not isinstance(error, dict):
        raise bad("error", 'error must be a string or an object with "type" and "message"')
    for name in ("type", "message"):
        if not isinstance(error.get(name, ""), str):
            raise bad(f"error.{name}", f"error.{name} must be a string")
    return error


def _full(view: PromiseView) -> dict[str, Any]:
    return view.to_dict()
