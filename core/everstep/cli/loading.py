"""`module:app`: from text to an App, or one sentence that says what is wrong and where."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from everstep.errors import UsageError
from everstep.registry import App

if TYPE_CHECKING:
    from everstep.mcp import Tools


class CannotLoad(UsageError):
    """The App could not be loaded; the message says why."""


def load_app(target: str) -> App:
    """The App that `module:app`, `module`, `folder/file.py:app` or `folder/file.py` names; `app` is the default name.

    The working directory, or the file's folder, goes to the front of `sys.path`, as for `python file.py`.

    Raises:
        CannotLoad: there is no such module or attribute, importing it failed, or it is no App.
    """
    value, place, attribute, module = _load(target)
    if not isinstance(value, App):
        raise CannotLoad(f"{place}:{attribute} is {_kind(value)}, not an App{_suggest(place, module)}")
    return value


def load_tools(target: str) -> App | Tools:
    """The same for what `everstep mcp` offers: an App, or `everstep.mcp.Tools`. Raises CannotLoad."""
    from everstep.mcp.tools import Tools

    value, place, attribute, module = _load(target)
    if not isinstance(value, App | Tools):
        raise CannotLoad(f"{place}:{attribute} is {_kind(value)}, neither an App nor Tools{_suggest(place, module)}")
    return value


def _load(target: str) -> tuple[object, str, str, ModuleType]:
    place, _, attribute = target.rpartition(":") if ":" in target[2:] else (target, "", "")
    if place.endswith(".py"):
        module = _from_file(place)
    elif os.sep in place or not all(part.isidentifier() for part in place.split(".")):
        raise CannotLoad(f"{target!r} names no module; write module:app, or file.py:app")
    else:
        module = _from_module(place)
    value: object = module
    for name in (attribute or "app").split("."):
        if not hasattr(value, name):
            raise CannotLoad(f"{place} has no attribute {name!r}{_suggest(place, module)}")
        value = getattr(value, name)
    return value, place, attribute or "app", module


def _kind(value: object) -> str:
    return "an App class" if value is App else f"a {type(value).__name__}"


def _suggest(place: str, module: ModuleType) -> str:
    apps = [name for name, value in vars(module).items() if isinstance(value, App)]
    if apps:
        return f"; it has {', '.join(f'{place}:{name}' for name in apps)}"
    return "; write app = App(...) there"


def _from_module(name: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise CannotLoad(f"there is no module {error.name!r} in {here} or on the path") from None
        raise CannotLoad(_failure(name, error)) from error
    except (Exception, SystemExit) as error:
        raise CannotLoad(_failure(name, error)) from error


def _from_file(place: str) -> ModuleType:
    path = Path(place).resolve()
    if not path.is_file():
        raise CannotLoad(f"there is no file {place}")
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(path.stem, None)
        raise CannotLoad(_failure(place, error)) from error
    return module


def _failure(place: str, error: Exception | SystemExit) -> str:
    """What failed, with the last line of the user's own code that took part."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{place} cannot be imported: {error.msg} ({error.filename}:{error.lineno})"
    where = ""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if "importlib" not in frame.filename and os.path.dirname(__file__) not in frame.filename:
            where = f" ({frame.filename}:{frame.lineno})"
            break
    hint = ""
    if isinstance(error, ModuleNotFoundError) and error.name:
        hint = f"; is {error.name.partition('.')[0]} installed in this environment?"
    return f"{place} cannot be imported: {type(error).__name__}: {error}{where}{hint}"
