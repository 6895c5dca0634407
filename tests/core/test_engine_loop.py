"""Plain asyncio on the deterministic loop: what works as it always did, and what is refused however a body hides it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import types
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from everstep import Context, RealIOError
from everstep.loop import Loop
from tests.core.play import Play, say

pytestmark = pytest.mark.filterwarnings("error")


def work(*_: Any) -> Any:
    raise AssertionError("the engine runs no step")


def test_gather_gives_results_in_call_order(play: Any) -> None:
    async def body(ctx: Context) -> list[str]:
        return await asyncio.gather(ctx.run(work, 1), ctx.run(work, 2))

    one = play(body)
    one.settle("r.2", "b")
    one.settle("r.1", "a")

    assert one.result == ["a", "b"]


def test_wait_for_the_first_and_cancel_the_loser(play: Any) -> None:
    async def body(ctx: Context) -> str:
        done, pending = await asyncio.wait([ctx.promise(), ctx.promise()], return_when=asyncio.FIRST_COMPLETED)
        for loser in pending:
            loser.cancel()
        return done.pop().result()

    one = play(body)
    assert one.commands() == ["r.1 a promise", "r.2 a promise"]
    one.settle("r.2", "b")

    assert one.commands() == ["r.1 canceled"]
    assert one.result == "b"


def test_a_task_group_that_fails_cancels_the_siblings(play: Any) -> None:
    async def body(ctx: Context) -> str:
        async def wait() -> Any:
            return await ctx.promise()

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(wait())
                group.create_task(wait())
        except* ValueError:
            say(ctx, "cleaned up")
        return "all well"

    one = play(body)
    one.commands()
    one.fail("r.2", ValueError("boom"))

    assert one.commands() == ["r.1 canceled"]
    assert one.trace == ["cleaned up"]
    assert one.result == "all well"


def test_a_task_group_that_succeeds(play: Any) -> None:
    async def body(ctx: Context) -> list[Any]:
        async def wait(number: int) -> Any:
            return await ctx.run(work, number)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(wait(number)) for number in range(3)]
        return [task.result() for task in tasks]

    one = play(body)
    assert one.commands() == ["r.1 step work(0)", "r.2 step work(1)", "r.3 step work(2)"]
    for id, value in (("r.2", "b"), ("r.3", "c"), ("r.1", "a")):
        one.settle(id, value)

    assert one.result == ["a", "b", "c"]


def test_as_completed_follows_the_order_of_deliveries(play: Any) -> None:
    async def body(ctx: Context) -> list[Any]:
        return [await next for next in asyncio.as_completed([ctx.run(work, i) for i in range(3)])]

    one = play(body)
    for number in (3, 1, 2):
        one.settle(f"r.{number}", number)

    assert one.result == [3, 1, 2]


def test_locks_events_queues_and_conditions(play: Any) -> None:
    async def body(ctx: Context) -> list[Any]:
        lock, event, queue, condition = asyncio.Lock(), asyncio.Event(), asyncio.Queue[Any](), asyncio.Condition()
        out: list[Any] = []

        async def produce() -> None:
            async with lock:
                queue.put_nowait(await ctx.run(work))
            event.set()
            async with condition:
                condition.notify_all()

        async def consume() -> None:
            out.append(await queue.get())
            await event.wait()
            out.append("event")

        async def notified() -> None:
            async with condition:
                await condition.wait()
            out.append("condition")

        await asyncio.gather(*[asyncio.create_task(part()) for part in (consume, notified, produce, produce)])
        return out

    one = play(body)
    assert one.commands() == ["r.1 step work()"]
    one.settle("r.1", "v")
    assert one.commands() == ["r.2 step work()"]
    one.settle("r.2", "w")

    assert one.result == ["v", "event", "condition"]


def test_a_semaphore_bounds_what_runs_at_once(play: Any) -> None:
    async def body(ctx: Context) -> int:
        room = asyncio.Semaphore(2)

        async def one(number: int) -> None:
            async with room:
                await ctx.run(work, number)

        await asyncio.gather(*[one(number) for number in range(4)])
        return 4

    one = play(body)
    assert one.commands() == ["r.1 step work(0)", "r.2 step work(1)"]
    one.settle("r.2")
    assert one.commands() == ["r.3 step work(2)"]
    one.settle("r.1")
    assert one.commands() == ["r.4 step work(3)"]
    one.settle("r.3")
    one.settle("r.4")
    assert one.result == 4


def test_asyncio_barriers_and_bounded_queues(play: Any) -> None:
    async def body(ctx: Context) -> list[int]:
        barrier = asyncio.Barrier(2)
        queue: asyncio.Queue[int] = asyncio.Queue(maxsize=1)
        seen: list[int] = []

        async def produce() -> None:
            for number in range(3):
                await queue.put(await ctx.run(work, number))
            await barrier.wait()

        async def consume() -> None:
            for _ in range(3):
                seen.append(await queue.get())
                queue.task_done()
            await barrier.wait()

        async with asyncio.TaskGroup() as group:
            group.create_task(consume())
            group.create_task(produce())
        await queue.join()
        return seen

    one = play(body)
    for number in range(3):
        assert one.commands() == [f"r.{number + 1} step work({number})"]
        one.settle(f"r.{number + 1}", number)
    assert one.result == [0, 1, 2]


def test_a_shield_keeps_the_operation_when_the_waiter_gives_up(play: Any) -> None:
    async def body(ctx: Context) -> Any:
        answer = ctx.promise()
        try:
            async with asyncio.timeout(1):
                await asyncio.shield(answer)
        except TimeoutError:
            return await answer

    one = play(body)
    assert one.commands() == ["r.1 a promise", "r.2 timer at 1000"]
    one.fire()
    assert one.commands() == []
    one.settle("r.1", 7)

    assert one.result == 7


def test_context_variables_belong_to_their_task(play: Any) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    async def body(ctx: Context) -> Any:
        async def part(number: int) -> int:
            variable.set(number)
            await ctx.run(work)
            return variable.get()

        return await asyncio.gather(part(1), part(2)), variable.get()

    one = play(body)
    one.settle("r.2")
    one.settle("r.1")

    assert one.result == ([1, 2], 0)
    assert variable.get() == 0


def test_an_async_generator_left_early_is_closed(play: Any) -> None:
    async def body(ctx: Context) -> Any:
        async def values() -> AsyncIterator[Any]:
            try:
                while True:
                    yield await ctx.run(work)
            finally:
                say(ctx, "closed")

        async for value in values():
            return value

    one = play(body)
    one.settle("r.1", 4)
    one.body.loop.drain()

    assert one.result == 4
    assert one.trace == ["closed"]


def test_an_async_generator_closed_by_hand(play: Any) -> None:
    async def body(ctx: Context) -> list[Any]:
        async def values() -> AsyncIterator[Any]:
            try:
                while True:
                    yield await ctx.run(work)
            finally:
                await ctx.run(work, "cleanup")

        source = values()
        first = await source.__anext__()
        await source.aclose()  # type: ignore[attr-defined]
        return [first]

    one = play(body)
    one.settle("r.1", 4)
    assert one.commands()[-1] == "r.2 step work('cleanup')"
    one.settle("r.2")
    assert one.result == [4]


def test_call_soon_and_futures_of_the_loop(play: Any) -> None:
    async def body(ctx: Context) -> int:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        loop.call_soon(future.set_result, 5)
        later: asyncio.Future[int] = loop.create_future()
        ctx.run(work).add_done_callback(lambda done: later.set_result(done.result()))
        return await future + await later

    one = play(body)
    one.settle("r.1", 6)
    assert one.result == 11


if sys.version_info >= (3, 12):

    def test_eager_tasks(play: Any) -> None:
        async def body(ctx: Context) -> Any:
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]

            async def part() -> Any:
                return await ctx.run(work)

            task = asyncio.create_task(part())
            say(ctx, "before")
            after = ctx.run(work, 2)
            return [await task, await after]

        one = play(body)
        assert one.commands() == ["r.1 step work()", "r.2 step work(2)"]
        one.settle("r.1", 4)
        one.settle("r.2", 5)
        assert one.result == [4, 5]


if sys.version_info >= (3, 13):

    def test_as_completed_as_an_async_iterator(play: Any) -> None:
        async def body(ctx: Context) -> list[Any]:
            return [done.result() async for done in asyncio.as_completed([ctx.run(work), ctx.run(work)])]

        one = play(body)
        one.settle("r.2", 2)
        one.settle("r.1", 1)
        assert one.result == [2, 1]


if sys.version_info >= (3, 13):

    def test_a_queue_that_is_shut_down(play: Any) -> None:
        async def body(ctx: Context) -> str:
            queue: asyncio.Queue[int] = asyncio.Queue()

            async def consume() -> str:
                try:
                    while True:
                        await queue.get()
                except asyncio.QueueShutDown:  # type: ignore[attr-defined]
                    return "shut"

            task = asyncio.create_task(consume())
            await ctx.run(work)
            queue.shutdown()  # type: ignore[attr-defined]
            return await task

        one = play(body)
        one.settle("r.1")
        assert one.result == "shut"


REFUSED: dict[str, Callable[[], Any]] = {
    "open_connection": lambda: asyncio.open_connection("x", 1),
    "to_thread": lambda: asyncio.to_thread(print),
    "run_in_executor": lambda: asyncio.get_running_loop().run_in_executor(None, print),
    "getaddrinfo": lambda: asyncio.get_running_loop().getaddrinfo("x", 1),
    "subprocess_exec": lambda: asyncio.create_subprocess_exec("true"),
    "subprocess_shell": lambda: asyncio.create_subprocess_shell("true"),
    "start_server": lambda: asyncio.start_server(print, "x", 1),
    "add_signal_handler": lambda: asyncio.get_running_loop().add_signal_handler(2, print),
    "sock_recv": lambda: asyncio.get_running_loop().sock_recv(None, 1),  # type: ignore[arg-type]
    "add_reader": lambda: asyncio.get_running_loop().add_reader(0, print),
    "run_until_complete": lambda: asyncio.get_running_loop().run_until_complete(None),  # type: ignore[arg-type]
    "stop": lambda: asyncio.get_running_loop().stop(),
}


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("catch", [Exception, BaseException], ids=["except Exception", "except BaseException"])
def test_real_io_is_refused_and_cannot_be_hidden(name: str, catch: type[BaseException]) -> None:
    async def body(ctx: Context) -> str:
        try:
            await REFUSED[name]()
        except catch:
            ctx.run(work)
            return "swallowed"
        return "done"

    with pytest.raises(RealIOError, match=r"ctx\.run"):
        Play(body)


def test_real_io_in_a_task_of_the_body_is_refused() -> None:
    async def body(ctx: Context) -> None:
        async def part() -> None:
            await asyncio.to_thread(print)

        await asyncio.gather(part(), return_exceptions=True)

    with pytest.raises(RealIOError, match=r"ctx\.run"):
        Play(body)


def test_nothing_runs_after_a_refusal() -> None:
    said: list[str] = []

    async def body(ctx: Context) -> None:
        asyncio.get_running_loop().call_soon(said.append, "later")
        try:
            await asyncio.to_thread(print)
        except BaseException:
            await ctx.run(work)
            said.append("on")

    with pytest.raises(RealIOError):
        Play(body)
    assert said == []


def test_a_future_of_another_loop_is_refused() -> None:
    other = asyncio.new_event_loop()
    foreign = other.create_future()

    async def body(ctx: Context) -> None:
        await foreign

    one = Play(body)
    other.close()

    assert one.end().startswith("rejected RuntimeError")
    assert "attached to a different loop" in one.end()
    one.close()


def test_a_bad_yield_is_an_error_of_the_body() -> None:
    @types.coroutine
    def odd() -> Any:
        yield 42

    async def body(ctx: Context) -> None:
        await odd()

    one = Play(body)
    assert one.end().startswith("rejected RuntimeError")
    assert "bad yield: 42" in one.end()
    one.close()


def test_asyncio_run_is_refused_inside(play: Any) -> None:
    async def body(ctx: Context) -> str:
        async def nothing() -> None: ...

        started = nothing()
        try:
            asyncio.run(started)
        except RuntimeError:
            started.close()
            return "refused"
        return "ran"

    assert play(body).result == "refused"


def test_a_body_inside_a_running_loop_is_hidden_from_it_and_it_from_the_body() -> None:
    async def outer() -> int:
        me = asyncio.current_task()
        assert me is not None

        async def body(ctx: Context) -> int:
            own = asyncio.current_task()
            assert own is not None
            assert own is not me
            assert isinstance(asyncio.get_running_loop(), Loop)
            assert asyncio.all_tasks() == {own}
            return await ctx.run(work)

        one = Play(body)
        await asyncio.sleep(0)
        assert asyncio.current_task() is me
        one.settle("r.1", 5)
        assert asyncio.get_running_loop() is me.get_loop()
        await asyncio.sleep(0)
        assert asyncio.current_task() is me
        assert asyncio.all_tasks() == {me}
        return one.result

    assert asyncio.run(outer()) == 5


def test_a_body_that_drives_another_body() -> None:
    async def outer() -> Any:
        async def inner(ctx: Context) -> list[Any]:
            return await asyncio.gather(ctx.run(work), ctx.run(work))

        async def driving(ctx: Context) -> Any:
            me, loop = asyncio.current_task(), asyncio.get_running_loop()
            one = Play(inner)
            assert asyncio.current_task() is me
            assert asyncio.get_running_loop() is loop
            one.settle("r.2", 2)
            await asyncio.sleep(0)
            one.settle("r.1", 1)
            return await ctx.run(work), one.result

        one = Play(driving)
        one.settle("r.1", 9)
        return one.result

    assert asyncio.run(outer()) == (9, [1, 2])


def test_the_loop_of_the_caller_is_put_back_after_an_error() -> None:
    async def outer() -> bool:
        async def body(ctx: Context) -> None:
            await asyncio.to_thread(print)

        with pytest.raises(RealIOError):
            Play(body)
        return not isinstance(asyncio.get_running_loop(), Loop) and asyncio.current_task() is not None

    assert asyncio.run(outer())


@pytest.fixture
def complaints(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would be printed as ignored while objects go away."""
    said: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    return said


def let_go(one: Play) -> None:
    one.body.drop()


def test_a_body_that_is_let_go_asks_for_nothing_more_and_does_not_complain(complaints: list[Any]) -> None:
    said: list[str] = []

    async def body(ctx: Context) -> None:
        async def part() -> None:
            try:
                await ctx.run(work)
            finally:
                await ctx.run(work, "cleanup")
                said.append("cleaned")

        async with asyncio.TaskGroup() as group:
            group.create_task(part())
            group.create_task(part())
        said.append("on")

    one = Play(body)
    one.commands()
    let_go(one)

    assert one.commands() == []
    del one
    gc.collect()
    assert said == []
    assert complaints == []


@pytest.mark.parametrize("how", ["asyncio.sleep", "future", "ctx.sleep", "promise", "task", "except"])
def test_a_cleanup_that_waits_ends_with_the_body(complaints: list[Any], how: str) -> None:
    ended: list[str] = []

    async def body(ctx: Context) -> None:
        try:
            await ctx.run(work)
        except BaseException:
            if how == "except":
                await ctx.run(work)
            raise
        finally:
            try:
                match how:
                    case "asyncio.sleep":
                        await asyncio.sleep(1)
                    case "future":
                        await asyncio.get_running_loop().create_future()
                    case "ctx.sleep":
                        await ctx.sleep(1)
                    case "promise":
                        await ctx.promise()
                    case "task":
                        await asyncio.create_task(asyncio.sleep(0))
            finally:
                ended.append("ended")

    one = Play(body)
    let_go(one)
    del one
    gc.collect()

    assert ended == ["ended"]
    assert complaints == []


def test_a_generator_workflow_that_is_let_go_does_not_complain(complaints: list[Any]) -> None:
    def body(ctx: Context) -> Any:
        try:
            yield ctx.run(work)
        finally:
            yield ctx.run(work, "cleanup")

    one = Play(body)
    let_go(one)
    del one
    gc.collect()

    assert complaints == []


def test_an_async_generator_that_is_let_go_does_not_complain(complaints: list[Any]) -> None:
    async def body(ctx: Context) -> None:
        async def values() -> AsyncIterator[Any]:
            try:
                yield await ctx.run(work)
            finally:
                await ctx.run(work, "cleanup")

        async for _ in values():
            await ctx.run(work)

    one = Play(body)
    one.settle("r.1")
    let_go(one)
    del one
    gc.collect()

    assert complaints == []


def test_letting_go_inside_a_running_loop_touches_nothing_of_it(complaints: list[Any]) -> None:
    async def outer() -> int:
        async def body(ctx: Context) -> None:
            try:
                await ctx.run(work)
            finally:
                await asyncio.sleep(1)

        one = Play(body)
        let_go(one)
        await asyncio.sleep(0)
        return len(asyncio.all_tasks())

    assert asyncio.run(outer()) == 1
    assert complaints == []
