"""A Worker behind Cloudflare Access, whose clock can be put forward."""

from __future__ import annotations

from typing import Any

from workers import Response

from everstep import App, Context
from everstep.clock import SystemClock
from everstep_cloudflare import access, handler

app = App("guarded")


@app.workflow
async def hello(ctx: Context) -> str:
    return "hello"


class Clock(SystemClock):
    ahead = 0

    def now(self) -> int:
        return super().now() + self.ahead


clock = Clock()
worker = handler(app, auth=access("team.example", "tag", clock=clock))
Run, Index = worker.Run, worker.Index


class Default(worker.Default):  # type: ignore[name-defined]
    async def fetch(self, request: Any) -> Any:
        _path, _, seconds = request.url.partition("/ahead/")
        if seconds:
            Clock.ahead = int(seconds) * 1000
            return Response("null")
        return await super().fetch(request)
