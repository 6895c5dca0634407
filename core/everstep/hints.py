"""Annotations, resolved as far as they go: one that cannot be resolved stays one, and does not spoil the others.

`typing.get_type_hints` gives up on a whole function when one name is only imported for type checkers, or is local to
a function. Here each annotation that resists becomes an `Unresolved`, and whoever needs it says so by name.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["Unresolved", "class_hints", "function_hints", "resolve", "substitute"]


class Unresolved(NamedTuple):
    """An annotation whose text names something that does not exist at run time."""

    text: str


def raw_annotations(cls: type) -> dict[str, Any]:
    """A class's own annotations as written; from Python 3.14 on, without evaluating names that do not exist."""
    if sys.version_info >= (3, 14):
        import annotationlib

        return dict(annotationlib.get_annotations(cls, format=annotationlib.Format.FORWARDREF))
    import inspect

    return inspect.get_annotations(cls)


def resolve(annotations: Mapping[str, Any], globals: dict[str, Any], locals: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluate each annotation on its own in the given namespaces."""
    return {name: _resolve_one(annotation, globals, locals) for name, annotation in annotations.items()}


def _resolve_one(annotation: Any, globals: dict[str, Any], locals: Mapping[str, Any]) -> Any:
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation

    def holder() -> None: ...

    holder.__annotations__ = {"it": annotation}
    try:
        return typing.get_type_hints(holder, globals, dict(locals), include_extras=True)["it"]
    except Exception:
        # Anything can go wrong in evaluating someone's annotation: a name missing, `|` between strings, a subscript.
        return Unresolved(annotation if isinstance(annotation, str) else getattr(annotation, "__forward_arg__", "?"))


def function_hints(fn: Any, annotations: Mapping[str, Any]) -> dict[str, Any]:
    """Resolve a function's annotations in its module and its closure."""
    inner = _innermost(fn)
    if isinstance(inner, type):
        module = sys.modules.get(inner.__module__)
        return resolve(annotations, vars(module) if module else {}, {inner.__name__: inner})
    return resolve(annotations, getattr(inner, "__globals__", {}), _closure(inner))


def _innermost(fn: Any) -> Any:
    """The function whose source the annotations are in, as inspect.signature finds it."""
    while not isinstance(fn, type):
        for name in ("__wrapped__", "__func__", "func"):
            if hasattr(fn, name):
                fn = getattr(fn, name)
                break
        else:
            if hasattr(fn, "__globals__") or not hasattr(type(fn).__call__, "__globals__"):
                return fn
            fn = type(fn).__call__
    return fn


def _closure(fn: Any) -> dict[str, Any]:
    names = getattr(getattr(fn, "__code__", None), "co_freevars", ())
    cells = {}
    for name, cell in zip(names, getattr(fn, "__closure__", None) or (), strict=False):
        try:
            cells[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return cells


def class_hints(cls: type) -> dict[str, Any]:
    """Resolve the annotations of a class and its bases, each in its own module."""
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except Exception:
        hints: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            module = sys.modules.get(base.__module__)
            names = vars(module) if module else {}
            hints.update(resolve(raw_annotations(base), names, {cls.__name__: cls, base.__name__: base}))
        return hints


def substitute(annotation: Any, arguments: Mapping[Any, Any]) -> Any:
    """Put a generic class's arguments in the place of its type variables."""
    if not arguments:
        return annotation
    if isinstance(annotation, typing.TypeVar):
        return arguments.get(annotation, annotation)
    parameters = getattr(annotation, "__parameters__", ())
    if not parameters or isinstance(annotation, type):
        return annotation
    return annotation[tuple(arguments.get(parameter, parameter) for parameter in parameters)]
