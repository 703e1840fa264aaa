"""A digest of Python source that comments, docstrings, layout and the way strings are quoted do not change.

The syntax tree is written out by a walk of our own, and hashed. `ast.dump` differs between versions of Python; what
this walk writes does not: it leaves out what is empty (new versions add such fields), positions, contexts and the
prefix `u`, writes constants by type and value, and brings f-strings, which Python 3.12 reads by another parser, into
one form. It runs no code, and knows nothing of modules (`itopctl.config.own_code`).
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator
from typing import Any

_LEFT_OUT = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
_FORM = "itopctl syntax 1"
"""Begins what is hashed. Another form of it would make every run with code of the user's own a new one."""


def syntax_digest(tree: ast.Module) -> str:
    """64 hex digits of SHA-256 over the written-out tree."""
    digest = hashlib.sha256(_FORM.encode())
    for token in _tokens(tree):
        digest.update(b"\n" + token.encode())
    return digest.hexdigest()


class _Token(str):
    """A piece of the written-out tree, among the nodes and values that are yet to be written."""


def _tokens(tree: ast.Module) -> Iterator[str]:
    """The tree written out, one token a line; without recursion, since expressions may be deep."""
    waiting: list[Any] = [tree]
    while waiting:
        item = waiting.pop()
        if isinstance(item, _Token):
            yield item
        elif isinstance(item, ast.AST):
            yield f"({type(item).__name__}"
            waiting.append(_Token(")"))
            for name, value in reversed(_fields(item)):
                waiting += (value, _Token(f".{name}"))
        elif isinstance(item, list):
            yield f"[{len(item)}"
            waiting += reversed(item)
        else:
            yield _constant(item)


def _fields(node: ast.AST) -> list[tuple[str, Any]]:
    """Names and values of a node's fields that mean something and are not empty."""
    if isinstance(node, ast.Constant):
        return [("value", node.value)]
    if isinstance(node, ast.JoinedStr):
        return [("values", list(_parts(node)))]
    found = []
    for name, value in ast.iter_fields(node):
        if isinstance(value, list):
            kept = [item for item in value if not _is_lone_string(item)]
            value = [ast.Pass()] if value and not kept and name == "body" else kept
        elif name == "format_spec" and isinstance(value, ast.JoinedStr) and not list(_parts(value)):
            continue
        if name not in _LEFT_OUT and value is not None and value != []:
            found.append((name, value))
    return found


def _is_lone_string(item: Any) -> bool:
    """Whether it is a statement that is only a string: a docstring, or one that does nothing."""
    return isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant) and isinstance(item.value.value, str)


def _parts(node: ast.JoinedStr) -> Iterator[ast.expr]:
    """The parts of an f-string: texts that meet are one, and empty ones none."""
    text = ""
    for part in node.values:
        for piece in _parts(part) if isinstance(part, ast.JoinedStr) else (part,):
            if isinstance(piece, ast.Constant):
                text += str(piece.value)
                continue
            if text:
                yield ast.Constant(text)
            text = ""
            yield piece
    if text:
        yield ast.Constant(text)


def _constant(value: Any) -> str:
    """A constant, or a name, by type and value. No `repr` of texts: it follows the version of Unicode."""
    if value is None or value is ... or isinstance(value, bool):
        return repr(value)
    if isinstance(value, str):
        return f"s{json.dumps(value)}"
    if isinstance(value, bytes):
        return f"b{value.hex()}"
    if isinstance(value, int):
        return f"i{value:x}"
    if isinstance(value, float):
        return f"f{value.hex()}"
    if isinstance(value, complex):
        return f"c{value.real.hex()} {value.imag.hex()}"
    raise TypeError(f"{type(value).__name__} is no constant of Python's syntax")
