"""`make demo`: a countdown and a chess game in a process that is killed twice, and the proof that nothing was lost.

The process runs the two templates on one SQLite file. Each execution of a step is written down, and synced, in a log
that Everstep knows nothing of. After every SIGKILL the record is read before anything may go on; at the end the two are
compared. A step that was under way at the kill, and so was not recorded, runs again, and is counted by name.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from chess import Board

ROOT = Path(__file__).resolve().parent.parent
COUNTDOWN, GAME = "countdown", "game"
COUNT, PAUSE, THINKING = 5, 1.3, 0.08
KILLS = 2
NUMBER = 6  # of the game: the sixth of the series is short and ends in mate


class Execution(NamedTuple):
    """A step's body began, in the process's `life`-th life."""

    life: int
    id: str


class Check(NamedTuple):
    holds: bool
    says: str


def judge(
    executions: Sequence[Execution], recorded: Sequence[Mapping[str, Any]], final: Mapping[str, Any]
) -> tuple[list[Check], list[str]]:
    """Compare what ran with what was recorded.

    Args:
        executions: in order.
        recorded: the steps and their values in the record after each life that was killed.
        final: the same at the end.

    Returns the checks, and the steps that ran again because they were killed before they were recorded.
    """
    again = [one.id for one in executions if any(one.id in known for known in recorded[: one.life - 1])]
    times = Counter(executions)
    runs = Counter(one.id for one in executions)
    interrupted = sorted({id for id, count in runs.items() if count > 1 and id not in again})
    skipped = sorted(set(final) - set(runs))
    lost = sorted(set(runs) - set(final))
    changed = [id for known in recorded for id, value in known.items() if final.get(id, _NOTHING) != value]
    return [
        Check(not again, "nothing that was recorded ran again" + _named(again)),
        Check(max(times.values(), default=0) <= 1, "nothing ran twice in one life"),
        Check(not changed, "no recorded value changed" + _named(changed)),
        Check(not skipped, "nothing was skipped: every recorded step was seen to run" + _named(skipped)),
        Check(not lost, "nothing was lost: every step that ran is recorded" + _named(lost)),
    ], interrupted


_NOTHING: Any = object()


def _named(ids: Iterable[str]) -> str:
    found = sorted(set(ids))
    return f" (but for {', '.join(found[:5])})" if found else ""


def check_countdown(sent: Sequence[tuple[str, str]], final: Mapping[str, Any]) -> list[Check]:
    """Whoever received the notifications, and drops an id it knows, has each of them once and in order."""
    texts = list(dict(sent).values())
    wanted = [str(left) for left in range(COUNT, 0, -1)] + ["Done"]
    holds = texts == wanted and len([id for id in final if id.startswith(f"{COUNTDOWN}.")]) == len(wanted)
    return [Check(holds, f"each notification counts once, in order: {' '.join(texts)}")]


def check_game(moves: Sequence[str], picture: Mapping[str, Any], published: int) -> list[Check]:
    """The recorded moves, played by the rules, end in the position that was published."""
    board = Board()
    try:
        for move in moves:
            board.push_uci(move)
    except ValueError as error:
        return [Check(False, f"the recorded moves are a game: {error}")]
    holds = board.fen() == picture["fen"] and published == len(moves)
    return [Check(holds, f"the {len(moves)} recorded moves, played by the rules, end in the position published last")]


# The process that is killed.


def template(name: str) -> Any:
    """The `app` module of a template, as it is."""
    folder = ROOT / "templates" / name
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(f"template_{name}", folder / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


async def live(folder: Path, life: int, plies: int) -> None:
    """Run both to their end. Every step execution goes to the side log before its body does anything."""
    from everstep import Runtime, current_step

    countdown, chess = template("countdown"), template("chess")

    def ran(what: str) -> None:
        line = {"life": life, "id": current_step().id, "what": what}
        handle = os.open(folder / "executions.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(handle, json.dumps(line).encode() + b"\n")
        os.fsync(handle)
        os.close(handle)
        tell(line)

    class Notifier(countdown.Notifier):  # type: ignore[misc, name-defined]
        def send(self, id: str, text: str) -> None:
            ran(text)
            with self.path.open("a") as file:
                file.write(f"{id} {text}\n")

    class Players(chess.Players):  # type: ignore[misc, name-defined]
        def choose(self, board: Any, game: int) -> str:
            ran("move")
            time.sleep(THINKING)  # as long as somebody who thinks
            return str(super().choose(board, game))

    class Publisher(chess.Publisher):  # type: ignore[misc, name-defined]
        def publish(self, picture: Any) -> None:
            ran("publish")
            super().publish(picture)
            tell({"picture": {"ply": picture.ply, "move": picture.move, "fen": picture.fen, "result": picture.result}})

    countdown.app.provide(Notifier(folder / "notifications.log"))
    known = chess.app.dependency(chess.Players)
    chess.app.provide(Players(known.one, known.two))
    chess.app.provide(Publisher(folder / "board.json"))
    url = f"sqlite:///{folder / 'demo.db'}"
    async with Runtime(countdown.app, url) as one, Runtime(chess.app, url) as two:
        results = await asyncio.gather(
            one.run("countdown", COUNT, PAUSE, id=COUNTDOWN), two.run("chess", NUMBER, 0.05, plies, id=GAME)
        )
        for handle in results:
            tell({"result": await handle.result(), "id": handle.id})


def tell(line: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


# The one who kills, resumes and looks.


async def read_record(folder: Path) -> dict[str, Any]:
    """Every step in the record that has an outcome, with its value; read without running anything."""
    from everstep import Client, NotFound

    found: dict[str, Any] = {}
    async with Client.open(f"sqlite:///{folder / 'demo.db'}") as client:
        for root in (COUNTDOWN, GAME):
            try:
                tree = await client.tree(root)
            except NotFound:
                continue
            for view in tree.walk():
                if view.kind == "step" and not view.pending:
                    found[view.id] = {"name": view.name, "state": view.state, "value": view.value}
    return found


def read_executions(folder: Path) -> list[Execution]:
    path = folder / "executions.log"
    lines = path.read_text().splitlines() if path.exists() else []
    return [Execution(one["life"], one["id"]) for one in map(json.loads, lines)]


def one_life(folder: Path, life: int, plies: int, chance: random.Random | None, show: Show) -> None:
    """Start the process, watch it, and kill it at a moment that `chance` chooses; without one it runs to its end."""
    command = [sys.executable, str(Path(__file__).resolve()), "--life", str(life), str(folder), "--plies", str(plies)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    left = chance.randint(10, 24) if chance is not None else None
    show.life(life, process.pid)
    assert process.stdout is not None
    for text in process.stdout:
        line = json.loads(text)
        show.line(line)
        if "what" in line and left is not None and chance is not None:
            left -= 1
            if left == 0:
                time.sleep(chance.uniform(0, THINKING))
                process.kill()
    process.stdout.close()
    code = process.wait()
    if code != (-signal.SIGKILL if chance is not None else 0):
        raise SystemExit(f"the process ended by itself, with {code}")


class Show:
    """What is seen: with `rich` a little colour, without it plain text."""

    def __init__(self) -> None:
        try:
            from rich.console import Console

            self._console: Any = Console(highlight=False, soft_wrap=True)
        except ImportError:
            self._console = None
        self._moves: list[str] = []
        self._board = Board()
        self.result = ""

    def say(self, text: str, style: str = "") -> None:
        if self._console is not None:
            self._console.print(text, style=style or None, markup=False)
        else:
            print(text, flush=True)

    def life(self, life: int, pid: int) -> None:
        self.say(f"\nlife {life}  process {pid}", "bold cyan")

    def line(self, line: Mapping[str, Any]) -> None:
        if "picture" in line:
            self.picture(line["picture"])
        elif "result" in line:
            self.flush()
            self.say(f"  {line['id']:<10} ended: {line['result']}", "green")
        elif line["what"] not in ("move", "publish"):
            self.flush()
            self.say(f"  {COUNTDOWN:<10} {line['what']}", "bold yellow")

    def picture(self, picture: Mapping[str, Any]) -> None:
        ply = int(picture["ply"])
        if ply == self._board.ply():
            return  # published again
        move = str(picture["move"])
        if ply == self._board.ply() + 1:
            move = self._board.san(self._board.parse_uci(move))
        self._board = Board(picture["fen"])
        self.result = str(picture["result"])
        self._moves.append(f"{(ply + 1) // 2}{'.' if ply % 2 else '…'}{move}")
        if len(self._moves) == 8:
            self.flush()

    def flush(self) -> None:
        if self._moves:
            self.say(f"  {'chess':<10} {' '.join(self._moves)}")
            self._moves = []

    def killed(self, recorded: Mapping[str, Any]) -> None:
        self.flush()
        self.say(f"  killed by SIGKILL, with {len(recorded)} steps in the record", "bold red")

    def resumed(self, life: int, before: int, executions: Sequence[Execution]) -> None:
        ran = sum(one.life == life for one in executions)
        replayed = f"{before} steps replayed from the record, " if life > 1 else ""
        self.say(f"  {replayed}{ran} steps run", "cyan")

    def game(self) -> None:
        for row in self._board.unicode(empty_square="·").splitlines():
            self.say(f"     {row}")
        how = "checkmate" if self._board.is_checkmate() else "drawn" if self.result != "*" else "drawn by its length"
        self.say(f"     {self.result.replace('*', '½-½')}  {how}", "bold")


def watch(folder: Path, seed: int, plies: int) -> bool:
    """The whole show; whether every check held."""
    began = time.monotonic()
    show, chance = Show(), random.Random(seed)
    show.say(f"A countdown and a game of chess in one process, killed {KILLS} times (seed {seed}).", "bold")
    recorded: list[dict[str, Any]] = []
    for life in range(1, KILLS + 2):
        one_life(folder, life, plies, chance if life <= KILLS else None, show)
        executions = read_executions(folder)
        known = asyncio.run(read_record(folder))
        if life <= KILLS:
            show.killed(known)
        show.resumed(life, len(recorded[-1]) if recorded else 0, executions)
        recorded.append(known)
    final = recorded.pop()
    checks, interrupted = judge(executions, recorded, final)
    sent = [line.partition(" ")[::2] for line in (folder / "notifications.log").read_text().splitlines()]
    checks += check_countdown(sent, final)
    # Ids of one run in the order of its calls: game-1.4 comes before game-1.10.
    steps = sorted(
        (id for id in final if id.startswith(f"{GAME}.")), key=lambda id: [int(part) for part in id.split(".")[1:]]
    )
    moves = [final[id]["value"] for id in steps if final[id]["name"] == "choose"]
    picture = json.loads((folder / "board.json").read_text())
    checks += check_game(moves, picture, len(steps) - len(moves))
    show.say("")
    show.game()
    show.say(f"\n{len(final)} steps are recorded; {len(executions)} times a step ran.", "bold")
    for check in checks:
        show.say(f"  {'yes' if check.holds else 'NO '}  {check.says}", "green" if check.holds else "bold red")
    what = f": {', '.join(interrupted)}" if interrupted else ""
    show.say(f"  ran twice because it was killed before it was recorded: {len(interrupted)}{what}", "yellow")
    show.say(f"{time.monotonic() - began:.0f} s. The next game waits in the record; `everstep dev` would play it.")
    return all(check.holds for check in checks)


def main() -> int:
    parser = argparse.ArgumentParser(description="A countdown and a chess game, killed twice and resumed.")
    parser.add_argument("folder", nargs="?", help="where the record goes; a temporary folder by default")
    parser.add_argument("--seed", type=int, help="of the moments of the kills")
    parser.add_argument("--plies", type=int, default=60, help="after how many half-moves the game is drawn")
    parser.add_argument("--life", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.life is not None:
        asyncio.run(live(Path(given.folder), given.life, given.plies))
        return 0
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(1000)
    if given.folder is not None:
        folder = Path(given.folder)
        folder.mkdir(parents=True, exist_ok=True)
        return 0 if watch(folder, seed, given.plies) else 1
    with tempfile.TemporaryDirectory(prefix="everstep-demo-") as name:
        return 0 if watch(Path(name), seed, given.plies) else 1


if __name__ == "__main__":
    sys.exit(main())
