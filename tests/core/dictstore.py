"""A store and a waker in a few lines, for the tests that must not depend on the real ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from everstep.ids import origin_of
from everstep.ports import Commit, Due, Page, Query, Refused, Wake
from everstep.rows import Row, from_row


class DictStore:
    single_writer = True

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.log: list[str] = []
        self.before_commit: Callable[[], None] | None = None

    async def load(self, ids: Sequence[str]) -> dict[str, Row]:
        self.log.append("load")
        return {id: self.rows[id] for id in ids if id in self.rows}

    async def branch(self, id: str) -> list[Row]:
        self.log.append("branch")
        return [row for row in self.rows.values() if row.id == id or row.branch == id]

    async def commit(self, commit: Commit) -> Refused | None:
        self.log.append("commit")
        if self.before_commit is not None:
            hook, self.before_commit = self.before_commit, None
            hook()
        assert commit.origin, "a commit has an origin"
        assert len(commit.puts) + len(commit.deletes) <= 100, "a transaction holds a hundred"
        for id in [put.row.id for put in commit.puts] + list(commit.deletes):
            assert origin_of(id) == commit.origin, f"{id} is not of the origin {commit.origin}"
        if commit.fence is not None:
            held = self.rows.get(commit.fence.id)
            if held is None or held.lease != commit.fence.version:
                return Refused(True, {})
        expected = {put.row.id: put.expect for put in commit.puts} | {guard.id: guard.rev for guard in commit.guards}
        found: dict[str, Row | None] = {}
        for id, rev in expected.items():
            row = self.rows.get(id)
            if (row.rev if row is not None else 0) != rev:
                found[id] = row
        if found:
            return Refused(False, found)
        for put in commit.puts:
            assert put.row.rev == put.expect + 1
            self.rows[put.row.id] = put.row
        for id in commit.deletes:
            self.rows.pop(id, None)
        return None

    async def due(self, now: int, limit: int) -> list[Due]:
        rows = sorted((row.due, row.id) for row in self.rows.values() if row.due is not None and row.due <= now)
        return [Due(id, due) for due, id in rows[:limit]]

    async def find(self, query: Query) -> Page:
        rows = []
        for id in sorted(self.rows):
            row = self.rows[id]
            if query.kinds and row.kind not in query.kinds:
                continue
            if row.kind == "schedule" and not query.kinds:
                continue
            if query.state is not None and row.state != query.state:
                continue
            if query.tags and not query.tags.items() <= from_row(row).tags.items():
                continue
            if not id.startswith(query.prefix) or (query.cursor is not None and id <= query.cursor):
                continue
            rows.append(row)
        more = len(rows) > query.limit
        rows = rows[: query.limit]
        return Page(rows, rows[-1].id if more else None)

    async def delete(self, origin: str) -> int:
        gone = [id for id in self.rows if origin_of(id) == origin]
        for id in gone:
            del self.rows[id]
        return len(gone)

    async def close(self) -> None:
        pass

    def put(self, *rows: Row) -> None:
        for row in rows:
            self.rows[row.id] = row


class QueueWaker:
    """Keeps what it is told; `tokens` says whether alarms can be taken back."""

    def __init__(self, log: list[str], *, by_row: bool = False, tokens: bool = True) -> None:
        self.by_row = by_row
        self.tokens = tokens
        self.armed: list[tuple[Wake, int, str]] = []
        self.disarmed: list[str] = []
        self.sent: list[Wake] = []
        self.log = log
        self.fails: BaseException | None = None
        self._made = 0

    async def arm(self, wake: Wake, at: int) -> str | None:
        self.log.append("arm")
        if self.fails is not None:
            raise self.fails
        self._made += 1
        token = f"t{self._made}"
        self.armed.append((wake, at, token))
        return token if self.tokens else None

    async def disarm(self, token: str) -> None:
        self.log.append("disarm")
        if self.fails is not None:
            raise self.fails
        self.disarmed.append(token)

    async def send(self, wake: Wake) -> None:
        self.log.append("send")
        if self.fails is not None:
            raise self.fails
        self.sent.append(wake)
