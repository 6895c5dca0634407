"""A wake-up as the body of a message: what a queue, a timer or a bell carries from one call to the next."""

from __future__ import annotations

import json

from everstep.errors import InvalidArgument, InvalidId
from everstep.ids import check_any
from everstep.nesting import loads
from everstep.ports import Wake


def wake_to_json(wake: Wake) -> str:
    """A wake-up as the body of a message: an id and a version, never a value, never an address."""
    return json.dumps({"id": wake.id, "version": wake.version}, separators=(",", ":"), ensure_ascii=False)


def wake_from_json(text: str | bytes) -> Wake:
    """The wake-up that a message's body is. Raises InvalidArgument, saying what is wrong with it."""
    try:
        body = loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"a wake-up is JSON: {error}") from None
    match body:
        case {"id": str(id), "version": int(version), **rest} if not rest and not isinstance(version, bool):
            if version < 0:
                raise InvalidArgument(f"a wake-up's version counts from 0, and is not {version}")
            try:
                return Wake(check_any(id), version)
            except InvalidId as error:
                raise InvalidArgument(str(error)) from None
    raise InvalidArgument('a wake-up is {"id": text, "version": number} and nothing else')
