"""System 51, workflows as MCP tools: a server without a state, whose calls start durable workflows or find them."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from everstep import App, Context, PromiseTimedOut, Retry
from everstep.testing import Simulation
from tests.systems.scaffold import ROOT, World, did, survives
from tests.systems.tool_server import TRANSPORTS, call, command, connected, dies_in, environment, refused, settle_in

app = App("desk", retry=Retry(first=0.01))
print("a module that prints when it is imported")


@app.step
def fetch_grid(latitude: float, longitude: float) -> str:
    print("and a step that prints")
    did("grid", at=[latitude, longitude])
    return f"{latitude:.1f}/{longitude:.1f}"


@app.step
def fetch_forecast(grid: str) -> str:
    did("forecast", grid=grid)
    return f"sunny at {grid}"


@app.workflow
async def forecast(ctx: Context, latitude: float, longitude: float, pause: float = 0.1) -> str:
    """The weather at a place, by its coordinates in degrees."""
    grid = await ctx.run(fetch_grid, latitude, longitude)
    await ctx.sleep(pause)
    return await ctx.run(fetch_forecast, grid)


@app.step
def pay(line: str, cents: int) -> str:
    did("pay", line=line, cents=cents)
    return f"{line}: {cents}"


@app.workflow
async def invoice(ctx: Context, number: str, lines: dict[str, int], patience: float = 300.0) -> str:
    """Pay an invoice line by line, once somebody has approved it."""
    try:
        approved = await ctx.promise(timeout=patience)
    except PromiseTimedOut:
        return "TIMED OUT"
    if not approved:
        return "REJECTED"
    for line, cents in lines.items():
        await ctx.run(pay, line, cents)
    return "PAID"


settle_in(app)

PROGRAM = f"{__name__}:app"
LINES = {"desk": 40_000, "chair": 15_000, "lamp": 3_000}
BOTH = pytest.mark.parametrize("transport", TRANSPORTS)


@BOTH
def test_the_same_call_at_the_same_time_is_one_workflow(transport: str, tmp_path: Path) -> None:
    async def talk() -> list[dict[str, Any]]:
        async with connected(transport, PROGRAM, tmp_path) as client:
            (tool,) = [one for one in (await client.list_tools()).tools if one.name == "forecast"]
            assert "by its coordinates" in str(tool.description)
            assert tool.input_schema["properties"]["latitude"] == {"type": "number"}
            assert tool.input_schema["required"] == ["latitude", "longitude"]
            return await asyncio.gather(
                call(client, "forecast", latitude=52, longitude=4.9),
                call(client, "forecast", latitude=52.0, longitude=4.9, pause=0.1),
            )

    one, other = asyncio.run(talk())

    assert one == other
    assert (one["status"], one["value"]) == ("done", "sunny at 52.0/4.9")
    assert World(tmp_path).order() == ["grid", "forecast"]


@BOTH
def test_killed_between_the_fetches_the_first_is_not_repeated(transport: str, tmp_path: Path) -> None:
    world = World(tmp_path, {"forecast": ["kill-before"]})

    async def talk() -> dict[str, Any]:
        await dies_in(transport, PROGRAM, tmp_path, ("forecast", {"latitude": 1, "longitude": 2}))
        assert world.order() == ["grid"]
        async with connected(transport, PROGRAM, tmp_path) as client:
            return await call(client, "forecast", latitude=1, longitude=2)

    assert asyncio.run(talk())["value"] == "sunny at 1.0/2.0"

    assert world.order() == ["grid", "forecast"]


def test_a_fetch_that_fails_is_retried(tmp_path: Path) -> None:
    world = World(tmp_path, {"grid": ["fail", "fail"]})

    async def talk() -> dict[str, Any]:
        async with connected("stdio", PROGRAM, tmp_path) as client:
            return await call(client, "forecast", latitude=1, longitude=2)

    assert asyncio.run(talk())["value"] == "sunny at 1.0/2.0"
    assert (world.tries("grid"), world.order()) == (3, ["grid", "forecast"])


@BOTH
def test_an_invoice_waits_is_approved_rejected_or_timed_out(transport: str, tmp_path: Path) -> None:
    async def decided(client: Any, number: str, **how: Any) -> str:
        waiting = await call(client, "invoice", number=number, lines=LINES, wait_seconds=0.1)
        while not waiting.get("open"):
            waiting = await call(client, "get_run", id=waiting["id"])
        assert waiting["status"] == "waiting"
        (open_,) = waiting["open"]
        assert "until" in open_
        await call(client, "settle_promise", id=open_["id"], **how)
        return str((await call(client, "invoice", number=number, lines=LINES))["value"])

    async def talk() -> None:
        async with connected(transport, PROGRAM, tmp_path) as client:
            assert await decided(client, "i1", value=True) == "PAID"
            assert await decided(client, "i2", value=False) == "REJECTED"
            late = await call(client, "invoice", number="i3", lines=LINES, patience=0.2)
            assert late["value"] == "TIMED OUT"
            assert "was settled before" in await refused(client, "settle_promise", id=f"{late['id']}.1", value=True)

    asyncio.run(talk())

    assert World(tmp_path).effects("pay") == [{"line": line, "cents": cents} for line, cents in LINES.items()]


def test_an_invoice_that_nobody_looks_at_is_given_up_after_five_minutes() -> None:
    world = app.provide(World())
    sim = Simulation(app)
    handle = sim.start(invoice, "i1", LINES, id="i1")

    sim.advance(minutes=4, seconds=59)
    assert handle.status() == "pending"
    sim.advance(seconds=1)

    assert (handle.result(), world.order()) == ("TIMED OUT", [])


def test_stdout_carries_json_rpc_alone(tmp_path: Path) -> None:
    """Read as bytes, not through a client, which forgives much."""
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
    messages: list[dict[str, Any]] = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        *(
            {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": name, "arguments": arguments}}
            for id, (name, arguments) in enumerate(
                [
                    ("forecast", {"latitude": 1, "longitude": 2}),
                    ("forecast", {"latitude": "north", "longitude": 2}),
                    ("get_run", {"id": "nobody"}),
                    ("run_script", {"id": "s", "script": "echo out; echo err >&2", "wait_seconds": 20}),
                ],
                start=2,
            )
        ),
    ]
    child = subprocess.Popen(
        command(PROGRAM, tmp_path, "--bash"),
        cwd=ROOT,
        env=environment(tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b"".join(json.dumps(one).encode() + b"\n" for one in messages) + b"not json\n")
    child.stdin.flush()
    answers: dict[int, dict[str, Any]] = {}
    while len(answers) < 5:
        line = json.loads(child.stdout.readline())
        assert line["jsonrpc"] == "2.0"
        if line.get("id") is not None:
            answers[line["id"]] = line
    rest, errors = child.communicate(timeout=60)

    assert [json.loads(line)["jsonrpc"] for line in rest.splitlines()] == ["2.0"] * len(rest.splitlines())
    assert child.returncode == 0
    assert b"a module that prints" in errors
    assert b"and a step that prints" in errors
    assert b"Traceback" not in errors
    results = {id: answers[id]["result"] for id in (2, 3, 4, 5)}
    assert [results[id].get("isError", False) for id in (2, 3, 4, 5)] == [False, True, True, False]
    assert results[5]["structuredContent"]["value"] == "out"


def test_a_forecast_survives_a_crash_at_every_point() -> None:
    app.provide(World())

    survives(app, forecast, 1.0, 2.0, 600.0, result="sunny at 1.0/2.0")


@pytest.mark.parametrize(("answer", "result"), [(True, "PAID"), (False, "REJECTED")])
def test_an_invoice_survives_a_crash_at_every_point(answer: bool, result: str) -> None:
    app.provide(World())

    survives(app, invoice, "i1", LINES, 86_400.0, result=result, settle={"{id}.1": answer})
