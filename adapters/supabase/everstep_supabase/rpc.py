"""The same store over PostgREST: each request is one call of `public.everstep_rpc`, text in and text out.

For functions that may not open a connection of their own. Conflicts are values, so a status other than 200 is trouble:
401 and 403 mean the key, 404 the migration; a lost answer to a commit leaves open whether it happened (rule F3). A
function that returns text answers with a JSON string, so that what comes is decoded twice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from everstep.errors import OutcomeUnknown, StoreCorrupted, StoreError, StoreFull, StoreReadOnly, StoreUnavailable
from everstep.ports import Beside, Claim, Commit, Due, Page, Query, Refused, Resumed
from everstep.rows import Row

from .rows import (
    Search,
    claim_parameters,
    commit_request,
    escaped,
    find_request,
    inbox_from,
    refusal,
    row_of,
    text_of,
    unescaped,
)
from .waker import PostgresWaker

if TYPE_CHECKING:
    import httpx

_AGAIN = 8
_BUSY = ("40001", "40P01")


class Answer(NamedTuple):
    """What came back over HTTP."""

    status: int
    body: bytes


class RpcStore:
    """Rows behind a Supabase project's REST API.

    Args:
        url: of the project, `https://ref.supabase.co`.
        key: the service role key; no other role may call the function.
        client: an httpx client of one's own, for proxies and tests.
        timeout: seconds for each request.
    """

    single_writer = True
    folds = True

    def __init__(self, url: str, key: str, *, client: httpx.AsyncClient | None = None, timeout: float = 30) -> None:
        self.url = f"{url.rstrip('/')}/rest/v1/rpc/everstep_rpc"
        self._headers = {"apikey": key, "Authorization": f"Bearer {key}"}
        self._client = client
        self._timeout = timeout
        self._closed = False

    async def load(self, ids: Sequence[str]) -> dict[str, Row]:
        if not ids:
            return {}
        rows = [row_of(one) for one in await self._call("load", ids=[escaped(id) for id in ids])]
        return {row.id: row for row in rows}

    async def branch(self, id: str) -> list[Row]:
        return [row_of(one) for one in await self._call("branch", id=escaped(id))]

    async def resume(self, id: str, claim: Claim, beside: Beside | None = None) -> Resumed:
        id, target, holder, ttl, at, warm, ids = claim_parameters(id, claim, beside)
        found = await self._call(
            "resume", writing=True, id=id, target=target, holder=holder, ttl=ttl, at=at, warm=warm, beside=ids
        )
        return Resumed([row_of(one["part"]) for one in found], inbox_from(found[0]["inbox"]) if found else None)

    async def commit(self, commit: Commit) -> Refused | None:
        answer = await self._text("commit", writing=True, commit=commit_request(commit))
        return refusal(answer)

    async def due(self, now: int, limit: int) -> list[Due]:
        return [Due(unescaped(id), due) for id, due in await self._call("due", now=now, limit=limit)]

    async def find(self, query: Query) -> Page:
        search = Search(query)
        while search.page is None:
            request = find_request(query, query.limit, search.cursor)
            search.take([row_of(one) for one in await self._call("find", query=request)])
        return search.page

    async def delete(self, origin: str) -> int:
        return int(await self._call("delete", writing=True, origin=escaped(origin)))

    async def poke(self, id: str) -> None:
        """Ring the doorbell of one row."""
        await self._text("poke", id=escaped(id))

    def waker(self) -> PostgresWaker:
        return PostgresWaker(self, listeners=False)

    async def close(self) -> None:
        self._closed = True
        if self._client is not None:
            await self._client.aclose()

    async def _call(self, op: str, *, writing: bool = False, **arguments: Any) -> Any:
        text = await self._text(op, writing=writing, **arguments)
        if text is None:
            raise StoreCorrupted(f"{self.url}: {op} answered with nothing")
        return json.loads(text)

    async def _text(self, op: str, *, writing: bool = False, **arguments: Any) -> str | None:
        if self._closed:
            raise StoreError(f"{self.url}: this store was closed")
        body = json.dumps({"request": text_of({"op": op, **arguments})}).encode()
        for left in range(_AGAIN, -1, -1):
            try:
                answer = await self._post(body)
                if answer.status == 200:
                    text: str | None = json.loads(answer.body)
                    return text
            except OutcomeUnknown as error:
                raise _lost(str(error), writing) from error
            except ValueError as error:
                raise _lost(f"{self.url}: no answer of PostgREST's: {error}", writing) from error
            code, message = _problem(answer)
            if code in _BUSY and left:
                continue  # ended by the server to end a deadlock: nothing happened
            raise _trouble(answer.status, code, f"{self.url}: {message}", writing)
        raise AssertionError

    async def _post(self, body: bytes) -> Answer:
        """One request. Raises StoreUnavailable where nothing was sent, OutcomeUnknown where no answer came back."""
        import httpx  # not in an Edge Function

        headers = {**self._headers, "Content-Type": "application/json"}
        try:
            if self._client is not None:
                answer = await self._client.post(self.url, content=body, headers=headers)
            else:
                # A client keeps its connections to the loop it began on; a short-lived function has one for each call.
                async with httpx.AsyncClient(timeout=self._timeout) as client:
                    answer = await client.post(self.url, content=body, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise StoreUnavailable(f"{self.url}: {error}") from error
        except httpx.HTTPError as error:
            raise OutcomeUnknown(f"{self.url}: {type(error).__name__}: {error}") from error
        return Answer(answer.status_code, answer.content)


def _problem(answer: Answer) -> tuple[str, str]:
    try:
        told = json.loads(answer.body)
        return str(told.get("code") or ""), f"{answer.status} {told.get('code')}: {told.get('message')}"
    except (ValueError, AttributeError):
        return "", f"{answer.status} {answer.body[:200].decode(errors='replace')}"


def _lost(said: str, writing: bool) -> StoreError:
    return OutcomeUnknown(said) if writing else StoreUnavailable(said)


def _trouble(status: int, code: str, said: str, writing: bool) -> StoreError:
    match code:
        case "PGRST202" | "42883" | "42P01":
            return StoreError(f"{said}\nThe migration is missing, or PostgREST has not seen it yet: supabase db push")
        case "53100":
            return StoreFull(said)
        case "25006":
            return StoreReadOnly(said)
        case "40001" | "40P01" | "57014" | "57P03" | "55P03":
            return StoreUnavailable(said)
        # The server went down, or whoever stands before it did not hear from it.
        case _ if (
            status in (502, 504) or code.startswith(("08", "57P")) or (status >= 500 and status != 503 and not code)
        ):
            return _lost(said, writing)
        case _ if status in (429, 503):
            return StoreUnavailable(said)
        case _:
            return StoreError(said)
