"""System 3, one countdown on every shape of deployment: the workflow's module is the template's, and knows none.

Here it runs on the embedded store, in a process, on rows, on a queue and without fences; the platforms' own tests
import the same module behind their entry points. Whatever carries it, the journal is the same.
"""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from everstep import App, Client, Context, Runtime
from everstep.testing import Simulation
from everstep.views import TreeView
from tests.systems.scaffold import World, did, kill_at, run_process, survives
from tests.templates_by_path import TEMPLATES, template

countdown = template("countdown")
app: App = countdown.app


class Posts(countdown.Notifier):  # type: ignore[misc, name-defined]
    """Notifications go to the world outside."""

    def __init__(self) -> None:
        pass

    def send(self, id: str, text: str) -> None:
        did("post", text=text)


def outside() -> World:
    """A new world, and notifications that go there."""
    app.provide(Posts())
    return app.provide(World())


def prepare(folder: Path) -> None:
    app.provide(Posts())


WANTED = ["5", "4", "3", "2", "1", "Done"]
WORLDS = [("rows", True, None), ("rows", True, 1), ("queue", True, None), ("queue", False, None), ("queue", False, 1)]
Journal = list[tuple[str, str, list[Any], Any]]


def journal(tree: TreeView) -> Journal:
    """What the record says: ids, functions, arguments and values, in their order."""
    return [(one.id, one.name, one.args, one.value) for one in tree.walk() if one.kind == "step"]


def simulated(mode: Any, single_writer: bool, steps: int | None) -> tuple[Simulation, World, Any]:
    world = outside()
    sim = Simulation(app, mode=mode, single_writer=single_writer, steps_per_invocation=steps)
    return sim, world, sim.start(countdown.countdown, 5, 1, id="c")


async def on_a_file(folder: Path) -> Journal:
    outside()
    async with Runtime(app, f"sqlite:///{folder / 'store.db'}") as runtime:
        await runtime.run(countdown.countdown, 5, 0.01, id="c")
    async with Client.open(f"sqlite:///{folder / 'store.db'}", app=app) as client:
        return journal(await client.tree("c"))


def test_the_journal_is_the_same_wherever_it_runs(tmp_path: Path) -> None:
    journals = []
    for one in WORLDS:
        sim, _, handle = simulated(*one)
        sim.run(handle)
        journals.append(journal(handle.tree()))
    journals.append(asyncio.run(on_a_file(tmp_path)))

    assert all(one == journals[0] for one in journals)
    assert [entry[2][0] for entry in journals[0]] == WANTED


@pytest.mark.parametrize("world", WORLDS)
def test_killed_after_the_second_notification_none_comes_twice(world: Any) -> None:
    sim, reached, handle = simulated(*world)
    kill_at(sim, "delivered", 3)  # the first, its pause, the second

    assert sim.run(handle) == "counted down from 5"
    assert [one["text"] for one in reached.effects("post")] == WANTED


def test_a_process_killed_after_the_second_notification_goes_on_with_the_third(tmp_path: Path) -> None:
    world = World(tmp_path)
    program = f"{__name__}:app"
    assert run_process(program, "countdown", 5, 0.05, id="c", folder=tmp_path, kill_at=("delivered", 3)).killed

    assert run_process(program, "countdown", 5, 0.05, id="c", folder=tmp_path).result == "counted down from 5"
    assert [one["text"] for one in world.effects("post")] == WANTED


def test_the_workflows_module_names_no_platform() -> None:
    text = (TEMPLATES / "countdown" / "app.py").read_text()

    assert importlib.util.find_spec("everstep_aws") is not None
    assert not [name for name in ("everstep_", "boto3", "google", "Runtime", "sqlite") if name in text]
    assert Context.__name__ in text


@pytest.mark.parametrize("single_writer", [True, False])
def test_it_survives_a_crash_at_every_point(single_writer: bool) -> None:
    outside()

    survives(app, countdown.countdown, 1, result="counted down from 1", single_writer=single_writer)
