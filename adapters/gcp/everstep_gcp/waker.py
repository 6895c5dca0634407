"""Wake-ups as tasks of a Cloud Tasks queue: one HTTP request at its instant, with a signed token.

A task can be scheduled 30 days ahead at most. One that is to come later is scheduled for then, says in a header when it
is really wanted, and is put into the queue again by whoever receives it. A task made in place of another says which: a
holder who lives on that one must not take it for somebody else's, or nothing would come at the lease's end (rule W6).
The service chooses the names, for a name of our own stays blocked for hours after its task is gone; what it chose is
the token by which the task is deleted.

Creating a task twice is harmless, a wake-up being a question and not an order, so it is repeated when the answer is
lost. The vendor's library is slow to import: it is imported by the first request.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from everstep.clock import Clock, SystemClock, to_datetime
from everstep.errors import InvalidArgument, WakerError
from everstep.ports import Wake
from everstep.wakers.message import wake_to_json

from .settings import WAKE_PATH, Settings

T = TypeVar("T")

WANTED = "x-everstep-at"
"""Header of a task: when its wake-up is wanted, in milliseconds."""
ATTEMPT = "x-everstep-attempt"
"""Header of a task: how many deliveries of the same wake-up came before it."""
KEY = "x-everstep-key"
"""Header of a task that was made in place of another: what identifies that one to a holder who lives on it."""
NAME = "x-cloudtasks-taskname"
"""Header of a delivery: the name that the service gave the task."""
RETRIES = "x-cloudtasks-taskretrycount"
"""Header of a delivery: how often this task was delivered before."""

HORIZON = 30 * 86_400_000 - 3_600_000
"""Milliseconds: an hour less than the service allows, for clocks differ."""

_TRIES = 4


class CloudTasksWaker:
    """Wake-ups of one function.

    Args:
        queue: `projects/<project>/locations/<region>/queues/<queue>`.
        url: the function's address; wake-ups go to `/wake` below it.
        account: the service account whose token a wake-up carries.
        audience: what that token is made out to; the address by default.
        deadline: seconds that the service waits for an answer, from 15 to 1800.
        host: `host:port` of a stand-in for the service.
        clock: the machine's by default.
        timeout: seconds for each request to the service.

    Raises:
        InvalidArgument: the queue or the address is not one.
    """

    by_row = False

    def __init__(
        self,
        queue: str,
        url: str,
        account: str,
        *,
        audience: str = "",
        deadline: int = 65,
        host: str = "",
        clock: Clock | None = None,
        timeout: float = 10.0,
    ) -> None:
        if queue.split("/")[::2] != ["projects", "locations", "queues"] or not url.startswith(("http://", "https://")):
            raise InvalidArgument(f"no queue {queue!r} or no address {url!r}: set EVERSTEP_QUEUE and EVERSTEP_URL")
        self.queue = queue
        self._target = url.rstrip("/") + WAKE_PATH
        self._account = account
        self._audience = audience or url.rstrip("/")
        self._deadline = deadline
        self._host = host
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._timeout = timeout
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()

    @classmethod
    def of(cls, settings: Settings, clock: Clock | None = None) -> CloudTasksWaker:
        """The waker that an environment describes. Raises InvalidArgument."""
        audience = settings.audiences[0] if settings.audiences else ""
        return cls(
            settings.queue,
            settings.url,
            settings.account,
            audience=audience,
            deadline=settings.deadline,
            host=settings.tasks,
            clock=clock,
        )

    async def arm(self, wake: Wake, at: int, *, attempt: int = 0, key: str = "") -> str | None:
        """Deliver `wake` at `at` (milliseconds); returns the task's name.

        Args:
            attempt: how many deliveries came before.
            key: of the delivery that this one stands for.

        Raises WakerError.
        """
        from google.cloud import tasks_v2

        now = self._clock.now()
        headers = {"Content-Type": "application/json"}
        if at > now + HORIZON:
            headers[WANTED] = str(at)
            at = now + HORIZON
        if attempt:
            headers[ATTEMPT] = str(attempt)
        if key:
            headers[KEY] = key
        request = tasks_v2.HttpRequest(
            url=self._target,
            http_method=tasks_v2.HttpMethod.POST,
            headers=headers,
            body=wake_to_json(wake).encode(),
        )
        if self._account:
            request.oidc_token = tasks_v2.OidcToken(service_account_email=self._account, audience=self._audience)
        later: dict[str, Any] = {"schedule_time": to_datetime(at)} if at > now else {}
        task = tasks_v2.Task(http_request=request, dispatch_deadline=timedelta(seconds=self._deadline), **later)
        made = await self._tried(lambda client, **how: client.create_task(parent=self.queue, task=task, **how))
        return str(made.name.rpartition("/")[2])

    async def disarm(self, token: str) -> None:
        """Delete the task of that name. One that is being delivered arrives nevertheless. Raises WakerError."""
        from google.api_core import exceptions as cloud

        name = f"{self.queue}/tasks/{token}"
        try:
            await self._tried(lambda client, **how: client.delete_task(name=name, **how))
        except WakerError as error:
            if not isinstance(error.__cause__, (cloud.NotFound, cloud.BadRequest)):
                raise

    async def send(self, wake: Wake) -> None:
        """Deliver `wake` now. Raises WakerError."""
        await self.arm(wake, 0)

    async def close(self) -> None:
        """Close this event loop's connection."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.transport.close()

    def _client(self) -> Any:
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            from google.auth.exceptions import GoogleAuthError
            from google.cloud.tasks_v2.services.cloud_tasks import CloudTasksAsyncClient
            from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcAsyncIOTransport

            try:
                if self._host:
                    import grpc

                    channel = grpc.aio.insecure_channel(self._host)
                    client = CloudTasksAsyncClient(transport=CloudTasksGrpcAsyncIOTransport(channel=channel))
                else:
                    client = CloudTasksAsyncClient()
            except GoogleAuthError as error:
                raise WakerError(f"{self.queue}: no credentials: {error}") from error
            self._clients[loop] = client
        return client

    async def _tried(self, call: Callable[..., Awaitable[T]]) -> T:
        """Send a request, and again where the service is in trouble. Raises WakerError from the library's error."""
        from google.api_core import exceptions as cloud
        from google.auth.exceptions import GoogleAuthError

        client = self._client()
        for attempt in range(1, _TRIES + 1):
            try:
                return await call(client, retry=None, timeout=self._timeout)
            except (cloud.ServerError, cloud.TooManyRequests, cloud.Aborted) as error:
                if attempt == _TRIES:
                    raise WakerError(f"{self.queue}: {error}") from error
                await asyncio.sleep(random.uniform(0.3, 1.0) * 0.05 * 4**attempt)
            except (cloud.GoogleAPICallError, GoogleAuthError, ValueError) as error:
                raise WakerError(f"{self.queue}: {error}") from error
        raise AssertionError("unreachable")


class NoWaker:
    """Stands where no queue is configured: enough to look at a store, and not to start anything."""

    by_row = False

    async def arm(self, wake: Wake, at: int) -> str | None:
        raise WakerError(f"{wake.id!r} needs a wake-up: set EVERSTEP_QUEUE, EVERSTEP_URL and EVERSTEP_ACCOUNT")

    async def disarm(self, token: str) -> None:
        raise WakerError("a wake-up is to be taken back: set EVERSTEP_QUEUE and EVERSTEP_URL")

    async def send(self, wake: Wake) -> None:
        await self.arm(wake, 0)


def wanted_later(headers: Mapping[str, str], now: int) -> int | None:
    """When a delivery is really wanted, where that is later than now: it is to be armed again for then. Names of
    headers are in lower case."""
    text = headers.get(WANTED, "")
    return int(text) if text.isdecimal() and int(text) > now else None


def key_of(headers: Mapping[str, str]) -> str:
    """What identifies this delivery, and every one that stands for it (rule W6). "" where nothing does."""
    return headers.get(KEY) or headers.get(NAME, "")


def attempts_of(headers: Mapping[str, str]) -> int:
    """Which delivery of its wake-up this is, from 1."""
    counts = [headers.get(name, "") for name in (ATTEMPT, RETRIES)]
    return 1 + sum(int(text) for text in counts if text.isdecimal())
