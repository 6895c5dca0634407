"""Signed links for a person: opening one changes nothing, a button settles once, every other link is told politely."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import httpx
import pytest

from everstep.clock import VirtualClock
from everstep.errors import InvalidArgument, InvalidId
from everstep.tokens import TokenAltered, TokenExpired, sign, verify
from tests.core.http_support import Shop, is_problem, shop

SECRET = "a secret of 26 characters."
OLD = "another secret, older one."
NOW = 1_700_000_000_000
FORM = {"content-type": "application/x-www-form-urlencoded"}


def token(id: str = "ask", **kwargs: Any) -> str:
    return sign(SECRET, id, NOW + 60_000, **kwargs)


def text_of(page: httpx.Response) -> str:
    assert page.headers["content-type"].startswith("text/html")
    return re.sub(r"<style>.*?</style>|<[^>]+>", " ", page.text)


async def ask(it: Shop, id: str = "ask") -> None:
    """A promise that is open: a run that nobody carries out serves."""
    await it.client.start("order", "x", 1, id=id)


async def state(it: Shop, id: str = "ask") -> tuple[str, Any]:
    view = (await it.get(f"/promises/{id}")).json()
    return view["state"], view["value"]


def approve(scenario: Any, clock: VirtualClock | None = None, **options: Any) -> None:
    shop(scenario, secret=SECRET, clock=clock if clock is not None else VirtualClock(NOW), **options)


def test_opening_a_link_asks_and_settles_nothing() -> None:
    async def scenario(it: Shop) -> None:
        await ask(it)
        link = f"/approve/{token(question='Ship o-17 for 42.00?')}"
        pages = [await it.get(link), await it.get(link), await it.http.head(link)]

        assert [page.status_code for page in pages] == [200, 200, 200]
        assert "Ship o-17 for 42.00?" in text_of(pages[0])
        assert "Your answer is needed" in text_of(await it.get(f"/approve/{token()}"))
        assert re.findall(r'<button name="choice" value="(\w+)">', pages[0].text) == ["Approve", "Decline"]
        assert await state(it) == ("pending", None)

    approve(scenario)


@pytest.mark.parametrize(("choice", "value"), [("Approve", True), ("Decline", False)])
def test_a_button_settles_once_and_a_second_click_changes_nothing_and_says_so(choice: str, value: bool) -> None:
    async def scenario(it: Shop) -> None:
        await ask(it)
        link = f"/approve/{token()}"
        first = await it.http.post(link, content=f"choice={choice}", headers=FORM)
        again = await it.http.post(link, content=f"choice={choice}", headers=FORM)
        other = await it.http.post(link, content=f"choice={'Decline' if value else 'Approve'}", headers=FORM)
        opened = await it.get(link)

        assert (first.status_code, again.status_code, other.status_code, opened.status_code) == (200, 200, 409, 410)
        assert f"“{choice}” is recorded" in text_of(first)
        for page in (again, other, opened):
            assert "Nothing was changed" in text_of(page)
            assert f"“{choice}”" in text_of(page)
        assert await state(it) == ("resolved", value)

    approve(scenario)


def test_a_form_of_another_page_is_taken_because_the_link_is_the_permission() -> None:
    async def scenario(it: Shop) -> None:
        await ask(it)
        headers = {**FORM, "sec-fetch-site": "cross-site"}
        assert (await it.http.post(f"/approve/{token()}", content="choice=Approve", headers=headers)).status_code == 200

    approve(scenario, auth="token")


def test_choices_carry_json_and_come_as_form_or_json() -> None:
    async def scenario(it: Shop) -> None:
        choices = {"Skip": {"do": "skip", "nodes": [1]}, "Force": "force"}
        for id, send in (
            ("a", {"content": "choice=Skip", "headers": FORM}),
            ("b", {"json": {"choice": "Skip"}}),
        ):
            await ask(it, id)
            done = await it.http.post(f"/approve/{token(id, choices=choices)}", **send)
            assert done.status_code == 200
            assert await state(it, id) == ("resolved", {"do": "skip", "nodes": [1]})

    approve(scenario)


def test_a_link_with_one_answer_needs_no_choice() -> None:
    async def scenario(it: Shop) -> None:
        await ask(it)
        assert (await it.http.post(f"/approve/{token(choices={'Unblock': 'go'})}")).status_code == 200
        assert await state(it) == ("resolved", "go")

    approve(scenario)


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        ("", {}, 400),
        ("choice=Maybe", FORM, 400),
        ("answer=Approve", FORM, 400),
        ('{"choice": true}', {"content-type": "application/json"}, 400),
        ("[]", {"content-type": "application/json"}, 400),
        ("{", {"content-type": "application/json"}, 400),
    ],
)
def test_no_answer_settles_nothing(content: str, headers: dict[str, str], status: int) -> None:
    async def scenario(it: Shop) -> None:
        await ask(it)
        page = await it.http.post(f"/approve/{token()}", content=content, headers=headers)
        assert page.status_code == status
        assert "choose an answer" in text_of(page)
        assert await state(it) == ("pending", None)

    approve(scenario)


def test_an_expired_link_settles_nothing() -> None:
    clock = VirtualClock(NOW)

    async def scenario(it: Shop) -> None:
        await ask(it)
        link = f"/approve/{token()}"
        clock.advance(59_999)
        assert (await it.get(link)).status_code == 200
        clock.advance(1)
        pages = [await it.get(link), await it.http.post(link, content="choice=Approve", headers=FORM)]

        assert [page.status_code for page in pages] == [410, 410]
        assert "has expired" in text_of(pages[0])
        assert await state(it) == ("pending", None)

    approve(scenario, clock)


@pytest.mark.parametrize(
    "change",
    [
        lambda good: good[:-1],
        lambda good: good + "A",
        lambda good: good.replace(".", ""),
        lambda good: good.split(".")[0],
        lambda good: "." + good.split(".")[1],
        lambda good: good.swapcase(),
        lambda good: sign(OLD, "ask", NOW + 60_000),
        lambda good: _forged(good),
        lambda good: _respelt(good),
        lambda good: "x",
        lambda good: "%C3%BC.%C3%BC",
    ],
)
def test_an_altered_link_settles_nothing(change: Any) -> None:
    async def scenario(it: Shop) -> None:
        await ask(it)
        link = f"/approve/{change(token())}"
        pages = [await it.get(link), await it.http.post(link, content="choice=Approve", headers=FORM)]

        assert [page.status_code for page in pages] == [403, 403]
        assert "does not work" in text_of(pages[0])
        assert await state(it) == ("pending", None)

    approve(scenario)


def test_a_link_altered_by_any_one_bit_settles_nothing() -> None:
    def spelt(parts: list[bytes]) -> str:
        return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)

    async def scenario(it: Shop) -> None:
        await ask(it)
        good = token()
        parts = [base64.urlsafe_b64decode(part + "==") for part in good.split(".")]
        assert spelt(parts) == good
        refused = set()
        for at, part in enumerate(parts):
            for bit in range(8 * len(part)):
                changed = bytearray(part)
                changed[bit // 8] ^= 1 << bit % 8
                link = f"/approve/{spelt([*parts[:at], bytes(changed), *parts[at + 1 :]])}"
                page = await it.http.post(link, content="choice=Approve", headers=FORM)
                refused.add((page.status_code, "does not work" in text_of(page)))
        assert refused == {(403, True)}
        assert await state(it) == ("pending", None)

    approve(scenario)


def _respelt(good: str) -> str:
    """The same bytes, spelt with another last character: base64 leaves two bits of it unused."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return good[:-1] + letters[letters.index(good[-1]) + 1]


def _forged(good: str) -> str:
    """The payload says another promise, the signature is the old one."""
    payload, _, signature = good.partition(".")
    body = json.loads(base64.urlsafe_b64decode(payload + "=="))
    text = base64.urlsafe_b64encode(json.dumps({**body, "i": "other"}).encode()).decode().rstrip("=")
    return f"{text}.{signature}"


def test_a_question_that_ended_otherwise_is_told() -> None:
    async def scenario(it: Shop) -> None:
        await ask(it)
        await it.post("/promises/ask/cancel")
        link = f"/approve/{token()}"

        assert "withdrawn" in text_of(await it.get(link))
        late = await it.http.post(link, content="choice=Approve", headers=FORM)
        assert (late.status_code, "Nothing was changed" in text_of(late)) == (409, True)
        assert await state(it) == ("rejected_canceled", None)

    approve(scenario)


def test_a_question_that_is_gone_is_told() -> None:
    async def scenario(it: Shop) -> None:
        link = f"/approve/{token('nowhere')}"
        assert (await it.get(link)).status_code == 404
        assert (await it.http.post(link, content="choice=Approve", headers=FORM)).status_code == 404

    approve(scenario)


def test_without_a_secret_there_are_no_links() -> None:
    async def scenario(it: Shop) -> None:
        await ask(it)
        assert (await it.get(f"/approve/{token()}")).status_code == 404

    shop(scenario)


def test_an_old_secret_counts_while_it_is_being_replaced() -> None:
    async def scenario(it: Shop) -> None:
        await ask(it)
        assert (await it.get(f"/approve/{sign(OLD, 'ask', NOW + 1)}")).status_code == 200

    shop(scenario, secret=[SECRET, OLD], clock=VirtualClock(NOW))


def test_hostile_text_stays_text_and_the_page_loads_nothing() -> None:
    async def scenario(it: Shop) -> None:
        evil = '"><script>alert(1)</script>'
        await ask(it, evil.replace(".", ""))
        page = await it.get(f"/approve/{token(evil, question=evil, choices={evil: 1})}")

        assert page.status_code == 200
        assert "<script" not in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert page.headers["referrer-policy"] == "no-referrer"
        assert not re.search(r"(src|href)=", page.text.replace(evil, ""))

    approve(scenario)


def test_an_answer_of_another_type_is_refused() -> None:
    async def scenario(it: Shop) -> None:
        await ask(it)
        headers = {"content-type": "text/plain"}
        is_problem(await it.http.post(f"/approve/{token()}", content="choice=Approve", headers=headers), 415)

    approve(scenario)


def test_a_token_says_what_was_signed() -> None:
    grant = verify(SECRET, sign(SECRET, "a/b ü", NOW, choices={"Ja": [1]}, question="Wirklich?"), NOW - 1)

    assert grant == ("a/b ü", NOW, {"Ja": [1]}, "Wirklich?")
    with pytest.raises(TokenExpired):
        verify(SECRET, sign(SECRET, "a", NOW), NOW)
    with pytest.raises(TokenAltered):
        verify(OLD, sign(SECRET, "a", NOW), 0)


@pytest.mark.parametrize(
    ("args", "kwargs", "error"),
    [
        (("short", "a", NOW), {}, InvalidArgument),
        ((SECRET, "", NOW), {}, InvalidId),
        ((SECRET, "a", 1.5), {}, InvalidArgument),
        ((SECRET, "a", NOW), {"choices": {}}, InvalidArgument),
        ((SECRET, "a", NOW), {"choices": {"": 1}}, InvalidArgument),
        ((SECRET, "a", NOW), {"choices": {"x": float("nan")}}, InvalidArgument),
        ((SECRET, "a", NOW), {"choices": {"x": object()}}, InvalidArgument),
    ],
)
def test_what_cannot_be_signed_is_named(args: Any, kwargs: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        sign(*args, **kwargs)
