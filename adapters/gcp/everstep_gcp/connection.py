"""Requests to Firestore, and what its errors mean. Nothing is retried here by the vendor's library.

Its client repeats a commit for a minute when the answer was lost, and then fails against its own record (rule F3); so
every request is sent once, with a deadline, and whoever asked decides what its failure means. Reads are repeated here.

This module imports the vendor's library, which is slow: whoever needs it imports it late.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

import grpc
from google.api_core import exceptions as cloud
from google.auth import exceptions as auth
from google.cloud.firestore_v1 import types
from google.cloud.firestore_v1.services.firestore import FirestoreAsyncClient
from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcAsyncIOTransport

from everstep.errors import StoreError, StoreReadOnly, StoreUnavailable

T = TypeVar("T")

Write: Any = types.Write.pb()
_Commit: Any = types.CommitRequest.pb()
_BatchGet: Any = types.BatchGetDocumentsRequest.pb()
_RunQuery: Any = types.RunQueryRequest.pb()
Query: Any = types.StructuredQuery.pb()

_READS = 4
_LARGEST = 10 * 1024 * 1024
_OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


class Unmet(Exception):
    """A precondition did not hold: nothing was written."""


class Contended(Exception):
    """Others were writing the same documents: nothing was written, and the same may succeed in a moment."""


class Lost(Exception):
    """The answer was lost: the write may have happened."""


class Connection:
    """One database, as one event loop reaches it.

    Args:
        database: `projects/<project>/databases/<database>`.
        emulator: `host:port` of the emulator; None for the service, with the environment's credentials.
        timeout: seconds for each request.

    Raises:
        StoreError: there are no credentials.
    """

    def __init__(self, database: str, emulator: str | None, timeout: float) -> None:
        self.database = database
        self.documents = f"{database}/documents"
        self.timeout = timeout
        self.metadata: tuple[tuple[str, str], ...] = ()
        try:
            if emulator is not None:
                self.metadata = (("authorization", "Bearer owner"),)
                channel = grpc.aio.insecure_channel(emulator, options=_OPTIONS)
                self.client = FirestoreAsyncClient(transport=FirestoreGrpcAsyncIOTransport(channel=channel))
            else:
                self.client = FirestoreAsyncClient()
        except auth.GoogleAuthError as error:
            raise StoreError(f"{database}: no credentials: {error}") from error

    async def commit(self, writes: Sequence[Any]) -> list[Any]:
        """Write all or nothing; returns when each document was written.

        Raises:
            Unmet, Contended, Lost: see there.
            StoreError: it can never be written so, or not by us.
            StoreUnavailable: nothing was written; later it may be.
        """
        request = _Commit(database=self.database, writes=writes)
        if request.ByteSize() > _LARGEST:
            raise StoreError(f"{self.database}: a commit of {request.ByteSize()} bytes; Firestore takes {_LARGEST}")
        try:
            response = await self._send(self.client.commit, types.CommitRequest.wrap(request))
        except (cloud.AlreadyExists, cloud.FailedPrecondition, cloud.NotFound) as error:
            raise Unmet(str(error)) from error
        except cloud.Aborted as error:
            raise Contended(str(error)) from error
        except (cloud.ServerError, cloud.Cancelled) as error:
            raise Lost(f"{type(error).__name__}: {error}") from error
        except (cloud.GoogleAPICallError, auth.GoogleAuthError) as error:
            raise self.trouble(error, writing=True) from error
        return [result.update_time for result in types.CommitResponse.pb(response).write_results]

    async def get(self, names: Sequence[str], mask: Sequence[str] | None = None) -> list[Any]:
        """The documents of these names that exist. Raises StoreError."""
        request = _BatchGet(database=self.database, documents=names)
        if mask is not None:
            request.mask.field_paths.extend(mask)
            if not mask:
                request.mask.SetInParent()

        async def read() -> list[Any]:
            stream = await self._send(self.client.batch_get_documents, types.BatchGetDocumentsRequest.wrap(request))
            answers = [types.BatchGetDocumentsResponse.pb(answer) async for answer in stream]
            return [answer.found for answer in answers if answer.HasField("found")]

        return await self._repeated(read)

    async def query(self, query: Any) -> list[Any]:
        """The documents a query finds, in its order. Raises StoreError."""
        request = _RunQuery(parent=self.documents, structured_query=query)

        async def read() -> list[Any]:
            stream = await self._send(self.client.run_query, types.RunQueryRequest.wrap(request))
            answers = [types.RunQueryResponse.pb(answer) async for answer in stream]
            return [answer.document for answer in answers if answer.HasField("document")]

        return await self._repeated(read)

    async def close(self) -> None:
        await self.client.transport.close()  # type: ignore[no-untyped-call]

    async def _send(self, method: Callable[..., Awaitable[T]], request: Any) -> T:
        return await method(request=request, retry=None, timeout=self.timeout, metadata=self.metadata)

    async def _repeated(self, read: Callable[[], Awaitable[T]]) -> T:
        async for last in attempts(_READS):
            try:
                return await read()
            except (cloud.ServerError, cloud.Aborted, cloud.Cancelled) as error:
                if last:
                    raise self.trouble(error) from error
            except (cloud.GoogleAPICallError, auth.GoogleAuthError) as error:
                raise self.trouble(error) from error
        raise AssertionError("unreachable")

    def trouble(self, error: Exception, writing: bool = False) -> StoreError:
        """The store error that an error of the library means."""
        said = f"{self.database}: {getattr(error, 'message', None) or error}"
        match error:
            case cloud.PermissionDenied() if writing:
                return StoreReadOnly(said)
            case cloud.TooManyRequests() | cloud.ServerError() | cloud.Aborted() | cloud.Cancelled():
                return StoreUnavailable(said)
            case auth.TransportError():
                return StoreUnavailable(said)
            case _:
                return StoreError(said)


async def attempts(count: int, first: float = 0.02, cap: float = 1.0) -> AsyncIterator[bool]:
    """Yield `count` times, pausing in between for longer and longer, and never as long as others; True the last time.

    The pauses are random so that many who meet at one document part again: no writer starves.
    """
    for attempt in range(count):
        if attempt:
            await asyncio.sleep(random.uniform(0.3, 1.0) * min(cap, first * 2**attempt))
        yield attempt == count - 1


__all__ = ["Connection", "Contended", "Lost", "Query", "Unmet", "Write", "attempts"]
