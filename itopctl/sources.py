"""Python modules as source files: where a module lies, whether it is installed, its syntax tree.

Nothing is imported and no module's code runs. Which modules a run depends on is said by `itopctl.config.own_code`.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import pkgutil
import sys
import sysconfig
import warnings
from collections import deque
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from itopctl.errors import UserError

_PLACES = ("stdlib", "platstdlib", "purelib", "platlib")
_PLACES_BY_NAME = frozenset({"site-packages", "dist-packages"})


def find(name: str) -> ModuleSpec | None:
    """Where a module would be imported from; None: nowhere. Packages above it are not run."""
    imported = getattr(sys.modules.get(name), "__spec__", None)
    if imported is not None:
        return imported
    package = name.rpartition(".")[0]
    if not package:
        return find_top(name)
    around = find(package)
    return None if around is None else find_within(name, around)


def find_top(name: str) -> ModuleSpec | None:
    """Where a top-level module would be imported from, the working directory after all else; None: nowhere."""
    for finder in sys.meta_path:
        spec = finder.find_spec(name, None) if hasattr(finder, "find_spec") else None
        if spec is not None:
            return spec
    with contextlib.suppress(FileNotFoundError):  # the working directory is gone
        return PathFinder.find_spec(name, [str(Path.cwd())])
    return None


def find_within(name: str, package: ModuleSpec) -> ModuleSpec | None:
    """Where a module of a package would be imported from; None where there is none, or the package is no package.

    Other than Python's own search it needs no imported package, so no `__init__.py` is run.
    """
    portions: list[str] = []
    for location in package.submodule_search_locations or ():
        finder = pkgutil.get_importer(location)
        spec = finder.find_spec(name) if finder is not None else None
        if spec is not None and spec.loader is not None:
            return spec
        if spec is not None:
            portions += spec.submodule_search_locations or ()
    if not portions:
        return None
    namespace = ModuleSpec(name, None, is_package=True)
    namespace.submodule_search_locations = portions
    return namespace


def source_of(spec: ModuleSpec) -> Path | None:
    """The file of a module; None for one without Python source: compiled, built in, a package without `__init__.py`."""
    return Path(spec.origin) if spec.has_location and spec.origin and spec.origin.endswith(".py") else None


def is_installed(path: Path) -> bool:
    """Whether a file is part of Python or of an installed package.

    A package that is installed as editable lies in its own project, and is not: its files change with every edit.
    """
    real = path.resolve()
    return not _PLACES_BY_NAME.isdisjoint(real.parts) or any(real.is_relative_to(place) for place in _places())


@functools.cache
def _places() -> tuple[Path, ...]:
    return tuple({Path(place).resolve() for kind in _PLACES if (place := sysconfig.get_path(kind))})


def parse(path: Path) -> ast.Module:
    """The syntax tree of a file, which must not be changed. Raises UserError with file and line if it has none."""
    try:
        return _parsed(path.read_bytes())
    except SyntaxError as error:
        raise UserError(f"{path}, line {error.lineno}: {error.msg}.") from error
    except (ValueError, OSError, RecursionError, MemoryError) as error:
        raise UserError(f"{path}: {error}.") from error


@functools.lru_cache(maxsize=512)
def _parsed(source: bytes) -> ast.Module:
    with warnings.catch_warnings():  # on escapes in texts; Python gives them when it runs the module
        warnings.simplefilter("ignore")
        return ast.parse(source)


def imported_from(node: ast.ImportFrom, package: str) -> str:
    """The module that a module of `package` imports from; nothing where dots lead out of the topmost package."""
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    kept = parts[: len(parts) - node.level + 1]
    return ".".join([*kept, *([node.module] if node.module else [])]) if package and kept else ""


def top_level(tree: ast.Module) -> Iterator[ast.AST]:
    """The nodes of a module's top level, in branches, too; of functions and classes, none that is within."""
    waiting: deque[ast.AST] = deque([tree])
    while waiting:
        node = waiting.popleft()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            waiting.extend(ast.iter_child_nodes(node))
