"""System 39, encryption: every stored value goes through an encryptor; the workflow knows nothing of it."""

from __future__ import annotations

import ast
import asyncio
import inspect
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypedDict

import pytest

from everstep import AesGcm, App, Codec, Context, DecodeError, DirectoryBlobs, Halted, Retry, Runtime
from everstep.local import Event
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import World, did, kill_at, survives

K1, K2 = bytes(range(32)), bytes(range(1, 33))
CARD, NAME, SECRET = "4111-1111-1111-1111", "Kim Larsson", "the-purple-elephant"


class CardDeclined(Exception):
    def __init__(self, card: str) -> None:
        super().__init__(f"declined: {card}")
        self.card = card


class Paid(TypedDict):
    receipt: str
    shipped: bool


def shop(codec: Codec) -> App:
    """The program, on a codec that somebody configures elsewhere."""
    app = App("shop", codec=codec)

    @app.step(retry=Retry(attempts=3, first=1))
    def validate(card: str) -> str:
        did("validate")
        return f"valid {card}"

    @app.step(retry=Retry(attempts=1))
    def charge(card: str, name: str, cents: int) -> str:
        did("charge")
        if cents > 10_000:
            raise CardDeclined(card)
        return f"{name} paid with {card}"

    @app.step
    def ship(name: str) -> bool:
        did("ship")
        return True

    @app.workflow
    async def audit(ctx: Context, name: str) -> str:
        return f"audited {name}"

    @app.workflow
    async def pay(ctx: Context, card: str, name: str, cents: int) -> Paid:
        await ctx.run(validate, card)
        try:
            receipt = await ctx.run(charge, card, name, cents)
        except CardDeclined as error:
            receipt = f"declined {error.card}"
        await ctx.rpc(audit, name)
        word = await ctx.promise()
        await ctx.sleep(1)
        shipped = await ctx.run(ship, f"{name} {word}")
        return {"receipt": receipt, "shipped": shipped}

    return app


def aes(current: str = "k1", **keys: bytes) -> AesGcm:
    return AesGcm(keys or {"k1": K1}, current)


app = shop(Codec(encryptor=aes()))


def in_clear(cells: Iterable[Any]) -> list[str]:
    """What of the secrets can be read in a dump."""
    text = "\n".join(str(cell) for cell in cells if cell is not None)
    return [secret for secret in (CARD, NAME, SECRET, "4111", "Larsson", "elephant") if secret in text]


def read_everything(folder: Path) -> bytes:
    return b"".join(one.read_bytes() for one in folder.rglob("*") if one.is_file())


def cells(sim: Simulation) -> list[Any]:
    return [cell for row in sim.world.store._rows.values() for cell in row]


RESULT: Paid = {"receipt": f"{NAME} paid with {CARD}", "shipped": True}
BOTH = pytest.mark.parametrize("mode", ["rows", "queue"])


def run_all(sim: Simulation, app: App, cents: int = 4200) -> Any:
    handle = sim.start("pay", CARD, NAME, cents, id="o1")
    sim.advance(minutes=5)
    sim.kill()
    sim.resolve("o1.4", SECRET)
    return sim.run(handle)


@BOTH
@pytest.mark.parametrize("cents", [4200, 99_999])
def test_nothing_can_be_read_in_the_store(mode: Mode, cents: int) -> None:
    plain, sealed = shop(Codec()), shop(Codec(encryptor=aes()))
    for app in (plain, sealed):
        app.provide(World(script={"validate": ["fail"]}))
        sim = Simulation(app, mode=mode)
        result = run_all(sim, app, cents)
        sim.schedule("nightly", "0 3 * * *", "pay", CARD, NAME, 1)
        assert result["shipped"]
        if app is plain:
            assert len(in_clear(cells(sim))) == 6, "the dump would show it"
        else:
            assert in_clear(cells(sim)) == []
    assert sim.handle("o1").tree().to_dict()["args"][:2] == [CARD, NAME], "who has the key can read it"


def test_nothing_can_be_read_while_it_waits_or_fails(caplog: pytest.LogCaptureFixture) -> None:
    """The text of a failed attempt is a value too."""
    app = shop(Codec(encryptor=aes()))

    @app.step(retry=Retry(attempts=5, first=60))
    def leak(card: str) -> None:
        raise ValueError(f"cannot reach the bank with {card}")

    @app.workflow
    async def leaky(ctx: Context, card: str) -> None:
        await ctx.run(leak, card)

    @app.workflow
    async def panics(ctx: Context, card: str) -> None:
        ctx.panic(f"no bank knows {card}")

    caplog.set_level(logging.DEBUG)
    sim = Simulation(app)
    sim.start(leaky, CARD, id="l1")
    handle = sim.start(panics, CARD, id="p1")
    sim.run_until_idle()

    assert in_clear(cells(sim)) == []
    with pytest.raises(Halted, match=CARD):
        handle.result()


def test_nothing_can_be_read_in_the_file_beside_it_or_in_the_log(tmp_path: Path) -> None:
    """A dump of every byte: the database, its write-ahead log, and the payloads kept by reference."""
    app = shop(Codec(encryptor=aes(), blobs=DirectoryBlobs(tmp_path / "blobs"), limit=64))
    app.provide(World())
    url = f"sqlite:///{tmp_path / 'shop.db'}"

    async def main() -> Any:
        asked = asyncio.Event()

        def on_event(event: Event) -> None:
            if event.kind == "created" and event.id == "o1.4":
                asked.set()

        async with Runtime(app, url, on_event=on_event) as runtime:
            handle = await runtime.client.start("pay", CARD, NAME, 4200, id="o1", tags={"team": "ops"})
            serving = asyncio.create_task(runtime.serve())
            await asked.wait()
            await runtime.client.resolve("o1.4", SECRET)
            result = await handle.result(timeout=30)
            dump = read_everything(tmp_path)
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            return result, dump

    result, dump = asyncio.run(main())
    assert result == RESULT
    assert len(dump) > 10_000
    for secret in (CARD, NAME, SECRET, "Larsson", "elephant"):
        assert secret.encode() not in dump
    assert b"team" in dump, "tags, names and ids are stored as they are"
    assert list((tmp_path / "blobs").rglob("*"))


@BOTH
def test_after_a_crash_values_are_decrypted_and_nothing_runs_again(mode: Mode) -> None:
    app = shop(Codec(encryptor=aes()))
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    kill_at(sim, "delivered", 2)

    assert run_all(sim, app) == RESULT
    assert world.counts() == {"validate": 1, "charge": 1, "ship": 1}


@BOTH
def test_a_failed_attempt_counts_after_a_crash_as_well(mode: Mode) -> None:
    app = shop(Codec(encryptor=aes()))
    world = app.provide(World(script={"validate": ["fail", "fail"]}))
    sim = Simulation(app, mode=mode)
    handle = sim.start("pay", CARD, NAME, 4200, id="o1")
    for _ in range(4):
        sim.run_until_idle()
        sim.kill()
        sim.advance(seconds=3)
    sim.resolve("o1.4", SECRET)

    assert sim.run(handle) == RESULT
    assert world.tries("validate") == 3


def swap(sim: Simulation, codec: Codec) -> None:
    """Deploy with another configuration."""
    sim.app._codec = sim.client._codec = codec


@BOTH
@pytest.mark.parametrize(
    "other", [aes(k1=K2), aes("k2", k2=K2), None], ids=["another key under its name", "another key", "no encryptor"]
)
def test_the_wrong_key_settles_nothing_and_the_right_one_goes_on(mode: Mode, other: AesGcm | None) -> None:
    app = shop(Codec(encryptor=aes()))
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    handle = sim.start("pay", CARD, NAME, 4200, id="o1")
    sim.run_until_idle()
    sim.resolve("o1.4", SECRET)
    sim.kill()
    swap(sim, Codec(encryptor=other))
    sim.run_until_idle()

    record = handle.record()
    assert handle.status() == "pending", "not rejected"
    assert record.task is not None
    assert (record.task.state.value, record.task.pid) == ("pending", None), "released, to be tried again"
    assert record.task.reason is not None
    assert not in_clear([record.task.reason])

    swap(sim, Codec(encryptor=aes()))
    assert sim.run(handle) == RESULT
    assert world.counts() == {"validate": 1, "charge": 1, "ship": 1}


@BOTH
def test_with_the_wrong_key_for_good_the_run_is_halted_and_can_be_continued(mode: Mode) -> None:
    app = shop(Codec(encryptor=aes()))
    app.provide(World())
    sim = Simulation(app, mode=mode)
    handle = sim.start("pay", CARD, NAME, 4200, id="o1")
    sim.run_until_idle()
    sim.resolve("o1.4", SECRET)
    sim.kill()
    swap(sim, Codec(encryptor=aes(k1=K2)))
    sim.advance(days=2)
    assert handle.halted
    assert handle.status() == "pending"

    swap(sim, Codec(encryptor=aes()))
    sim.continue_("o1")
    assert sim.run(handle) == RESULT


@BOTH
def test_after_a_rotation_old_values_are_read_and_new_ones_written_under_the_new_key(mode: Mode) -> None:
    app = shop(Codec(encryptor=aes()))
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    handle = sim.start("pay", CARD, NAME, 4200, id="o1")
    sim.run_until_idle()
    swap(sim, Codec(encryptor=aes("k2", k1=K1, k2=K2)))
    sim.kill()
    sim.resolve("o1.4", SECRET)

    assert sim.run(handle) == RESULT
    assert world.counts() == {"validate": 1, "charge": 1, "ship": 1}
    keys = {id: key for id, row in sim.world.store._rows.items() for key in ("k1", "k2") if f'"{key}"' in str(row)}
    assert keys["o1.1"] == "k1"
    assert keys["o1.6"] == "k2"
    assert in_clear(cells(sim)) == []
    with pytest.raises(DecodeError, match="k1"):
        Codec(encryptor=aes("k2", k2=K2)).decode(sim.record("o1.1").value)


@BOTH
def test_the_same_work_under_the_same_id_attaches_whatever_its_ciphertext(mode: Mode) -> None:
    app = shop(Codec(encryptor=aes()))
    app.provide(World())
    sim = Simulation(app, mode=mode)
    sim.start("pay", CARD, NAME, 4200, id="o1")
    sim.start("pay", CARD, NAME, 4200, id="o1")
    swap(sim, Codec(encryptor=aes("k2", k1=K1, k2=K2)))
    sim.start("pay", CARD, NAME, 4200, id="o1")
    with pytest.raises(Exception, match="other work"):
        sim.start("pay", CARD, NAME, 4300, id="o1")


def test_the_program_imports_nothing_of_it() -> None:
    names = {node.id for node in ast.walk(ast.parse(inspect.getsource(shop))) if isinstance(node, ast.Name)}
    assert not {name for name in names if "crypt" in name.lower() or "aes" in name.lower()}


def test_it_survives_a_crash_at_every_point() -> None:
    app = shop(Codec(encryptor=aes()))
    app.provide(World())

    survives(app, "pay", CARD, NAME, 4200, result=RESULT, id="o1", settle={"o1.4": SECRET})  # type: ignore[arg-type]
