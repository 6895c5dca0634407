"""The page behind a signed link. Opening it changes nothing (mail scanners follow every link); a button does.

Statuses: 200 asked or recorded, 403 not our link, 404 the promise is gone, 409 answered before with something else,
410 expired or answered, 400 no such answer.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from everstep.clock import Clock, to_datetime
from everstep.errors import AlreadySettled, NotFound
from everstep.tokens import Grant, Secret, TokenAltered, TokenExpired, verify

from .body import read
from .problems import Problem
from .strict import dumps, loads

if TYPE_CHECKING:
    from everstep.client import Client
    from everstep.views import PromiseView

_STYLE = """
:root{color-scheme:light dark;--bg:#f6f5f2;--card:#fff;--ink:#1d1c1a;--soft:#6a675f;--line:#dfdcd4;--go:#1f6f4a}
@media(prefers-color-scheme:dark){:root{--bg:#161614;--card:#201f1d;--ink:#eceae4;--soft:#a19d92;--line:#3a3833;
--go:#2f7f59}}
body{margin:0;min-height:100vh;display:grid;place-items:center;background:var(--bg);color:var(--ink);
font:17px/1.5 system-ui,sans-serif}
main{box-sizing:border-box;width:min(34rem,92vw);margin:1rem;padding:2rem;background:var(--card);
border:1px solid var(--line);border-radius:14px}
h1{margin:0 0 .75rem;font-size:1.35rem;line-height:1.3;overflow-wrap:anywhere}
p{margin:.5rem 0;overflow-wrap:anywhere;white-space:pre-line}
small{color:var(--soft);overflow-wrap:anywhere}
form{display:flex;flex-wrap:wrap;gap:.75rem;margin:1.5rem 0 1rem}
button{flex:1 1 9rem;padding:.8rem 1rem;font:inherit;font-weight:600;border-radius:10px;cursor:pointer;
border:1px solid var(--line);background:transparent;color:inherit}
button:first-child{background:var(--go);border-color:var(--go);color:#fff}
button:focus-visible{outline:3px solid #5b8def;outline-offset:2px}
"""

_HEADERS = {
    "cache-control": "no-store",
    # The address is the permission: no other site and no search engine may learn it.
    "referrer-policy": "no-referrer",
    "x-robots-tag": "noindex",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    f"style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'",
}


def _page(status: int, title: str, body: str) -> Response:
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main><h1>{escape(title)}</h1>{body}</main></body></html>"
    )
    return HTMLResponse(text, status, _HEADERS)


def _say(status: int, title: str, text: str) -> Response:
    return _page(status, title, f"<p>{escape(text)}</p>")


class Approvals:
    """The two methods of `/approve/{token}`."""

    def __init__(self, secret: Secret | Sequence[Secret] | None, clock: Clock, max_body: int) -> None:
        self._secret = secret
        self._clock = clock
        self._max_body = max_body

    async def show(self, client: Client, token: str) -> Response:
        """Ask; never settle."""
        grant = self._grant(token)
        if isinstance(grant, Response):
            return grant
        view = await _find(client, grant)
        if view is None:
            return _gone()
        if not view.pending:
            return _answered(410, grant, view)
        until = to_datetime(grant.expires_at).strftime("%d %B %Y, %H:%M UTC")
        buttons = "".join(
            f'<button name="choice" value="{escape(label)}">{escape(label)}</button>' for label in grant.choices
        )
        return _page(
            200,
            grant.question or "Your answer is needed",
            f'<form method="post">{buttons}</form><small>{escape(grant.id)}<br>This link works until {until}.</small>',
        )

    async def settle(self, client: Client, token: str, request: Request) -> Response:
        """Record the answer given."""
        grant = self._grant(token)
        if isinstance(grant, Response):
            return grant
        label = await self._choice(request, grant)
        if label is None:
            return _say(400, "Please choose an answer", "Open the link again and press one of the buttons.")
        view = await _find(client, grant)
        if view is None:
            return _gone()
        value = grant.choices[label]
        if not view.pending:
            same = view.state == "resolved" and view.value == value and type(view.value) is type(value)
            return _answered(200 if same else 409, grant, view)
        try:
            await client.resolve(grant.id, value)
        except AlreadySettled:
            return _answered(409, grant, await client.get(grant.id))
        except NotFound:
            return _gone()
        return _say(
            200,
            "Thank you",
            f"Your answer {_quoted(label)} is recorded. You can close this page.",
        )

    def _grant(self, token: str) -> Grant | Response:
        if self._secret is None:
            return _say(404, "There are no links here", "This service was set up without a secret for signed links.")
        try:
            return verify(self._secret, token, self._clock.now())
        except TokenExpired:
            return _say(410, "This link has expired", "Ask whoever sent it for a new one.")
        except TokenAltered:
            return _say(
                403,
                "This link does not work",
                "It is not as it was sent. Links in mails are sometimes cut in two: copy the whole of it.",
            )

    async def _choice(self, request: Request, grant: Grant) -> str | None:
        """The label of the answer, from a form or JSON; a link that offers one answer needs none."""
        data = await read(request, self._max_body)
        given: Any = None
        if data:
            content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if content_type == "application/x-www-form-urlencoded":
                given = parse_qs(data.decode(errors="replace")).get("choice", [None])[0]
            elif content_type == "application/json":
                try:
                    body = loads(data)
                except ValueError:
                    return None
                given = body.get("choice") if isinstance(body, dict) else None
            else:
                raise Problem(415, "send the answer as a form or as application/json")
        if given is None and len(grant.choices) == 1:
            return next(iter(grant.choices))
        return given if isinstance(given, str) and given in grant.choices else None


async def _find(client: Client, grant: Grant) -> PromiseView | None:
    try:
        return await client.get(grant.id)
    except NotFound:
        return None


def _gone() -> Response:
    return _say(404, "This question is gone", "What it belonged to was removed in the meantime.")


def _answered(status: int, grant: Grant, view: PromiseView) -> Response:
    if view.state != "resolved":
        text = {
            "rejected_timedout": "The time to answer was over before you came.",
            "rejected_canceled": "The question was withdrawn.",
        }.get(view.state, "It was ended without an answer.")
        return _say(status, "No answer is needed any more", f"{text} Nothing was changed.")
    label = next((label for label, value in grant.choices.items() if dumps(value) == dumps(view.value)), None)
    answer = f" The answer was {_quoted(label)}." if label else ""
    return _say(status, "This was answered already", f"Nothing was changed.{answer}")


def _quoted(label: str) -> str:
    return f"\N{LEFT DOUBLE QUOTATION MARK}{label}\N{RIGHT DOUBLE QUOTATION MARK}"
