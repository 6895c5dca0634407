"""A function's parameters, seen once: a call is checked, stored and restored against them.

The error names the parameter at the moment it is passed, which is the only moment when the caller can do something
about it. So what would not come back as it was (a subclass where the annotation names its base, a value of a type
whose annotation does not exist at run time) is refused here, and not discovered by a replay.
"""

from __future__ import annotations

import inspect
import typing
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .errors import DecodeError, NotSerializable
from .hints import Unresolved, function_hints
from .plain import plain
from .scalars import Coercer, told
from .shapes import coercer

__all__ = ["Signature", "signature_of"]

_AWAITED = ("Awaitable", "Coroutine", "Generator", "AsyncGenerator")


class Signature:
    """Parameters and return type of a function that a workflow calls.

    Attributes:
        name: how errors call it.
        skip_first: whether the first parameter is the Context, which callers do not pass.
        parameters: the others, in order.
    """

    __slots__ = (
        "_args",
        "_by_name",
        "_by_position",
        "_converts",
        "_hints",
        "_keyword",
        "_raw",
        "_required",
        "_rest",
        "_result",
        "_result_ready",
        "_unresolved",
        "fn",
        "name",
        "parameters",
        "positional",
        "skip_first",
    )

    def __init__(self, fn: Callable[..., Any], skip_first: bool | None = None, name: str | None = None) -> None:
        self.fn: weakref.ref[Any] | Callable[[], Any] = _reference(fn)
        self.name = name or getattr(fn, "__name__", None) or type(fn).__name__
        found, returned = _inspect(fn)
        self.skip_first = _takes_context(found) if skip_first is None else skip_first
        if self.skip_first and found and found[0].kind in _POSITIONAL:
            found = found[1:]
        self.parameters = tuple(found)
        self.positional = tuple(parameter for parameter in found if parameter.kind in _POSITIONAL)
        self._required = sum(1 for parameter in self.positional if parameter.default is parameter.empty)
        self._by_position = not any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in found)
        self._rest = next((p for p in found if p.kind is p.VAR_POSITIONAL), None)
        self._keyword = next((p for p in found if p.kind is p.VAR_KEYWORD), None)
        self._by_name = {p.name: p for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        self._raw = {p.name: p.annotation for p in found if p.annotation is not p.empty}
        if returned is not inspect.Signature.empty:
            self._raw["return"] = returned
        self._hints: dict[str, Any] | None = None
        self._args: dict[str, Coercer | None] = {}
        self._converts: tuple[Coercer | None, ...] | None = None
        self._result: Coercer | None = None
        self._result_ready = False
        self._unresolved: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<Signature of {self.name}({', '.join(str(parameter) for parameter in self.parameters)})>"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters that can be given by position, in order."""
        return tuple(parameter.name for parameter in self.positional)

    @property
    def hints(self) -> dict[str, Any]:
        """Resolved annotations by parameter name, and `return`; one that names nothing at run time is absent."""
        hints = self._hints
        if hints is None:
            target = self.fn()
            resolved = function_hints(target, self._raw) if target is not None else {}
            self._unresolved = {name: hint.text for name, hint in resolved.items() if isinstance(hint, Unresolved)}
            self._hints = hints = {name: hint for name, hint in resolved.items() if name not in self._unresolved}
        return hints

    @property
    def returns(self) -> Any:
        """The annotation of the value in the end: what a generator returns, what an awaitable gives."""
        return _awaited(self.hints.get("return", Any))

    @property
    def unresolved(self) -> dict[str, str]:
        """The text of annotations that name nothing at run time, by parameter name or `return`."""
        _ = self.hints
        return self._unresolved

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Check a call and return it in one form: what can be positional is, so that equal calls look equal.

        Raises:
            TypeError: too many, missing, unexpected or doubled arguments.
        """
        count = len(args)
        if not kwargs and self._by_position and self._required <= count <= len(self.positional):
            return list(args), {}
        if count > len(self.positional) and self._rest is None:
            most = len(self.positional)
            raise TypeError(f"{self.name}() takes {most} positional argument{'s' * (most != 1)} but {count} were given")
        given = list(args)
        left = dict(kwargs)
        for parameter in self.positional[:count]:
            if parameter.name in left and parameter.name in self._by_name:
                raise TypeError(f"{self.name}() got two values for the argument {parameter.name!r}")
        for parameter in self.positional[count:]:
            if parameter.name not in self._by_name or parameter.name not in left:
                break
            given.append(left.pop(parameter.name))
        for name in left:
            if name not in self._by_name and self._keyword is None:
                raise TypeError(f"{self.name}() got an unexpected argument {name!r}{self._meant(name)}")
        missing = [
            parameter.name
            for index, parameter in enumerate(self.parameters)
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            and not (parameter.kind in _POSITIONAL and index < len(given))
            and not (parameter.name in self._by_name and parameter.name in left)
        ]
        if missing:
            names = ", ".join(map(repr, missing))
            raise TypeError(f"{self.name}() is missing the argument{'s' * (len(missing) != 1)} {names}")
        return given, {name: left[name] for name in (*self._by_name, *left) if name in left}

    def _meant(self, name: str) -> str:
        import difflib

        close = difflib.get_close_matches(name, self._by_name, 1)
        return f"; did you mean {close[0]!r}?" if close else ""

    def plain_args(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Check a call and put it into its stored form.

        Raises:
            NotSerializable: an argument cannot be stored, or would not come back as it was; it is named.
            TypeError: the call does not fit the parameters, or an argument does not fit its annotation.
        """
        given, named = self.bind(args, kwargs)
        flat = [self._plain(self._at(index), value) for index, value in enumerate(given)]
        return flat, {name: self._plain(name, value) for name, value in named.items()}

    def _plain(self, name: str, value: Any) -> Any:
        where = f"argument {name!r} of {self.name}()"
        return self._checked(plain(value, where), value, self._coercer(name), name, where)

    def _checked(self, flat: Any, value: Any, convert: Coercer | None, name: str, where: str) -> Any:
        if convert is None:
            text = self.unresolved.get(name) or self._rest_text(name)
            if text is not None and flat is not value:
                raise NotSerializable(
                    f"{where}: a {type(value).__name__} cannot come back as one, because its annotation {text!r} "
                    "names nothing that exists at run time (imported for type checkers alone, or local to a function)"
                )
            return flat
        try:
            back = told(convert, flat, where)
        except DecodeError as error:
            raise TypeError(str(error)) from error.__cause__
        if flat is not value and plain(back, where) != flat:
            raise NotSerializable(
                f"{where}: a {type(value).__name__} would come back as a {type(back).__name__} with other contents; "
                "the annotation must name its own type"
            )
        return flat

    def _rest_text(self, name: str) -> str | None:
        if name in self._by_name or not self._unresolved:
            return None
        holder = self._rest if name.startswith("*") else self._keyword
        return self._unresolved.get(holder.name) if holder is not None else None

    def plain_result(self, value: Any) -> Any:
        """Put a result into its stored form.

        Raises:
            NotSerializable: it cannot be stored, or would not come back as it was.
            TypeError: it does not fit the return annotation.
        """
        where = f"result of {self.name}()"
        return self._checked(plain(value, where), value, self._result_coercer(), "return", where)

    def coerce_args(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Restore stored arguments to the annotated types.

        Raises:
            DecodeError: one does not fit; the message names it and the path inside it.
        """
        converts = self._converts
        if converts is None:
            converts = self._converts = tuple(self._coercer(parameter.name) for parameter in self.positional)
        if not kwargs and len(args) <= len(converts):
            try:
                return [
                    value if convert is None else convert(value) for value, convert in zip(args, converts, strict=False)
                ], {}
            except (DecodeError, RecursionError):
                pass  # said again below, by name
        return (
            [self._restored(self._at(index), value) for index, value in enumerate(args)],
            {name: self._restored(name, value) for name, value in kwargs.items()},
        )

    def _restored(self, name: str, value: Any) -> Any:
        convert = self._coercer(name)
        return value if convert is None else told(convert, value, f"argument {name!r} of {self.name}()")

    def coerce_result(self, value: Any) -> Any:
        """Restore a stored result to the return annotation; DecodeError where it does not fit."""
        convert = self._result if self._result_ready else self._result_coercer()
        return value if convert is None else told(convert, value, f"result of {self.name}()")

    def result_coercer(self) -> Coercer | None:
        """`coerce_result` as a function to keep, or None where every result is taken as it is."""
        return None if self._result_coercer() is None else self.coerce_result

    def _at(self, index: int) -> str:
        if index < len(self.positional):
            return self.positional[index].name
        return f"*{self._rest.name}[{index - len(self.positional)}]" if self._rest is not None else f"#{index}"

    def _coercer(self, name: str) -> Coercer | None:
        try:
            return self._args[name]
        except KeyError:
            pass
        hints = self.hints
        if name in self._by_name or any(name == parameter.name for parameter in self.positional):
            found = coercer(hints.get(name, Any))
            self._args[name] = found
            return found
        # What *args and **kwargs collect has no name of its own, and no bound: not kept.
        holder = self._rest if name.startswith("*") else self._keyword
        hint = hints.get(holder.name, Any) if holder is not None else Any
        if holder is self._keyword and typing.get_origin(hint) is typing.Unpack:
            from .hints import class_hints

            hint = class_hints(typing.get_args(hint)[0]).get(name, Any)
        elif typing.get_origin(hint) is typing.Unpack:
            hint = Any
        return coercer(hint)

    def _result_coercer(self) -> Coercer | None:
        if not self._result_ready:
            self._result = coercer(self.returns)
            self._result_ready = True
        return self._result


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _inspect(fn: Callable[..., Any]) -> tuple[list[inspect.Parameter], Any]:
    import sys

    try:
        if sys.version_info >= (3, 14):
            import annotationlib

            found = inspect.signature(fn, annotation_format=annotationlib.Format.FORWARDREF)
        else:
            found = inspect.signature(fn)
    except ValueError:  # some builtins have none: any call is as good as another
        kinds = (("args", inspect.Parameter.VAR_POSITIONAL), ("kwargs", inspect.Parameter.VAR_KEYWORD))
        return [inspect.Parameter(name, kind) for name, kind in kinds], inspect.Signature.empty
    return list(found.parameters.values()), found.return_annotation


def _takes_context(parameters: Sequence[inspect.Parameter]) -> bool:
    """The first parameter is annotated with Context, or bears no annotation and the name `ctx`."""
    if not parameters or parameters[0].kind not in _POSITIONAL:
        return False
    first = parameters[0]
    if first.annotation is first.empty:
        return first.name == "ctx"
    if isinstance(first.annotation, type):
        return first.annotation.__name__ == "Context" and first.annotation.__module__.partition(".")[0] == "everstep"
    text = getattr(first.annotation, "__forward_arg__", first.annotation)
    return isinstance(text, str) and text.strip("'\" ").rpartition(".")[2] == "Context"


def _awaited(annotation: Any) -> Any:
    """The type of the value in the end: what a generator returns, what an awaitable gives."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    name = getattr(origin, "__name__", "") if origin is not None else ""
    if getattr(origin, "__module__", "") != "collections.abc":
        return annotation
    if name in ("Generator", "Coroutine"):
        return args[2] if len(args) == 3 else Any
    if name == "Awaitable":
        return args[0]
    return Any if name in ("Iterator", "AsyncGenerator", "AsyncIterator") else annotation


def _reference(fn: Any) -> Callable[[], Any]:
    # Only a plain function: a bound method dies as soon as it is let go, though its function lives.
    return weakref.ref(fn) if inspect.isfunction(fn) else lambda: fn


_known: weakref.WeakKeyDictionary[Any, Signature] = weakref.WeakKeyDictionary()


def signature_of(fn: Callable[..., Any], skip_first: bool | None = None) -> Signature:
    """The signature of a function, from a cache that does not keep the function alive.

    Args:
        fn: any callable.
        skip_first: whether its first parameter is the Context; by default told from its annotation or the name `ctx`.
    """
    if not inspect.isfunction(fn):
        return Signature(fn, skip_first)
    found = _known.get(fn)
    if found is None or (skip_first is not None and found.skip_first is not skip_first):
        found = _known[fn] = Signature(fn, skip_first)
    return found
