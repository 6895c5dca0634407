"""Messages to workers elsewhere: who of a group gets one, what waits for whom, what is tried again and what is not."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Coroutine, Mapping
from typing import Any

import pytest

from everstep import App, Client
from everstep.clock import VirtualClock
from everstep.errors import WakerError
from everstep.http import Principal
from everstep.http.hub import Address, Full, Hub, Letter, parse
from everstep.http.messages import Messenger
from everstep.http.poll import letters
from everstep.http.waits import Waits
from everstep.ports import Wake
from everstep.promise import Record, State
from everstep.protocol import Execute, Message, PromiseCreate, Unblock
from everstep.stores.counted import Counted
from everstep.stores.memory import MemoryStore
from everstep.wakers.local import LocalWaker

NOW = 1_000_000


def play(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))


def everything(id: str) -> bool:
    return True


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("poll://any@g", Address("any", "g", "")),
        ("poll://any@g/w 1/x", Address("any", "g", "w 1/x")),
        ("poll://uni@g/w", Address("uni", "g", "w")),
        ("poll://uni@g", None),
        ("poll://all@g", None),
        ("poll://any@", None),
        ("poll://g", None),
        ("http://any@g", None),
    ],
)
def test_a_poll_address_has_a_cast_a_group_and_perhaps_a_worker(address: str, parts: Address | None) -> None:
    assert parse(address) == parts


def test_uni_is_that_worker_any_prefers_it_and_otherwise_takes_turns() -> None:
    async def scenario() -> None:
        hub = Hub()
        with hub.connect("g", "a", everything) as a, hub.connect("g", "b", everything) as b:
            for n, address in enumerate(("poll://uni@g/b", "poll://any@g/b", "poll://any@g/gone", "poll://any@g")):
                hub.send(address, Letter(str(n), "p", str(n)))
            hub.send("poll://uni@g/gone", Letter("4", "p", "4"))
            hub.send("poll://any@h", Letter("5", "p", "5"))
            hub.send("nonsense", Letter("6", "p", "6"))
            assert [await b.next(0), await b.next(0), await b.next(0)] == ["0", "1", "3"]
            assert [await a.next(0), await a.next(0)] == ["2", None]

    play(scenario())


def test_work_is_shared_evenly() -> None:
    async def scenario() -> None:
        hub = Hub()
        with hub.connect("g", "a", everything) as a, hub.connect("g", "b", everything) as b:
            for n in range(10):
                hub.send("poll://any@g", Letter(str(n), "p", str(n)))
            assert (a.taken, b.taken) == (5, 5)
            with hub.connect("g", "late", everything) as late:
                for n in range(9):
                    hub.send("poll://any@g", Letter(str(n), "p", str(n)))
                assert late.taken == 3

    play(scenario())


def test_what_nobody_takes_waits_for_who_may_and_the_newest_of_a_kind_replaces_the_older() -> None:
    async def scenario() -> None:
        hub = Hub()
        hub.send("poll://any@g", Letter("t", "p", "old"))
        hub.send("poll://any@g", Letter("t", "p", "new"))
        hub.send("poll://uni@g/b", Letter("u", "p", "for b"))
        with hub.connect("other", "a", everything) as other, hub.connect("g", "a", lambda id: id == "q") as blind:
            assert await other.next(0) is None
            assert await blind.next(0) is None
            with hub.connect("g", "a", everything) as a:
                assert [await a.next(0), await a.next(0)] == ["new", None]
            with hub.connect("g", "b", everything) as b:
                assert [await b.next(0), await b.next(0)] == ["for b", None]

    play(scenario())


def test_a_message_goes_only_to_who_may_know_of_its_promise() -> None:
    async def scenario() -> None:
        hub = Hub()
        with (
            hub.connect("g", "a", lambda id: id.startswith("a:")) as a,
            hub.connect("g", "b", lambda id: id.startswith("b:")) as b,
        ):
            for n in range(4):
                hub.send("poll://any@g/a", Letter(str(n), "b:1", str(n)))
            assert (a.taken, b.taken) == (0, 4)

    play(scenario())


def test_of_two_connections_of_one_name_the_newer_is_the_worker() -> None:
    async def scenario() -> None:
        hub = Hub()
        with hub.connect("g", "a", everything) as old, hub.connect("g", "a", everything) as new:
            hub.send("poll://uni@g/a", Letter("1", "p", "1"))
            assert (old.taken, new.taken) == (0, 1)

    play(scenario())


def test_a_connection_that_takes_nothing_any_more_is_passed_over() -> None:
    async def scenario() -> None:
        hub = Hub()
        with hub.connect("g", "a", everything) as stuck:
            for n in range(1500):
                hub.send("poll://any@g", Letter(str(n), "p", str(n)))
            assert stuck.taken == 1000
            with hub.connect("g", "b", everything) as b:
                assert b.taken == 500

    play(scenario())


def test_what_a_connection_had_no_room_for_follows_once_it_has() -> None:
    async def scenario() -> None:
        hub = Hub()
        with hub.connect("g", "a", everything) as slow:
            for n in range(2500):
                hub.send("poll://uni@g/a", Letter(str(n), "p", str(n)))
            assert [await slow.next(0) for _ in range(2501)] == [*map(str, range(2500)), None]

    play(scenario())


def test_what_a_connection_leaves_behind_is_for_others_or_for_its_next_one() -> None:
    async def scenario() -> None:
        hub = Hub()
        leaving = contextlib.ExitStack()
        gone = leaving.enter_context(hub.connect("g", "a", everything))
        for n, address in enumerate(("poll://any@g", "poll://uni@g/a", "poll://any@g/a")):
            hub.send(address, Letter(str(n), "p", str(n)))
        assert await gone.next(0) == "0"
        with hub.connect("g", "b", everything) as b:
            leaving.close()
            assert [await b.next(0), await b.next(0)] == ["2", None]
        with hub.connect("g", "a", everything) as again:
            assert [await again.next(0), await again.next(0)] == ["1", None]

    play(scenario())


def test_there_are_only_so_many_connections() -> None:
    async def scenario() -> None:
        hub = Hub(most=1)
        with hub.connect("g", "a", everything), pytest.raises(Full), hub.connect("g", "b", everything):
            pass
        assert hub.connections == 0
        with hub.connect("g", "b", everything):
            pass

    play(scenario())


def test_stopping_ends_every_connection_after_what_it_was_given() -> None:
    async def scenario() -> None:
        hub = Hub()
        with hub.connect("g", "a", everything) as a:
            waiting = asyncio.create_task(a.next(60))
            await asyncio.sleep(0)
            hub.stop()
            assert await waiting is None
            assert a.closed
        with hub.connect("g", "b", everything) as late:
            assert late.closed

    play(scenario())


class Receiver:
    """Takes pushes; answers with a status, or raises."""

    def __init__(self, *answers: int | Exception) -> None:
        self.answers = list(answers)
        self.got: list[tuple[str, Any, Mapping[str, str]]] = []

    async def __call__(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        self.got.append((url, json.loads(body), headers))
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, Exception):
            raise answer
        return answer


def unblock(settled_at: int = NOW, address: str = "http://w/x") -> Unblock:
    return Unblock(address, Record("p", State.RESOLVED, settled_at=settled_at))


EXECUTE = Execute("t", 3, "http://w/x")


def test_a_push_is_the_protocols_message_with_the_servers_address() -> None:
    async def scenario() -> None:
        to = Receiver()
        send = Messenger(post=to, server_url="http://server", headers={"authorization": "Bearer s"})
        await send(EXECUTE)
        await send(unblock())
        (url, body, headers), (_, second, _) = to.got
        assert url == "http://w/x"
        assert headers == {"content-type": "application/json", "authorization": "Bearer s"}
        assert body == {
            "kind": "execute", "head": {"serverUrl": "http://server"}, "data": {"task": {"id": "t", "version": 3}},
        }  # fmt: skip
        assert second["kind"] == "unblock"

    play(scenario())


@pytest.mark.parametrize("answer", [200, 302, 404, 500, ConnectionError("no")])
def test_an_execute_that_is_lost_is_nobodys_trouble_for_it_is_offered_again(answer: int | Exception) -> None:
    async def scenario() -> None:
        to = Receiver(answer)
        await Messenger(post=to)(EXECUTE)
        assert len(to.got) == 1

    play(scenario())


@pytest.mark.parametrize("answer", [500, 503, 429, 408, ConnectionError("no"), TimeoutError()])
def test_an_unblock_that_does_not_arrive_is_tried_again_for_a_while(answer: int | Exception) -> None:
    async def scenario() -> None:
        clock = VirtualClock(NOW)
        send = Messenger(post=Receiver(answer, answer), clock=clock, patience=1000)
        with pytest.raises(WakerError, match="was not told of 'p'"):
            await send(unblock())
        clock.advance(1000)
        await send(unblock())

    play(scenario())


@pytest.mark.parametrize("answer", [200, 204, 301, 400, 404, 410])
def test_an_unblock_that_is_refused_is_done_with(answer: int) -> None:
    async def scenario() -> None:
        await Messenger(post=Receiver(answer), clock=VirtualClock(NOW))(unblock())

    play(scenario())


def test_a_receiver_that_never_answers_is_given_up_whoever_sends() -> None:
    """A platform's own way of sending may wait for ever, and hold up whatever else its caller has to do."""

    async def silent(url: str, body: bytes, headers: Mapping[str, str]) -> int:
        await asyncio.Event().wait()
        return 200

    async def scenario() -> None:
        send = Messenger(post=silent, clock=VirtualClock(NOW), timeout=0)
        await send(EXECUTE)
        with pytest.raises(WakerError, match="status none"):
            await send(unblock())

    play(scenario())


@pytest.mark.parametrize("allowed", ["https://workers.example/", "https://workers.example"])
def test_pushes_go_only_where_they_may(allowed: str) -> None:
    async def scenario() -> None:
        to = Receiver()
        send = Messenger(post=to, push_to=[allowed])
        ours = {"https://workers.example/a", "https://workers.example"}
        evil = ("http://169.254.169.254/", "https://workers.example.evil/", "https://workers.example@evil/")
        for address in (*evil, *ours):
            await send(Execute("t", 1, address))
            await send(unblock(address=address))
        assert {url for url, _, _ in to.got} == ours

    play(scenario())


@pytest.mark.parametrize(
    "message", [Execute("t", 1, "everstep://shop"), Execute("t", 1, ""), Execute("t", 1, "poll://x")]
)
def test_an_address_of_no_transport_is_nobodys(message: Message) -> None:
    async def scenario() -> None:
        to = Receiver()
        await Messenger(Hub(), post=to)(message)
        await Messenger(None, post=to)(Execute("t", 1, "poll://any@g"))
        assert to.got == []

    play(scenario())


def test_in_a_server_an_execute_is_pushed_beside_the_work_and_once_at_a_time() -> None:
    async def scenario() -> None:
        gate = asyncio.Event()
        got: list[str] = []

        async def slow(url: str, body: bytes, headers: Mapping[str, str]) -> int:
            got.append(url)
            await gate.wait()
            return 200

        send = Messenger(post=slow, background=True)
        for _ in range(3):
            await send(EXECUTE)
        await asyncio.sleep(0)
        assert len(got) == 1
        gate.set()
        while send.under_way:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await send(EXECUTE)
        await asyncio.sleep(0)
        assert len(got) == 2
        await send.close()

    play(scenario())


def test_waiting_takes_one_look_for_all_and_none_for_nobody() -> None:
    async def scenario() -> None:
        looks: list[list[str]] = []
        settled: set[str] = set()

        async def look(ids: Any) -> list[str]:
            looks.append(sorted(ids))
            if len(looks) == 1:
                raise WakerError("the store is away for a moment")
            return [id for id in ids if id in settled]

        waits = Waits(look)
        tasks = [asyncio.create_task(waits.until(f"p{n % 3}", 60)) for n in range(200)]
        while len(looks) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert looks[-1] == ["p0", "p1", "p2"]
        settled |= {"p0", "p1", "p2"}
        waits.kick()
        await asyncio.gather(*tasks)
        rounds = waits.rounds
        assert rounds < 20
        await waits.until("late", 0)
        for _ in range(5):
            await asyncio.sleep(0)
        assert waits.rounds <= rounds + 1

    play(scenario())


def test_a_worker_that_comes_is_given_what_was_offered_in_vain() -> None:
    """A server that started anew knows of no message, and the next offer may be a minute away."""

    async def scenario() -> None:
        clock = VirtualClock(NOW)
        store = Counted(MemoryStore())
        client = Client(store, LocalWaker(), app=App("shop"), clock=clock)
        targets = {
            "any": "poll://any@g",
            "mine": "poll://uni@g/w",
            "preferred": "poll://any@g/w",
            "other": "poll://uni@g/x",
            "later": "poll://any@g",
        }
        for id, target in targets.items():
            tags = {"resonate:target": target, **({"resonate:delay": str(NOW + 90_000)} if id == "later" else {})}
            await client.service.perform(PromiseCreate(id, 2 * NOW, tags=tags))
            await client.service.fire(Wake(id))  # to nobody
        clock.advance(100)
        hub = Hub()
        messages = Messenger(hub)
        stream = letters(client, messages, hub, "g", "w", Principal())
        assert await anext(stream) == b": connected\n\n"
        told = [json.loads((await anext(stream)).removeprefix(b"data: "))["data"]["task"]["id"] for _ in range(3)]
        assert sorted(told) == ["any", "mine", "preferred"]

        searched = store.counts["find"]
        second = letters(client, messages, hub, "g", "v", Principal())
        await anext(second)
        waiting = asyncio.ensure_future(anext(second))
        await asyncio.sleep(0)
        assert store.counts["find"] == searched + 1, "only for what is addressed to it alone"
        waiting.cancel()
        await stream.aclose()

    play(scenario())


def test_one_is_offered_its_own_in_vain_offered_tasks_however_many_others_have() -> None:
    async def scenario() -> None:
        clock = VirtualClock(NOW)
        client = Client(MemoryStore(), LocalWaker(), app=App("shop"), clock=clock)
        for id in [*[f"a:{n:03}" for n in range(150)], "b:1"]:
            await client.service.perform(PromiseCreate(id, 2 * NOW, tags={"resonate:target": "poll://any@g"}))
            await client.service.fire(Wake(id))  # to nobody
        hub = Hub()
        messages = Messenger(hub)
        with hub.connect("g", "a", Principal("a:").may_see) as other:
            stream = letters(client, messages, hub, "g", "b", Principal("b:"))
            assert await anext(stream) == b": connected\n\n"
            assert b'"id":"b:1"' in await anext(stream)
            assert other.taken == 0
            await stream.aclose()

    play(scenario())
