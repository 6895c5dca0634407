"""Cloudflare Access in real workerd: keys fetched over HTTP from where a team publishes them, and tokens verified by
the runtime's own WebCrypto. The clock alone is ours, since keys are kept for minutes."""

from __future__ import annotations

import base64
import hmac
import http.server
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from .worker import SITES, Worker, sources, vendored

pytestmark = pytest.mark.xdist_group("workerd again")

FIRST, SECOND, OTHER = (rsa.generate_private_key(65537, 2048) for _ in range(3))
CURVE = ec.generate_private_key(ec.SECP256R1())
PUBLIC = FIRST.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwk(kid: str, key: Any, **changes: Any) -> dict[str, Any]:
    """A key as Access publishes it."""
    writer, algorithm = (ECAlgorithm, "ES256") if key is CURVE else (RSAAlgorithm, "RS256")
    return {**writer.to_jwk(key.public_key(), as_dict=True), "kid": kid, "alg": algorithm, "use": "sig", **changes}


class Team:
    """The team's domain: it publishes keys, counts who asks, and can be away."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = [jwk("first", FIRST)]
        self.asked = 0
        self.answer: tuple[int, bytes] | None = None
        team = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                team.asked += 1
                there = self.path == "/cdn-cgi/access/certs" and self.headers["host"] == "team.example"
                status, body = team.answer or (200, json.dumps({"keys": team.keys, "public_certs": []}).encode())
                self.send_response(status if there else 404)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.site.serve_forever, daemon=True).start()


class Guarded:
    """The Worker, and the time there."""

    def __init__(self, worker: Worker, team: Team) -> None:
        self.worker = worker
        self.team = team
        self.seconds = 0

    def ahead(self, seconds: int) -> None:
        """Let so many seconds pass."""
        self.seconds += seconds
        self.worker.get(f"/ahead/{self.seconds}")

    def token(self, key: Any = FIRST, kid: str = "first", algorithm: str = "RS256", **claims: Any) -> str:
        now = int(time.time()) + self.seconds
        told = {
            "iss": "https://team.example", "aud": ["tag"], "iat": now, "nbf": now, "exp": now + 60,
            "email": "ada@team.example", "sub": "u1", **claims,
        }  # fmt: skip
        told = {name: value for name, value in told.items() if value is not None}
        return jwt.encode(told, key, algorithm, headers={"kid": kid})

    def ask(self, token: str | None) -> int:
        headers = {} if token is None else {"cf-access-jwt-assertion": token}
        return self.worker.call("GET", "/promises", headers={"authorization": "", **headers})[0]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    team = Team()
    address = f"127.0.0.1:{team.site.server_port}"
    files = {**sources(SITES / "access"), **vendored()}
    with Worker(tmp_path_factory.mktemp("access"), files, outside=address) as worker:
        yield Guarded(worker, team)
    team.site.shutdown()


@pytest.fixture
def guarded(running: Guarded) -> Guarded:
    """With the first key published, and nothing remembered."""
    running.team.keys, running.team.answer = [jwk("first", FIRST)], None
    running.ahead(1000)
    running.team.asked = 0
    return running


def test_who_was_let_through_passes_and_the_keys_are_kept(guarded: Guarded) -> None:
    assert guarded.ask(guarded.token()) == 200
    assert guarded.ask(guarded.token(aud="tag")) == 200
    assert guarded.ask(guarded.token(email=None, common_name="service.access")) == 200
    assert guarded.team.asked == 1
    assert guarded.worker.call("GET", "/openapi.json", headers={"authorization": ""})[0] == 200


def text(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).decode().rstrip("=")


def by_public_key(claims: str) -> str:
    """A token whose secret is what everybody knows."""
    signed = f"{text(json.dumps({'alg': 'HS256', 'kid': 'first'}).encode())}.{claims}"
    return f"{signed}.{text(hmac.digest(PUBLIC, signed.encode(), 'sha256'))}"


def signed(claims: str, **header: Any) -> str:
    """A token that the first key has signed, whatever its header says."""
    both = f"{text(json.dumps({'alg': 'RS256', 'kid': 'first', **header}).encode())}.{claims}"
    return f"{both}.{text(FIRST.sign(both.encode(), PKCS1v15(), SHA256()))}"


def forged(token: str, header: dict[str, Any]) -> str:
    """A token whose header says something else, and whose signature stays."""
    _, claims, signature = token.split(".")
    return f"{text(json.dumps(header).encode())}.{claims}.{signature}"


def test_a_token_that_does_not_hold_is_refused(guarded: Guarded) -> None:
    good = guarded.token()
    head, claims, signature = good.split(".")
    now = int(time.time()) + guarded.seconds
    refused = {
        "none": None,
        "empty": "",
        "nonsense": "a.b.c",
        "two parts": f"{head}.{claims}",
        "four parts": f"{good}.{signature}",
        "no signature": f"{head}.{claims}.",
        "another signature": guarded.token(OTHER),
        "other claims": f"{head}.{guarded.token(sub='u2').split('.')[1]}.{signature}",
        "another audience": guarded.token(aud=["other"]),
        "no audience": guarded.token(aud=None),
        "another team": guarded.token(iss="https://evil.example"),
        "expired": guarded.token(exp=now - 120),
        "never expires": guarded.token(exp=None),
        "a text for a time": f"{head}.{text(json.dumps({'exp': 'soon'}).encode())}.{signature}",
        "not yet": guarded.token(nbf=now + 600),
        "alg none": forged(good, {"alg": "none", "kid": "first"}),
        "alg none, unsigned": jwt.encode({"aud": "tag", "exp": now + 60}, "", "none", headers={"kid": "first"}),
        "another algorithm": signed(claims, alg="RS512"),
        "no algorithm, and signed": signed(claims, alg="none"),
        "a public key as secret": by_public_key(claims),
        "what must be understood": signed(claims, crit=["b64"]),
        "an unknown key": guarded.token(kid="unknown"),
        "a deep one": f"{text(b'[' * 6000)}.{claims}.{signature}",
    }
    assert {why: guarded.ask(token) for why, token in refused.items()} == dict.fromkeys(refused, 401)
    assert guarded.ask(good) == guarded.ask(signed(claims)) == 200
    assert guarded.team.asked == 1, "a name that nobody knows is not looked for at every request"


def test_keys_are_rotated_and_taken_back(guarded: Guarded) -> None:
    assert guarded.ask(guarded.token()) == 200
    guarded.team.keys.append(jwk("second", SECOND))
    guarded.ahead(11)
    assert guarded.ask(guarded.token(SECOND, "second")) == 200
    assert guarded.ask(guarded.token()) == 200
    assert guarded.team.asked == 2
    guarded.team.keys.pop(0)
    guarded.ahead(301)
    assert guarded.ask(guarded.token()) == 401
    assert guarded.ask(guarded.token(SECOND, "second")) == 200
    assert guarded.ask(guarded.token(FIRST, "second")) == 401
    assert guarded.team.asked == 3


def test_a_key_of_another_kind_verifies_nothing(guarded: Guarded) -> None:
    guarded.team.keys = [
        jwk("curve", CURVE), jwk("sealing", FIRST, use="enc"), jwk("other", FIRST, alg="RS512"), {"kid": "odd"},
        jwk("damaged", FIRST, n="!"), jwk("second", SECOND),
    ]  # fmt: skip
    assert guarded.ask(guarded.token(CURVE, "curve", "ES256")) == 401
    for kid in ("sealing", "other", "odd", "damaged", "curve"):
        assert guarded.ask(guarded.token(kid=kid)) == 401
    assert guarded.ask(guarded.token(SECOND, "second")) == 200


@pytest.mark.parametrize(
    "answer",
    [
        (500, json.dumps({"keys": [jwk("first", FIRST)]}).encode()),
        (200, b"<html>"),
        (200, b"{}"),
        (200, b"[" * 100_000),
    ],
)
def test_where_the_keys_cannot_be_had_nobody_passes_for_now(guarded: Guarded, answer: tuple[int, bytes]) -> None:
    assert guarded.ask(guarded.token()) == 200
    guarded.ahead(301)
    guarded.team.answer = answer
    assert guarded.ask(guarded.token()) == 503
    guarded.team.answer = None
    assert guarded.ask(guarded.token()) == 200
