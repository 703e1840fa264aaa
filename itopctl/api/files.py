"""Files that the user names for what is made: tables, pages, figures, networks."""

from __future__ import annotations

from pathlib import Path

from itopctl.errors import EnvironmentUnfitError


def check_folder(output: Path | None) -> None:
    """Raise EnvironmentUnfitError where there is no folder for a file: told before the work and not after it."""
    if output is not None and not output.parent.is_dir():
        raise EnvironmentUnfitError(f"{output} cannot be written: there is no folder {output.parent}.")


def ending_of(path: Path) -> str:
    """What a file's name says of its format, as `.csv`; nothing where only a number is at its end, as in `net-0.95`."""
    return path.suffix.lower() if any(map(str.isalpha, path.suffix)) else ""


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file; text as UTF-8. Raises EnvironmentUnfitError where it cannot be written."""
    try:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise EnvironmentUnfitError(f"{path} cannot be written: {error.strerror}.") from error
