"""Which share of the exhaustive cases a run of the tests takes: another one with each commit, all of them on demand.

$ITOPCTL_TEST_SHARE is `all` (`make test-all`) or the number of a share, from 0. Where it is not set, the share is
chosen by the hash of the commit, so that one commit is always tested alike, and every case after a few commits.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

VARIABLE = "ITOPCTL_TEST_SHARE"
SHARES = 8
"""One case in so many is taken, unless a test says otherwise."""

_ROOT = Path(__file__).parents[1]


def chosen() -> str:
    """`all`, or the number of the share.

    Raises:
        ValueError: the variable is neither.
    """
    told = os.environ.get(VARIABLE)
    if told is None:
        told = str(_share_of_commit())
        os.environ[VARIABLE] = told  # for the processes that pytest-xdist starts
    if told != "all" and not told.isdecimal():
        raise ValueError(f"{VARIABLE} is {told!r}: neither `all` nor a number from 0.")
    return told


def of_share(cases: Sequence[T], name: str, shares: int = SHARES) -> list[T]:
    """The cases of this run: all, or every `shares`-th, and one at least.

    Args:
        cases: all of them, always in the same order.
        name: of the test: so that tests with few cases do not all take their first.
        shares: how many commits it takes until every case was tried, at least.
    """
    told = chosen()
    if told == "all":
        return list(cases)
    shares = min(shares, len(cases)) or 1
    first = (int(told) + int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)) % shares
    return list(cases[first::shares])


def _share_of_commit() -> int:
    """By the hash of HEAD; 0 where there is no repository."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=_ROOT, capture_output=True, text=True, check=True, timeout=60
        )
        return int(done.stdout.strip()[:8], 16) % SHARES
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0
