"""What commands print: tables and trees on a terminal, whole lines in a pipe, JSON for machines."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from everstep.views import CostReport, PromiseView, TreeView

from .words import COLOURS, SYMBOLS, call, clean, moment, short, span

_PLATFORMS = {"aws": "AWS", "gcp": "Google Cloud", "supabase": "Supabase", "cloudflare": "Cloudflare"}


def console(*, stderr: bool = False) -> Console:
    """Rich's console. A pipe has no width to fit into."""
    made = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not made.is_terminal:
        made = Console(stderr=stderr, highlight=False, soft_wrap=True, width=10_000)
    return made


def print_json(value: Any) -> None:
    """One line of strict JSON on stdout."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")), flush=True)


def state_text(view: PromiseView) -> Text:
    word = view.word
    return Text(f"{SYMBOLS.get(word, '·')} {word}", style=COLOURS.get(word, ""))


def remarks(view: PromiseView, now: int) -> list[str]:
    """What the state does not say: how long, until when, how often, why."""
    found: list[str] = []
    if view.settled_at is not None:
        took = view.settled_at - view.created_at
        found.append(span(took) if took > 0 else f"at {moment(view.settled_at, now)}")
    elif view.kind == "timer" and view.timeout_at is not None:
        found.append(f"until {moment(view.timeout_at, now)}, in {span(view.timeout_at - now)}")
    elif view.word == "retrying" and view.due_at is not None:
        found.append(f"again at {moment(view.due_at, now)}, in {span(view.due_at - now)}")
    else:
        found.append(f"for {span(now - view.created_at)}")
        if view.word == "waiting" and view.due_at is not None:
            found.append(f"until {moment(view.due_at, now)} at the latest")
        elif view.timeout_at is not None:
            found.append(f"deadline {moment(view.timeout_at, now)}")
    if view.attempt:
        # What a record counts are the attempts that were to be followed by another; did that fail too, it is one more.
        failed = view.attempt + (view.state == "rejected")
        found.append("1 failed attempt" if failed == 1 else f"{failed} failed attempts")
    if view.generation > 1:
        found.append(f"generation {view.generation}")
    if view.halted:
        found.append(f"halted: {clean(view.reason or 'by hand')}")
    return found


def outcome(view: PromiseView, limit: int = 60) -> str:
    if view.error is not None:
        text = f"{view.error.get('type', 'error')}: {view.error.get('message', '')}"
        return clean(text if len(text) <= limit else text[: limit - 1] + "…")
    return short(view.value, limit) if view.state == "resolved" and view.value is not None else ""


def line_of(view: PromiseView, now: int) -> Text:
    """A promise in one line."""
    text = Text.assemble(state_text(view), " ", (clean(view.id), "bold"), " ", call(view))
    text.append("  " + ", ".join(remarks(view, now)), style="bright_black")
    result = outcome(view)
    if result:
        text.append(f"  → {result}", style="red" if view.error is not None else "")
    return text


def tree_of(tree: TreeView, now: int) -> Tree:
    """The tree as rich draws it."""
    top = Tree(line_of(tree.promise, now), guide_style="bright_black")
    stack = [(tree, top)]
    while stack:
        node, branch = stack.pop()
        for child in node.children:
            stack.append((child, branch.add(line_of(child.promise, now))))
    return top


def table_of(views: list[PromiseView], now: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("state", "id", "run", "started", ""):
        table.add_column(name, overflow="ellipsis", no_wrap=True)
    for view in views:
        last = outcome(view, 40) or ", ".join(remarks(view, now)[1:])
        table.add_row(
            state_text(view),
            Text(clean(view.id)),
            Text(call(view, 24)),
            f"{span(now - view.created_at)} ago",
            Text(last),
        )
    return table


def cost_tables(id: str, report: CostReport) -> list[Table]:
    counts = Table(
        title=f"{clean(id)}: what it took", title_justify="left", box=None, pad_edge=False, show_header=False
    )
    counts.add_column("")
    counts.add_column("", justify="right")
    for kind, number in report.requests.items():
        counts.add_row(f"store requests: {kind}", f"{number:,}")
    counts.add_row("wake-ups", f"{report.wakeups:,}")
    counts.add_row("records", f"{report.records:,}")
    counts.add_row("bytes kept", f"{report.bytes:,}")
    prices = Table(title="at list prices", title_justify="left", box=None, pad_edge=False)
    prices.add_column("platform")
    prices.add_column("dollars per million such runs", justify="right")
    for platform, dollars in report.dollars.items():
        prices.add_row(_PLATFORMS.get(platform, platform), f"{dollars * 1_000_000:,.2f}")
    return [counts, prices]


def detail_of(view: PromiseView, now: int) -> Table:
    """Everything about one promise, a line each."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bright_black", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("id", Text(clean(view.id)))
    table.add_row("state", state_text(view))
    if view.name or view.args or view.kwargs:
        table.add_row("call", Text(call(view, 400)))
    table.add_row("time", Text(", ".join(remarks(view, now))))
    if view.waiting_for:
        table.add_row("waits for", Text(clean(", ".join(view.waiting_for))))
    if view.state == "resolved":
        table.add_row("value", Text(short(view.value, 100_000)))
    elif view.error is not None:
        table.add_row("error", Text(outcome(view, 100_000), style="red"))
    tags = {key: value for key, value in view.tags.items() if not key.startswith(("resonate:", "everstep:"))}
    if tags:
        table.add_row("tags", Text(clean(", ".join(f"{key}={value}" for key, value in tags.items()))))
    return table
