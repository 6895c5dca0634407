"""Exceptions to JSON and back, without pickle and without running anyone's `__init__`.

Describing never fails: a failure that could not be recorded would be retried for ever. So whatever an exception does
when it is looked at, there is a description, of bounded size, and what was left out of it is named.

Rebuilding imports nothing and runs no code of the class but its `__str__`, because what is rebuilt came out of a store
or off the network. An `except CardDeclined` in a workflow has the class at hand already; where nobody has it, a class
of the same name below `Failed` stands in for it. The message is the recorded one, whatever the class makes of it.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import types
from collections.abc import Mapping
from typing import Any

from .errors import DecodeError, Failed, NotSerializable
from .plain import plain

__all__ = ["ROOM", "describe", "place", "rebuild"]

ROOM = 64 * 1024
_LONGEST_MESSAGE = 16 * 1024
_DEEPEST = 8
_CUT = "… (cut)"

# Kept by the C structure of a builtin exception, and so in no `__dict__`.
_HIDDEN: dict[str, tuple[str, ...]] = {
    "OSError": ("errno", "strerror", "filename", "filename2"),
    "ImportError": ("name", "path"),
    "NameError": ("name",),
    "AttributeError": ("name",),
    "SyntaxError": ("msg", "filename", "lineno", "offset", "text", "end_lineno", "end_offset"),
    "UnicodeError": ("encoding", "reason", "start", "end"),
}


class _Room:
    """How many bytes a description may still take; shared by an exception, its causes and its group."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, flat: Any) -> bool:
        size = len(json.dumps(flat, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        if size > self.left:
            return False
        self.left -= size
        return True

    def take_text(self, text: str, longest: int) -> str:
        """As much of a text as there is room for."""
        if len(text) <= longest and self.take(text):
            return text
        size = longest
        while size > len(_CUT):
            cut = text[: size - len(_CUT)] + _CUT
            if self.take(cut):
                return cut
            size //= 2
        return ""


def describe(exc: BaseException, room: int = ROOM) -> dict[str, Any]:
    """An exception as JSON-plain data; never raises.

    Args:
        exc: any exception.
        room: bytes of JSON that its contents may take, together with those of its causes or members; names and
            structure come on top. What there is no room for is cut, or left out and named.

    Returns:
        `type`, `module`, `message` (the `str` of it) and `args`; where there are any, also `qualname` (of a nested
        class), `attributes`, `notes`, `cause`, `exceptions` (of a group), and `dropped`, which names what could not
        be stored or had no room.
    """
    try:
        return _describe(exc, _Room(room), 0)
    except Exception:  # a metaclass or a `__getattribute__` that fights back
        return {"type": _type_name(type(exc)), "module": "", "message": "", "args": [], "dropped": ["message"]}


_type_name: Any = vars(type)["__name__"].__get__  # past any metaclass
_args_of: Any = vars(BaseException)["args"].__get__


_OURS = os.path.dirname(__file__) + os.sep
_LIBRARY = os.path.dirname(os.__file__) + os.sep


def place(exc: BaseException) -> str:
    """Where an exception was raised, as far as it is the user's own code: `app.py:31`; "" where that is not known."""
    found = ""
    trace = exc.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith((_OURS, _LIBRARY, "<")):
            found = f"{os.path.basename(file)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def _describe(exc: BaseException, room: _Room, depth: int) -> dict[str, Any]:
    kind = type(exc)
    dropped: list[str] = []
    message = room.take_text(_message(exc, dropped), _LONGEST_MESSAGE)
    data: dict[str, Any] = {
        "type": _words(kind.__name__, "Exception")[:200],
        "module": _words(kind.__module__, "")[:200],
        "message": message,
        "args": _args(exc, room, dropped, depth),
    }
    qualname = _words(kind.__qualname__, "")[:400]
    if qualname != data["type"]:
        data["qualname"] = qualname
    attributes = _attributes(exc, room, dropped)
    if attributes:
        data["attributes"] = attributes
    notes = _notes(exc, room, dropped)
    if notes:
        data["notes"] = notes
    if isinstance(exc, BaseExceptionGroup):
        data["exceptions"] = _members(exc, room, dropped, depth)
    cause = exc.__cause__
    if cause is not None:
        if depth < _DEEPEST and room.left > 1000:
            data["cause"] = _guarded(cause, room, depth)
        else:
            dropped.append("cause")
    if dropped:
        data["dropped"] = dropped[:20]
    return data


def _guarded(exc: BaseException, room: _Room, depth: int) -> dict[str, Any]:
    try:
        return _describe(exc, room, depth + 1)
    except Exception:
        return {"type": "Exception", "module": "", "message": "", "args": [], "dropped": ["message"]}


def _words(value: Any, otherwise: str) -> str:
    """Exactly a str that JSON and every database can hold."""
    if not isinstance(value, str):
        return otherwise
    return str.__str__(value).encode("utf-8", "backslashreplace").decode()


def _message(exc: BaseException, dropped: list[str]) -> str:
    try:
        return _words(str(exc), "")
    except Exception:
        dropped.append("message")
        return ""


def _stored(value: Any, room: _Room) -> Any:
    """The plain form, if it exists and there is room for it; else NotSerializable."""
    try:
        flat = plain(value, "")
        fits = room.take(flat)
    except NotSerializable:
        raise
    except Exception as error:  # a property of a dataclass, a `model_dump`, an integer without an end
        raise NotSerializable(type(error).__name__) from None
    if not fits:
        raise NotSerializable("no room")
    return flat


def _args(exc: BaseException, room: _Room, dropped: list[str], depth: int) -> list[Any]:
    args: tuple[Any, ...] = _args_of(exc)
    if isinstance(exc, BaseExceptionGroup):
        args = (exc.message,)
    kept: list[Any] = []
    for index, arg in enumerate(args):
        try:
            kept.append(_stored(arg, room))
        except NotSerializable:
            # Its place is kept, so that the others keep theirs.
            dropped.append(f"args[{index}]")
            kept.append(None)
    return kept


def _attributes(exc: BaseException, room: _Room, dropped: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for base in reversed(type(exc).__mro__):
        names = _HIDDEN.get(base.__name__, ()) if base.__module__ == "builtins" else _slots(base)
        for name in names:
            try:
                value = object.__getattribute__(exc, name)
            except Exception:
                continue
            if value is not None or base.__module__ != "builtins":
                found[name] = value
    held = object.__getattribute__(exc, "__dict__")
    found.update((name, value) for name, value in held.items() if type(name) is str and not _private(name))
    kept = {}
    for name, value in found.items():
        try:
            kept[_words(name, "")] = _stored(value, room)
        except NotSerializable:
            dropped.append(_words(name, "")[:100])
    return kept


def _private(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _slots(base: type) -> tuple[str, ...]:
    slots = base.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _notes(exc: BaseException, room: _Room, dropped: list[str]) -> list[str]:
    notes = exc.__dict__.get("__notes__")
    if not isinstance(notes, (list, tuple)):
        return []
    kept = []
    for note in notes[:50]:
        text = room.take_text(_words(note, ""), _LONGEST_MESSAGE)
        if not text:
            dropped.append("notes")
            break
        kept.append(text)
    return kept


def _members(exc: BaseExceptionGroup[Any], room: _Room, dropped: list[str], depth: int) -> list[Any]:
    members: list[Any] = []
    for member in exc.exceptions:
        if depth >= _DEEPEST or room.left < 1000:
            dropped.append(f"exceptions[{len(members)}:]")
            break
        members.append(_guarded(member, room, depth))
    return members


def rebuild(data: Any) -> Exception:
    """The exception that a description stands for, new at every call.

    Its class is the described one where that is a builtin or already loaded, and an Exception; otherwise a class of
    that name below `Failed`. `except` finds it either way, and `str` gives the recorded message.

    Args:
        data: from `describe`; anything else (a rejection by someone who does not know Python) becomes a Failed.
    """
    return _rebuild(data, 0)


def _rebuild(data: Any, depth: int) -> Exception:
    if not isinstance(data, Mapping):
        made: Exception = Failed(data if isinstance(data, str) else "" if data is None else repr(data))
        return made
    message = data.get("message")
    message = message if isinstance(message, str) else ""
    args = data.get("args")
    args = args if isinstance(args, list) else [message]
    name = _text(data.get("type")) or _text(data.get("name")) or "Failed"
    module, qualname = _text(data.get("module")), _text(data.get("qualname")) or name
    members = _rebuilt_members(data.get("exceptions"), depth)
    cls = _find(module, qualname)
    attributes = data.get("attributes")
    attributes = attributes if isinstance(attributes, Mapping) else {}
    exc = _instance(cls, args, members, attributes, message) if cls is not None else None
    if exc is None:
        whole_group = (module, qualname) == ("builtins", "BaseExceptionGroup") and members is not None
        stand_in = ExceptionGroup if whole_group else _stand_in(name, module, qualname, members is not None)
        exc = _instance(stand_in, args, members, attributes, message) or Failed(message)
    _annotate(exc, data, depth)
    return exc


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _rebuilt_members(described: Any, depth: int) -> list[Exception] | None:
    if not isinstance(described, list) or depth > 2 * _DEEPEST:
        return None
    return [_rebuild(member, depth + 1) for member in described] or None


def _annotate(exc: Exception, data: Mapping[str, Any], depth: int) -> None:
    notes = data.get("notes")
    if isinstance(notes, list):
        for note in notes:
            if isinstance(note, str):
                exc.add_note(note)
    cause = data.get("cause")
    if isinstance(cause, Mapping) and depth <= 2 * _DEEPEST:
        exc.__cause__ = _rebuild(cause, depth + 1)


def _find(module: str, qualname: str) -> type[Exception] | None:
    """A class that is loaded already: nothing is imported, and no attribute is computed to get to it."""
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        try:
            found = vars(found).get(part)
        except TypeError:
            return None
    if isinstance(found, type) and issubclass(found, Exception):
        return found
    return None


def _instance(
    cls: type[Exception], args: list[Any], members: list[Exception] | None, attributes: Mapping[str, Any], message: str
) -> Exception | None:
    """An exception of that class, or None where it cannot be built; it says `message`, by a subclass if it must."""
    try:
        made = _bare(cls, args, members, attributes, message)
        if _says(made, message):
            return made
        speaking: Any = _speaking  # classes are hashable, whatever their instances are
        made = _bare(speaking(cls), args, members, attributes, message)
        made.__dict__["__everstep_message__"] = message
    except Exception:
        return None
    return made


def _says(exc: Exception, message: str) -> bool:
    try:
        return str(exc) == message
    except Exception:
        return False


def _bare(
    cls: type[Exception], args: list[Any], members: list[Exception] | None, attributes: Mapping[str, Any], message: str
) -> Exception:
    """Built without the class's own `__new__` and `__init__`: nobody recorded what they were called with."""
    native: Any = next(base for base in cls.__mro__ if base.__module__ == "builtins" and issubclass(base, Exception))
    made: Exception
    if issubclass(native, ExceptionGroup):
        text = args[0] if args and isinstance(args[0], str) else message
        new: Any = native.__new__
        made = new(cls, text, members)
    else:
        made = native.__new__(cls, *args)
        _fill_native(native, made, args)
    if not isinstance(made, cls):
        raise TypeError
    _set_attributes(made, attributes)
    return made


def _fill_native(native: Any, made: Exception, args: list[Any]) -> None:
    try:
        native.__init__(made, *args)
    except Exception:  # an argument that was not stored as it was (the bytes of a UnicodeDecodeError)
        return


def _set_attributes(exc: Exception, attributes: Mapping[Any, Any]) -> None:
    hints = _hints(type(exc))
    for name, value in attributes.items():
        if not isinstance(name, str) or _private(name):
            continue
        if name in hints:
            from .shapes import coerce

            try:
                value = coerce(value, hints[name])
            except DecodeError:
                pass
        slot = next((vars(base)[name] for base in type(exc).__mro__ if name in vars(base)), None)
        if isinstance(slot, (types.MemberDescriptorType, types.GetSetDescriptorType)):
            try:
                slot.__set__(exc, value)
            except Exception:
                continue
        else:
            exc.__dict__[name] = value  # not setattr: a property's setter would be someone's code


def _hints(cls: type[Exception]) -> dict[str, Any]:
    if not any(vars(base).get("__annotations__") for base in cls.__mro__ if base.__module__ != "builtins"):
        return {}
    from .hints import Unresolved, class_hints

    return {name: hint for name, hint in class_hints(cls).items() if not isinstance(hint, Unresolved)}


@functools.lru_cache(maxsize=256)
def _speaking(cls: Any) -> Any:
    """A subclass that says what was recorded, and passes for the class itself."""

    def say(self: Any) -> str:
        return str(self.__dict__["__everstep_message__"])

    body = {"__str__": say, "__module__": cls.__module__, "__qualname__": cls.__qualname__}
    return type(cls)(cls.__name__, (cls,), body)


@functools.lru_cache(maxsize=256)
def _stand_in(name: str, module: str, qualname: str, group: bool) -> type[Exception]:
    """A class of that name below Failed; one and the same for as long as it is in use often enough."""
    bases: tuple[type, ...] = (Failed, ExceptionGroup) if group else (Failed,)
    try:
        body = {"__module__": module or __name__, "__qualname__": qualname, "__doc__": Failed.__doc__}
        return type(name, bases, body)
    except Exception:  # a name with a NUL in it
        return Failed
