"""POST /schedules, DELETE /schedules/{id}."""

from __future__ import annotations

from typing import Any

import pytest

from tests.components import requires_component
from tests.core.http_support import Shop, is_problem, shop

requires_component("cronsim", hint="pip install -e '.[test]'")

NIGHTLY = {"id": "nightly/eu", "cron": "0 3 * * *", "workflow": "pay", "args": ["x", 1], "timezone": "Europe/Berlin"}


def test_a_schedule_is_made_once_listed_and_removed() -> None:
    async def scenario(it: Shop) -> None:
        made = await it.post("/schedules", NIGHTLY)
        again = await it.post("/schedules", NIGHTLY)
        listed = (await it.get("/schedules")).json()["schedules"]

        assert made.status_code == 201
        assert (made.json()["id"], made.json()["timezone"]) == ("nightly/eu", "Europe/Berlin")
        assert again.json()["id"] == "nightly/eu"
        assert [one["id"] for one in listed] == ["nightly/eu"]
        assert (await it.http.delete("/schedules/nightly%2Feu")).status_code == 204
        assert (await it.get("/schedules")).json()["schedules"] == []
        is_problem(await it.http.delete("/schedules/nightly%2Feu"), 404, field="id")

    shop(scenario)


def test_another_schedule_under_the_same_id_is_a_conflict() -> None:
    async def scenario(it: Shop) -> None:
        await it.post("/schedules", NIGHTLY)

        is_problem(await it.post("/schedules", {**NIGHTLY, "cron": "0 4 * * *"}), 409, field="id")

    shop(scenario)


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"cron": "61 * * * *"}, 400, "cron"),
        ({"cron": "soon"}, 400, "cron"),
        ({"cron": None}, 400, "cron"),
        ({"timezone": "Mars/Olympus"}, 400, "cron"),
        ({"id": None}, 400, "id"),
        ({"id": "a.b"}, 400, "id"),
        ({"workflow": None}, 400, "workflow"),
        ({"workflow": "nope"}, 404, "name"),
        ({"args": []}, 400, "args"),
        ({"timeout": -1}, 400, "timeout"),
        ({"every": 1}, 400, "every"),
    ],
)
def test_a_bad_schedule_is_named_and_not_made(change: dict[str, Any], status: int, field: str) -> None:
    async def scenario(it: Shop) -> None:
        is_problem(await it.post("/schedules", {**NIGHTLY, **change}), status, field=field)
        assert (await it.get("/schedules")).json()["schedules"] == []

    shop(scenario)
