"""What a recorded run took, read off its records, and what that is at list price."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .errors import NotFound
from .promise import Kind
from .rows import Row, from_row
from .views import CostReport

if TYPE_CHECKING:
    from .client import Client

_PRICES = {
    # dollars per (write unit of 1 KB, read of one record, wake-up, invocation); list prices, see docs/costs.md
    "aws": (0.625e-6, 0.125e-6, 0.40e-6, 0.20e-6),
    "gcp": (0.90e-6, 0.30e-6, 0.40e-6, 0.40e-6),
    "supabase": (0.0, 0.0, 0.0, 2.00e-6),
    "cloudflare": (1.00e-6, 0.001e-6, 1.00e-6, 0.15e-6),  # an alarm that is set is billed as a row
}


class Taken(NamedTuple):
    """What one record of a run took: how often it was written (as a failed attempt, `attempts` times of these), and how
    often its branch was read, whose rows are `branch`. A store with a `price` works its own platform's price out of it.
    """

    row: Row
    writes: int
    attempts: int
    reads: int
    branch: Sequence[Row]


async def cost(client: Client, id: str) -> CostReport:
    """What a recorded run took, read off its records: each acquisition is a query and a write, each suspension or end a
    write, each completion a write, each failed attempt one more."""
    pending, seen = [id], set[str]()
    taken: list[Taken] = []
    queries = writes = reads = wakeups = stored = units = records = 0
    while pending:
        branch = pending.pop()
        if branch in seen:
            continue
        seen.add(branch)
        rows = await client.store.branch(branch)
        for row in rows:
            size = len(row.id) + sum(
                len(text.encode()) for text in (row.param, row.value, row.tags, row.task, row.rest) if text
            )
            if row.id != branch or branch == id:
                stored += size
                records += 1
            record = from_row(row)
            of_row = 0
            if row.id == branch:
                version = record.task.version if record.task is not None else 0
                queries += version
                reads += version * len(rows)
                wakeups += version
                of_row = 1 + 2 * version if branch == id else 2 * version
            else:
                of_row = 1 + record.attempt
                if row.task is not None:
                    pending.append(row.id)
                elif record.kind == Kind.PROMISE and record.settled_at is not None:
                    of_row += 1
            own = row.id == branch
            if own or row.task is None:
                taken.append(
                    Taken(row, of_row, 0 if own else record.attempt, version if own else 0, rows if own else ())
                )
            writes += of_row
            units += of_row * max(1, -(-size // 1024))
    if not records:
        raise NotFound(f"no promise {id!r}")
    dollars = {
        platform: units * write + reads * read + wakeups * wake + queries * call
        for platform, (write, read, wake, call) in _PRICES.items()
    }
    price: Callable[[Sequence[Taken], int], dict[str, float]] | None = getattr(client.store, "price", None)
    if price is not None:
        dollars |= price(taken, wakeups)
    return CostReport({"query": queries, "write": writes}, stored, wakeups, records, dollars)
