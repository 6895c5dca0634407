"""System 10, parallel image generation: variations of one prompt are made at once, each with retries of its own."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from everstep import App, Context, Retry
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import World, did, kill_at, run_process, survives

app = App("images", retry=Retry(attempts=3, first=0.1))

SECONDS = {"photorealistic": 1.2, "abstract": 1.0, "cartoon": 0.8}


@app.step
async def generate(prompt: str, style: str) -> str:
    """A provider that takes its time; the same prompt and style have the same address."""
    await asyncio.sleep(SECONDS[style])
    did(style)
    return f"https://images.example/{style}/{hashlib.sha256(prompt.encode()).hexdigest()[:8]}.png"


@app.workflow
async def variations(ctx: Context, prompt: str) -> dict[str, str]:
    images = await asyncio.gather(*[ctx.run(generate, prompt, style) for style in SECONDS])
    return dict(zip(SECONDS, images, strict=True))


URLS = {style: f"https://images.example/{style}/f2e40ed4.png" for style in SECONDS}
ONCE = dict.fromkeys(SECONDS, 1)
BOTH = pytest.mark.parametrize("mode", ["rows", "queue"])


@BOTH
def test_three_images_take_as_long_as_the_slowest(mode: Mode) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    began = sim.now_ms

    assert sim.run(sim.start(variations, "a lighthouse")) == URLS
    assert sim.now_ms - began == 1200 < sum(SECONDS.values()) * 1000
    assert world.counts() == ONCE


@BOTH
def test_a_style_that_fails_once_is_made_again_alone(mode: Mode) -> None:
    world = app.provide(World(script={"abstract": ["fail"]}))
    sim = Simulation(app, mode=mode)
    began = sim.now_ms

    assert sim.run(sim.start(variations, "a lighthouse")) == URLS
    assert [world.tries(style) for style in SECONDS] == [1, 2, 1]
    assert sim.now_ms - began < sum(SECONDS.values()) * 1000


@BOTH
@pytest.mark.parametrize("made", [1, 2, 3])
def test_killed_after_some_are_recorded_only_the_others_are_made(mode: Mode, made: int) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    kill_at(sim, "delivered", made)

    assert sim.run(sim.start(variations, "a lighthouse")) == URLS
    assert world.counts() == ONCE


def test_a_process_killed_after_the_first_makes_only_the_others(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert run_process(__name__, "variations", "a lighthouse", id="i", folder=tmp_path, kill_at=("delivered", 1)).killed
    assert world.order() == ["cartoon"]

    assert run_process(__name__, "variations", "a lighthouse", id="i", folder=tmp_path).result == URLS
    assert world.counts() == ONCE


def test_it_survives_a_crash_at_every_point() -> None:
    def fresh() -> None:
        app.provide(World(script={"abstract": ["fail"]}))

    survives(app, variations, "a lighthouse", result=URLS, setup=fresh, at_most=3)
