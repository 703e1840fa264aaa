"""How further Python processes are started: never with the working directory among the places that modules come from.

`python -m` and `python -c` put it first, and a command may be typed in somebody else's results folder, where any
`torch.py` may lie. A user's own function, which may be there, looks there itself (`itopctl.catalogue`), after all else.
"""

from __future__ import annotations

import sys
from pathlib import Path

import itopctl

_PACKAGE_FROM = Path(itopctl.__file__).parent.parent
_WITHOUT = "import sys; sys.path[:] = filter(None, sys.path)"
_RUN = 'import runpy; sys.argv.pop(0); runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)'


def same_package(module: str) -> list[str]:
    """The command for a module of this very package, wherever this process has it from."""
    known = f"sys.path.insert(0, {str(_PACKAGE_FROM.absolute())!r}); import itopctl; del sys.path[0]"
    return [sys.executable, "-c", f"{_WITHOUT}; {known}; {_RUN}", module]


def from_path(module: str) -> list[str]:
    """The command for a module that is found by PYTHONPATH, or installed."""
    return [sys.executable, "-u", "-c", f"{_WITHOUT}; {_RUN}", module]
