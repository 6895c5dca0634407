"""The SQLite store: what it says of a file it cannot use, and that nothing is lost when it says so."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from everstep.errors import (
    InvalidArgument,
    StoreCorrupted,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreTooNew,
    StoreUnavailable,
)
from everstep.ports import Fence, Put, Query, Store
from everstep.rows import Row, from_row, records
from everstep.stores import open_store
from everstep.stores.sqlite import SqliteStore
from everstep.testing.conformance.rows import commit, row, write


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "everstep.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path, synchronous="normal")
    yield store
    asyncio.run(store.close())


def contents(path: Path) -> dict[str, Row]:
    async def read_out() -> dict[str, Row]:
        store = SqliteStore(path)
        try:
            return {found.id: found for found in (await store.find(Query(limit=10_000))).rows}
        finally:
            await store.close()

    return asyncio.run(read_out())


def filled(path: Path, *rows: Row) -> None:
    async def fill() -> None:
        store = SqliteStore(path, synchronous="normal")
        await write(store, *rows)
        await store.close()

    asyncio.run(fill())


def edited(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def test_a_relative_url_names_a_file_where_the_store_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("sqlite:///here.db?timeout=2.5&synchronous=normal")
    monkeypatch.chdir("/")
    asyncio.run(write(store, row("a")))
    asyncio.run(store.close())
    assert list(contents(tmp_path / "here.db")) == ["a"]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("everstep.db", "not a store URL"),
        ("", "not a store URL"),
        ("sqlite://everstep.db", "sqlite:///file.db"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "memory:"),
        ("sqlite:///a.db?sync=off", "'sync=off' is not an option"),
        ("sqlite:///a.db?synchronous=off", "'synchronous=off' is not an option"),
        ("sqlite:///a.db?timeout=-1", "'timeout=-1' is not an option"),
        ("mongodb://x", "nothing opens mongodb:"),
    ],
)
def test_a_url_that_names_nothing_is_refused(url: str, says: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        open_store(url)
    assert says in str(caught.value)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no folder .*nowhere; create it first"):
        SqliteStore(tmp_path / "nowhere" / "everstep.db")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a folder"):
        SqliteStore(tmp_path)


@pytest.mark.parametrize("content", [b"name,amount\n" * 500, b"\0" * 4096, b"SQLite format 3\0" + b"\xff" * 8176])
def test_a_file_that_is_no_database_is_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreCorrupted, match=r"everstep\.db: is not a database"):
        SqliteStore(path)
    assert path.read_bytes() == content
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_database_of_another_program_is_left_alone(path: Path) -> None:
    edited(path, "CREATE TABLE customers (name TEXT)", "PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="database of another program") as caught:
        SqliteStore(path)
    assert not isinstance(caught.value, StoreTooNew)
    assert path.read_bytes() == before


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    filled(path, row("a"))
    assert list(contents(path)) == ["a"]


def test_a_newer_database_is_refused_and_kept(path: Path) -> None:
    filled(path, row("a"))
    edited(path, "PRAGMA user_version = 2")
    with pytest.raises(StoreTooNew, match=r"schema 2, this one knows 1.*upgrade everstep"):
        SqliteStore(path)
    edited(path, "PRAGMA user_version = 1")
    assert list(contents(path)) == ["a"]


def test_damaged_pages_are_reported(path: Path) -> None:
    filled(path, *[row(f"a.{n}", param="x" * 900) for n in range(200)])
    content = bytearray(path.read_bytes())
    content[3 * 4096 :] = b"\xa5" * (len(content) - 3 * 4096)
    path.write_bytes(content)

    async def look() -> None:
        store = SqliteStore(path)
        try:
            with pytest.raises(StoreCorrupted, match=r"everstep\.db: the database is damaged"):
                await store.branch("a")
            with pytest.raises(StoreCorrupted, match=r"everstep\.db: the database is damaged"):
                await store.load(["a.17"])
            with pytest.raises(StoreCorrupted, match=r"everstep\.db: the database is damaged"):
                await store.commit(commit(Put(row("a.17x"), 0)))
        finally:
            await store.close()

    asyncio.run(look())


def test_text_that_is_not_utf8_is_reported_with_its_id(path: Path) -> None:
    filled(path, row("a"), row("a.1"), row("a.2"))
    edited(path, "UPDATE everstep_rows SET value = CAST(x'ff00fe' AS TEXT) WHERE id = 'a.1'")

    async def look() -> None:
        store = SqliteStore(path)
        for attempt in (store.load(["a.1"]), store.branch("a"), store.find(Query())):
            with pytest.raises(StoreCorrupted, match=r"the row of 'a\.1' cannot be read"):
                await attempt
        assert list(await store.load(["a", "a.2"])) == ["a", "a.2"]
        await store.close()

    asyncio.run(look())


def test_damaged_tags_are_reported_with_their_id(path: Path) -> None:
    filled(path, row("a", tags='{"t":"1"}'), row("b", tags='{"t":'), row("c", tags='{"t":"1"}'))

    async def look() -> None:
        store = SqliteStore(path)
        with pytest.raises(StoreCorrupted, match=r"the row of 'b' cannot be read"):
            await store.find(Query(tags={"t": "1"}))
        assert [found.id for found in (await store.find(Query(tags={"t": "1"}, cursor="b"))).rows] == ["c"]
        await store.close()

    asyncio.run(look())


@pytest.mark.parametrize(
    "damage",
    [
        {"task": '{"s":"acq'},
        {"task": "{}"},
        {"task": '{"s":"nap","v":1}'},
        {"task": "[]"},
        {"task": '{"s":"pending","v":1,"h":[[1]]}'},
        {"tags": "{"},
        {"rest": "null and void"},
        {"rest": "[1]"},
        {"state": "undecided"},
    ],
)
def test_a_row_whose_text_is_damaged_is_reported_with_its_id(damage: dict[str, str]) -> None:
    with pytest.raises(StoreCorrupted, match=r"^a\.7: its row cannot be read"):
        from_row(row("a.7", **damage))
    with pytest.raises(StoreCorrupted, match=r"^a\.7: "):
        records([row("a"), row("a.7", **damage)])


def test_a_whole_row_is_read() -> None:
    assert records([row("a"), row("a.1")]) == {"a": from_row(row("a")), "a.1": from_row(row("a.1"))}


READ_ONLY = """
import os, sys
from everstep.errors import StoreReadOnly
from everstep.stores.sqlite import SqliteStore
if os.getuid() == 0:  # whom permissions do not bind
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    SqliteStore(sys.argv[1])
except StoreReadOnly as error:
    print("refused:", error)
"""


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("locked", ["file", "folder"])
def test_a_read_only_file_is_named_before_anything_is_tried(locked: str) -> None:
    # Not tmp_path: its parents are closed to the user the child becomes when the tests run as root.
    import tempfile

    folder = Path(tempfile.mkdtemp())
    try:
        path = folder / "everstep.db"
        filled(path, row("a"))
        folder.chmod(0o777 if locked == "file" else 0o555)
        path.chmod(0o444 if locked == "file" else 0o666)
        before = path.read_bytes()
        child = subprocess.run(
            [sys.executable, "-c", READ_ONLY, str(path)], capture_output=True, text=True, check=True, timeout=60
        )
        assert child.stdout.startswith(f"refused: {path}: the {locked} ")
        assert "read-only" in child.stdout
        folder.chmod(0o777)
        path.chmod(stat.S_IRUSR | stat.S_IWUSR)
        assert path.read_bytes() == before
        assert list(contents(path)) == ["a"]
    finally:
        shutil.rmtree(folder)


def test_a_file_that_becomes_read_only_says_so_and_can_still_be_read(store: SqliteStore) -> None:
    async def scenario() -> None:
        await write(store, row("a"))
        store._cursor().execute("PRAGMA query_only = 1")
        for attempt in (commit(Put(row("b"), 0)), commit(Put(row("b"), 0), Put(row("b.1"), 0))):
            with pytest.raises(StoreReadOnly, match=r"everstep\.db: the file is read-only"):
                await store.commit(attempt)
        with pytest.raises(StoreReadOnly):
            await store.delete("a")
        assert await store.load(["a", "b"]) == {"a": row("a")}

    asyncio.run(scenario())


def test_a_full_disk_loses_nothing(store: SqliteStore, path: Path) -> None:
    async def scenario() -> None:
        await write(store, row("a", lease=1))
        cursor = store._cursor()
        (pages,) = cursor.execute("PRAGMA page_count").fetchone()
        cursor.execute(f"PRAGMA max_page_count = {pages + 8}")
        written = ["a"]

        async def fill() -> None:
            for n in range(1000):
                id = f"a.{n}"
                assert await store.commit(commit(Put(row(id, value="x" * 1500), 0), fence=Fence("a", 1))) is None
                written.append(id)

        with pytest.raises(StoreFull, match=r"everstep\.db: no room is left"):
            await fill()
        big = [Put(row(f"a.b{n}", value="x" * 4000), 0) for n in range(20)]
        with pytest.raises(StoreFull):
            await store.commit(commit(Put(row("a", rev=2, lease=2), 1), *big))
        assert len(written) > 3
        assert sorted(await store.load([*written, "a.b0"])) == sorted(written)
        assert (await store.load(["a"]))["a"] == row("a", lease=1)
        cursor.execute("PRAGMA max_page_count = 1000000")
        assert await store.commit(commit(Put(row("a.later"), 0), fence=Fence("a", 1))) is None

    asyncio.run(scenario())
    assert "a.later" in contents(path)


def test_a_lock_that_is_not_given_up_makes_it_unavailable(path: Path) -> None:
    filled(path, row("a"))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    async def scenario() -> None:
        store = SqliteStore(path, timeout=0.02)
        for attempt in (commit(Put(row("b"), 0)), commit(Put(row("c"), 0), Put(row("c.1"), 0))):
            with pytest.raises(StoreUnavailable, match=r"another process has been writing for 0\.02 seconds"):
                await store.commit(attempt)
        assert await store.load(["a", "b"]) == {"a": row("a")}
        other.execute("ROLLBACK")
        await write(store, row("b"))
        await store.close()

    asyncio.run(scenario())
    other.close()
    assert list(contents(path)) == ["a", "b"]


def test_opening_waits_where_sqlite_itself_does_not(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process is creating the same file: the switch to WAL is refused at once, whatever the timeout."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable):
        SqliteStore(path, timeout=0)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            other.execute("ROLLBACK")

    monkeypatch.setattr("everstep.stores.sqlite_file.time.sleep", sleep)
    asyncio.run(SqliteStore(path, timeout=60).close())
    other.close()
    assert len(waits) == 3


def test_what_cannot_be_bound_is_a_store_error_that_names_the_id(store: SqliteStore) -> None:
    async def scenario() -> None:
        for changes in ({"value": "\ud800"}, {"created_at": 2**63}):
            with pytest.raises(StoreError, match="cannot write 'a'"):
                await store.commit(commit(Put(row("a", **changes), 0)))
        with pytest.raises(StoreError, match="cannot look for"):
            await store.load(["\ud800"])
        assert await store.load(["a"]) == {}
        await write(store, row("a"))

    asyncio.run(scenario())


def test_a_closed_store_says_so(store: SqliteStore) -> None:
    async def scenario() -> None:
        await store.close()
        with pytest.raises(StoreError, match="was closed"):
            await store.load(["a"])

    asyncio.run(scenario())


def test_each_thread_has_its_own_connection(store: SqliteStore) -> None:
    asyncio.run(write(store, row("a", value="0")))

    async def increment(store: Store) -> None:
        left = 25
        while left:
            now = (await store.load(["a"]))["a"]
            put = Put(now._replace(rev=now.rev + 1, value=str(int(now.value or "") + 1)), now.rev)
            left -= await store.commit(commit(put)) is None

    threads = [threading.Thread(target=lambda: asyncio.run(increment(store))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asyncio.run(store.load(["a"]))["a"].value == "100"


def test_the_log_and_the_durability_are_as_asked(tmp_path: Path) -> None:
    for synchronous, level in (("full", 2), ("normal", 1)):
        store = SqliteStore(tmp_path / f"{synchronous}.db", synchronous=synchronous)
        assert store._cursor().execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert store._cursor().execute("PRAGMA synchronous").fetchone() == (level,)
        asyncio.run(store.close())
    default = open_store(f"sqlite:///{tmp_path / 'full.db'}")
    assert isinstance(default, SqliteStore)
    assert default._cursor().execute("PRAGMA synchronous").fetchone() == (2,)
    asyncio.run(default.close())
