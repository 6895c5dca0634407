"""`everstep check`: a static look at workflow bodies.

What a body may depend on is closed: its arguments, recorded values, recorded order. This names, from the source alone
and without running anything, what reaches outside of that, and says what to write instead. It looks at each registered
workflow and at the plain functions of the same file that its body calls. It is a help and no proof: the engine refuses
real I/O when it happens, and a replay that diverges is reported whatever this found.

A line that is right as it stands says so: `# everstep: ok`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from .registry import App, Workflow
from .staticrules import LOGGING, METHODS, MUTATORS, NAMES, Rule, rule_for
from .staticsource import Function, Module, assigned, imports_of

_OPERATIONS = ("run", "rpc", "detached", "sleep", "sleep_until", "promise")
_ORDERED_BY = ("list", "tuple", "enumerate", "iter", "reversed", "zip", "map", "filter", "next")


class Finding(NamedTuple):
    """One place that may make a replay differ.

    Attributes:
        file: as Python knows it.
        line: from 1.
        workflow: in whose body it is, or which body calls the function it is in.
        what: is there.
        instead: what to write.
    """

    file: str
    line: int
    workflow: str
    what: str
    instead: str

    def to_dict(self) -> dict[str, Any]:
        return self._asdict()


def check(app: App) -> list[Finding]:
    """Findings in every registered workflow, in the order of files and lines. A body without source gives none."""
    modules: dict[str, Module] = {}
    found: set[Finding] = set()
    for workflow in app.workflows:
        code = getattr(workflow.fn, "__code__", None)
        if code is None:
            continue
        module = modules.get(code.co_filename)
        if module is None:
            module = modules[code.co_filename] = Module(code.co_filename)
        body = module.function_at(workflow.fn.__name__, code.co_firstlineno)
        if body is not None:
            steps = _registered_steps(app, workflow)
            found.update(_look(module, body, workflow.name, steps))
    return sorted(found)


def _registered_steps(app: App, workflow: Workflow[..., Any]) -> set[str]:
    """The names under which the workflow's file knows functions registered with `@app.step`."""
    registered = {id(info.fn) for info in app._steps.values()}
    return {name for name, value in workflow.fn.__globals__.items() if id(value) in registered}


def _look(module: Module, body: Function, workflow: str, steps: set[str]) -> Iterator[Finding]:
    """Findings in a body and in the functions of its file that it calls, each function once."""
    first = body.args.posonlyargs + body.args.args
    queue: list[tuple[Function, str]] = [(body, first[0].arg if first else "")]
    seen: set[Function] = set()
    while queue:
        function, context = queue.pop()
        if function in seen:
            continue
        seen.add(function)
        look = _Look(module, function, context, workflow, steps)
        yield from look.findings()
        queue.extend((module.functions[name], look.passes_context(name)) for name in sorted(look.calls))


class _Look(ast.NodeVisitor):
    """One function. `context` is the name of its Context, "" where it has none."""

    def __init__(self, module: Module, function: Function, context: str, workflow: str, steps: set[str]) -> None:
        self.module = module
        self.function = function
        self.contexts = {context} if context else set()
        self.workflow = workflow
        self.steps = steps
        self.found: list[Finding] = []
        self.calls: set[str] = set()
        self._passed: dict[str, str] = {}
        self.local_imports = imports_of(function)
        self.locals = assigned(function)
        self.globals = {name for node in ast.walk(function) if isinstance(node, ast.Global) for name in node.names}
        self.sets: set[str] = set()
        self.coroutine_lists: set[str] = set()
        self.pending: dict[str, tuple[int, str]] = {}
        self.handed_over = self._handed_over()

    def findings(self) -> list[Finding]:
        body = self.function.body if isinstance(self.function.body, list) else [self.function.body]
        for node in body:
            self.visit(node)
        for name, (line, operation) in self.pending.items():
            if not any(
                isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load)
                for node in ast.walk(self.function)
            ):
                self._unawaited(line, operation)
        return self.found

    def passes_context(self, name: str) -> str:
        """What a called function names the Context that this one hands to it."""
        return self._passed.get(name, "")

    def _add(self, node: ast.AST | int, what: str, instead: str) -> None:
        line = node if isinstance(node, int) else getattr(node, "lineno", 0)
        if line not in self.module.accepted:
            self.found.append(Finding(self.module.file, line, self.workflow, what, instead))

    def _handed_over(self) -> set[ast.AST]:
        """Functions defined here only to be handed to an operation: they are steps, and may do as they like."""
        inner = {
            node.name: node
            for node in ast.walk(self.function)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node is not self.function
        }
        handed: set[ast.AST] = set()
        called: set[str] = set()
        for node in ast.walk(self.function):
            if not isinstance(node, ast.Call):
                continue
            if isinstance(node.func, ast.Name):
                called.add(node.func.id)
            if self._operation(node) in ("run", "rpc") and node.args:
                first = node.args[0]
                if isinstance(first, ast.Lambda):
                    handed.add(first)
                elif isinstance(first, ast.Name) and first.id in inner:
                    handed.add(inner[first.id])
        return {node for node in handed if isinstance(node, ast.Lambda) or getattr(node, "name", "") not in called}

    def _operation(self, node: ast.AST) -> str | None:
        """`run` for `ctx.run(...)` and for `ctx.options(...).run(...)`."""
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            return None
        if node.func.attr not in _OPERATIONS:
            return None
        root: ast.expr = node.func.value
        while isinstance(root, ast.Call) and isinstance(root.func, ast.Attribute) and root.func.attr == "options":
            root = root.func.value
        return node.func.attr if isinstance(root, ast.Name) and root.id in self.contexts else None

    def _name(self, node: ast.expr) -> str | None:
        root = node
        while isinstance(root, ast.Attribute):
            root = root.value
        if isinstance(root, ast.Name) and root.id in self.locals and root.id not in self.local_imports:
            return None
        return self.module.name_of(node, self.local_imports)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node not in self.handed_over:
            self.generic_visit(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        if node not in self.handed_over:
            self.generic_visit(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        if node not in self.handed_over:
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        return

    def visit_Expr(self, node: ast.Expr) -> None:
        operation = self._operation(node.value)
        if operation is not None and operation != "detached":
            self._unawaited(node.lineno, operation)
        self.generic_visit(node)

    def _unawaited(self, line: int, operation: str) -> None:
        if operation in ("sleep", "sleep_until"):
            self._add(line, f"ctx.{operation} is not awaited, so nothing sleeps", f"await ctx.{operation}(...)")
        elif operation == "promise":
            self._add(line, "the promise is not awaited, so it is cancelled at the end", "await it")
        else:
            self._add(
                line,
                f"the result of ctx.{operation} is not awaited: a failure would go unnoticed",
                f"await ctx.{operation}(...), or ctx.detached(...) for work of its own",
            )

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                self._remember(target.id, node.value, node.lineno)
            self._mutation(target)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if isinstance(node.target, ast.Name) and node.value is not None:
            self._remember(node.target.id, node.value, node.lineno)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._mutation(node.target)
        self.generic_visit(node)

    def visit_Delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            self._mutation(target)
        self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> None:
        self._add(
            node,
            f"`global {', '.join(node.names)}`: another process, or a replay, does not find what was put there",
            "pass values on as arguments and results, or keep them in a step",
        )

    def _remember(self, name: str, value: ast.expr, line: int) -> None:
        self.sets.discard(name)
        if self._is_set(value):
            self.sets.add(name)
        self.coroutine_lists.discard(name)
        if self._holds_coroutines(value):
            self.coroutine_lists.add(name)
        operation = self._operation(value)
        if operation is not None and operation != "detached":
            self.pending[name] = (line, operation)
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr == "options":
            root = value.func.value
            if isinstance(root, ast.Name) and root.id in self.contexts:
                self.contexts.add(name)

    def _mutation(self, target: ast.expr) -> None:
        root = target
        while isinstance(root, (ast.Subscript, ast.Attribute)):
            root = root.value
        if root is not target and isinstance(root, ast.Name) and self._is_shared(root.id):
            self._shared(target, root.id)

    def _is_shared(self, name: str) -> bool:
        return name in self.module.mutable and (name not in self.locals or name in self.globals)

    def _shared(self, node: ast.AST, name: str) -> None:
        self._add(
            node,
            f"{name} belongs to the module and is changed here: a replay does it again, another process never sees it",
            "keep it in a local variable, or change it in a step",
        )

    def visit_For(self, node: ast.For) -> None:
        self._iterated(node.iter)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self._iterated(node.iter)
        self.generic_visit(node)

    def visit_Starred(self, node: ast.Starred) -> None:
        self._iterated(node.value)
        self.generic_visit(node)

    def _iterated(self, node: ast.expr) -> None:
        if self._is_set(node):
            self._add(node, "the order of a set differs from process to process", "sorted(...), or a list or dict")

    def _is_set(self, node: ast.expr) -> bool:
        match node:
            case ast.Set() | ast.SetComp():
                return True
            case ast.Call(func=ast.Name(id="set" | "frozenset")):
                return True
            case ast.Call(
                func=ast.Attribute(
                    value=value, attr="union" | "intersection" | "difference" | "symmetric_difference" | "copy"
                )
            ):
                return self._is_set(value)
            case ast.Name(id=name):
                return name in self.sets
            case ast.BinOp(left=left, op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor(), right=right):
                return self._is_set(left) or self._is_set(right)
        return False

    def _holds_coroutines(self, node: ast.expr) -> bool:
        """A list, tuple, set or comprehension of bare coroutine calls, as far as that can be told from here."""
        if isinstance(node, ast.Name):
            return node.id in self.coroutine_lists
        elements: Sequence[ast.expr] = ()
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            elements = node.elts
        elif isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp)):
            elements = [node.elt]
        return any(
            isinstance(one, ast.Call)
            and self._operation(one) is None
            and isinstance(one.func, ast.Name)
            and self._is_coroutine_function(one.func.id)
            for one in elements
        )

    def _is_coroutine_function(self, name: str) -> bool:
        inner = (node.name == name for node in ast.walk(self.function) if isinstance(node, ast.AsyncFunctionDef))
        return any(inner) or isinstance(self.module.functions.get(name), ast.AsyncFunctionDef)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        bare = node.type is None
        if bare or any(isinstance(one, ast.Name) and one.id == "BaseException" for one in kinds):
            last = node.body[-1]
            if not (isinstance(last, ast.Raise) and last.exc is None):
                what = "a bare except" if bare else "except BaseException"
                self._add(
                    node,
                    f"{what} also catches what the engine unwinds the body with",
                    "except Exception, or raise again",
                )
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if isinstance(node.ctx, ast.Load):
            self._named(node, self._name(node.value))
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        for one in node.comparators:
            self._named(one, self._name(one))
        self.generic_visit(node)

    def _named(self, node: ast.expr, name: str | None) -> None:
        """Something used without a call: `os.environ["X"]`, `"X" in os.environ`."""
        if name == "os.environ":
            rule = rule_for(name)
            if rule is not None:
                self._broken(node, name, rule)

    def visit_Call(self, node: ast.Call) -> None:
        name = self._name(node.func)
        if name is not None:
            self._called(node, name)
        elif isinstance(node.func, ast.Name):
            self._called_plainly(node, node.func.id)
        if isinstance(node.func, ast.Attribute):
            self._method(node, node.func)
        self.generic_visit(node)

    def _called(self, node: ast.Call, name: str) -> None:
        if name == "asyncio.as_completed" and node.args and self._holds_coroutines(node.args[0]):
            self._add(
                node,
                "asyncio.as_completed over bare coroutines is refused: they would start in an arbitrary order",
                "asyncio.create_task(...) for each of them, or operations of ctx",
            )
        elif name == "contextlib.suppress" and any(
            isinstance(one, ast.Name) and one.id == "BaseException" for one in node.args
        ):
            self._add(node, "suppress(BaseException) also hides what the engine unwinds with", "suppress(Exception)")
        else:
            if name == "random.Random" and node.args:
                return
            rule = rule_for(name)
            if rule is not None:
                self._broken(node, name, rule)

    def _called_plainly(self, node: ast.Call, name: str) -> None:
        if name in self.locals:
            return
        if name in self.steps:
            self._add(
                node, f"{name} is a step and is called directly: it runs again in every replay", f"ctx.run({name}, ...)"
            )
        elif name in NAMES:
            self._broken(node, name, NAMES[name])
        elif name in _ORDERED_BY:
            for one in node.args:
                self._iterated(one)
        elif name in self.module.functions and not self._is_workflow(name):
            self.calls.add(name)
            called = self.module.functions[name]
            names = [arg.arg for arg in called.args.posonlyargs + called.args.args]
            for parameter, given in zip(names, node.args, strict=False):
                if isinstance(given, ast.Name) and given.id in self.contexts:
                    self._passed[name] = parameter

    def _is_workflow(self, name: str) -> bool:
        return any("workflow" in ast.dump(decorator) for decorator in self.module.functions[name].decorator_list)

    def _method(self, node: ast.Call, function: ast.Attribute) -> None:
        if function.attr == "pop" and not node.args and self._is_set(function.value):
            self._add(node, "set.pop takes an arbitrary element", "pop from a list, or min(...)")
        if not isinstance(function.value, ast.Name):
            if function.attr in METHODS:
                self._broken(node, f".{function.attr}()", METHODS[function.attr])
            return
        owner = function.value.id
        if owner in self.module.loggers and owner not in self.locals:
            self._broken(node, f"{owner}.{function.attr}", LOGGING)
        elif function.attr in MUTATORS and self._is_shared(owner):
            self._shared(node, owner)
        elif function.attr in METHODS and self._name(function) is None:
            self._broken(node, f".{function.attr}()", METHODS[function.attr])

    def _broken(self, node: ast.AST, name: str, rule: Rule) -> None:
        self._add(node, f"{name}: {rule.why}", rule.instead)
