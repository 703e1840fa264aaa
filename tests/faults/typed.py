"""Commands as a person types them, in this process; and all of those that only look."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import pkgutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import itopctl
from itopctl.cli import app


@dataclass(frozen=True)
class Typed:
    """How a command ended."""

    code: int
    out: str
    err: str


def typed(*arguments: str | Path) -> Typed:
    """Run a command line. What would be a traceback is raised here."""
    out, err = io.StringIO(), io.StringIO()
    argv = mock.patch.object(sys, "argv", ["itopctl", *map(str, arguments)])
    with argv, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = app.run()
        except SystemExit as end:
            code = int(end.code or 0)
    return Typed(code, out.getvalue(), err.getvalue())


def look_with_every_command(results: Path, run: str) -> dict[str, Typed]:
    """What each of the commands that only look says; `run` is in some sweep, and may have no log yet."""
    lines = ("status", "status --runs --json", "report", "report -t runs --json", f"show {run}", f"show {run} --json")
    said = {line: typed(*line.split(), "--results", results) for line in lines}
    assert {line: done.err for line, done in said.items() if done.code} == {}
    logs = typed("logs", run, "--results", results)
    assert logs.code == 0 or (logs.code == 3 and "there is no log" in logs.err)
    return said


def type_as(user: int, line: list[str], before: list[list[str]]) -> dict[str, Any]:
    """Type a command as another user, for `Zygote.call`; 0 is root.

    All code is imported before, as root, who types the commands `before`: others may not be able to read it.
    """
    for module in pkgutil.walk_packages(itopctl.__path__, "itopctl."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    os.chdir("/")
    for one in before:
        typed(*one)
    if user:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    return asdict(typed(*line))
