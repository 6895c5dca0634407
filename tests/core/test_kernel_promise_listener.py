"""promise.register_listener: 200, 400, 404, 422."""

from __future__ import annotations

import pytest

from everstep.promise import Kind, State
from everstep.protocol import PromiseRegisterListener
from tests.core.world import EXTERNAL, TARGET, TIMER, World


@pytest.mark.parametrize("address", ["http://x", "https://x/y", "poll://any@default", "poll://uni@g/1"])
def test_200_the_address_is_remembered_once(address: str) -> None:
    world = World()
    world.create("p")

    statuses = [world.do(PromiseRegisterListener("p", address)).status for _ in range(2)]

    assert statuses == [200, 200]
    assert world.record("p").listeners == (address,)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ftp://x",
        "poll://default",
        "x@y",
        "httpx://",
        "HTTP://x",
        "http:/x",
        "http",
        "any@g",
        "poll://any@",
        "poll://any@/w",
        "poll://uni@g",
        "poll://uni@g/",
        "poll://all@g",
    ],
)
def test_400_an_address_nothing_can_be_sent_to(address: str) -> None:
    world = World()
    world.create("p")

    assert world.do(PromiseRegisterListener("p", address)).status == 400
    assert world.record("p").listeners == ()


def test_404_what_does_not_exist() -> None:
    assert World().do(PromiseRegisterListener("p", "http://x")).status == 404


def test_422_an_internal_promise() -> None:
    """Question C3 of the specification: nobody would ever be told."""
    world = World()
    world.create("p", {})

    assert world.do(PromiseRegisterListener("p", "http://x")).status == 422


@pytest.mark.parametrize("tags", [EXTERNAL, TARGET, TIMER, {"resonate:scope": "global"}])
def test_c1_external_promises_accept_listeners(tags: dict[str, str]) -> None:
    world = World()
    world.create("p", tags)

    assert world.do(PromiseRegisterListener("p", "http://x")).status == 200


def test_c1_a_latent_promise_of_the_engine_accepts_listeners() -> None:
    world = World()
    world.create("p", {})
    world.write(world.record("p")._replace(kind=Kind.PROMISE))

    assert world.do(PromiseRegisterListener("p", "http://x")).status == 200


def test_200_a_settled_promise_registers_nothing() -> None:
    world = World()
    world.create("p")
    world.settle("p")

    reply = world.do(PromiseRegisterListener("p", "http://x"))

    assert reply.promise is not None
    assert (reply.status, reply.promise.state, world.last.puts) == (200, State.RESOLVED, ())
