"""Looks at a scheduler that shows what a test says, and what the store says of the run `ID` afterwards."""

from __future__ import annotations

from itopctl.dispatch.reconcile import GRACE_SECONDS, News, reconcile
from tests.dispatch.told import ToldScheduler, begins, fails, finishes
from tests.store.builders import Lab, run_id

ID = run_id(1)
"""The run of the fixture `lab`; one job, `told.JOB`, is to make it."""

LATER = GRACE_SECONDS + 1

FILES = {
    "nothing": lambda lab: None,
    "an open attempt": lambda lab: begins(lab, ID),
    "an attempt that failed": lambda lab: fails(lab, ID, "user-error"),
    "an attempt that was preempted": lambda lab: fails(lab, ID, "preempted"),
    "a finished attempt": lambda lab: finishes(lab, ID),
    "a result without a last word": lambda lab: finishes(lab, ID, said=False),
}
"""What a job left of its run."""

ACCOUNTS = {
    "answer, and know nothing": {},
    "do not exist": {"keeps_accounts": False},
    "cannot be asked": {"accounts_fail": True},
}
"""What may be with the accounts, as arguments of a scheduler."""


def look(lab: Lab, scheduler: ToldScheduler, at: float = 0.0) -> News:
    return reconcile(lab.results, scheduler, lambda: at)


def look_until_sure(lab: Lab, scheduler: ToldScheduler) -> News:
    look(lab, scheduler)
    return look(lab, scheduler, LATER)


def state_of(lab: Lab, id_: str = ID) -> tuple[str, str | None]:
    row = lab.row(id_)
    return row["state"], row["cause"]
