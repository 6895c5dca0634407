"""Bad input, from the outside: every one is a clear error that names the culprit, and nothing is lost by it.

What a call refuses is not stored. What a run meets on its way either fails where the workflow can catch it, or halts
the run, which goes on from where it was once the cause is mended.
"""

from __future__ import annotations

import asyncio
import io
import math
import os
import re
import socket
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from everstep import (
    App,
    Context,
    DuplicateRegistration,
    Halted,
    InvalidArgument,
    InvalidId,
    NotSerializable,
    PayloadTooLarge,
    Retry,
    Runtime,
    StoreCorrupted,
    StoreFull,
    StoreReadOnly,
    StoreTooNew,
    UnknownFunction,
)
from everstep.local import Event
from everstep.promise import Record
from everstep.testing import Simulation
from everstep.testing.simulation import SimHandle
from tests.components import requires_component

ROOT = Path(__file__).resolve().parents[2]
BOTH = pytest.mark.parametrize("mode", ["rows", "queue"])


class Shop:
    """An App that counts what its steps do, and a simulation of it."""

    def __init__(self, mode: Any = "rows") -> None:
        self.app = app = App("shop", retry=Retry(attempts=1))
        self.ran: Counter[str] = Counter()

        @app.step
        def charge(order: str, cents: int) -> str:
            self.ran["charge"] += 1
            return f"{order}: {cents}"

        @app.workflow
        async def order(ctx: Context, number: str, cents: int = 1, *, fast: bool = False) -> str:
            return await ctx.run(charge, number, cents)

        self.charge, self.order = charge, order
        self.sim = Simulation(app, mode=mode)

    def stored(self) -> list[str]:
        return sorted(self.sim.world.store._rows)


def reason(handle: SimHandle[Any]) -> str:
    record: Record = handle.record()
    assert record.task is not None
    return record.task.reason or ""


# What a call refuses.


@pytest.mark.parametrize("name", ["ordr", "", "charge_", "order "])
def test_an_unknown_workflow_is_named_with_those_there_are(name: str) -> None:
    shop = Shop()
    with pytest.raises(UnknownFunction, match=f"no workflow named '{name}' in app 'shop'; registered: charge, order"):
        shop.sim.start(name, "o")
    assert shop.stored() == []


@pytest.mark.parametrize(
    ("args", "kwargs", "culprit"),
    [
        (("o", 1, True), {}, "order"),
        ((), {}, "'number'"),
        (("o",), {"cent": 1}, "'cent'; did you mean 'cents'"),
        (("o",), {"number": "p"}, "'number'"),
        ((1,), {}, "'number'"),
        (("o", "many"), {}, "'cents'"),
        (("o", 1.5), {}, "'cents'"),
        (("o", None), {}, "'cents'"),
        (("o",), {"fast": "yes"}, "'fast'"),
    ],
    ids=["too many", "missing", "misspelt", "twice", "number", "text", "fraction", "none", "keyword"],
)
def test_wrong_arguments_are_named_and_nothing_is_stored(args: Any, kwargs: Any, culprit: str) -> None:
    shop = Shop()
    with pytest.raises(TypeError, match=culprit) as caught:
        shop.sim.start(shop.order, *args, **kwargs)
    assert "order()" in str(caught.value)
    assert shop.stored() == []


class Opaque:
    pass


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("value", "culprit"),
    [
        (Opaque(), "Opaque"),
        ({"deep": [1, Opaque()]}, r"deep"),
        ({1: Opaque()}, "Opaque"),
        (math.nan, "NaN"),
        (math.inf, "infinite"),
        (lambda: 1, "function"),
        (open, "builtin_function_or_method"),
        (CYCLE, "itself|nested|circular|cycle"),
        (iter([1]), "iterator"),
    ],
    ids=["object", "nested", "in a dict", "nan", "infinite", "function", "builtin", "cycle", "iterator"],
)
def test_an_argument_that_cannot_be_stored_is_named_with_its_place(value: Any, culprit: str) -> None:
    shop = Shop()

    @shop.app.workflow
    async def takes(ctx: Context, anything: Any) -> None: ...

    with pytest.raises(NotSerializable, match=culprit) as caught:
        shop.sim.start(takes, value)
    assert "argument 'anything' of takes()" in str(caught.value)
    assert shop.stored() == []


def test_arguments_over_the_limit_are_named_with_size_and_limit() -> None:
    shop = Shop()
    with pytest.raises(PayloadTooLarge, match=r"arguments of order\(\) has 3\d{5} bytes, and at most 262144 can"):
        shop.sim.start(shop.order, "x" * 300_000)
    assert shop.stored() == []


@pytest.mark.parametrize("id", ["", "a.b", ".", "a.", "x" * 1001, "ä" * 501, "a\0b", 7, None, b"x", "\ud800"])
def test_an_invalid_id_is_named(id: Any) -> None:
    shop = Shop()
    if id is None:
        assert shop.sim.start(shop.order, "o", id=None).id == "order-1"
        return
    with pytest.raises(InvalidId):
        shop.sim.start(shop.order, "o", id=id)
    assert shop.stored() == []


@pytest.mark.parametrize("id", ["a/b c", "ünï 🚀", "x" * 1000, "a%2Fb", "'; DROP TABLE", "-", "~", " "])
def test_every_other_id_is_fine(id: str) -> None:
    shop = Shop()
    assert shop.sim.run(shop.sim.start(shop.order, "o", id=id)) == "o: 1"
    assert shop.stored() == sorted([id, f"{id}.1"])


@pytest.mark.parametrize(
    ("option", "value", "culprit"),
    [
        ("timeout", -1, "timeout"),
        ("timeout", math.nan, "timeout"),
        ("timeout", "5", "timeout"),
        ("tags", {"a": 1}, "tags"),
        ("tags", {"everstep:x": "1"}, "everstep:x"),
        ("on_conflict", "ignore", "on_conflict"),
    ],
    ids=str,
)
def test_an_invalid_option_is_named(option: str, value: Any, culprit: str) -> None:
    shop = Shop()
    with pytest.raises(InvalidArgument, match=culprit):
        shop.sim.start(shop.order, "o", **{option: value})
    assert shop.stored() == []


@pytest.mark.parametrize(
    ("cron", "timezone"),
    [
        ("* * *", None),
        ("", None),
        ("nightly", None),
        ("99 * * * *", None),
        ("* * * * * * *", None),
        ("0 3 31 2 *", None),
        ("0 3 * * *", "Mars/Olympus"),
        ("0 3 * * *", ""),
    ],
)
def test_an_invalid_cron_is_named(cron: str, timezone: str | None) -> None:
    shop = Shop()
    with pytest.raises(InvalidArgument, match=r"cron|zone"):
        shop.sim.schedule("nightly", cron, shop.order, "o", timezone=timezone)
    assert shop.stored() == []


def test_a_schedule_of_something_unknown_or_of_wrong_arguments_is_refused() -> None:
    shop = Shop()
    with pytest.raises(UnknownFunction, match="'ordr'"):
        shop.sim.schedule("nightly", "0 3 * * *", "ordr")
    with pytest.raises(TypeError, match="'number'"):
        shop.sim.schedule("nightly", "0 3 * * *", shop.order)
    with pytest.raises(InvalidId, match="schedule id"):
        shop.sim.schedule("night.ly", "0 3 * * *", shop.order, "o")
    assert shop.stored() == []


def test_two_functions_under_one_name_are_refused_naming_both_places() -> None:
    shop = Shop()
    here = rf"{Path(__file__).name}:\d+"

    def charge() -> None: ...

    async def order(ctx: Context) -> None: ...

    for again in (
        lambda: shop.app.step(charge),
        lambda: shop.app.workflow(order),
        lambda: shop.app.workflow(name="charge")(order),
        lambda: shop.app.step(name="order")(charge),
    ):
        with pytest.raises(DuplicateRegistration, match=rf"'(charge|order)'.*{here}"):
            again()
    shop.app.workflow(version=2)(order)
    with pytest.raises(DuplicateRegistration, match="version 2"):
        shop.app.workflow(version=2)(order)


async def nothing(ctx: Context) -> None: ...


async def yields_and_awaits(ctx: Context) -> Any:
    yield ctx.sleep(1)


@pytest.mark.parametrize(
    ("make", "culprit"),
    [
        (lambda: App(""), "App name ''"),
        (lambda: App("a/b"), "a/b"),
        (lambda: App("a", retention=-1), "retention"),
        (lambda: App("a").workflow(version=0)(nothing), "version=0"),
        (lambda: App("a").workflow(timeout=-1)(nothing), "timeout"),
        (lambda: App("a").workflow(5), "int"),
        (lambda: App("a").workflow(yields_and_awaits), "yields_and_awaits: `async def` awaits"),
        (lambda: App("a").step(5), "int"),
        (lambda: Retry(attempts=0), "attempts=0"),
        (lambda: Retry(first=-1), "first=-1"),
        (lambda: Retry(factor=math.nan), "factor=nan"),
        (lambda: Retry(cap=math.inf), "cap=inf"),
    ],
)
def test_a_registration_with_an_impossible_option_names_it(make: Callable[[], Any], culprit: str) -> None:
    with pytest.raises(InvalidArgument, match=culprit):
        make()


# What settling refuses.


def test_a_value_that_cannot_be_stored_or_is_too_large_leaves_the_promise_as_it_was() -> None:
    shop = Shop()

    @shop.app.workflow
    async def ask(ctx: Context) -> Any:
        return await ctx.promise()

    handle = shop.sim.start(ask, id="a1")
    shop.sim.run_until_idle()
    with pytest.raises(NotSerializable, match=r"value of a1\.1.*Opaque"):
        shop.sim.resolve("a1.1", Opaque())
    with pytest.raises(PayloadTooLarge, match=r"value of a1\.1"):
        shop.sim.resolve("a1.1", "x" * 300_000)
    for wrong in ("a1.2", "a2", "a1.1.1"):
        with pytest.raises(LookupError, match=wrong):
            shop.sim.resolve(wrong, 1)
    shop.sim.resolve("a1.1", "fine")
    assert shop.sim.run(handle) == "fine"


# What a run meets on its way, and can catch.


def outcome(body: Callable[..., Any], mode: Any = "rows") -> tuple[Shop, SimHandle[Any]]:
    shop = Shop(mode)
    workflow = shop.app.workflow(name="body")(body)
    handle = shop.sim.start(workflow, id="b1")
    shop.sim.advance(minutes=5)
    return shop, handle


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf, "5", None])
def test_a_sleep_that_is_none_fails_at_the_call_by_name(seconds: Any) -> None:
    async def body(ctx: Context) -> None:
        await ctx.sleep(seconds)

    _, handle = outcome(body)
    with pytest.raises(InvalidArgument, match="sleep must be"):
        handle.result()


@BOTH
@pytest.mark.parametrize(
    ("value", "error", "culprit"),
    [
        (Opaque(), NotSerializable, r"result of odd\(\).*Opaque"),
        ("x" * 300_000, PayloadTooLarge, r"result of odd\(\) has 300002 bytes"),
        (math.nan, NotSerializable, r"result of odd\(\): a float that is NaN"),
    ],
    ids=["object", "too large", "nan"],
)
def test_a_result_of_a_step_that_cannot_be_stored_is_its_failure(
    mode: Any, value: Any, error: type[Exception], culprit: str
) -> None:
    ran: list[int] = []

    def odd() -> Any:
        ran.append(1)
        return value

    async def body(ctx: Context) -> str:
        try:
            await ctx.run(odd)
        except error as caught:
            return str(caught)
        return "stored"

    shop, handle = outcome(body, mode)
    shop.sim.kill()
    assert re.search(culprit, handle.result())
    assert len(ran) == 1, "it is not tried again: it would come to the same"


@BOTH
@pytest.mark.parametrize("value", [Opaque(), "x" * 300_000], ids=["object", "too large"])
def test_a_result_of_a_workflow_that_cannot_be_stored_fails_the_run_by_name(mode: Any, value: Any) -> None:
    async def body(ctx: Context) -> Any:
        return value

    _, handle = outcome(body, mode)
    assert handle.status() == "rejected"
    with pytest.raises((NotSerializable, PayloadTooLarge), match=r"result of body\(\)"):
        handle.result()


@BOTH
def test_a_result_of_another_type_than_it_says_fails_by_name(mode: Any) -> None:
    def number() -> int:
        return "seven"  # type: ignore[return-value]

    async def body(ctx: Context) -> int:
        return await ctx.run(number)

    _, handle = outcome(body, mode)
    with pytest.raises(TypeError, match=r"result of number\(\): expected int, got str"):
        handle.result()


def test_a_future_that_was_not_awaited_is_named_with_what_to_do() -> None:
    async def result(ctx: Context) -> Any:
        return ctx.sleep(1)

    async def argument(ctx: Context) -> Any:
        return await ctx.run(str, ctx.sleep(1))

    for body, culprit in ((result, r"result of result\(\)"), (argument, "argument")):
        _, handle = outcome(body)
        with pytest.raises(NotSerializable, match=rf"{culprit}.*DurableFuture cannot be stored; await it"):
            handle.result()


@BOTH
def test_a_future_stands_for_no_truth(mode: Any) -> None:
    """`if approval:` would pay whatever was answered."""

    async def body(ctx: Context) -> str:
        approval = ctx.promise()
        return "paid" if approval else "declined"

    _, handle = outcome(body, mode)
    with pytest.raises(TypeError, match=r"\.1: a future is neither true nor false; await it"):
        handle.result()


def test_a_workflow_that_is_called_like_a_function_says_how_to_start_it() -> None:
    app = App("shop")

    @app.workflow
    async def order(ctx: Context, id: str) -> str:
        return id

    for given in ("o-1", None, 5):
        with pytest.raises(TypeError, match=r"order is a workflow and begins with a Context.*client.start\(order"):
            order(given, "o-1")  # type: ignore[arg-type]


# What halts a run, which then goes on.


@BOTH
def test_real_io_halts_the_run_with_what_to_do_and_the_mended_code_goes_on(mode: Any) -> None:
    shop = Shop(mode)
    mended = False

    @shop.app.step
    async def fetch() -> str:
        return "fetched"

    @shop.app.workflow
    async def body(ctx: Context) -> list[str]:
        first = await ctx.run(shop.charge, "o", 1)
        try:
            if mended:
                return [first, await ctx.run(fetch)]
            await asyncio.open_connection("example.com", 80)
        except Exception:
            return [first, "swallowed"]
        return [first, "connected"]

    handle = shop.sim.start(body, id="b1")
    shop.sim.advance(days=1)
    assert handle.status() == "pending"
    assert handle.halted
    assert "wrap it in ctx.run" in reason(handle)
    with pytest.raises(Halted, match=r"wrap it in ctx\.run"):
        handle.result()

    mended = True
    shop.sim.cold()
    shop.sim.continue_("b1")
    assert shop.sim.run(handle) == ["o: 1", "fetched"]
    assert shop.ran["charge"] == 1


@BOTH
@pytest.mark.parametrize("how", ["thread", "socket", "subprocess", "foreign"])
def test_other_ways_out_of_a_body_are_seen_too(mode: Any, how: str) -> None:
    async def body(ctx: Context) -> None:
        loop = asyncio.get_running_loop()
        match how:
            case "thread":
                await asyncio.to_thread(print)
            case "socket":
                with socket.socket() as sock:
                    await loop.sock_connect(sock, ("127.0.0.1", 9))
            case "subprocess":
                await asyncio.create_subprocess_exec("true")
            case "foreign":
                loop.call_soon_threadsafe(print)

    _, handle = outcome(body, mode)
    assert handle.halted
    assert "wrap it in ctx.run" in reason(handle)


@BOTH
def test_waiting_for_what_nobody_will_ever_do_halts_the_run(mode: Any) -> None:
    async def body(ctx: Context) -> None:
        await asyncio.Event().wait()

    _, handle = outcome(body, mode)
    assert handle.halted
    assert "nothing durable" in reason(handle)


@BOTH
def test_a_function_that_is_not_deployed_halts_the_run_in_the_end_and_loses_nothing(mode: Any) -> None:
    shop = Shop(mode)

    @shop.app.workflow
    async def body(ctx: Context) -> list[Any]:
        return [await ctx.run(shop.charge, "o", 1), await ctx.promise()]

    handle = shop.sim.start(body, id="b1")
    shop.sim.run_until_idle()
    code = shop.app._workflows.pop("body")
    shop.sim.cold()
    shop.sim.resolve("b1.2", "yes")
    shop.sim.advance(seconds=10)
    assert handle.status() == "pending"
    assert "no workflow named 'body' in app 'shop'; registered: charge, order" in reason(handle)
    assert not handle.halted, "it is tried again for a while: a deployment may be under way"

    shop.sim.advance(days=2)
    assert handle.halted

    shop.app._workflows["body"] = code
    shop.sim.continue_("b1")
    assert shop.sim.run(handle) == ["o: 1", "yes"]
    assert shop.ran["charge"] == 1


@BOTH
def test_a_deployment_that_comes_in_time_needs_nobody(mode: Any) -> None:
    shop = Shop(mode)
    code = shop.app._workflows.pop("order")
    shop.sim.client.app = None
    handle = shop.sim.start("order", "o", id="o1")
    shop.sim.advance(seconds=5)
    assert handle.status() == "pending"
    shop.app._workflows["order"] = code
    assert shop.sim.run(handle) == "o: 1"


@BOTH
def test_arguments_that_do_not_fit_any_more_halt_the_run_in_the_end(mode: Any) -> None:
    """Somebody without the code started it by name, with whatever."""
    shop = Shop(mode)
    shop.sim.client.app = None
    handle = shop.sim.start("order", {"not": "a name"}, id="o1")
    shop.sim.advance(days=2)
    assert handle.halted
    assert "argument 'number' of order()" in reason(handle)


@BOTH
@pytest.mark.parametrize("args", [("o", 1, True, 4), ()], ids=["too many", "missing"])
def test_arguments_that_fit_no_parameter_fail_the_run_by_name(mode: Any, args: Any) -> None:
    shop = Shop(mode)
    shop.sim.client.app = None
    handle = shop.sim.start("order", *args, id="o1")
    shop.sim.advance(days=2)
    assert handle.halted or handle.status() == "rejected"
    with pytest.raises(Exception, match=r"order\(\)"):
        handle.result()


# The database file, by the runtime and by the command line.

app = App("files")


@app.step
def note(text: str) -> str:
    return text.upper()


@app.workflow
async def notes(ctx: Context, count: int) -> list[str]:
    return [await ctx.run(note, f"{number} " + "x" * 900) for number in range(count)]


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def run_notes(
    path: Path, count: int = 3, id: str = "n1", *, pragma: str = "", on_event: Callable[[Event], None] | None = None
) -> Any:
    async def main() -> Any:
        async with Runtime(app, url(path), on_event=on_event) as runtime:
            if pragma:
                set_pragma(runtime, pragma)
            handle = await runtime.run(notes, count, id=id)
            return await handle.result(timeout=0)

    return asyncio.run(asyncio.wait_for(main(), 60))


def set_pragma(runtime: Runtime, pragma: str) -> None:
    """Of the runtime's own connection: this is how a test makes a small disk."""
    store: Any = runtime.store
    store._cursor().execute(f"PRAGMA {pragma}")


def run_command(path: Path, count: int = 3, **options: Any) -> subprocess.CompletedProcess[str]:
    requires_component("click", hint="pip install -e '.[test]'")
    command = [sys.executable, "-m", "everstep.cli", "run", f"{__name__}:app", "notes", str(count), "--id", "n1"]
    return subprocess.run(
        [*command, "--store", url(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'core'}"},
        **options,
    )


def execute(path: Path, *statements: str) -> None:
    with sqlite3.connect(path) as db:
        for statement in statements:
            db.execute(statement)
    db.close()


def test_a_corrupted_file_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "files.db"
    path.write_bytes(b"not a database at all" * 500)
    before = path.read_bytes()

    with pytest.raises(StoreCorrupted, match=r"files\.db: is not a database"):
        run_notes(path)
    told = run_command(path)

    assert told.returncode == 2, told
    assert "files.db: is not a database" in told.stderr
    assert "Traceback" not in told.stderr
    assert path.read_bytes() == before


def test_a_file_that_is_damaged_in_the_middle_is_named_and_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "files.db"
    run_notes(path, 300)
    content = bytearray(path.read_bytes())
    content[3 * 4096 :] = b"\xa5" * (len(content) - 3 * 4096)
    path.write_bytes(content)

    with pytest.raises(StoreCorrupted, match=r"files\.db: the database is damaged"):
        run_notes(path, 301, "n2")
    told = run_command(path)
    assert told.returncode == 2, told
    assert "files.db: the database is damaged" in told.stderr


def test_a_database_of_a_newer_version_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "files.db"
    run_notes(path)
    execute(path, "PRAGMA user_version = 99")

    with pytest.raises(StoreTooNew, match=r"files\.db: written by a newer version.*upgrade everstep"):
        run_notes(path)
    told = run_command(path)
    assert told.returncode == 2, told
    assert "upgrade everstep" in told.stderr

    execute(path, "PRAGMA user_version = 1")
    assert len(run_notes(path)) == 3


def test_a_read_only_file_is_named_by_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions do not bind root, so that the question is answered here."""
    requires_component("click", hint="pip install -e '.[test]'")
    from everstep.cli import main

    path = tmp_path / "files.db"
    run_notes(path)
    access = os.access
    monkeypatch.setattr(os, "access", lambda place, how: how != os.W_OK and access(place, how))
    told: list[str] = []
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    code = main(["run", f"{__name__}:app", "notes", "3", "--id", "n1", "--store", url(path)])
    told.append(sys.stderr.getvalue())
    assert (code, "files.db: the file is read-only" in told[0]) == (2, True), told


@pytest.mark.parametrize(
    ("pragma", "error", "words"),
    [
        ("query_only = ON", StoreReadOnly, r"files\.db: the file is read-only"),
        ("max_page_count = 40", StoreFull, r"files\.db: no room is left for it; nothing of this write was kept"),
    ],
    ids=["read-only", "full"],
)
def test_a_file_that_takes_no_more_ends_the_run_by_name_and_keeps_what_was_done(
    tmp_path: Path, pragma: str, error: type[Exception], words: str
) -> None:
    path = tmp_path / "files.db"
    delivered: list[str] = []

    async def main() -> Any:
        def on_event(event: Event) -> None:
            if event.kind == "delivered":
                delivered.append(event.id)
                if len(delivered) == 10:
                    set_pragma(runtime, pragma)

        async with Runtime(app, url(path), on_event=on_event) as runtime:
            await runtime.run(notes, 200, id="n1")

    with pytest.raises(error, match=words):
        asyncio.run(asyncio.wait_for(main(), 60))
    before = len(delivered)
    assert 10 <= before < 200

    def on_event(event: Event) -> None:
        if event.kind == "delivered":
            delivered.append(event.id)

    assert len(run_notes(path, 200, on_event=on_event)) == 200
    assert len(delivered) == 200, "what was recorded before did not run again"


def test_a_server_goes_on_when_there_is_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is trouble that somebody mends; a server tells of it and waits, and does not go round in circles."""
    path = tmp_path / "files.db"
    turns: list[int] = []

    async def main() -> tuple[Any, list[str]]:
        troubles: list[str] = []
        full = asyncio.Event()

        def on_event(event: Event) -> None:
            if event.kind == "trouble":
                troubles.append(event.detail["error"])
                full.set()

        async with Runtime(app, url(path), on_event=on_event) as runtime:
            turn = runtime._turn
            monkeypatch.setattr(runtime, "_turn", lambda watched: turns.append(1) or turn(watched))
            set_pragma(runtime, "max_page_count = 40")
            handle = await runtime.client.start(notes, 200, id="n1")
            serving = asyncio.create_task(runtime.serve())
            await full.wait()
            set_pragma(runtime, "max_page_count = 4000000")
            result = await handle.result(timeout=60)
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            return result, troubles

    result, troubles = asyncio.run(main())
    assert len(result) == 200
    assert "no room is left" in troubles[0]
    assert len(turns) < 500


def test_a_folder_that_is_not_there_and_a_url_that_is_none_are_named(tmp_path: Path) -> None:
    from everstep import Client, StoreError

    with pytest.raises(StoreError, match=r"nowhere; create it first"):
        run_notes(tmp_path / "nowhere" / "files.db")
    for wrong in ("sqlite:/everstep.db", "mysql://x", "", "everstep.db"):
        with pytest.raises(InvalidArgument):
            Client.open(wrong)
