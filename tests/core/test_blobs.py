"""Blobs: what was put is got, whatever the key; a file is there whole or not at all."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everstep import App, Context, Runtime
from everstep.blobs import Blobs, DirectoryBlobs, MemoryBlobs

KEYS = [
    "a/value/1",
    "a_value/1",
    "a/value_1",
    "../../etc/passwd",
    "/abs",
    "..",
    "CON",
    "ü/日本",
    "x" * 1000,
    " ",
    "a\\b",
    "A",
    "a",
]


@pytest.fixture(params=[DirectoryBlobs, lambda folder: MemoryBlobs()], ids=["directory", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    make: Callable[[Path], Blobs] = request.param
    return make(tmp_path / "blobs")


def test_every_key_has_its_own_place(blobs: Blobs) -> None:
    async def main() -> None:
        for key in KEYS:
            await blobs.put(key, key.encode())
        for key in KEYS:
            assert await blobs.get(key) == key.encode()

    asyncio.run(main())


def test_what_is_not_there_is_a_key_error(blobs: Blobs) -> None:
    async def main() -> None:
        with pytest.raises(KeyError):
            await blobs.get("x")
        await blobs.delete("x")
        await blobs.put("x", b"")
        assert await blobs.get("x") == b""
        await blobs.put("x", b"1")
        assert await blobs.get("x") == b"1"
        await blobs.delete("x")
        with pytest.raises(KeyError):
            await blobs.get("x")

    asyncio.run(main())


@given(st.text(max_size=60))
def test_no_key_leads_out_of_the_folder(key: str) -> None:
    folder = Path("/some/folder")
    path = DirectoryBlobs(folder).path(key)
    assert path.parent.parent == folder
    assert ".." not in path.parts
    assert path.name.isascii()
    assert len(path.name) < 100
    assert not path.name.startswith(".")


def test_a_name_is_readable(tmp_path: Path) -> None:
    assert DirectoryBlobs(tmp_path).path("order-o-17.3/value/abc").name.startswith("order-o-17_3_value_abc.")


def test_a_write_that_fails_leaves_the_old_blob_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = DirectoryBlobs(tmp_path)
    asyncio.run(blobs.put("x", b"old"))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        asyncio.run(blobs.put("x", b"new"))
    monkeypatch.undo()
    assert asyncio.run(blobs.get("x")) == b"old"
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_the_bytes_are_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append("flush"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("rename"), replace(*paths)))
    asyncio.run(DirectoryBlobs(tmp_path).put("x", b"1"))
    assert done[:2] == ["flush", "rename"]


def test_two_stores_of_one_app_keep_their_large_payloads_apart(tmp_path: Path) -> None:
    """The codec belongs to what works on a store, not to the App."""
    app = App("apart")

    @app.step
    def large(char: str) -> str:
        return char * 300_000

    @app.workflow
    async def big(ctx: Context, char: str) -> int:
        return len(await ctx.run(large, char))

    async def story() -> None:
        async with (
            Runtime(app, f"sqlite:///{tmp_path}/one.db") as one,
            Runtime(app, f"sqlite:///{tmp_path}/two.db") as two,
        ):
            assert await (await one.run(big, "a", id="b")).result(0) == 300_000
            assert not (tmp_path / "two.db.blobs").exists()
            assert await (await two.run(big, "a", id="b")).result(0) == 300_000

    asyncio.run(story())
    assert (tmp_path / "one.db.blobs").is_dir()
    assert (tmp_path / "two.db.blobs").is_dir()


def test_a_root_started_from_a_body_takes_large_arguments_too(tmp_path: Path) -> None:
    app = App("large")

    @app.workflow
    async def length(ctx: Context, text: str) -> int:
        return len(text)

    @app.workflow
    async def begin(ctx: Context) -> str:
        return str(await ctx.detached(length, "x" * 300_000))

    async def story() -> None:
        async with Runtime(app, f"sqlite:///{tmp_path}/one.db") as runtime:
            started = await (await runtime.run(begin, id="b")).result(0)
            await runtime.drive(started)
            assert await runtime.client.handle(started).result(0) == 300_000

    asyncio.run(story())
