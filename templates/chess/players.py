"""Who plays. A player sees a position and names a move; given the same position and seed the built-in ones always name
the same one, so that a step that runs again finds the same move.

Nothing here knows of workflows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol

from chess import BB_CENTER, BISHOP, KNIGHT, PAWN, QUEEN, ROOK, Board, Color, Move

WORTH = {PAWN: 100, KNIGHT: 310, BISHOP: 330, ROOK: 500, QUEEN: 900}
MATE = 100_000


class Player(Protocol):
    """One method is all it takes to play."""

    name: str

    def choose(self, board: Board, seed: int) -> str:
        """A move in either notation, `e2e4` or `e4`. One that is not legal is asked for again."""
        ...


class Greedy:
    """Mates if it can, else takes what is worth most, else moves by lot."""

    name = "Greedy"

    def choose(self, board: Board, seed: int) -> str:
        return max(board.legal_moves, key=lambda move: (_gain(board, move), _lot(board, move, seed))).uci()


class Search:
    """Looks a few plies ahead, counting material, the centre and freedom to move."""

    def __init__(self, depth: int = 2) -> None:
        self.name = f"Search {depth}"
        self.depth = depth

    def choose(self, board: Board, seed: int) -> str:
        best, chosen = -2 * MATE, None
        for move in sorted(board.legal_moves, key=lambda move: _lot(board, move, seed)):
            board.push(move)
            value = -self._value(board, self.depth - 1, -2 * MATE, -best)
            board.pop()
            if value > best:
                best, chosen = value, move
        assert chosen is not None, "the game is over"
        return chosen.uci()

    def _value(self, board: Board, depth: int, low: int, high: int) -> int:
        """For the side to move, between `low` and `high`: what lies outside changes no choice (alpha-beta)."""
        moves = list(board.legal_moves)
        if not moves:
            return -MATE - depth if board.is_check() else 0
        if depth == 0:
            return _material(board, board.turn) - _material(board, not board.turn) + len(moves)
        for move in sorted(moves, key=board.is_capture, reverse=True):
            board.push(move)
            value = -self._value(board, depth - 1, -high, -low)
            board.pop()
            if value >= high:
                return value
            low = max(low, value)
        return low


class LanguageModel:
    """A player that is asked in words.

    Args:
        ask: takes a prompt and returns an answer: a call to the model of your choice.
    """

    def __init__(self, ask: Callable[[str], str], name: str = "Language model") -> None:
        self.ask = ask
        self.name = name

    def choose(self, board: Board, seed: int) -> str:
        side = "white" if board.turn else "black"
        legal = " ".join(board.san(move) for move in board.legal_moves)
        answer = self.ask(
            f"You play {side}. The position in FEN: {board.fen()}\nLegal moves: {legal}\nAnswer with one of them alone."
        )
        return answer.strip().strip(".`*\"'")


def _gain(board: Board, move: Move) -> int:
    victim = PAWN if board.is_en_passant(move) else board.piece_type_at(move.to_square)
    gain = WORTH[victim] if victim is not None else 0
    gain += WORTH[move.promotion] if move.promotion is not None else 0
    if board.gives_check(move):
        board.push(move)
        if board.is_checkmate():
            gain = MATE
        board.pop()
    return gain


def _material(board: Board, side: Color) -> int:
    mine = board.occupied_co[side]
    return (
        100 * (board.pawns & mine).bit_count()
        + 310 * (board.knights & mine).bit_count()
        + 330 * (board.bishops & mine).bit_count()
        + 500 * (board.rooks & mine).bit_count()
        + 900 * (board.queens & mine).bit_count()
        + 12 * (BB_CENTER & mine).bit_count()
    )


def _lot(board: Board, move: Move, seed: int) -> bytes:
    """Chance without dice: a number that only this game, this position and this move have."""
    return hashlib.sha256(f"{seed} {board.board_fen()} {move.uci()}".encode()).digest()
