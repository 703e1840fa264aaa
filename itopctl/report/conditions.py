"""Conditions on runs as values: what `--where` is parsed to. They can be printed, and asked of one run.

A run without a value (it has not measured it yet, or the setting means nothing for it) answers no comparison: neither
`accuracy > 90%` nor `accuracy <= 90%`, neither `update_interval = 40` nor `update_interval != 40`. `is none` finds it;
and since some settings have a value that is called none (`augment: none`), `none` without quotes means that, too.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Value = bool | int | float | str | None
Get = Callable[[str], Any]
"""Name of a field → a run's value of it, or None."""

KEYWORDS = frozenset({"and", "or", "not", "in", "is", "true", "false", "none", "null"})
"""Words that mean something by themselves, in any case; as texts they are quoted."""

NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?%?")
WORD = re.compile(r"""[^\s()<>=!~≤≥≠,'"&|]+""")
"""What needs no quotes."""

_DUST = 1e-9


@dataclass(frozen=True)
class Comparison:
    """`field sign value`.

    Attributes:
        field: name of a field of runs, or of a setting.
        sign: `=`, `!=`, `<`, `<=`, `>`, `>=`, or `~`: a text that matches a glob.
        value: what it is compared with; None with `=` and `!=` alone.
        spans: where field and value stand in the text they were read from.
    """

    field: str
    sign: str
    value: Value
    spans: tuple[tuple[int, int], ...] = dataclasses.field(default=(), compare=False)

    def holds(self, get: Get) -> bool:
        """Whether a run meets the condition."""
        found = get(self.field)
        if self.value is None:
            return _is_none(found) == (self.sign == "=")
        return found is not None and _compare(found, self.sign, self.value)

    def leaves(self) -> Iterator[Comparison | Membership]:
        """Every comparison, from left to right."""
        yield self

    def __str__(self) -> str:
        return f"{text_of(self.field)} {self.sign} {text_of(self.value)}"


@dataclass(frozen=True)
class Membership:
    """`field in (values)`, or `field not in (values)`: the same as `=` any of them, or `!=` each of them."""

    field: str
    values: tuple[Value, ...]
    negated: bool = False
    spans: tuple[tuple[int, int], ...] = dataclasses.field(default=(), compare=False)

    def holds(self, get: Get) -> bool:
        found = get(self.field)
        if isinstance(found, str):  # lists of ids are long
            inside = found in self._texts or (found == "none" and None in self.values)
        else:
            inside = any(_is_none(found) if value is None else same(found, value) for value in self.values)
        return not inside and found is not None if self.negated else inside

    def leaves(self) -> Iterator[Comparison | Membership]:
        yield self

    @functools.cached_property
    def _texts(self) -> frozenset[str]:
        return frozenset(value for value in self.values if isinstance(value, str))

    def __str__(self) -> str:
        return f"{text_of(self.field)} {'not ' * self.negated}in ({', '.join(map(text_of, self.values))})"


@dataclass(frozen=True)
class Not:
    """The contrary of a condition; a run without a value meets it."""

    part: Condition

    def holds(self, get: Get) -> bool:
        return not self.part.holds(get)

    def leaves(self) -> Iterator[Comparison | Membership]:
        yield from self.part.leaves()

    def __str__(self) -> str:
        return f"not {_grouped(self.part, (And, Or))}"


@dataclass(frozen=True)
class _Several:
    parts: tuple[Condition, ...]

    def leaves(self) -> Iterator[Comparison | Membership]:
        for part in self.parts:
            yield from part.leaves()


@dataclass(frozen=True)
class And(_Several):
    """All of several conditions."""

    def holds(self, get: Get) -> bool:
        return all(part.holds(get) for part in self.parts)

    def __str__(self) -> str:
        return " and ".join(_grouped(part, (And, Or)) for part in self.parts)


@dataclass(frozen=True)
class Or(_Several):
    """Any of several conditions."""

    def holds(self, get: Get) -> bool:
        return any(part.holds(get) for part in self.parts)

    def __str__(self) -> str:
        return " or ".join(_grouped(part, (Or,)) for part in self.parts)


Condition = Comparison | Membership | Not | And | Or


def _grouped(part: Condition, kinds: tuple[type, ...]) -> str:
    return f"({part})" if isinstance(part, kinds) else str(part)


def text_of(value: Value) -> str:
    """A value, or the name of a field, as it is written in a condition: in quotes where it would be misread."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return repr(value)
    bare = WORD.fullmatch(value) and value.lower() not in KEYWORDS and value != "%" and not NUMBER.fullmatch(value)
    return value if bare else "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _is_none(found: Any) -> bool:
    return found is None or found == "none"


def same(first: Any, second: Any) -> bool:
    """Whether two values are equal: numbers up to the dust of floating point, texts and truths exactly."""
    if is_number(first) and is_number(second):
        return first == second or math.isclose(first, second, rel_tol=_DUST)
    return type(first) is type(second) and bool(first == second)


def is_number(value: Any) -> bool:
    """Whether it is a number; True and False are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _compare(found: Any, sign: str, value: Any) -> bool:
    if sign == "~":
        return isinstance(found, str) and fnmatch.fnmatchcase(found, str(value))
    if sign in ("=", "!="):
        return same(found, value) == (sign == "=")
    if not (is_number(found) and is_number(value)):
        return False
    if same(found, value):
        return "=" in sign
    return bool(found < value) == ("<" in sign)
