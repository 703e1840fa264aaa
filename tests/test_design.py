"""The design, as far as the source shows it: layers of packages, short argument lists, a thin command line."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import itopctl

ROOT = Path(itopctl.__file__).parent
LAYERS = (
    ("errors", "places", "sources", "settings", "forking"),
    ("catalogue",),
    ("schema",),
    ("dst", "config", "store", "report"),
    ("train", "plan"),
    ("dispatch",),
    ("api",),
    ("cli",),
)
"""From the lowest up. A package imports from layers below its own; those of the third know nothing of each other."""
ALLOWED_WITHIN: set[tuple[str, str]] = set()
TOP = {"__init__", "__main__"}  # what the package offers by name, and the entry of the command line

LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def modules() -> Iterator[tuple[str, Path, ast.Module]]:
    """Every module of the package: the part it belongs to, its file, its syntax tree."""
    for path in sorted(ROOT.rglob("*.py")):
        yield path.relative_to(ROOT).with_suffix("").parts[0], path, ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Parts of the package that a module imports from, anywhere in it, with the line."""
    for node in ast.walk(tree):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            first, _, rest = name.partition(".")
            if first == "itopctl" and rest:
                yield rest.split(".")[0], node.lineno


def test_every_part_of_the_package_has_its_layer() -> None:
    assert {part for part, _, _ in modules()} == LEVEL.keys() | TOP


def test_no_package_imports_from_its_own_layer_or_one_above() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {other}"
        for part, path, tree in modules()
        if part not in TOP
        for other, line in imported(tree)
        if other != part and LEVEL[other] >= LEVEL[part] and not (LEVEL[part] == 0 or (part, other) in ALLOWED_WITHIN)
    ]
    assert wrong == []


def test_no_function_is_handed_the_folder_the_store_the_data_and_the_console() -> None:
    """Whoever needs them takes a `Project`, or a `Workplace`."""
    together = {"folder", "results", "store", "url", "data", "data_dir", "console"}
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for part, path, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and len(together & {argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)}) >= 4
        and not (part == "cli" and path.stem == node.name.rstrip("_"))  # a verb has the options of those names
    ]
    assert wrong == []


def test_the_command_line_is_thin() -> None:
    lines = [line for part, path, _ in modules() if part == "cli" for line in path.read_text().splitlines()]
    assert len(lines) <= 3000
