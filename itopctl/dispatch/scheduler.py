"""What the rest of the package asks of a scheduler, whichever it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from itopctl.errors import EnvironmentUnfitError


class SchedulerError(EnvironmentUnfitError):
    """The scheduler could not be asked, or refused. An error is not an empty queue: nothing is known."""


@dataclass(frozen=True)
class Cluster:
    """Where jobs go: its name, the user there, the number of jobs of an array, and whether it keeps accounts."""

    name: str
    user: str
    largest_array: int
    accounts: bool


@dataclass(frozen=True)
class SeenJob:
    """A job as the scheduler shows it.

    Attributes:
        name: of the job, and of our submission.
        array_id, index: the array's id, and the job's place in it.
        word: its state, in the scheduler's word.
        reason: why it waits or ended, if it says so.
        exit_code: `code:signal`, where it is known.
    """

    name: str
    array_id: str
    index: int
    word: str
    reason: str | None = None
    exit_code: str | None = None


class Scheduler(Protocol):
    """A scheduler of arrays of jobs. Every method raises SchedulerError where it gets no answer."""

    def cluster(self) -> Cluster:
        """Which cluster this is."""

    def queue(self, names: Sequence[str]) -> list[SeenJob]:
        """Jobs of these names that wait, run, or have ended lately."""

    def accounts(self, names: Sequence[str], days: int) -> list[SeenJob]:
        """Jobs of these names, ended ones included, as the accounts have them, which may lag behind.

        Args:
            names: of the jobs.
            days: how far back to look.
        """

    def cancel(self, job_ids: Sequence[str]) -> dict[str, str]:
        """End these jobs (`12_3`).

        Returns:
            For each job that the scheduler did not end, what it answered: also for one that was over already.

        Raises:
            SchedulerError: it ended none, and not because all were over.
        """
