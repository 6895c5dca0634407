"""Commands that look: get, tree, ls, verify, sweep, cost, check."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

import click

from .loading import load_app
from .options import DONE, FAILED, asked, common, inspecting, pairs

if TYPE_CHECKING:
    from everstep.client import Client


@click.command("get")
@click.argument("id")
@click.option("--wait", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait for it to settle, so long at most.")
@inspecting
def get(id: str, wait: float | None, store: str, target: str | None, as_json: bool) -> int:
    """Show a promise; the exit code tells its state."""
    from .running import code_of
    from .show import console, detail_of, print_json

    async def work(client: Client) -> int:
        view = await client.get(id) if wait is None else await client.wait(id, wait)
        if as_json:
            print_json(view.to_dict())
        else:
            console().print(detail_of(view, client.clock.now()))
        return code_of(view)

    return asked(work, store, target)


@click.command("tree")
@click.argument("id")
@inspecting
def tree(id: str, store: str, target: str | None, as_json: bool) -> int:
    """Draw a run: what it did, does, and waits for until when."""
    from .show import console, print_json, tree_of

    async def work(client: Client) -> int:
        found = await client.tree(id)
        if as_json:
            print_json(found.to_dict())
        else:
            console().print(tree_of(found, client.clock.now()))
        return DONE

    return asked(work, store, target)


@click.command("ls")
@click.option(
    "--state",
    type=click.Choice(["pending", "halted", "resolved", "rejected", "rejected_canceled", "rejected_timedout"]),
)
@click.option("--tag", multiple=True, metavar="NAME=VALUE", help="All must match.")
@click.option("--prefix", default="", help="Of the id; ID. for the runs of a schedule.")
@click.option("--all", "everything", is_flag=True, help="Steps, timers and promises too, not only runs.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@click.option("--cursor", help="Of the page before.")
@inspecting
def ls(
    state: str | None,
    tag: tuple[str, ...],
    prefix: str,
    everything: bool,
    limit: int,
    cursor: str | None,
    store: str,
    target: str | None,
    as_json: bool,
) -> int:
    """List runs."""
    from .show import console, print_json, table_of
    from .words import clean

    async def work(client: Client) -> int:
        tags = pairs(tag, "--tag", json_values=False)
        views, more = await client.search(
            state=state, tags=tags or None, prefix=prefix, roots=not everything, limit=limit, cursor=cursor
        )
        if as_json:
            print_json({"promises": [view.to_dict() for view in views], "cursor": more})
            return DONE
        if views:
            console().print(table_of(views, client.clock.now()))
        else:
            console(stderr=True).print("no run fits" if state or tag or prefix else "no runs yet")
        if more is not None:
            console(stderr=True).print(f"there are more: --cursor {shlex.quote(clean(more))}", markup=False)
        return DONE

    return asked(work, store, target)


@click.command("verify")
@click.option("--repair", is_flag=True, help="Restore what is missing.")
@inspecting
def verify(repair: bool, store: str, target: str | None, as_json: bool) -> int:
    """Check that every pending run has its next wake-up."""
    from .show import console, print_json
    from .words import clean

    async def work(client: Client) -> int:
        report = await client.verify(repair)
        if as_json:
            print_json(report.to_dict())
        else:
            for problem in report.problems:
                end = "  repaired" if problem.repaired else ""
                style = "yellow" if problem.repaired else "red"
                console().print(f"{clean(problem.id)}: {clean(problem.what)}{end}", style=style, markup=False)
            left = sum(not problem.repaired for problem in report.problems)
            text = f"{report.checked} pending checked, " + (
                f"{left} would never move again" if left else "all will move"
            )
            if left and not repair:
                text += "; everstep verify --repair restores them"
            console(stderr=True).print(text)
        return DONE if report.sound else FAILED

    return asked(work, store, target)


@click.command("sweep")
@inspecting
def sweep(store: str, target: str | None, as_json: bool) -> int:
    """Send overdue wake-ups again, remove what is past retention."""
    from .show import print_json

    async def work(client: Client) -> int:
        report = await client.sweep()
        if as_json:
            print_json(report.to_dict())
        else:
            click.echo(f"{report.fired} overdue wake-ups sent, {report.purged} expired runs removed")
        return DONE

    return asked(work, store, target)


@click.command("cost")
@click.argument("id")
@inspecting
def cost(id: str, store: str, target: str | None, as_json: bool) -> int:
    """Count what a recorded run took, and price it on each platform."""
    from .show import console, cost_tables, print_json

    async def work(client: Client) -> int:
        report = await client.cost(id)
        if as_json:
            print_json(report.to_dict())
        else:
            for table in cost_tables(id, report):
                console().print(table)
        return DONE

    return asked(work, store, target)


@click.command("check")
@click.argument("target", metavar="MODULE:APP")
@common
def check(target: str, as_json: bool) -> int:
    """Look at workflow bodies for what a replay cannot repeat. A line ending in `# everstep: ok` is left alone."""
    from everstep.staticcheck import check as look

    from .show import console, print_json
    from .words import clean

    app = load_app(target)
    found = look(app)
    if as_json:
        print_json({"findings": [one.to_dict() for one in found]})
    else:
        for one in found:
            place = os.path.relpath(one.file) if one.file.startswith(os.getcwd() + os.sep) else one.file
            console().print(
                f"{clean(place)}:{one.line}: {clean(one.workflow)}: {clean(one.what)}; instead: {one.instead}",
                markup=False,
            )
        count = len(app.workflows)
        checked = "1 workflow" if count == 1 else f"{count} workflows"
        result = f"{len(found)} found" if found else "nothing found"
        console(stderr=True).print(f"{checked} checked, {result}", style="red" if found else "green")
    return FAILED if found else DONE
