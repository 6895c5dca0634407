"""The pull transport: messages for a worker as server-sent events, for as long as it stays (protocol: poll).

A worker that connects is given at once what was offered to it in vain before, so that tasks may be offered more and
more rarely while nobody is there. It costs three searches, and only where nobody connected could have taken them.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from everstep.client import Client
from everstep.errors import PlatformError
from everstep.ports import Query
from everstep.promise import TARGET, State, TaskState, project
from everstep.protocol import Execute
from everstep.rows import from_row

from .access import Principal
from .hub import Full, Hub
from .messages import Messenger

HEARTBEAT = 15.0
_MOST = 100


async def letters(
    client: Client, messages: Messenger, hub: Hub, group: str, id: str, principal: Principal
) -> AsyncIterator[bytes]:
    """The events of one worker's stream."""
    yield b": connected\n\n"
    await _offer_again(client, messages, hub, group, id, principal.within)
    try:
        with hub.connect(group, id, principal.may_see) as connection:
            while True:
                letter = await connection.next(HEARTBEAT)
                if letter is not None:
                    yield f"data: {letter}\n\n".encode()
                elif connection.closed:
                    return
                else:
                    yield b": still here\n\n"
    except Full:
        return


async def _offer_again(client: Client, messages: Messenger, hub: Hub, group: str, id: str, prefix: str) -> None:
    """Put what was offered in vain where the worker that comes now, for ids with this prefix, will find it."""
    now = client.clock.now()
    for address in (f"poll://any@{group}", f"poll://any@{group}/{id}", f"poll://uni@{group}/{id}"):
        if hub.reaches(address, prefix):
            continue
        query = Query(state=State.PENDING.value, tags={TARGET: address}, prefix=prefix, limit=_MOST)
        with contextlib.suppress(PlatformError):  # it is offered again without that
            for row in (await client.store.find(query)).rows:
                record = from_row(row)
                task = record.task
                if task is None or task.state is not TaskState.PENDING or not project(record, now).pending:
                    continue
                if task.offers:
                    await messages(Execute(record.id, task.version, address))
