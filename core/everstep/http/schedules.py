"""Schedules: listed, made and deleted."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from .access import caller
from .answers import answer, plain
from .body import read_object
from .problems import bad
from .site import Site


class Schedules:
    """The routes under `/schedules`."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def known(self, request: Request) -> Response:
        may_see = caller(request).may_see
        found = [plain(one) for one in await self._site.client.schedules()]
        return answer({"schedules": [one for one in found if may_see(one["id"])]})

    async def create(self, request: Request) -> Response:
        known = ("id", "cron", "workflow", "args", "kwargs", "timezone", "timeout", "tags")
        body = await read_object(request, self._site.max_body, known=known)
        id, cron, name = body.text("id"), body.text("cron"), body.text("workflow")
        caller(request).check(id)
        try:
            made = await self._site.client.schedule(
                id,
                cron,
                self._site.workflow(name),
                *body.items("args"),
                timezone=body.optional_text("timezone"),
                timeout=body.seconds("timeout"),
                tags=body.tags("tags"),
                **body.mapping("kwargs"),
            )
        except TypeError as error:
            raise bad("args", str(error)) from error
        return answer(plain(made), 201)

    async def delete(self, id: str) -> Response:
        await self._site.client.unschedule(id)
        return Response(status_code=204)
