"""System 27, a trip as a saga: flight, hotel and car; if one cannot be had, what was booked is cancelled backwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

import pytest

from everstep import App, Context, Retry
from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.systems.scaffold import World, did, kill_at, run_process, survives

app = App("trip")


class SoldOut(Exception):
    """There is none left, however often one asks."""


FIRMLY = Retry(attempts=5, first=0.5, give_up_on=(SoldOut,))


class Trip(TypedDict):
    booked: list[str]
    compensated: list[str]


@app.step(retry=FIRMLY)
def book(what: str, trip: str) -> str:
    if trip == "busy" and what == "car":
        raise SoldOut(what)
    did(f"book {what}")
    return f"{what}-{trip}"


@app.step
def cancel(what: str, booking: str) -> None:
    did(f"cancel {what}", booking=booking)


@app.workflow
async def book_trip(ctx: Context, trip: str) -> Trip:
    booked: dict[str, str] = {}
    try:
        for what in ("flight", "hotel", "car"):
            booked[what] = await ctx.run(book, what, trip)
    except SoldOut:
        for what, booking in reversed(booked.items()):
            await ctx.run(cancel, what, booking)
        return {"booked": [], "compensated": list(reversed(booked))}
    return {"booked": list(booked.values()), "compensated": []}


BOTH = pytest.mark.parametrize("mode", ["rows", "queue"])
GOOD: Trip = {"booked": ["flight-calm", "hotel-calm", "car-calm"], "compensated": []}
BAD: Trip = {"booked": [], "compensated": ["hotel", "flight"]}
CANCELLED = ["book flight", "book hotel", "cancel hotel", "cancel flight"]


@BOTH
def test_a_trip_that_can_be_had_has_three_bookings_and_no_cancellation(mode: Mode) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)

    assert sim.run(sim.start(book_trip, "calm")) == GOOD
    assert world.order() == ["book flight", "book hotel", "book car"]


@BOTH
def test_without_a_car_hotel_and_flight_are_cancelled_in_this_order(mode: Mode) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    handle = sim.start(book_trip, "busy")

    assert sim.run(handle) == BAD
    assert world.order() == CANCELLED
    assert world.effects("cancel hotel") == [{"booking": "hotel-busy"}]
    assert handle.executions("book")[f"{handle.id}.3"] == 1, "nobody asks again for what is sold out"


@BOTH
def test_a_booking_that_is_out_of_order_is_tried_again(mode: Mode) -> None:
    world = app.provide(World(script={"book hotel": ["fail", "fail"]}))
    sim = Simulation(app, mode=mode)

    assert sim.run(sim.start(book_trip, "calm")) == GOOD
    assert (world.tries("book flight"), world.tries("book hotel")) == (1, 3)


@BOTH
def test_killed_after_the_hotel_was_cancelled_only_the_flight_is(mode: Mode) -> None:
    world = app.provide(World())
    sim = Simulation(app, mode=mode)
    kill_at(sim, "delivered", 4)

    assert sim.run(sim.start(book_trip, "busy")) == BAD
    assert world.order() == CANCELLED


def test_a_process_killed_after_the_hotel_was_cancelled_cancels_only_the_flight(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert run_process(__name__, "book_trip", "busy", id="t1", folder=tmp_path, kill_at=("delivered", 4)).killed
    assert world.order() == CANCELLED[:3]

    assert run_process(__name__, "book_trip", "busy", id="t1", folder=tmp_path).result == BAD
    assert world.order() == CANCELLED


@pytest.mark.parametrize(("trip", "result"), [("calm", GOOD), ("busy", BAD)])
def test_it_survives_a_crash_at_every_point(trip: str, result: Any) -> None:
    app.provide(World())

    survives(app, book_trip, trip, result=result)
