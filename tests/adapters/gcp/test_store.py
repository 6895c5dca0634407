"""The Firestore store on the official emulator: the suite every store must pass, and the oracle beside it."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys

import pytest

from everstep.errors import InvalidArgument, StoreError
from everstep.ports import Put, Store
from everstep.stores import open_store
from everstep.testing.conformance import StoreSuite
from everstep.testing.conformance.differential import compare
from everstep.testing.conformance.rows import STRANGE_IDS, commit, row, write
from everstep_gcp.names import id_of, name_of
from everstep_gcp.store import FirestoreStore

pytestmark = pytest.mark.xdist_group("firestore")

QUIET = int(os.environ.get("EVERSTEP_FIRESTORE_QUIET", "100"))
"""Rounds without anything new after which the two stores count as alike; more of them in a soak."""


class TestFirestore(StoreSuite):
    fences_soft = False
    largest = 1_000_000

    @pytest.fixture(autouse=True)
    def _project(self, project: str) -> None:
        self.url = f"firestore://{project}"

    async def open(self) -> Store:
        return open_store(self.url)

    async def reopen(self, store: Store) -> Store:
        await store.close()
        return open_store(self.url)


def test_no_difference_to_the_oracle(project: str) -> None:
    async def scenario() -> None:
        store = open_store(f"firestore://{project}")
        oracle = open_store("memory:")
        try:
            outcome = await compare(
                oracle, store, random.Random(1), quiet_rounds=QUIET, most_rounds=20 * QUIET, soft_fences=False
            )
            assert outcome.signatures > 100
        finally:
            await store.close()

    asyncio.run(scenario())


def test_of_eight_writers_each_gets_its_turn(project: str) -> None:
    """Each with a connection of its own, as eight instances have; one winner for each rev, and nobody starves."""

    async def scenario() -> None:
        stores = [FirestoreStore(project) for _ in range(8)]
        await write(stores[0], row("a"), row("a.1"))
        order: list[tuple[int, int]] = []

        async def wins(writer: int, times: int) -> None:
            while times:
                rev = (await stores[writer].load(["a"]))["a"].rev
                log = Put(row(f"a.{rev + 1}"), 0)
                if await stores[writer].commit(commit(Put(row("a", rev=rev + 1), rev), log)) is None:
                    order.append((rev + 1, writer))
                    times -= 1

        await asyncio.wait_for(asyncio.gather(*[wins(writer, 4) for writer in range(8)]), 120)
        assert [rev for rev, _ in sorted(order)] == list(range(2, 34))
        for store in stores:
            await store.close()

    asyncio.run(scenario())


def test_a_name_keeps_the_order_of_ids_and_gives_the_id_back() -> None:
    rng = random.Random(5)
    chars = "..//~\x7f\x7e}_-0a:\U0010ffff\ud7ff\ue000é !"
    ids = sorted({"".join(rng.choices(chars, k=rng.randrange(1, 7))) for _ in range(4000)} | set(STRANGE_IDS))
    names = [name_of(id) for id in ids]
    assert names == sorted(names)
    assert [id_of(name) for name in names] == ids
    assert not any("/" in name or name.startswith(("__", ".")) for name in names)


def test_an_id_whose_name_would_be_too_long_is_refused_by_name() -> None:
    with pytest.raises(StoreError, match="1500"):
        name_of("/" * 1000)


@pytest.mark.parametrize(
    "url", ["firestore:", "firestore://", "firestore://p/d/e", "firestore://p?colour=red", "firestore://p?timeout=soon"]
)
def test_a_url_that_names_no_database_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument, match="firestore:"):
        open_store(url)


def test_opening_imports_nothing_of_the_vendor() -> None:
    """Its library takes a third of a second, which a command that only prints help should not pay."""
    code = (
        "import sys, everstep_gcp.store as s; s.open_store('firestore://p/d');"
        "print([m for m in sys.modules if m.startswith(('grpc', 'google.cloud.firestore', 'google.api_core'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
