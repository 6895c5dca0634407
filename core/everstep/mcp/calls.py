"""Tool calls carried out: start, look, wait, settle, search. What comes out is JSON; the protocol is added elsewhere.

A refusal is an answer for a model to act on: one sentence that says what to change, never a stack trace. A run that
failed is a refusal of the tool that started it, and an answer of the tools that look.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from everstep.client import Client
from everstep.clock import to_datetime
from everstep.errors import AlreadySettled, Conflict, EverstepError, InvalidArgument, NotFound, PlatformError
from everstep.plain import plain
from everstep.promise import Kind
from everstep.registry import FunctionInfo
from everstep.views import PromiseView

from .tools import Tool, fields, fill

log = logging.getLogger("everstep.mcp")

Progress = Callable[[float, float, str], Awaitable[None]]
STATES = {
    "pending": "pending",
    "halted": "halted",
    "done": "resolved",
    "failed": "rejected",
    "cancelled": "rejected_canceled",
    "timed out": "rejected_timedout",
}
_TELL_EVERY = 5.0
_MOST_OPEN = 20


class Answer(NamedTuple):
    """What a call gives: JSON, and whether it is an error the caller is to see."""

    data: dict[str, Any]
    error: bool = False


def refusal(kind: str, message: str, **more: Any) -> Answer:
    return Answer({**more, "error": {"type": kind, "message": message}}, True)


def explained(error: Exception) -> Answer:
    """Any exception as a refusal; what nobody foresaw is logged with its trace, and told without it."""
    match error:
        case AlreadySettled():
            return refusal("AlreadySettled", str(error))
        case Conflict():
            return refusal("Conflict", f"{str(error).partition(';')[0]}; name this one with another id")
        case PlatformError():
            return refusal(type(error).__name__, f"{error}; nothing is lost, call again later")
        case EverstepError() | TypeError():
            return refusal(type(error).__name__, str(error))
    log.error("a tool call failed", exc_info=error)
    return refusal("InternalError", f"the server failed ({type(error).__name__}); its log says more")


class Calls:
    """The tools' work on one client."""

    def __init__(self, client: Client, max_wait: float) -> None:
        self.client = client
        self.max_wait = max_wait

    async def start(self, tool: Tool, info: FunctionInfo, arguments: Mapping[str, Any], run_id: str | None) -> str:
        """Start the run of a call, or find it; returns its id. Raises what `Client.start` raises."""
        signature = info.signature
        args, kwargs = _placed(info, arguments)
        # As typed values and back, so that 52 and 52.0, or a default spelt out, are the same call.
        args, kwargs = signature.coerce_args(*signature.bind(*signature.plain_args(args, kwargs)))
        flat, named = signature.plain_args(args, kwargs)
        chosen = run_id
        if chosen is None and tool.id is not None:
            given = {**dict(zip(signature.names, flat, strict=False)), **named}
            for parameter in signature.parameters:
                if parameter.default is not parameter.empty:
                    given.setdefault(parameter.name, plain(parameter.default))
            chosen = fill(tool.id, {name: given[name] for name in fields(tool.id)})
        if chosen is None:
            chosen = f"{tool.name or info.name}-{self.client.codec.digest(info.name, flat, named)}".replace(".", "%2E")
        starter = self.client.options(id=chosen, on_conflict=tool.on_conflict)
        handle = await starter.start(info.workflow or info.name, *args, **kwargs)
        return handle.id

    async def settled(self, ids: Sequence[str], seconds: float, tell: Progress, *, first: bool = False) -> None:
        """Wait until all of these are settled or halted, or the first of them is, or the time is over.

        Raises NotFound.
        """
        limit = min(seconds, self.max_wait)
        for id in ids:
            await self.client.get(id)
        if limit <= 0 or not ids:
            return
        waiting = {asyncio.ensure_future(self.client.wait(id, limit)) for id in dict.fromkeys(ids)}
        started = asyncio.get_running_loop().time()
        try:
            pending = waiting
            while pending:
                when = asyncio.FIRST_COMPLETED if first else asyncio.ALL_COMPLETED
                done, pending = await asyncio.wait(pending, timeout=_TELL_EVERY, return_when=when)
                for one in done:
                    one.result()
                if done and first:
                    return
                if pending:
                    passed = asyncio.get_running_loop().time() - started
                    await tell(passed, limit, f"{len(waiting) - len(pending)} of {len(waiting)} done")
        finally:
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def shown(self, id: str) -> dict[str, Any]:
        """How a run is. Raises NotFound."""
        view = await self.client.get(id)
        data: dict[str, Any] = {"id": view.id, "status": view.word}
        if view.state == "resolved":
            data["value"] = view.value
        elif not view.pending:
            data["error"] = _error(view)
        elif view.halted:
            data["error"] = {"type": "Halted", "message": view.reason or "halted by hand"}
        else:
            if view.error is not None:
                data["retrying"] = str(view.error.get("message", ""))
            waits = await self._open(view)
            if waits:
                data["open"] = waits
                data["next"] = "settle_promise with the id of an open promise lets it go on"
        return data

    async def _open(self, view: PromiseView) -> list[dict[str, Any]]:
        """The promises, at any depth, that somebody has to settle before this run goes on."""
        found: list[dict[str, Any]] = []
        if view.kind == Kind.PROMISE:
            return [_promise(view)]
        todo, seen = list(view.waiting_for), set[str]()
        while todo and len(seen) < _MOST_OPEN:
            id = todo.pop(0)
            if id in seen:
                continue
            seen.add(id)
            try:
                one = await self.client.get(id)
            except NotFound:
                continue
            if one.pending and one.kind == Kind.PROMISE:
                found.append(_promise(one))
            todo += one.waiting_for
        return found

    async def steps(self, id: str) -> list[dict[str, Any]]:
        """What a run has done so far, flat. Raises NotFound."""
        tree = await self.client.tree(id)
        return [
            {"id": view.id, "kind": view.kind, "name": view.name, "status": view.word}
            for view in list(tree.walk())[1:200]
        ]

    async def settle(self, id: str, value: Any, reject: str | None) -> dict[str, Any]:
        """Settle a promise that waits for somebody. Raises NotFound, AlreadySettled, InvalidArgument."""
        view = await self.client.get(id)
        if view.kind not in (Kind.PROMISE, ""):
            raise InvalidArgument(f"{id!r} is a {view.kind or 'task'} at work, not a promise that waits to be settled")
        if reject is not None:
            await self.client.reject(id, reject)
        else:
            await self.client.resolve(id, value)
        return await self.shown(id)

    async def cancel(self, id: str) -> dict[str, Any]:
        """Cancel a run. Raises NotFound, AlreadySettled."""
        await self.client.cancel(id)
        return await self.shown(id)

    async def search(
        self, status: str | None, tags: Mapping[str, str], prefix: str, limit: int, cursor: str | None
    ) -> dict[str, Any]:
        """Runs, in id order. Raises InvalidArgument."""
        views, more = await self.client.search(
            state=None if status is None else STATES[status], tags=tags, prefix=prefix, limit=limit, cursor=cursor
        )
        runs = [
            {
                "id": view.id,
                "status": view.word,
                "name": view.name,
                "created_at": to_datetime(view.created_at).isoformat(),
                "tags": {name: text for name, text in view.tags.items() if ":" not in name},
            }
            for view in views
        ]
        return {"runs": runs, **({"cursor": more} if more is not None else {})}

    async def script(
        self, group: str, text: str, id: str, args: list[str], tags: Mapping[str, str], timeout: float | None
    ) -> str:
        """Submit a script; returns its id. Raises Conflict, InvalidId."""
        target = f"bash://{group}"
        starter = self.client.options(id=id, tags=dict(tags) or None, timeout=timeout, target=target)
        return (await starter.start("script", text, *args)).id


def _placed(info: FunctionInfo, arguments: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Arguments by name as a call: what is positional alone, or collected by *args, goes by position."""
    args: list[Any] = []
    kwargs = dict(arguments)
    rest = next((one for one in info.signature.parameters if one.kind is one.VAR_POSITIONAL), None)
    for parameter in info.signature.parameters:
        by_position = parameter.kind is parameter.POSITIONAL_ONLY
        if rest is not None and rest.name in kwargs and parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            by_position = True
        default = parameter.default
        if parameter.kind is parameter.VAR_POSITIONAL and parameter.name in kwargs:
            extra = kwargs.pop(parameter.name)
            if not isinstance(extra, list):
                raise InvalidArgument(f"{parameter.name} must be a list")
            args += extra
        elif by_position and parameter.name in kwargs:
            args.append(kwargs.pop(parameter.name))
        elif by_position and default is not parameter.empty and rest is not None:
            args.append(default)
        elif parameter.name in kwargs and default is not parameter.empty and _same(kwargs[parameter.name], default):
            del kwargs[parameter.name]
    return args, kwargs


def _same(given: Any, default: Any) -> bool:
    try:
        flat = plain(default)
    except EverstepError:
        return False
    return bool(flat == given) and isinstance(flat, bool) is isinstance(given, bool)


def _error(view: PromiseView) -> dict[str, Any]:
    error = view.error or {}
    found = {"type": str(error.get("type", "Failed")), "message": str(error.get("message", ""))}
    attributes = error.get("attributes")
    return {**found, **({"attributes": attributes} if attributes else {})}


def _promise(view: PromiseView) -> dict[str, Any]:
    until = {} if view.timeout_at is None else {"until": to_datetime(view.timeout_at).isoformat()}
    return {"id": view.id, **until}
