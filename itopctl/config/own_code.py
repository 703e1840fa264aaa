"""The versions of the user's own code that runs are made by: a digest of each module that a config names.

A digest covers the module, the packages around it and all modules of the user's own that these import, however
indirectly, as `itopctl.config.syntax` reads them. It depends on no path. Left out are the standard library, installed
packages and itopctl itself; a package installed as editable is the user's own. Imports are found in the source, and
nothing is imported. So these cannot be seen: compiled modules, data files, modules whose name the code makes up
(`importlib.import_module(name)`).
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path

from itopctl.catalogue import modules_named
from itopctl.config.run_config import RunConfig, user_functions
from itopctl.config.syntax import syntax_digest
from itopctl.errors import OtherCodeError, UserError, plural
from itopctl.sources import find_top, find_within, imported_from, is_installed, parse, source_of

DIGEST_LENGTH = 12
_OURS = "itopctl"


@dataclass(frozen=True)
class _Module:
    """A module of the user's own.

    Attributes:
        path: its file.
        digest: of its syntax tree.
        imports: names that may be modules which it imports; `package.*` for what `from package import *` imports.
        listed: names that may be modules which `from … import *` imports from it.
    """

    path: Path
    digest: str
    imports: frozenset[str]
    listed: frozenset[str]


class OwnCode:
    """The user's own modules as they are now. Each is found and read once, so an object serves one command."""

    def __init__(self) -> None:
        self._fresh = False
        self._specs: dict[str, ModuleSpec | None] = {}
        self._modules: dict[str, _Module | None] = {}
        self._digests: dict[str, str | None] = {}

    def digest(self, module: str) -> str | None:
        """12 hex digits; None for a module that is not the user's own, has no Python source, or is not there.

        Raises:
            UserError: a file of it cannot be parsed; with file and line.
        """
        if module not in self._digests:
            self._digests[module] = self._digest(module)
        return self._digests[module]

    def files(self, module: str) -> dict[str, Path]:
        """The modules that the digest covers, by name, with their files; none where there is no digest."""
        return {name: found.path for name, found in self._reached(module).items()} if self.digest(module) else {}

    def of(self, config: RunConfig) -> dict[str, str] | None:
        """Digests of the modules that a config names; None where none of them is the user's own."""
        named = sorted(modules_named(vars(config).values()))
        return {name: digest for name in named if (digest := self.digest(name)) is not None} or None

    def recorded_in(self, config: RunConfig) -> RunConfig:
        """The config with the digests of its modules as they are now."""
        versions = self.of(config)
        return config if versions == config.own_code else config.model_copy(update={"own_code": versions})

    def differences(self, config: RunConfig) -> dict[str, str]:
        """Module that is not the code which a config records → a sentence on it; none where it records no code."""
        recorded = (config.own_code or {}).items()
        return {name: said for name, digest in recorded if (said := self._difference(name, digest))}

    def check(self, config: RunConfig) -> None:
        """Raise OtherCodeError where the user's own code is not what the run was planned with."""
        if found := self.differences(config):
            said = " ".join(found.values())
            raise OtherCodeError(
                f"{said} `itopctl sweep SPEC` plans the run with the code as it is now; to make this very run, put the "
                "code back as it was."
            )

    def untrusted(self, config: RunConfig, results: Path) -> set[str]:
        """Functions named by a config of a results folder that are not known to be code of this user.

        One is known if its module is the code that the config records, and none of that code comes from the folder.
        Nothing else that the folder says counts, since anybody can write it.
        """
        return {
            name
            for name in user_functions(vars(config))
            if not self._is_trusted(name.partition(":")[0], config, results)
        }

    def _is_trusted(self, module: str, config: RunConfig, results: Path) -> bool:
        # Where Python looks for modules in the folder at all, an import that is missing elsewhere is found there.
        if any(_is_in(Path(place), results) for place in (*sys.path, ".")):
            return False
        recorded = (config.own_code or {}).get(module)
        try:
            found = self.digest(module)
        except UserError:
            return False
        inside = any(_is_in(path, results) for path in self.files(module).values())
        return recorded is not None and recorded == found and not inside

    def _difference(self, module: str, planned: str) -> str | None:
        try:
            found = self.digest(module)
        except UserError as error:
            return f"Module {module} cannot be compared with the planned code {planned}: {error}"
        if found == planned:
            return None
        path = self.files(module).get(module)
        if path is None:
            return f"Module {module} was planned as code {planned} of your own, and no such module is found now."
        more = len(self.files(module)) - 1
        others = f", or one of {plural(more, 'module')} of yours that it imports," if more else ""
        return f"Module {module} ({path}){others} has changed: {planned} was planned, {found} is there now."

    def _digest(self, module: str) -> str | None:
        if self._module(module) is None:
            return None
        reached = self._reached(module)
        written = json.dumps([[name, reached[name].digest] for name in sorted(reached)])
        return hashlib.sha256(written.encode()).hexdigest()[:DIGEST_LENGTH]

    def _reached(self, module: str) -> dict[str, _Module]:
        """A module, the packages around it, and all of the user's own that these import."""
        found: dict[str, _Module] = {}
        seen: set[str] = set()
        waiting = [*_with_parents(module)]
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            package, star, _ = name.partition(".*")
            own = self._module(package)
            if own is not None and star:
                waiting += own.listed
            elif own is not None:
                found[name] = own
                waiting += own.imports
        return found

    def _module(self, name: str) -> _Module | None:
        if name not in self._modules:
            spec = self._spec(name)
            path = source_of(spec) if spec is not None else None
            self._modules[name] = None if spec is None or path is None else _read(name, path, spec)
        return self._modules[name]

    def _spec(self, name: str) -> ModuleSpec | None:
        """Where a module is, if it can be the user's own."""
        if name not in self._specs:
            if not self._fresh:
                importlib.invalidate_caches()  # a module may have been written since this process looked last
                self._fresh = True
            parent, _, _ = name.rpartition(".")
            if parent:
                around = self._spec(parent)
                spec = find_within(name, around) if around is not None else None
            else:
                spec = None if name == _OURS else find_top(name)
            self._specs[name] = None if spec is None or _is_foreign(spec) else spec
        return self._specs[name]


def _is_foreign(spec: ModuleSpec) -> bool:
    """Whether a module is installed, or no file; a package without `__init__.py` may hold modules of both kinds."""
    if spec.loader is None or spec.origin is None:
        return spec.submodule_search_locations is None
    return not spec.has_location or is_installed(Path(spec.origin))


def _read(name: str, path: Path, spec: ModuleSpec) -> _Module:
    tree = parse(path)
    is_package = spec.submodule_search_locations is not None
    package = name if is_package else name.rpartition(".")[0]
    imports = {part for imported in _imported(tree, package) for part in _with_parents(imported)}
    listed = {f"{name}.{one}" for one in _listed_in_all(tree)} if is_package else ()
    return _Module(path, syntax_digest(tree), frozenset(imports), frozenset(listed))


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    """Names that may be modules which a module imports, anywhere in it; a name that is none is not found later."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = imported_from(node, package)
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)


def _listed_in_all(tree: ast.Module) -> Iterator[str]:
    """Texts in what a module assigns to `__all__`."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.value


def _with_parents(name: str) -> Iterable[str]:
    parts = name.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


def _is_in(path: Path, folder: Path) -> bool:
    """Whether a path lies in a folder, as it is written or with links followed."""
    return path.absolute().is_relative_to(folder.absolute()) or path.resolve().is_relative_to(folder.resolve())
