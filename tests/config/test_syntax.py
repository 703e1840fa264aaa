"""The digest of source: what a program means changes it, how it is written does not, nor the version of Python."""

from __future__ import annotations

import ast
import hashlib
import random
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itopctl.config.syntax import syntax_digest


def digest(source: str | bytes) -> str:
    return syntax_digest(ast.parse(source))


def test_what_is_hashed_of_a_small_module_can_be_written_by_hand() -> None:
    written = ["itopctl syntax 1", "(Module", ".body", "[1", "(Assign", ".targets", "[1", "(Name", ".id", 's"x"', ")",
               ".value", "(BinOp", ".left", "(Constant", ".value", "i1f", ")", ".op", "(Add", ")",
               ".right", "(Constant", ".value", "f0x1.8000000000000p+0", ")", ")", ")", ")"]  # fmt: skip
    expected = hashlib.sha256("\n".join(written).encode()).hexdigest()
    assert digest("x = 31 + 1.5  # a comment") == digest('"""Doc."""\nx = (0x1F\n  + 1.5)') == expected


EVERYTHING = r'''
"""Doc."""
from __future__ import annotations
import os, sys as s
from . import a
from ..b import c as d
X: int = 0x1F
Y = (1.5, 2j, b"\x00a", ..., None, True, -0.0, 1e999, "é\ud800", u"u", 10**20)
def f(a, /, b=1, *args, c: "str" = 'q', d, **kw) -> None:
    """doc"""
    return f"{a!r:>{b}} {{x}}" f'{c=}' "tail" f"{d:}" f""
class A(B, metaclass=M):
    "only doc"
async def g():
    async with x as y, z:
        async for i in y:
            yield [j async for j in i if j]
    await q
@dec(1)
def h():
    global X
    try:
        del X[1:2, ::3]
    except (E, F) as e:
        raise G from e
    else:
        pass
    finally:
        assert not X, "no"
    while (n := 3) < 4 <= 5: break
    else: continue_ = {**a, 'b': 1}
    lambda *a, b=2: (yield)
    match x:
        case [1, *_, {"a": 2, **r}] | A(b=3) if r: pass
        case None: print(f"a{x = }b{'n' + f'{y:{w}.{p}}'}")
    with (open(a) as b, c): x @= ~y ** -z // 3 if w else not v
    x = f"""{
    3}""" f"{x!s}{'a'}"
    return f"\N{EN DASH}{x:\n}" if 0 else f'{x:%H:%M}{x,}{ {1:2}[1] }'
'''


@pytest.mark.parametrize(
    ("source", "known"),
    [
        ("", "a38013cd7664f13b28748feb413fff0b805d1ce0640692792bf5c49658444dc7"),
        ("def f(): return 1\n", "7147cab2b9aed171ae92a8327a8cb0ee76ec7e18d67f995dd0006c47913afb89"),
        (EVERYTHING, "6e4cbe56dfa38927318304e3c9a4d1c7af1da77af310910f86f57124a1b5f12d"),
    ],
)
def test_the_digest_of_known_source_is_what_it_always_was(source: str, known: str) -> None:
    """A change here makes every run with code of the user's own a new one. The values are those of Python 3.10 to 3.13,
    whose own trees and dumps of the last source differ."""
    assert digest(source) == known


MODULE = '''
"""A module."""
import math

import numpy

LIMIT = 3
NAMES = ["a", 'b']


def scale(value, factor=2.0, *, loud=False):
    """Scale it."""
    # by the factor
    if value > LIMIT and not loud:
        return value * factor
    return f"{value:.{LIMIT}f} is too {'loud' if loud else 'small'}"


class Model:
    """A model."""

    @staticmethod
    def make(size):
        for index in range(size):
            yield math.sqrt(index), {"size": size, **{}}
'''


@pytest.mark.parametrize(
    "edited",
    [
        MODULE.replace("# by the factor", "# by whatever"),
        MODULE.replace('    """Scale it."""\n    # by the factor\n', ""),
        MODULE.replace('"""A model."""', "'''Another\n    text.'''"),
        MODULE.replace('\n"""A module."""\n', "#!/usr/bin/python\n# -*- coding: utf-8 -*-\n"),
        MODULE.replace("    ", "\t"),
        MODULE.replace("\n", "\r\n"),
        MODULE.replace('"a"', "'a'").replace("'b'", '"""b"""'),
        MODULE.replace("2.0", "0.2e1").replace("LIMIT = 3", "LIMIT = 0b11"),
        MODULE.replace("value * factor", "(value\n            * factor)"),
        MODULE.replace('NAMES = ["a", \'b\']', 'NAMES = ["a", "b"]\n"""Names of things."""'),
        MODULE.replace("value, factor=2.0, *, loud=False", "value, factor=2.0, *, loud=False,"),
        MODULE.replace("is too {", 'is " f"too {'),
        MODULE + "\n\n# the end\n",
    ],
)  # fmt: skip
def test_comments_docstrings_layout_and_quotes_do_not_count(edited: str) -> None:
    assert edited != MODULE
    assert digest(edited) == digest(MODULE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "LIMIT = 4"), ("LIMIT = 3", "LIMIT = 3.0"), ("LIMIT = 3", "LIMIT = True"),
        ("LIMIT = 3", 'LIMIT = "3"'),
        ("LIMIT = 3", "LIMIT = -3"), ("LIMIT = 3", "LIMIT: int = 3"), ("2.0", "2.0000000000000004"), ('"a"', 'b"a"'),
        ('["a", \'b\']', '["ab"]'), ('["a", \'b\']', '("a", "b")'), ('["a", \'b\']', '["b", "a"]'),
        ("value > LIMIT", "value >= LIMIT"), ("and not loud", "or not loud"), ("not loud:", "loud:"),
        ("value * factor", "value / factor"), ("value * factor", "factor * value"), ("factor=2.0", "factor"),
        ("*, loud", "loud"), ("def make", "async def make"), ("@staticmethod\n    ", ""),
        ("@staticmethod", "@classmethod"),
        ("import math\n\nimport numpy", "import numpy\n\nimport math"), ("import math", "import math as math"),
        ("import math", "from math import *"), (".{LIMIT}f", ".{LIMIT}g"), (".{LIMIT}f", "{LIMIT}f"),
        ("is too ", "is  too "), ("{value:", "{value!r:"), ("**{}", '"more": 1'),
        ("class Model:", "class Model(dict):"),
        ("yield ", "return "), ("range(size)", "range(size, )[::1]"), ("return value *", "value *"),
        ("Model", "Modell"),
    ],
)  # fmt: skip
def test_everything_else_does(old: str, new: str) -> None:
    assert old in MODULE
    assert digest(MODULE.replace(old, new, 1)) != digest(MODULE)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ('f"a{x}b"', '"a" f"{x}" "" f"b"', True), ('f"{x:}"', 'f"{x}"', True), ('f"{x!r}"', 'f"{x}"', False),
        ('f"{x=}"', 'f"x={x!r}"', True), ('f"{x = }"', 'f"{x=}"', False), ('f"{x:>{w}}"', 'f"{x:>w}"', False),
        ('f"{x}{y}"', 'f"{x}" f"{y}"', True), ('f"{x}{y}"', 'f"{y}{x}"', False), ('f"{{x}}"', 'f"{x}"', False),
        ('f"a"', '"a"', False), ("u'a'", "'a'", True), ("'\\x41'", "'A'", True), ("r'\\n'", "'\\n'", False),
    ],
)  # fmt: skip
def test_texts_count_by_their_value(one: str, other: str, same: bool) -> None:
    assert (digest(f"a = {one}") == digest(f"a = {other}")) is same


def test_a_function_of_a_docstring_alone_does_nothing_as_one_of_pass_alone() -> None:
    assert digest('def f():\n    "doc"') == digest("def f():\n    pass") != digest("def f():\n    return")


def test_a_deep_expression_is_read_without_recursion() -> None:
    depth = 600
    terms = [f"x{number}" for number in range(depth)]
    assert digest(" + ".join(terms)) != digest(" + ".join([*terms[:-1], "y"]))


def _mutable(tree: ast.AST) -> list[tuple[ast.AST, str]]:
    """Places of a tree where a small edit changes what the program means."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.append((node, "id"))
        elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            found.append((node, "value"))
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found += [(node, "name"), (node, "decorator_list")]
        elif isinstance(node, ast.arg):
            found.append((node, "arg"))
        elif isinstance(node, ast.Attribute):
            found.append((node, "attr"))
        elif isinstance(node, ast.BinOp):
            found.append((node, "op"))
        elif isinstance(node, ast.arguments) and node.defaults:
            found.append((node, "defaults"))
        elif isinstance(node, ast.alias):
            found.append((node, "asname"))
    return found


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_any_small_edit_of_a_module_changes_its_digest_and_any_new_layout_does_not(
    place: int, rng: random.Random
) -> None:
    tree = ast.parse(MODULE)
    places = _mutable(tree)
    node, field = places[place % len(places)]
    value = getattr(node, field)
    changed = {
        bool: lambda: not value, str: lambda: f"{value}_{rng.randrange(10)}",
        int: lambda: value + 1, float: lambda: value * 2 + 1,
        list: lambda: [*value, ast.Name("extra", ast.Load())] if field == "decorator_list" else [ast.Constant(7.5)],
        type(None): lambda: "renamed",
    }.get(type(value), lambda: ast.Mod())()  # fmt: skip
    setattr(node, field, changed)
    ast.fix_missing_locations(tree)
    assert digest(ast.unparse(tree)) != digest(MODULE)
    assert digest(ast.unparse(ast.parse(MODULE))) == digest(MODULE)
    lines = [
        line + rng.choice(["", "  # " + "note"]) if line.endswith((":", ")")) else line for line in MODULE.splitlines()
    ]
    laid_out = "\n".join(lines) + rng.choice(["", "\n\n\n", "\n# end\n"])
    assert digest(textwrap.dedent(laid_out)) == digest(MODULE)
