"""The chess series as a Worker: an object holds the latest picture, and `/board` shows it to everybody."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from app import Picture, Publisher, app
from workers import DurableObject, Response

from everstep_cloudflare import handler

PAGE = Path(__file__).parent / "python_modules" / "board" / "index.html"


class Board(DurableObject):
    """The latest picture. One that comes late does not replace a later one."""

    async def put(self, text: str) -> None:
        new, old = json.loads(text), json.loads(self.ctx.storage.kv.get("picture") or "null")
        if old is None or (new["game"], new["ply"]) > (old["game"], old["ply"]):
            self.ctx.storage.kv.put("picture", text)

    async def get(self) -> str:
        return str(self.ctx.storage.kv.get("picture") or "null")


def page() -> str:
    """The page, told where its document is."""
    return PAGE.read_text().replace('data-document=""', 'data-document="/board.json"')


def document(picture: dict[str, Any] | None) -> dict[str, Any]:
    """A picture in the form that the page reads."""
    if picture is None:
        return {}
    kinds = {name: "integerValue" if isinstance(value, int) else "stringValue" for name, value in picture.items()}
    fields = {name: {kinds[name]: str(value)} for name, value in picture.items()}
    return {"updateTime": f"{picture['game']}.{picture['ply']}", "fields": fields}


def board(env: Any) -> Any:
    return env.BOARD.get(env.BOARD.idFromName("board"))


class ObjectPublisher(Publisher):
    """Sends the picture on its way; should it be lost, the next move brings another one."""

    def __init__(self, env: Any) -> None:
        self._env = env
        self._under_way: set[asyncio.Future[Any]] = set()

    def publish(self, picture: Picture) -> None:
        sent = asyncio.ensure_future(self._send(json.dumps(asdict(picture))))
        self._under_way.add(sent)
        sent.add_done_callback(self._under_way.discard)

    async def _send(self, text: str) -> None:
        await board(self._env).put(text)


worker = handler(app, setup=lambda env: app.provide(ObjectPublisher(env)))
Run, Index = worker.Run, worker.Index


class Default(worker.Default):
    async def fetch(self, request: Any) -> Any:
        match urlsplit(request.url).path:
            case "/board":
                return Response(page(), headers={"content-type": "text/html; charset=utf-8"})
            case "/board.json":
                found = json.loads(await board(self.env).get())
                return Response.from_json(document(found), status=404 if found is None else 200)
        return await super().fetch(request)

    async def scheduled(self, *given: Any) -> Any:
        return await super().scheduled(*given)

    async def queue(self, *given: Any) -> Any:
        return await super().queue(*given)
