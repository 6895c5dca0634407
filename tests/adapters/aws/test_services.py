"""S3 for what an item cannot hold, KMS for the keys, Powertools for what people want to see; all by moto."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from moto import mock_aws

from everstep import App, Context, DecodeError, InvalidArgument
from everstep.client import Client
from everstep.codec import Codec
from everstep.errors import StoreError, StoreUnavailable
from everstep.stores.memory import MemoryStore
from everstep.testing import Simulation
from everstep_aws import KmsEncryptor, S3Blobs, handler, new_data_key, open_store
from everstep_aws.calls import make_client

from .cloud import QUEUE_ARN, Cloud, LambdaContext, Message
from .emulators import REGION, Inline, moto_store
from .faults import answer


@pytest.fixture(autouse=True)
def _mocked() -> Iterator[None]:
    with mock_aws():
        yield


def bucket() -> S3Blobs:
    client = make_client("s3", region=REGION)
    client.create_bucket(Bucket="payloads")
    return S3Blobs("payloads", caller=Inline(lambda: client, "the bucket"))


def test_blobs_keep_any_key_apart() -> None:
    async def scenario() -> None:
        blobs = bucket()
        keys = [
            "a/value/1",
            "a value",
            "../x",
            "ü/日",
            "~t",
            "a%2F",
            "x" * 1000,
            "x" * 999 + "y",
            "\ud800",
            "a+b",
            "a b",
        ]
        for key in keys:
            await blobs.put(key, key.encode("utf-8", "surrogatepass"))
        for key in keys:
            assert await blobs.get(key) == key.encode("utf-8", "surrogatepass")
        assert all(len(blobs.key(key).encode()) <= 1024 for key in keys)
        await blobs.delete("a value")
        await blobs.delete("a value")
        with pytest.raises(KeyError):
            await blobs.get("a value")

    asyncio.run(scenario())


def test_a_bucket_that_is_not_there_is_a_store_error() -> None:
    blobs = S3Blobs("nowhere", caller=Inline(lambda: make_client("s3", region=REGION), "the S3 bucket 'nowhere'"))
    with pytest.raises(StoreError, match="nowhere"):
        asyncio.run(blobs.put("a", b""))


def test_five_megabytes_go_through_a_run_by_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store names the bucket; the record holds a reference, and what is not needed any more is deleted."""
    client = make_client("s3", region=REGION)
    client.create_bucket(Bucket="payloads")
    monkeypatch.setenv("EVERSTEP_BUCKET", "payloads")
    app, cloud, store = App("big", retention=60), Cloud(), moto_store()

    @app.step
    def double(text: str) -> str:
        return text * 2

    @app.workflow
    async def big(ctx: Context, text: str) -> int:
        return len(await ctx.run(double, text))

    runs = Client(store, cloud.waker(), app=app, clock=cloud.clock)
    function = handler(app, client=runs)

    async def invoke(message: Message) -> bool:
        acked = await function.answer({"Records": [message.record(QUEUE_ARN)]}, LambdaContext())
        return bool(acked == {"batchItemFailures": []})

    async def scenario() -> None:
        handle = await runs.start(big, "x" * 5_000_000, id="b")
        await cloud.run(cloud.clock.now() + 5_000, invoke)
        assert await handle.result(0) == 10_000_000
        assert client.list_objects_v2(Bucket="payloads")["KeyCount"] == 3
        cloud.clock.advance(120_000)
        assert (await runs.sweep()).purged > 0
        assert client.list_objects_v2(Bucket="payloads")["KeyCount"] == 0
        assert await runs.search() == ([], None)

    asyncio.run(scenario())


def test_without_a_bucket_what_does_not_fit_is_refused_by_name() -> None:
    from everstep.errors import PayloadTooLarge

    with pytest.raises(PayloadTooLarge, match=r"text.*180000"):
        open_store("dynamodb://t").codec().encode("x" * 200_000, "text")


def keys() -> tuple[Any, str]:
    kms = make_client("kms", region=REGION)
    return kms, kms.create_key()["KeyMetadata"]["KeyId"]


def test_kms_wraps_the_keys_and_is_asked_once_for_each() -> None:
    kms, key = keys()
    asked: list[str] = []
    kms.meta.events.register("before-call.kms.*", lambda model, **_: asked.append(model.name))
    wrapped = {"2026-01": new_data_key(key, client=kms), "2026-07": new_data_key(key, client=kms)}
    old = KmsEncryptor({"2026-01": wrapped["2026-01"]}, "2026-01", client=kms)
    new = KmsEncryptor(wrapped, "2026-07", client=kms)
    asked.clear()
    sealed = [old.encrypt(b"secret"), new.encrypt(b"secret")]
    assert [name for name, _ in sealed] == ["2026-01", "2026-07"]
    for _ in range(3):
        assert [new.decrypt(name, data) for name, data in sealed] == [b"secret", b"secret"]
    assert old.digest_key == new.digest_key, "the first key keys the digests"
    assert asked == ["Decrypt"] * 3
    assert wrapped["2026-01"] not in repr(new)
    for name, data in (("2025", sealed[0][1]), ("2026-01", sealed[1][1]), ("2026-07", b"short")):
        with pytest.raises(DecodeError):
            new.decrypt(name, data)


def test_a_key_that_kms_does_not_unwrap_loses_nothing() -> None:
    kms, key = keys()
    wrapped = {"k": new_data_key(key, client=kms)}
    sealed = KmsEncryptor(wrapped, "k", client=kms).encrypt(b"secret")
    away = KmsEncryptor(wrapped, "k", client=kms)
    disabled = [answer("", 400, {"__type": "DisabledException", "message": "disabled"})]
    kms.meta.events.register_first("before-send", lambda **_: disabled.pop() if disabled else None)
    with pytest.raises(DecodeError, match="does not unwrap"):
        away.decrypt(*sealed)
    assert away.decrypt(*sealed) == b"secret"


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "ThrottlingException"), (500, "KMSInternalException"), (503, "DependencyTimeoutException")],
)
def test_kms_in_trouble_is_no_wrong_key(status: int, code: str) -> None:
    """What cannot be read costs a run one of its lives; what passes does not, and the message comes again."""
    kms, key = keys()
    wrapped = {"k": new_data_key(key, client=kms)}
    codec = Codec(encryptor=KmsEncryptor(wrapped, "k", client=kms))
    sealed = codec.encode("secret")
    away = Codec(encryptor=KmsEncryptor(wrapped, "k", client=kms))
    trouble = [answer("", status, {"__type": code, "message": "no"}) for _ in range(2)]
    kms.meta.events.register_first("before-send", lambda **_: trouble.pop() if trouble else None)
    with pytest.raises(StoreUnavailable, match=code):
        away.decode(sealed)
    with pytest.raises(StoreUnavailable, match=code):
        away.encode("more")
    assert away.decode(sealed) == "secret"


def test_what_is_no_wrapped_key_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="not among"):
        KmsEncryptor({}, "k")
    with pytest.raises(InvalidArgument, match="base64"):
        KmsEncryptor({"k": "€"}, "k")


def test_nothing_of_a_user_reaches_the_store_in_the_clear() -> None:
    kms, key = keys()
    encryptor = KmsEncryptor({"k": new_data_key(key, client=kms)}, "k", client=kms)
    app = App("sealed", codec=Codec(encryptor=encryptor))

    @app.step
    def shout(text: str) -> str:
        return text.upper()

    @app.workflow
    async def speak(ctx: Context, text: str) -> str:
        return await ctx.run(shout, text)

    sim = Simulation(app)
    handle = sim.start(speak, "walrus", id="s")
    assert handle.result() == "WALRUS"
    store = sim.world.store
    rows = asyncio.run(store.load(["s", "s.1"]))
    assert len(rows) == 2
    assert "walrus" not in str(rows).lower()


def test_powertools_counts_once_what_happened_and_nothing_of_a_replay(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "shop")
    app, cloud = App("seen"), Cloud()

    @app.step
    def one(n: int) -> int:
        return n

    @app.workflow
    async def nap(ctx: Context) -> int:
        await ctx.run(one, 1)
        await ctx.sleep(60)
        await ctx.run(one, 2)
        ctx.panic("stop")
        return 0

    client = Client(MemoryStore(), cloud.waker(), app=app, clock=cloud.clock)
    function = handler(app, client=client, cache=0)

    async def invoke(message: Message) -> bool:
        acked = await function.answer({"Records": [message.record(QUEUE_ARN)]}, LambdaContext())
        return bool(acked == {"batchItemFailures": []})

    async def scenario() -> None:
        await client.start(nap, id="n")
        await cloud.run(cloud.clock.now() + 120_000, invoke)

    asyncio.run(scenario())
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    metrics = [line for line in lines if "_aws" in line]
    assert {line["_aws"]["CloudWatchMetrics"][0]["Namespace"] for line in metrics} == {"Everstep"}
    assert {line["service"] for line in metrics} == {"shop"}

    def total(name: str) -> float:
        return sum(sum(line.get(name, [])) for line in metrics)

    assert {name: total(name) for name in ("ColdStarts", "Steps", "Suspensions", "Halts", "Replays")} == {
        "ColdStarts": 1, "Steps": 2, "Suspensions": 1, "Halts": 1, "Replays": 2,
    }  # fmt: skip
    (halted,) = [line for line in lines if line.get("level") == "ERROR"]
    assert (halted["run"], halted["service"], "stop" in halted["reason"]) == ("n", "shop", True)


def test_without_the_environment_powertools_is_not_even_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POWERTOOLS_SERVICE_NAME", raising=False)
    app = App("unseen")
    function = handler(app, client=Client(MemoryStore(), Cloud().waker(), app=app))
    assert function._observer is None
