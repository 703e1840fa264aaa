"""Why an attempt at a run ended: the words, and how an exception or an exit status maps to one."""

from __future__ import annotations

import errno
from typing import Literal

from itopctl.errors import (
    DataUnfitError,
    DiskFullError,
    EnvironmentUnfitError,
    NotWritableError,
    OtherCodeError,
    is_want_of_memory,
)

Cause = Literal[
    "finished", "user-error", "out-of-memory", "disk-full", "not-writable", "data", "environment", "killed", "timeout",
    "preempted", "node-failure", "cancelled", "lost", "other-code",
]  # fmt: skip

RETRIED_AT_ONCE: frozenset[Cause] = frozenset({"killed"})
"""Causes that are nobody's fault in the run: it is tried again without being asked."""

STOPPED: frozenset[Cause] = frozenset({"cancelled", "timeout", "preempted"})
"""Causes of an end that was asked for: the run saved itself first, and goes on from there."""


def cause_of_exception(error: BaseException) -> Cause:
    """What an exception that ended a training stands for."""
    if is_want_of_memory(error):
        return "out-of-memory"
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, DiskFullError) or number in (errno.ENOSPC, errno.EDQUOT):
        return "disk-full"
    if isinstance(error, NotWritableError) or number in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "not-writable"
    if isinstance(error, OtherCodeError):
        return "other-code"
    if isinstance(error, DataUnfitError):
        return "data"  # missing or damaged
    if isinstance(error, (EnvironmentUnfitError, OSError)):
        return "environment"
    return "user-error"
