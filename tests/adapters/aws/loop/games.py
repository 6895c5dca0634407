"""The chess template's own workflow as a function: quick players, and spectators that need no file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import everstep_aws

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "templates" / "chess"))

from app import Picture, Players, Publisher, app
from players import Greedy


class Nobody(Publisher):
    def publish(self, picture: Picture) -> None:
        pass


app.provide(Players(Greedy(), Greedy()))
app.provide(Nobody())
steps = os.environ.get("STEPS")
handler = everstep_aws.handler(app, steps_per_invocation=int(steps) if steps else None)
