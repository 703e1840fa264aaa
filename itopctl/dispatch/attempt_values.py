"""Who makes an attempt, why it is to stop, and how it ended: plain values that processes tell each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from itopctl.dispatch.causes import Cause

Notify = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Job:
    """Who runs this, for the record of the attempt.

    Attributes:
        scheduler: `local` or the scheduler's name.
        job_id, cluster: the scheduler's job, and where; None where there is no scheduler.
        start: how many times the scheduler has started that job before.
        code: `git_commit`, `git_dirty` and `code` (a digest) of what runs, and `submitted_code` where it differs.
        rank: `index`, `count` and `local` of `itopctl.train.ranks.Rank`, where several processes train a run together.
    """

    scheduler: str = "local"
    job_id: str | None = None
    cluster: str | None = None
    start: int = 0
    code: dict[str, Any] = field(default_factory=dict)
    rank: dict[str, Any] | None = None

    @property
    def lock_id(self) -> str | None:
        """What makes the job unique."""
        return None if self.job_id is None else f"{self.scheduler}:{self.cluster}:{self.job_id}"


Stop = tuple[Cause, str]
"""Why a training is to stop."""

CANCELLED: Stop = ("cancelled", "cancelled on request")


@dataclass(frozen=True)
class Ended:
    """How an attempt ended.

    Attributes:
        state: `done`, `failed`, `cancelled` or `elsewhere` (another process has the run).
        cause, message: why.
        alone: whether a failure says nothing about other runs (a training that diverged).
    """

    state: str
    cause: Cause | None = None
    message: str | None = None
    alone: bool = False
