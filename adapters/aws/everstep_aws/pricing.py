"""What a recorded run took on AWS, in DynamoDB's units, and what they cost: `everstep cost` on a table (rule B5).

List prices of us-east-1, on demand. The units are worked out from the sizes of the items as they stand, indexes and
transactions included; Lambda's time and storage are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from everstep.ids import origin_of
from everstep.promise import Kind, State
from everstep.rows import Row

from .item import encode, size, units

if TYPE_CHECKING:
    from everstep.costs import Taken

WRITE_UNIT = 0.625e-6
READ_UNIT = 0.125e-6
SQS_REQUEST = 0.40e-6
INVOCATION = 0.20e-6

_STAMP = "0123456789ab"
_MESSAGE = 3
"""Requests of a wake-up: it is sent, received and deleted."""


class Units(NamedTuple):
    write: int
    read: int


def units_of(taken: Sequence[Taken]) -> Units:
    """Write and read units of a run."""
    written = read = 0
    for one in taken:
        row = one.row
        each = units(_size(row))
        written += one.writes * each + _index(row)
        if row.task is not None and "." in row.id:
            written += 2 * each  # created by a transaction of its parent, before its own acquisitions and its end
        elif row.kind == Kind.PROMISE:
            written += each
        written += one.attempts * (each + 2)  # a transaction with the check of the lease
        if one.reads:
            read += one.reads * max(1, -(-sum(map(_size, one.branch)) // 4096))
    return Units(written, read)


def price(taken: Sequence[Taken], wakeups: int) -> dict[str, float]:
    """Dollars of a run, under the name of the platform."""
    write, read = units_of(taken)
    messages = wakeups * (_MESSAGE * SQS_REQUEST + INVOCATION)
    return {"aws": write * WRITE_UNIT + read * READ_UNIT + messages}


def _size(row: Row) -> int:
    return size(encode(row, origin_of(row.id), _STAMP, None).item)


def _index(row: Row) -> int:
    """Units of index entries: a run's appears with it, moves or goes when it ends, and a root has one more."""
    if row.task is None:
        return 0
    ended = row.state != State.PENDING.value
    if "." in row.id:
        return 1 + ended
    return 2 + 2 * ended
