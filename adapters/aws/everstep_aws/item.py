"""Rows as items of one table, and what writing them costs.

Partition key `pk` = origin, sort key `sk` = id, every other cell under its own name and absent where it is None. Beside
the cells an item carries `by`, the stamp of whoever wrote it (rule F3), and the keys of two sparse, keys-only indexes:

    due    gs = pending#shard, gb = day   while somebody must look at the row, or a task is unfinished
           gs = settled#shard, gb = day   a settled root, by the day it was settled
    roots  gr = root#shard                a root, from its creation to its deletion; `schedule` for schedules

An index entry is written only when its key changes, so what changes often must not be in it (rule B2). `gb` is a lower
bound: a due instant that moves later keeps the day it had while that lies no more than a day back, and one that
vanishes keeps it too, so that a run that is leased, due and suspended by turns costs nothing here.

A run's arguments do not change, and its record is written twice an iteration: above 600 bytes they are an item of their
own, `sk` = id, NUL, digest. No id has a NUL, and the item lies within the range of its branch.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Any, NamedTuple
from zlib import crc32

from everstep.promise import Kind, State
from everstep.rows import Row

Item = dict[str, Any]
"""An item in the wire's form: every value under its type."""

DAY = 86_400_000
SHARDS = 8
APART = 600
"""Bytes of arguments that a run's own item carries; more go into an item apart."""
LARGEST = 400 * 1024
"""Bytes of an item, names included: DynamoDB's limit."""

_NUMBERS = ("rev", "due", "lease", "epoch", "n", "timeout_at", "created_at", "settled_at")
_CELLS = tuple((name, "N" if name in _NUMBERS else "S") for name in Row._fields[1:])
_PENDING = State.PENDING.value


class Encoded(NamedTuple):
    """An item, and the item that holds its arguments where they lie apart."""

    item: Item
    apart: Item | None


def shard_of(origin: str) -> int:
    """Spreads origins over the partitions of an index."""
    return crc32(origin.encode("utf-8", "surrogatepass")) % SHARDS


def is_row(item: Item) -> bool:
    """Whether an item is a row, rather than the arguments of one."""
    return "rev" in item


def encode(row: Row, origin: str, by: str, day: int | None) -> Encoded:
    """The item of a row; `day` is what `bucket` gave for it."""
    item: Item = {"pk": {"S": origin}, "sk": {"S": row.id}}
    for (name, type_), cell in zip(_CELLS, row[1:], strict=True):
        if cell is not None:
            item[name] = {type_: str(cell)}
    apart = None
    if row.task is not None and row.param is not None and len(row.param) * 4 > APART:
        raw = row.param.encode()
        if len(raw) > APART:
            digest = urlsafe_b64encode(sha256(raw).digest()[:16]).decode()[:22]
            apart = {"pk": {"S": origin}, "sk": {"S": f"{row.id}\0{digest}"}, "param": item.pop("param")}
            item["args"] = {"S": digest}
    item["by"] = {"S": by}
    root = "." not in row.id
    if day is not None:
        item["gs"], item["gb"] = {"S": f"pending#{shard_of(origin)}"}, {"N": str(day)}
    elif root and row.state != _PENDING and row.settled_at is not None:
        item["gs"], item["gb"] = {"S": f"settled#{shard_of(origin)}"}, {"N": str(row.settled_at // DAY)}
    if row.kind == Kind.SCHEDULE:
        item["gr"] = {"S": Kind.SCHEDULE}
    elif root:
        item["gr"] = {"S": f"root#{shard_of(origin)}"}
    return Encoded(item, apart)


def bucket(row: Row, known: int | None) -> int | None:
    """The day under which a row is found while it is due or a task is unfinished; `known` is the one it has now."""
    if row.due is None:
        return known if row.state == _PENDING and row.task is not None else None
    day = row.due // DAY
    return known if known is not None and day - 1 <= known <= day else day


def bucket_of(item: Item) -> int | None:
    """The day under which a stored item is found."""
    return int(item["gb"]["N"]) if item.get("gs", {}).get("S", "").startswith("pending") else None


def place_of_args(item: Item) -> str | None:
    """The sort key of the item that holds this row's arguments, where they lie apart."""
    args = item.get("args")
    return None if args is None else f"{item['sk']['S']}\0{args['S']}"


def decode(item: Item, args: str | None = None) -> Row:
    """The row an item holds; `args` are its arguments where they lie apart."""
    cells: list[Any] = [item["sk"]["S"]]
    for name, type_ in _CELLS:
        value = item.get(name)
        cells.append(None if value is None else int(value["N"]) if type_ == "N" else value["S"])
    row = Row._make(cells)
    return row if args is None else row._replace(param=args)


def size(item: Item) -> int:
    """Bytes of an item as DynamoDB counts them: names and values."""
    return sum(
        len(name) + (len(value["S"].encode()) if "S" in value else _number_size(value["N"]))
        for name, value in item.items()
    )


def _number_size(text: str) -> int:
    """A number takes a byte, one more for each pair of digits up to its trailing zeros, and one for a sign."""
    digits = text.lstrip("-")
    digits = "0" * (len(digits) % 2) + digits
    while digits.endswith("00"):
        digits = digits[:-2]
    return 1 + len(digits) // 2 + (text[0] == "-")


def units(size: int) -> int:
    """Write units of an item of that many bytes, written alone; in a transaction it is twice as many (rule B5)."""
    return max(1, -(-size // 1024))
