"""What a body is told besides recorded values: ids, time, randomness, its log. All of it the same on every replay."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from everstep import Context, UnorderedError
from everstep.ids import detached_id
from tests.core.play import Play, say, step, timer, workflow_named

ROOT = Path(__file__).resolve().parent.parent.parent
T0 = 1_700_000_000_000


def work(*_: Any) -> Any:
    raise AssertionError("the engine runs no step")


def test_now_is_the_instant_of_the_last_delivery(play: Any) -> None:
    async def body(ctx: Context) -> list[datetime]:
        seen = [ctx.now()]
        await ctx.run(work)
        seen.append(ctx.now())
        await ctx.sleep(5)
        seen.append(ctx.now())
        return seen

    live = play(body, at=T0)
    live.settle("r.1", at=T0 + 1500)
    assert live.commands()[-1] == f"r.2 timer at {T0 + 6500}"
    live.fire()

    start = datetime.fromtimestamp(T0 / 1000, UTC)
    assert live.result == [start, start + timedelta(seconds=1.5), start + timedelta(seconds=6.5)]


def test_now_never_goes_back(play: Any) -> None:
    async def body(ctx: Context) -> list[datetime]:
        seen = []
        for _ in range(3):
            await ctx.run(work)
            seen.append(ctx.now())
        return seen

    live = play(body, at=T0)
    for number, at in enumerate((T0 + 5000, T0 + 1000, T0 + 6000), 1):
        live.settle(f"r.{number}", at=at)
    assert live.result == sorted(live.result)


def test_random_and_uuid_follow_the_run_and_the_order_of_calls(play: Any) -> None:
    async def body(ctx: Context) -> list[Any]:
        seen: list[Any] = [ctx.random(), ctx.uuid()]
        await ctx.run(work)
        return [*seen, ctx.random(), ctx.uuid()]

    live = play(body, at=T0)
    live.settle("r.1")
    values = live.result
    assert len(set(values)) == 4
    assert all(0 <= value < 1 for value in values[::2])
    assert all(value.version == 4 for value in values[1::2])

    other = play(body, id="s", at=T0)
    other.settle("s.1")
    assert not set(other.result) & set(values)


def test_a_child_has_randomness_of_its_own_and_takes_none_of_its_parents(play: Any) -> None:
    async def kid(ctx: Context) -> float:
        say(ctx, ctx.random())
        return 0

    async def body(ctx: Context) -> float:
        await ctx.run(workflow_named(ctx, "kid"))
        return ctx.random()

    async def alone(ctx: Context) -> float:
        await ctx.run(work)
        return ctx.random()

    live = play(body, workflows=[kid])
    live.commands()
    live.settle("r.1", 0)
    single = play(alone)
    single.settle("r.1")
    assert live.result == single.result
    assert live.trace != [live.result]


class Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def heard() -> Any:
    handler = Heard()
    logger = logging.getLogger("everstep.workflow")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


async def talkative(ctx: Context) -> None:
    ctx.log.info("begins")
    await ctx.run(work)
    ctx.log.info("one")
    await ctx.sleep(1)
    ctx.log.info("two")
    await ctx.run(work)
    ctx.log.info("three")


def test_the_first_life_logs_from_its_first_line(heard: Heard) -> None:
    Play(talkative)
    assert heard.lines == ["[r] begins"]


def test_live_deliveries_are_logged(heard: Heard) -> None:
    live = Play(talkative)
    live.settle("r.1")
    assert heard.lines == ["[r] begins", "[r] one"]


def test_a_replay_is_silent_until_something_new_arrives(heard: Heard) -> None:
    again = Play(talkative, journal=[step("r.1", "work"), timer("r.2", 1000)])
    assert heard.lines == []
    again.settle("r.3")
    assert heard.lines == ["[r] three"]


def test_what_a_wake_up_brought_is_new_and_what_was_said_before_it_is_not(heard: Heard) -> None:
    """The body had said `one` when it suspended; the timer in the inbox makes it say `two`."""
    Play(talkative, journal=[step("r.1", "work"), timer("r.2", 1000)], live_from=1)
    assert heard.lines == ["[r] two"]


def test_a_body_that_had_waited_before_anything_was_delivered_does_not_begin_twice(heard: Heard) -> None:
    Play(talkative, journal=[step("r.1", "work")], live_from=0)
    assert heard.lines == ["[r] one"]


def test_a_body_that_is_let_go_logs_nothing(heard: Heard) -> None:
    async def body(ctx: Context) -> None:
        try:
            await ctx.run(work)
        finally:
            ctx.log.info("finally")

    live = Play(body)
    live.close()
    assert heard.lines == []


def test_i1_ids_follow_calls_and_not_completions(play: Any) -> None:
    """Two branches of two steps each: whatever finishes first, the record of the order brings the same ids back."""

    async def body(ctx: Context) -> list[Any]:
        async def branch(name: str) -> Any:
            await ctx.run(work, name, 1)
            return await ctx.run(work, name, 2)

        return await asyncio.gather(branch("a"), branch("b"))

    slow_a = play(body)
    slow_a.settle("r.2")
    assert slow_a.commands()[-1] == "r.3 step work('b', 2)"
    slow_a.settle("r.1")
    assert slow_a.commands() == ["r.4 step work('a', 2)"]

    slow_b = play(body)
    slow_b.settle("r.1")
    slow_b.settle("r.2")
    assert slow_b.commands()[-2:] == ["r.3 step work('a', 2)", "r.4 step work('b', 2)"]


def test_i3_detached_ids_are_dot_free_of_constant_length_and_under_the_callers_prefix() -> None:
    id, seen = "worker-1:game", set()
    for _ in range(50):
        next = detached_id(id, f"{id}.7")
        assert "." not in next
        assert next.startswith("worker-1:game")
        seen.add(next)
        id = next
    assert len(seen) == 50
    assert len({len(one) for one in seen}) == 1


def test_i3_a_detached_id_depends_on_the_operation_alone() -> None:
    assert detached_id("a", "a.1") == detached_id("a", "a.1")
    assert detached_id("a", "a.1") != detached_id("a", "a.2")
    assert detached_id("a", "a.1") != detached_id("a", "a.g2.1")


def test_i3_the_longest_id_has_room_for_its_descendants() -> None:
    id = "ä" * 500
    for _ in range(3):
        id = detached_id(id, f"{id}.1")
        assert len(id.encode()) <= 1000


ORDER = """
import asyncio, random, sys
sys.path[:0] = [{core!r}, {root!r}]
from tests.core.play import Play

def work(*_): ...
junk = [bytearray(random.randrange(900)) for _ in range(random.randrange(900))]

async def wait(ctx):
    done, pending = await asyncio.wait([ctx.run(work, i) for i in range(8)], return_when="FIRST_COMPLETED")
    for late in pending:
        ctx.run(work, late.id)

async def group(ctx):
    async def part(i):
        junk.append(bytearray(random.randrange(900)))
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ctx.run(work, i)
    try:
        async with asyncio.TaskGroup() as g:
            for i in range(8):
                g.create_task(part(i))
            await ctx.run(work)
            raise ValueError
    except* ValueError:
        pass

async def futures(ctx):
    loop = asyncio.get_running_loop()
    made = []
    for i in range(8):
        junk.append(bytearray(random.randrange(900)))
        made.append(loop.create_future())
    await ctx.run(work)
    for i in {{*made}}:
        ctx.run(work, made.index(i))

async def tasks(ctx):
    async def part(i):
        await ctx.run(work, i)
    made = [asyncio.create_task(part(i)) for i in range(8)]
    done, pending = await asyncio.wait(made, return_when="FIRST_COMPLETED")
    for late in pending:
        ctx.run(work, made.index(late))

for body in (wait, group, futures, tasks):
    play = Play(body)
    play.commands()
    play.settle("r.1")
    print(play.commands())
"""


def test_p4_sets_of_tasks_and_futures_have_one_order_in_every_process() -> None:
    script = ORDER.format(core=str(ROOT / "core"), root=str(ROOT))

    def run(seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        return subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        ).stdout

    seen = {run(seed) for seed in ("1", "2", "3")}

    assert len(seen) == 1
    assert seen.pop().count("step work") >= 4 * 7


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_p4_as_completed_over_bare_coroutines_is_refused() -> None:
    async def body(ctx: Context) -> None:
        async def part(number: int) -> None:
            await ctx.run(work, number)

        try:
            for next in asyncio.as_completed([part(1), part(2)]):
                await next
        except BaseException:
            pass

    with pytest.raises(UnorderedError, match="create_task"):
        Play(body)
    gc.collect()


def test_p4_as_completed_over_tasks_is_fine(play: Any) -> None:
    async def body(ctx: Context) -> list[Any]:
        async def part(number: int) -> Any:
            return await ctx.run(work, number)

        tasks = [asyncio.create_task(part(number)) for number in range(3)]
        return [await next for next in asyncio.as_completed(tasks)]

    live = play(body)
    for number in (2, 3, 1):
        live.settle(f"r.{number}", number)
    assert live.result == [2, 3, 1]


def test_p4_gather_and_ensure_future_over_coroutines_are_fine(play: Any) -> None:
    async def body(ctx: Context) -> list[Any]:
        async def part(number: int) -> Any:
            return await ctx.run(work, number)

        first = asyncio.ensure_future(part(0))
        return [await first, *await asyncio.gather(part(1), part(2))]

    live = play(body)
    for number in (1, 3, 2):
        live.settle(f"r.{number}", number)
    assert live.result == [1, 2, 3]


def test_task_names_do_not_depend_on_the_process(play: Any) -> None:
    async def body(ctx: Context) -> list[str]:
        async def part() -> str:
            task = asyncio.current_task()
            assert task is not None
            await ctx.run(work)
            return task.get_name()

        return await asyncio.gather(part(), part(), asyncio.create_task(part(), name="mine"))

    live = play(body)
    for number in (1, 2, 3):
        live.settle(f"r.{number}")
    assert live.result[2] == "mine"
    assert len(set(live.result)) == 3


def test_info_says_where_the_body_is(play: Any) -> None:
    async def body(ctx: Context) -> tuple[Any, ...]:
        return ctx.id, ctx.attempt, ctx.info

    id, attempt, info = play(body, at=T0).result
    assert (id, attempt) == ("r", 1)
    assert (info.workflow, info.version, info.generation, info.attempt) == ("body", 1, 1, 1)
    assert info.created_at == datetime.fromtimestamp(T0 / 1000, UTC)


def test_a_dependency_is_found_by_its_type_or_named_when_missing(play: Any) -> None:
    async def body(ctx: Context) -> str:
        try:
            ctx.dependency(Path)
        except LookupError as error:
            return str(error)
        return ""

    assert "Path" in play(body).result
