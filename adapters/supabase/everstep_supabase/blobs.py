"""Large payloads in Supabase Storage, by reference. A key is hashed, so that no id can name another's object.

The bucket must be private. An upload is an upsert of the same bytes, so that a repeated one changes nothing.
"""

from __future__ import annotations

import hashlib
import re

import httpx

from everstep.errors import StoreError, StoreUnavailable


class SupabaseBlobs:
    """Bytes by key in one bucket; give it to `Codec(blobs=...)`.

    Args:
        url: of the project.
        key: the service role key.
        bucket: an existing private bucket.
        client: an httpx client of one's own, for proxies and tests.

    Methods raise StoreUnavailable when Storage cannot be reached or is overloaded, StoreError when it refuses.
    """

    def __init__(
        self, url: str, key: str, bucket: str = "everstep", *, client: httpx.AsyncClient | None = None
    ) -> None:
        self._base = f"{url.rstrip('/')}/storage/v1/object"
        self._bucket = bucket
        self._headers = {"apikey": key, "Authorization": f"Bearer {key}"}
        self._client = client

    def path(self, key: str) -> str:
        """Where a key is kept in the bucket."""
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        readable = re.sub(r"[^A-Za-z0-9-]+", "_", key, flags=re.ASCII)[:40].strip("_")
        return f"{digest[:2]}/{readable or 'blob'}.{digest[:40]}"

    async def put(self, key: str, data: bytes) -> None:
        """Write; durable when it returns."""
        headers = {"Content-Type": "application/octet-stream", "x-upsert": "true"}
        await self._ask("POST", f"{self._base}/{self._bucket}/{self.path(key)}", content=bytes(data), headers=headers)

    async def get(self, key: str) -> bytes:
        """Read. Raises KeyError where there is none."""
        answer = await self._ask("GET", f"{self._base}/authenticated/{self._bucket}/{self.path(key)}", missing=True)
        if answer is None:
            raise KeyError(key)
        return answer.content

    async def delete(self, key: str) -> None:
        """Remove; not an error where there is none."""
        await self._ask("DELETE", f"{self._base}/{self._bucket}/{self.path(key)}", missing=True)

    async def _ask(
        self,
        method: str,
        url: str,
        *,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        missing: bool = False,
    ) -> httpx.Response | None:
        client = self._client or httpx.AsyncClient(timeout=60)
        try:
            answer = await client.request(method, url, content=content, headers={**self._headers, **(headers or {})})
        except httpx.HTTPError as error:
            raise StoreUnavailable(f"{self._base}: {type(error).__name__}: {error}") from error
        finally:
            if self._client is None:
                await client.aclose()
        if answer.is_success:
            return answer
        # Storage says 400 with a body that says 404, too.
        if missing and (answer.status_code == 404 or '"404"' in answer.text or "not_found" in answer.text):
            return None
        said = f"{self._base}: {answer.status_code} {answer.text[:200]}"
        if answer.status_code == 429 or answer.status_code >= 500:
            raise StoreUnavailable(said)
        raise StoreError(said)
