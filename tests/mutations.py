"""Mutants: small changes to a program, one at a time, of which its tests should notice every one.

Not made: changes to docstrings, annotations, decorators, `__all__`, f-strings and what BadInput is given (wording), to
asserts, and to keywords of which nothing can be seen here (UNSEEN).
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
CALLED = {"min": "max", "max": "min", "any": "all", "all": "any", "amin": "amax", "amax": "amin"}
UNSEEN = {"encoding", "flush", "help", "strict"}
"""UTF-8 is what is read here anyway; help is wording; zip's strict is an assert."""


@dataclass(frozen=True)
class Mutant:
    """One change: the bytes from `start` to `end` of a file become `after`."""

    file: str
    line: int
    text: str
    """The whole line, as it stands."""
    operator: str
    before: str
    after: str
    start: int
    end: int

    @property
    def name(self) -> tuple[str, str, str, str]:
        """What it is called while other lines of the file come and go."""
        return self.file, self.text, self.before, self.after

    def applied(self, source: bytes) -> bytes:
        """The file with the change."""
        return source[: self.start] + self.after.encode() + source[self.end :]

    def __str__(self) -> str:
        return f"{self.file}:{self.line}  {self.operator}: {self.before}  ->  {self.after}"


def mutants(file: str, source: bytes) -> Iterator[Mutant]:
    """Every mutant of a file."""
    tree = ast.parse(source)
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    for node in _drawn(tree):
        for operator, target, after in _changes(node):
            start = starts[target.lineno - 1] + target.col_offset
            end = starts[target.end_lineno - 1] + target.end_col_offset
            text = lines[target.lineno - 1].decode().strip()
            before = " ".join(source[start:end].decode().split())
            yield Mutant(file, target.lineno, text, operator, before, after, start, end)


def _drawn(node: ast.AST) -> Iterator[ast.AST]:
    """The node and all below it that may be mutated."""
    match node:
        case ast.JoinedStr() | ast.Assert() | ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return
        case ast.Raise(exc=ast.Call(func=ast.Name(id="BadInput"))) | ast.Assign(targets=[ast.Name(id="__all__")]):
            return
        case _:
            yield node
    for name, value in ast.iter_fields(node):
        if name not in {"annotation", "returns", "decorator_list"}:
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _drawn(child)


def _changes(node: ast.AST) -> Iterator[tuple[str, Any, str]]:
    """(operator, what is replaced, by what)."""
    match node:
        case ast.Compare():
            for place, op in enumerate(node.ops):
                ops = [*node.ops[:place], SWAPS[type(op)](), *node.ops[place + 1 :]]
                yield "comparison", node, _with(node, ops=ops)
        case ast.BinOp() if type(node.op) in SWAPS and not any(map(_is_text, (node.left, node.right))):
            yield "arithmetic", node, _with(node, op=SWAPS[type(node.op)]())
        case ast.AugAssign():
            yield "dropped statement", node, "pass"
            if type(node.op) in SWAPS:
                changed = _with(node, op=SWAPS[type(node.op)]())
                yield "arithmetic", node, changed[1:-1]
        case ast.BoolOp():
            yield "boolean", node, _with(node, op=SWAPS[type(node.op)]())
        case ast.UnaryOp(op=ast.Not()):
            yield "boolean", node, f"({ast.unparse(node.operand)})"
        case ast.Constant(value=bool(value)):
            yield "constant", node, str(not value)
        case ast.Constant(value=int(value)):
            yield "constant", node, str(0 if value == 1 else value + 1)
        case ast.Constant(value=float(value)):
            yield "constant", node, repr(2 * value or 1.0)
        case ast.Expr(value=ast.Call()) | ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "dropped statement", node, "pass"
        case ast.Return(value=ast.expr()) if not isinstance(node.value, ast.Constant) or node.value.value is not None:
            yield "return None", node, "return None"
        case ast.Call():
            match node.func:
                case ast.Name(id=name) if name in CALLED:
                    yield "min and max", node.func, CALLED[name]
                case ast.Attribute(attr=name) if name in CALLED:
                    yield "min and max", node.func, _with(node.func, attr=CALLED[name])
                case _:
                    pass
            for keyword in node.keywords:
                if keyword.arg and keyword.arg not in UNSEEN:
                    yield "keyword left out", keyword, "**{}"
        case _:
            pass
    conditions = [node.test] if isinstance(node, ast.If | ast.IfExp | ast.While) else getattr(node, "ifs", [])
    for test in conditions:
        if not isinstance(test, ast.Compare | ast.UnaryOp) or isinstance(getattr(test, "ops", [0])[0], ast.Lt | ast.Gt):
            yield "negated condition", test, f"(not ({ast.unparse(test)}))"


def _with(node: ast.AST, **fields: Any) -> str:
    """The node's code with other fields, in brackets, so that it is one whole wherever it stands."""
    changed = deepcopy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return f"({ast.unparse(changed)})"


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def draw(repo: Path, seed: str) -> Iterator[Mutant]:
    """The mutants of the tree that still are Python, in the order in which they are drawn, at most one a line."""
    files = [*repo.glob("suite/advbench/**/*.py"), *repo.glob("baselines/*.py")]
    sources = {str(file.relative_to(repo)): file.read_bytes() for file in files if not file.name.startswith("test_")}
    found = [one for file, source in sources.items() for one in mutants(file, source)]
    found.sort(key=lambda one: hashlib.sha256(repr((seed, one.name)).encode()).digest())
    taken: set[Any] = set()
    for one in found:
        if not taken & {one.name, (one.file, one.line)}:
            taken |= {one.name, (one.file, one.line)}
            try:
                ast.parse(one.applied(sources[one.file]))
            except SyntaxError:
                continue  # such as *args behind a keyword that has become **{}
            yield one
