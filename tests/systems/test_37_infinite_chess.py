"""System 37, infinite chess: each move and each publication is a checkpoint, and a game ends by starting the next.

The workflow is the template's own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from everstep.testing import Simulation
from everstep.testing.simulation import Mode
from tests.components import requires_component
from tests.systems.scaffold import World, did, kill_at, run_process, serve_process, survives
from tests.templates_by_path import template

requires_component("chess", hint="pip install chess")

from chess import Board  # noqa: E402

chess_template = template("chess")
app, chess = chess_template.app, chess_template.chess


class Watched:
    """A player whose moves count in the world."""

    name = "Watched"

    def choose(self, board: Board, seed: int) -> str:
        did("move")
        return max(move.uci() for move in board.legal_moves)


class Board_(chess_template.Publisher):  # type: ignore[misc, name-defined]
    """Publishes to the world."""

    def publish(self, picture: Any) -> None:
        did("publish", game=picture.game, ply=picture.ply, move=picture.move)


def provide(world: World | None = None, player: Any = None) -> World:
    """Set the template up for a test; the value given last is the one that is used."""
    app.provide(chess_template.Players(player or Watched(), player or Watched()))
    app.provide(Board_())
    return app.provide(world or World())  # type: ignore[no-any-return]


provide()

PLIES = 6


def games(sim: Simulation) -> list[str]:
    return [id for id, record in sim.records().items() if record.task is not None]


@pytest.mark.parametrize("mode", ["rows", "queue"])
@pytest.mark.parametrize("steps", [None, 1])
def test_three_games_each_move_once_with_ids_of_one_length_and_a_replay_of_one_game(
    mode: Mode, steps: int | None
) -> None:
    world = provide()
    sim = Simulation(app, mode=mode, steps_per_invocation=steps, cache=0)
    read: list[int] = []
    sim.world.readers.append(lambda caller, id, rows: read.append(len(rows)))
    first = sim.start(chess, 1, 10.0, PLIES, id="game")

    sim.advance(seconds=3 * PLIES * 10)

    assert first.result() == "1/2-1/2"
    third = next(id for id in games(sim) if sim.handle(id).tree().promise.args[0] == 3)
    assert sim.handle(third).result() == "1/2-1/2"
    assert [(one["game"], one["ply"]) for one in world.effects("publish")] == [
        *((game, ply) for game in (1, 2, 3) for ply in range(1, PLIES + 1)),
        (4, 1),
    ]
    assert world.count("move") == 3 * PLIES + 1
    assert {len(id) for id in games(sim) if id != "game"} == {len("game~d0123456789abcdef")}
    assert max(read) <= 1 + 3 * PLIES + 1


@pytest.mark.parametrize("mode", ["rows", "queue"])
def test_the_next_game_starts_even_if_the_instance_dies_after_each_write(mode: Mode) -> None:
    world = provide()
    sim = Simulation(app, mode=mode)
    sim.start(chess, 1, 10.0, PLIES, id="game")

    for _ in range(4 * PLIES):
        sim.advance(seconds=10)
        sim.kill()

    pictures = [(one["game"], one["ply"]) for one in world.effects("publish")]
    assert pictures == sorted(set(pictures))
    assert pictures[-1][0] >= 3


@pytest.mark.parametrize("mode", ["rows", "queue"])
@pytest.mark.parametrize("last", ["detached", "settled"])
def test_the_next_game_is_played_even_if_the_instance_dies_after_its_last_write(mode: Mode, last: str) -> None:
    world = provide()
    sim = Simulation(app, mode=mode)
    kill_at(sim, last)
    sim.start(chess, 1, 10.0, PLIES, id="game")

    sim.advance(seconds=20 * PLIES + 120)

    pictures = [(one["game"], one["ply"]) for one in world.effects("publish")]
    assert pictures[: 2 * PLIES] == [(game, ply) for game in (1, 2) for ply in range(1, PLIES + 1)]


def test_a_process_killed_between_a_move_and_its_publication_does_not_think_again(tmp_path: Path) -> None:
    world = World(tmp_path, {"publish": ["ok", "ok", "kill-before"]})
    run = ("chess", 1, 0.001, PLIES)
    assert run_process(__name__, *run, id="game", folder=tmp_path).killed
    assert (world.count("move"), world.count("publish")) == (3, 2)

    assert run_process(__name__, *run, id="game", folder=tmp_path).result == "1/2-1/2"
    assert world.count("move") == PLIES
    assert [one["ply"] for one in world.effects("publish")] == list(range(1, PLIES + 1))


def test_a_served_series_goes_on_through_a_kill_in_its_second_game(tmp_path: Path) -> None:
    world = World(tmp_path, {"publish": ["ok"] * (PLIES + 2) + ["kill"]})
    assert run_process(__name__, "chess", 1, 0.001, PLIES, id="game", folder=tmp_path).result == "1/2-1/2"
    enough = ("publish", 3 * PLIES)

    assert serve_process(__name__, folder=tmp_path, until=enough).killed
    assert world.count("publish") == PLIES + 3
    assert not serve_process(__name__, folder=tmp_path, until=enough).killed

    pictures = [(one["game"], one["ply"]) for one in world.effects("publish")]
    wanted = [(game, ply) for game in (1, 2, 3) for ply in range(1, PLIES + 1)]
    assert list(dict.fromkeys(pictures))[: len(wanted)] == wanted
    assert [one for one in wanted if pictures.count(one) > 1] == [(2, 3)], "the one that died before it was recorded"


def test_a_language_model_that_names_an_illegal_move_is_asked_again() -> None:
    answers = iter(["e2e5", "I would castle!", " `e4`. ", "e5", "Ke3", "Nf3"])
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return next(answers)

    players = __import__("players")
    world = provide(player=players.LanguageModel(ask))
    sim = Simulation(app)

    assert sim.run(sim.start(chess, 1, 1.0, 3, id="game")) == "1/2-1/2"
    assert [one["move"] for one in world.effects("publish")] == ["e2e4", "e7e5", "g1f3"]
    assert len(asked) == 6
    assert "You play black" in asked[3]
    assert sim.handle("game").executions("choose") == {"game.1": 3, "game.4": 1, "game.7": 2}


def test_a_model_that_never_names_a_legal_move_ends_the_game_with_the_reason() -> None:
    players = __import__("players")
    provide(player=players.LanguageModel(lambda prompt: "e2e5"))
    sim = Simulation(app)

    with pytest.raises(chess_template.IllegalMove, match="e2e5"):
        sim.run(sim.start(chess, 1, 1.0, 3, id="game"))

    assert sim.handle("game").executions("choose") == {"game.1": 10}


@pytest.mark.parametrize("player", ["Greedy", "Search"])
def test_the_built_in_players_name_the_same_move_again(player: str) -> None:
    one: Callable[[], Any] = getattr(__import__("players"), player)
    board = Board("r1bqkbnr/pppp1ppp/2n5/4p3/4P3/5N2/PPPP1PPP/RNBQKB1R w KQkq - 2 3")

    assert {one().choose(board.copy(), seed=4) for _ in range(3)} == {one().choose(board.copy(), seed=4)}


def test_the_games_of_a_series_differ() -> None:
    greedy = __import__("players").Greedy()

    assert len({greedy.choose(Board(), seed) for seed in range(12)}) > 6


def test_ten_thousand_moves_leave_nothing_behind_but_the_last_week() -> None:
    provide(_Deaf())
    sim = Simulation(app)
    sim.world.verbose = False
    read: list[int] = []
    sim.world.readers.append(lambda caller, id, rows: read.append(len(rows)))
    sim.start(chess, 1, 3600.0, 4, id="game")  # an hour a move: 42 games a week

    kept, ids = [], set[int]()
    for _ in range(50):
        sim.advance(hours=200)
        sim.call(lambda client: client.sweep())
        sim.cold()  # the next wake-up replays
        kept.append(len(sim.world.store._rows))
        ids |= {len(id.partition(".")[0]) for id in sim.world.store._rows if not id.startswith("game.")}

    assert sim.executions["choose"] >= 9_999
    assert max(read) <= 14
    assert max(kept) <= 43 * 14
    assert ids <= {len("game"), len("game~d0123456789abcdef")}


class _Deaf(World):
    """Counts nothing: ten thousand effects are counted by the simulation."""

    def did(self, name: str, /, **detail: object) -> int:
        return 0


def test_it_survives_a_crash_at_every_point() -> None:
    provide()

    def followed(sim: Simulation, handle: Any) -> None:
        next_game = next(id for id in games(sim) if id != handle.id)
        assert sim.handle(next_game).tree().promise.args[0] == 2

    survives(app, chess, 1, 1000.0, 2, result="1/2-1/2", check=followed)
