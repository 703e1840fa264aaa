"""What a run consists of, and what runs belong to: attempts, evaluations, layers, sweeps, submissions."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from itopctl.schema.field import Better, Flag, Large, Listed, Mapped, Real, Small, Source, Text, Unit, declared

_store = functools.partial(declared, Source.STORE)
_journal = functools.partial(declared, Source.JOURNAL)
_result = functools.partial(declared, Source.RESULT)

_key = functools.partial(_store, key=True, needed=True)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try at a run."""

    run_id: Text | None = _key("the run")
    attempt: Small | None = _key("1 for the first, 2 for the second, …")
    scheduler: Text | None = _journal("local or slurm")
    job_id: Text | None = _journal("the scheduler's id of its job")
    host: Text | None = _journal("the machine")
    pid: Small | None = _journal("the process")
    started_at: Text | None = _journal("when it began, in UTC")
    ended_at: Text | None = _journal("when it ended, in UTC")
    state: Text | None = _journal("running, done, failed or cancelled", needed=True)
    cause: Text | None = _journal("why it ended")
    message: Text | None = _journal("what is said of that")
    resumed_from_step: Large | None = _journal("the step of the checkpoint that it went on from; 0: from the start")
    git_commit: Text | None = _journal("the commit of the code that ran")
    git_dirty: Flag | None = _journal("whether files differed from that commit")
    code: Text | None = _journal("digest of the code that ran")
    submitted_code: Text | None = _journal("digest of the code that was submitted")
    log: Text | None = _journal("the last lines of its log, where it failed")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a run measured after an epoch, or at a topology update."""

    run_id: Text | None = _key("the run")
    kind: Text | None = _key("epoch or update")
    step: Large | None = _key("optimizer steps made")
    epoch: Real | None = _journal("epochs trained")
    attempt: Small | None = _journal("the attempt that measured it")
    train_loss: Real | None = _journal("mean loss of training since the last evaluation", better=Better.LOWER)
    validation_accuracy: Real | None = _journal(
        "share of the validation set that is right", Unit.ACCURACY, "validation %", better=Better.HIGHER
    )
    test_accuracy: Real | None = _journal(
        "share of the test set that is right", Unit.ACCURACY, "test %", better=Better.HIGHER
    )
    exploration_rate: Real | None = _journal("weights ever active ÷ maskable weights", Unit.EXPLORATION, "R_s")
    density: Real | None = _journal("active weights ÷ maskable weights", Unit.SHARE)
    drop_fraction: Real | None = _journal("share of the active weights that is dropped", Unit.SHARE, "ζ")
    lr: Real | None = _journal("learning rate")
    replaced: Large | None = _journal("weights dropped, and as many grown, by the update")
    moved: Large | None = _journal("of the grown weights, those in another layer than those dropped for them")
    new: Large | None = _journal("of the grown weights, those that were never active before")
    skipped: Flag | None = _journal("whether the update was left out, for gradients that are not finite")
    wall_seconds: Real | None = _journal("time of all attempts so far", Unit.SECONDS)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """The maskable weights of one layer of a finished run, or one block of them."""

    run_id: Text | None = _key("the run")
    position: Small | None = _key("its place in the network, from 0")
    name: Text | None = _result("the parameter's name; of a block with the block's name", needed=True)
    shape: Listed | None = _result("of the weights", needed=True)
    size: Large | None = _result("number of weights", needed=True)
    active: Large | None = _result("of those active at the end", needed=True)
    density: Real | None = _result("active ÷ size", Unit.SHARE, needed=True)
    exploration_rate: Real | None = _result("weights ever active ÷ size", Unit.EXPLORATION, "R_s", needed=True)
    dropped: Large | None = _result("weights dropped in all updates together")
    backend: Text | None = _result("how it was computed with: masked or sparse")


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A spec and its runs, as the last sweep command left it."""

    sweep: Text | None = _key("its name")
    description: Text | None = _store("what its spec says of it", needed=True)
    specs: Listed | None = _store("the spec files: path, text, and the settings given with --set", needed=True)
    slurm: Mapped | None = _store("what jobs ask of SLURM", needed=True)
    created_at: Text | None = _store("when it was first run, in UTC", needed=True)
    updated_at: Text | None = _store("when it was last run, in UTC", needed=True)
    stamp: Text | None = _store("of its manifest, to see that it changed", needed=True)


@dataclass(frozen=True, kw_only=True)
class Membership:
    """That a run is one of a sweep's."""

    sweep: Text | None = _key("the sweep")
    run_id: Text | None = _key("the run", indexed=True)
    position: Small | None = _store("its place in the sweep, from 0", needed=True)


@dataclass(frozen=True, kw_only=True)
class Meta:
    """What a store says of itself."""

    key: Text | None = _key("what is said")
    value: Text | None = _store("what is said of it", needed=True)


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What was handed to a scheduler at once."""

    name: Text | None = _key("the name under which it was submitted")
    stamp: Text | None = _store("of the file of its state, to see that it changed", needed=True)
