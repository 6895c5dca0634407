"""One call of an AWS service: on a thread of its own, tried again where that is safe, its errors said in our words.

Theory (rule F3). The vendor's client retries by itself, and a conditional write whose answer was lost then fails
against its own record. So its retries are off, and ours know three kinds of trouble: *not done* (throttled, a conflict
with a transaction, no connection), which is tried again; *perhaps done* (the answer was lost, an internal error), which
is tried again and remembered, so that the caller can tell its own record from another's; and *refused*, which is final.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from everstep.errors import OutcomeUnknown, PlatformError, StoreError, StoreUnavailable

if TYPE_CHECKING:
    from botocore.client import BaseClient

ATTEMPTS = 6
FIRST = 0.025
CAP = 1.0
"""Seconds: the longest wait between two attempts; about two seconds in all."""

_NOT_DONE = {
    "ProvisionedThroughputExceededException",
    "ThrottlingException",
    "Throttling",
    "RequestLimitExceeded",
    "RequestThrottled",
    "TooManyRequestsException",
    "TransactionConflictException",
    "TransactionInProgressException",
    "ReplicatedWriteConflictException",
    "SlowDown",
    "KmsThrottled",
    "KMS.ThrottlingException",
}
_EXPIRED = {"ExpiredTokenException", "ExpiredToken", "UnrecognizedClientException", "InvalidSignatureException"}
_TRANSIENT_REASONS = {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"}


class Answer(NamedTuple):
    """What a service answered: its result, or the error `expected` by the caller; `unsure` where an earlier attempt of
    the same call may have been carried out."""

    result: Mapping[str, Any]
    error: str
    unsure: bool


def make_client(
    service: str, *, region: str | None = None, endpoint: str | None = None, pool: int = 24, attempts: int = 1
) -> BaseClient:
    """A client of one service. botocore alone: boto3 would add resources nobody here uses.

    Args:
        region, endpoint: where; by default what the environment and the configuration files say.
        pool: connections that may be open at a time.
        attempts: how often the client itself tries what changes nothing.
    """
    import botocore.session
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=3,
        read_timeout=20,
        max_pool_connections=pool,
        tcp_keepalive=True,
    )
    return botocore.session.Session().create_client(service, region_name=region, endpoint_url=endpoint, config=config)


class Caller:
    """Calls one service.

    Args:
        make: makes the client, on first use.
        what: names the service and its resource in errors.
        failure, unavailable, unknown: the errors to raise; by default those of a store.
        pause: waits so many seconds; tests pass one that does not.
    """

    def __init__(
        self,
        make: Callable[[], BaseClient],
        what: str,
        *,
        failure: type[PlatformError] = StoreError,
        unavailable: type[PlatformError] = StoreUnavailable,
        unknown: type[PlatformError] = OutcomeUnknown,
        attempts: int = ATTEMPTS,
        pause: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        self._make = make
        self._client: BaseClient | None = None
        self._pool: ThreadPoolExecutor | None = None
        self.what = what
        self._failure = failure
        self._unavailable = unavailable
        self._unknown = unknown
        self._attempts = attempts
        self._pause = pause

    @property
    def client(self) -> BaseClient:
        if self._client is None:
            self._client = self._make()
        return self._client

    def prepare(self) -> None:
        """Make the client now; what is wrong with the configuration is said by the first call."""
        from botocore.exceptions import BotoCoreError

        with contextlib.suppress(BotoCoreError):
            _ = self.client

    async def __call__(
        self, name: str, /, *, writes: bool = False, expected: frozenset[str] = frozenset(), **parameters: Any
    ) -> Answer:
        """Call an operation of the client.

        Args:
            writes: it may have been carried out though no answer came.
            expected: error codes that are an answer.

        Raises:
            the failure: it is refused for good; repeating it changes nothing.
            the unavailable: it was not carried out, however often it was tried.
            the unknown: whether it was carried out cannot be told.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        unsure = False
        last: Exception | None = None
        for attempt in range(self._attempts):
            if attempt:
                await self._pause(random.uniform(0, min(CAP, FIRST * 2**attempt)))
            try:
                result = await self._run(partial(getattr(self.client, name), **parameters))
                return Answer(result, "", unsure)
            except ClientError as error:
                code = _code(error)
                if code in expected and not _transient(error, code):
                    return Answer(error.response, code, unsure)
                if not passes(error):
                    raise self._final(error, code, unsure) from error
                unsure = unsure or (writes and code not in _NOT_DONE and code not in expected)
                last = error
            except BotoCoreError as error:
                if not _lost(error):
                    raise self._failure(f"{self.what}: {error}") from error
                unsure = unsure or (writes and not _never_sent(error))
                last = error
        if unsure:
            raise self._unknown(f"{self.what}: {last}; whether this write happened is unknown") from last
        raise self._unavailable(f"{self.what}: {last} (tried {self._attempts} times)") from last

    async def back_off(self, attempt: int) -> None:
        """Wait before attempt number `attempt` + 1."""
        await self._pause(random.uniform(0, min(CAP, FIRST * 2 ** (attempt + 1))))

    def exhausted(self, name: str) -> PlatformError:
        """The error of a call that was answered in part, again and again."""
        return self._unavailable(f"{self.what}: throttled; {name} was answered only in part, again and again")

    async def _run(self, call: Callable[[], Any]) -> Mapping[str, Any]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(24, thread_name_prefix="everstep-aws")
        answer: Mapping[str, Any] = await asyncio.get_running_loop().run_in_executor(self._pool, call)
        return answer

    def _final(self, error: Exception, code: str, unsure: bool) -> PlatformError:
        if unsure:
            return self._unknown(f"{self.what}: {error}, after an attempt whose answer was lost")
        if code in _EXPIRED:
            return self._unavailable(f"{self.what}: the credentials have expired or are not valid here ({code})")
        if code == "ResourceNotFoundException":
            return self._failure(f"{self.what} does not exist in this account and region ({code})")
        if code.startswith("AccessDenied"):
            return self._failure(f"{self.what}: the policy does not allow it: {error}")
        return self._failure(f"{self.what}: {error}")

    def close(self) -> None:
        """Let go of the connections; the next call opens new ones."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)
        self._client = None


def passes(error: Exception) -> bool:
    """Whether an error of botocore's is of a trouble that may be over when the same is asked again."""
    from botocore.exceptions import ClientError

    if not isinstance(error, ClientError):
        return _lost(error)
    code, status = _code(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return code in _NOT_DONE or _transient(error, code) or status >= 500


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _transient(error: Any, code: str) -> bool:
    """A transaction that was cancelled by others' traffic alone, and by none of its conditions."""
    if code != "TransactionCanceledException":
        return False
    reasons = {reason.get("Code", "None") for reason in error.response.get("CancellationReasons", ())} - {"None"}
    return bool(reasons) and reasons <= _TRANSIENT_REASONS


def _lost(error: Exception) -> bool:
    from botocore.exceptions import ConnectionError, HTTPClientError

    return isinstance(error, HTTPClientError | ConnectionError)


def _never_sent(error: Exception) -> bool:
    from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError, ProxyConnectionError

    return isinstance(error, ConnectTimeoutError | EndpointConnectionError | ProxyConnectionError)
