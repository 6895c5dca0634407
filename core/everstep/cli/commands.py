"""The command group, and how every command ends: errors become one red line, and everything becomes an exit code."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Sequence

import click

from everstep.cli import version
from everstep.errors import Conflict, EverstepError

from . import look, settle, tools, work
from .options import DONE, PENDING, USAGE


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}, no_args_is_help=True)
@click.version_option(version(), "-V", "--version", message="everstep %(version)s")
def group() -> None:
    """Durable workflows in plain Python.

    Exit codes: 0 done, 1 the workflow failed or a check found something, 2 it cannot be asked that way, 3 still
    pending.
    """


COMMANDS = (
    *(work.new, work.dev, work.run_command, work.start, work.schedule),
    *(look.get, look.tree, look.ls, settle.resolve, settle.reject, settle.cancel, settle.halt, settle.continue_),
    *(look.verify, look.sweep, look.cost, look.check, tools.mcp, tools.bash),
)
_NO_ARGUMENTS: tuple[type[click.UsageError], ...] = tuple(
    getattr(click.exceptions, name) for name in ("NoArgsIsHelpError",) if hasattr(click.exceptions, name)
)
"""A group without a command shows its help, which newer versions of the library raise as an error."""

for command in COMMANDS:
    group.add_command(command)


def run(arguments: Sequence[str]) -> int:
    """One command from start to end: errors become one red line, and everything becomes an exit code."""
    # Whoever reads our pipe gets what this says whatever the locale can spell.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    debug = "--debug" in arguments
    as_json = "--json" in arguments
    try:
        code = group.main(list(arguments), prog_name="everstep", standalone_mode=False)
        return code if isinstance(code, int) else DONE
    except _NO_ARGUMENTS as error:
        print(error.format_message())
        return USAGE
    except click.UsageError as error:
        hint = f"; see {error.ctx.command_path} --help" if error.ctx is not None else ""
        return _fail(error.format_message().rstrip(".") + hint, error, as_json)
    except click.ClickException as error:
        return _fail(error.format_message(), error, as_json)
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt, asyncio.CancelledError):
        return PENDING
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  nothing can be said to a reader who left
        return DONE
    except EverstepError as error:
        if debug:
            raise
        attachable = isinstance(error, Conflict) and error.attachable
        return _fail(f"{error.args[0]}, or give --attach" if attachable else str(error), error, as_json)
    except Exception as error:
        if debug:
            raise
        # Arguments that do not fit a workflow are a TypeError that names them; anything else is a mistake of ours.
        ours = not isinstance(error, TypeError)
        text = f"{type(error).__name__}: {error}; --debug shows where" if ours else str(error)
        return _fail(text, error, as_json)


def _fail(text: str, error: BaseException, as_json: bool) -> int:
    from .words import clean

    text = " ".join(text.split())  # a driver's message may have lines of its own
    if as_json:
        print(json.dumps({"error": type(error).__name__, "message": text}, ensure_ascii=False), file=sys.stderr)
    else:
        click.secho(f"everstep: {clean(text)}", fg="red", err=True)
    return USAGE
