"""What functions-framework serves in the tests: the chess template and a few more workflows, killed where it is told.

Every request to Firestore and to Cloud Tasks counts, before and after it takes effect, over all processes of a test.
At the numbers in EVERSTEP_DIE_AT it is killed: the process that serves, or at even numbers the whole group, as an
instance is.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from app import Picture, Publisher, app
from google.cloud import firestore

import everstep_gcp
from everstep import Context, Retry, current_step
from everstep_gcp.connection import Connection
from everstep_gcp.waker import CloudTasksWaker

settings = everstep_gcp.Settings.read()
place = everstep_gcp.open_store(settings.store)
database = firestore.Client(project=place.project)
home = Path(os.environ["EVERSTEP_TEST_HOME"])
die_at = {int(number) for number in os.environ.get("EVERSTEP_DIE_AT", "").split(",") if number}


class Boards(Publisher):
    def publish(self, picture: Picture) -> None:
        database.document("boards/live").set({"game": picture.game, "ply": picture.ply, "fen": picture.fen})


app.provide(Boards())


def count(what: str) -> None:
    """One more call, over all processes: the length of a file that is appended to."""
    with (home / "calls").open("ab", buffering=0) as file:
        file.write(b".")
        number = file.tell()
    if number in die_at:
        with (home / "killed").open("a") as file:
            file.write(f"{number} {what}\n")
            file.flush()
            os.fsync(file.fileno())
        if number % 2:
            os.kill(os.getpid(), signal.SIGKILL)  # gunicorn starts another one
        os.killpg(os.getpgrp(), signal.SIGKILL)


def counted(owner: type, name: str) -> None:
    real: Callable[..., Awaitable[Any]] = getattr(owner, name)

    async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        count(f"before {name}")
        answer = await real(self, *args, **kwargs)
        count(f"after {name}")
        return answer

    setattr(owner, name, call)


for name in ("commit", "get", "query"):
    counted(Connection, name)
counted(CloudTasksWaker, "_tried")


def ran() -> int:
    """Counts this run of the step in a document, and returns how many there were."""
    document = database.document(f"ran/{current_step().id}")
    document.set({"times": firestore.Increment(1)}, merge=True)
    return int(document.get().get("times"))


@app.step
def say(text: str) -> str:
    ran()
    return text


@app.step(retry=Retry(attempts=5, first=0.2))
def fail_twice() -> str:
    times = ran()
    if times < 3:
        raise ValueError(f"attempt {times}")
    return "mended"


@app.workflow
async def countdown(ctx: Context, number: int, pause: float) -> str:
    said = []
    for left in range(number, 0, -1):
        said.append(await ctx.run(say, str(left)))
        await ctx.sleep(pause)
    return " ".join([*said, await ctx.run(say, "done")])


@app.workflow
async def approval(ctx: Context) -> str:
    answer = await ctx.promise()
    return await ctx.run(say, f"answered {answer}")


@app.workflow
async def flaky(ctx: Context) -> str:
    return await ctx.run(fail_twice)


@app.workflow
async def square(ctx: Context, number: int) -> int:
    return number * number


@app.workflow
async def fan(ctx: Context, number: int) -> int:
    return sum(await asyncio.gather(*[ctx.rpc(square, one) for one in range(number)]))


main = everstep_gcp.handler(app, settings=settings)
