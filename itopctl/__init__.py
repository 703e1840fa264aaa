"""itopctl: sweeps of dynamic sparse training, from a YAML file to a table.

In a notebook or a program: `itopctl.Project`.

This package module is imported by everything, `itopctl --help` included: what it offers is imported when it is asked
for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from itopctl.api.cluster import Submitted
    from itopctl.api.project import Project
    from itopctl.api.project_runs import Outcome
    from itopctl.errors import ItopctlError, UserError

__all__ = ["ItopctlError", "Outcome", "Project", "Submitted", "UserError", "__version__"]

__version__ = "0.1.0"

_HOME = {
    "Project": "itopctl.api.project",
    "Outcome": "itopctl.api.project_runs",
    "Submitted": "itopctl.api.cluster",
    "ItopctlError": "itopctl.errors",
    "UserError": "itopctl.errors",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
