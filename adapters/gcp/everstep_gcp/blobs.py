"""Payloads too large for a document, in a bucket of Cloud Storage. Its library is imported by the first request.

An object's name is a readable beginning and a hash of the key: names end at 1,024 bytes, and keys hold any text.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from typing import Any

from everstep.errors import StoreError, StoreUnavailable

_UNSAFE = re.compile(r"[^A-Za-z0-9._~-]+")


class CloudStorageBlobs:
    """Blobs of one bucket.

    Args:
        bucket: its name.
        prefix: what the objects' names begin with.
        client: a `google.cloud.storage.Client`; by default one with the environment's credentials.

    Methods raise StoreUnavailable where the service is in trouble, and StoreError where it refuses.
    """

    def __init__(self, bucket: str, *, prefix: str = "everstep/", client: Any = None) -> None:
        self.bucket = bucket
        self._prefix = prefix
        self._client = client

    async def put(self, key: str, data: bytes) -> None:
        await asyncio.to_thread(self._do, "write", lambda blob: blob.upload_from_string(data, _TYPE), key)

    async def get(self, key: str) -> bytes:
        found: bytes = await asyncio.to_thread(self._do, "read", lambda blob: blob.download_as_bytes(), key)
        return found

    async def delete(self, key: str) -> None:
        try:
            await asyncio.to_thread(self._do, "delete", lambda blob: blob.delete(), key)
        except KeyError:
            pass

    def name_of(self, key: str) -> str:
        """The object's name for a key."""
        readable = _UNSAFE.sub("-", key)[:120]
        return f"{self._prefix}{readable}-{hashlib.sha256(key.encode()).hexdigest()[:32]}"

    def _do(self, what: str, call: Any, key: str) -> Any:
        from google.api_core import exceptions as cloud
        from google.auth.exceptions import GoogleAuthError, TransportError
        from requests import RequestException

        if self._client is None:
            from google.cloud import storage  # type: ignore[attr-defined]

            self._client = storage.Client()
        try:
            return call(self._client.bucket(self.bucket).blob(self.name_of(key)))
        except cloud.NotFound as error:
            if what == "write" or "bucket does not exist" in str(error):
                raise StoreError(f"cannot {what} in bucket {self.bucket}: {error}") from error
            raise KeyError(key) from error
        except (cloud.ServerError, cloud.TooManyRequests, RequestException, TransportError) as error:
            raise StoreUnavailable(f"cannot {what} in bucket {self.bucket}: {error}") from error
        except (cloud.GoogleAPICallError, GoogleAuthError) as error:
            raise StoreError(f"cannot {what} in bucket {self.bucket}: {error}") from error


_TYPE = "application/json"
