"""Debian's packages of SLURM: whether they are there, and installing them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.slurm.config import PATH, Settings

_PROGRAMS = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "squeue": "slurm-client",
    "munged": "munge",
}
_PROGRAMS_OF_ACCOUNTING = {
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server",
}
_POLICY = Path("/usr/sbin/policy-rc.d")


def missing(settings: Settings) -> list[str]:
    """The packages that are not installed."""
    programs = _PROGRAMS | (_PROGRAMS_OF_ACCOUNTING if settings.accounting else {})
    return sorted({package for program, package in programs.items() if shutil.which(program, path=PATH) is None})


def install(packages: list[str]) -> None:
    """Install packages by apt-get, without letting them start services of their own.

    Raises:
        subprocess.CalledProcessError: apt-get failed; its last words went to standard error.
    """
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    ours = not _POLICY.exists()
    if ours:  # what Debian asks before it starts a service
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(0o755)
    try:
        for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
            subprocess.run(["apt-get", "-qq", *arguments], env=env, stdout=subprocess.DEVNULL, check=True)
    finally:
        if ours:
            _POLICY.unlink()
