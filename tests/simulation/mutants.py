"""Kernels that are broken on purpose: one change of the text of one function each.

A mutant is the function's own source with a piece replaced, so it breaks exactly what it names, and a test says so when
the piece is no longer there to be broken.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from everstep import (
    driver,
    folding,
    holding,
    invocation,
    journal,
    kernel,
    recording,
    roots,
    rows,
    service,
    warm,
    writer,
)
from everstep.context import Scope
from everstep.testing.faults import Faults


@dataclass(frozen=True)
class Mutant:
    """A function, by its owner and name, and what is replaced in its text.

    Attributes:
        rule: what is broken.
        seeds: how many histories may pass before one is caught. Only a mutant nobody catches plays them all, so the
            default leaves room for corpus and faults to change without moving the one that shows it out of reach.
        fixed: options of the world in which it matters.
        only: workflows of the corpus in which it matters; all if none is named.
    """

    name: str
    rule: str
    owner: Any
    function: str
    replaced: tuple[tuple[str, str], ...]
    seeds: int = 2000
    fixed: dict[str, Any] = field(default_factory=dict)
    only: tuple[str, ...] = ()


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """The mutant in the place of the original."""
    owner, name = mutant.owner, mutant.function
    original = inspect.getattr_static(owner, name)
    plain = original.__func__ if isinstance(original, staticmethod) else original
    source = inspect.getsource(plain)
    for old, new in mutant.replaced:
        assert source.count(old) == 1, f"{mutant.name}: {old!r} is {source.count(old)} times in {name}"
        source = source.replace(old, new)
    module = owner if inspect.ismodule(owner) else sys.modules[owner.__module__]
    space: dict[str, Any] = {}
    text = source if inspect.ismodule(owner) else f"class Home:\n{source}"
    exec(compile(f"from __future__ import annotations\n{text}", mutant.name, "exec"), module.__dict__, space)
    made = space[name] if inspect.ismodule(owner) else vars(space["Home"])[name]
    users = [one for one in sys.modules.values() if getattr(one, "__name__", "").startswith("everstep")]
    places = [(owner, name)]
    if inspect.ismodule(owner):
        places = [(one, key) for one in users for key, value in list(vars(one).items()) if value is plain]
    for place, key in places:
        setattr(place, key, made)
    try:
        yield
    finally:
        for place, key in places:
            setattr(place, key, original)


QUEUE = {"mode": "queue"}
SINGLE = {"single_writer": True}
SHARED_STORE = {"mode": "queue", "single_writer": False}
SLOW = Faults(crash=0.005, stall=0.06, unavailable=0, unknown=0.01, duplicate=0.02, late=0, early=0, lost=0, limit=60)
"""Callers that stand still all the time: their writes arrive when others have taken over."""
ZOMBIES = SHARED_STORE | {"faults": SLOW, "lease": 5, "instances": 4, "steps_per_invocation": None, "heartbeat": False}
PARALLEL = ("gathered", "locked", "completed", "grouped")

BREEDING = Mutant(
    "a message of an older version lives on",
    "W6",
    driver.Driver,
    "_early",
    ((" or (version is not None and wake.version != version)", ""),),
)

BEYOND = Mutant(
    "a holder delivers beyond its lease",
    "P2.4",
    holding.Holding,
    "ending",
    (("return self.driver.clock.now() >= self._stops_at", "return False"),),
)
STALE = Mutant(
    "a task is taken on a reading from before its lease ended",
    "P2.4",
    driver.Driver,
    "_deliver",
    (("task.expires_at > since", "task.expires_at > now"),),
)
OLD_MESSAGE = Mutant(
    "an old message stands for a new lease",
    "W6",
    holding.Holding,
    "_covered",
    (("self.now() < self._held_until", "self._held_until"),),
)

UNSEEN = Mutant(
    "a root is started without a look at the lease",
    "F1",
    holding.Holding,
    "look",
    (("if not self.driver.store.single_writer:", "if False:"),),
)

MUTANTS = [
    Mutant(
        "send before commit",
        "W2",
        writer.Writer,
        "commit",
        (
            ("armed.append((wake, soon, await self.waker.arm(wake, soon)))", "await self.waker.send(wake)"),
            (
                "made = await self.waker.arm(wake, at)",
                "made = await (self.waker.arm(wake, at) if due > now else self.waker.send(wake))",
            ),
            ("                if at <= now:\n", "                if False:\n"),
        ),
        fixed=QUEUE | {"faults": SLOW},
    ),
    Mutant(
        "commit before arm",
        "W2",
        writer.Writer,
        "commit",
        (
            ("made = await self.waker.arm(wake, at)", "made = 'x'"),
            (
                "        if rung:\n",
                "        for wake, at, _ in armed:\n            await self.waker.arm(wake, at)\n        if rung:\n",
            ),
        ),
        fixed=QUEUE | {"tokens": False},
    ),
    Mutant(
        "an unchanged instant counts as armed",
        "W1",
        writer.Writer,
        "commit",
        ((" or (token is None and not by_row)", ""),),
        fixed=QUEUE,
    ),
    Mutant(
        "the message in hand is taken back",
        "W6",
        writer.Writer,
        "disarm",
        (("token == ARMED or at - self.clock.now() < _NEAR", "token == ARMED"),),
        fixed=QUEUE | {"tokens": True},
    ),
    Mutant(
        "wake an expired awaiter",
        "W8",
        kernel.internal,
        "resume",
        (("    if not project(awaiter, now).pending:\n        return Resumed(Resume.EXPIRED)\n", ""),),
        only=("dated",),
    ),
    Mutant(
        "an awaiter is woken before its tree is satisfied",
        "W7",
        kernel.internal,
        "resume",
        (
            (
                "if task.tree is not None and not satisfied(task.tree, lambda id: states.get(id, State.PENDING)):",
                "if False:",
            ),
        ),
        only=("fanned",),
    ),
    Mutant(
        "unfenced suspend",
        "F2",
        holding.Holding,
        "write",
        (
            ("fence=self.fence()", "fence=self.fence() if changed.state is not State.PENDING else None"),
            (
                "self._current(written)",
                "self._current(written) if changed.state is not State.PENDING else from_row(written.found[self.id])",
            ),
        ),
        fixed=ZOMBIES,
    ),
    Mutant(
        "unfenced fulfil",
        "F2",
        holding.Holding,
        "write",
        (
            ("fence=self.fence()", "fence=self.fence() if changed.state is State.PENDING else None"),
            (
                "self._current(written)",
                "self._current(written) if changed.state is State.PENDING else from_row(written.found[self.id])",
            ),
        ),
        fixed=ZOMBIES,
    ),
    Mutant(
        "unfenced settle",
        "F2",
        kernel.promises,
        "settle",
        (("    if shown.pending:\n        done", "    if True:\n        done"),),
    ),
    Mutant(
        "a cancelled future settles what is settled",
        "F2",
        roots.Roots,
        "cancel",
        (("if shown.state is State.PENDING:", "if True:"),),
        only=("cancelling", "raced", "timed"),
    ),
    Mutant(
        "ids numbered by timing",
        "I1",
        Scope,
        "next_id",
        (("self.count + 1", "self.count + (1 if self.body.replaying else 2)"),),
    ),
    Mutant(
        "a drain skipped on an already settled promise",
        "W3",
        service.Service,
        "fire",
        (("                await self.drain(record.id)\n                return\n", "                return\n"),),
    ),
    Mutant(
        "the inbox is not recorded",
        "P2.2",
        rows,
        "_task_text",
        (('data["h"] = task.segments', 'data["h"] = [one._replace(inbox=()) for one in task.segments]'),),
    ),
    Mutant(
        "an orphan is not restamped",
        "P2.4",
        recording.Recorder,
        "complete",
        (
            (
                "                state, payload, value = stood.state, stood.value, UNREAD\n",
                "                state, payload, value = stood.state, stood.value, UNREAD\n                break\n",
            ),
        ),
        fixed=ZOMBIES,
        only=PARALLEL,
    ),
    Mutant(
        "an orphan's value is not adopted",
        "P2.4",
        recording.Recorder,
        "complete",
        (("                state, payload, value = stood.state, stood.value, UNREAD\n", "                pass\n"),),
        fixed=ZOMBIES,
        only=PARALLEL,
    ),
    Mutant(
        "an orphan's value is recorded, and the body gets its own",
        "P2.4",
        recording.Recorder,
        "complete",
        (("stood.state, stood.value, UNREAD", "stood.state, stood.value, value"),),
        fixed=ZOMBIES,
        only=PARALLEL,
    ),
    Mutant(
        "history is not cut",
        "P2.3",
        journal,
        "_history",
        (("        del ids[max(0, after) :], instants[max(0, after) :]\n", ""),),
        fixed=ZOMBIES,
        only=PARALLEL,
    ),
    Mutant(
        "a segment is let go that is not over",
        "P2.3",
        folding,
        "trimmed",
        (("segments[first + 1].start <= folded", "segments[first + 1].start <= folded + 1"),),
    ),
    Mutant(
        "what was folded is folded again",
        "P3",
        recording.Recorder,
        "folded",
        (("        del self.tail[:size]\n", ""),),
        fixed=SINGLE,
    ),
    Mutant(
        "a fold does not count",
        "P3",
        journal,
        "_history",
        (("epoch, n = segment.epoch, folded + len(ids) + 1", "epoch, n = segment.epoch, len(ids) + 1"),),
        fixed=SINGLE,
    ),
    Mutant(
        "history in the order of ids",
        "P2",
        journal,
        "_history",
        (("    return ids,", "    ids.sort()\n    return ids,"),),
        only=PARALLEL,
    ),
    Mutant(
        "a result reaches the body before it is durable",
        "P2",
        invocation.Invocation,
        "_record",
        (
            (
                "            written = [await self.recorder.complete(batch[0], first)]",
                "            asyncio.ensure_future(self.recorder.complete(batch[0], first))\n"
                "            written = [(batch[0].state, self._codec.decode(batch[0].payload), None)]",
            ),
        ),
        fixed={"single_writer": True, "steps_per_invocation": None},
        only=("completed", "locked"),
    ),
    Mutant(
        "no second look after a suspend",
        "W4",
        invocation.Invocation,
        "_readmit",
        (
            (
                "        rows = await self.driver.store.load(awaited)",
                "        if suspended:\n            return False\n        rows = await self.driver.store.load(awaited)",
            ),
        ),
        fixed=SHARED_STORE,
    ),
    Mutant(
        "a suspend does not guard what it waits for",
        "W4",
        invocation.Invocation,
        "_suspend",
        (("holding.write(waiting, guards=guards, folding=folding)", "holding.write(waiting)"),),
        fixed=SINGLE,
    ),
    Mutant(
        "no look across origins after a suspend, and no poll",
        "W5",
        invocation.Invocation,
        "_suspend",
        (
            ("poll_at=now + min(age, _POLL_LAST) if children.foreign else None", "poll_at=None"),
            ("            await self.driver.service.look(self.id)\n", "            pass\n"),
        ),
        only=("sharing",),
    ),
    Mutant(
        "a deadline that was seen is not written",
        "P2.2",
        invocation.Invocation,
        "acquire",
        (
            (
                "        journal = self.journal\n",
                "        journal = self.journal = self.journal._replace(overdue=[])\n",
            ),
        ),
        only=("timed", "dated"),
    ),
    Mutant(
        "a duplicate of the message a holder lives on is acknowledged",
        "W6",
        driver.Driver,
        "_deliver",
        (("if lives_on(task, key) else", "if False else"),),
        fixed=QUEUE,
    ),
    Mutant(
        "an early message is acknowledged",
        "W2",
        driver.Driver,
        "_early",
        (("        return Retry(row.due)", "        return DONE"),),
        fixed=QUEUE,
    ),
    Mutant(
        "a holder that lost its hold lets its message go",
        "W1",
        driver.Driver,
        "_run",
        (("            return None  # to its own deadline", "            return DONE  # to its own deadline"),),
        fixed=QUEUE | {"faults": SLOW},
        only=("dated",),
    ),
    Mutant(
        "a wake-up ahead of its commit is acknowledged",
        "W3",
        driver.Driver,
        "_deliver",
        (("if attempt == 1 and wake.version", "if attempt == 0 and wake.version"),),
        fixed=QUEUE,
    ),
    Mutant(
        "nothing stands for the second look",
        "W4",
        invocation.Invocation,
        "_suspend",
        (("holding.write(waiting, keep=stands, folding=folding)", "holding.write(waiting)"),),
        fixed=SHARED_STORE | {"tokens": True, "lease": 240},
    ),
    Mutant(
        "a body that was kept goes on where others went on",
        "P1",
        warm.Kept,
        "fits",
        (("task.version == self.version and ", ""),),
        fixed={"instances": 3, "cache": 64},
    ),
]
