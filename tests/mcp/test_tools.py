"""Tools declared, listed and called; what is refused is refused in one sentence and starts nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from everstep import App, Context, InvalidArgument, Retry
from everstep.errors import StoreUnavailable
from everstep.mcp import Await, Probe, Tool, Tools
from everstep.mcp.tools import fields, fill
from tests.mcp.support import asking, at_desk, said

app = App("desk", retry=Retry(attempts=1))
ran: list[str] = []


@app.step
def note(text: str) -> str:
    ran.append(text)
    return text


@app.workflow
async def echo(ctx: Context, text: str, times: int = 1, loud: bool = False) -> str:
    """Say it again."""
    said = await ctx.run(note, text * times)
    return said.upper() if loud else said


@app.workflow
async def broken(ctx: Context, secret: str) -> None:
    raise ValueError("it does not work")


@app.workflow
async def asks(ctx: Context, question: str) -> Any:
    return await ctx.promise(tags={"question": question})


@app.workflow
async def asks_through(ctx: Context, question: str) -> Any:
    return await ctx.rpc(asks, question)


@app.workflow
async def total(ctx: Context, *numbers: float, label: str = "sum") -> str:
    return f"{label} {sum(numbers)}"


@pytest.fixture(autouse=True)
def _fresh() -> None:
    ran.clear()


def test_what_is_listed() -> None:
    async def talk(client: Any, _: Any) -> dict[str, Any]:
        return {tool.name: tool for tool in (await client.list_tools()).tools}

    listed = at_desk(app, talk)

    assert {"echo", "broken", "asks", "asks_through", "total"} <= set(listed)
    assert {"get_run", "await_runs", "listen", "search_runs", "settle_promise", "cancel_run"} <= set(listed)
    assert "run_script" not in listed, "running any program is never offered unasked"
    assert str(listed["echo"].description).startswith("Say it again.")
    assert set(listed["echo"].input_schema["properties"]) == {"text", "times", "loud", "run_id", "wait_seconds"}
    assert listed["echo"].output_schema["properties"]["value"] == {"type": "string"}
    assert listed["get_run"].annotations.read_only_hint
    assert listed["cancel_run"].annotations.destructive_hint


def test_a_call_is_its_arguments_whatever_their_form() -> None:
    async def talk(client: Any, _: Any) -> list[str]:
        calls = [
            {"text": "a"},
            {"text": "a", "times": 1},
            {"times": 1, "text": "a", "loud": False},
            {"text": "a", "loud": True},
            {"text": "a", "run_id": "mine"},
        ]
        return [(await said(client, "echo", **one))[1]["id"] for one in calls]

    ids = at_desk(app, talk)

    assert ids[0] == ids[1] == ids[2]
    assert len(set(ids)) == 3
    assert ids[4] == "mine"
    assert "a" in ran
    assert len(ran) == 3


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("echo", {}, "missing the argument 'text'"),
        ("echo", {"text": 3}, "argument 'text' of echo(): expected str, got int"),
        ("echo", {"text": "a", "txet": "b"}, "unexpected argument 'txet'; did you mean 'text'?"),
        ("echo", {"text": "a", "run_id": "a.b"}, "has a dot"),
        ("echo", {"text": "a", "run_id": 3}, "run_id must be a string"),
        ("echo", {"text": "a", "wait_seconds": -1}, "wait_seconds must be a number of at least 0"),
        ("echo", {"text": "a", "wait_seconds": "long"}, "wait_seconds must be a number"),
        ("echo", {"text": "a" * 300_000}, "at most"),
        ("total", {"numbers": 3}, "numbers must be a list"),
        ("get_run", {}, "get_run needs the argument 'id'"),
        ("get_run", {"id": 3}, "id must be a string"),
        ("get_run", {"id": ""}, "id is empty"),
        ("get_run", {"id": "nobody"}, "there is no run 'nobody'"),
        ("get_run", {"id": "x", "run": "y"}, "get_run has no argument 'run'; it takes id, steps"),
        ("await_runs", {"ids": []}, "ids must be a list of strings, with one at least"),
        ("await_runs", {"ids": ["x"] * 101}, "at most 100"),
        ("search_runs", {"status": "great"}, "status must be one of pending, halted, done"),
        ("search_runs", {"limit": 0}, "limit must be from 1 to 200"),
        ("search_runs", {"tags": {"a": 1}}, "tags must be an object of strings"),
        ("search_runs", {"cursor": 3}, "cursor must be a string"),
        ("settle_promise", {"id": "nobody", "value": 1}, "no promise 'nobody'"),
        ("settle_promise", {"id": "x", "value": 1, "reject": "no"}, "not both"),
        ("cancel_run", {"id": "nobody"}, "no promise 'nobody'"),
    ],
)
def test_what_is_refused(tool: str, arguments: dict[str, Any], words: str) -> None:
    async def talk(client: Any, runtime: Any) -> tuple[bool, dict[str, Any]]:
        answer = await said(client, tool, **arguments)
        views, _ = await runtime.client.search()
        assert views == [], "nothing was started"
        return answer

    error, data = at_desk(app, talk)

    assert error
    assert words in data["error"]["message"]


def test_a_failed_run_is_an_error_of_its_tool_and_an_answer_of_those_that_look() -> None:
    async def talk(client: Any, _: Any) -> tuple[Any, Any, Any]:
        failed = await client.call_tool("broken", {"secret": "s"})
        id = failed.structured_content["id"]
        return failed, await said(client, "get_run", id=id, steps=True), await said(client, "await_runs", ids=[id])

    failed, looked, awaited = at_desk(app, talk)

    assert failed.is_error
    assert failed.content[0].text.splitlines()[0] == "it does not work"
    assert "run_id" in failed.content[0].text, "how to try again"
    assert failed.structured_content["error"] == {"type": "ValueError", "message": "it does not work"}
    assert looked[0] is False
    assert (looked[1]["status"], looked[1]["steps"]) == ("failed", [])
    assert awaited[1]["runs"][0]["status"] == "failed"


@pytest.mark.parametrize("workflow", ["asks", "asks_through"])
def test_an_open_promise_is_found_wherever_it_is_and_settled(workflow: str) -> None:
    async def talk(client: Any, _: Any) -> dict[str, Any]:
        waiting = await asking(client, workflow, question="why")
        (promise,) = waiting["open"]
        assert (await said(client, "settle_promise", id=waiting["id"], value=1))[0], "a run is not settled by hand"
        await said(client, "settle_promise", id=promise["id"], value={"because": 1})
        assert not (await said(client, "settle_promise", id=promise["id"], value={"because": 1}))[0], "twice is once"
        error, data = await said(client, "settle_promise", id=promise["id"], value="else")
        assert error
        assert data["error"]["type"] == "AlreadySettled"
        return (await said(client, "await_runs", ids=[waiting["id"]]))[1]["runs"][0]

    assert at_desk(app, talk)["value"] == {"because": 1}


def test_a_promise_rejected_and_a_run_cancelled() -> None:
    async def talk(client: Any, _: Any) -> list[dict[str, Any]]:
        ids = []
        for question in ("one", "two"):
            ids.append((await asking(client, "asks", question=question, run_id=question))["id"])
        await said(client, "settle_promise", id="one.1", reject="because not")
        await said(client, "cancel_run", id="two")
        return list((await said(client, "await_runs", ids=[*ids, "three"]))[1]["runs"])

    one, two, three = at_desk(app, talk)

    assert (one["status"], one["error"]["message"]) == ("failed", "because not")
    assert two["status"] == "cancelled"
    assert three["error"]["type"] == "NotFound"


def test_listening_ends_with_the_first() -> None:
    async def talk(client: Any, _: Any) -> list[str]:
        await said(client, "asks", question="slow", run_id="slow", wait_seconds=0)
        await asking(client, "asks", question="fast", run_id="fast")
        listening = asyncio.ensure_future(said(client, "listen", ids=["slow", "fast"], wait_seconds=50))
        await asyncio.sleep(0)
        await said(client, "settle_promise", id="fast.1", value=1)
        return ["value" in one for one in (await listening)[1]["runs"]]

    assert at_desk(app, talk) == [False, True]


def test_a_subscription_is_told_when_a_promise_settles_and_the_resource_is_read() -> None:
    async def talk(client: Any, _: Any) -> Any:
        await asking(client, "asks", question="q", run_id="q")
        uri = "everstep://promises/q"
        async with client.listen(resource_subscriptions=[uri]) as subscription:
            await said(client, "settle_promise", id="q.1", value=7)
            async for event in subscription:
                break
        assert event.uri == uri
        return (await client.read_resource(uri)).contents[0].text

    assert '"value": 7' in at_desk(app, talk)


def test_progress_is_told_while_a_call_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    from everstep.mcp import calls

    monkeypatch.setattr(calls, "_TELL_EVERY", 0.02)
    told: list[Any] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append(message)

    async def talk(client: Any, _: Any) -> Any:
        arguments = {"question": "q", "wait_seconds": 0.3}
        return await client.call_tool("asks", arguments, progress_callback=on_progress)

    assert "value" not in at_desk(app, talk).structured_content
    assert told[0] == "0 of 1 done"


def test_wait_has_a_limit_that_no_caller_raises() -> None:
    async def talk(client: Any, _: Any) -> Any:
        return await asyncio.wait_for(said(client, "asks", question="q", wait_seconds=10_000), 20)

    assert at_desk(app, talk, wait=0.1, max_wait=0.2)[1]["status"] in ("waiting", "queued", "running")


def test_searching_goes_page_by_page() -> None:
    async def talk(client: Any, _: Any) -> list[str]:
        for number in range(5):
            await said(client, "echo", text=str(number), run_id=f"e{number}")
        await said(client, "asks", question="q", run_id="e9", wait_seconds=0)
        found: list[str] = []
        more: dict[str, Any] = {}
        while True:
            _, page = await said(client, "search_runs", prefix="e", status="done", limit=2, **more)
            found += [one["id"] for one in page["runs"]]
            if "cursor" not in page:
                return found
            more = {"cursor": page["cursor"]}

    assert at_desk(app, talk) == [f"e{number}" for number in range(5)]


def test_what_nobody_foresaw_is_told_without_its_trace(caplog: pytest.LogCaptureFixture) -> None:
    async def talk(client: Any, runtime: Any) -> list[dict[str, Any]]:
        async def lost(id: str) -> Any:
            raise StoreUnavailable("the table is gone for a moment")

        async def worse(id: str) -> Any:
            raise ZeroDivisionError("a secret of the code")

        found = []
        for fault in (lost, worse):
            runtime.client.get = fault
            found.append((await said(client, "get_run", id="x"))[1]["error"])
        return found

    lost, worse = at_desk(app, talk)

    assert lost == {
        "type": "StoreUnavailable",
        "message": "the table is gone for a moment; nothing is lost, call again later",
    }
    assert worse["type"] == "InternalError"
    assert "secret" not in worse["message"]
    assert "a secret of the code" in caplog.text


def test_own_tools_with_ids_by_template() -> None:
    tools = Tools(
        app,
        Tool(echo, name="say", id="say-{text}-{times}", wait=5, description="Say."),
        Probe("heard", id="say-{text}-{times}"),
        Await("hear_all", id="say-{text}-1"),
        standard=False,
    )

    async def talk(client: Any, _: Any) -> list[Any]:
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(listed) == {"say", "heard", "hear_all"}
        assert set(listed["say"].input_schema["properties"]) == {"text", "times", "loud"}
        assert set(listed["hear_all"].input_schema["properties"]) == {"texts", "wait_seconds"}
        one = await said(client, "say", text="v1.2")
        conflict = await said(client, "say", text="v1.2", loud=True)
        return [
            one,
            conflict,
            await said(client, "heard", text="v1.2", times="1"),
            await said(client, "hear_all", texts=["v1.2"]),
        ]

    one, conflict, heard, all_ = at_desk(tools, talk)

    assert one[1] == {"id": "say-v1%2E2-1", "status": "done", "value": "v1.2"}
    assert conflict[1]["error"]["type"] == "Conflict"
    assert "on_conflict" not in conflict[1]["error"]["message"], "that is nothing a caller can do"
    assert heard[1] == one[1]
    assert all_[1]["runs"] == [one[1]]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([Tool(echo), Tool(echo)], "two tools are called 'echo'"),
        ([Tool(echo, name="get_run")], "two tools are called 'get_run'"),
        ([Tool(echo, name="say it")], "cannot be called 'say it'"),
        ([Tool(echo, id="x-{nothing}")], "has no argument 'nothing'"),
        ([Tool(echo, id="x-{text!r}")], "no argument's name"),
        ([Tool(echo, id="x-{text")], "the id template"),
        ([Await("all", id="{a}-{b}")], "exactly one field"),
        ([Tool("nothing")], "no workflow named 'nothing'"),
        ([Tool("note")], "is a step"),
    ],
)
def test_what_cannot_be_offered(entries: list[Any], words: str) -> None:
    async def talk(client: Any, _: Any) -> None: ...

    with pytest.raises((InvalidArgument, LookupError), match=words):
        at_desk(Tools(app, *entries), talk)


def test_templates_keep_different_values_apart() -> None:
    assert fields("{a}-x-{b}-{a}") == ["a", "b"]
    assert fill("{a}", {"a": "x.y"}) == "x%2Ey"
    assert fill("{a}", {"a": "x%2Ey"}) == "x%252Ey"
    assert fill("{a}-{b}", {"a": True, "b": {"z": 1, "a": [2]}}) == 'true-{"a":[2],"z":1}'


def test_positional_and_collected_arguments_go_where_they_belong() -> None:
    async def talk(client: Any, _: Any) -> list[Any]:
        one = await said(client, "total", numbers=[1, 2.5])
        return [one[1]["value"], (await said(client, "total", numbers=[1], label="all"))[1]["value"]]

    assert at_desk(app, talk) == ["sum 3.5", "all 1.0"]
