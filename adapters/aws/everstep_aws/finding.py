"""Searches. A table has no order across its partitions, so each search takes the cheapest way there is:

    a prefix with a dot       the items of one partition, in order
    roots settled before      the days up to that one in the index `due`
    roots, schedules          the index `roots`, whose shards are in order of ids and are merged
    anything else             a scan of the table, kept for the pages that follow

The indexes hold keys alone and lag behind, so what they name is read and judged again.
"""

from __future__ import annotations

import asyncio
import heapq
import json
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from everstep.ids import origin_of
from everstep.ports import Due, Page, Query
from everstep.promise import Kind
from everstep.rows import Row

from .item import DAY, SHARDS, is_row

if TYPE_CHECKING:
    from .store import DynamoStore

_LAST = "\U0010ffff"
_CHUNK = 100


class Scan(NamedTuple):
    """The ids a scan found, in order, and after how many writes of this store it was made."""

    query: Query
    ids: list[str]
    writes: int


async def due(store: DynamoStore, now: int, limit: int) -> list[Due]:
    """Rows with `due <= now`, oldest first."""
    ids = await _by_day(store, "pending", now // DAY)
    rows = await _read(store, ids)
    found = sorted((row.due, row.id) for row in rows if row.due is not None and row.due <= now)
    return [Due(id, at) for at, id in found[:limit]]


async def find(store: DynamoStore, query: Query) -> Page:
    """Search, in the order of ids."""
    found: list[Row] = []
    chunk: list[str] = []
    async for id in _candidates(store, query):
        if not _within(id, query):
            continue
        chunk.append(id)
        if len(chunk) == min(_CHUNK, query.limit + 1):
            found += [row for row in await _read(store, chunk) if _matches(row, query)]
            chunk = []
            if len(found) > query.limit:
                break
    if chunk and len(found) <= query.limit:
        found += [row for row in await _read(store, chunk) if _matches(row, query)]
    page = found[: query.limit]
    return Page(page, page[-1].id if len(found) > query.limit else None)


async def _candidates(store: DynamoStore, query: Query) -> AsyncIterator[str]:
    """Ids that may match, in order."""
    ways = [f"root#{shard}" for shard in range(SHARDS)] if query.roots else []
    if query.kinds == (Kind.SCHEDULE,):
        ways = [Kind.SCHEDULE]
    elif query.roots and Kind.SCHEDULE in query.kinds:
        ways.append(Kind.SCHEDULE)
    if "." in query.prefix:
        for item in await _partition(store, query):
            yield item
    elif query.roots and query.settled_before is not None and Kind.SCHEDULE not in query.kinds:
        day = (query.settled_before - 1) // DAY
        settled, pending = await asyncio.gather(_by_day(store, "settled", day), _by_day(store, "pending", day))
        for id in sorted({*settled, *pending}):
            yield id
    elif ways:
        shards = [_shard(store, way, query) for way in ways]
        async for id in _merge(shards):
            yield id
    else:
        for id in await _scanned(store, query):
            yield id


async def _partition(store: DynamoStore, query: Query) -> list[str]:
    items = await store.query(
        KeyConditionExpression="pk = :pk AND begins_with(sk, :prefix)",
        ExpressionAttributeValues={":pk": {"S": origin_of(query.prefix)}, ":prefix": {"S": query.prefix}},
        ExpressionAttributeNames={"#rev": "rev"},
        ProjectionExpression="sk, #rev",
    )
    return [item["sk"]["S"] for item in items if is_row(item)]


async def _by_day(store: DynamoStore, state: str, day: int) -> list[str]:
    """Ids of an index's days up to one, over all shards."""
    found = await asyncio.gather(
        *[
            store.query(
                IndexName="due",
                KeyConditionExpression="gs = :gs AND gb <= :gb",
                ExpressionAttributeValues={":gs": {"S": f"{state}#{shard}"}, ":gb": {"N": str(day)}},
                ProjectionExpression="sk",
            )
            for shard in range(SHARDS)
        ]
    )
    return [item["sk"]["S"] for items in found for item in items]


async def _shard(store: DynamoStore, way: str, query: Query) -> AsyncIterator[str]:
    """The ids of one shard of the roots, from the cursor on, page by page as they are asked for."""
    first = max(query.prefix, query.cursor or "")
    reach = "sk BETWEEN :first AND :last" if query.prefix else "sk >= :first"
    parameters: dict[str, Any] = {
        "IndexName": "roots",
        "KeyConditionExpression": f"gr = :gr AND {reach}",
        "ExpressionAttributeValues": {":gr": {"S": way}, ":first": {"S": first or "\0"}},
        "ProjectionExpression": "sk",
        "Limit": max(query.limit + 2, 50),
    }
    if query.prefix:
        last = query.prefix + _LAST * ((1024 - len(query.prefix.encode())) // 4)
        if first > last:
            return
        parameters["ExpressionAttributeValues"][":last"] = {"S": last}
    while True:
        answer = (await store.call("query", TableName=store.table, **parameters)).result
        for item in answer["Items"]:
            yield item["sk"]["S"]
        if "LastEvaluatedKey" not in answer:
            return
        parameters["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


async def _merge(shards: Sequence[AsyncIterator[str]]) -> AsyncIterator[str]:
    """Sorted iterators as one; each is asked for its first id at the same time."""
    firsts = await asyncio.gather(*[anext(shard, None) for shard in shards])
    heap = [(id, at) for at, id in enumerate(firsts) if id is not None]
    heapq.heapify(heap)
    while heap:
        id, at = heap[0]
        yield id
        following = await anext(shards[at], None)
        if following is None:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (following, at))


async def _scanned(store: DynamoStore, query: Query) -> list[str]:
    """Every id of the table in order. A page after the first takes what the scan for the first found, while this store
    has not written since."""
    asked = query._replace(cursor=None, limit=0)
    kept = store.scan
    if query.cursor is not None and kept is not None and kept.query == asked and kept.writes == store.writes:
        return kept.ids
    parameters: dict[str, Any] = {"ExpressionAttributeNames": {"#rev": "rev"}, "ProjectionExpression": "sk"}
    terms = ["attribute_exists(#rev)"]
    if query.state is not None:
        terms.append("#state = :state")
        parameters["ExpressionAttributeNames"]["#state"] = "state"
        parameters["ExpressionAttributeValues"] = {":state": {"S": query.state}}
    parameters["FilterExpression"] = " AND ".join(terms)
    writes = store.writes
    ids: list[str] = []
    while True:
        answer = (await store.call("scan", TableName=store.table, **parameters)).result
        ids += [item["sk"]["S"] for item in answer["Items"]]
        if "LastEvaluatedKey" not in answer:
            break
        parameters["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
    ids.sort()
    store.scan = Scan(asked, ids, writes)
    return ids


async def _read(store: DynamoStore, ids: Sequence[str]) -> list[Row]:
    rows = await store.load(ids)
    return [rows[id] for id in ids if id in rows]


def _within(id: str, query: Query) -> bool:
    return (
        (query.cursor is None or id > query.cursor) and id.startswith(query.prefix) and not (query.roots and "." in id)
    )


def _matches(row: Row, query: Query) -> bool:
    if query.state is not None and row.state != query.state:
        return False
    if row.kind not in query.kinds if query.kinds else row.kind == Kind.SCHEDULE:
        return False
    if query.settled_before is not None and (row.settled_at is None or row.settled_at >= query.settled_before):
        return False
    if not query.tags:
        return True
    tags = json.loads(row.tags) if row.tags is not None else {}
    return all(tags.get(name) == value for name, value in query.tags.items())
