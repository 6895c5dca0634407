"""`everstep dev` that kills itself by SIGKILL: `DIES_AT` counts the moments before and after each write to the store,
from the first one that has to do with the promise `DIES_FOR`."""

from __future__ import annotations

import os
import signal
import sys

from everstep.cli import main
from everstep.ports import Commit, Refused
from everstep.stores.sqlite import SqliteStore

AT, FOR = int(os.environ["DIES_AT"]), os.environ["DIES_FOR"]
real = SqliteStore.commit
moments = 0


def moment() -> None:
    global moments
    moments += 1
    if moments == AT:
        os.kill(os.getpid(), signal.SIGKILL)


async def commit(self: SqliteStore, commit: Commit) -> Refused | None:
    counts = moments > 0 or f"'{FOR}'" in str(commit)
    if counts:
        moment()
    refused = await real(self, commit)
    if counts:
        moment()
    return refused


SqliteStore.commit = commit  # type: ignore[method-assign]
sys.exit(main(sys.argv[1:]))
