"""JSON-plain values to annotated types: an annotation is compiled once into a function, and what does not fit is said.

Nothing is converted that is not the stored form of the type (`plain` lists the forms): "4200" is no int and 1 is no
bool, but an int is taken for a float and a bool for an int, as type checkers do. A dataclass field that is missing
takes its default, and a key it does not know is ignored, so that records outlive small changes of a class. A class
is built by calling it; fields with `init=False` are then set to what was stored.

Messages name types and paths, never values.
"""

from __future__ import annotations

import collections.abc as abc
import typing
from collections.abc import Callable
from typing import Any

from .choices import enum, literal, union
from .hints import Unresolved, class_hints, substitute
from .plain import family, models_by_name, step, type_name
from .scalars import SCALARS, Coercer, Misfit, named, never, none, same, told, wrong

__all__ = ["coerce", "coercer"]


def coerce(value: Any, annotation: Any) -> Any:
    """A JSON-plain value as the annotated type; as it is, where the annotation asks for nothing.

    Raises:
        DecodeError: it does not fit; the message holds the path, what was expected and the type that is there.
    """
    convert = coercer(annotation)
    if convert is None:
        return value
    return told(convert, value, "")


_cache: dict[Any, Coercer | None] = {}


def coercer(annotation: Any) -> Coercer | None:
    """The compiled conversion to an annotation, or None where every value is taken as it is.

    It raises a DecodeError on a misfit; `coerce` and `Signature` add what the value is.
    """
    # `int | str` equals `str | int`, and what a union means may depend on its order: tell them apart by their text.
    key = annotation if type(annotation) is type else (annotation, repr(annotation))
    try:
        return _cache[key]
    except KeyError:
        found = _cache[key] = _compile(annotation, {})
        return found
    except TypeError:  # not hashable, such as Annotated[int, []]
        return _compile(annotation, {})


_Seen = dict[Any, Coercer]
_NOTHING = (Any, object, typing.NoReturn, typing.Never, typing.Self, ...)
_TRANSPARENT = ("Annotated", "Required", "NotRequired", "ReadOnly", "Final", "ClassVar")
_LISTS = (abc.Sequence, abc.MutableSequence, abc.Iterable, abc.Collection, abc.Reversible, abc.Container)
_SETS = (abc.Set, abc.MutableSet)
_DICTS = (abc.Mapping, abc.MutableMapping)


def _compile(annotation: Any, seen: _Seen) -> Coercer | None:
    if any(annotation is nothing for nothing in _NOTHING) or _is_empty(annotation):
        return None
    if annotation is None or annotation is type(None):
        return none
    if isinstance(annotation, (Unresolved, str, typing.ForwardRef)):
        text = getattr(annotation, "text", None) or getattr(annotation, "__forward_arg__", annotation)
        return never(f"the annotation {text!r} names nothing that exists at run time")
    if isinstance(annotation, typing.TypeVar):
        if annotation.__constraints__:
            return union(annotation.__constraints__, lambda member: _compile(member, seen))
        return None if annotation.__bound__ is None else _compile(annotation.__bound__, seen)
    if hasattr(annotation, "__supertype__"):  # NewType
        return _compile(annotation.__supertype__, seen)
    if type(annotation).__name__ == "TypeAliasType":
        return _alias(annotation, (), seen)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is not None:
        if type(origin).__name__ == "TypeAliasType":
            return _alias(origin, args, seen)
        name = getattr(origin, "_name", None) or getattr(origin, "__name__", "")
        if name in ("Union", "UnionType"):
            return union(args, lambda member: _compile(member, seen))
        if name == "Literal":
            return literal(args)
        if name in _TRANSPARENT or hasattr(annotation, "__metadata__"):
            return _compile(args[0], seen) if args else None
        return _class(origin, args, annotation, seen)
    if isinstance(annotation, type):
        return _class(annotation, (), annotation, seen)
    return None  # ParamSpec, bare Final and what else says nothing about a value


def _is_empty(annotation: Any) -> bool:
    return isinstance(annotation, type) and annotation.__module__ == "inspect" and annotation.__name__ == "_empty"


def _class(cls: type, args: tuple[Any, ...], annotation: Any, seen: _Seen) -> Coercer | None:
    found = family(cls)
    if "__total__" in cls.__dict__ and hasattr(cls, "__required_keys__"):
        return _recursive(annotation, seen, lambda: _typed_dict(cls, args, seen))
    if found == "dataclass":
        return _recursive(annotation, seen, lambda: _dataclass(cls, args, seen))
    if found == "tuple" and hasattr(cls, "_fields"):
        return _recursive(annotation, seen, lambda: _named_tuple(cls, args, seen))
    if found == "enum":
        return enum(cls)
    if found == "model":
        return _model(cls)
    if found == "tuple":
        bare = annotation is cls or annotation is typing.Tuple  # noqa: UP006  # unlike tuple[()]
        return _many(cls, (), seen) if bare else _tuple(cls, args, seen)
    if cls in _LISTS or found in ("list", "deque"):
        return _many(None if cls in _LISTS or cls is list else cls, args, seen)
    if cls in _SETS or found == "set":
        return _many(set if cls in _SETS else cls, args, seen)
    if cls in _DICTS or found == "dict":
        return _dict(None if cls in _DICTS or cls is dict else cls, args, seen)
    if found in SCALARS:
        return SCALARS[found](cls)
    if cls.__module__ == "builtins" and cls.__name__ == "memoryview":
        return lambda value: memoryview(SCALARS["bytes"](bytes)(value))
    return _instance(cls)


def _recursive(annotation: Any, seen: _Seen, build: Callable[[], Coercer]) -> Coercer:
    """Compile a type that may mention itself: while it is being built, it is a reference to what it will be."""
    try:
        if annotation in seen:
            return seen[annotation]
    except TypeError:
        return build()
    made: list[Coercer] = []
    seen[annotation] = lambda value: made[0](value)
    made.append(build())
    seen[annotation] = made[0]
    return made[0]


def _alias(alias: Any, args: tuple[Any, ...], seen: _Seen) -> Coercer | None:
    def build() -> Coercer:
        try:
            target = alias.__value__
        except Exception:
            return never(f"the type alias {alias.__name__} cannot be resolved")
        parameters = getattr(alias, "__type_params__", ())
        return _compile(substitute(target, dict(zip(parameters, args, strict=False))), seen) or same

    return _recursive((alias, args), seen, build)


def _instance(cls: type) -> Coercer:
    """Any other class: a plain value may be an instance of it (a runtime protocol, `numbers.Number`), or cannot be."""

    def check(value: Any) -> Any:
        try:
            if isinstance(value, cls):
                return value
        except TypeError:  # a protocol that is not checked at run time
            return value
        raise Misfit(f"{type_name(cls)} cannot be built from a stored value, and {named(value)} is none")

    return check


def _each(convert: Coercer, items: list[Any]) -> list[Any]:
    try:
        return [convert(item) for item in items]
    except Misfit:
        for index, item in enumerate(items):
            try:
                convert(item)
            except Misfit as misfit:
                misfit.path.append(f"[{index}]")
                raise
        raise


def _many(cls: type | None, args: tuple[Any, ...], seen: _Seen) -> Coercer:
    item = _compile(args[0], seen) if args else None
    expected = "a list" if cls is None else f"a list for {type_name(cls)}"

    def collection(value: Any) -> Any:
        if type(value) is not list:
            raise wrong(expected, value)
        items = value if item is None else _each(item, value)
        if cls is None:
            return items
        try:
            return cls(items)
        except TypeError as error:
            raise Misfit(f"the items cannot be in a {type_name(cls)}") from error

    return collection


def _tuple(cls: type, args: tuple[Any, ...], seen: _Seen) -> Coercer:
    if len(args) == 2 and args[1] is ...:
        return _many(cls, args[:1], seen)
    items = [_compile(arg, seen) for arg in args]

    def fixed(value: Any) -> Any:
        if type(value) is not list:
            raise wrong(f"a list of {len(items)}", value)
        if len(value) != len(items):
            raise Misfit(f"expected a list of {len(items)}, got one of {len(value)}")
        return cls(_at(index, convert, value[index]) for index, convert in enumerate(items))

    return fixed


def _at(place: int | str, convert: Coercer | None, value: Any) -> Any:
    if convert is None:
        return value
    try:
        return convert(value)
    except Misfit as misfit:
        misfit.path.append(step(place))
        raise


def _dict(cls: Any, args: tuple[Any, ...], seen: _Seen) -> Coercer:
    key = _key(args[0], seen) if args else None
    item = _compile(args[-1] if len(args) == 2 else int, seen) if args else None  # Counter[str] counts in int

    def mapping(value: Any) -> Any:
        if type(value) is not dict:
            raise wrong("an object", value)
        made = value
        if key is not None or item is not None:
            made = {_at(name, key, name): _at(name, item, inner) for name, inner in value.items()}
        if cls is None:
            return made
        return cls(None, made) if hasattr(cls, "__missing__") and cls.__name__ == "defaultdict" else cls(made)

    return mapping


def _key(annotation: Any, seen: _Seen) -> Coercer | None:
    convert = _compile(annotation, seen)
    if convert is None or annotation is str:
        return None

    def key(text: str) -> Any:
        try:
            return convert(text)
        except Misfit:
            digits = text[1:] if text.startswith("-") else text
            if not (digits.isascii() and digits.isdigit()) or len(digits) > 4300 or str(int(text)) != text:
                raise
            return convert(int(text))

    return key


def _fields(cls: Any, args: tuple[Any, ...]) -> dict[str, Any]:
    arguments = dict(zip(getattr(cls, "__parameters__", ()), args, strict=False))
    return {name: substitute(hint, arguments) for name, hint in class_hints(cls).items()}


def _dataclass(cls: Any, args: tuple[Any, ...], seen: _Seen) -> Coercer:
    from dataclasses import MISSING, fields

    hints = _fields(cls, args)
    given: list[tuple[str, Coercer | None, bool]] = []
    later: list[tuple[str, Coercer | None, bool]] = []
    for field in fields(cls):
        convert = _compile(hints.get(field.name, Any), seen)
        required = field.default is MISSING and field.default_factory is MISSING
        (given if field.init else later).append((field.name, convert, required))

    def build(value: Any) -> Any:
        if type(value) is not dict:
            raise wrong(f"an object for {type_name(cls)}", value)
        arguments = {}
        for name, convert, required in given:
            if name in value:
                arguments[name] = _at(name, convert, value[name])
            elif required:
                raise Misfit(f"the field {name!r} of {type_name(cls)} is missing")
        try:
            made = cls(**arguments)
        except Exception as error:
            raise Misfit(f"{type_name(cls)} refused the stored fields: {type(error).__name__}") from error
        for name, convert, _ in later:
            if name in value:
                object.__setattr__(made, name, _at(name, convert, value[name]))
        return made

    return build


def _named_tuple(cls: Any, args: tuple[Any, ...], seen: _Seen) -> Coercer:
    hints = _fields(cls, args)
    names: tuple[str, ...] = cls._fields
    converts = [_compile(hints.get(name, Any), seen) for name in names]
    needed = [name for name in names if name not in cls._field_defaults]

    def build(value: Any) -> Any:
        if type(value) is dict:  # as a person would write it
            missing = [name for name in needed if name not in value]
            if missing:
                raise Misfit(f"the field {missing[0]!r} of {type_name(cls)} is missing")
            pairs = zip(names, converts, strict=True)
            return cls(**{name: _at(name, convert, value[name]) for name, convert in pairs if name in value})
        if type(value) is not list:
            raise wrong(f"a list for {type_name(cls)}", value)
        if not len(needed) <= len(value) <= len(names):
            raise Misfit(f"expected a list of {len(names)} for {type_name(cls)}, got one of {len(value)}")
        return cls(*[_at(index, converts[index], item) for index, item in enumerate(value)])

    return build


def _typed_dict(cls: Any, args: tuple[Any, ...], seen: _Seen) -> Coercer:
    required, converts = set(), {}
    for name, hint in _fields(cls, args).items():
        origin = getattr(typing.get_origin(hint), "_name", "")
        # Under `from __future__ import annotations` the class itself takes a string NotRequired[...] for required.
        if origin == "Required" or (origin != "NotRequired" and name in cls.__required_keys__):
            required.add(name)
        converts[name] = _compile(hint, seen)

    def build(value: Any) -> Any:
        if type(value) is not dict:
            raise wrong(f"an object for {type_name(cls)}", value)
        for name in required:
            if name not in value:
                raise Misfit(f"the key {name!r} of {type_name(cls)} is missing")
        return {name: _at(name, converts.get(name), item) for name, item in value.items()}

    return build


def _model(cls: Any) -> Coercer:
    import json

    options = {"by_name": True, "by_alias": True} if models_by_name() else {}

    def build(value: Any) -> Any:
        try:
            # From text, because a strict model takes a string for a date in JSON and nowhere else.
            return cls.model_validate_json(json.dumps(value), **options)
        except Exception as error:
            found: Any = getattr(error, "errors", lambda: [{}])()
            first = found[0]
            misfit = Misfit(f"{type_name(cls)} refused it: {first.get('type', type(error).__name__)}")
            misfit.path.extend(step(part) for part in first.get("loc", ())[::-1])
            raise misfit from error

    return build
