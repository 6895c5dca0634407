"""Several Apps on one store, each a function of its own: a task goes to the function of the App it is addressed to.

Whoever creates a task, or settles what it waits for, arms its wake-up with the waker at hand, which calls the own
function. That one finds the task addressed to another App and hands the wake-up on, and only then acknowledges its own:
the obligation moves, and nothing of it is written. Where all Apps read the same due rows nothing of this is needed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from .errors import InvalidArgument
from .ports import Wake, Waker
from .promise import group_of

log = logging.getLogger("everstep")
_SCHEME = "everstep://"


class Peers:
    """Hands wake-ups on to the functions of other Apps.

    Args:
        wakers: what calls the function of each App, by the App's name.
    """

    def __init__(self, wakers: Mapping[str, Waker]) -> None:
        self._wakers = dict(wakers)

    async def hand_on(self, wake: Wake, target: str) -> bool:
        """Wake the function of the App that a task is addressed to; False, and told to the log, where it is not known.

        Raises:
            WakerError: it cannot be reached now.
        """
        name = group_of(target)[len(_SCHEME) :]
        waker = self._wakers.get(name)
        if waker is not None:
            await waker.send(wake)
            return True
        known = ", ".join(map(repr, sorted(self._wakers))) or "none"
        log.error(
            "%s waits for the App %r, whose function is not known here (known: %s). Name it in EVERSTEP_PEERS, or as "
            "peers= of the handler",
            wake.id, name, known, extra={"everstep_id": wake.id},
        )  # fmt: skip
        return False


def read_peers(text: str) -> dict[str, str]:
    """`name=address,name=address`, as EVERSTEP_PEERS has it. Raises InvalidArgument, quoting the part that is wrong."""
    peers: dict[str, str] = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        name, sign, address = (side.strip() for side in part.partition("="))
        if not (name and sign and address):
            raise InvalidArgument(f"EVERSTEP_PEERS: {part!r} is not name=address")
        if name in peers:
            raise InvalidArgument(f"EVERSTEP_PEERS names {name!r} twice")
        peers[name] = address
    return peers
