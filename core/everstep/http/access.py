"""Who a caller is, and what it may touch. A prefix limits ids on every route and in every request of the protocol.

A request is refused when any id it names lies outside, the lineage in a promise's tags included: a promise that calls
itself part of another's branch would be read with it.
"""

from __future__ import annotations

from typing import NamedTuple

from starlette.requests import Request as HttpRequest

from everstep import protocol as p
from everstep.promise import BRANCH, Tags

from .problems import Problem

_LINEAGE = (BRANCH, "resonate:parent", "resonate:origin", "resonate:prefix")
_READS = (p.PromiseGet, p.TaskGet, p.ScheduleGet, p.PromiseSearch, p.TaskSearch, p.ScheduleSearch)
_KEY = "everstep.principal"


class Principal(NamedTuple):
    """A caller who may pass.

    Attributes:
        prefix: what every id it touches begins with; "" for all ids.
        role: "admin" has all ids whatever the prefix, "reader" changes nothing; any other has no meaning here.
        groups: whose messages it may pull; None for any group, of which it then gets what is about its own ids.
        name: for logs and rate limits.
    """

    prefix: str = ""
    role: str = ""
    groups: tuple[str, ...] | None = None
    name: str = ""

    @property
    def admin(self) -> bool:
        return self.role == "admin"

    @property
    def within(self) -> str:
        """The prefix that counts."""
        return "" if self.admin else self.prefix

    def may_see(self, id: str) -> bool:
        return id.startswith(self.within)

    def check(self, *ids: str) -> None:
        """Raise Problem 403 for an id outside the prefix."""
        for id in ids:
            if not self.may_see(id):
                raise Problem(403, f"this token is for ids that begin with {self.within!r}")

    def check_group(self, group: str) -> None:
        """Raise Problem 403 for a group whose messages are not for this caller."""
        if self.role == "reader":
            raise Problem(403, "this token may only read")
        if not self.admin and self.groups is not None and group not in self.groups:
            raise Problem(403, f"this token is not for the group {group!r}")

    def check_writes(self) -> None:
        """Raise Problem 403 for one who may only read."""
        if self.role == "reader":
            raise Problem(403, "this token may only read")


EVERYBODY = Principal()


def admit(request: HttpRequest, principal: Principal) -> None:
    """Remember who sent a request."""
    request.scope[_KEY] = principal


def caller(request: HttpRequest) -> Principal:
    """Who sent a request that was let pass."""
    found = request.scope.get(_KEY)
    return found if isinstance(found, Principal) else EVERYBODY


def authorize(principal: Principal, request: p.Request) -> p.Request:
    """The request as this caller may make it: a search is kept to its prefix. Raises Problem 403."""
    if not isinstance(request, _READS):
        principal.check_writes()
    if isinstance(request, (p.PromiseSearch, p.TaskSearch, p.ScheduleSearch)):
        return request._replace(prefix=principal.within)
    principal.check(*ids_of(request))
    return request


def ids_of(request: p.Request) -> tuple[str, ...]:
    """Every id a request names."""
    match request:
        case p.PromiseCreate():
            return (request.id, *_lineage(request.tags))
        case p.PromiseRegisterCallback():
            return (request.awaited, request.awaiter)
        case p.PromiseRegisterListener():
            return (request.awaited,)
        case p.TaskCreate():
            return ids_of(request.action)
        case p.TaskFence() | p.TaskFulfill():
            return (request.id, *ids_of(request.action))
        case p.TaskHeartbeat():
            return tuple(ref.id for ref in request.tasks)
        case p.TaskSuspend():
            return (request.id, *[action.awaited for action in request.actions])
        case p.ScheduleCreate():
            # The instant is left as it stands in the template: nobody's prefix may come true at some tick only.
            tick = request.promise_id.replace("{{.id}}", request.id)
            return (request.id, tick, *_lineage(request.promise_tags))
        case p.PromiseSearch() | p.TaskSearch() | p.ScheduleSearch():
            return ()
        case _:
            return (request.id,)


def _lineage(tags: Tags) -> list[str]:
    return [tags[name] for name in _LINEAGE if name in tags]


def within(principal: Principal, prefix: str) -> str:
    """A prefix to search for, narrowed to what the caller may see. Raises Problem 403 where nothing is left."""
    if principal.within.startswith(prefix):
        return principal.within
    principal.check(prefix)
    return prefix
