"""Folders that a process may lack: the one it was started in, and the user's home.

In a container, a user may have neither a home nor a name.
"""

from __future__ import annotations

import os
from pathlib import Path

from itopctl.errors import EnvironmentUnfitError


def current_folder() -> Path:
    """The folder that this process is in.

    Raises:
        EnvironmentUnfitError: somebody has removed it.
    """
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise EnvironmentUnfitError("the current folder is gone; change to another one.") from None


def current_folder_is_gone() -> bool:
    """Whether somebody has removed the folder that this process is in."""
    try:
        current_folder()
    except EnvironmentUnfitError:
        return True
    return False


def user_folder(variable: str, in_home: str) -> Path | None:
    """A folder of the user's: the one that an environment variable names, else one in the home; None without both."""
    named = os.environ.get(variable)
    if named:
        return Path(named)
    try:
        return Path.home() / in_home
    except RuntimeError:  # no HOME, and no entry in the list of users
        return None
