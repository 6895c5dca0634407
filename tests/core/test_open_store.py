"""A store URL: which module it loads, what it says when that is not there, and that nothing loads before."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from types import ModuleType

import pytest

from everstep.errors import InvalidArgument
from everstep.ports import Commit, Guard, Put, Query, Store
from everstep.stores import open_store
from everstep.stores.counted import Counted
from everstep.stores.memory import MemoryStore
from everstep.testing.conformance.rows import commit, row, write


def test_a_plain_memory_url_is_private_and_a_named_one_is_shared() -> None:
    assert open_store("memory:") is not open_store("memory:")
    assert open_store("memory:test-open-store") is open_store("memory:test-open-store")
    assert open_store("memory:test-open-store") is not open_store("memory:test-open-store-2")


def test_sqlite_is_imported_when_a_file_is_opened_and_not_before() -> None:
    code = "import sys, everstep.stores, everstep.stores.memory, everstep.wakers.local; print('sqlite3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        ("dynamodb://table", "everstep_aws.store", "aws"),
        ("firestore://project/db", "everstep_gcp.store", "gcp"),
        ("postgresql://localhost/db", "everstep_supabase.store", "supabase"),
        ("postgres://localhost/db", "everstep_supabase.store", "supabase"),
    ],
)
def test_an_adapter_opens_its_scheme(url: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def open_it(url: str) -> Store:
        opened.append(url)
        return MemoryStore()

    adapter = ModuleType(module)
    adapter.open_store = open_it  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module, adapter)
    assert isinstance(open_store(url), MemoryStore)
    assert opened == [url]


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        ("dynamodb://table", "everstep_aws.store", "aws"),
        ("firestore://project/db", "everstep_gcp.store", "gcp"),
        ("postgresql://localhost/db", "everstep_supabase.store", "supabase"),
    ],
)
def test_a_missing_library_names_the_extra(url: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def importing(name: str) -> ModuleType:
        assert name == module
        raise ModuleNotFoundError("No module named 'vendor'", name="vendor.client")

    monkeypatch.setattr("everstep.stores.import_module", importing)
    with pytest.raises(InvalidArgument) as caught:
        open_store(url)
    assert "needs the package 'vendor.client'" in str(caught.value)
    assert f"pip install 'everstep[{extra}]'" in str(caught.value)


def test_an_adapter_without_a_store_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "everstep_aws.store", None)
    with pytest.raises(InvalidArgument, match=r"has no store for dynamodb: yet"):
        open_store("dynamodb://table")


def test_a_third_party_registers_a_scheme_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("redis", "everstep.stores.memory:open_memory", "everstep.stores")

    def entry_points(group: str, name: str) -> EntryPoints:
        return EntryPoints([entry]).select(group=group, name=name)

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    assert isinstance(open_store("redis://shared"), MemoryStore)
    with pytest.raises(InvalidArgument, match="nothing opens mongodb:"):
        open_store("mongodb://shared")


def test_what_is_asked_of_a_store_is_counted() -> None:
    async def scenario() -> Counted:
        store = Counted(MemoryStore())
        assert store.single_writer
        await write(store, row("a", param="xyz", due=1), row("a.1"))
        assert await store.commit(commit(Put(row("a"), 0))) is not None
        assert await store.commit(Commit("a", (), ("a.1",), None, (Guard("a", 1),))) is None
        await store.load(["a", "b"])
        await store.branch("a")
        await store.due(1, 5)
        await store.find(Query())
        await store.delete("a")
        return store

    store = asyncio.run(scenario())
    assert dict(store.counts) == {"commit": 4, "load": 1, "branch": 1, "due": 1, "find": 1, "delete": 1}
    assert (store.rows_written, store.rows_read, store.rows_deleted) == (2, 4, 2)
    bare = len("a" + "a" + "step" + "pending")
    assert store.characters_written == bare + len("xyz") + bare + len(".1")
    assert store.characters_read == 3 * (bare + len("xyz"))
    store.reset()
    assert (dict(store.counts), store.rows_written, store.characters_read) == ({}, 0, 0)
