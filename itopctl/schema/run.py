"""A run: one config with one seed, what became of it, and what it measured."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from itopctl.schema.field import Better, Counts, Large, Mapped, Real, Small, Source, Text, Unit, declared

_store = functools.partial(declared, Source.STORE)
_config = functools.partial(declared, Source.CONFIG, listed=True)
_journal = functools.partial(declared, Source.JOURNAL)
_result = functools.partial(declared, Source.RESULT, listed=True)
_job = functools.partial(declared, Source.JOB)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Which run it is, and how it stands with it."""

    run_id: Text | None = _store(
        "the first 12 hex digits of its config's hash", heading="run", key=True, needed=True, listed=True
    )
    sweep: Text | None = _store("every sweep that it is in, separated by commas", stored=False, listed=True)
    state: Text | None = _store(
        "queued, pending, running, done, failed or lost", needed=True, indexed=True, listed=True
    )
    cause: Text | None = _store("why its last attempt ended", listed=True)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What of its config is asked for most."""

    dataset: Text | None = _config("the data set that it learns", heading="data set")
    model: Text | None = _config("the network")
    method: Text | None = _config("the method: a named choice of rules")
    growth: Text | None = _config("the rule by which weights are grown")
    drop: Text | None = _config("the rule by which weights are dropped")
    allocation: Text | None = _config("how the density is spread over the layers")
    sparsity: Real | None = _config("zero weights ÷ maskable weights", Unit.SPARSITY)
    density: Real | None = _config("1 − sparsity", Unit.SHARE)
    update_interval: Large | None = _config("optimizer steps between topology updates", heading="ΔT")
    drop_fraction: Real | None = _config("share of the active weights dropped by the first update", Unit.SHARE, "ζ")
    seed: Large | None = _config("of initial weights, masks, batches and augmentation", Unit.IDENTITY)
    epochs: Small | None = _config("passes over the training data, before the training multiplier")
    config: Mapped | None = _config("every setting, resolved", needed=True, listed=False)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far it is."""

    step: Large | None = _journal("optimizer steps made")
    epoch: Real | None = _journal("epochs trained")
    total_steps: Large | None = _journal("optimizer steps of the whole training")
    total_epochs: Small | None = _journal("epochs of the whole training")
    current_test_accuracy: Real | None = _journal("test accuracy measured last", Unit.ACCURACY, better=Better.HIGHER)
    current_exploration_rate: Real | None = _journal("exploration rate measured last", Unit.EXPLORATION)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What it has measured when it has come to its end."""

    test_accuracy: Real | None = _result(
        "test accuracy in % after the last step", Unit.ACCURACY, "test %", better=Better.HIGHER
    )
    test_accuracy_at_best_validation: Real | None = _result(
        "test accuracy in % at the epoch with the best validation accuracy",
        Unit.ACCURACY, "test % at best validation", better=Better.HIGHER,
    )  # fmt: skip
    validation_accuracy: Real | None = _result(
        "validation accuracy in % after the last step", Unit.ACCURACY, "validation %", better=Better.HIGHER
    )
    best_validation_accuracy: Real | None = _result(
        "best validation accuracy in %", Unit.ACCURACY, "best validation %", better=Better.HIGHER
    )
    best_epoch: Small | None = _result("epoch with the best validation accuracy")
    exploration_rate: Real | None = _result("exploration rate after the last step", Unit.EXPLORATION, "R_s")
    exploration_rate_at_best_validation: Real | None = _result(
        "exploration rate at the epoch with the best validation accuracy", Unit.EXPLORATION, "R_s at best validation"
    )
    final_density: Real | None = _result(
        "density over the maskable weights", Unit.SHARE, written="density", listed=False
    )
    train_loss: Real | None = _result("training loss of the last epoch", better=Better.LOWER)
    train_flops_ratio: Real | None = _result(
        "FLOPs of training relative to dense", Unit.RATIO, "train FLOPs", better=Better.LOWER
    )
    inference_flops_ratio: Real | None = _result(
        "FLOPs of inference relative to dense", Unit.RATIO, "inference FLOPs", better=Better.LOWER
    )
    topology_updates: Small | None = _result("topology updates")
    steps: Large | None = _result("optimizer steps")
    steps_per_second: Real | None = _result("optimizer steps per second", better=Better.HIGHER, repeats=False)
    wall_seconds: Real | None = _result(
        "time of all attempts together", Unit.SECONDS, "time", better=Better.LOWER, repeats=False
    )
    peak_memory_bytes: Large | None = _result(
        "peak memory of the device, or of the process", Unit.BYTES, "memory", better=Better.LOWER, repeats=False
    )
    train_flops: Real | None = _result("FLOPs of the whole training", Unit.FLOPS, "training FLOPs", better=Better.LOWER)
    inference_flops: Real | None = _result("FLOPs of inference, of one sample", Unit.FLOPS, better=Better.LOWER)
    energy_joules: Real | None = _result(
        "energy of the device", Unit.JOULES, "energy", better=Better.LOWER, repeats=False
    )
    device_name: Text | None = _result("device of the last attempt", heading="device", repeats=False)
    threads: Small | None = _result("threads of PyTorch")
    total_density: Real | None = _result("density over all weights", Unit.SHARE, "density of all weights")
    trainable: Large | None = _result("trained weights, masked or not")
    left_dense: Counts | None = _result(
        "left dense: trained parameters of two or more dimensions without a mask, by size", listed=False
    )


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How its attempts ended."""

    attempts: Small | None = _store("how often it was tried", needed=True, listed=True)
    message: Text | None = _store("what the last attempt that failed, or the scheduler, said", listed=True)


@dataclass(frozen=True, kw_only=True)
class OfJob:
    """The newest job that a scheduler was given for it."""

    job_name: Text | None = _job("the name under which it was submitted")
    job_id: Text | None = _job("the scheduler's id")
    job_phase: Text | None = _job("pending, running or ended")
    job_reason: Text | None = _job("why it waits")
    job_cause: Text | None = _job("why it ended, where it did not by itself")
    job_message: Text | None = _job("what is said of that")
    job_after: Small | None = _job("attempts at the run before the job was submitted")
    submitted_at: Text | None = _job("when it was submitted, in UTC")


@dataclass(frozen=True, kw_only=True)
class Read:
    """How much of its journal the store has taken in."""

    journal_offset: Large | None = _store("bytes read", needed=True)
    journal_mark: Text | None = _store("digest of the bytes before that, to see that they stay the same")
    damaged_lines: Small | None = _store("lines that are no event", needed=True)


@dataclass(frozen=True, kw_only=True)
class Run(Read, OfJob, Ended, Measured, Progress, Settings, Standing):
    """One config with one seed; its fields are those of the classes above, from `Standing` to `Read`."""
