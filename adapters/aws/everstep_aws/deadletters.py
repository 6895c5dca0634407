"""The consumer of the dead-letter queue. No user code is imported with it: an import error is what it is there for."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from everstep.driver import Retry
from everstep.errors import InvalidArgument, PlatformError
from everstep.registry import App
from everstep.wakers.message import wake_from_json

from .events import read
from .function import Function, key_of

if TYPE_CHECKING:
    from everstep.client import Client

log = logging.getLogger("everstep_aws")


class DeadLetters(Function):
    """Halts the runs of wake-ups that were delivered in vain, with the reason (rule W9).

    `everstep continue` sets one going again, once the cause is mended.
    """

    def __init__(self, client: Client | None = None) -> None:
        super().__init__(App("everstep-dead-letters"), client=client)

    async def answer(self, event: Any, context: Any) -> Any:
        host, batch = self.host(context), read(event)
        failed = []
        for item in batch.items if batch is not None else ():
            data = item.event.data
            try:
                wake = wake_from_json(data if isinstance(data, str) else json.dumps(data))
            except InvalidArgument as error:
                log.error("a dead letter that is no wake-up, and is dropped: %s: %r", error, data)
                continue
            reason = (
                f"the queue gave up on its wake-up (message {item.event.id}): the function died each time, or could "
                "not be started; see its log"
            )
            log.error("halting %s: %s", wake.id, reason)
            try:
                answer = await host.exhausted(wake, reason, key_of(item.event))
            except PlatformError as error:
                log.warning("comes again: %s", error)
                failed.append({"itemIdentifier": item.failure})
                continue
            if isinstance(answer, Retry):
                failed.append({"itemIdentifier": item.failure})
        return {"batchItemFailures": failed}


def dead_letters(event: Any, context: Any) -> Any:
    """The Lambda handler `everstep_aws.dead_letters`, for the dead-letter queue of the wake-up queue."""
    global _dead_letters
    if _dead_letters is None:
        _dead_letters = DeadLetters()
    return _dead_letters(event, context)


_dead_letters: DeadLetters | None = None
