"""The description of the routes, as OpenAPI 3.1. Written by hand: it is shorter than what would generate it."""

from __future__ import annotations

from typing import Any

_STATES = ["pending", "resolved", "rejected", "rejected_canceled", "rejected_timedout"]
_WANTED = [*_STATES, "halted"]
_TEXT = {"type": "string"}
_TAGS = {"type": "object", "additionalProperties": _TEXT}
_SECONDS = {"type": "number", "minimum": 0, "description": "seconds"}
_INSTANT = {"type": "integer", "description": "milliseconds since 1970"}
_MAYBE_INSTANT = {"type": ["integer", "null"], "description": "milliseconds since 1970"}
_WORK = {
    "args": {"type": "array"},
    "kwargs": {"type": "object"},
    "timeout": {**_SECONDS, "description": "seconds until the run is rejected; never by default"},
    "tags": _TAGS,
}


def describe(root: str = "") -> dict[str, Any]:
    """The document, for an app mounted at `root`."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Everstep",
            "version": "1",
            "description": "Start, settle and inspect durable workflows. An id is one segment of a path: "
            "percent-encode its slashes as %2F.",
        },
        "servers": [{"url": root.rstrip("/") or "/"}],
        "paths": {
            "/": {
                "post": _operation(
                    "The Resonate protocol's envelope, version 2026-04-01; every answer is an envelope too",
                    _envelopes(200, 300, 400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 501, 503, 507),
                    body={
                        **_object(
                            {
                                "kind": {**_TEXT, "description": "promise.create, task.acquire, schedule.get, ..."},
                                "head": _object({"corrId": _TEXT, "version": _TEXT, "auth": _TEXT}),
                                "data": {"type": "object"},
                            }
                        ),
                        "required": ["kind", "head", "data"],
                    },
                )
            },
            "/poll/{group}/{id}": {
                "parameters": [_path("group"), _path("id")],
                "get": _operation(
                    "The protocol's messages for a worker, as server-sent events, for as long as it stays",
                    {"200": {"description": "a stream", "content": {"text/event-stream": {}}}, **_problems(400, 501)},
                ),
            },
            "/workflows": {"get": _operation("The workflows that can be started", {"200": _json({"type": "object"})})},
            "/workflows/{name}": {
                "parameters": [_path("name")],
                "post": _operation(
                    "Start a run; it is durable before the answer, and the same id and work again is the same answer",
                    {"202": _json(_ref("Started")), **_problems(400, 404, 409, 413, 415)},
                    body=_object(
                        {
                            "id": {**_TEXT, "description": "without a dot; at most 1,000 bytes"},
                            **_WORK,
                            "on_conflict": {"enum": ["raise", "attach"], "default": "raise"},
                        }
                    ),
                ),
            },
            "/promises": {
                "get": _operation(
                    "Search",
                    {"200": _json(_ref("Page")), **_problems(400)},
                    parameters=[
                        _query("state", {"enum": _WANTED}),
                        _query("tag", {"type": "array", "items": _TEXT}, "name=value; all must match"),
                        _query("prefix", _TEXT, "of the id"),
                        _query("roots", {"type": "boolean", "default": True}, "only the tops of trees"),
                        _query("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}),
                        _query("cursor", _TEXT, "of the page before"),
                    ],
                )
            },
            "/promises/{id}": {
                "parameters": [_path("id")],
                "get": _operation(
                    "State and value",
                    {"200": _json(_ref("Promise")), **_problems(400, 404)},
                    parameters=[
                        _query("wait", _SECONDS, "hold the answer until it settles, this many seconds at most")
                    ],
                ),
            },
            "/promises/{id}/tree": {
                "parameters": [_path("id")],
                "get": _operation("What a run created", {"200": _json(_ref("Tree")), **_problems(400, 404)}),
            },
            "/promises/{id}/resolve": _settle("Give it a value", {"value": {}}),
            "/promises/{id}/reject": _settle(
                "Give it an error", {"error": {"oneOf": [_TEXT, _object({"type": _TEXT, "message": _TEXT})]}}
            ),
            "/promises/{id}/cancel": _settle("Cancel it, and what it started", None),
            "/promises/{id}/halt": _settle("Stop a run until it is continued", {"reason": _TEXT}),
            "/promises/{id}/continue": _settle("Let a halted run go on", None),
            "/approve/{token}": {
                "parameters": [_path("token")],
                "get": _operation(
                    "Ask a person; changes nothing", {**_problems(), **_html(200, 403, 404, 410)}, open_=True
                ),
                "post": _operation(
                    "The person's answer",
                    {**_problems(413, 415), **_html(200, 400, 403, 404, 409, 410)},
                    body=_object({"choice": _TEXT}),
                    media="application/x-www-form-urlencoded",
                    open_=True,
                ),
            },
            "/schedules": {
                "get": _operation("Every schedule", {"200": _json({"type": "object"})}),
                "post": _operation(
                    "Start a workflow by a cron expression",
                    {"201": _json({"type": "object"}), **_problems(400, 404, 409, 413, 415)},
                    body={
                        **_object({"id": _TEXT, "cron": _TEXT, "workflow": _TEXT, "timezone": _TEXT, **_WORK}),
                        "required": ["id", "cron", "workflow"],
                    },
                ),
            },
            "/schedules/{id}": {
                "parameters": [_path("id")],
                "delete": _operation("Remove it", {"204": {"description": "removed"}, **_problems(400, 404)}),
            },
            "/events": {
                "get": _operation(
                    "Server-sent events: `runs` and `run`, whenever they change",
                    {"200": {"description": "a stream", "content": {"text/event-stream": {}}}, **_problems(400)},
                    parameters=[
                        _query("run", _TEXT, "whose tree to send"),
                        _query("state", {"enum": _WANTED}),
                        _query("prefix", _TEXT),
                        _query("limit", {"type": "integer"}),
                    ],
                )
            },
        },
        "security": [{}, {"bearer": []}],
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Started": _object({"id": _TEXT, "promise": _TEXT, "wait": _TEXT, "tree": _TEXT}),
                "Promise": _PROMISE,
                "Tree": {
                    "allOf": [
                        _ref("Promise"),
                        _object({"children": {"type": "array", "items": _ref("Tree")}}),
                    ]
                },
                "Page": _object(
                    {
                        "promises": {"type": "array", "items": _ref("Promise")},
                        "cursor": {"type": ["string", "null"], "description": "of the next page, if there is one"},
                    }
                ),
                "Envelope": _object(
                    {
                        "kind": _TEXT,
                        "head": _object({"corrId": _TEXT, "status": {"type": "integer"}, "version": _TEXT}),
                        "data": {"description": "an object, or what is wrong in words"},
                    }
                ),
                "Problem": _object(
                    {
                        "type": _TEXT,
                        "title": _TEXT,
                        "status": {"type": "integer"},
                        "detail": _TEXT,
                        "field": {**_TEXT, "description": "what is wrong, where one thing is"},
                    }
                ),
            },
        },
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


_PROMISE = _object(
    {
        "id": _TEXT,
        "state": {"enum": _STATES},
        "kind": _TEXT,
        "name": {**_TEXT, "description": "of the function"},
        "args": {"type": "array"},
        "kwargs": {"type": "object"},
        "value": {"description": "the result; null unless resolved"},
        "error": {"type": ["object", "null"], "description": "type, message and what else was recorded"},
        "created_at": _INSTANT,
        "settled_at": _MAYBE_INSTANT,
        "timeout_at": _MAYBE_INSTANT,
        "tags": _TAGS,
        "task": {"enum": ["pending", "acquired", "suspended", "halted", "fulfilled", None]},
        "version": {"type": "integer"},
        "generation": {"type": "integer"},
        "attempt": {"type": "integer"},
        "waiting_for": {"type": "array", "items": _TEXT},
        "due_at": _MAYBE_INSTANT,
        "reason": {"type": ["string", "null"], "description": "why it is halted"},
    }
)


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": "ok", "content": {"application/json": {"schema": schema}}}


def _html(*statuses: int) -> dict[str, Any]:
    return {str(one): {"description": "a page for a person", "content": {"text/html": {}}} for one in statuses}


def _problems(*statuses: int) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": _ref("Problem")}}
    return {str(one): {"description": "a problem", "content": content} for one in (*statuses, 401, 403, 429, 503, 507)}


def _envelopes(*statuses: int) -> dict[str, Any]:
    content = {"application/json": {"schema": _ref("Envelope")}}
    return {str(one): {"description": "an envelope", "content": content} for one in statuses}


def _path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": _TEXT}


def _query(name: str, schema: dict[str, Any], description: str = "") -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _settle(summary: str, properties: dict[str, Any] | None) -> dict[str, Any]:
    body = None if properties is None else _object(properties)
    answers = {"200": _json(_ref("Promise")), **_problems(400, 404, 409, 413, 415)}
    return {"parameters": [_path("id")], "post": _operation(summary, answers, body=body)}


def _operation(
    summary: str,
    responses: dict[str, Any],
    *,
    parameters: list[dict[str, Any]] | None = None,
    body: dict[str, Any] | None = None,
    media: str = "application/json",
    open_: bool = False,
) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": summary, "responses": responses}
    if parameters:
        operation["parameters"] = parameters
    if body is not None:
        operation["requestBody"] = {"content": {media: {"schema": body}}}
    if open_:
        operation["security"] = [{}]
    return operation
