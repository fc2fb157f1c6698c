"""What names a result: a digest of everything that can change it, and of nothing else."""

from __future__ import annotations

import ast
import hashlib
import json
from contextlib import suppress
from typing import Any


def _said(value: Any) -> Any:
    """`value` without its Nones: a field that says nothing changes nothing, so that an optional one can be added."""
    if isinstance(value, dict):
        return {k: _said(v) for k, v in value.items() if v is not None}  # pyright: ignore[reportUnknownVariableType]
    return [_said(v) for v in value] if isinstance(value, list | tuple) else value  # pyright: ignore[reportUnknownVariableType]


def digest(value: Any) -> str:
    """16 hex digits of the SHA-256 of JSON-like `value`; the order of keys and what is None do not count."""
    text = json.dumps(_said(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def code(content: bytes) -> str:
    """The SHA-256, in hex, of what a Python file does: of its syntax tree, without docstrings, comments and layout.

    A truer word in a docstring makes no result another one. The digest is the same under every version of Python that
    reads the file alike. What is no Python has the digest of its bytes.
    """
    with suppress(SyntaxError, ValueError, RecursionError):
        content = json.dumps(_done(ast.parse(content))).encode()
    return hashlib.sha256(content).hexdigest()


def _done(node: object) -> Any:
    match node:
        case ast.AST():
            fields = {name: _done(value) for name, value in ast.iter_fields(node)}
            # Newer versions have fields that older ones lack; where a file makes no use of them they are empty.
            return {type(node).__name__: {name: value for name, value in fields.items() if value not in (None, [])}}
        case list():
            return [_done(one) for one in node if not _word(one)]  # pyright: ignore[reportUnknownVariableType]
        case None:
            return None
        case _:
            return ascii(node)  # repr() depends on which characters a version knows


def _word(node: object) -> bool:
    """Whether a statement is a string and nothing else: a docstring, or one under an attribute."""
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
        case _:
            return False
