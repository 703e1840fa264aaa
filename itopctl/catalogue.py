"""Registries of everything that has a name in a spec: methods, drop and growth rules, allocations, models, data sets.

A catalogue is light: its declaring modules import neither torch nor each other at module level, so the CLI can
check, expand, list and complete names at once. The function behind a name is called only when a run needs it.

A new entry is one decorated function:

    @GROWTHS.add("mine", source="this paper")
    def mine(layer):
        "One line that `itopctl list` shows."
        ...

A user's own function is named `package.module:function` in a spec and needs no entry; what an entry would say about
it (`needs`, `settings`, …) is said by the decorators `rule` and `model`.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from itopctl.errors import UserError, unknown
from itopctl.places import current_folder, current_folder_is_gone
from itopctl.settings import Setting, as_settings, check_names, read_declaration
from itopctl.sources import find, imported_from, parse, source_of, top_level

_USER_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class Entry:
    """One name: what it is, where it comes from, and what may be said about it without running it."""

    name: str
    summary: str
    source: str
    function: Callable[..., Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


class Catalogue:
    """Names of one kind, filled by importing `modules` at the first look-up.

    Args:
        kind: what an entry is called in messages, such as `growth rule`.
        modules: light modules whose import declares the entries.
        user_functions: whether `package.module:function` is accepted as a name, too.
    """

    def __init__(self, kind: str, modules: tuple[str, ...], user_functions: bool = False) -> None:
        self.kind = kind
        self._modules = modules
        self.user_functions = user_functions
        self._entries: dict[str, Entry] = {}
        self._loaded = False

    def declare(self, name: str, *, summary: str, source: str, **options: Any) -> None:
        """Add an entry that has no function of its own, only options."""
        self._put(Entry(name, summary, source, None, options))

    def add(self, name: str, *, source: str, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorator: add a function, with its `settings` among the options; its docstring begins with the summary."""

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            summary = (function.__doc__ or "").strip().split("\n")[0]
            self._put(Entry(name, summary, source, function, options))
            return function

        return register

    def names(self) -> list[str]:
        """All names, in the order of declaration."""
        self._load()
        return list(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        self._load()
        return iter(self._entries.values())

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._entries

    def get(self, name: str) -> Entry:
        """The entry of this name. Raises UserError with the nearest valid word."""
        self._load()
        if name in self._entries:
            return self._entries[name]
        if self.user_functions and is_user_function(name):
            check_user_function(name)
            return Entry(name, "a function of your own", name.split(":")[0])
        allowed = self.names() + (["package.module:function"] if self.user_functions else [])
        raise UserError(unknown(self.kind, name, allowed))

    def function(self, name: str) -> Callable[..., Any]:
        """The function behind a name; imports the user's module for `package.module:function`."""
        entry = self.get(name)
        if entry.function is not None:
            return entry.function
        if is_user_function(name):
            return import_user_function(name)
        raise TypeError(f"{self.kind} {name!r} has no function")

    def options(self, name: str) -> Mapping[str, Any]:
        """What is declared about a name; for a user's function (imported for it), by the decorator `rule`."""
        entry = self.get(name)
        if entry.function is None and is_user_function(name):
            declared: Mapping[str, Any] = getattr(import_user_function(name), "rule_options", UNDECLARED)
            return declared
        return entry.options

    def _put(self, entry: Entry) -> None:
        if entry.name in self._entries:
            raise ValueError(f"{self.kind} {entry.name!r} is declared twice")
        self._entries[entry.name] = entry

    def _load(self) -> None:
        if not self._loaded:
            self._loaded = True
            for module in self._modules:
                importlib.import_module(module)


UNDECLARED: Mapping[str, Any] = {"needs": ("gradient",)}
"""Options of a user's function that has no decorator: it may read the dense gradient."""


NEEDS = ("gradient", "momentum", "times_active")
"""What a rule may need beside the weights."""


def rule(
    function: Callable[..., Any] | None = None,
    /,
    *,
    needs: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    chooses: bool = False,
    scope: str = "layer",
    sampled: bool = False,
    elementwise: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator for a rule of the user's own: declares what it needs, as the rules of this package do.

    Args:
        needs: of `NEEDS`.
        settings: name → default, or `setting(default, description, at_least=0, …)`, of what it takes as keywords. In a
            spec they stand under `drop_args`, `growth_args`, …; those of this package's rules (`gradient_weight`, …) as
            settings of the run. They are read from the source, so they must be constants.
        chooses, scope, sampled, elementwise: see `itopctl.dst.drop` and `itopctl.dst.growth`.

    Raises:
        UserError: an unknown need or scope, a default that is none; no parentheses.
    """
    if function is not None:
        raise UserError(f"write @rule() with parentheses above {getattr(function, '__name__', function)!r}.")
    for kind, words, allowed in (
        ("need", needs, NEEDS), ("scope", (scope,), ("layer", "network")),
    ):  # fmt: skip
        for word in words:
            if word not in allowed:
                raise UserError(unknown(kind, word, allowed))

    declared = as_settings(settings or {}, rule_settings())
    return _declaring(
        needs=tuple(needs), settings=declared, chooses=chooses, scope=scope, sampled=sampled, elementwise=elementwise
    )


def model(*, settings: Mapping[str, Any] | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator for a model or an allocation of the user's own: declares settings that it takes as keywords.

    Args:
        settings: as of `rule`; in a spec they stand under `model_args` or `allocation_args`.
    """
    return _declaring(settings=as_settings(settings or {}, {}))


def _declaring(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        parameters = inspect.signature(function).parameters.values()
        open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        check_names(options["settings"], [] if open_ended else [one.name for one in parameters], function.__name__)
        function.rule_options = options  # type: ignore[attr-defined]
        return function

    return declare


NEEDED_SETTINGS: Mapping[str, Mapping[str, Setting]] = {
    "gradient": {
        "gradient_batches": Setting(
            1, "batches whose dense gradients are averaged for rules that read it", at_least=1, at_most=10**6,
            as_before=1,
        ),
    },
    "momentum": {
        "momentum_decay": Setting(
            0.9, "of the moving average of the dense gradient, for rules that read it", at_least=0, below=1
        ),
    },
}  # fmt: skip
"""Settings of what a rule needs: how the engine makes it."""


def settings_of_rule(catalogue: Catalogue, name: str) -> dict[str, Any] | None:
    """Settings of a run that mean something for a rule, with their defaults; None for a user's function: any may."""
    if name not in catalogue and is_user_function(name):
        return None
    return {setting: one.default for setting, one in settings_of(catalogue.get(name)).items()}


def settings_of(entry: Entry) -> dict[str, Setting]:
    """Settings of a run that mean something for a rule of this package."""
    settings = dict(entry.options.get("settings", {}))
    for need in entry.options.get("needs", ()):
        settings |= NEEDED_SETTINGS.get(need, {})
    return settings


def own_settings(name: str, named_by: str) -> dict[str, Setting]:
    """The settings that a function of the user's own declares, without those that it shares with this package's rules.

    They are read from its source, also where its module imports it from another; nothing of it runs.

    Args:
        name: `package.module:function`.
        named_by: which setting names it: `growth`, `model`, …

    Raises:
        UserError: there is no such function, or its declaration is not made of constants.
    """
    shared = rule_settings() if named_by in RULES else {}
    check_user_function(name)
    module, _, function = name.partition(":")
    declared = _declaration(module, function, shared, _MOST_IMPORTS)
    return {setting: one for setting, one in declared.items() if setting not in shared}


_MOST_IMPORTS = 8  # from module to module, until the one that defines a function


def _declaration(module: str, function: str, shared: Mapping[str, Setting], left: int) -> dict[str, Setting]:
    found = find(module)
    if not left or found is None or (path := source_of(found)) is None:
        return {}
    tree = parse(path)
    try:
        declared = read_declaration(tree, function, shared)
    except UserError as error:
        raise UserError(f"{path}, {error}") from error
    if declared is not None:
        return declared
    package = module if found.submodule_search_locations is not None else module.rpartition(".")[0]
    for node in ast.walk(tree):
        for alias in node.names if isinstance(node, ast.ImportFrom) else ():
            if (alias.asname or alias.name) == function and isinstance(node, ast.ImportFrom):
                return _declaration(imported_from(node, package), alias.name, shared, left - 1)
    return {}


def is_user_function(name: str) -> bool:
    """Whether a name has the form `package.module:function`."""
    return ":" in name and bool(_USER_FUNCTION.fullmatch(name))


def modules_named(values: Iterable[Any]) -> set[str]:
    """Modules of the functions of the user's own among the values of some settings."""
    return {value.partition(":")[0] for value in values if isinstance(value, str) and is_user_function(value)}


def check_user_function(name: str) -> None:
    """Raise UserError unless the module can be found and its source defines the function.

    Nothing is imported, neither the module (it may import torch, or take long) nor packages above it: their code may
    change this process.
    """
    module_name, function_name = name.split(":")
    if module_name == "__main__":
        raise UserError(
            f"{name!r}: what is defined in a notebook or a script itself is not there in the processes that train; put "
            f"{function_name} into a file, such as my_code.py, and name it my_code:{function_name}."
        )
    _see_working_directory()
    try:
        found = find(module_name)
    except Exception as error:  # what looks for modules may be of anybody's
        raise UserError(f"{name!r}: module {module_name!r} cannot be found ({error}).") from error
    if found is None:
        hint = f" Write {module_name[:-3]}:{function_name}, without .py." if module_name.endswith(".py") else ""
        raise UserError(
            f"{name!r}: there is no module {module_name!r} on Python's path or in {current_folder()}.{hint}"
        )
    if not found.origin or not found.origin.endswith(".py"):
        return
    try:
        tree = parse(Path(found.origin))
    except UserError as error:
        raise UserError(f"{name!r}: {error}") from error
    defined, imported, open_ended = _top_level_names(tree)
    if function_name in defined | imported or open_ended:
        return
    if not defined:
        raise UserError(f"{found.origin}: there is no function {function_name!r}; the file defines none.")
    raise UserError(f"{found.origin}: " + unknown("function", function_name, sorted(defined)))


def import_user_function(name: str) -> Callable[..., Any]:
    """Import and return the user's function `package.module:function`. Runs the user's code."""
    check_user_function(name)
    module_name, function_name = name.split(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module_name), function_name)
    return function


def _see_working_directory() -> None:
    if current_folder_is_gone():
        return
    here = str(current_folder())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)


@functools.lru_cache(maxsize=64)  # the same module is checked for every run of a sweep
def _top_level_names(tree: ast.Module) -> tuple[set[str], set[str], bool]:
    """Names a module defines at its top level, those it imports, and whether it may bind more than its source shows."""
    names: set[str] = set()
    imported: set[str] = set()
    open_ended = False
    for node in top_level(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            imported.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
            open_ended |= any(alias.name == "*" for alias in node.names)
    return names, imported, open_ended


RULES = ("drop", "growth", "redistribution")
"""Settings that name a rule which may have settings of its own."""


ARGS = {"drop_args": "drop", "growth_args": "growth", "redistribution_args": "redistribution",
        "allocation_args": "allocation", "model_args": "model"}  # fmt: skip
"""Setting of a run that holds the settings of a function of the user's own → the setting that names the function."""


def is_own_setting(name: str) -> bool:
    """Whether a dotted name is of a setting of the user's own function: `growth_args.temperature`."""
    args, _, inner = name.partition(".")
    return args in ARGS and inner.isidentifier()


@functools.cache
def rule_settings() -> dict[str, Setting]:
    """Settings of a run that only some rules have, each described with its rule."""
    found = {name: one for settings in NEEDED_SETTINGS.values() for name, one in settings.items()}
    for catalogue in (DROPS, GROWTHS, REDISTRIBUTIONS):
        for entry in catalogue:
            for name, one in entry.options.get("settings", {}).items():
                found.setdefault(name, replace(one, description=f"{catalogue.kind} {entry.name}: {one.description}"))
    return found


OWN_CODE = "own_code."
"""Begins the flat name of the setting that is the version of a module of the user's own: `own_code.my_models`."""


def comparable(name: str, settings: Mapping[str, Any]) -> tuple[Any, ...]:
    """Key under which a setting's value is compared between runs, to see what varies.

    A setting that only some rules have comes with the rule: it varies where runs of the same rules differ in it. The
    version of a module comes with the module: it varies where runs that use the module differ in it.
    """
    if name.startswith(OWN_CODE):
        return (name, settings.get(name) is None)
    if is_own_setting(name):
        return (name, settings.get(ARGS[name.partition(".")[0]]))
    return (name, *map(settings.get, RULES)) if name in rule_settings() else (name,)


METHODS = Catalogue("method", ("itopctl.dst.methods",))
ALLOCATIONS = Catalogue("allocation", ("itopctl.dst.allocation",), user_functions=True)
DROPS = Catalogue("drop rule", ("itopctl.dst.drop",), user_functions=True)
GROWTHS = Catalogue("growth rule", ("itopctl.dst.growth",), user_functions=True)
REDISTRIBUTIONS = Catalogue("redistribution", ("itopctl.dst.redistribution",), user_functions=True)
DROP_SCHEDULES = Catalogue("drop schedule", ("itopctl.dst.schedule",))
MODELS = Catalogue("model", ("itopctl.train.models.catalogue",), user_functions=True)
DATASETS = Catalogue("data set", ("itopctl.train.data.catalogue",))
