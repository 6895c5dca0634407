"""Notes for people quote values (why a run halted, why a step failed), so they are encrypted where values are."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from everstep import AesGcm, App, Client, Codec, Context, Halted, Retry, Runtime


def app_with(codec: Codec) -> App:
    app = App("notes", codec=codec)

    @app.step(retry=Retry(attempts=2, first=3600))
    def fail(card: str) -> str:
        raise ValueError(f"declined: {card}")

    @app.workflow
    async def pay(ctx: Context, card: str) -> str:
        return await ctx.run(fail, card)

    @app.workflow
    async def odd(ctx: Context, card: str) -> None:
        ctx.panic(f"impossible: {card}")

    return app


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_note_is_readable_with_the_key_and_nowhere_else(tmp_path: Path, encrypted: bool) -> None:
    codec = Codec(encryptor=AesGcm({"k": bytes(32)}, "k")) if encrypted else Codec()
    url = f"sqlite:///{tmp_path / 'db'}"

    async def play() -> None:
        async with Runtime(app_with(codec), url) as runtime:
            await runtime.run("odd", "4242-4242", id="odd")
            with pytest.raises(Halted, match="impossible: 4242-4242"):
                await runtime.client.handle("odd").result()
            await runtime.client.start("pay", "4242-4242", id="pay")
            serving = asyncio.ensure_future(runtime.serve())
            while not (children := (await runtime.client.tree("pay")).children):  # noqa: ASYNC110  a store is polled
                await asyncio.sleep(0.01)
            assert children[0].promise.error == {"type": "retrying", "message": "ValueError: declined: 4242-4242"}
            serving.cancel()
        if encrypted:
            async with Client.open(url) as stranger:
                assert (await stranger.get("odd")).reason == (
                    "(encrypted: the value is encrypted under the key 'k', and no encryptor is configured)"
                )

    asyncio.run(asyncio.wait_for(play(), 30))
    raw = b"".join(file.read_bytes() for file in tmp_path.iterdir() if file.is_file())
    assert (b"4242-4242" in raw) is not encrypted
