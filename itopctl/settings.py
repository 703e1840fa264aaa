"""Settings that a function declares beside it: type, range, default, description.

Light: a spec is checked by these without importing what declares them. A declaration of the user's own is read from the
source (`read_declaration`): nothing of it runs.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from itopctl.errors import UserError, quoted, unknown
from itopctl.sources import top_level

Value = bool | int | float | str
_GIVEN = frozenset({"layer", "count", "input_shape", "classes", "shape", "power"})  # arguments of rules and models
_LARGEST = 2**63
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


@dataclass(frozen=True)
class Setting:
    """A setting of a rule, an allocation or a model.

    Attributes:
        default: its value where none is given; its type is that of the setting: bool, int, float or str.
        description: what it is, for `itopctl list` and the schema.
        at_least, above, at_most, below: its range, of a number; None: no bound.
        choices: of a text, what it may be; empty: anything.
        as_before: the value that says what was the case before the setting existed; None where its absence says so.
        of: its type, where the default does not say it.
    """

    default: Value | None
    description: str = ""
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    as_before: Value | None = None
    of: type | None = None

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise UserError(f"a setting's default is {self.default!r}; a truth value, a number or a text expected.")
        self.check("the default of a setting", self.default)

    @property
    def kind(self) -> type:
        """bool, int, float or str."""
        return self.of or type(self.default)

    def with_default(self, default: Value | None) -> Setting:
        """The same with another default; None: the function gets None where nothing is given."""
        return replace(self, default=default, of=self.kind)

    @property
    def range(self) -> str:
        """`in [0, 1)`, `0 or more`, `above 0`, `a, b or c`; the kind where there are no bounds."""
        if self.choices:
            return " or ".join([", ".join(self.choices[:-1]), self.choices[-1]] if self.choices[1:] else self.choices)
        low = self.at_least if self.above is None else self.above
        high = self.at_most if self.below is None else self.below
        if low is not None and high is not None:
            opening, closing = "[" if self.above is None else "(", "]" if self.below is None else ")"
            return f"in {opening}{low:g}, {high:g}{closing}"
        if low is not None:
            return f"{low:g} or more" if self.above is None else f"above {low:g}"
        if high is not None:
            return f"{high:g} or less" if self.below is None else f"below {high:g}"
        return _KINDS[self.kind]

    def check(self, name: str, value: Any) -> Any:
        """A value of the setting, whole numbers as floats where it is a float.

        Raises:
            UserError: it is of another type, or out of range; `name` says whose.
        """
        if value is None and self.default is None:
            return None
        if self.kind in (int, float) and type(value) is int and abs(value) > _LARGEST:
            raise UserError(f"{name} is too large a number; it must be {self.range}.")
        if self.kind is float and type(value) is int:
            value = float(value)
        if type(value) is float and value == 0.0:
            value = 0.0  # -0.0 is no other setting
        if type(value) is not self.kind:
            raise UserError(f"{name} is {quoted(value)}; it must be {_KINDS[self.kind]}.")
        if self.choices and value not in self.choices:
            raise UserError(f"{name}: {unknown('choice', str(value), self.choices)}")
        number = value if isinstance(value, (int, float)) else 0.0
        if self.kind in (int, float) and not (math.isfinite(number) and self._holds(number)):
            raise UserError(f"{name} is {value!r}; it must be {self.range}.")
        return value

    def _holds(self, value: float) -> bool:
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def record(self) -> dict[str, Any]:
        """For `itopctl list`, without what is not said."""
        said = {
            field.name: getattr(self, field.name) for field in fields(self) if field.name not in ("as_before", "of")
        }
        return {name: value for name, value in said.items() if value not in (None, (), "")}


def setting(
    default: Value, description: str = "", *, at_least: float | None = None, above: float | None = None,
    at_most: float | None = None, below: float | None = None, choices: Sequence[str] = (),
) -> Setting:  # fmt: skip
    """A setting of a function of your own, to be declared by `rule` or `model`; arguments as of `Setting`."""
    return Setting(default, description, at_least, above, at_most, below, tuple(choices))


def as_settings(declared: Mapping[str, Any], shared: Mapping[str, Setting]) -> dict[str, Setting]:
    """Settings by name, each given as such or by its default alone; `shared`: those of this package's rules."""
    found = {}
    for name, one in declared.items():
        default = one.default if isinstance(one, Setting) else one
        if name in shared:
            found[name] = shared[name].with_default(default)
        else:
            found[name] = one if isinstance(one, Setting) else Setting(one)
    return found


def check_names(names: Iterable[str], parameters: Sequence[str], function: str) -> None:
    """Raise UserError unless settings are keywords that a function takes.

    Args:
        names: of the settings.
        parameters: what the function takes; empty where that is not known.
        function: its name.
    """
    for name in names:
        if name in _GIVEN:
            raise UserError(f"{function} cannot have a setting {name!r}: it is called with an argument of that name.")
        if parameters and name not in parameters:
            raise UserError(unknown(f"setting of {function}, which takes no such argument,", name, list(parameters)))


def filled(declared: Mapping[str, Setting], given: Mapping[str, Any], what: str, whose: str) -> dict[str, Value]:
    """All settings of a function: those given, the defaults of the others.

    Args:
        declared: its settings.
        given: name → value.
        what: where they stand, as `growth_args`.
        whose: the function's name.

    Raises:
        UserError: it has no such setting, or a value is of another type or out of range.
    """
    for name in given:
        if name not in declared:
            raise UserError(unknown(f"setting of {whose} in {what}", name, list(declared)))
    return {name: one.check(f"{what}.{name}", given.get(name, one.default)) for name, one in declared.items()}


def read_declaration(
    tree: ast.Module, function: str, shared: Mapping[str, Setting] | None = None
) -> dict[str, Setting] | None:
    """The settings that a function declares by a decorator with `settings=…`, read from its module's source.

    Args:
        tree: of the module.
        function: its name.
        shared: settings of this package's rules, by name.

    Returns:
        Name → setting, empty where it declares none; None where the module does not define the function itself.

    Raises:
        UserError: the declaration is no plain dict of constants and `setting(…)` calls with constants.
    """
    defined = [
        node
        for node in top_level(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and node.name == function
    ]
    if not defined:
        return None
    last = max(defined, key=lambda node: node.lineno)  # the definition that counts, as in Python
    written: dict[str, Any] = {}
    ours = _names_of_decorators(tree)
    for decorator in last.decorator_list:
        if not isinstance(decorator, ast.Call) or _last_name(decorator.func) not in ours:
            continue
        for keyword in decorator.keywords:
            if keyword.arg is None:
                raise UserError(f"line {decorator.lineno}: write settings={{…}} of {function} out, without **.")
            if keyword.arg == "settings":
                written |= _declared(keyword.value, function)
    found = as_settings(written, shared or {})
    check_names(found, _parameters(last), function)
    return found


def _names_of_decorators(tree: ast.Module) -> set[str]:
    """What a module calls `rule` and `model` of this package; another's decorators may have `settings`, too."""
    found = {"rule", "model"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            ours = (node.module or "").partition(".")[0] == "itopctl"
            for alias in node.names:
                if ours and alias.name in ("rule", "model") and alias.asname:
                    found.add(alias.asname)
                elif not ours and (alias.asname or alias.name) in ("rule", "model"):
                    found.discard(alias.asname or alias.name)
    return found


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> list[str]:
    if isinstance(node, ast.ClassDef) or node.args.kwarg is not None:
        return []
    return [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]


def _declared(node: ast.expr, function: str) -> dict[str, Any]:
    try:
        if not isinstance(node, ast.Dict):
            raise ValueError("a dict in braces expected")
        names: list[str] = [ast.literal_eval(key) if key is not None else "" for key in node.keys]
        if not all(isinstance(name, str) and name.isidentifier() for name in names):
            raise ValueError("each name is a text that could name an argument")
        return {name: _setting(value) for name, value in zip(names, node.values, strict=True)}
    except (ValueError, TypeError) as error:
        raise UserError(
            f"line {node.lineno}: the settings of {function} are read without running its file, so they must stand "
            f"there as constants: {{'name': setting(0.5, at_least=0)}} ({error})."
        ) from error


def _setting(node: ast.expr) -> Any:
    if not isinstance(node, ast.Call):
        return ast.literal_eval(node)
    called = _last_name(node.func)
    if called not in ("setting", "Setting"):
        raise ValueError(f"{ast.unparse(node)} is no constant")
    arguments = [ast.literal_eval(argument) for argument in node.args]
    if any(keyword.arg is None for keyword in node.keywords):
        raise ValueError("** is no constant")
    named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
    return setting(*arguments, **named)
