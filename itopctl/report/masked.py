"""Sentences on runs of one model that had different numbers of maskable weights: of another version, or other code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from itopctl.errors import plural
from itopctl.report.table import Record

_WHY = "attention and recurrent layers are masked since, or the model was changed"


def changed_note(runs: str, masked: int, today: int) -> str:
    """A sentence on finished runs whose model has another number of maskable weights today.

    Args:
        runs: which they are.
        masked: maskable weights that they had.
        today: those of their model today.
    """
    return (
        f"{runs} had {masked:,} maskable weights where the model has {today:,} today ({_WHY}). The results stay; they "
        "are those of another sparse network."
    )


def unknown_note(run_id: str) -> str:
    """A sentence on a run that an older version of itopctl finished, with a model that may have such layers."""
    return (
        "An older version of itopctl made this run: attention and recurrent layers were neither masked nor counted. "
        f"`itopctl show {run_id} --trust` imports the model and says whether that changes anything."
    )


def mixed_notes(runs: Iterable[Record], masked: Mapping[str, int]) -> list[str]:
    """A sentence on each model of which the runs of a report had different numbers of maskable weights.

    Args:
        runs: with `run_id`, `model`, `dataset` and `settings`.
        masked: run id → maskable weights, where that is known.
    """
    found: dict[tuple[str, str, str], Counter[int]] = {}
    for run in runs:
        if run["run_id"] in masked:
            also = str(run["settings"].get("also_mask"))
            found.setdefault((run["model"], run["dataset"], also), Counter())[masked[run["run_id"]]] += 1
    notes = []
    for (model, dataset, _), counts in found.items():
        if len(counts) > 1:
            said = ", ".join(f"{plural(count, 'run')} had {size:,}" for size, count in counts.most_common())
            notes.append(f"{model} on {dataset}: {said} maskable weights ({_WHY}). They are different sparse networks.")
    return notes
