"""Where in the user's own code an exception was raised, for messages. Imports no torch."""

from __future__ import annotations

import inspect
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import itopctl

_MOST_SAID = 300  # characters of an exception's own text


def in_words(error: BaseException) -> str:
    """An exception in one line: `RuntimeError: no such thing`."""
    if isinstance(error, SystemExit):
        return f"it ends the process (SystemExit: {error.code})"
    said = " ".join(str(error).split())
    said = said if len(said) <= _MOST_SAID else f"{said[:_MOST_SAID]}…"
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def place_of(error: BaseException, function: Callable[..., Any] | None = None) -> str:
    """`my_models.py:12`: the innermost line of the user's own code that an exception came through.

    Args:
        error: raised, with its traceback.
        function: the user's function that was called. Where no line of the user's own was reached (wrong arguments,
            say), the place is that of its definition.

    Returns:
        The file as seen from the working directory, and the line; "" where neither is known.
    """
    home = _folder_of(function)
    lines = [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        lines.append((error.filename, error.lineno or 0))
    for file, line in reversed(lines):
        if _is_own(file, home):
            return f"{shown_path(file)}:{line}"
    return definition_of(function)


def definition_of(function: Callable[..., Any] | None) -> str:
    """Where a function of the user's own is defined, as in `place_of`; "" for one of this package."""
    home = _folder_of(function)
    if function is None or home is None or not _is_own(str(home / "_"), home):
        return ""
    try:
        return f"{shown_path(str(inspect.getsourcefile(function)))}:{inspect.getsourcelines(function)[1] or 1}"
    except (OSError, TypeError):
        return ""


def _folder_of(function: Callable[..., Any] | None) -> Path | None:
    """The folder of a function's module."""
    try:
        file = inspect.getsourcefile(inspect.unwrap(function)) if function is not None else None
    except TypeError:  # not a function at all, or built in
        return None
    return Path(file).absolute().parent if file else None


def _is_own(file: str, home: Path | None) -> bool:
    """Whether a file is the user's own: not installed, or installed together with the function that was called."""
    path = Path(file).absolute()
    if file.startswith("<") or _PACKAGE in path.parents:
        return False
    if _is_installed(path):
        return home is not None and _is_installed(home) and home in path.parents
    return True


_PACKAGE = Path(itopctl.__file__).absolute().parent
_STANDARD = Path(sysconfig.get_path("stdlib"))


def _is_installed(path: Path) -> bool:
    """Whether a file belongs to Python or an installed package; an environment may lie below the user's own folder."""
    return _STANDARD in path.parents or not {"site-packages", "dist-packages"}.isdisjoint(path.parts)


def shown_path(file: str | Path) -> str:
    """A file as seen from the working directory, or its whole path where it lies elsewhere."""
    path = Path(file).absolute()
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)
