"""The countdown on a virtual clock: it survives everything, and takes no time."""

from __future__ import annotations

import pytest

from everstep.testing import Simulation
from tests.systems.scaffold import survives
from tests.templates_by_path import template

countdown = template("countdown")


class Inbox(countdown.Notifier):  # type: ignore[misc, name-defined]
    """Receives instead of sending."""

    def __init__(self) -> None:
        self.received: list[tuple[str, str]] = []

    def send(self, id: str, text: str) -> None:
        self.received.append((id, text))


@pytest.mark.parametrize("steps", [None, 1])
def test_each_notification_comes_once_and_in_order_a_second_apart(steps: int | None) -> None:
    inbox = countdown.app.provide(Inbox())
    sim = Simulation(countdown.app, steps_per_invocation=steps)
    handle = sim.start(countdown.countdown, 3, id="c1")
    seen = []
    for _ in range(4):
        sim.run_until_idle()
        seen.append(len(inbox.received))
        sim.kill()
        sim.advance(seconds=1)

    assert handle.result() == "counted down from 3"
    assert seen == [1, 2, 3, 4]
    assert inbox.received == [("c1.1", "3"), ("c1.3", "2"), ("c1.5", "1"), ("c1.7", "Done")]


def test_it_survives_a_crash_at_every_point_and_whoever_knows_ids_has_each_notification_once() -> None:
    inbox: list[Inbox] = []

    def check(*_: object) -> None:
        received = inbox[-1].received
        assert [text for _, text in dict.fromkeys(received)] == ["2", "1", "Done"], received
        assert len(received) <= 4, received

    survives(
        countdown.app,
        countdown.countdown,
        2,
        result="counted down from 2",
        setup=lambda: inbox.append(countdown.app.provide(Inbox())),
        check=check,
    )
