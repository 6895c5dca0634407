"""What is offered, declared: a name for each workflow, the id its runs get, and how long a call waits.

An id is a template over arguments, `timer-{name}`: equal arguments, equal run. Without one it is the tool's name and a
digest of all arguments, so that nothing of them shows in ids and nobody can tell two calls of one run apart.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from everstep.errors import InvalidArgument
from everstep.registry import App, OnConflict, Workflow

NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(frozen=True, slots=True)
class Tool:
    """A workflow as a tool.

    Attributes:
        workflow: registered, or the name of one.
        name: of the tool; the workflow's by default.
        description: what a model reads to decide; the workflow's docstring by default.
        id: template of the run's id, over the workflow's arguments; made of all of them by default.
        wait: seconds to wait for the run, which the caller can then not choose; 0 answers with the id at once.
        on_conflict: "attach" takes the run that has the id, whatever it does.
    """

    workflow: Workflow[..., Any] | str
    name: str | None = None
    description: str | None = None
    id: str | None = None
    wait: float | None = None
    on_conflict: OnConflict = "raise"


@dataclass(frozen=True, slots=True)
class Probe:
    """A tool that says how a run is, and its result where there is one.

    Attributes:
        name: of the tool.
        id: template of the run's id; its fields are the tool's arguments.
        description: what a model reads to decide.
    """

    name: str
    id: str = "{id}"
    description: str = "How a run is, and its result once it is done."


@dataclass(frozen=True, slots=True)
class Await:
    """A tool that waits for several runs, and answers with all of them.

    Attributes:
        name: of the tool.
        id: template of a run's id with one field; the tool's argument is a list named after it, `{job}` as `jobs`.
        description: what a model reads to decide.
    """

    name: str
    id: str = "{id}"
    description: str = "Wait for runs, and tell how each of them is; those that are done with their results."


Entry = Tool | Probe | Await


class Tools:
    """What a server offers: `everstep mcp module:tools`.

    Args:
        app: whose workflows they are.
        entries: by default every workflow of the App as a Tool.
        standard: offer `get_run`, `await_runs`, `listen`, `search_runs`, `settle_promise` and `cancel_run` too.
        scripts: the group of script runners that `run_script` submits to (`bash://<scripts>`); None offers no such
            tool. Whoever may call it may run any program there.
        instructions: a few lines for the model about all of it.
    """

    def __init__(
        self,
        app: App,
        *entries: Entry,
        standard: bool = True,
        scripts: str | None = None,
        instructions: str | None = None,
    ) -> None:
        self.app = app
        self.entries = entries or tuple(Tool(workflow) for workflow in app.workflows)
        self.standard = standard
        self.scripts = scripts
        self.instructions = instructions


def check_name(name: str) -> str:
    """A tool's name as clients accept it. Raises InvalidArgument."""
    if not NAME.fullmatch(name):
        raise InvalidArgument(
            f"a tool cannot be called {name!r}: at most 128 letters, digits, . - and _; give Tool(..., name=)"
        )
    return name


def fields(template: str) -> list[str]:
    """The names in a template, in order. Raises InvalidArgument."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise InvalidArgument(f"the id template {template!r}: {error}") from None
    found = []
    for _, name, spec, conversion in parts:
        if name is None:
            continue
        if not name.isidentifier() or spec or conversion:
            raise InvalidArgument(f"the id template {template!r}: {{{name}}} is no argument's name")
        found.append(name)
    return list(dict.fromkeys(found))


def fill(template: str, values: Mapping[str, Any]) -> str:
    """An id. Dots, which separate a run from its steps, come out as %2E, so that `v1.2` can name a run."""
    return template.format_map({name: _text(value) for name, value in values.items()})


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":"))
    return text.replace("%", "%25").replace(".", "%2E")
