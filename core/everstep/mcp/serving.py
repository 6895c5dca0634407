"""The tools behind the protocol of the `mcp` package: listed with their schemas, called, listened to."""

from __future__ import annotations

import json
from typing import Any

import anyio
import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourceUpdated
from mcp.shared.exceptions import MCPError

from everstep.client import Client
from everstep.errors import EverstepError, InvalidArgument

from .calls import Answer, Calls, explained
from .offers import Offered, own, script, standard
from .tools import Tools, check_name

Context = ServerRequestContext[Any, Any]

SCHEME = "everstep://promises/"
_INSTRUCTIONS = (
    "Calls are durable: a call that answers with a pending status goes on by itself, whatever becomes of this "
    "connection. Ask for it again by its id. The same call with the same arguments is the same run."
)


def build(client: Client, tools: Tools, wait: float, max_wait: float) -> Server[Any]:
    """See `everstep.mcp.server`."""
    for name, limit in (("wait", wait), ("max_wait", max_wait)):
        if not 0 <= limit <= 3600:
            raise InvalidArgument(f"{name} must be from 0 to 3600 seconds, not {limit!r}")
    calls = Calls(client, max_wait)
    wait = min(wait, max_wait)
    listed = own(calls, tools, wait)
    if tools.standard:
        listed += standard(calls, wait)
    if tools.scripts is not None:
        listed.append(script(calls, tools.scripts))
    offered: dict[str, Offered] = {}
    for one in listed:
        name = check_name(one.listed.name)
        if name in offered:
            raise InvalidArgument(f"two tools are called {name!r}; rename one with Tool(..., name=)")
        offered[name] = one

    async def list_tools(ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[one.listed for one in offered.values()])

    async def call_tool(ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        one = offered.get(params.name)
        if one is None:
            raise MCPError(types.INVALID_PARAMS, f"there is no tool {params.name!r}; there are {', '.join(offered)}")

        async def tell(progress: float, total: float, message: str) -> None:
            await ctx.session.report_progress(progress, total, message)

        try:
            answer = await one.call(dict(params.arguments or {}), tell)
        except Exception as error:
            answer = explained(error)
        return _result(answer)

    async def read(ctx: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        try:
            data = await calls.shown(_id_of(str(params.uri)))
        except EverstepError as error:
            raise MCPError(types.INVALID_PARAMS, str(error)) from None
        content = types.TextResourceContents(uri=params.uri, mime_type="application/json", text=_json(data))
        return types.ReadResourceResult(contents=[content])

    async def templates(ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListResourceTemplatesResult:
        one = types.ResourceTemplate(
            uri_template=SCHEME + "{id}",
            name="promise",
            description="A run or a promise by its id; subscribe to it to be told when it is settled.",
            mime_type="application/json",
        )
        return types.ListResourceTemplatesResult(resource_templates=[one])

    async def resources(ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListResourcesResult:
        return types.ListResourcesResult(resources=[])

    async def listen(ctx: Context, params: types.SubscriptionsListenRequestParams) -> types.SubscriptionsListenResult:
        """One stream: each promise that is listened to is watched until it settles, by this stream alone."""
        bus = InMemorySubscriptionBus()

        async def watch(uri: str) -> None:
            try:
                while (await client.wait(_id_of(uri), 60)).pending:
                    pass
            except EverstepError:
                return  # it does not exist: nothing to tell
            await bus.publish(ResourceUpdated(uri))

        async with anyio.create_task_group() as group:
            for uri in dict.fromkeys(params.notifications.resource_subscriptions or ()):
                group.start_soon(watch, uri)
            answer = await ListenHandler(bus)(ctx, params)
            group.cancel_scope.cancel()
        return answer

    return Server(
        tools.app.name,
        version=_version(),
        instructions=tools.instructions or _INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=resources,
        on_list_resource_templates=templates,
        on_read_resource=read,
        on_subscriptions_listen=listen,
        get_tool_input_schema=lambda name: offered[name].listed.input_schema if name in offered else None,
    )


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("everstep")
    except PackageNotFoundError:
        return "0"


def _result(answer: Answer) -> types.CallToolResult:
    if answer.error:
        text = "\n".join(filter(None, (answer.data["error"]["message"], answer.data.get("next"))))
    else:
        text = _json(answer.data)
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=text)], structured_content=answer.data, is_error=answer.error
    )


def _json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(", ", ": "))


def _id_of(uri: str) -> str:
    from urllib.parse import unquote

    if not uri.startswith(SCHEME):
        raise InvalidArgument(f"{uri!r} is no resource of this server; they begin with {SCHEME}")
    return unquote(uri.removeprefix(SCHEME))
