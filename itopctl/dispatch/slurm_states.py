"""Every state that SLURM has for a job: what it means for us, and why a job in it ended.

From the list of job states in SLURM's own documentation (squeue(1), sacct(1)), 22.05 to 25.05. A word that is not here
is treated as one that is not known: the job is left alone, and named.
"""

from __future__ import annotations

from dataclasses import dataclass

from itopctl.dispatch.causes import Cause
from itopctl.store.submissions import JobPhase


@dataclass(frozen=True)
class Meaning:
    """What a state says: where the job is, and, if it is over, why (None: by itself; our own files say how)."""

    phase: JobPhase
    cause: Cause | None = None


_WAITS, _RUNS = Meaning("pending"), Meaning("running")

MEANINGS: dict[str, Meaning] = {
    # Waiting, or on its way back to waiting.
    "PENDING": _WAITS,
    "REQUEUED": _WAITS,
    "REQUEUE_FED": _WAITS,
    "REQUEUE_HOLD": _WAITS,
    "SPECIAL_EXIT": _WAITS,  # requeued and held, by its exit code
    "RESV_DEL_HOLD": _WAITS,
    "POWER_UP_NODE": _WAITS,
    "EXPEDITING": _WAITS,
    # At a node, or not quite off it.
    "CONFIGURING": _RUNS,
    "RUNNING": _RUNS,
    "COMPLETING": _RUNS,
    "SIGNALING": _RUNS,
    "STAGE_OUT": _RUNS,
    "STOPPED": _RUNS,
    "SUSPENDED": _RUNS,
    "RESIZING": _RUNS,
    "UPDATE_DB": _RUNS,
    # Over.
    "COMPLETED": Meaning("ended"),
    "FAILED": Meaning("ended", "killed"),  # our processes exit by themselves only after they have said why
    "CANCELLED": Meaning("ended", "cancelled"),
    "TIMEOUT": Meaning("ended", "timeout"),
    "DEADLINE": Meaning("ended", "timeout"),
    "PREEMPTED": Meaning("ended", "preempted"),
    "NODE_FAIL": Meaning("ended", "node-failure"),
    "BOOT_FAIL": Meaning("ended", "node-failure"),
    "LAUNCH_FAILED": Meaning("ended", "node-failure"),
    "RECONFIG_FAIL": Meaning("ended", "node-failure"),
    "OUT_OF_MEMORY": Meaning("ended", "out-of-memory"),
    "REVOKED": Meaning("ended", "cancelled"),  # a federation started it elsewhere
}


def meaning_of(word: str) -> Meaning | None:
    """What a state means, as squeue or sacct write it (`CANCELLED by 0`, `CANCELLED+`); None for an unknown word."""
    return MEANINGS.get(word.split()[0].rstrip("+").upper()) if word.strip() else None
