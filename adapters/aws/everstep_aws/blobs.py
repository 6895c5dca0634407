"""Payloads above what an item holds, as objects of one S3 bucket. An object is written before the record that names it.

A key holds an id, which may be any text, so it is percent-encoded; what exceeds S3's 1,024 bytes is cut and told apart
by a digest.
"""

from __future__ import annotations

from hashlib import sha256
from urllib.parse import quote

from everstep.errors import StoreError

from .calls import Caller, make_client

_GONE = frozenset({"NoSuchKey", "404"})


class S3Blobs:
    """Bytes by key in one bucket.

    Args:
        bucket: its name.
        prefix: what every key begins with; a policy can be cut to it.

    Methods raise StoreError where S3 is in trouble or refuses.
    """

    def __init__(
        self,
        bucket: str,
        *,
        prefix: str = "everstep/",
        region: str | None = None,
        endpoint: str | None = None,
        caller: Caller | None = None,
    ) -> None:
        self.bucket = bucket
        self.prefix = prefix
        self._call = caller or Caller(
            lambda: make_client("s3", region=region, endpoint=endpoint), f"the S3 bucket {bucket!r}"
        )

    def key(self, key: str) -> str:
        """Where a blob is kept."""
        escaped = quote(key, safe="/~", errors="surrogatepass")
        if len(escaped) <= 900:
            return self.prefix + escaped
        return f"{self.prefix}{escaped[:800]}-{sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"

    async def put(self, key: str, data: bytes) -> None:
        """Write; durable when it returns."""
        await self._call("put_object", Bucket=self.bucket, Key=self.key(key), Body=data)

    async def get(self, key: str) -> bytes:
        """Raises KeyError: there is no such blob."""
        answer = await self._call("get_object", expected=_GONE, Bucket=self.bucket, Key=self.key(key))
        if answer.error:
            raise KeyError(key)
        try:
            data: bytes = answer.result["Body"].read()
        except Exception as error:
            raise StoreError(f"{self._call.what}: {error}") from error
        return data

    async def delete(self, key: str) -> None:
        """Remove; not an error where there is none."""
        await self._call("delete_object", Bucket=self.bucket, Key=self.key(key))
