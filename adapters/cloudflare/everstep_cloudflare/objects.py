"""What the two kinds of objects do, apart from the platform: one for each origin, and the index."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from everstep.blobs import Blobs
from everstep.client import Client
from everstep.clock import Clock, SystemClock
from everstep.driver import Tell
from everstep.errors import EverstepError, StoreError
from everstep.hosting import Host
from everstep.ports import Wake
from everstep.registry import App
from everstep.service import Deliver

from . import wire
from .home import Home
from .index import Entries, Index
from .peers import Bindings, Peers
from .rows import Rows, Storage
from .shift import HOLDER, LEASE, Shift
from .store import AlarmWaker, DurableObjectStore


class Options(NamedTuple):
    """How an App is run.

    Attributes:
        steps_per_invocation: end an invocation after so many checkpoints; None: when the body waits.
        moment: milliseconds that are waited through rather than suspended for.
        clock: the platform's by default.
        tell: is told of what happens; see `everstep.hosting.Host`.
    """

    steps_per_invocation: int | None = None
    moment: int = 0
    clock: Clock = SystemClock()
    tell: Tell | None = None


class RunObject:
    """The object of one origin.

    Args:
        life: names this life of the object; no other one has it.
        blobs: where payloads above the limit of a row go.
        messages: how workers and listeners that are no Apps of ours get their messages.
    """

    def __init__(
        self,
        app: App,
        storage: Storage,
        bindings: Bindings,
        options: Options,
        life: str,
        *,
        blobs: Blobs | None = None,
        messages: Deliver | None = None,
    ) -> None:
        self._app = app
        self._storage = storage
        self._peers = Peers(bindings)
        self._options = options
        self._life = life
        self._blobs = blobs
        self._messages = messages
        self._parts: tuple[Home, Shift, Host] | None = None

    def _at(self, origin: str | None) -> tuple[Home, Shift, Host] | None:
        """Home, shift and host of the origin; None where nobody has ever written here."""
        if self._parts is not None:
            if origin is not None and self._parts[0].origin != origin:
                raise StoreError(f"the object of {self._parts[0].origin!r} was asked for {origin!r}")
            return self._parts
        if origin is None:
            found = Rows(self._storage).home()
            if found is None:
                return None
            origin = found[0]
        options, clock = self._options, self._options.clock
        shift: Shift
        home = Home(self._storage, str(origin), clock, self._peers.tell_index, lambda: shift.poke())
        stepwise = options.steps_per_invocation is not None
        shift = Shift(home, clock, f"{HOLDER}{self._life}", stepwise=stepwise)
        store = DurableObjectStore(self._peers, home, blobs=self._blobs)

        async def ring(wake: Wake) -> None:
            shift.send(wake)
            await home.ring()

        client = Client(store, AlarmWaker(store, ring), app=self._app, clock=clock)
        host = Host(
            self._app,
            client,
            pid=shift.pid,
            lease=LEASE,
            steps_per_invocation=options.steps_per_invocation,
            moment=options.moment,
            tell=options.tell,
            tells_steps=options.tell is not None,
            dead=shift.is_dead,
            messages=self._messages,
        )
        self._parts = home, shift, host
        return self._parts

    async def answer(self, message: str) -> str:
        """Carry out a call of another object or of the Worker."""
        return await _answered(message, self._perform)

    async def _perform(self, call: dict[str, Any]) -> Any:
        parts = self._at(call["origin"])
        assert parts is not None
        home, shift, _ = parts
        match call["op"]:
            case "load":
                return home.rows.load(call["ids"])
            case "branch":
                return home.rows.branch(call["id"])
            case "commit":
                return wire.refused_to(await home.commit(wire.commit_from(call["commit"])))
            case "find":
                return home.rows.find(wire.query_from(call["query"]))
            case "look":
                return await home.look(call["now"], call["limit"])
            case "delete":
                return await home.delete()
            case "wake":
                shift.send(Wake(*call["wake"]))
                return await home.ring()
            case other:
                raise StoreError(f"no object knows {other!r}; is one Worker older than the other?")

    async def alarm(self, retries: int = 0) -> None:
        """Raises StoreError only where the next alarm could not be set."""
        parts = self._at(None)
        if parts is not None:
            _, shift, host = parts
            await shift.work(host, retries)


class IndexObject:
    """The index of all origins."""

    def __init__(self, storage: Storage, bindings: Bindings) -> None:
        self._index = Index(Entries(storage), Peers(bindings))
        self._storage = storage

    async def answer(self, message: str) -> str:
        """Carry out a call."""
        return await _answered(message, self._perform)

    async def _perform(self, call: dict[str, Any]) -> Any:
        match call["op"]:
            case "put":
                self._index.entries.put(call["entry"])
                return await self._storage.flush()
            case "due":
                return await self._index.due(call["now"], call["limit"])
            case "find":
                return await self._index.find(wire.query_from(call["query"]))
            case other:
                raise StoreError(f"the index does not know {other!r}; is one Worker older than the other?")


async def _answered(message: str, perform: Callable[[dict[str, Any]], Awaitable[Any]]) -> str:
    try:
        return wire.reply(await perform(wire.parse(message)))
    except EverstepError as error:
        return wire.failure(error)


def client_of(app: App, bindings: Bindings, *, clock: Clock | None = None, blobs: Blobs | None = None) -> Client:
    """A client outside of every object: of the Worker that answers HTTP, queues and crons."""
    store = DurableObjectStore(Peers(bindings), blobs=blobs)
    return Client(store, AlarmWaker(store), app=app, clock=clock)
