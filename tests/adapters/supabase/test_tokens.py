"""Tokens that a project signs by keys it publishes: real keys, fetched from a real server, rotated and withdrawn."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt import algorithms, utils

import everstep_supabase
from everstep import App
from everstep.errors import InvalidArgument
from everstep.stores.memory import MemoryStore
from everstep_supabase.auth import NotAllowed, verify_token
from everstep_supabase.handler import supabase_auth

EC = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)
WRITERS = {"ES256": algorithms.ECAlgorithm, "RS256": algorithms.RSAAlgorithm}


def listed(**keys: Any) -> dict[str, Any]:
    """A key set as Supabase publishes it."""
    found = []
    for name, key in keys.items():
        algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
        jwk = WRITERS[algorithm].to_jwk(key.public_key(), as_dict=True)
        found.append({**jwk, "kid": name, "alg": algorithm, "use": "sig"})
    return {"keys": found}


def signed(key: Any, kid: str | None, algorithm: str = "ES256", **claims: Any) -> str:
    told = {"role": "authenticated", "aud": "authenticated", "exp": int(time.time()) + 60, **claims}
    told = {name: value for name, value in told.items() if value is not None}
    return jwt.encode(told, key, algorithm, headers={"kid": kid} if kid is not None else None)


class Publisher:
    """A project's auth server: it counts who asks, and can be away."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = listed(first=EC)
        self.asked = 0
        self.status = 200
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher.asked += 1
                there = self.path == "/auth/v1/.well-known/jwks.json"
                body = json.dumps(publisher.keys).encode()
                self.send_response(publisher.status if there else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    made = Publisher()
    yield made
    made.close()


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets time pass for what is kept, and for nothing else."""
    ahead = 0.0

    def later(seconds: float) -> None:
        nonlocal ahead
        ahead += seconds

    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + ahead)
    for module in ("jwks_client", "jwk_set_cache", "api_jwk"):
        monkeypatch.setattr(f"jwt.{module}.time", clock)
    return later


def status(check: Callable[[str], dict[str, Any]], token: str) -> int:
    try:
        assert check(token)["role"]
    except NotAllowed as error:
        return error.status
    return 200


def test_both_algorithms_and_what_does_not_hold(publisher: Publisher) -> None:
    publisher.keys = listed(first=EC, second=RSA)
    check = verify_token(url=publisher.url)
    assert status(check, signed(EC, "first")) == 200
    assert status(check, signed(RSA, "second", "RS256")) == 200
    assert status(check, signed(EC, "first", role="service_role", aud=None)) == 200
    refused = {
        "another's key": signed(OTHER, "first"),
        "the key of another name": signed(RSA, "first", "RS256"),
        "no name": signed(EC, None),
        "expired": signed(EC, "first", exp=int(time.time()) - 60),
        "without an end": signed(EC, "first", exp=None),
        "without a role": signed(EC, "first", role=None),
        "for somebody else": signed(EC, "first", aud="another"),
        "unsigned": signed(None, "first", "none"),
        "nonsense": "a.b.c",
        "nothing": "",
        "changed": signed(EC, "first")[:-4] + "AAAA",
    }
    assert {name: status(check, token) for name, token in refused.items()} == dict.fromkeys(refused, 401)
    assert status(check, signed(EC, "first", role="anon")) == 403
    assert publisher.asked == 1, "the keys are kept, whatever was asked of them"


def test_a_public_key_is_no_secret(publisher: Publisher) -> None:
    """The oldest trick: a token signed by HMAC, with the published key as its secret."""
    check = verify_token(url=publisher.url)
    pem = EC.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head, body = (
        jwt.encode({}, "s" * 32, "HS256", headers={"kid": "first"}).split(".")[0],
        signed(EC, "first").split(".")[1],
    )
    hmac = algorithms.HMACAlgorithm(algorithms.HMACAlgorithm.SHA256)
    forged = f"{head}.{body}.{utils.base64url_encode(hmac.sign(f'{head}.{body}'.encode(), pem)).decode()}"
    assert status(check, forged) == 401


def test_a_new_key_is_found_by_the_token_that_names_it(
    publisher: Publisher, pass_time: Callable[[float], None]
) -> None:
    check = verify_token(url=publisher.url)
    assert status(check, signed(EC, "first")) == 200
    publisher.keys = listed(first=EC, next=OTHER)
    pass_time(31)
    assert status(check, signed(OTHER, "next")) == 200
    assert status(check, signed(EC, "first")) == 200
    assert publisher.asked == 2


def test_names_that_nobody_knows_cost_a_request_now_and_then(
    publisher: Publisher, pass_time: Callable[[float], None]
) -> None:
    check = verify_token(url=publisher.url)
    for n in range(50):
        assert status(check, signed(OTHER, f"made up {n}")) == 401
    assert publisher.asked <= 2
    pass_time(31)
    for n in range(50):
        assert status(check, signed(OTHER, f"made up {n}")) == 401
    assert publisher.asked <= 3


def test_a_key_that_was_taken_back_is_good_for_five_minutes_at_most(
    publisher: Publisher, pass_time: Callable[[float], None]
) -> None:
    check = verify_token(url=publisher.url)
    assert status(check, signed(EC, "first")) == 200
    publisher.keys = listed(next=OTHER)
    assert status(check, signed(EC, "first")) == 200
    pass_time(301)
    assert status(check, signed(EC, "first")) == 401
    assert status(check, signed(OTHER, "next")) == 200


def test_keys_that_cannot_be_had_are_nobodys_fault(publisher: Publisher, pass_time: Callable[[float], None]) -> None:
    publisher.status = 500
    check = verify_token(url=publisher.url)
    assert status(check, signed(EC, "first")) == 503
    publisher.status = 200
    assert status(check, signed(EC, "first")) == 200
    publisher.close()
    assert status(check, signed(EC, "first")) == 200, "it is known"
    pass_time(301)
    assert status(check, signed(EC, "first")) == 503


@pytest.mark.parametrize(
    "answer", [{}, {"keys": []}, {"keys": [{"kty": "EC"}]}, [1], {"keys": [{"kty": "oct", "k": "eA"}]}]
)
def test_an_answer_that_holds_no_keys_lets_nobody_in(publisher: Publisher, answer: Any) -> None:
    publisher.keys = answer
    assert status(verify_token(url=publisher.url), signed(EC, "first")) == 401


def test_keys_from_a_file_are_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps(listed(first=EC)))
    check = verify_token(keys=file)
    assert status(check, signed(EC, "first")) == 200
    assert status(check, signed(OTHER, "next")) == 401
    file.write_text(json.dumps(listed(next=OTHER)))
    os.utime(file, ns=(1, 1))
    assert status(check, signed(OTHER, "next")) == 200
    assert status(check, signed(EC, "first")) == 401
    file.write_text("half a fi")
    os.utime(file, ns=(2, 2))
    assert status(check, signed(OTHER, "next")) == 200, "those known so far"
    file.unlink()
    assert status(check, signed(OTHER, "next")) == 200


def test_what_is_no_source_of_keys_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("[]")
    for name in ("absent", "empty"):
        with pytest.raises(InvalidArgument, match="no keys"):
            verify_token(keys=tmp_path / name)
    for given in ({}, {"secret": "x", "url": "http://y"}, {"url": "http://y", "keys": "z"}):
        with pytest.raises(InvalidArgument, match="one of them"):
            verify_token(**given)


def test_the_routes_answer_so(publisher: Publisher) -> None:
    app = App("tokens")

    async def scenario() -> None:
        function = everstep_supabase.handler(app, MemoryStore(), secret="s" * 16, auth=supabase_auth(url=publisher.url))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=function), base_url="http://f") as http:

            async def get(token: str) -> int:
                return (await http.get("/promises", headers={"authorization": f"Bearer {token}"})).status_code

            publisher.status = 500
            assert await get(signed(EC, "first")) == 503
            publisher.status = 200
            assert await get(signed(EC, "first")) == 200
            assert await get(signed(EC, "first", role="anon")) == 403
            assert await get(signed(OTHER, "first")) == 401

    asyncio.run(scenario())
