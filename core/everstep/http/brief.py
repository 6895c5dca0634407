"""What the live page needs of a promise: small, whatever the size of its values."""

from __future__ import annotations

from typing import Any

from everstep.views import PromiseView, TreeView

from .strict import dumps

PREVIEW = 160
MAX_NODES = 2000


def brief(view: PromiseView) -> dict[str, Any]:
    """A view with its values cut to a preview."""
    arguments = [_short(value) for value in view.args]
    arguments += [f"{name}={_short(value)}" for name, value in view.kwargs.items()]
    outcome = ""
    if view.error is not None:
        outcome = f"{view.error.get('type', 'error')}: {view.error.get('message', '')}"
    elif view.state == "resolved" and view.value is not None:
        outcome = _short(view.value)
    return {
        "id": view.id,
        "state": view.state,
        "word": view.word,
        "kind": view.kind,
        "name": view.name,
        "input": _cut(", ".join(arguments)),
        "output": _cut(outcome),
        "created_at": view.created_at,
        "settled_at": view.settled_at,
        "timeout_at": view.timeout_at,
        "due_at": view.due_at,
        "task": view.task,
        "generation": view.generation,
        "attempt": view.attempt,
        "waiting_for": view.waiting_for[:20],
        "reason": view.reason,
    }


def brief_tree(tree: TreeView) -> dict[str, Any]:
    """The tree as a flat list with depths, a parent before its children, and how many were left out.

    Of a tree with more than MAX_NODES promises the oldest settled ones are left out: what moves is at the end.
    """
    nodes: list[tuple[int, PromiseView]] = []
    stack = [(0, tree)]
    while stack:
        depth, node = stack.pop()
        nodes.append((depth, node.promise))
        stack.extend((depth + 1, child) for child in reversed(node.children))
    left_out = max(0, len(nodes) - MAX_NODES)
    if left_out:
        settled = sorted((view.settled_at or 0, at) for at, (_, view) in enumerate(nodes) if at and not view.pending)
        dropped = {at for _, at in settled[:left_out]}
        left_out = len(dropped)
        nodes = [node for at, node in enumerate(nodes) if at not in dropped]
    return {"nodes": [{"depth": depth, **brief(view)} for depth, view in nodes], "left_out": left_out}


def _short(value: Any) -> str:
    if isinstance(value, str) and len(value) > PREVIEW:
        value = value[:PREVIEW]
    return _cut(dumps(value).decode())


def _cut(text: str) -> str:
    return text if len(text) <= PREVIEW else text[: PREVIEW - 1] + "\N{HORIZONTAL ELLIPSIS}"
