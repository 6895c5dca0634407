"""Stores: where rows live. A URL names one; its module is imported when it is opened, never before.

`memory:` is the oracle every other store is compared with, `sqlite:///file` the embedded one. The rest belongs to
adapters: each scheme names the module that opens it and the extra that installs what the module needs. A third party
registers a scheme by an entry point of the group `everstep.stores`: a callable from URL to Store.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

from everstep.errors import InvalidArgument
from everstep.ports import Store

ENTRY_POINTS = "everstep.stores"


class _Adapter(NamedTuple):
    module: str
    extra: str


_ADAPTERS = {
    "dynamodb": _Adapter("everstep_aws.store", "aws"),
    "firestore": _Adapter("everstep_gcp.store", "gcp"),
    "postgresql": _Adapter("everstep_supabase.store", "supabase"),
    "postgres": _Adapter("everstep_supabase.store", "supabase"),
}


def open_store(url: str) -> Store:
    """Open the store a URL names.

    Args:
        url: `memory:` (private), `memory:name` (shared within the process), `sqlite:///file.db` (relative) or
            `sqlite:////folder/file.db` (absolute), with `?synchronous=normal` and `?timeout=seconds`;
            `dynamodb://`, `firestore://`, `postgresql://` with their extra; or a scheme of an installed entry point.

    Raises:
        InvalidArgument: the URL is malformed, its scheme is unknown, or its extra is not installed.
        StoreError: the store is there and cannot be used; the subclass and the message say why.
    """
    scheme, colon, rest = url.partition(":")
    if not colon or not scheme:
        raise InvalidArgument(f"{url!r} is not a store URL; write for example sqlite:///everstep.db or memory:")
    match scheme:
        case "memory":
            from .memory import open_memory

            return open_memory(rest)
        case "sqlite":
            return _open_sqlite(url, rest)
        case _:
            opener = _from_adapter(url, scheme) if scheme in _ADAPTERS else _from_entry_point(url, scheme)
            return opener(url)


def _open_sqlite(url: str, rest: str) -> Store:
    from .sqlite import SqliteStore

    location, _, query = rest.partition("?")
    path = location.removeprefix("///")
    if path == location or path in ("", ":memory:"):
        raise InvalidArgument(
            f"{url!r} names no file; write sqlite:///file.db for a relative path, sqlite:////folder/file.db for an "
            "absolute one, and memory: for a store that is gone with the process"
        )
    synchronous, timeout = "full", 5.0
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        if name == "synchronous" and value in ("full", "normal"):
            synchronous = value
        elif name == "timeout" and value.replace(".", "", 1).isdecimal():
            timeout = float(value)
        else:
            raise InvalidArgument(
                f"{url!r}: {part!r} is not an option; there are synchronous=full|normal, timeout=seconds"
            )
    return SqliteStore(path, synchronous=synchronous, timeout=timeout)


def _from_adapter(url: str, scheme: str) -> Callable[[str], Store]:
    adapter = _ADAPTERS[scheme]
    try:
        module = import_module(adapter.module)
    except ModuleNotFoundError as error:
        missing = error.name or adapter.module
        if adapter.module == missing or adapter.module.startswith(missing + "."):
            raise InvalidArgument(f"{url!r}: this version of Everstep has no store for {scheme}: yet") from None
        raise InvalidArgument(
            f"{url!r} needs the package {missing!r}; install it with: pip install 'everstep[{adapter.extra}]'"
        ) from error
    opener: Callable[[str], Store] = module.open_store
    return opener


def _from_entry_point(url: str, scheme: str) -> Callable[[str], Store]:
    from importlib.metadata import entry_points

    found = entry_points(group=ENTRY_POINTS, name=scheme)
    for entry in found:
        opener: Callable[[str], Store] = entry.load()
        return opener
    known = ", ".join(f"{name}:" for name in ("memory", "sqlite", *_ADAPTERS))
    raise InvalidArgument(f"{url!r}: nothing opens {scheme}:; known are {known}")
