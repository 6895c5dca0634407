"""System 1, hello world: a workflow that calls two functions and joins what they say; each call is a checkpoint."""

from __future__ import annotations

from pathlib import Path

from everstep import App, Context
from everstep.testing import Simulation
from tests.systems.scaffold import World, did, run_process, survives

app = App("hello")


@app.step
def foo(name: str) -> str:
    did("foo")
    return f"Hello {name} from foo."


@app.step
def bar(name: str) -> str:
    did("bar")
    return f"Hello {name} from bar."


@app.workflow
async def greet(ctx: Context, name: str) -> str:
    one = await ctx.run(foo, name)
    two = await ctx.run(bar, name)
    return f"Hello {name} from greet. {one} {two}"


GREETINGS = "Hello World from greet. Hello World from foo. Hello World from bar."


def test_a_run_holds_all_three_greetings() -> None:
    world = app.provide(World())
    sim = Simulation(app)

    assert sim.run(sim.start(greet, "World", id="hello-world-example")) == GREETINGS
    assert world.order() == ["foo", "bar"]


def test_the_same_id_again_runs_no_body() -> None:
    world = app.provide(World())
    sim = Simulation(app)
    sim.run(sim.start(greet, "World", id="hello-world-example"))
    sim.cold()

    assert sim.run(sim.start(greet, "World", id="hello-world-example")) == GREETINGS
    assert world.order() == ["foo", "bar"]


def test_a_process_killed_after_the_first_function_runs_the_second_alone(tmp_path: Path) -> None:
    world = World(tmp_path)
    first = run_process(__name__, "greet", "World", id="hello", folder=tmp_path, kill_at=("delivered", 1))
    assert first.killed
    assert world.order() == ["foo"]

    again = run_process(__name__, "greet", "World", id="hello", folder=tmp_path)

    assert again.result == GREETINGS
    assert world.order() == ["foo", "bar"]


def test_a_step_killed_before_it_was_recorded_runs_again(tmp_path: Path) -> None:
    world = World(tmp_path, {"foo": ["kill"]})
    assert run_process(__name__, "greet", "World", id="hello", folder=tmp_path).killed

    assert run_process(__name__, "greet", "World", id="hello", folder=tmp_path).result == GREETINGS
    assert world.order() == ["foo", "foo", "bar"]


def test_it_survives_a_crash_at_every_point() -> None:
    app.provide(World())

    survives(app, greet, "World", result=GREETINGS)
