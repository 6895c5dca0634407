"""A source file as `everstep check` reads it: what its names stand for, and which of them hold something mutable."""

from __future__ import annotations

import ast
from pathlib import Path

from .staticrules import OK_MARK

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class Module:
    """A parsed file: its imports, its functions, its names that hold something mutable, its loggers."""

    def __init__(self, file: str) -> None:
        self.file = file
        try:
            source = Path(file).read_text(encoding="utf-8")
            self.tree = ast.parse(source)
        except (OSError, SyntaxError, ValueError):
            source, self.tree = "", ast.Module([], [])
        self.accepted = {n for n, line in enumerate(source.splitlines(), 1) if OK_MARK in line}
        self.imports = imports_of(self.tree)
        self.functions: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = {}
        self.mutable: set[str] = set()
        self.loggers: set[str] = set()
        for node in self.tree.body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                self.functions[node.name] = node
            targets: list[ast.expr] = []
            value: ast.expr | None = None
            if isinstance(node, ast.Assign):
                targets, value = node.targets, node.value
            elif isinstance(node, ast.AnnAssign):
                targets, value = [node.target], node.value
            for target in targets:
                if isinstance(target, ast.Name) and value is not None:
                    if _is_mutable(value):
                        self.mutable.add(target.id)
                    elif isinstance(value, ast.Call) and self.name_of(value.func, {}) == "logging.getLogger":
                        self.loggers.add(target.id)

    def function_at(self, name: str, line: int) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
        for node in ast.walk(self.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name:
                first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
                if first <= line <= node.body[0].lineno:
                    return node
        return None

    def name_of(self, node: ast.expr, local: dict[str, str]) -> str | None:
        """The dotted name an expression stands for, imports resolved: `dt.now` is `datetime.datetime.now`."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return None
        known = local.get(node.id) or self.imports.get(node.id)
        if known is None:
            return None
        return ".".join([known, *reversed(parts)])


def imports_of(tree: ast.AST) -> dict[str, str]:
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def _is_mutable(value: ast.expr) -> bool:
    if isinstance(value, (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)):
        return True
    if isinstance(value, ast.Call):
        name = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
        return name in ("list", "dict", "set", "deque", "defaultdict", "Counter", "OrderedDict")
    return False


def assigned(function: Function) -> set[str]:
    """Names that are local to a function: parameters, and what is assigned in it."""
    arguments = function.args
    names = {one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
    names |= {one.arg for one in (arguments.vararg, arguments.kwarg) if one is not None}
    names |= {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names |= {
        node.name
        for node in ast.walk(function)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node is not function
    }
    return names
