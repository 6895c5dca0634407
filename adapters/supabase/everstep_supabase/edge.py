"""Inside an Edge Function: CPython by Pyodide, the store over PostgREST by JavaScript's `fetch`. Experimental.

Only `/wake`, `/webhook` and `/sweep` are served, so that neither a web framework nor an HTTP library has to be loaded
within the CPU time of a request. What JavaScript hands over and takes back is text and bytes.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from everstep.errors import OutcomeUnknown

from .auth import SECRET_HEADER
from .handler import handler
from .rpc import Answer, RpcStore

if TYPE_CHECKING:
    from everstep.registry import App

Fetch = Callable[[str, str, str], Awaitable[str]]
"""URL, headers as JSON and body, posted; the answer is the JSON `[status, body]`."""


class FetchStore(RpcStore):
    """Rows behind PostgREST, through a `fetch` of the host's.

    `fetch` does not tell a refused connection from a lost answer: the outcome of a write is unknown in both (F3).
    """

    def __init__(self, url: str, key: str, fetch: Fetch) -> None:
        super().__init__(url, key)
        self._fetch = fetch

    async def _post(self, body: bytes) -> Answer:
        headers = json.dumps({**self._headers, "Content-Type": "application/json"})
        try:
            status, text = json.loads(await self._fetch(self.url, headers, body.decode()))
        except Exception as error:  # a JsException, which only Pyodide knows
            raise OutcomeUnknown(f"{self.url}: {error}") from error
        return Answer(status, text.encode())


class Edge:
    """One App as what an Edge Function calls for each request.

    Args:
        url: of the project, `https://ref.supabase.co`.
        key: the service role key.
        secret: of the header `x-everstep-secret`, 16 bytes at least.
        fetch: see `Fetch`.

    Raises:
        InvalidArgument: the secret is missing or too short.
    """

    def __init__(self, app: App, url: str, key: str, secret: str, fetch: Fetch) -> None:
        self._function = handler(app, FetchStore(url, key, fetch), secret=secret, auth=lambda request: False)

    async def __call__(self, what: str, secret: str, read: Callable[[], Awaitable[bytes]]) -> str:
        """Answer a request for `wake`, `webhook` or `sweep`: the JSON `[status, content type, body]`.

        Args:
            read: the request's body, which stays where it is until the secret has been checked.
        """
        scope = {
            "type": "http",
            "method": "POST",
            "path": f"/{what}",
            "headers": [(SECRET_HEADER.encode(), secret.encode("latin-1", "replace"))],
        }
        said: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": await read()}

        async def send(message: dict[str, Any]) -> None:
            said.append(message)

        await self._function(scope, receive, send)
        start, content = said
        return json.dumps([start["status"], dict(start["headers"])[b"content-type"].decode(), content["body"].decode()])
