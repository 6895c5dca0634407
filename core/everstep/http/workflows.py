"""Workflows: listed, and started; the start is durable before the answer because the client's start is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from everstep.edge import new_id

from .access import caller
from .answers import answer
from .body import read_object
from .paths import segment
from .problems import bad
from .site import Site

if TYPE_CHECKING:
    from everstep.registry import Workflow


class Workflows:
    """The routes under `/workflows`."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def known(self, request: Request) -> Response:
        ours = self._site.app.workflows if self._site.app is not None else []
        shown = [{"name": one.name, "version": one.version, "parameters": _parameters(one)} for one in ours]
        return answer({"workflows": shown})

    async def start(self, name: str, request: Request) -> Response:
        known = ("id", "args", "kwargs", "timeout", "tags", "on_conflict")
        body = await read_object(request, self._site.max_body, known=known)
        on_conflict = body.optional_text("on_conflict") or "raise"
        if on_conflict not in ("raise", "attach"):
            raise bad("on_conflict", 'on_conflict must be "raise" or "attach"')
        principal = caller(request)
        id = body.optional_text("id")
        if id is not None:
            principal.check(id)
        elif principal.within:
            id = principal.within + new_id(name)
        options: dict[str, Any] = {
            "id": id,
            "timeout": body.seconds("timeout"),
            "tags": body.tags("tags"),
            "on_conflict": on_conflict,
        }
        args, kwargs = body.items("args"), body.mapping("kwargs")
        try:
            handle = await self._site.client.options(**options).start(self._site.workflow(name), *args, **kwargs)
        except TypeError as error:
            raise bad("args", str(error)) from error
        self._site.kick()
        address = f"{quote(request.scope.get('root_path', '').rstrip('/'))}/promises/{segment(handle.id)}"
        body_out = {"id": handle.id, "promise": address, "wait": f"{address}?wait=30", "tree": f"{address}/tree"}
        return answer(body_out, 202, {"location": address})


def _parameters(workflow: Workflow[..., Any]) -> list[str]:
    """What it takes, for a person: `cents`, `pause=1.0`."""
    found = []
    for one in workflow.app.info(workflow).signature.parameters:
        stars = "*" if one.kind is one.VAR_POSITIONAL else "**" if one.kind is one.VAR_KEYWORD else ""
        found.append(f"{stars}{one.name}" + ("" if one.default is one.empty else f"={one.default!r:.40}"))
    return found
