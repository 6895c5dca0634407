"""System 5, a distributed calculator: an expression is a tree; its sides go to one pool, where one member is for left
sides and one for right ones, and operators go to a pool of their own."""

from __future__ import annotations

import ast
import asyncio
import operator
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from everstep import App, Client, Context, Runtime
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from everstep.testing.world import Event
from tests.systems.scaffold import World, did, serve_process, survives

app = App("exp")
ops = App("ops")

Tree = int | tuple[str, Any, Any]
"""A number, or an operator with its two sides; a tuple comes back from the store as a tuple."""


def parse(text: str) -> Tree:
    """Raises SyntaxError."""

    def tree(node: ast.expr) -> Tree:
        match node:
            case ast.Constant(value=int(number)):
                return number
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() as sign, right=right):
                symbol = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*"}[type(sign)]
                return symbol, tree(left), tree(right)
        raise SyntaxError(f"{ast.unparse(node)} is no expression of numbers, +, - and *")

    return tree(ast.parse(text.strip(), mode="eval").body)


for symbol, function in (("+", operator.add), ("-", operator.sub), ("*", operator.mul)):

    def apply(left: int, right: int, symbol: str = symbol, function: Any = function) -> int:
        did(f"operator {symbol}")
        return int(function(left, right))

    ops.step(name=symbol)(apply)


@app.step
def literal(number: int) -> int:
    did(f"literal {number}")
    return number


@app.workflow(name="=")
async def evaluate(ctx: Context, tree: Tree) -> int:
    if isinstance(tree, int):
        return await ctx.run(literal, tree)
    symbol, left, right = tree
    sides = [
        ctx.options(target="everstep://exp/lhs").rpc(evaluate, left),
        ctx.options(target="everstep://exp/rhs").rpc(evaluate, right),
    ]
    values = [await side for side in sides]
    return int(await ctx.options(target="everstep://ops").rpc(symbol, *values))


THREE, MINUS_THREE = "(1 + 2)", "(1 + 2) * (3 - 4)"
BOTH = pytest.mark.parametrize("mode", ["rows", "queue"])


def nodes(tree: Tree) -> int:
    return 1 if isinstance(tree, int) else 1 + nodes(tree[1]) + nodes(tree[2])


@BOTH
@pytest.mark.parametrize(("text", "value"), [(THREE, 3), (MINUS_THREE, -3), ("7", 7), ("2 * (3 + 4) - 5", 9)])
def test_what_an_expression_is_worth_and_who_worked_it_out(mode: Mode, text: str, value: int) -> None:
    app.provide(ops.provide(World()))
    sim = Simulation(app, others=[ops], mode=mode)
    steps: dict[str, set[str]] = {"i1": set(), "i2": set()}
    sim.world.listeners.append(lambda event: _note(steps, event))
    handle = sim.start(evaluate, parse(text))

    assert sim.run(handle) == value
    assert steps["i1"] <= {"literal"}
    assert steps["i2"] <= {"+", "-", "*"}, "operators run in their own group, and nothing else does"
    kinds = Counter(one.name in ("+", "-", "*") for one in handle.tree().walk() if one.kind in ("root", "rpc"))
    assert kinds[False] == nodes(parse(text)), "a promise for each node of the tree"
    assert kinds[True] == text.count("+") + text.count("-") + text.count("*")


def _note(steps: dict[str, set[str]], event: Event) -> None:
    if event.kind == "step":
        steps[event.who].add(event.detail["name"])


@pytest.mark.parametrize("text", ["", "1 +", "a + 1", "1 / 2", "__import__('os')"])
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(SyntaxError):
        parse(text)


def test_the_right_side_killed_after_the_left_is_done_repeats_no_left_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker of right sides has begun with its 4, waits until the left side is summed up, and is killed."""
    world = World(tmp_path, {"literal 4": ["kill-once operator +"]})
    app.provide(ops.provide(world))
    monkeypatch.setattr("everstep.driver._ADVICE", 60_000)  # the left worker leaves the right one's work alone

    async def story() -> int:
        url = f"sqlite:///{tmp_path / 'store.db'}"
        async with Client.open(url, app=app) as client:
            await client.start(evaluate, parse(MINUS_THREE), id="e")
        async with working(ops, url), working(app, url, "lhs"):
            killed = await asyncio.to_thread(
                serve_process, __name__, folder=tmp_path, until=("never", 1), member="rhs", threads="always"
            )
            assert killed.killed
            assert {"literal 1", "literal 2", "operator +"} <= set(world.order())
            async with working(app, url, "rhs") as right:
                return await right.client.handle("e").result(timeout=60)

    assert asyncio.run(story()) == -3
    assert world.counts() == {**{f"literal {n}": 1 for n in (1, 2, 3, 4)}, **{f"operator {s}": 1 for s in "+-*"}}


@asynccontextmanager
async def working(app: App, url: str, member: str | None = None) -> AsyncIterator[Runtime]:
    async with Runtime(app, url, member=member) as runtime:
        serving = asyncio.create_task(runtime.serve())
        try:
            yield runtime
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


def test_it_survives_a_crash_at_every_point() -> None:
    app.provide(ops.provide(World()))

    survives(app, evaluate, parse(THREE), result=3, others=[ops])
