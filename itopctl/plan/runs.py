"""The runs of some specs against what is known of them, by what is to be done with each.

Pure: it starts nothing, writes nothing, and does not know how jobs are started.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from itopctl.config.expand import Expansion
from itopctl.config.run_config import RunConfig
from itopctl.config.sweep import SweepSpec
from itopctl.errors import plural


@dataclass(frozen=True)
class PlannedSweep:
    """One spec and the runs it asks for.

    Attributes:
        accepted: module of the user's own → versions of it that were declared to be the same (`versions.py`).
        notes: sentences on runs by other versions of the user's own code.
        overrides: settings for every run in place of what the spec says, as `KEY=VALUE`.
    """

    spec: SweepSpec
    expansion: Expansion
    accepted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The runs of one command, by what is to be done with them; each run id is in one of the five.

    Attributes:
        new: never finished and at nobody's hands: to be run (interrupted ones go on).
        failed: failed or lost before: to be run again.
        pending: waiting at a scheduler: left alone.
        running: some process is at it: left alone.
        done: finished: left alone.
        duplicates: points of the specs that are the same run as another point.
        notes: sentences for a person, such as which settings mean nothing for a method.
        warnings: of what is hardly wanted, such as an interval longer than training.
    """

    sweeps: tuple[PlannedSweep, ...]
    new: tuple[str, ...]
    failed: tuple[str, ...]
    pending: tuple[str, ...]
    running: tuple[str, ...]
    done: tuple[str, ...]
    duplicates: int
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def configs(self) -> dict[str, RunConfig]:
        """Every run of the plan."""
        return {run_id: config for sweep in self.sweeps for run_id, config in sweep.expansion.runs.items()}

    @property
    def to_run(self) -> tuple[str, ...]:
        """What carrying out the plan would run: first what never ran, then what failed, in the order of the specs."""
        return (*self.new, *self.failed)

    @property
    def counts(self) -> dict[str, int]:
        """Numbers by kind, duplicates included; `pending` only where something waits at a scheduler."""
        kinds = {kind: len(getattr(self, kind)) for kind in ("new", "done", "pending", "running", "failed")}
        if not self.pending:
            del kinds["pending"]
        return {**kinds, "duplicate": self.duplicates}

    @property
    def summary(self) -> str:
        """Numbers by kind in a sentence."""
        return "Plan: " + ", ".join(f"{count:,} {kind}" for kind, count in self.counts.items()) + "."


def make_plan(sweeps: Sequence[PlannedSweep], states: Mapping[str, str]) -> Plan:
    """Plan some sweeps.

    Args:
        sweeps: specs with their expansions.
        states: run id → state (`itopctl.store.STATES`) of the runs that are known.
    """
    kinds: dict[str, list[str]] = {"new": [], "failed": [], "pending": [], "running": [], "done": []}
    kind_of = {"pending": "pending", "running": "running", "done": "done", "failed": "failed", "lost": "failed"}
    runs = list(dict.fromkeys(run_id for sweep in sweeps for run_id in sweep.expansion.runs))
    for run_id in runs:
        kinds[kind_of.get(states.get(run_id, "queued"), "new")].append(run_id)
    points = sum(sweep.expansion.points for sweep in sweeps)
    return Plan(
        sweeps=tuple(sweeps),
        duplicates=points - len(runs),
        notes=tuple(note for sweep in sweeps for note in _notes(sweep)),
        warnings=tuple(warning for sweep in sweeps for warning in sweep.expansion.warnings),
        **{kind: tuple(ids) for kind, ids in kinds.items()},
    )


def _notes(sweep: PlannedSweep) -> list[str]:
    name, expansion = sweep.spec.name, sweep.expansion
    notes = []
    for (reason, settings), count in expansion.ignored.items():
        verb, them = ("mean", "them") if len(settings) > 1 else ("means", "it")
        notes.append(f"{name}: {', '.join(settings)} {verb} nothing for {reason} ({count:,} of its points set {them})")
    for reach, intervals in expansion.solved.items():
        found = f"{intervals[0]:,}" + (f" to {intervals[-1]:,}" if len(intervals) > 1 else "")
        notes.append(f"{name}: update_interval {{reach: {reach:g}}} is {found} steps")
    if expansion.duplicates:
        notes.append(f"{name}: {expansion.points:,} points are {len(expansion.runs):,} different runs")
    if expansion.excluded:
        notes.append(f"{name}: {plural(expansion.excluded, 'point')} left out by exclude")
    return [*notes, *sweep.notes]
