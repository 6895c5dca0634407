"""What is vendored: how large it is, what stays behind and says so, and that what goes along is the same program."""

from __future__ import annotations

import ast
import dis
import gzip
import inspect
import io
import json
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import pytest

from everstep.cli.new import templates
from everstep.http.openapi import describe
from everstep_cloudflare import vendor as vendoring
from everstep_cloudflare.shrink import narrow, shrunk, without_types, without_unused, without_words
from everstep_cloudflare.vendor import PACKAGES, UNUSABLE, vendor
from tests.templates_by_path import made
from tools.components import ROOT

from .worker import installed, sources

BUDGET = 400_000
USES = {*dis.hasname, *dis.hasconst, *dis.haslocal, *dis.hasfree}


def packed(files: dict[str, bytes]) -> int:
    """Bytes compressed, which is what the platform counts."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return len(held.getvalue())


def test_everstep_is_below_its_budget_as_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = vendor(tmp_path, ())
    own = sources(tmp_path)
    beside = (
        "workers",
        "workers_runtime_sdk",
        "_workers",
        "asgi",
        "starlette",
        "anyio",
        "idna",
        "typing_ext",
        "cronsim",
    )
    others = {name: data for name, data in sources(installed().packages).items() if name.startswith(beside)}
    assert done.size == sum(map(len, own.values()))
    with capsys.disabled():
        print(
            f"\nvendored: Everstep {done.size // 1000} KB in {len(own)} files, {packed(own) // 1000} KB compressed; "
            f"other packages {sum(map(len, others.values())) // 1000} KB, {packed(others) // 1000} KB compressed"
        )
    assert done.size < BUDGET


def test_data_is_what_it_was(tmp_path: Path) -> None:
    """The page and the description of the routes travel compressed."""
    vendor(tmp_path, ())
    code = "import json; from everstep.http.openapi import describe as d; print(json.dumps([d(), d('/a/')]))"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=tmp_path, env={}, capture_output=True, check=True)
    assert json.loads(done.stdout) == [describe(), describe("/a/")]
    page = gzip.decompress((tmp_path / "everstep" / "http" / "page.html.gz").read_bytes())
    assert page == (ROOT / "core" / "everstep" / "http" / "page.html").read_bytes()


def test_what_stays_behind_says_so_when_it_is_imported(tmp_path: Path) -> None:
    left_out = vendor(tmp_path, ()).left_out
    assert {"everstep.cli", "everstep.testing", "everstep.mcp", "everstep.models"} <= left_out.keys()
    assert {name for name, why in left_out.items() if why} == {name for name, why in UNUSABLE.items() if why}
    told = {
        "import everstep.cli.commands": "everstep.cli was left out of python_modules; to keep it: ",
        "import everstep.stores.sqlite": "everstep.stores was left out of python_modules (a Worker's store is",
        "from everstep import SyncClient": "everstep.sync was left out of python_modules (a Worker has no thread)",
        "from everstep.http import Hub": "--keep everstep.http.hub python_modules",
    }
    for statement, message in told.items():
        done = subprocess.run(
            [sys.executable, "-S", "-c", statement], cwd=tmp_path, env={}, capture_output=True, text=True, check=False
        )
        assert f"ImportError: {message}" in done.stderr or ("ImportError" in done.stderr and message in done.stderr)
    kept = vendor(tmp_path, (), keep=["everstep.sync"])
    assert "everstep.sync" not in kept.left_out
    assert (tmp_path / "everstep" / "sync.py").read_text() == (ROOT / "core" / "everstep" / "sync.py").read_text()


def test_an_app_that_imports_what_no_worker_can_use_is_told_when_it_is_put_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(vendoring, "PACKAGES", ())
    app, there = tmp_path / "src" / "app.py", tmp_path / "python_modules"
    app.parent.mkdir()
    for text, name, why in (
        (
            "from everstep import App\n\n\ndef later():\n    from everstep import SyncClient\n",
            "sync",
            "a Worker has no thread",
        ),
        ("import everstep.stores.sqlite\n", "stores.sqlite", "a Worker's store is its objects"),
        ("from everstep.http import bearer\n", "http.bearer", "it needs PyJWT"),
    ):
        app.write_text(text)
        assert vendoring.main([str(there)]) == 2
        told = capsys.readouterr().err
        assert f"app.py imports everstep.{name}, which is left out: {why}" in told
        assert f"--keep everstep.{name}" in told
    assert vendoring.main([str(there), "--keep", "everstep.http.bearer"]) == 0
    assert capsys.readouterr().out.startswith(f"{there}: ")
    assert vendoring.main([str(there), "--keep", "everstep.nothing"]) == 2
    assert "there is no module 'everstep.nothing' to keep" in capsys.readouterr().err
    app.write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from everstep.sync import SyncClient\n")
    assert vendoring.main([str(there)]) == 0
    assert not (there / "everstep" / "models").exists()


@pytest.mark.parametrize("name", [name for name, one in templates().items() if "cloudflare" in one.platforms])
def test_what_a_template_imports_comes_along(name: str, tmp_path: Path) -> None:
    mine = made(name, tmp_path / "mine", "cloudflare")
    vendor(tmp_path / "python_modules", (), app=mine)
    needed = {
        one for path in mine.rglob("*.py") for one in vendoring.imported(path.stem, path)
    } & vendoring.modules().keys()
    for one in needed:
        place = tmp_path / "python_modules" / one.replace(".", "/")
        assert place.is_dir() or place.with_suffix(".py").is_file(), one


def test_the_other_packages_are_those_of_the_component() -> None:
    names = {path.name.partition("-")[0].replace("_", "-") for path in installed().packages.glob("*.dist-info")}
    assert {one.partition(">")[0] for one in PACKAGES} <= names


class Untyped(ast.NodeTransformer):
    """What `shrunk` is to leave, by another way."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        protocol = not node.decorator_list and any(ast.unparse(one).startswith("Protocol") for one in node.bases)
        left: list[ast.stmt] = []
        for one in node.body:
            found = one if isinstance(one, ast.AnnAssign) else self.visit(one)
            if found is not None and not (protocol and ast.unparse(found).endswith(":\n    ...")):
                left.append(found)
        node.body = left
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
        self.generic_visit(node)
        node.returns = None
        return None if "overload" in map(ast.unparse, node.decorator_list) else node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST | None:
        return self.visit_FunctionDef(node)  # type: ignore[arg-type]

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        return ast.Assign([node.target], node.value) if node.value is not None else node

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)

    def visit_Import(self, node: ast.AST) -> None:
        return None

    visit_ImportFrom = visit_Import


def plain(source: str) -> list[str]:
    """The statements of a module without imports and words, as text."""
    tree = Untyped().visit(ast.parse(source))
    lines = ast.unparse(ast.fix_missing_locations(tree)).splitlines()
    return [line for line in lines if line.strip() != "''"]


def test_every_module_is_the_same_program_in_the_same_lines() -> None:
    modules = vendoring.modules()
    for name in vendoring.reachable({name: vendoring.imported(name, path) for name, path in modules.items()}):
        source = modules[name].read_text()
        small = shrunk(source)
        assert plain(small) == plain(source), name
        assert len(small.splitlines()) == len(source.splitlines()), name
        before, after = (dict(leaves(compile(text, name, "exec"))) for text in (source, small))
        for key in before.keys() - after.keys():  # an overload, or a method of a protocol
            assert {used for _, used in before[key]} == {"None"}, (name, key)
        for key in before.keys() & after.keys():
            assert after[key] == before[key], (name, key)


def leaves(code: CodeType) -> Iterator[tuple[tuple[str, int], set[tuple[int | None, str]]]]:
    """Every function that makes no other: its name and line, and in which line it uses which name or constant."""
    inner = [one for one in code.co_consts if isinstance(one, CodeType)]
    if not inner and code.co_flags & inspect.CO_OPTIMIZED:
        used = [one for one in dis.get_instructions(code) if one.opcode in USES and one.positions is not None]
        yield (code.co_qualname, code.co_firstlineno), {(one.positions.lineno, repr(one.argval)) for one in used}
    for each in inner:
        yield from leaves(each)


def test_words_leave_and_statements_stay_where_they_are() -> None:
    source = (
        '"""Words."""\n\nfrom __future__ import annotations\n\n\n'
        'def f() -> str:  # says\n    """More\n    of them."""\n    return "# no word"\n\n\n'
        'class E(Exception):\n    """Words alone."""\n'
    )
    assert without_words(source).splitlines() == [
        "", "", "from __future__ import annotations", "", "",
        "def f() -> str:", "", "", '    return "# no word"', "", "", "class E(Exception):", '    ""',
    ]  # fmt: skip


def test_types_leave_where_nothing_reads_them() -> None:
    source = textwrap.dedent("""
        if TYPE_CHECKING:
            from a import (
                b,
            )
        x: int = 1
        y: int

        class C:
            z: dict[str, int] = {}

            @overload
            async def f(self, a: int) -> int: ...

            async def f(
                self, a: Callable[[], int] = default, *rest: "b", **more: list[int]
            ) -> Callable[[int], int]:
                self.it: int = a
                def inner() -> None: ...
                found: list[int] = []

        class P(Protocol[T]):
            @property
            def it(self) -> int: ...
    """)
    assert without_types(source).split("\n") == [
        "", "", "", "", "", "x = 1", "y: int", "",
        "class C:", "    z: dict[str, int] = {}", "", "", "", "",
        "    async def f(", "        self, a = default, *rest, **more", "    ):",
        "        self.it = a", "        def inner(): ...", "        found = []", "",
        "class P(Protocol[T]):", '    ""', "", "",
    ]  # fmt: skip


def test_imports_leave_that_nothing_reads() -> None:
    source = (
        "from __future__ import annotations\nfrom a import b, c as d, e as e\nfrom f import (\n    g,\n    h,\n)\n"
        "import i\nprint(d)\ndef j():\n    from k import l\n"
    )
    assert without_unused(source).split("\n") == [
        "", "from a import c as d, e as e", "", "", "", "", "import i", "print(d)", "def j():", '    ""', "",
    ]  # fmt: skip
    assert without_unused(source, ["h", "l"]).splitlines()[2:] == [
        "from f import h", "", "", "", "import i", "print(d)", "def j():", "    from k import l",
    ]  # fmt: skip


def test_spaces_stay_between_words_and_in_texts() -> None:
    source = (
        'def f(a,\n      b=1):\n    if a  not  in (b, "c") :\n        return f"""\n'
        '        {a + 1}  {b!r:>{a}}\n    """ + (\n            b)  or  "x" "y"\n    return ""  if a else  b"" ; 1\n'
    )
    assert narrow(source) == (
        'def f(a,\nb=1):\n if a not in(b,"c"):\n  return f"""\n'
        '        {a + 1}  {b!r:>{a}}\n    """+(\nb)or "x""y"\n return ""if a else b"";1\n'
    )
