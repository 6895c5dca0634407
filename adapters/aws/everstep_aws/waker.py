"""Wake-ups: an SQS message with a delay up to 15 minutes, a one-time EventBridge Scheduler schedule beyond.

Theory. A schedule fires within the minute it names, and perhaps a while later; so it aims a minute and a half early and
puts its message into the queue, and whoever gets it too early sends another one with the delay that is left: the driver
answers `Retry(at)` for a message before its time, and the handler turns that into `again`. What neither reaches hops:
a schedule lies at most a year ahead, and the delivery it makes arms the next one. A message that is sent again is a new
one that says how often it came, so that the queue's own count of receives counts deaths alone (rule W9), and which
message it stands for: whoever lives on that one must not be taken for somebody else, or nothing would come at his
lease's end (rule W6).

Armed is durable: SQS and Scheduler have it when they answer. A message cannot be taken back, and costs less to be let
come; a schedule can, by its name, which is the token. A name is used once (deleted schedules and their successors are
told apart), and `DELETE` after completion leaves nothing behind.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from everstep.clock import Clock, SystemClock
from everstep.errors import WakerError
from everstep.ports import Wake
from everstep.wakers.message import wake_to_json

from .calls import Caller, make_client

if TYPE_CHECKING:
    from .store import DynamoStore

LONGEST_DELAY = 900
"""Seconds: the longest delay of an SQS message."""
EARLY = 90
"""Seconds by which a schedule aims early: it is precise to the minute."""
FARTHEST = 365 * 86_400
"""Seconds: how far ahead a schedule is set; what lies beyond hops."""

_CONFLICT = frozenset({"ConflictException"})
_GONE = frozenset({"ResourceNotFoundException"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class SqsWaker:
    """Wake-ups through one queue, and schedules of one group that put messages into it.

    Args:
        queue: the URL of a standard queue whose messages invoke the function.
        role: the ARN of the role under which Scheduler sends to the queue; without one, nothing is scheduled and a
            wake-up beyond 15 minutes hops from message to message.
        group: of the schedules.
        queue_arn: by default worked out from the URL.
    """

    by_row = False

    def __init__(
        self,
        queue: str,
        *,
        role: str | None = None,
        group: str = "default",
        queue_arn: str | None = None,
        region: str | None = None,
        clock: Clock | None = None,
        sqs: Caller | None = None,
        scheduler: Caller | None = None,
    ) -> None:
        self.queue = queue
        self.role = role
        self.group = group
        self._arn = queue_arn
        self._region = region
        self._clock = clock if clock is not None else SystemClock()
        self._stamp = os.urandom(6).hex()
        self._count = 0
        self._sqs = sqs or _caller("sqs", f"the SQS queue {queue!r}", region)
        self._scheduler = scheduler or _caller("scheduler", f"the schedule group {group!r}", region)

    def prepare(self) -> None:
        """Make ready what the first message would have to."""
        self._sqs.prepare()

    async def arm(self, wake: Wake, at: int) -> str | None:
        """Deliver `wake` at `at` (milliseconds); returns the name of a schedule, or None for a message.

        Raises WakerError.
        """
        seconds = self._seconds_until(at)
        if seconds <= LONGEST_DELAY or self.role is None:
            await self._message(wake, min(seconds, LONGEST_DELAY))
            return None
        return await self._schedule(wake, at, seconds)

    async def disarm(self, token: str) -> None:
        """Delete a schedule; one that has fired is gone, and a message is not taken back. Raises WakerError."""
        await self._scheduler("delete_schedule", expected=_GONE, Name=token, GroupName=self.group)

    async def send(self, wake: Wake) -> None:
        """Deliver now. Raises WakerError."""
        await self._message(wake, 0)

    async def again(self, wake: Wake, at: int, attempt: int, key: str = "", lease: int = 0) -> None:
        """A delivery that is to come once more at `at` (milliseconds), as its delivery number `attempt`.

        Args:
            key: identifies the message to those who live on it, and the one that is sent in its place.
            lease: what lies within so many milliseconds may stand for the end of a lease, and must bear the key: a
                schedule cannot, so that it hops.

        Raises WakerError.
        """
        seconds = self._seconds_until(at)
        if seconds <= max(LONGEST_DELAY, lease // 1000) or self.role is None:
            await self._message(wake, min(seconds, LONGEST_DELAY), {"attempt": str(attempt), "key": key})
        else:
            await self._schedule(wake, at, seconds)

    async def close(self) -> None:
        self._sqs.close()
        self._scheduler.close()

    def _seconds_until(self, at: int) -> int:
        return max(0, -(-(at - self._clock.now()) // 1000))

    async def _message(self, wake: Wake, delay: int, attributes: Mapping[str, str] | None = None) -> None:
        await self._sqs(
            "send_message",
            QueueUrl=self.queue,
            MessageBody=wake_to_json(wake),
            DelaySeconds=delay,
            MessageAttributes={
                name: {"DataType": "String", "StringValue": value}
                for name, value in (attributes or {}).items()
                if value
            },
        )

    async def _schedule(self, wake: Wake, at: int, seconds: int) -> str:
        self._count += 1
        digest = sha256(f"{wake.id}\0{wake.version}".encode("utf-8", "surrogatepass")).hexdigest()[:24]
        name = f"everstep-{digest}-{self._stamp}-{self._count}"
        early = min(seconds - EARLY, FARTHEST)
        moment = _EPOCH + timedelta(milliseconds=self._clock.now()) + timedelta(seconds=early)
        answer = await self._scheduler(
            "create_schedule",
            writes=True,
            expected=_CONFLICT,
            Name=name,
            GroupName=self.group,
            ScheduleExpression=f"at({moment:%Y-%m-%dT%H:%M:%S})",
            ScheduleExpressionTimezone="UTC",
            FlexibleTimeWindow={"Mode": "OFF"},
            ActionAfterCompletion="DELETE",
            Target={"Arn": self._queue_arn(), "RoleArn": self.role, "Input": wake_to_json(wake)},
        )
        if answer.error and not answer.unsure:
            raise WakerError(f"{self._scheduler.what}: the name {name!r} is taken")
        return name

    def _queue_arn(self) -> str:
        """From `https://sqs.<region>.amazonaws.com/<account>/<name>`."""
        if self._arn is None:
            host, _, rest = self.queue.partition("://")[2].partition("/")
            account, _, name = rest.rpartition("/")
            parts = host.split(".")
            region = parts[1] if parts[0] == "sqs" and len(parts) > 2 else self._region or _region_of(os.environ)
            partition = "aws-cn" if region.startswith("cn-") else "aws-us-gov" if region.startswith("us-gov") else "aws"
            self._arn = f"arn:{partition}:sqs:{region}:{account.rpartition('/')[2]}:{name}"
        return self._arn


class NoWaker:
    """Stands where no queue is named: reading needs none, and whatever must wake something is refused by name."""

    by_row = False

    async def arm(self, wake: Wake, at: int) -> str | None:
        raise WakerError(_NO_QUEUE)

    async def disarm(self, token: str) -> None:
        """Nothing was ever armed here."""

    async def send(self, wake: Wake) -> None:
        raise WakerError(_NO_QUEUE)


_NO_QUEUE = (
    "no queue is named: set EVERSTEP_QUEUE to the URL of the stack's queue, or add ?queue= to the store's URL "
    "(percent-encoded)"
)


def open_waker(store: DynamoStore, environ: Mapping[str, str] = os.environ) -> SqsWaker | NoWaker:
    """The waker beside a store: `queue`, `role` and `group` of its URL, else of the environment EVERSTEP_QUEUE,
    EVERSTEP_SCHEDULER_ROLE and EVERSTEP_SCHEDULE_GROUP."""

    def setting(option: str, variable: str) -> str | None:
        return store.options.get(option) or environ.get(variable) or None

    queue = setting("queue", "EVERSTEP_QUEUE")
    if queue is None:
        return NoWaker()
    return SqsWaker(
        queue,
        role=setting("role", "EVERSTEP_SCHEDULER_ROLE"),
        group=setting("group", "EVERSTEP_SCHEDULE_GROUP") or "default",
        region=store.region,
    )


def _region_of(environ: Mapping[str, str]) -> str:
    return environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def _caller(service: str, what: str, region: str | None) -> Caller:
    errors: dict[str, Any] = {"failure": WakerError, "unavailable": WakerError, "unknown": WakerError}
    return Caller(lambda: make_client(service, region=region), what, **errors)
