"""The language of `--where`: a text is parsed to a condition on runs, and checked against what runs there are.

    sparsity >= 0.9 and method in (set-itop, rigl-itop)
    not (optimizer.lr = 0.1 or model ~ resnet*) and update_interval is not none

Nothing is ever evaluated as code. Python's own `ast` cannot read these texts: `wrn-22-2` is a subtraction there, and
`~ resnet*`, `90 %` and a single `=` are errors, so a tokenizer would have to rewrite the text first. A parser library
would not make this shorter: the grammar has four rules, and most of the module is what each refusal says belongs in the
place that it points to.

    any   = all ("or" all)*
    all   = one ("and" one)*
    one   = "not" one | "(" any ")" | field sign value | field ["not"] "in" "(" value ("," value)* ")"
          | field "is" ["not"] "none"
    sign  = "=" "==" "!=" "<" "<=" ">" ">=" "~"
    value = number | number "%" | "true" | "false" | "none" | word | "quoted text"
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from rich.cells import cell_len

from itopctl.errors import UserError, meant, quoted
from itopctl.report.conditions import (
    KEYWORDS,
    NUMBER,
    WORD,
    And,
    Comparison,
    Condition,
    Membership,
    Not,
    Or,
    Value,
    is_number,
    same,
    text_of,
)
from itopctl.report.fields import Fields, kind_of, kinds_of, unit_of
from itopctl.report.table import Record

LONGEST = 50_000
"""Characters of a text that is read; room for some thousand ids of runs."""
DEEPEST = 60
"""Parentheses, and `not`s, within each other."""
MOST = 500
"""Comparisons; a list counts as one."""

_TOKEN = re.compile(
    rf"""(?P<space>\s+)|(?P<quoted>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<sign>==|!=|<=|>=|[=<>~≤≥≠])"""
    rf"""|(?P<mark>[(),])|(?P<word>{WORD.pattern})""",
    re.DOTALL,
)
_SIGNS = {"==": "=", "≤": "<=", "≥": ">=", "≠": "!="}
_SEEN = 72  # columns of a long text that are shown around a mistake
_LISTED = 8  # values that a sentence lists

_Kinds = Mapping[str, Sequence[object]]


@dataclass(frozen=True)
class _Token:
    kind: str  # quoted, sign, mark, word, end
    text: str
    start: int
    end: int

    @property
    def span(self) -> tuple[int, int]:
        return self.start, self.end

    @property
    def keyword(self) -> str:
        """The keyword or mark that it is; empty if it is neither."""
        lowered = self.text.lower()
        return lowered if self.kind == "mark" or (self.kind == "word" and lowered in KEYWORDS) else ""

    @property
    def shown(self) -> str:
        return "the end" if self.kind == "end" else quoted(self.text, 40)


@dataclass(frozen=True)
class Filter:
    """A condition, and the text it was read from."""

    text: str
    condition: Condition

    @property
    def fields(self) -> list[str]:
        """Names of the fields it asks for, as they were written."""
        return list(dict.fromkeys(leaf.field for leaf in self.condition.leaves()))

    def select(self, runs: Iterable[Record], fields: Fields) -> list[Record]:
        """The runs that meet it. Every name must have been checked."""
        names = {name: fields.resolve(name) for name in self.fields}
        return [run for run in runs if self.condition.holds(lambda name, run=run: fields.value(run, names[name]))]  # type: ignore[misc]

    def check(self, runs: Sequence[Record], fields: Fields) -> list[str]:
        """Whether its fields exist and can be compared with what they are compared with.

        Returns:
            Sentences on texts that no run has: a word that is not spelt right finds nothing.

        Raises:
            UserError: an unknown field, a number compared with a text, `<` between texts, an accuracy above 1.
        """
        remarks: dict[str, None] = {}
        known: dict[str, _Kinds] = {}
        for leaf in self.condition.leaves():
            try:
                name = fields.resolve(leaf.field)
            except UserError as error:
                _refuse(self.text, leaf.spans[0], str(error))
            if name not in known:
                known[name] = kinds_of(runs, name, fields)
            kinds = known[name]
            values = leaf.values if isinstance(leaf, Membership) else (leaf.value,)
            sign = leaf.sign if isinstance(leaf, Comparison) else "="
            for value, span in zip(values, leaf.spans[1:], strict=True):
                if value is None:
                    continue
                self._check_kind(leaf.field, name, sign, value, span, kinds)
                if sign in ("=", "!=") and isinstance(value, str):
                    remarks.update(dict.fromkeys(_unheard_of(leaf.field, value, kinds)))
        return list(remarks)

    def _check_kind(
        self,
        shown: str,
        name: str,
        sign: str,
        value: Value,
        span: tuple[int, int],
        kinds: _Kinds,
    ) -> None:
        if not kinds:
            return
        kind, allowed = kind_of(value), " or ".join(kinds)
        if sign == "~" and "a text" not in kinds:
            _refuse(self.text, span, f"{shown} is {allowed}; `~` compares texts with a pattern.")
        if sign != "~" and kind not in kinds:
            hint = ""
            if kind == "a number" and "a text" in kinds:
                hint = f" In quotes it is a text: '{self.text[slice(*span)]}'."
            elif "a text" in kinds or "true or false" in kinds:
                hint = f" There are: {_listed(next(iter(kinds.values())))}."
            _refuse(self.text, span, f"{shown} is {allowed}, {quoted(value, 40)} is {kind}.{hint}")
        if sign in ("<", "<=", ">", ">=") and kind != "a number":
            _refuse(self.text, span, f"{shown} is {allowed}, which has no order: =, !=, in or ~ expected.")
        if is_number(value) and abs(float(value or 0)) > 1 and unit_of(name).is_fraction:
            _refuse(self.text, span, f"{shown} is a fraction, from 0 to 1: 0.9, or 90%.")


def parse(text: str) -> Filter:
    """Read a condition. Raises UserError, which points to the place of the mistake and says what belongs there."""
    if len(text) > LONGEST:
        raise UserError(f"--where: at most {LONGEST:,} characters are read; found {len(text):,}.")
    return Filter(text, _Parser(text).parse())


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _tokens(text)
        self.place = 0
        self.depth = 0
        self.comparisons = 0

    @property
    def next(self) -> _Token:
        return self.tokens[self.place]

    def take(self) -> _Token:
        token = self.next
        if token.kind != "end":
            self.place += 1
        return token

    def took(self, keyword: str) -> bool:
        """Take the keyword or mark if it comes next."""
        if self.next.keyword == keyword:
            self.place += 1
            return True
        return False

    def parse(self) -> Condition:
        if self.next.kind == "end":
            raise UserError("--where: it is empty; a condition such as sparsity>=0.9 expected.")
        found = self.any()
        if self.next.kind != "end":
            if self.next.text == ")":
                self.refuse("a parenthesis is closed that was not opened.")
            hint = " A text with spaces is put in quotes." if self.next.kind in ("word", "quoted") else ""
            self.refuse(f"`and`, `or` or the end expected, found {self.next.shown}.{hint}")
        return found

    def any(self) -> Condition:
        return self.joined("or", self.all, Or)

    def all(self) -> Condition:
        return self.joined("and", self.one, And)

    def joined(self, word: str, part: Callable[[], Condition], kind: type[And | Or]) -> Condition:
        parts = [part()]
        while self.took(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else kind(tuple(parts))

    def one(self) -> Condition:
        first = self.next
        self.depth += 1
        if self.depth > DEEPEST + 1:
            self.refuse(f"at most {DEEPEST} parentheses or `not`s within each other are read.")
        try:
            if self.took("not"):
                return Not(self.one())
            if self.took("("):
                inner = self.any()
                if self.next.kind == "end":
                    self.refuse("this parenthesis is not closed.", first)
                if not self.took(")"):
                    self.refuse(f"`and`, `or` or `)` expected, found {self.next.shown}.")
                return inner
            return self.comparison()
        finally:
            self.depth -= 1

    def comparison(self) -> Condition:
        token = self.take()
        self.comparisons += 1
        if self.comparisons > MOST:
            self.refuse(f"at most {MOST} comparisons are read; many values of one field are a list: in (one, another).")
        is_name = token.kind == "quoted" or (token.kind == "word" and not token.keyword)
        if not is_name or (token.kind == "word" and NUMBER.fullmatch(token.text)):
            hint = " The field comes first: sparsity >= 0.9." if token.kind == "word" and not token.keyword else ""
            self.refuse(f"the name of a field, `not` or `(` expected, found {token.shown}.{hint}", token)
        name = _unquoted(token)
        if self.next.kind == "sign":
            sign = self.take()
            value, span = self.value()
            shown = _SIGNS.get(sign.text, sign.text)
            if value is None and shown not in ("=", "!="):
                self.refuse("`none` is compared by `is`, `is not`, = and != alone.", sign)
            if shown == "~" and not isinstance(value, str):
                value = self.text[slice(*span)].strip("'\"")
            return Comparison(name, shown, value, (token.span, span))
        if self.took("is"):
            negated = self.took("not")
            if self.next.keyword not in ("none", "null"):
                self.refuse(f"`none` expected after `is`, found {self.next.shown}; other values are compared by =.")
            return Comparison(name, "!=" if negated else "=", None, (token.span, self.take().span))
        negated = self.took("not")
        if self.took("in"):
            return self.membership(name, token, negated)
        expected = "`in`" if negated else "=, !=, <, <=, >, >=, ~, `in` or `is`"
        self.refuse(f"{expected} expected after {quoted(name, 40)}, found {self.next.shown}.")

    def membership(self, name: str, token: _Token, negated: bool) -> Condition:
        if not self.took("("):
            self.refuse(f"`(` expected after `in`, found {self.next.shown}: {text_of(name)} in (one, another).")
        values: list[Value] = []
        spans = [token.span]
        while not (values and self.took(")")):  # a comma at the end does no harm
            value, span = self.value()
            values.append(value)
            spans.append(span)
            if not self.took(",") and self.next.keyword != ")":
                self.refuse(f"`,` or `)` expected, found {self.next.shown}.")
        return Membership(name, tuple(values), negated, tuple(spans))

    def value(self) -> tuple[Value, tuple[int, int]]:
        token = self.take()
        if token.kind == "quoted":
            return _unquoted(token), token.span
        if token.kind != "word" or token.keyword in ("and", "or", "not", "in", "is"):
            self.refuse(f"a value expected, found {token.shown}.", token)
        if token.keyword in ("none", "null"):
            return None, token.span
        if token.keyword:
            return token.keyword == "true", token.span
        if not NUMBER.fullmatch(token.text):
            return token.text, token.span
        span, digits = token.span, token.text
        if not digits.endswith("%") and self.next.kind == "word" and self.next.text == "%":  # `90 %`, as tables say
            span, digits = (token.start, self.take().end), f"{digits}%"
        return self.number(digits, span), span

    def number(self, digits: str, span: tuple[int, int]) -> int | float:
        if re.fullmatch(r"[+-]?\d{1,15}", digits):
            return int(digits)
        found = float(digits.rstrip("%"))
        if abs(found) > 1e300:
            _refuse(self.text, span, "a number as large as this is none that a run has.")
        # One division, then the nearest short decimal: 90% is the 0.9 that people write.
        return float(f"{found / 100:.15g}") if digits.endswith("%") else found

    def refuse(self, message: str, token: _Token | None = None) -> NoReturn:
        _refuse(self.text, (token or self.next).span, message)


def _tokens(text: str) -> list[_Token]:
    tokens, place = [], 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            char = text[place]
            if char in "'\"":
                _refuse(text, (place, len(text)), f"a text begins with {char} and does not end.")
            meant = {"&": "`and`", "|": "`or`", "!": "`not` or !="}.get(char)
            hint = f"; {meant} expected" if meant else ""
            _refuse(text, (place, place + 1), f"{quoted(char)} has no meaning here{hint}.")
        if match.lastgroup != "space":
            tokens.append(_Token(str(match.lastgroup), match.group(), match.start(), match.end()))
        place = match.end()
    return [*tokens, _Token("end", "", len(text), len(text))]


def _unquoted(token: _Token) -> str:
    return re.sub(r"""\\([\\'"])""", r"\1", token.text[1:-1]) if token.kind == "quoted" else token.text


def _refuse(text: str, span: tuple[int, int], message: str) -> NoReturn:
    """Raise UserError with the part of the text that is meant, marked from below."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    start = 0 if cell_len(shown) <= _SEEN else max(0, span[0] - _SEEN // 2)
    before, after = "…" * (start > 0), "…" * (len(shown) > start + _SEEN)
    excerpt = shown[start : start + _SEEN]
    place = cell_len(before + shown[start : span[0]])
    width = max(1, cell_len(shown[span[0] : min(span[1], start + _SEEN)]))
    raise UserError(f"--where: {message}\n    {before}{excerpt}{after}\n    {' ' * place}{'^' * width}")


def _unheard_of(shown: str, value: str, kinds: _Kinds) -> list[str]:
    """A sentence where no run has this text."""
    known = [str(found) for found in kinds.get("a text", ())]
    if not known or any(same(found, value) for found in known):
        return []
    return [f"--where: no run has {shown} {quoted(value, 40)}.{meant(value, known)} There are: {_listed(known)}."]


def _listed(values: Sequence[object]) -> str:
    shown = [text_of(value) if isinstance(value, (str, bool)) else str(value) for value in values[:_LISTED]]
    return ", ".join(shown) + (f" and {len(values) - _LISTED} more" if len(values) > _LISTED else "")
