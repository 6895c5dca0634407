"""Tokens: who passes, and what a prefix keeps a caller to, over HTTP and over the protocol (system 40's cases)."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.components import requires_component

requires_component("jwt", hint="pip install -e '.[gateway]'")

import jwt  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, rsa  # noqa: E402
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: E402

from everstep.clock import NEVER  # noqa: E402
from everstep.errors import InvalidArgument  # noqa: E402
from everstep.http import Bearer, Principal, Rate  # noqa: E402
from everstep.http.access import authorize, ids_of  # noqa: E402
from everstep.http.problems import Problem  # noqa: E402
from everstep.protocol import VERSION, PromiseCreate, PromiseSearch, ScheduleCreate  # noqa: E402
from everstep.protocol_json import parse  # noqa: E402
from tests.core.http_support import JSON, Shop, shop  # noqa: E402

SECRET = "a secret of 64 bytes and more, for tests, is long enough for HS512 too"
FAR = 4_000_000_000
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
TARGET = {"resonate:target": "poll://any@g"}


def pem(key: Any) -> str:
    return str(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def token(key: Any = SECRET, algorithm: str = "HS256", *, headers: Any = None, **claims: Any) -> str:
    return jwt.encode({"exp": FAR, **claims}, key, algorithm, headers=headers)


ONE = token(prefix="worker-1:", sub="one")
TWO = token(prefix="worker-2:", sub="two")
ADMIN = token(role="admin", sub="boss")
READER = token(prefix="worker-1:", role="reader")


def sent(token: str | None) -> dict[str, str]:
    return JSON if token is None else {**JSON, "authorization": f"Bearer {token}"}


async def ask(it: Shop, token: str | None, kind: str, *, head: Any = None, **data: Any) -> httpx.Response:
    """A request of the protocol; the answer is always an envelope."""
    body = {"kind": kind, "head": {"corrId": "c", "version": VERSION, **(head or {})}, "data": data}
    answer = await it.http.post("/", content=json.dumps(body), headers=sent(token))
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["head"]["status"] == answer.status_code
    return answer


async def status(it: Shop, token: str | None, kind: str, **data: Any) -> int:
    return (await ask(it, token, kind, **data)).status_code


def create(id: str, **tags: str) -> dict[str, Any]:
    return {"id": id, "timeoutAt": NEVER, "param": {}, "tags": tags}


def inner(kind: str, data: Any) -> dict[str, Any]:
    return {"kind": kind, "head": {}, "data": data}


def settle(id: str) -> dict[str, Any]:
    return {"id": id, "state": "resolved", "value": {}}


def deep() -> str:
    """Nothing of a token can be trusted before its signature, least of all its header."""
    header = base64.urlsafe_b64encode(b'{"alg":' + b"[" * 40_000).decode().rstrip("=")
    return f"{header}.e30.c2ln"


WRONG: dict[str, tuple[str | None, int]] = {
    "none": (None, 401),
    "no token": ("nonsense", 401),
    "another secret": (token("another secret of at least 32 bytes....", prefix="worker-1:"), 401),
    "one bit": (ONE[:-2] + ("A" if ONE[-2] != "A" else "B") + ONE[-1], 401),
    "expired": (token(prefix="worker-1:", exp=1_000_000), 401),
    "not yet": (token(prefix="worker-1:", nbf=FAR - 1), 401),
    "without an end": (jwt.encode({"prefix": "worker-1:"}, SECRET, "HS256"), 401),
    "unsigned": (jwt.encode({"prefix": "worker-1:", "exp": FAR}, None, "none"), 401),
    "another algorithm": (token(RSA, "RS256", prefix="worker-1:"), 401),
    "a longer hash": (token(SECRET, "HS512", prefix="worker-1:"), 401),
    "no prefix": (token(sub="x"), 403),
    "an empty prefix": (token(prefix=""), 403),
    "a prefix that is none": (token(prefix=None), 403),
    "a prefix that is a list": (token(prefix=["worker-1:"]), 403),
    "a role of no meaning": (token(role="owner"), 403),
    "a header deeper than a stack": (deep(), 401),
    "an end beyond all numbers": (token(prefix="worker-1:", exp=float("inf")), 401),
}


@pytest.mark.parametrize(("given", "wanted"), WRONG.values(), ids=WRONG)
def test_a_token_that_does_not_hold_opens_nothing(given: str | None, wanted: int) -> None:
    async def scenario(it: Shop) -> None:
        assert await status(it, given, "promise.get", id="worker-1:a") == wanted
        for path in ("/promises", "/promises/worker-1:a", "/schedules", "/events", "/workflows", "/poll/g/w"):
            answer = await it.http.get(path, headers=sent(given))
            assert answer.status_code == wanted, path
            assert answer.headers["content-type"] == "application/problem+json"
        answer = await it.http.post("/workflows/pay", content='{"id":"worker-1:x","args":["o",1]}', headers=sent(given))
        assert answer.status_code == wanted
        assert (await it.client.search())[0] == []

    shop(scenario, auth=Bearer(SECRET))


def test_a_prefix_is_kept_to_over_the_protocol() -> None:
    async def scenario(it: Shop) -> None:
        for who, id in ((ONE, "worker-1:a"), (TWO, "worker-2:a")):
            action = inner("promise.create", create(id, **TARGET))
            assert await status(it, who, "task.create", pid="w", ttl=60_000, action=action) == 200
        held = {"id": "worker-2:a", "version": 1}
        theirs, ours = "worker-2:a", "worker-1:a"
        forbidden: list[tuple[str, dict[str, Any]]] = [
            ("promise.get", {"id": theirs}),
            ("promise.create", create("worker-2:b")),
            ("promise.create", create("worker-10:b")),
            ("promise.create", create("worker-1")),
            ("promise.create", create("worker-1:b", **{"resonate:branch": theirs})),
            ("promise.create", create("worker-1:b", **{"resonate:parent": theirs})),
            ("promise.settle", settle(theirs)),
            ("promise.register_callback", {"awaited": theirs, "awaiter": ours}),
            ("promise.register_callback", {"awaited": ours, "awaiter": theirs}),
            ("promise.register_listener", {"awaited": theirs, "address": "poll://any@g"}),
            ("task.get", {"id": theirs}),
            ("task.create", {"pid": "w", "ttl": 1, "action": inner("promise.create", create("worker-2:b", **TARGET))}),
            ("task.acquire", {**held, "pid": "w", "ttl": 1}),
            ("task.release", held),
            ("task.halt", {"id": theirs}),
            ("task.continue", {"id": theirs}),
            ("task.heartbeat", {"pid": "w", "tasks": [{"id": ours, "version": 1}, held]}),
            ("task.fence", {**held, "action": inner("promise.create", create("worker-1:b"))}),
            ("task.fence", {"id": ours, "version": 1, "action": inner("promise.create", create("worker-2:b"))}),
            ("task.fence", {"id": ours, "version": 1, "action": inner("promise.settle", settle(theirs))}),
            ("task.suspend", {"id": ours, "version": 1, "actions": [
                inner("promise.register_callback", {"awaiter": ours, "awaited": theirs})]}),
            ("task.fulfill", {**held, "action": inner("promise.settle", settle(theirs))}),
            ("schedule.get", {"id": "worker-2:s"}),
            ("schedule.delete", {"id": "worker-2:s"}),
            ("schedule.create", schedule("worker-2:s")),
            ("schedule.create", schedule("worker-1:s", "worker-2:{{.timestamp}}")),
            ("schedule.create", schedule("worker-1:s", "{{.timestamp}}")),
        ]  # fmt: skip
        before = (await ask(it, ADMIN, "promise.search")).json()["data"]
        for kind, data in forbidden:
            assert await status(it, ONE, kind, **data) == 403, (kind, data)
        assert (await ask(it, ADMIN, "promise.search")).json()["data"] == before
        assert await status(it, TWO, "promise.get", id=theirs) == 200
        assert await status(it, ADMIN, "promise.get", id=theirs) == 200

    shop(scenario, auth=Bearer(SECRET))


def schedule(id: str, promise: str = "{{.id}}.{{.timestamp}}") -> dict[str, Any]:
    return {"id": id, "cron": "0 3 * * *", "promiseId": promise, "promiseTimeout": 1, "promiseTags": {}}


def test_searches_show_what_a_prefix_covers_and_schedules_too() -> None:
    async def scenario(it: Shop) -> None:
        for who, name in ((ONE, "worker-1:"), (TWO, "worker-2:")):
            for n in range(3):
                assert await status(it, who, "promise.create", **create(f"{name}p{n}", **TARGET)) == 200
            assert await status(it, who, "schedule.create", **schedule(f"{name}s")) == 200

        async def found(kind: str, name: str, **data: Any) -> list[str]:
            answer = (await ask(it, ONE, f"{kind}.search", **data)).json()["data"]
            return [one["id"] for one in answer[f"{kind}s"]]

        own = [f"worker-1:p{n}" for n in range(3)]
        assert await found("promise", "promises") == own
        assert await found("promise", "promises", cursor="worker-1:p0") == own[1:]
        assert await found("task", "tasks") == own
        assert await found("schedule", "schedules") == ["worker-1:s"]
        listed = (await it.http.get("/schedules", headers=sent(ONE))).json()["schedules"]
        assert [one["id"] for one in listed] == ["worker-1:s"]
        for query, ids in (("", own), ("?prefix=w", own), ("?prefix=worker-1:p1", own[1:2])):
            answer = await it.http.get(f"/promises{query}", headers=sent(ONE))
            assert [one["id"] for one in answer.json()["promises"]] == ids
        assert (await it.http.get("/promises?prefix=worker-2:", headers=sent(ONE))).status_code == 403
        assert len((await it.http.get("/promises", headers=sent(ADMIN))).json()["promises"]) == 6

    shop(scenario, auth=Bearer(SECRET))


def test_a_prefix_is_kept_to_on_every_route() -> None:
    async def scenario(it: Shop) -> None:
        async def post(who: str, path: str, body: Any) -> httpx.Response:
            return await it.http.post(path, content=json.dumps(body), headers=sent(who))

        order = {"args": ["o-1", 1]}
        assert (await post(TWO, "/workflows/order", {**order, "id": "worker-2:o"})).status_code == 202
        assert (await post(ONE, "/workflows/order", {**order, "id": "worker-2:o2"})).status_code == 403
        for verb in ("resolve", "reject", "cancel", "halt", "continue"):
            assert (await post(ONE, f"/promises/worker-2:o/{verb}", {})).status_code == 403
        for path in ("/promises/worker-2:o", "/promises/worker-2:o?wait=1", "/promises/worker-2:o/tree"):
            assert (await it.http.get(path, headers=sent(ONE))).status_code == 403
        assert (await it.http.get("/events?run=worker-2:o", headers=sent(ONE))).status_code == 403
        assert (await it.http.delete("/schedules/worker-2:s", headers=sent(ONE))).status_code == 403
        wanted = {"id": "worker-2:s", "cron": "0 3 * * *", "workflow": "pay", **order}
        assert (await post(ONE, "/schedules", wanted)).status_code == 403
        made = await post(ONE, "/workflows/order", order)
        assert made.status_code == 202
        assert made.json()["id"].startswith("worker-1:order-")
        assert (await it.http.get(f"/promises/{made.json()['id']}", headers=sent(ONE))).status_code == 200

    shop(scenario, auth=Bearer(SECRET))


def test_children_and_detached_runs_keep_the_prefix() -> None:
    async def scenario(it: Shop) -> None:
        async with it.working():
            await it.client.start("order", "o-1", 1, id="worker-1:o")
            path = "/promises/worker-1:o/tree"
            while "worker-1:o.2" not in (await it.http.get(path, headers=sent(ONE))).text:  # noqa: ASYNC110
                await asyncio.sleep(0)
            assert await status(it, TWO, "promise.settle", **settle("worker-1:o.2")) == 403
            assert await status(it, ONE, "promise.settle", **settle("worker-1:o.2")) == 200

    shop(scenario, auth=Bearer(SECRET))


def test_a_reader_changes_nothing_and_pulls_nothing() -> None:
    async def scenario(it: Shop) -> None:
        assert await status(it, ONE, "promise.create", **create("worker-1:p")) == 200
        assert await status(it, READER, "promise.get", id="worker-1:p") == 200
        assert await status(it, READER, "promise.search") == 200
        assert await status(it, READER, "promise.get", id="worker-2:p") == 403
        assert await status(it, READER, "promise.settle", **settle("worker-1:p")) == 403
        assert (await it.http.post("/promises/worker-1:p/cancel", headers=sent(READER))).status_code == 403
        assert (await it.http.get("/poll/g/w", headers=sent(READER))).status_code == 403
        assert (await it.http.get("/promises/worker-1:p", headers=sent(READER))).json()["state"] == "pending"

    shop(scenario, auth=Bearer(SECRET))


def test_a_token_for_some_groups_pulls_from_no_other() -> None:
    async def scenario(it: Shop) -> None:
        scoped = token(prefix="worker-1:", groups=["gpu"])
        assert (await it.http.get("/poll/cpu/w", headers=sent(scoped))).status_code == 403

    shop(scenario, auth=Bearer(SECRET))


def test_the_token_may_come_in_the_envelopes_head_as_sdks_send_it_and_the_header_counts_first() -> None:
    async def scenario(it: Shop) -> None:
        assert (await ask(it, None, "promise.get", head={"auth": ONE}, id="worker-1:p")).status_code == 404
        assert (await ask(it, None, "promise.get", head={"auth": "no"}, id="worker-1:p")).status_code == 401
        assert (await ask(it, TWO, "promise.get", head={"auth": ONE}, id="worker-1:p")).status_code == 403

    shop(scenario, auth=Bearer(SECRET))


@pytest.mark.parametrize(("private", "algorithm"), [(RSA, "RS256"), (EC, "ES256")], ids=["RS256", "ES256"])
def test_a_public_key_verifies_its_own_algorithm_and_is_nobodys_secret(private: Any, algorithm: str) -> None:
    public = pem(private)
    bearer = Bearer(public)

    assert bearer.claims(token(private, algorithm, prefix="p")) == {"exp": FAR, "prefix": "p"}
    other = ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256" else rsa.generate_private_key(65537, 2048)
    assert bearer.claims(token(other, algorithm, prefix="p")) is None
    assert bearer.claims(forged(public)) is None


def forged(public: str) -> str:
    """Signed by HMAC with the public key for a secret, which PyJWT refuses to do."""
    import base64
    import hashlib
    import hmac

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    claims = json.dumps({"prefix": "p", "exp": FAR}).encode()
    text = part(b'{"alg":"HS256","typ":"JWT"}') + "." + part(claims)
    return f"{text}.{part(hmac.new(public.encode(), text.encode(), hashlib.sha256).digest())}"


def jwks(*keys: tuple[str, Any]) -> str:
    listed = []
    for id, key in keys:
        if isinstance(key, str):
            listed.append({**jwt.algorithms.HMACAlgorithm.to_jwk(key, as_dict=True), "kid": id})
            continue
        kind = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
        listed.append({**kind.to_jwk(key.public_key(), as_dict=True), "kid": id, "use": "sig"})
    return json.dumps({"keys": listed})


def test_a_jwks_file_holds_several_keys_and_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(jwks(("r", RSA), ("s", SECRET)))
    bearer = Bearer.from_file(file)

    assert bearer.claims(token(RSA, "RS256", prefix="p", headers={"kid": "r"})) is not None
    assert bearer.claims(token(SECRET, "HS256", prefix="p", headers={"kid": "s"})) is not None
    assert bearer.claims(token(SECRET, "HS256", prefix="p", headers={"kid": "r"})) is None
    assert bearer.claims(token(RSA, "RS256", prefix="p")) is not None
    new = token(EC, "ES256", prefix="p", headers={"kid": "e"})
    assert bearer.claims(new) is None
    file.write_text(jwks(("e", EC)) + " ")
    assert bearer.claims(new) is not None
    assert bearer.claims(token(RSA, "RS256", prefix="p", headers={"kid": "r"})) is None
    file.write_text("damaged")
    assert bearer.claims(token(EC, "ES256", prefix="p", headers={"kid": "unknown"})) is None
    assert bearer.claims(new) is not None


def test_issuer_and_audience_are_asked_for_where_they_are_given() -> None:
    bearer = Bearer(SECRET, issuer="us", audience="shop")

    assert bearer.claims(token(prefix="p", iss="us", aud=["shop", "x"])) is not None
    for claims in ({"iss": "us"}, {"aud": "shop"}, {"iss": "them", "aud": "shop"}, {"iss": "us", "aud": "x"}):
        assert bearer.claims(token(prefix="p", **claims)) is None


def test_keys_come_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key.pem"
    file.write_text(pem(RSA))
    assert Bearer.from_file(file).claims(token(RSA, "RS256", prefix="p")) is not None
    file.write_text(SECRET + "\n")
    assert Bearer.from_file(file).claims(token(prefix="p")) is not None
    monkeypatch.setenv("EVERSTEP_JWT_KEY", SECRET)
    assert Bearer.from_environment().claims(token(prefix="p")) is not None
    monkeypatch.delenv("EVERSTEP_JWT_KEY")
    with pytest.raises(InvalidArgument, match="EVERSTEP_JWT_KEY holds no key"):
        Bearer.from_environment()
    with pytest.raises(InvalidArgument, match="cannot be read"):
        Bearer.from_file(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("short", "at least 32 bytes"),
        ("-----BEGIN PUBLIC KEY-----\nnonsense\n-----END PUBLIC KEY-----", "no public key"),
        (pem(ec.generate_private_key(ec.SECP521R1())), "P-256"),
        (pem(rsa.generate_private_key(65537, 1024)), "2048 bits"),
    ],
)
def test_a_key_that_protects_nothing_is_refused(key: str, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        Bearer(key)
    with pytest.raises(InvalidArgument, match="either"):
        Bearer()


def test_too_many_requests_are_told_when_to_come_again() -> None:
    async def scenario(it: Shop) -> None:
        seen = [await status(it, ONE, "promise.get", id="worker-1:p") for _ in range(4)]
        assert seen == [404, 404, 404, 429]
        answer = await ask(it, ONE, "promise.get", id="worker-1:p")
        assert answer.headers["retry-after"] == "2"
        assert (await it.http.get("/promises", headers=sent(ADMIN))).status_code == 429

    shop(scenario, auth=Bearer(SECRET), rate=Rate(0.5, 3))
    with pytest.raises(InvalidArgument, match="let somebody pass"):
        shop(scenario, rate=Rate(0, 3))


def test_debug_requests_are_for_administrators_where_they_are_switched_on() -> None:
    async def on(it: Shop) -> None:
        await it.client.start("pay", "o", 1, id="worker-1:p")
        assert await status(it, ONE, "debug.snap") == 403
        assert await status(it, None, "debug.snap") == 401
        snap = (await ask(it, ADMIN, "debug.snap")).json()["data"]
        assert [one["id"] for one in snap["promises"]] == ["worker-1:p"]
        assert [one["state"] for one in snap["tasks"]] == ["pending"]
        assert await status(it, ADMIN, "debug.tick", time=0) == 200
        assert await status(it, ADMIN, "debug.tick", time=NEVER) == 400
        assert await status(it, ADMIN, "debug.tick", time="now") == 400
        assert await status(it, ADMIN, "debug.tick", time=-(10**30)) == 400
        assert await status(it, ADMIN, "debug.reset") == 501

    async def off(it: Shop) -> None:
        assert await status(it, ADMIN, "debug.snap") == 403

    async def unasked(it: Shop) -> None:
        assert await status(it, None, "debug.snap") == 403

    shop(on, auth=Bearer(SECRET), debug=True)
    shop(off, auth=Bearer(SECRET))
    shop(unasked, debug=True)


def test_a_page_elsewhere_may_call_where_its_origin_is_named() -> None:
    async def scenario(it: Shop) -> None:
        page = {"origin": "https://page.example", "sec-fetch-site": "cross-site"}
        preflight = {**page, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
        for path in ("/", "/promises/x/resolve", "/poll/g/w"):
            answer = await it.http.options(path, headers=preflight)
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == "https://page.example"
            evil = await it.http.options(path, headers={**preflight, "origin": "https://evil.example"})
            assert evil.status_code == 400
            assert "access-control-allow-origin" not in evil.headers
        body = json.dumps({"kind": "promise.get", "head": {"corrId": "c", "version": VERSION}, "data": {"id": "p"}})
        answer = await it.http.post("/", content=body, headers={**JSON, **page})
        assert answer.status_code == 404
        assert answer.headers["access-control-allow-origin"] == "https://page.example"
        evil = await it.http.post("/", content=body, headers={**JSON, **page, "origin": "https://evil.example"})
        assert evil.status_code == 403
        assert "access-control-allow-origin" not in evil.headers

    shop(scenario, origins=["https://page.example"])


def test_an_administrator_is_kept_to_nothing_and_a_search_to_the_prefix() -> None:
    request = PromiseCreate("a", NEVER, tags={"resonate:branch": "b"})

    assert ids_of(request) == ("a", "b")
    assert authorize(Principal("x", "admin"), request) is request
    assert authorize(Principal("x"), PromiseSearch(prefix="")) == PromiseSearch(prefix="x")
    with pytest.raises(Problem):
        authorize(Principal("a"), request)
    tick = ScheduleCreate("x1", "* * * * *", "{{.id}}{{.timestamp}}", 1)
    assert authorize(Principal("x"), tick) is tick


def test_a_prefix_can_only_be_given_by_us() -> None:
    head = {"corrId": "c", "version": VERSION}
    for kind in ("promise.search", "task.search", "schedule.search"):
        parsed: Any = parse({"kind": kind, "head": head, "data": {"prefix": "other"}})
        assert parsed.prefix == ""
