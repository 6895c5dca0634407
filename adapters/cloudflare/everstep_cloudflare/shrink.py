"""Python sources for a Worker: each statement in its line and under its own names, without what only people and type
checkers read.

Docstrings, comments, annotations outside of classes' bodies, overloads, the methods of protocols, imports for type
checkers and imports that are then unused become blank lines; an indent is one space, and there is none where none is
needed. So a traceback still points to the right line, and the line still says what it does. Annotations in the body of
a class stay: dataclasses, named tuples and decoding read them.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from bisect import bisect_right
from collections.abc import Collection, Sequence
from functools import cache
from typing import TypeGuard

_Placed = ast.stmt | ast.expr | ast.arg
_Span = tuple[int, int, str]
"""Bytes from and to, and what comes in their place beside their line ends."""
_TEXT_BEGINS = [value for name, value in vars(tokenize).items() if re.fullmatch("[FT]STRING_START", name)]
_TEXT_ENDS = [value for name, value in vars(tokenize).items() if re.fullmatch("[FT]STRING_END", name)]


@cache
def shrunk(source: str, asked: frozenset[str] = frozenset()) -> str:
    """A module's source as a Worker gets it.

    Args:
        asked: names that other modules take from this one, so that their imports stay.

    Raises:
        SyntaxError: it is no Python.
    """
    wide = without_unused(without_types(without_words(source)), asked)
    thin = narrow(wide)
    return thin if ast.dump(ast.parse(thin)) == ast.dump(ast.parse(wide)) else wide


def without_words(source: str) -> str:
    """Without docstrings and comments."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip()
    bare = "\n".join(lines) + "\n"
    tree = ast.parse(bare)
    return _without(bare, tree, [node for node in ast.walk(tree) if _is_word(node)])


def without_types(source: str) -> str:
    """Without annotations that nothing reads, overloads, and what is imported for type checkers."""
    tree, starts, data = ast.parse(source), _starts(source), source.encode()
    spans: list[_Span] = []
    leaving: list[_Placed] = []

    def look(node: ast.AST, in_class: bool) -> None:
        for child in ast.iter_child_nodes(node):
            match child:
                case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=[]):
                    leaving.append(child)
                    continue
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    if _is_overload(child) or (_is_protocol(node) and _is_stub(child)):
                        leaving.append(child)
                        continue
                    if child.returns is not None:
                        first, last = _span(starts, child.returns)
                        spans.append((data.rindex(b")", 0, first) + 1, data.index(b":", last), ""))
                case ast.arg(annotation=ast.expr() as annotation):
                    spans.append((_span(starts, child)[0] + len(child.arg.encode()), _span(starts, annotation)[1], ""))
                case ast.AnnAssign(value=ast.expr()) if not in_class:
                    spans.append((_span(starts, child.target)[1], _span(starts, child.annotation)[1], ""))
            look(child, isinstance(child, ast.ClassDef))

    look(tree, False)
    return _without(source, tree, leaving, spans)


def _is_overload(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(isinstance(one, ast.Name) and one.id == "overload" for one in node.decorator_list)


def _is_protocol(node: ast.AST) -> bool:
    bases = [] if not isinstance(node, ast.ClassDef) or node.decorator_list else node.bases
    plain = [one.value if isinstance(one, ast.Subscript) else one for one in bases]
    return any(isinstance(one, ast.Name) and one.id == "Protocol" for one in plain)


def _is_stub(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    values = [one.value for one in node.body if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)]
    return len(values) == len(node.body) and all(one.value is ... for one in values)


def without_unused(source: str, asked: Collection[str] = ()) -> str:
    """Without imports of names that nothing reads: neither this module nor whoever asks."""
    tree, starts = ast.parse(source), _starts(source)
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    annotated = any(isinstance(one, ast.AnnAssign) for node in classes for one in ast.walk(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            read.update(re.findall(r"\w+", node.value))
    spans: list[_Span] = []
    leaving: list[_Placed] = []
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module="__future__", names=names):
                left = names if annotated else []
            case ast.ImportFrom(names=names):
                left = [
                    one
                    for one in names
                    if one.name == one.asname or (one.asname or one.name) in read or (one.asname or one.name) in asked
                ]
            case _:
                continue
        if not left:
            leaving.append(node)
        elif len(left) < len(node.names):
            spans.append((*_span(starts, node), ast.unparse(ast.ImportFrom(node.module, left, node.level))))
    return _without(source, tree, leaving, spans)


def narrow(source: str) -> str:
    """With one space for each indent and between words, and none elsewhere; texts stay as they are."""
    lines = source.splitlines()
    cuts: list[tuple[int, int, int]] = []
    commas: list[list[tuple[int, int]]] = []
    depth, texts, begins, row, end, before = 0, 0, True, 0, 0, ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in _TEXT_ENDS:
            texts -= 1
            row, end, before = *token.end, token.string[-1:]
        if texts or token.type in (*_TEXT_ENDS, tokenize.NL, tokenize.COMMENT, tokenize.ENDMARKER):
            texts += token.type in _TEXT_BEGINS
            continue
        match token.type:
            case tokenize.INDENT:
                depth += 1
            case tokenize.DEDENT:
                depth -= 1
            case tokenize.NEWLINE:
                begins = True
            case kind:
                first, column = token.start
                if first > row:
                    cuts.append((first, 0, column - (depth if begins else 0)))
                elif column > end:
                    kept = int(_in_word(before) and _in_word(token.string[0], after=True))
                    cuts.append((first, end, column - end - kept))
                match token.string:
                    case "(" | "[" | "{":
                        commas.append([])
                    case "," if commas:
                        commas[-1].append(token.start)
                    case ")" | "]" | "}":
                        # One comma alone may make a tuple; the last of more is there for people.
                        within = commas.pop()
                        if len(within) > 1 and before == ",":
                            cuts.append((*within[-1], 1))
                begins, (row, end), before = False, token.end, token.string[-1:]
                texts += kind in _TEXT_BEGINS
    for first, column, count in sorted(cuts, reverse=True):
        line = lines[first - 1]
        lines[first - 1] = line[:column] + line[column + count :]
    return "\n".join(lines) + "\n"


def _in_word(letter: str, after: bool = False) -> bool:
    """Whether a space beside it has to stay: between names, and before a text that a name would be the prefix of."""
    return letter.isalnum() or letter == "_" or (after and letter in "'\"")


def _is_word(node: ast.AST) -> TypeGuard[ast.Expr]:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _without(source: str, tree: ast.Module, leaving: Collection[_Placed], spans: Collection[_Span] = ()) -> str:
    """Without these statements of its tree; a body that held nothing else keeps an empty text."""
    starts, data = _starts(source), source.encode()
    gone = {_place(node) for node in leaving}
    lonely = set[tuple[int, int]]()
    for node in ast.walk(tree):
        for name in () if isinstance(node, ast.Module) else ("body", "orelse", "finalbody"):
            body = getattr(node, name, None)
            if isinstance(body, list) and body and all(_place(one) in gone for one in body):
                lonely.add(_place(body[0]))
    edits = list(spans)
    for one in leaving:
        first, last = _span(starts, one)
        for decorator in getattr(one, "decorator_list", []):
            first = min(first, _span(starts, decorator)[0] - len("@"))
        if _place(one) in lonely:
            edits.append((first, last, '""'))
        else:
            begin = starts[bisect_right(starts, first) - 1]
            edits.append((first if data[begin:first].strip() else begin, last, ""))
    for first, last, text in sorted(edits, reverse=True):
        data = data[:first] + text.encode() + b"\n" * data.count(b"\n", first, last) + data[last:]
    return data.decode()


def _place(node: _Placed) -> tuple[int, int]:
    return node.lineno, node.col_offset


def _starts(source: str) -> list[int]:
    """Where each line begins, in bytes."""
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return starts


def _span(starts: Sequence[int], node: _Placed) -> tuple[int, int]:
    return starts[node.lineno - 1] + node.col_offset, starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
