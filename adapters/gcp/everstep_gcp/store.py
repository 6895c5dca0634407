"""Rows in Firestore: one document a row, one atomic batch a commit, no transaction that holds a lock.

Theory. A precondition names the instant at which a document was last written, not our `rev`: so this remembers at which
instant each rev it has met was written, and reads first where it does not know. Every write changes the document (its
`mark` differs), for one that changes nothing keeps that instant, and two writers would both win (rule F3). A fence on a
row that the commit does not write is an update of no field, under a precondition: it leaves the document as it is.
When preconditions do not hold, what stands is read and judged by revs and leases; where all of them hold after all,
somebody deleted and created anew, or what was remembered was old, and the commit is sent again.

A commit whose answer was lost is sent again with the same marks: finding its own mark, it knows that it was written.
A fused create-and-settle of a step stays unfenced (rule F1). Guards are the driver's business (rule W4), but for those
on rows that the commit deletes.

The vendor's library takes a third of a second to import: it is imported by the first request.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit
from weakref import WeakKeyDictionary

from everstep.errors import InvalidArgument, OutcomeUnknown, StoreError, StoreUnavailable
from everstep.ports import Commit, Due, Guard, Page, Query, Refused, Waker
from everstep.promise import State
from everstep.rows import Row
from everstep.stores.memory import matches

from .names import id_of, name_of

if TYPE_CHECKING:
    from everstep.codec import Codec

    from .connection import Connection
    from .documents import Standing
    from .finding import Searches

COLLECTION = "everstep"
INLINE = 64 * 1024
"""Bytes of a payload that stay in the document where there is a bucket: what is written often should be small."""
LARGEST = 1_048_576
"""Bytes that Firestore allows a document."""
EMULATOR = "FIRESTORE_EMULATOR_HOST"
"""The environment variable by which every client of Firestore finds an emulator."""

_TRIES = 10
_REMEMBERED = 4096
_CHUNK = 300
_LEAST_PAGE = 20


class _Known(NamedTuple):
    """What the document of a row was when it was last met."""

    rev: int
    lease: int | None
    updated: Any


class FirestoreStore:
    """Rows in one collection of a Firestore database in native mode.

    Args:
        project, database: where.
        collection: its name. Nothing else may be in it.
        bucket: of Cloud Storage, for payloads too large for a document; without one they are refused.
        timeout: seconds for each request to the service.
        emulator: `host:port` of an emulator; by default what FIRESTORE_EMULATOR_HOST names, if anything.
    """

    single_writer = False
    folds = False

    def __init__(
        self,
        project: str,
        database: str = "(default)",
        *,
        collection: str = COLLECTION,
        bucket: str = "",
        timeout: float = 10.0,
        emulator: str | None = None,
    ) -> None:
        self.project = project
        self.database = f"projects/{project}/databases/{database}"
        self.collection = f"{self.database}/documents/{collection}"
        self.bucket = bucket
        self._timeout = timeout
        self._emulator = emulator or os.environ.get(EMULATOR) or None
        self._connections: WeakKeyDictionary[asyncio.AbstractEventLoop, Connection] = WeakKeyDictionary()
        self._searches: Searches | None = None
        self._known: dict[str, _Known] = {}
        self._settled: tuple[Query, list[str]] | None = None

    def codec(self) -> Codec:
        """Large payloads go into the bucket, where there is one."""
        from everstep.codec import Codec

        if not self.bucket:
            return Codec()
        from .blobs import CloudStorageBlobs

        return Codec(blobs=CloudStorageBlobs(self.bucket), limit=INLINE)

    def waker(self) -> Waker:
        """The queue that the environment names; one that refuses where it names none."""
        from .settings import Settings
        from .waker import CloudTasksWaker, NoWaker

        settings = Settings.read()
        return CloudTasksWaker.of(settings) if settings.queue and settings.url else NoWaker()

    async def load(self, ids: Sequence[str]) -> dict[str, Row]:
        return {id: found.row for id, found in (await self._get(dict.fromkeys(ids))).items()}

    async def branch(self, id: str) -> list[Row]:
        rows = await self._query(self._search().branch(id))
        prefix = f"{id}."
        return [row for row in rows if row.id == id or (row.branch == id and row.id.startswith(prefix))]

    async def commit(self, commit: Commit) -> Refused | None:
        from .connection import Contended, Lost, Unmet, attempts

        mark = os.urandom(6).hex()
        unknown: Lost | None = None
        fresh = False
        async for last in attempts(_TRIES):
            if fresh or not self._knows(commit):
                try:
                    standing = await self._get(_concerned(commit))
                except StoreError:
                    if unknown is None:
                        raise
                    continue
                refused = _judged(commit, standing)
                if refused is not None:
                    return refused if unknown is None else self._resolved(commit, refused, standing, mark, unknown)
            fresh = True
            try:
                times = await self._connection().commit(self._writes(commit, mark))
            except (Unmet, Contended) as error:
                if last and unknown is None:
                    raise StoreUnavailable(
                        f"{self.database}: others keep writing {commit.origin!r}: {error}"
                    ) from error
            except Lost as error:
                unknown = error
            except StoreError:
                if unknown is None:
                    raise  # nothing was written: with a lost answer behind it, that says nothing of the first one
            else:
                self._wrote(commit, times)
                return None
        raise OutcomeUnknown(f"{self.database}: whether {commit.origin!r} was written is unknown: {unknown}")

    async def due(self, now: int, limit: int) -> list[Due]:
        found = await self._connection().query(self._search().due(now, limit))
        return [Due(_id(document), document.fields["due"].integer_value) for document in found]

    async def find(self, query: Query) -> Page:
        if query.settled_before is not None and query.roots:
            return await self._find_settled(query)
        from .finding import beyond_schedules

        rows: list[Row] = []
        start: str | None = None
        while len(rows) <= query.limit:
            size = max(query.limit + 1 - len(rows), _LEAST_PAGE)
            found = await self._query(self._search().page(query, start, size))
            rows += [row for row in found if matches(row, query)]
            if len(found) < size:
                break
            start = beyond_schedules(found[-1], query)
        return _page(rows, query.limit)

    async def delete(self, origin: str) -> int:
        """The root goes last, so that a deletion cut short is found and done again."""
        below = [_id(found) for found in await self._connection().query(self._search().below(origin))]
        root = await self._get([origin])
        ids = [*below, *root]
        for at in range(0, len(ids), _CHUNK):
            await self.commit(Commit(origin, (), tuple(ids[at : at + _CHUNK])))
        return len(ids)

    async def close(self) -> None:
        """Close this event loop's connection; those of other loops go with them."""
        connection = self._connections.pop(asyncio.get_running_loop(), None)
        if connection is not None:
            await connection.close()

    def _connection(self) -> Connection:
        loop = asyncio.get_running_loop()
        found = self._connections.get(loop)
        if found is None:
            from .connection import Connection

            found = self._connections[loop] = Connection(self.database, self._emulator, self._timeout)
        return found

    def _search(self) -> Searches:
        if self._searches is None:
            from .finding import Searches

            self._searches = Searches(self.collection)
        return self._searches

    def _name(self, id: str) -> str:
        return f"{self.collection}/{name_of(id)}"

    async def _get(self, ids: Iterable[str]) -> dict[str, Standing]:
        from .documents import standing

        names = [self._name(id) for id in ids]
        connection = self._connection()
        parts = [connection.get(names[at : at + _CHUNK]) for at in range(0, len(names), _CHUNK)]
        found = [standing(document) for part in await asyncio.gather(*parts) for document in part]
        for one in found:
            self._remember(one.row, one.updated)
        return {one.row.id: one for one in found}

    async def _query(self, query: Any) -> list[Row]:
        from .documents import standing

        found = [standing(document) for document in await self._connection().query(query)]
        for one in found[::-1]:  # the row a branch is named after comes first, and is to be forgotten last
            self._remember(one.row, one.updated)
        return [one.row for one in found]

    async def _find_settled(self, query: Query) -> Page:
        """What retention asks for: names by the instant, then a page of rows. The names serve the next pages too."""
        asked = query._replace(cursor=None, limit=0)
        if query.cursor is None or self._settled is None or self._settled[0] != asked:
            self._settled = (asked, await self._settled_ids(query))
        rows: list[Row] = []
        ids = [id for id in self._settled[1] if query.cursor is None or id > query.cursor]
        while ids and len(rows) <= query.limit:
            part, ids = ids[: query.limit + 1], ids[query.limit + 1 :]
            standing = await self._get(part)
            rows += [standing[id].row for id in part if id in standing and matches(standing[id].row, query)]
        page = _page(rows, query.limit)
        if page.cursor is None:
            self._settled = None
        return page

    async def _settled_ids(self, query: Query) -> list[str]:
        before = query.settled_before or 0
        states = [query.state] if query.state is not None else [state.value for state in State]
        queries = [self._connection().query(self._search().settled(state, before)) for state in states]
        ids = [_id(document) for found in await asyncio.gather(*queries) for document in found]
        return sorted(id for id in ids if id.startswith(query.prefix))

    def _remember(self, row: Row, updated: Any) -> None:
        known = self._known
        known.pop(row.id, None)
        known[row.id] = _Known(row.rev, row.lease, updated)
        while len(known) > _REMEMBERED:
            try:
                known.pop(next(iter(known)), None)
            except (StopIteration, RuntimeError):
                break  # another thread's loop was faster

    def _knows(self, commit: Commit) -> bool:
        """Whether every instant that a precondition must name is known, and every condition held when last looked."""
        for put in commit.puts:
            if put.expect:
                known = self._known.get(put.row.id)
                if known is None or known.rev != put.expect:
                    return False
        for guard in _deleting(commit):
            known = self._known.get(guard.id)
            if known is None or known.rev != guard.rev:
                return False
        fence = commit.fence
        if fence is None or fence.soft:
            return True
        known = self._known.get(fence.id)
        return known is not None and known.lease == fence.version and not _creates(commit, fence.id)

    def _writes(self, commit: Commit, mark: str) -> list[Any]:
        from .connection import Write
        from .documents import document

        writes = []
        for put in commit.puts:
            write = Write(update=document(self._name(put.row.id), put.row, mark))
            if write.ByteSize() > LARGEST:
                size = write.ByteSize()
                raise StoreError(f"{put.row.id!r} has a document of {size} bytes, and Firestore takes {LARGEST}")
            if put.expect:
                write.current_document.update_time.CopyFrom(self._known[put.row.id].updated)
            else:
                write.current_document.exists = False
            writes.append(write)
        fence = commit.fence
        fenced = fence.id if fence is not None and not fence.soft else None
        guarded = {guard.id: guard.rev for guard in _deleting(commit)}
        for id in commit.deletes:
            write = Write(delete=self._name(id))
            if guarded.get(id) == 0:
                write.current_document.exists = False
            elif id == fenced or id in guarded:
                write.current_document.update_time.CopyFrom(self._known[id].updated)
            writes.append(write)
        if fenced is not None and fenced not in commit.deletes and all(put.row.id != fenced for put in commit.puts):
            touch = Write()
            touch.update.name = self._name(fenced)
            touch.update_mask.SetInParent()
            touch.current_document.update_time.CopyFrom(self._known[fenced].updated)
            writes.append(touch)
        return writes

    def _wrote(self, commit: Commit, times: Sequence[Any]) -> None:
        for put, updated in zip(commit.puts, times, strict=False):
            self._remember(put.row, updated)
        for id in commit.deletes:
            self._known.pop(id, None)

    def _resolved(
        self, commit: Commit, refused: Refused, standing: dict[str, Standing], mark: str, lost: Exception
    ) -> Refused | None:
        """Of a commit sent twice, and refused: whether the first one was written.

        Raises OutcomeUnknown where what stands does not tell.
        """
        stands = [standing.get(put.row.id) for put in commit.puts]
        if stands and all(one is not None and one.mark == mark for one in stands):
            return None
        for put, one in zip(commit.puts, stands, strict=True):
            if one is not None and one.mark != mark and one.row.rev in (put.expect, put.row.rev):
                return refused  # not written, or by somebody else: and all of a commit is written, or none
        raise OutcomeUnknown(f"{self.database}: whether {commit.origin!r} was written is unknown: {lost}")


def _id(document: Any) -> str:
    return id_of(document.name.rpartition("/")[2])


def _concerned(commit: Commit) -> list[str]:
    """Ids of the rows that a commit's conditions are about."""
    ids = [put.row.id for put in commit.puts] + [guard.id for guard in _deleting(commit)]
    if commit.fence is not None and not commit.fence.soft and commit.fence.id not in ids:
        ids.append(commit.fence.id)
    return ids


def _deleting(commit: Commit) -> list[Guard]:
    """The guards that hold here: on what the commit deletes."""
    return [guard for guard in commit.guards if guard.id in commit.deletes]


def _creates(commit: Commit, id: str) -> bool:
    return any(put.row.id == id and put.expect == 0 for put in commit.puts)


def _judged(commit: Commit, standing: dict[str, Standing]) -> Refused | None:
    """A commit's conditions against what stands; None when all of them hold."""
    fence = commit.fence
    fenced = False
    if fence is not None and not fence.soft:
        holder = standing.get(fence.id)
        fenced = holder is None or holder.row.lease != fence.version
    found: dict[str, Row | None] = {}
    for id, rev in [*[(put.row.id, put.expect) for put in commit.puts], *_deleting(commit)]:
        one = standing.get(id)
        if (0 if one is None else one.row.rev) != rev:
            found[id] = None if one is None else one.row
    return Refused(fenced, found) if fenced or found else None


def _page(rows: list[Row], limit: int) -> Page:
    page = rows[:limit]
    return Page(page, page[-1].id if len(rows) > len(page) else None)


def open_store(url: str) -> FirestoreStore:
    """Open `firestore://project`, or `firestore://project/database`, with `?collection=`, `?bucket=`, `?timeout=`
    (seconds).

    Raises:
        InvalidArgument: the URL is malformed.
        ModuleNotFoundError: the vendor's library is not installed.
    """
    parts = urlsplit(url)
    project, database = unquote(parts.netloc), unquote(parts.path.strip("/")) or "(default)"
    if parts.scheme != "firestore" or not project or "/" in database:
        raise InvalidArgument(f"{url!r} names no database; write firestore://project or firestore://project/database")
    options: dict[str, Any] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name == "collection" and value and "/" not in value:
            options["collection"] = value
        elif name == "bucket" and value:
            options["bucket"] = value
        elif name == "timeout" and value.replace(".", "", 1).isdecimal():
            options["timeout"] = float(value)
        else:
            raise InvalidArgument(f"{url!r}: {name}={value!r} is no option; there are collection, bucket, timeout")
    for module in ("google", "google.cloud", "google.cloud.firestore_v1"):
        if find_spec(module) is None:
            raise ModuleNotFoundError("No module named 'google.cloud.firestore'", name="google-cloud-firestore")
    return FirestoreStore(project, database, **options)


__all__ = ["COLLECTION", "EMULATOR", "FirestoreStore", "open_store"]
