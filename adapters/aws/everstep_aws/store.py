"""Rows in one DynamoDB table. A step is one conditional write of one item.

Theory. A commit of one row is one `PutItem` whose condition is the row's rev, and the fence where that stands on the
same row; the refusal carries what stands (`ALL_OLD`). Anything else is one `TransactWriteItems`. The one fence that is
left out is the soft one of a local step, which rules P1 and P2 make safe (rule F1): checking it would quadruple the
price of a step. Deletes alone have no condition, so that a part of them is no different from a late one, and they are
written in batches at half the price.

Every item carries the stamp of its writer, so that a write whose answer was lost is known again (rule F3): a refusal by
our own stamp is a success, and one by a later rev is an unknown outcome. Reads of rows are consistent (rule W4), those
of the indexes are not.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar
from urllib.parse import parse_qsl, unquote

from everstep.errors import InvalidArgument, OutcomeUnknown, StoreError
from everstep.ids import origin_of
from everstep.ports import Commit, Due, Fence, Page, Put, Query, Refused
from everstep.rows import Row

from .calls import Answer, Caller, make_client
from .finding import Scan, due, find
from .item import LARGEST, Encoded, Item, bucket, bucket_of, decode, encode, is_row, place_of_args, size

if TYPE_CHECKING:
    from everstep.codec import Codec
    from everstep.costs import Taken
    from everstep.ports import Waker

T = TypeVar("T")

_REFUSED = frozenset({"ConditionalCheckFailedException", "TransactionCanceledException"})
_PAGE = 100
_BATCH = 25
_MOST = 100
_ANY = -1
_REMEMBERED = 10_000
_ARGS_REMEMBERED = 128

CODEC_LIMIT = 180_000
"""Bytes of stored text: a call and its result lie in one item."""


class Asked(NamedTuple):
    """A write with a condition: the rev that was to stand, and the one that was to follow."""

    id: str
    expect: int
    rev: int


class DynamoStore:
    """Rows of one table. Methods raise StoreError and nothing else.

    Args:
        table: its name; `everstep_aws.create_table` or a template makes it.
        region, endpoint: where; by default what the environment says.
        caller: how the service is called; tests give one with faults.
        options: what else a store URL said, for the waker and the codec that go with this store.
    """

    single_writer = False
    folds = False  # deleting an item costs what writing it does
    segments = 10  # with more, a run's own item would outgrow a write unit

    def __init__(
        self,
        table: str,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        caller: Caller | None = None,
        options: dict[str, str] | None = None,
    ) -> None:
        self.table = table
        self.region = region
        self.endpoint = endpoint
        self.options = options or {}
        self.call = caller or Caller(
            lambda: make_client("dynamodb", region=region, endpoint=endpoint), f"the DynamoDB table {table!r}"
        )
        self.writes = 0
        self.scan: Scan | None = None
        self._stamp = os.urandom(5).hex()
        self._days: _Recent[tuple[int, int | None]] = _Recent(_REMEMBERED)
        self._args: _Recent[str] = _Recent(_ARGS_REMEMBERED)

    def prepare(self) -> None:
        """Make ready what the first request would have to."""
        self.call.prepare()

    def waker(self) -> Waker:
        """The waker that goes with this store: SQS and Scheduler, as the URL or the environment says."""
        from .waker import open_waker

        return open_waker(self)

    def codec(self) -> Codec:
        """The codec for an App that has none: payloads above what an item holds go to S3, where a bucket is named."""
        from everstep.codec import Codec

        bucket = self.options.get("bucket") or os.environ.get("EVERSTEP_BUCKET")
        if not bucket:
            return Codec(limit=CODEC_LIMIT)
        from .blobs import S3Blobs

        return Codec(blobs=S3Blobs(bucket, region=self.region), limit=CODEC_LIMIT)

    def price(self, taken: Sequence[Taken], wakeups: int) -> dict[str, float]:
        """What a recorded run cost here, for `everstep cost`."""
        from .pricing import price

        return price(taken, wakeups)

    async def load(self, ids: Sequence[str]) -> dict[str, Row]:
        wanted = list(dict.fromkeys(ids))
        if not wanted:
            return {}
        return await self.rows(await self.items([(origin_of(id), id) for id in wanted]))

    async def branch(self, id: str) -> list[Row]:
        """The items from `id` up to what sorts after its last descendant, in one query while they fit a page of 1 MB.

        A string that begins with `id` and a character below the dot sorts among them (`root.2-x`), and so do
        descendants of a branch of their own; neither names this branch.
        """
        found = await self.query(
            KeyConditionExpression="pk = :pk AND sk BETWEEN :first AND :last",
            ExpressionAttributeValues={":pk": {"S": origin_of(id)}, ":first": {"S": id}, ":last": {"S": f"{id}/"}},
            ConsistentRead=True,
        )
        prefix = f"{id}."
        rows = await self.rows([item for item in found if not is_row(item) or item["sk"]["S"] == id or _in(item, id)])
        return [row for row in rows.values() if row.id == id or row.id.startswith(prefix)]

    async def commit(self, commit: Commit) -> Refused | None:
        origin, puts, deletes, fence, guards = commit
        if fence is not None and fence.soft:
            fence = None
        guarded = any(guard.id in deletes for guard in guards)
        if not puts and not deletes and fence is None:
            return None
        self.writes += 1
        by = f"{self._stamp}{self.writes:x}"
        encoded = [self._encode(put, origin, by) for put in puts]
        await self._write_args(puts, encoded)
        try:
            if not puts and fence is None and not guarded:
                await self._batch_delete([_key(origin, id) for id in deletes])
                return None
            if len(puts) == 1 and not deletes and (fence is None or fence.id == puts[0].row.id):
                refused = await self._put(puts[0], encoded[0].item, fence, by)
            else:
                refused = await self._transact(commit, encoded, fence, by)
        except StoreError:
            for put in puts:
                self._days.forget(put.row.id)
            raise
        if refused is None:
            for put, one in zip(puts, encoded, strict=True):
                self._days.set(put.row.id, (put.row.rev, bucket_of(one.item)))
        return refused

    async def due(self, now: int, limit: int) -> list[Due]:
        return await due(self, now, limit)

    async def find(self, query: Query) -> Page:
        return await find(self, query)

    async def delete(self, origin: str) -> int:
        """Everything but the root first: while that stands, nobody starts anew under this id (rule T1)."""
        self.writes += 1
        deleted = 0
        while True:
            keys = await self.query(
                KeyConditionExpression="pk = :pk",
                ExpressionAttributeValues={":pk": {"S": origin}},
                ExpressionAttributeNames={"#rev": "rev"},
                ProjectionExpression="pk, sk, #rev",
                ConsistentRead=True,
            )
            others = [key for key in keys if key["sk"]["S"] != origin]
            if not others:
                break
            deleted += sum(is_row(key) for key in others)
            await self._batch_delete([{"pk": key["pk"], "sk": key["sk"]} for key in others])
        if keys:
            await self._batch_delete([_key(origin, origin)])
        return deleted + len(keys)

    async def close(self) -> None:
        self.call.close()

    # What finding uses too.

    async def items(self, keys: Sequence[tuple[str, str]]) -> list[Item]:
        """The items of these keys that exist, read consistently."""
        if len(keys) == 1:
            ((origin, id),) = keys
            answer = await self.call("get_item", TableName=self.table, Key=_key(origin, id), ConsistentRead=True)
            item = answer.result.get("Item")
            return [] if item is None else [item]
        chunks = [keys[at : at + _PAGE] for at in range(0, len(keys), _PAGE)]
        return [item for chunk in await _all(*[self._batch_get(chunk) for chunk in chunks]) for item in chunk]

    async def query(self, **parameters: Any) -> list[Item]:
        """Every item of a query, page by page."""
        found: list[Item] = []
        while True:
            answer = (await self.call("query", TableName=self.table, **parameters)).result
            found += answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return found
            parameters["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def rows(self, items: Sequence[Item]) -> dict[str, Row]:
        """The rows among these items, with their arguments."""
        for item in items:
            if not is_row(item):
                self._args.set(item["sk"]["S"], item["param"]["S"])
        places = {item["sk"]["S"]: place for item in items if (place := place_of_args(item)) is not None}
        here = {place: self._args.get(place) for place in places.values()}
        here |= {item["sk"]["S"]: item["param"]["S"] for item in items if not is_row(item)}
        missing = [place for place, args in here.items() if args is None]
        if missing:
            for item in await self.items([(origin_of(place.partition("\0")[0]), place) for place in missing]):
                here[item["sk"]["S"]] = item["param"]["S"]
                self._args.set(item["sk"]["S"], item["param"]["S"])
        rows: dict[str, Row] = {}
        for item in items:
            if is_row(item):
                id = item["sk"]["S"]
                row = rows[id] = decode(item, here[places[id]] if id in places else None)
                self._days.set(id, (row.rev, bucket_of(item)))
        return rows

    # Writing.

    def _encode(self, put: Put, origin: str, by: str) -> Encoded:
        row, expect = put
        known = self._days.get(row.id)
        day = bucket(row, known[1] if known is not None and known[0] == expect else None)
        try:
            encoded = encode(row, origin, by, day)
            length = size(encoded.item)
        except UnicodeEncodeError as error:
            raise StoreError(f"{self.call.what}: cannot write {row.id!r}: {error}") from error
        if length > LARGEST:
            raise StoreError(
                f"{self.call.what}: the record of {row.id!r} has {length} bytes, and an item holds {LARGEST}; "
                "name a bucket (EVERSTEP_BUCKET) for large payloads"
            )
        return encoded

    async def _write_args(self, puts: Sequence[Put], encoded: Sequence[Encoded]) -> None:
        """Before the rows that refer to them: what nothing refers to costs space, and nothing else.

        With a new row they are always written, for a tree of that id may have been deleted since they were last seen.
        """
        new = [
            one.apart
            for put, one in zip(puts, encoded, strict=True)
            if one.apart is not None and (put.expect == 0 or self._args.get(one.apart["sk"]["S"]) is None)
        ]
        await _all(*[self.call("put_item", TableName=self.table, Item=item) for item in new])
        for item in new:
            self._args.set(item["sk"]["S"], item["param"]["S"])

    async def _put(self, put: Put, item: Item, fence: Fence | None, by: str) -> Refused | None:
        answer = await self.call(
            "put_item",
            writes=True,
            expected=_REFUSED,
            TableName=self.table,
            Item=item,
            **_condition(put.expect, fence),
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
        if not answer.error:
            return None
        stood = answer.result.get("Item")
        asked = Asked(put.row.id, put.expect, put.row.rev)
        return await self._refusal([(asked, stood)], fence is not None and _lease(stood) != fence.version, answer, by)

    async def _transact(
        self, commit: Commit, encoded: Sequence[Encoded], fence: Fence | None, by: str
    ) -> Refused | None:
        """The rows first, then what is deleted, then the fence where it stands on a row of its own."""
        told = {"TableName": self.table, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
        actions: list[dict[str, Any]] = []
        fence_at = -1

        def fence_of(id: str) -> Fence | None:
            nonlocal fence_at
            if fence is None or fence.id != id:
                return None
            fence_at = len(actions)
            return fence

        for put, one in zip(commit.puts, encoded, strict=True):
            condition = _condition(put.expect, fence_of(put.row.id))
            actions.append({"Put": {**told, "Item": one.item, **condition}})
        revs = {guard.id: guard.rev for guard in commit.guards}
        for id in commit.deletes:
            held, rev = fence_of(id), revs.get(id)
            condition = {**told, **_condition(rev, held)} if held or rev is not None else {"TableName": self.table}
            actions.append({"Delete": {**condition, "Key": _key(commit.origin, id)}})
        if fence is not None and fence_at < 0:
            fence_at = len(actions)
            condition = _condition(None, fence)
            actions.append({"ConditionCheck": {**told, "Key": _key(origin_of(fence.id), fence.id), **condition}})
        if len(actions) > _MOST:
            raise StoreError(f"{self.call.what}: {len(actions)} records in a commit, and a transaction holds {_MOST}")
        answer = await self.call(
            "transact_write_items",
            writes=True,
            expected=_REFUSED,
            TransactItems=actions,
            ClientRequestToken=f"{by:0>32}",
        )
        if not answer.error:
            return None
        reasons = answer.result.get("CancellationReasons", [])
        failed = [reason.get("Code") == "ConditionalCheckFailed" for reason in reasons]
        if len(reasons) != len(actions) or not any(failed):
            raise StoreError(f"{self.call.what}: {answer.result.get('Error', {}).get('Message', reasons)}")
        stood = [reason.get("Item") for reason in reasons]
        written = [Asked(put.row.id, put.expect, put.row.rev) for put in commit.puts]
        written += [Asked(id, revs.get(id, _ANY), _ANY) for id in commit.deletes]
        asked = [
            (one, item) for one, item, no in zip(written, stood, failed, strict=False) if no and one.expect != _ANY
        ]
        fenced = fence is not None and failed[fence_at] and _lease(stood[fence_at]) != fence.version
        return await self._refusal(asked, fenced, answer, by)

    async def _refusal(
        self, asked: Sequence[tuple[Asked, Item | None]], fenced: bool, answer: Answer, by: str
    ) -> Refused | None:
        """What stood in the way; None where that is what an earlier attempt of this very commit wrote (rule F3)."""
        if answer.unsure:
            for one, item in asked:
                if item is not None and item["by"]["S"] == by:
                    return None
                if one.expect if item is None else int(item["rev"]["N"]) > one.rev:
                    raise OutcomeUnknown(f"{self.call.what}: {one.id!r} moved on after a write got no answer")
        rows = await self.rows([item for _, item in asked if item is not None])
        found = {one.id: rows.get(one.id) for one, _ in asked}
        revs = {id: 0 if row is None else row.rev for id, row in found.items()}
        return Refused(fenced, {one.id: found[one.id] for one, _ in asked if revs[one.id] != one.expect})

    async def _batch_get(self, keys: Sequence[tuple[str, str]]) -> list[Item]:
        found: list[Item] = []
        left: dict[str, Any] = {
            self.table: {
                "Keys": [_key(origin, id) for origin, id in keys],
                "ConsistentRead": True,
            }
        }
        for attempt in range(8):
            answer = (await self.call("batch_get_item", RequestItems=left)).result
            found += answer["Responses"].get(self.table, [])
            left = answer.get("UnprocessedKeys", {})
            if not left:
                return found
            await self.call.back_off(attempt)
        raise self.call.exhausted("batch_get_item")

    async def _batch_delete(self, keys: Sequence[Item]) -> None:
        for at in range(0, len(keys), _BATCH):
            left: dict[str, Any] = {self.table: [{"DeleteRequest": {"Key": key}} for key in keys[at : at + _BATCH]]}
            for attempt in range(8):
                left = (await self.call("batch_write_item", RequestItems=left)).result.get("UnprocessedItems", {})
                if not left:
                    break
                await self.call.back_off(attempt)
            else:
                raise self.call.exhausted("batch_write_item")


def open_store(url: str) -> DynamoStore:
    """The store of `dynamodb://table?region=&endpoint=`.

    `queue=`, `role=`, `group=` and `bucket=` are for its waker and its codec, and stand for EVERSTEP_QUEUE,
    EVERSTEP_SCHEDULER_ROLE, EVERSTEP_SCHEDULE_GROUP and EVERSTEP_BUCKET.

    Raises InvalidArgument.
    """
    location, _, query = url.partition("?")
    table = unquote(location.removeprefix("dynamodb://"))
    if not location.startswith("dynamodb://") or not table or "/" in table:
        raise InvalidArgument(f"{url!r} names no table; write dynamodb://table?region=eu-central-1")
    options = dict(parse_qsl(query, keep_blank_values=True))
    known = ("region", "endpoint", "queue", "role", "group", "bucket")
    for name in options:
        if name not in known:
            raise InvalidArgument(f"{url!r}: {name!r} is not an option; there are {', '.join(known)}")
    region, endpoint = options.pop("region", None), options.pop("endpoint", None)
    return DynamoStore(table, region=region or None, endpoint=endpoint or None, options=options)


def _condition(expect: int | None, fence: Fence | None) -> dict[str, Any]:
    """The condition of a write: the rev that must stand (None: any), and the lease."""
    terms: list[str] = []
    values: Item = {}
    if expect == 0:
        terms.append("attribute_not_exists(sk)")
    elif expect is not None:
        terms.append("rev = :rev")
        values[":rev"] = {"N": str(expect)}
    if fence is not None:
        terms.append("lease = :lease")
        values[":lease"] = {"N": str(fence.version)}
    condition: dict[str, Any] = {"ConditionExpression": " AND ".join(terms)}
    return {**condition, "ExpressionAttributeValues": values} if values else condition


def _key(origin: str, id: str) -> Item:
    return {"pk": {"S": origin}, "sk": {"S": id}}


def _in(item: Item, branch: str) -> bool:
    return bool(item["branch"]["S"] == branch)


def _lease(item: Item | None) -> int | None:
    lease = None if item is None else item.get("lease")
    return None if lease is None else int(lease["N"])


async def _all(*work: Any) -> list[Any]:
    """Wait for all, then raise the first failure, if any: nothing is left under way."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


class _Recent(Generic[T]):
    """What was remembered last, by key."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[str, T] = {}

    def get(self, key: str) -> T | None:
        return self._held.get(key)

    def set(self, key: str, value: T) -> None:
        self._held.pop(key, None)
        self._held[key] = value
        if len(self._held) > self._most:
            del self._held[next(iter(self._held))]

    def forget(self, key: str) -> None:
        self._held.pop(key, None)
