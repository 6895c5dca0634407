"""The tools: how each is listed, and what a call of it does with its arguments.

Arguments are checked here, field by field and whatever the client has checked, so that a refusal names what to change.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import mcp_types as types

from everstep.errors import InvalidArgument, NotFound, UnknownFunction
from everstep.registry import FunctionInfo, Workflow

from .calls import STATES, Answer, Calls, Progress, refusal
from .schemas import parameters, returned
from .tools import Await, Probe, Tool, Tools, fields, fill

Call = Callable[[dict[str, Any], Progress], Awaitable[Answer]]

_TEXT = {"type": "string"}
_ID = {**_TEXT, "description": "the id that an earlier call answered with"}
_IDS = {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 100}
_WAIT = "wait_seconds"
_RUN_ID = "run_id"
_TAGS = {"type": "object", "additionalProperties": _TEXT}


class Offered(NamedTuple):
    """A tool as it is listed, and what calling it does."""

    listed: types.Tool
    call: Call


def own(calls: Calls, tools: Tools, wait: float) -> list[Offered]:
    made = []
    for entry in tools.entries:
        match entry:
            case Tool():
                made.append(_workflow(calls, tools, entry, wait))
            case Probe():
                made.append(_probe(calls, entry))
            case Await():
                made.append(_await(calls, entry, wait))
    return made


def _workflow(calls: Calls, tools: Tools, tool: Tool, wait: float) -> Offered:
    info = _info(tools, tool)
    name = tool.name or info.name
    schema = parameters(info.signature)
    own = schema["properties"]
    for field in fields(tool.id or ""):
        if field not in own:
            raise InvalidArgument(f"tool {name!r}: {info.name}() has no argument {field!r} for the id template")
    added: dict[str, Any] = {}
    if tool.id is None and _RUN_ID not in own:
        added[_RUN_ID] = {
            **_TEXT,
            "description": "an id of your own for this run, without a dot, where the same arguments are to run again",
        }
    if tool.wait is None and _WAIT not in own:
        added[_WAIT] = _seconds(calls, wait, "0 answers with the id at once")
    given = wait if tool.wait is None else min(tool.wait, calls.max_wait)
    listed = types.Tool(
        name=name,
        description=tool.description or _about(info),
        input_schema={**schema, "properties": {**own, **added}},
        output_schema=_output(*returned(info.signature)),
        annotations=types.ToolAnnotations(idempotent_hint=True),
    )

    async def call(arguments: dict[str, Any], tell: Progress) -> Answer:
        seconds = _number(arguments, _WAIT, given) if _WAIT in added else given
        run_id = _maybe(arguments, _RUN_ID) if _RUN_ID in added else None
        id = await calls.start(tool, info, arguments, run_id)
        await calls.settled([id], seconds, tell)
        data = await calls.shown(id)
        if "error" in data and data["status"] != "halted":
            if _RUN_ID in added:
                data["next"] = f"these arguments stay this run; with another {_RUN_ID} it is tried again"
            return Answer(data, True)
        if "value" not in data and data["status"] != "done":
            data.setdefault("next", f"it goes on by itself; get_run or await_runs with the id {id} has the result")
        return Answer(data)

    return Offered(listed, call)


def _info(tools: Tools, tool: Tool) -> FunctionInfo:
    if isinstance(tool.workflow, Workflow):
        return tool.workflow.app.info(tool.workflow)
    info = tools.app.find(tool.workflow)
    if info.workflow is None:
        raise UnknownFunction(f"{tool.workflow!r} is a step; a tool starts a workflow")
    return info


def _about(info: FunctionInfo) -> str:
    import inspect

    text = inspect.getdoc(info.fn) or f"Run the workflow {info.name}."
    return f"{text}\n\nIt is durable: if it takes long, the answer is its id, and it goes on."


def _output(value: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            "id": _TEXT,
            "status": {**_TEXT, "description": "done, failed, cancelled, timed out, halted, or what it does now"},
            "value": value,
            "error": {"type": "object"},
            "open": {"type": "array", "items": {"type": "object"}, "description": "promises somebody has to settle"},
            "next": _TEXT,
        },
        "required": ["id", "status"],
    }
    return {**schema, "$defs": definitions} if definitions else schema


def _seconds(calls: Calls, default: float, more: str) -> dict[str, Any]:
    return {
        "type": "number",
        "minimum": 0,
        "maximum": calls.max_wait,
        "default": default,
        "description": f"how long to wait for the result; {more}",
    }


def _plain_tool(
    name: str,
    description: str,
    properties: dict[str, Any],
    call: Call,
    *,
    required: tuple[str, ...] = (),
    reads: bool = True,
    destroys: bool = False,
) -> Offered:
    hints = (
        types.ToolAnnotations(read_only_hint=True, open_world_hint=False)
        if reads
        else types.ToolAnnotations(destructive_hint=destroys, open_world_hint=False)
    )
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        schema["required"] = list(required)

    async def checked(arguments: dict[str, Any], tell: Progress) -> Answer:
        for argument in arguments:
            if argument not in properties:
                raise InvalidArgument(f"{name} has no argument {argument!r}; it takes {', '.join(properties)}")
        for argument in required:
            if argument not in arguments:
                raise InvalidArgument(f"{name} needs the argument {argument!r}")
        return await call(arguments, tell)

    return Offered(types.Tool(name=name, description=description, input_schema=schema, annotations=hints), checked)


def _probe(calls: Calls, probe: Probe) -> Offered:
    names = fields(probe.id)

    async def call(arguments: dict[str, Any], tell: Progress) -> Answer:
        return await _found(calls, fill(probe.id, {name: _string(arguments, name) for name in names}))

    properties = dict.fromkeys(names, _ID if probe.id == "{id}" else _TEXT)
    return _plain_tool(probe.name, probe.description, properties, call, required=tuple(names))


async def _found(calls: Calls, id: str) -> Answer:
    try:
        return Answer(await calls.shown(id))
    except NotFound:
        return refusal("NotFound", f"there is no run {id!r}")


def _await(calls: Calls, entry: Await, wait: float, *, first: bool = False) -> Offered:
    names = fields(entry.id)
    if len(names) != 1:
        raise InvalidArgument(f"tool {entry.name!r}: the id template {entry.id!r} must have exactly one field")
    many = f"{names[0]}s"

    async def call(arguments: dict[str, Any], tell: Progress) -> Answer:
        given = arguments[many]
        if not isinstance(given, list) or not given or not all(isinstance(one, str) for one in given):
            raise InvalidArgument(f"{many} must be a list of strings, with one at least")
        if len(given) > 100:
            raise InvalidArgument(f"{many} has {len(given)} items; at most 100 are waited for at a time")
        ids = [one if entry.id == "{id}" else fill(entry.id, {names[0]: one}) for one in given]
        known = {}
        for name, id in zip(given, ids, strict=True):
            found = await _found(calls, id)
            if found.error:
                known[name] = {"id": id, **found.data}
        await calls.settled(
            [id for name, id in zip(given, ids, strict=True) if name not in known],
            _number(arguments, _WAIT, wait),
            tell,
            first=first,
        )
        runs = [known.get(name) or await calls.shown(id) for name, id in zip(given, ids, strict=True)]
        if len(known) == len(given):
            return refusal("NotFound", f"there is no run {', '.join(map(repr, given))}", runs=runs)
        return Answer({"runs": runs})

    properties = {many: _IDS, _WAIT: _seconds(calls, wait, "those that are not done by then say so")}
    return _plain_tool(entry.name, entry.description, properties, call, required=(many,))


def standard(calls: Calls, wait: float) -> list[Offered]:
    async def get(arguments: dict[str, Any], tell: Progress) -> Answer:
        id = _string(arguments, "id")
        found = await _found(calls, id)
        if not found.error and _flag(arguments, "steps"):
            found.data["steps"] = await calls.steps(id)
        return found

    async def search(arguments: dict[str, Any], tell: Progress) -> Answer:
        status = _maybe(arguments, "status")
        if status is not None and status not in STATES:
            raise InvalidArgument(f"status must be one of {', '.join(STATES)}")
        limit = int(_number(arguments, "limit", 50))
        if not 1 <= limit <= 200:
            raise InvalidArgument("limit must be from 1 to 200")
        cursor = _maybe(arguments, "cursor")
        prefix = _maybe(arguments, "prefix") or ""
        return Answer(await calls.search(status, _tags(arguments), prefix, limit, cursor))

    async def settle(arguments: dict[str, Any], tell: Progress) -> Answer:
        if "reject" in arguments and "value" in arguments:
            raise InvalidArgument("give a value to resolve it, or a reason to reject it, not both")
        reject = _maybe(arguments, "reject")
        return Answer(await calls.settle(_string(arguments, "id"), arguments.get("value"), reject))

    async def cancel(arguments: dict[str, Any], tell: Progress) -> Answer:
        return Answer(await calls.cancel(_string(arguments, "id")))

    listen = Await("listen", description="Wait until the first of these runs is done, and tell how all of them are.")
    return [
        _plain_tool(
            "get_run",
            "How a run is, and its result once it is done; with steps, what it has done so far.",
            {"id": _ID, "steps": {"type": "boolean", "default": False}},
            get,
            required=("id",),
        ),
        _await(calls, Await("await_runs"), wait),
        _await(calls, listen, wait, first=True),
        _plain_tool(
            "search_runs",
            "Find runs by status, tags and the beginning of their id, in the order of ids.",
            {
                "status": {"enum": list(STATES)},
                "tags": {**_TAGS, "description": "all must match"},
                "prefix": _TEXT,
                "limit": {"type": "integer", "minimum": 1, "maximum": 200, "default": 50},
                "cursor": {**_TEXT, "description": "of the answer before, for what follows it"},
            },
            search,
        ),
        _plain_tool(
            "settle_promise",
            "Answer what a run waits for: resolve its open promise with a value, or reject it with a reason.",
            {"id": _ID, "value": {"description": "any JSON"}, "reject": {**_TEXT, "description": "why not"}},
            settle,
            required=("id",),
            reads=False,
        ),
        _plain_tool("cancel_run", "Cancel a run.", {"id": _ID}, cancel, required=("id",), reads=False, destroys=True),
    ]


def script(calls: Calls, group: str) -> Offered:
    async def call(arguments: dict[str, Any], tell: Progress) -> Answer:
        given = arguments.get("args", [])
        if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
            raise InvalidArgument("args must be a list of strings")
        timeout = _number(arguments, "timeout_seconds", 0) or None
        id = await calls.script(
            group, _string(arguments, "script"), _string(arguments, "id"), given, _tags(arguments), timeout
        )
        await calls.settled([id], _number(arguments, _WAIT, 0), tell)
        data = await calls.shown(id)
        return Answer(data, "error" in data and data["status"] != "halted")

    properties = {
        "id": {**_TEXT, "description": "a name for it, without a dot; the same name and script again is the same run"},
        "script": {**_TEXT, "description": "run by bash, from the top again if its runner dies"},
        "args": {"type": "array", "items": _TEXT, "description": "$1, $2, ..."},
        "tags": {**_TAGS, "description": "to find it by"},
        "timeout_seconds": {"type": "number", "minimum": 0, "description": "it is given up after so long"},
        _WAIT: _seconds(calls, 0, "0 answers with the id at once"),
    }
    description = (
        "Run a shell script as a durable background task. Its id is its name: ask for it by get_run in any later "
        "session. Exit status 0 gives its output, any other is an error with what it wrote to stderr."
    )
    return _plain_tool(
        "run_script", description, properties, call, required=("id", "script"), reads=False, destroys=True
    )


def _string(arguments: dict[str, Any], name: str) -> str:
    """An argument, taken out. Raises InvalidArgument."""
    value = arguments.pop(name, None)
    if not isinstance(value, str):
        raise InvalidArgument(f"{name} must be a string")
    return value


def _maybe(arguments: dict[str, Any], name: str) -> str | None:
    """The same of one that may be absent."""
    return _string(arguments, name) if arguments.get(name) is not None else None


def _number(arguments: dict[str, Any], name: str, default: float) -> float:
    value = arguments.pop(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise InvalidArgument(f"{name} must be a number of at least 0")
    return float(value)


def _flag(arguments: dict[str, Any], name: str) -> bool:
    value = arguments.get(name, False)
    if not isinstance(value, bool):
        raise InvalidArgument(f"{name} must be true or false")
    return value


def _tags(arguments: dict[str, Any]) -> dict[str, str]:
    tags = arguments.get("tags", {})
    if not isinstance(tags, dict) or not all(isinstance(text, str) for text in tags.values()):
        raise InvalidArgument("tags must be an object of strings")
    return tags
