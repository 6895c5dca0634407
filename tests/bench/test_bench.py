"""The bench runs from end to end on next to nothing, and writes down what it found."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from bench import __main__ as bench
from bench.figures import FULL, Figure, in_turns, ratio

RESULTS = Path(bench.RESULTS)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bench") / "results.json"
    assert bench.main(["--tiny", "--date", "2026-01-02", "--out", str(out)]) == 0
    return out


def test_it_measures_every_row_and_writes_json(written: Path) -> None:
    results = json.loads(written.read_text())

    assert results["date"] == "2026-01-02"
    assert results["machine"].keys() == {"python", "sqlite", "system", "processor", "cores"}
    assert {figure["row"] for figure in results["figures"]} == {module.ROW for module in bench.ROWS}
    names = [figure["name"] for figure in results["figures"]]
    assert len(names) == len(set(names))
    for figure in results["figures"]:
        assert math.isfinite(figure["measured"]), figure
        assert figure["within"] in (True, False, None)


def test_counts_do_not_depend_on_the_size(written: Path) -> None:
    figures = {figure["name"]: figure for figure in json.loads(written.read_text())["figures"]}

    assert all(figure["within"] for figure in figures.values() if figure["unit"] in ("requests", "writes", "wake-ups"))


def test_the_committed_run_is_a_full_one_of_this_bench() -> None:
    results = json.loads(RESULTS.read_text())

    assert results["scale"] == FULL.name
    assert {figure["row"] for figure in results["figures"]} == {module.ROW for module in bench.ROWS}


def test_it_says_how_each_figure_changed_and_whether_it_is_within() -> None:
    figures = [
        Figure("row", "slower", 3.0, budget=2.0),
        Figure("row", "same", 2.0, budget=2.0),
        Figure("row", "more", 0.9, budget=0.8, least=True),
        Figure("row", "told", 5.0),
        Figure("row", "excused", 5.0, budget=1.0, applies=False),
    ]
    lines = bench.table(figures, {"slower": 2.0, "same": 2.0, "told": 10.0}).splitlines()

    assert "+50%" in lines[2]
    assert "OVER" in lines[2]
    assert "=" in lines[3]
    assert "within" in lines[3]
    assert ">= 0.8" in lines[4]
    assert "within" in lines[4]
    assert "-50%" in lines[5]
    assert "OVER" not in lines[6]


def test_subjects_take_turns_so_that_neighbours_are_compared() -> None:
    order: list[str] = []

    def subject(name: str, time: float) -> float:
        order.append(name)
        return time

    times = in_turns(3, {"floor": lambda n: subject("floor", 1 + n), "ours": lambda n: subject("ours", 2 + 2 * n)})

    assert order == ["floor", "ours", "ours", "floor", "floor", "ours"]
    assert ratio(times["ours"], times["floor"]) == 2
