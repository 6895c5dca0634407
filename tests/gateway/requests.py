"""Random requests of the protocol, of every kind, as envelopes; few ids, so that they meet each other."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from typing import Any

from everstep.clock import NEVER
from everstep.protocol import VERSION

TARGET = {"resonate:target": "poll://any@g"}
_TAGS = (
    TARGET,
    TARGET,
    {"resonate:external": "true"},
    {"resonate:timer": "true"},
    {"resonate:scope": "global"},
    {**TARGET, "resonate:timer": "true"},
    {},
)
_PIDS = ("w1", "w2")
_ADDRESSES = ("http://x", "poll://any@g", "x")
YEARLY = "0 0 1 1 *"


class Requests:
    """Makes envelopes; `learn` from the answers which versions tasks have.

    Args:
        search: whether to search too: that may lag behind (rule C5), so only where each request is answered before the
            next is made.
        only: the kinds to make; all of them by default.
        generation: how many requests until other ids are used, for what is settled has little left to show.
    """

    def __init__(
        self, rng: random.Random, *, search: bool = True, only: Collection[str] = (), generation: int = 150
    ) -> None:
        self.rng = rng
        self.made = 0
        self._search = search
        self._only = only
        self._generation = generation
        self._versions: dict[str, int] = {}
        self._held: list[str] = []

    def learn(self, answer: dict[str, Any]) -> None:
        """Remember the versions of the tasks an answer shows."""
        data = answer["data"]
        task = data.get("task") if isinstance(data, dict) else None
        if task is not None:
            self._versions[task["id"]] = task["version"]
            if task["state"] == "acquired":
                self._held = [*self._held, task["id"]][-6:]

    def next(self, now: int) -> dict[str, Any]:
        """An envelope for a request made at `now` (milliseconds)."""
        pick = self.rng.choice
        id = self._id()
        held = pick(self._held) if self._held and self.rng.random() < 0.7 else id
        version = self._versions.get(held, 1) + pick((0, 0, 0, 0, 0, 0, 0, 1, -1))
        lease = {"id": held, "version": max(version, 0)}
        makers: list[tuple[int, str, Callable[[], Any]]] = [
            (4, "promise.get", lambda: {"id": id}),
            (8, "promise.create", lambda: self._creation(now)),
            (8, "promise.settle", lambda: self._settlement(id)),
            (4, "promise.register_callback", lambda: {"awaited": id, "awaiter": pick((held, self._id()))}),
            (3, "promise.register_listener", lambda: {"awaited": id, "address": pick(_ADDRESSES)}),
            (4, "task.get", lambda: {"id": pick((id, held))}),
            (8, "task.create", lambda: self._task(now)),
            (8, "task.acquire", lambda: {**self._pending(), "pid": pick(_PIDS), "ttl": pick((0, 400, 3000))}),
            (7, "task.fence", lambda: {**lease, "action": self._fenced(now)}),
            (4, "task.heartbeat", lambda: {"pid": pick(_PIDS), "tasks": [lease, *pick(([], [{**lease, "id": id}]))]}),
            (9, "task.suspend", lambda: {**lease, "actions": self._waits(held)}),
            (4, "task.fulfill", lambda: {**lease, "action": self._inner("promise.settle", self._settlement(held))}),
            (4, "task.release", lambda: lease),
            (2, "task.halt", lambda: {"id": pick((id, held))}),
            (3, "task.continue", lambda: {"id": pick((id, held))}),
            (1, "schedule.get", lambda: {"id": self._schedule()}),
            (2, "schedule.create", self._schedule_create),
            (1, "schedule.delete", lambda: {"id": self._schedule()}),
        ]  # fmt: skip
        if self._search:
            makers += [
                (2, "promise.search", lambda: {"limit": pick((1, 3, 99)), "state": pick((None, "pending"))}),
                (1, "task.search", lambda: {"limit": pick((2, 100)), "state": pick((None, "suspended", "fulfilled"))}),
                (1, "schedule.search", dict),
            ]  # fmt: skip
        if self._only:
            makers = [one for one in makers if one[1] in self._only]
        (_, kind, make) = self.rng.choices(makers, [weight for weight, _, _ in makers])[0]
        self.made += 1
        return self._inner(kind, make())

    def _inner(self, kind: str, data: Any) -> dict[str, Any]:
        return {"kind": kind, "head": {"corrId": "c", "version": VERSION}, "data": data}

    def _id(self) -> str:
        era = self.made // self._generation
        return self.rng.choice((f"a{era}", f"a{era}.1", f"a{era}.2", f"a{era}.1.1", f"b{era}", f"b{era}.1", f"b{era}"))

    def _pending(self) -> dict[str, Any]:
        id = self._id()
        return {"id": id, "version": max(0, self._versions.get(id, 0) + self.rng.choice((0, 0, 0, 0, 1, -1)))}

    def _creation(self, now: int, *, targeted: bool = False) -> dict[str, Any]:
        pick = self.rng.choice
        tags = dict(TARGET if targeted else pick(_TAGS))
        if self.rng.random() < 0.3:
            tags["resonate:branch"] = self._id()
        if self.rng.random() < 0.15:
            tags["resonate:parent"] = self._id()
        if self.rng.random() < 0.1:
            tags["resonate:delay"] = pick((str(now + 200), "soon"))
        at = pick((now, now + 300, now + 3000, NEVER, NEVER, NEVER))
        return {"id": self._id(), "timeoutAt": at, "param": {"data": pick(("MQ==", "?", None))}, "tags": tags}

    def _settlement(self, id: str) -> dict[str, Any]:
        state = self.rng.choice(("resolved", "resolved", "rejected", "rejected_canceled", "pending"))
        return {"id": id, "state": state, "value": {"data": self.rng.choice(("Mg==", "!", None))}}

    def _task(self, now: int) -> dict[str, Any]:
        creation = self._creation(now, targeted=self.rng.random() < 0.9)
        action = self._inner("promise.create", creation)
        return {"pid": self.rng.choice(_PIDS), "ttl": self.rng.choice((0, 400, 3000)), "action": action}

    def _fenced(self, now: int) -> dict[str, Any]:
        if self.rng.random() < 0.6:
            return self._inner("promise.create", self._creation(now))
        return self._inner("promise.settle", self._settlement(self._id()))

    def _waits(self, awaiter: str) -> list[dict[str, Any]]:
        ids = [self._id() for _ in range(self.rng.choice((0, 1, 1, 1, 2, 2, 3)))]
        return [self._inner("promise.register_callback", {"awaited": id, "awaiter": awaiter}) for id in ids]

    def _schedule(self) -> str:
        return self.rng.choice(("s1", "s2"))

    def _schedule_create(self) -> dict[str, Any]:
        return {
            "id": self._schedule(),
            "cron": self.rng.choice((YEARLY, YEARLY, "never")),
            "promiseId": "{{.id}}.{{.timestamp}}",
            "promiseTimeout": 1000,
            "promiseTags": dict(TARGET),
        }
