"""The program in a system's test file, without its checks: what a user would copy.

Nothing in the file marks where it ends. It begins with what stands before the first test and is registered with an App
(workflows, steps) or takes a client (the routes and actions of a service), and holds whatever of the module those need.
`did(...)`, by which the checks count effects, is left out.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = ROOT / "templates"
PREPARE = "prepare"
"""Provides what belongs into a folder; a child process of the tests calls it, and so does the program."""
_REGISTERS = {"step", "workflow", "on"}
_COUNTS = "did"
_SHORT = {"http", "json", "mcp", "rpc", "sqs"}
_TESTS = "tests."
_ASIDE = re.compile(r"  # (?:type: ignore|noqa)[^\n]*")


class System(NamedTuple):
    """A test file, read.

    Attributes:
        about: the first paragraph of its docstring, without the number.
        program: Python code that can be imported as it stands.
        proves: its tests, as sentences.
    """

    number: int
    name: str
    about: str
    program: str
    proves: list[str]


def read(path: Path) -> System:
    """Raises ValueError if the file does not begin as a system's does."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    about = re.match(r"System (\d+)[,:] (.*?)(?:\n\n|\Z)", ast.get_docstring(tree) or "", re.DOTALL)
    if about is None:
        raise ValueError(f"{path} does not begin with 'System <number>, <what it is>'")
    proves = dict.fromkeys(_sentence(name) for one in tree.body if _is_test(one) for name in _defines(one))
    name = re.sub(r"^test_(\d\d_)?", "", path.stem)
    return System(int(about[1]), name, " ".join(about[2].split()), program(text), list(proves))


def program(text: str) -> str:
    """The program of a test file, not yet in its final form: imports that nothing uses are still there."""
    body = ast.parse(text).body
    end = next((at for at, one in enumerate(body) if _is_test(one)), len(body))
    part = _Part(text, body[:end])
    if (name := part.template()) is not None:
        return (TEMPLATES / name / "app.py").read_text(encoding="utf-8")
    needed = part.needed()
    chosen = [one for one in part.statements if one in needed or part.is_import(one)]
    imports, classes = part.borrowed({name for one in needed for name in part.uses(one)})
    pieces = [*imports, *(part.source(one) for one in chosen if part.is_import(one)), *classes]
    ends = 0
    for one in [one for one in chosen if not part.is_import(one)]:
        if one.lineno == ends + 1:  # it stands right below the one before it
            pieces[-1] += f"\n{part.source(one)}"
        else:
            pieces.append(part.source(one))
        ends = one.end_lineno or 0
    if any(isinstance(one, ast.FunctionDef) and one.name == PREPARE for one in needed):
        pieces.append(f"{PREPARE}(Path())")
    return _ASIDE.sub("", "\n\n".join(pieces)) + "\n"


class _Part:
    """The statements before the first test, and what of them belongs to the program."""

    def __init__(self, text: str, statements: list[ast.stmt]) -> None:
        self.lines = text.splitlines()
        self.statements = statements
        self.defined: dict[str, list[ast.stmt]] = {}
        for one in _unfolded(statements):
            for name in _defines(one):
                self.defined.setdefault(name, []).append(one)
        self.from_tests = {
            name: one.module or ""
            for one in _unfolded(statements)
            if isinstance(one, ast.ImportFrom) and (one.module or "").startswith(_TESTS)
            for name in _defines(one)
        }

    def needed(self) -> set[ast.stmt]:
        found: set[ast.stmt] = set()
        left = [one for one in self.statements if _is_registered(one) or _faces_others(one)]
        while left:
            while left:
                one = left.pop()
                if one not in found and not _is_import(one):
                    found.add(one)
                    left += [other for name in self.uses(one) for other in self.defined.get(name, [])]
            left = [other for other in self.statements if other not in found and self.belongs(other, found)]
        return found

    def template(self) -> str | None:
        """The template whose module is the program, where it is one's."""
        for one in self.statements:
            match one:
                case ast.Assign(value=ast.Call(func=ast.Name(id="template"), args=[ast.Constant(value=str(name))])):
                    return name
        return None

    def borrowed(self, used: set[str]) -> tuple[list[str], list[str]]:
        """What the program uses of the tests' scaffolding, classes that stand in for something outside; and imports."""
        imports: list[str] = []
        found: list[str] = []
        for name in sorted(used & self.from_tests.keys() - {_COUNTS}):
            text = (ROOT / f"{self.from_tests[name].replace('.', '/')}.py").read_text(encoding="utf-8")
            other = _Part(text, ast.parse(text).body)
            plain = [one for one in other.statements if other.is_import(one) and not isinstance(one, ast.If)]
            imports += [other.source(one) for one in plain]
            found += [other.source(one) for one in other.defined[name]]
        return imports, found

    def is_import(self, one: ast.stmt) -> bool:
        """What the program may import; the harness of the tests is no part of it."""
        return _is_import(one) and not ({"pytest", "annotations", *self.from_tests} & set(_defines(one)))

    def uses(self, one: ast.stmt) -> set[str]:
        return _names(ast.parse(self.source(one)))

    def belongs(self, one: ast.stmt, found: set[ast.stmt]) -> bool:
        """What is done to things of the program alone: a loop over them, what a name means."""
        if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant):
            at = self.statements.index(one)
            return at > 0 and self.statements[at - 1] in found
        if not isinstance(one, (ast.Expr, ast.For)) and not (isinstance(one, ast.FunctionDef) and one.name == PREPARE):
            return False
        names = self.uses(one) & self.defined.keys()
        here = {name for inner in ast.walk(one) for name in (_defines(inner) if isinstance(inner, ast.stmt) else ())}
        known = all(any(other in found for other in self.defined[name]) for name in names - here if self.local(name))
        return (
            known
            and any(self.local(name) for name in names)
            and not names & (self.from_tests.keys() - {name for each in found for name in self.uses(each)})
        )

    def local(self, name: str) -> bool:
        return any(not _is_import(one) for one in self.defined[name])

    def source(self, one: ast.stmt) -> str:
        """Its text, without the lines that count."""
        decorators = (
            one.decorator_list if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) else []
        )
        first = min([one.lineno, *(each.lineno for each in decorators)])
        last = one.end_lineno or first
        dropped: dict[int, str | None] = {}
        for inner in ast.walk(one):
            for block in (getattr(inner, "body", None), getattr(inner, "orelse", None)):
                counting = [each for each in block if _counts(each)] if isinstance(block, list) else []
                for each in counting:
                    dropped.update(dict.fromkeys(range(each.lineno, (each.end_lineno or each.lineno) + 1)))
                if counting and len(counting) == len(block or ()):
                    dropped[counting[0].lineno] = " " * counting[0].col_offset + "..."
        kept = [dropped.get(number, self.lines[number - 1]) for number in range(first, last + 1)]
        return "\n".join(line for line in kept if line is not None)


def _counts(one: object) -> bool:
    match one:
        case ast.Expr(value=ast.Call(func=ast.Name(id=name))):
            return name == _COUNTS
    return False


def _is_test(one: ast.stmt) -> bool:
    return isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef)) and one.name.startswith("test_")


def _is_registered(one: ast.stmt) -> bool:
    """A workflow or a step, by its decorator or by a call."""
    match one:
        case ast.FunctionDef(decorator_list=given) | ast.AsyncFunctionDef(decorator_list=given):
            called = [each.func if isinstance(each, ast.Call) else each for each in given]
        case ast.Expr() | ast.For():
            called = [each.func for each in ast.walk(one) if isinstance(each, ast.Call)]
            called += [each.func for each in called if isinstance(each, ast.Call)]
        case _:
            return False
    return any(isinstance(each, ast.Attribute) and each.attr in _REGISTERS for each in called)


def _faces_others(one: ast.stmt) -> bool:
    """A service's own code: routes, actions over a client, the tools of an MCP server, a function that makes an App."""
    match one:
        case ast.FunctionDef(returns=ast.Name(id="App")):
            return True
        case ast.FunctionDef(name=name, args=given) | ast.AsyncFunctionDef(name=name, args=given):
            annotation = given.args[0].annotation if given.args else None
            return name.endswith("site") or (isinstance(annotation, ast.Name) and annotation.id == "Client")
        case ast.Assign(value=ast.Call(func=ast.Name(id="Tools"))) | ast.Assign(targets=[ast.Name(id="app")]):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr="provide"))):
            return True
    return False


def _is_import(one: ast.stmt) -> bool:
    match one:
        case ast.Import() | ast.ImportFrom() | ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
    return False


def _unfolded(statements: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Imports under `if TYPE_CHECKING:` count like any other."""
    for one in statements:
        if isinstance(one, ast.If) and _is_import(one):
            yield from _unfolded(one.body)
        yield one


def _defines(one: ast.stmt) -> list[str]:
    match one:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return [each.asname or each.name.partition(".")[0] for each in names]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case ast.Assign(targets=targets):
            return [each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]
        case ast.For(target=target, body=body):
            inner = [name for each in body for name in _defines(each)]
            return [each.id for each in ast.walk(target) if isinstance(each, ast.Name)] + inner
    return []


def _names(tree: ast.AST) -> set[str]:
    """What it reads and does not make itself."""
    names = [each for each in ast.walk(tree) if isinstance(each, ast.Name)]
    made = {each.id for each in names if isinstance(each.ctx, ast.Store)}
    made |= {each.arg for each in ast.walk(tree) if isinstance(each, ast.arg)}
    made |= {each.name for each in ast.walk(tree) if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))}
    return {each.id for each in names} - made


def _sentence(name: str) -> str:
    """`test_killed_anywhere_it_goes_on` as "Killed anywhere it goes on." """
    words = name.removeprefix("test_").split("_")
    text = " ".join(word.upper() if word in _SHORT else word for word in words)
    return f"{text[0].upper()}{text[1:]}."
