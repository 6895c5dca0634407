"""An endless series of chess games. Each move and each publication is a checkpoint; a game ends by starting the next.

The board is not stored anywhere: it is the recorded moves, played again. `ctx.detached` starts the next game as a run
of its own, so that a restart replays the moves of one game, never of the series.

The rules come from the package `chess`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from chess import Board
from players import Greedy, Player, Search

from everstep import App, Context, Retry, current_step

app = App("chess", retention=timedelta(days=7))


class Players:
    """Two players; they change sides after each game."""

    def __init__(self, one: Player, two: Player) -> None:
        self.one = one
        self.two = two

    def to_move(self, board: Board, game: int) -> Player:
        return self.one if board.turn == (game % 2 == 1) else self.two

    def choose(self, board: Board, game: int) -> str:
        return self.to_move(board, game).choose(board.copy(stack=False), game)


@dataclass(frozen=True)
class Picture:
    """What spectators see."""

    game: int
    ply: int
    move: str
    fen: str
    result: str


class Publisher:
    """Writes the latest picture to a file that is whole at every moment. Provide another one to push it to a page."""

    def __init__(self, path: Path | str = "board.json") -> None:
        self.path = Path(path)

    def publish(self, picture: Picture) -> None:
        draft = self.path.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(picture)))
        os.replace(draft, self.path)


app.provide(Players(Search(2), Greedy()))
app.provide(Publisher())


class IllegalMove(ValueError):
    """The player named a move that the rules do not allow here."""


@app.step(retry=Retry(attempts=10, first=0.2))
def choose(game: int, fen: str) -> str:
    """The move of whoever's turn it is. One that is not legal is asked for again: the step is retried."""
    board = Board(fen)
    answer = current_step().dependency(Players).choose(board, game)
    for read in (board.parse_uci, board.parse_san):
        try:
            return read(answer).uci()
        except ValueError:
            continue
    raise IllegalMove(f"{answer!r} in {fen}")


@app.step
def publish(picture: Picture) -> None:
    current_step().dependency(Publisher).publish(picture)


@app.workflow
def chess(ctx: Context, game: int = 1, pause: float = 1.0, plies: int = 400) -> Generator[Any, Any, str]:
    """One game, `pause` seconds a move, drawn after so many `plies`; then the next one starts."""
    board = Board()
    while not board.is_game_over() and board.ply() < plies:
        move: str = yield ctx.run(choose, game, board.fen())
        board.push_uci(move)
        yield ctx.run(publish, Picture(game, board.ply(), move, board.fen(), board.result()))
        yield ctx.sleep(pause)
    yield ctx.detached(chess, game + 1, pause, plies)
    return board.result() if board.is_game_over() else "1/2-1/2"
