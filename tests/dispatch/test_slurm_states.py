"""Every state that SLURM has for a job means something, and only such a state does."""

from __future__ import annotations

from typing import get_args

import pytest

from itopctl.dispatch.causes import Cause
from itopctl.dispatch.slurm_states import MEANINGS, Meaning, meaning_of

# JOB STATE CODES of squeue(1) and sacct(1), 22.05 to 25.05.
OVER = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
    "PREEMPTED", "RECONFIG_FAIL", "REVOKED", "TIMEOUT",
}  # fmt: skip
WAITING = {
    "PENDING", "POWER_UP_NODE", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT",
    "EXPEDITING",
}  # fmt: skip
THERE = {
    "CONFIGURING", "COMPLETING", "RUNNING", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED", "UPDATE_DB",
}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "phase"), [(OVER, "ended"), (WAITING, "pending"), (THERE, "running")], ids=["over", "waiting", "there"]
)
def test_every_state_of_the_manual_is_mapped(words: set[str], phase: str) -> None:
    assert {word: found.phase if (found := meaning_of(word)) else None for word in words} == dict.fromkeys(words, phase)


def test_no_state_is_mapped_that_the_manual_does_not_have() -> None:
    assert set(MEANINGS) == OVER | WAITING | THERE


def test_only_a_job_that_is_over_has_a_cause_and_it_is_one_of_ours() -> None:
    causes = {word: meaning.cause for word, meaning in MEANINGS.items() if meaning.cause is not None}
    assert set(causes) == OVER - {"COMPLETED"}
    assert set(causes.values()) <= set(get_args(Cause)) - {"finished"}, "success is not a scheduler's word"


@pytest.mark.parametrize(
    ("word", "cause"),
    [
        ("TIMEOUT", "timeout"), ("NODE_FAIL", "node-failure"), ("BOOT_FAIL", "node-failure"),
        ("PREEMPTED", "preempted"), ("OUT_OF_MEMORY", "out-of-memory"), ("CANCELLED", "cancelled"),
        ("CANCELLED by 0", "cancelled"), ("CANCELLED by 65534", "cancelled"), ("CANCELLED+", "cancelled"),
        ("cancelled by 0", "cancelled"), (" FAILED ", "killed"), ("DEADLINE", "timeout"),
    ],
)  # fmt: skip
def test_a_state_is_understood_as_squeue_and_sacct_write_it(word: str, cause: str) -> None:
    assert meaning_of(word) == Meaning("ended", cause)  # type: ignore[arg-type]


@pytest.mark.parametrize("word", ["", " ", "MELTED", "CANCELLEDBY 0", "+", "F", "RUNNING|x", "by 0"])
def test_any_other_word_means_nothing(word: str) -> None:
    assert meaning_of(word) is None
