"""Query parameters by name; one that nobody reads is refused, so that a misspelt filter filters nothing."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request

from everstep.ids import MAX_BYTES

from .body import whole_of
from .problems import bad

STATES = ("pending", "resolved", "rejected", "rejected_canceled", "rejected_timedout", "halted")
MAX_PAGE = 1000


class Query:
    """The parameters of a request. Raises Problem 400."""

    def __init__(self, request: Request, known: Sequence[str]) -> None:
        self._params = request.query_params
        for name in self._params:
            if name not in known:
                raise bad(name, f"there is no parameter {name!r} here; known: {', '.join(known)}")

    def text(self, name: str) -> str | None:
        """An id, the beginning of one, or something shorter; None where it is absent."""
        value = self._params.get(name)
        if value is not None and (len(value.encode()) > MAX_BYTES or "\0" in value):
            raise bad(name, f"{name} is no part of an id: at most {MAX_BYTES} bytes, none of them 0")
        return value

    def state(self) -> str | None:
        state = self._params.get("state") or None
        if state is not None and state not in STATES:
            raise bad("state", f"state must be one of {', '.join(STATES)}, not {state!r}")
        return state

    def tags(self) -> dict[str, str] | None:
        """`tag=team=ops` or `tag=team:ops`, repeated for several."""
        tags = {}
        for text in self._params.getlist("tag"):
            name, sign, value = text.partition("=" if "=" in text else ":")
            if not sign or not name:
                raise bad("tag", f"tag must be name=value, not {text!r}")
            tags[name] = value
        return tags or None

    def limit(self, default: int) -> int:
        text = self._params.get("limit")
        return default if text is None else whole_of(text, "limit", 1, MAX_PAGE)

    def flag(self, name: str, default: bool) -> bool:
        text = self._params.get(name)
        if text is None:
            return default
        if text.lower() not in ("1", "0", "true", "false"):
            raise bad(name, f"{name} must be true or false, not {text!r}")
        return text.lower() in ("1", "true")
