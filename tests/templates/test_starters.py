"""The templates people start from: each runs as it is from the command line, and survives a crash at every point."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from everstep import Runtime
from everstep.testing import Simulation
from tests.components import requires_component
from tests.systems.scaffold import survives
from tests.templates.test_templates import copied, everstep
from tests.templates_by_path import template


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Templates write where they are; here that is nowhere near the sources."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "EVERSTEP_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def carried_out(name: str, folder: Path, *arguments: str, id: str) -> Any:
    """Run once as the README says, and once more under the same id; what it returned."""
    done = everstep(folder, "run", "app:app", *arguments, "--id", id, "--json")
    assert done.returncode == 0, done.stderr
    again = everstep(folder, "run", "app:app", *arguments, "--id", id, "--json")
    assert json.loads(again.stdout)["value"] == json.loads(done.stdout)["value"]
    return json.loads(done.stdout)["value"]


def test_approval_pays_what_is_small_at_once_and_asks_for_the_rest(tmp_path: Path) -> None:
    folder = copied("approval", tmp_path)

    assert carried_out("approval", folder, "expense", "kim", "4200", id="e1") == "payment-e1.1"
    started = everstep(folder, "start", "app:app", "expense", "kim", "420000", "--id", "e2")
    assert started.returncode == 0, started.stderr
    module = template("approval")

    async def answered() -> str:
        async with Runtime(module.app, f"sqlite:///{folder / 'everstep.db'}") as runtime:
            working = asyncio.create_task(runtime.serve())
            async with asyncio.timeout(20):
                while (await runtime.client.get("e2")).waiting_for != ["e2.1"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert everstep(folder, "resolve", "e2.1", "true").returncode == 0
            value = await runtime.client.handle("e2").result(timeout=20)
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            return str(value)

    assert asyncio.run(answered()) == "payment-e2.3"


@pytest.mark.parametrize(("answer", "result"), [(True, "payment-expense-1.3"), (False, "declined"), (None, "declined")])
def test_approval_survives_a_crash_at_every_point(answer: bool | None, result: str) -> None:
    module = template("approval")
    settle = {} if answer is None else {"{id}.1": answer}

    survives(module.app, module.expense, "kim", 420_000, result=result, settle=settle, modes=("queue",))


def test_approval_mails_a_signed_link_where_there_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    from everstep.tokens import verify

    monkeypatch.setenv("EVERSTEP_SECRET", "at least sixteen bytes")
    module = template("approval")
    sim = Simulation(module.app)
    sim.start(module.expense, "kim", 420_000, id="e")
    sim.run_until_idle()

    link = Path("mail.log").read_text().split()[-1]
    grant = verify("at least sixteen bytes", link.rpartition("/")[2], sim.now_ms)
    assert (grant.id, grant.expires_at - sim.now_ms) == ("e.1", 7 * 86_400_000)


def test_saga_books_the_whole_trip_or_nothing(tmp_path: Path) -> None:
    folder = copied("saga", tmp_path)

    assert carried_out("saga", folder, "trip", '["flight", "no-car"]', id="t2") == {
        "sold out": ["car"],
        "cancelled": ["flight-booking"],
    }
    assert (folder / "bookings.log").read_text().splitlines() == ["t2.1 book flight", "t2.3 cancel flight-booking"]


@pytest.mark.parametrize("parts", [["flight", "hotel"], ["flight", "hotel", "no-car"]])
def test_saga_survives_a_crash_at_every_point(parts: list[str]) -> None:
    module = template("saga")
    booked = ["flight-booking", "hotel-booking"]
    failed = {"sold out": ["car"], "cancelled": booked[::-1]}

    survives(module.app, module.trip, parts, result=failed if "no-car" in parts else {"booked": booked})


def test_webhook_books_an_event_once(tmp_path: Path) -> None:
    folder = copied("webhook", tmp_path)
    event = '{"id": "evt_1", "cents": 4200}'

    assert carried_out("webhook", folder, "payment", event, id="payment-evt_1") == "evt_1 is booked"
    assert len((folder / "books.log").read_text().splitlines()) == 2


def test_webhook_takes_signed_events_only_and_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requires_component("starlette", hint="pip install -e '.[dev]'")
    import httpx

    module = template("webhook")
    url = f"sqlite:///{tmp_path / 'everstep.db'}"
    monkeypatch.setenv("WEBHOOK_SECRET", "secret")
    monkeypatch.setenv("EVERSTEP_STORE", url)
    body = b'{"id": "evt_1", "cents": 4200}'

    async def story() -> None:
        transport = httpx.ASGITransport(app=module.site())
        async with Runtime(module.app, url) as runtime, httpx.AsyncClient(transport=transport) as http:

            async def post(content: bytes, signed: str) -> int:
                headers = {"x-signature": signed}
                return (await http.post("http://test/events", content=content, headers=headers)).status_code

            good = module.signature("secret", body)
            assert await asyncio.gather(*[post(body, good) for _ in range(10)]) == [200] * 10
            assert await post(body, "0" * 64) == 400
            assert await post(b"{}", module.signature("secret", b"{}")) == 400
            assert await post(b"{", module.signature("secret", b"{")) == 400
            await runtime.drive("payment-evt_1")
            assert await runtime.client.handle("payment-evt_1").result(timeout=0) == "evt_1 is booked"

    asyncio.run(story())
    assert len(Path("books.log").read_text().splitlines()) == 2


def test_webhook_survives_a_crash_at_every_point() -> None:
    module = template("webhook")

    survives(module.app, module.payment, {"id": "e", "cents": 1}, result="e is booked")


def test_agent_answers_without_a_key(tmp_path: Path) -> None:
    folder = copied("agent", tmp_path)

    assert carried_out("agent", folder, "chat", "What do you know of tides?", id="c1").startswith("Your 6 words")


def test_agent_survives_a_crash_at_every_point() -> None:
    module = template("agent")
    result = "Your 2 words reached me on 2023-11-14. Set a key, and I shall understand them."

    survives(module.app, module.chat, "two words", result=result)


@pytest.mark.parametrize(
    ("key", "module", "name"),
    [("ANTHROPIC_API_KEY", "anthropic", "Anthropic"), ("OPENAI_API_KEY", "openai", "OpenAI")],
)
def test_agent_takes_the_model_of_the_key(monkeypatch: pytest.MonkeyPatch, key: str, module: str, name: str) -> None:
    requires_component(module)
    monkeypatch.setenv(key, "key")

    assert type(template("agent").model()).__name__ == name


def test_report_files_the_report_of_its_day(tmp_path: Path) -> None:
    folder = copied("report", tmp_path)

    path = carried_out("report", folder, "report", "sales", "2026-03-01", id="r1")
    assert (folder / path).read_text().startswith("sales on 2026-03-01")
    made = everstep(folder, "schedule", "add", "nightly", "0 3 * * *", "app:app", "report", "sales")
    assert made.returncode == 0, made.stderr


def test_report_comes_once_for_each_night_and_late_if_nobody_was_there() -> None:
    module = template("report")
    sim = Simulation(module.app)
    sim.schedule("nightly", "0 3 * * *", module.report, "sales")
    sim.advance(days=3)

    assert sorted(path.name for path in Path("reports").iterdir()) == [
        f"sales-2023-11-{day}.txt" for day in (15, 16, 17)
    ]


def test_report_survives_a_crash_at_every_point() -> None:
    module = template("report")

    survives(module.app, module.report, "sales", result="reports/sales-2023-11-14.txt")


def test_fanout_sums_every_file_up(tmp_path: Path) -> None:
    folder = copied("fanout", tmp_path)

    result = carried_out("fanout", folder, "checksums", ".", "*.py", id="f1")
    assert list(result) == ["app.py"]
    assert len(result["app.py"]) == 64


def test_fanout_survives_a_crash_at_every_point_and_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    module = template("fanout")
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    sums = [
        "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
        "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d",
    ]
    result = dict(zip([str(tmp_path / name) for name in "ab"], sums, strict=True))

    survives(module.app, module.checksums, str(tmp_path), result=result, modes=("queue",))
    (tmp_path / "b").unlink()
    (tmp_path / "b").symlink_to(tmp_path / "nowhere")
    sim = Simulation(module.app)
    assert list(sim.run(sim.start(module.checksums, str(tmp_path)))) == [str(tmp_path / "a")]


def test_fanout_works_on_so_many_together_and_no_more(tmp_path: Path) -> None:
    module = template("fanout")
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text("x")
    sim = Simulation(module.app, steps_per_invocation=1)
    handle = sim.start(module.checksums, str(tmp_path), "*.txt", together=2)

    assert len(sim.run(handle)) == 5


def test_entity_is_abandoned_when_left_alone(tmp_path: Path) -> None:
    folder = copied("entity", tmp_path)

    assert carried_out("entity", folder, "cart", "kim", "0.1", id="cart-2") == {"state": "abandoned", "items": {}}


def test_entity_hears_every_message_in_order_across_crashes() -> None:
    module = template("entity")
    sim = Simulation(module.app)
    handle = sim.start(module.cart, "kim", id="cart-kim")
    messages: list[Any] = [{"add": "book"}, {"add": "pen"}, "nonsense", {"remove": "pen"}, {"remove": "pen"}]
    for number, message in enumerate(messages, start=1):
        sim.advance(minutes=29)
        sim.kill()
        sim.resolve(f"cart-kim/in-{number}", message)
    sim.advance(minutes=29)
    assert not handle.done
    sim.resolve("cart-kim/in-6", {"check out": True})
    sim.run_until_idle()

    assert handle.result() == {"state": "checked out", "items": {"book": 1}}


def test_entity_hands_its_state_on_and_is_found_by_send() -> None:
    module = template("entity")
    sim = Simulation(module.app)
    handle = sim.start(module.cart, "kim", id="cart-kim")

    def send(key: str, message: dict[str, Any]) -> None:
        sim.run_until_idle()
        sim.call(lambda client: module.send(client, "kim", key, message))

    for number in range(110):
        send(f"m{number}", {"add": "book"})
        send(f"m{number}", {"add": "book"})  # again, as a sender that got no answer does
    sim.run_until_idle()
    assert handle.tree().promise.generation == 2
    send("end", {"check out": True})
    sim.run_until_idle()

    assert handle.result() == {"state": "checked out", "items": {"book": 110}}
    with pytest.raises(module.Gone):
        send("late", {"add": "book"})


def test_entity_survives_a_crash_at_every_point() -> None:
    module = template("entity")
    settle = {"{id}/in-1": {"add": "book"}, "{id}/in-2": {"check out": True}}
    result = {"state": "checked out", "items": {"book": 1}}

    survives(module.app, module.cart, "kim", 1e7, result=result, settle=settle, modes=("queue",))


def test_batch_imports_each_record_once(tmp_path: Path) -> None:
    folder = copied("batch", tmp_path)

    assert carried_out("batch", folder, "load", "records.csv", id="l1") == {"imported": 51, "refused": 2}
    with sqlite3.connect(folder / "imported.db") as db:
        assert db.execute("SELECT count(*), sum(cents) FROM records").fetchone() == (51, 125 * (53 * 27 - 17 - 40))


def test_batch_survives_a_crash_at_every_point_and_starting_over(tmp_path: Path) -> None:
    module = template("batch")
    path = str(copied("batch", tmp_path) / "records.csv")

    survives(module.app, module.load, path, 20, 2, result={"imported": 51, "refused": 2}, modes=("queue",))
