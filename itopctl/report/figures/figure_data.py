"""What figures are made from: studies, their averaged histories, and published points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from itopctl.errors import EnvironmentUnfitError
from itopctl.report.groups import ENDED_BADLY, Group, Study, unfinished_in_words
from itopctl.report.published import published_for
from itopctl.report.table import Record


@dataclass(frozen=True)
class PublishedPoint:
    """An accuracy that somebody published.

    Attributes:
        method, sparsity: of what.
        accuracy: as a fraction.
        std: its standard deviation, where one was published.
        label: the source, as the legend names it: short.
        dataset, model: the study it belongs to; None: every one.
    """

    method: str
    sparsity: float
    accuracy: float
    std: float | None
    label: str
    dataset: str | None = None
    model: str | None = None

    def belongs_to(self, study: Study) -> bool:
        return self.dataset in (None, study.dataset) and self.model in (None, study.model)


def published_points(studies: Sequence[Study]) -> list[PublishedPoint]:
    """What was published about the data sets and models of studies: of their methods, within their sparsities."""
    return [
        PublishedPoint(found.method, found.sparsity, found.accuracy, found.std, found.label, study.dataset, study.model)
        for study in studies
        for found in published_for(study.dataset, study.model)
        if found.method in {kind.method for kind in study.kinds}
        and min(study.sparsities) <= found.sparsity <= max(study.sparsities)
    ]


@dataclass(frozen=True)
class Material:
    """Everything that any figure may need.

    Attributes:
        studies: what to draw.
        best_by: which accuracy and exploration rate of a run count (`itopctl.report.groups.BEST_BY`).
        published: points to show beside one's own.
        curves, layers: per group, in the order of `groups`, what `itopctl.store.histories.mean_curves` and
            `mean_layers` say of the runs of `run_ids`; empty where the figure needs none.
    """

    studies: Sequence[Study]
    best_by: str = "final"
    published: Sequence[PublishedPoint] = ()
    curves: Sequence[Sequence[Record]] = ()
    layers: Sequence[Sequence[Record]] = ()

    def groups(self) -> Iterator[tuple[Study, Group]]:
        """Every group with its study, in order."""
        for study in self.studies:
            for group in study.groups:
                yield study, group

    def run_ids(self) -> list[list[str]]:
        """Per group, the ids of its finished runs."""
        return [[run["run_id"] for run in group.finished] for _, group in self.groups()]

    def nothing_finished(self) -> str:
        """Why there is nothing to draw, where no run has a result: the runs that failed are named."""
        runs = [run for _, group in self.groups() for run in group.runs if run["state"] in ENDED_BADLY]
        return "none of the runs is finished" + (f": {unfinished_in_words(runs).rstrip('.')}" if runs else "")


def identity(study: Study, group: Group) -> Record:
    """The first fields of a figure's record: what it is about."""
    return {
        "dataset": study.dataset, "model": study.model, "method": group.kind.method, "details": group.kind.details,
        "sparsity": group.sparsity,
    }  # fmt: skip


def nothing(figure: str, why: str) -> EnvironmentUnfitError:
    """The error of a figure that would be empty."""
    return EnvironmentUnfitError(f"there is nothing to draw in the figure {figure!r} yet: {why}.")
