"""Who waits on a future, read off its callbacks: the await tree of a body as data (rule P5)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from .promise import Tree


def tree_of(
    waiting: Iterable[tuple[str, Iterable[tuple[Any, Any]]]], timers: Iterable[str], finished: Sequence[str] = ()
) -> Tree:
    """Any of a body's groups; a group is all only where that is certain.

    Args:
        waiting: ids, each with the callbacks of its future.
        timers: ids of asyncio's own timers, each a group of its own.
        finished: ids that a body which has returned must still see finished, all of them.
    """
    singles: dict[str, None] = dict.fromkeys(timers)
    groups: dict[int, tuple[str, list[str]]] = {0: ("all", list(finished))} if finished else {}
    for id, callbacks in waiting:
        for callback, _ in callbacks:
            how, group = _classify(callback)
            if how == "any":
                singles[id] = None
            elif how != "none":
                groups.setdefault(group, (how, []))[1].append(id)
    joined: list[Tree] = [members[0] if len(members) == 1 else (how, *members) for how, members in groups.values()]
    trees: list[Tree] = list(dict.fromkeys([*singles, *joined]))
    return trees[0] if len(trees) == 1 else ("any", *trees)


_GATHER = asyncio.gather.__code__
_WAIT = asyncio.tasks._wait.__code__  # type: ignore[attr-defined]


def _classify(callback: Any) -> tuple[str, int]:
    """Who waits on a future, read off its callback: ("all" | "try" | "any" | "none", group).

    What is not recognised counts as any: that costs an idle replay at worst, while a wrong all would hang (rule P5).
    """
    code = getattr(callback, "__code__", None)
    if code is None or (code not in _GATHER.co_consts and code not in _WAIT.co_consts):
        return "any", 0
    cells: dict[str, Any] = {}
    for name, cell in zip(code.co_freevars, callback.__closure__ or (), strict=False):
        try:
            cells[name] = cell.cell_contents
        except ValueError:
            continue
    if code in _GATHER.co_consts:
        outer = cells.get("outer")
        if not isinstance(outer, asyncio.Future) or "return_exceptions" not in cells:
            return "any", 0
        if outer.done():
            return "none", 0
        return ("all" if cells["return_exceptions"] else "try"), id(outer)
    waiter = cells.get("waiter")
    if not isinstance(waiter, asyncio.Future):
        return "any", 0
    if waiter.done():
        return "none", 0
    how = {asyncio.ALL_COMPLETED: "all", asyncio.FIRST_EXCEPTION: "try"}.get(cells.get("return_when", ""), "any")
    return how, id(waiter)
