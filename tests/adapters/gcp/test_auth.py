"""Tokens: what is no proof of the caller is refused before anything is read, and certificates are fetched seldom."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Iterator

import pytest

from everstep.errors import PlatformError
from everstep_gcp import Verifier
from everstep_gcp.auth import Unauthorized

from .rig import ACCOUNT, URL
from .tokens import Keys, Publisher

keys = Keys()
other = Keys("k2")
impostor = Keys("k1")
now = int(time.time())


def _headed(header: str) -> str:
    return f"Bearer {base64.urlsafe_b64encode(header.encode()).decode().rstrip('=')}.e30.c2ln"


BAD = {
    "nothing": ("", "no bearer"),
    "another scheme": ("Basic eDp5", "no bearer"),
    "rubbish": ("Bearer a.b.c", "known key"),
    "no token at all": ("Bearer abc", "no identity token"),
    "a header deeper than a stack": (_headed("[" * 5000), "known key"),
    "a key that is no name": (_headed('{"alg": "RS256", "kid": []}'), "known key"),
    "endless": ("Bearer " + "a" * 9000, "no identity token"),
    "a key nobody published": (f"Bearer {other.token(ACCOUNT, URL)}", "known key"),
    "another key of that name": (f"Bearer {impostor.token(ACCOUNT, URL)}", "known key"),
    "another audience": (f"Bearer {keys.token(ACCOUNT, 'https://other.example')}", "audience"),
    "no audience": (f"Bearer {keys.token(ACCOUNT, URL, aud=None)}", "audience"),
    "another account": (f"Bearer {keys.token('x@demo.iam.gserviceaccount.com', URL)}", "another account"),
    "an unverified address": (f"Bearer {keys.token(ACCOUNT, URL, email_verified=False)}", "another account"),
    "no address": (f"Bearer {keys.token(ACCOUNT, URL, email=None)}", "another account"),
    "another issuer": (f"Bearer {keys.token(ACCOUNT, URL, iss='https://evil.example')}", "another issuer"),
    "expired": (f"Bearer {keys.token(ACCOUNT, URL, iat=now - 7200, exp=now - 3600)}", "expired"),
    "not yet": (f"Bearer {keys.token(ACCOUNT, URL, iat=now + 600, exp=now + 3600)}", "not valid yet"),
}
"""An `Authorization` header each, and a word of why it is refused."""


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    made = Publisher(keys)
    yield made
    made.close()


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_proof_is_refused(what: str, publisher: Publisher) -> None:
    header, reason = BAD[what]
    verifier = Verifier([URL], [ACCOUNT], certificates=publisher.address)
    for _ in ("cold", "with the keys at hand"):
        with pytest.raises(Unauthorized, match=reason) as refused:
            asyncio.run(verifier.check(header))
        assert header[-40:] not in str(refused.value) or not header


@pytest.mark.parametrize("issuer", ["https://accounts.google.com", "accounts.google.com"])
def test_a_token_of_the_right_account_for_this_function_passes(issuer: str, publisher: Publisher) -> None:
    verifier = Verifier(["https://a.example", URL], [ACCOUNT], certificates=publisher.address)
    assert asyncio.run(verifier.check(f"bearer {keys.token(ACCOUNT, URL, iss=issuer)}")) == ACCOUNT


def test_where_nothing_is_configured_nobody_passes(publisher: Publisher) -> None:
    for verifier in (
        Verifier([], [ACCOUNT], certificates=publisher.address),
        Verifier([URL], [], certificates=publisher.address),
    ):
        with pytest.raises(Unauthorized):
            asyncio.run(verifier.check(f"Bearer {keys.token(ACCOUNT, URL)}"))


def test_certificates_are_fetched_once_and_again_for_a_new_key() -> None:
    publisher = Publisher(keys)
    verifier = Verifier([URL], [ACCOUNT], certificates=publisher.address)

    async def scenario() -> None:
        await asyncio.gather(*[verifier.check(f"Bearer {keys.token(ACCOUNT, URL)}") for _ in range(5)])
        assert publisher.asked == 1, "kept for as long as the answer says"
        with pytest.raises(Unauthorized):
            await verifier.check(f"Bearer {other.token(ACCOUNT, URL)}")
        assert publisher.asked == 1, "a stranger's key does not make us ask each time"
        publisher.keys = other
        verifier._fetched -= 60
        assert await verifier.check(f"Bearer {other.token(ACCOUNT, URL)}") == ACCOUNT
        assert publisher.asked == 2, "Google has changed its keys"

    asyncio.run(scenario())
    publisher.close()


def test_without_certificates_the_caller_is_to_come_again(publisher: Publisher) -> None:
    publisher.failing = True
    verifier = Verifier([URL], [ACCOUNT], certificates=publisher.address)
    with pytest.raises(PlatformError):
        asyncio.run(verifier.check(f"Bearer {keys.token(ACCOUNT, URL)}"))
    publisher.failing = False
    assert asyncio.run(verifier.check(f"Bearer {keys.token(ACCOUNT, URL)}")) == ACCOUNT
