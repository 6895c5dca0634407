"""The Worker: HTTP, queue and cron in front; an object for each origin, woken by its alarm, and an index behind."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from everstep.errors import InvalidArgument
from everstep.events import dispatch

from .auth import Everybody, bearer
from .events import event_of
from .objects import IndexObject, Options, RunObject, client_of

if TYPE_CHECKING:
    from everstep.clock import Clock
    from everstep.driver import Tell
    from everstep.http.auth import Auth
    from everstep.http.messages import Messenger
    from everstep.protocol import Message
    from everstep.registry import App

TOKEN = "EVERSTEP_TOKEN"
SECRET = "EVERSTEP_SECRET"
_RETRY_AFTER = 30


class Worker(NamedTuple):
    """The three classes that `entry.py` exports under these names: `Default, Run, Index = handler(app)`."""

    Default: type[Any]
    Run: type[Any]
    Index: type[Any]


def handler(
    app: App,
    *,
    auth: Auth | Everybody | None = None,
    setup: Callable[[Any], None] | None = None,
    steps_per_invocation: int | None = None,
    moment: int = 0,
    clock: Clock | None = None,
    tell: Tell | None = None,
    http: dict[str, Any] | None = None,
) -> Worker:
    """An App as a Python Worker.

    Args:
        auth: who may use the HTTP routes: a callable as of `everstep.http.asgi`, `access(...)` for Cloudflare Access,
            or `everybody`. By default the bearer token in the secret EVERSTEP_TOKEN, and nobody where that is not set.
        setup: is given `env` once in each isolate, before anything runs, to `app.provide` what steps need.
        steps_per_invocation: end an invocation after so many checkpoints; None: when the body waits.
        moment: milliseconds that are waited through rather than suspended for.
        clock: the platform's by default.
        tell: is told of what happens; see `everstep.hosting.Host`.
        http: further options of `everstep.http.asgi`.

    Raises:
        InvalidArgument: an option is outside its range.
        ImportError: this is no Worker; the `workers` package is the platform's.
    """
    if steps_per_invocation is not None and steps_per_invocation < 1:
        raise InvalidArgument(f"steps_per_invocation={steps_per_invocation}: at least 1")
    from workers import DurableObject, WorkerEntrypoint  # type: ignore[import-not-found]

    from .platform import EnvBindings, ObjectStorage, blobs_of, post, text_of

    options = Options(steps_per_invocation, moment, clock or Options().clock, tell)
    ready: list[bool] = []

    def messenger() -> Messenger:
        from everstep.http.messages import Messenger

        return Messenger(clock=options.clock, post=post)

    async def push(message: Message) -> None:
        await messenger()(message)

    def prepare(env: Any) -> None:
        if not ready:
            if setup is not None:
                setup(env)
            ready.append(True)

    class Run(DurableObject):  # type: ignore[misc]
        def __init__(self, ctx: Any, env: Any) -> None:
            super().__init__(ctx, env)
            prepare(self.env)
            life = os.urandom(8).hex()
            self._object = RunObject(
                app,
                ObjectStorage(self.ctx),
                EnvBindings(self.env),
                options,
                life,
                blobs=blobs_of(self.env),
                messages=push,
            )

        async def everstep(self, message: str) -> str:
            return await self._object.answer(message)

        async def alarm(self, info: Any = None) -> None:
            await self._object.alarm(int(getattr(info, "retryCount", 0) or 0))

    class Index(DurableObject):  # type: ignore[misc]
        def __init__(self, ctx: Any, env: Any) -> None:
            super().__init__(ctx, env)
            self._object = IndexObject(ObjectStorage(self.ctx), EnvBindings(self.env))

        async def everstep(self, message: str) -> str:
            return await self._object.answer(message)

    class Default(WorkerEntrypoint):  # type: ignore[misc]
        async def fetch(self, request: Any) -> Any:
            from workers import asgi  # pyright: ignore[reportMissingImports]

            prepare(self.env)
            # An application of its own for each request: what waits for I/O belongs to the request that began it.
            application = make_asgi(
                self._client(),
                app,
                text_of(self.env, TOKEN),
                text_of(self.env, SECRET),
                auth,
                {"messages": messenger(), **(http or {})},
            )
            return await asgi.fetch(application, request, self.env, self.ctx)

        async def scheduled(self, controller: Any = None, env: Any = None, ctx: Any = None) -> None:
            prepare(self.env)
            await self._client().sweep()

        async def queue(self, batch: Any, env: Any = None, ctx: Any = None) -> None:
            prepare(self.env)
            client = self._client()
            for message in batch.messages:
                try:
                    await dispatch(client, app, event_of(batch.queue, message))
                except Exception as error:
                    # What can never start goes to the dead-letter queue in the end, where a person finds it; alone.
                    print(f"everstep: message {message.id} of {batch.queue}: {error}")  # noqa: T201
                    message.retry({"delaySeconds": _RETRY_AFTER})
                else:
                    message.ack()

        def _client(self) -> Any:
            client = client_of(app, EnvBindings(self.env), clock=options.clock, blobs=blobs_of(self.env))
            client.service.deliver = push
            return client

    return Worker(Default, Run, Index)


def make_asgi(
    client: Any,
    app: App,
    token: str | None,
    secret: str | Sequence[str] | None,
    auth: Auth | Everybody | None,
    http: dict[str, Any] | None,
) -> Any:
    """The HTTP app of one request."""
    from everstep.http import asgi

    given = {"secret": secret, "clock": client.clock, **(http or {})}
    if isinstance(auth, Everybody):
        return asgi(client, app, auth=None, **given)
    return asgi(client, app, auth=auth if auth is not None else bearer(token), **given)
