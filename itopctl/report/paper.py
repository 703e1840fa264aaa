"""The table of a paper: methods against sparsities, mean ± standard deviation over seeds, with the exploration rate.

Below the rows of a method stand the published numbers of the same data set, model, method and sparsity, each source in
a row of its own: with the difference to one's own runs of the recipe nearest to it, and whether that is within the
noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from itopctl.report.fields import Fields, Order, ordered
from itopctl.report.groups import MEASURED_WHEN, Group, Kind, Study, measured_fields, studies, unfinished_in_words
from itopctl.report.number_text import NOTHING, mean_and_spread, rate, sparsity
from itopctl.report.published import Published, Source, compare, differences_in_words, published_for, sources_for
from itopctl.report.statistics import summary_fields
from itopctl.report.table import Cell, Column, Record, Table

UNFINISHED = "*"
_FLOPS_RANK = 2  # where a terminal is too narrow, these columns are left out, from the last on


def paper_tables(
    runs: Sequence[Record],
    method_order: Sequence[str] = (),
    best_by: str = "final",
    digits: int | None = None,
    order: Order = (),
) -> list[Table]:
    """One table for each data set and model, in the order of the runs.

    Args:
        runs: records as `itopctl.report.groups.studies` takes them, with `exploration_rate, train_flops_ratio,
            inference_flops_ratio`.
        method_order: methods in the order their rows should have; `dense` always comes first.
        best_by: which accuracy counts (`itopctl.report.groups.BEST_BY`).
        digits: significant digits of one's own standard deviations (`itopctl.report.number_text.plus_minus`).
        order: of the rows instead, by fields.
    """
    fields = Fields((), best_by)
    return [_Paper(ordered(study, order, fields), best_by, digits).table() for study in studies(runs, method_order)]


@dataclass
class _Paper:
    """The table of one study while it is made."""

    study: Study
    best_by: str
    digits: int | None = None
    sources: list[Source] = field(default_factory=list)  # in the order of their numbers
    notes: dict[str, None] = field(default_factory=dict)  # on published numbers, each once
    records: list[Record] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.accuracy, self.explored = measured_fields(self.best_by)
        self.published = published_for(self.study.dataset, self.study.model)

    def table(self) -> Table:
        study = self.study
        best = {value: _best_kinds(study, value, self.accuracy) for value in study.sparsities}
        rows: list[list[Cell]] = []
        last_of = {kind.method: kind for kind in study.kinds}
        for kind in study.kinds:
            rows.append([Cell(kind.method, kind.details), *self._cells_of(kind, best)])
            if kind == last_of[kind.method]:
                rows += self._published_rows(kind.method)
        columns = [Column("method")]
        for place, value in enumerate(study.sparsities):
            columns.append(Column(f"sparsity {sparsity(value)}" if value else "dense", "right"))
            if value:
                columns.append(Column(f"FLOPs at {sparsity(value)}", "right", rank=_FLOPS_RANK + place))
        mark = "best sparse method of its column." if any(best.values()) else ""
        return Table(study.title, columns, rows, self.records, self._all_notes(), mark)

    def _cells_of(self, kind: Kind, best: dict[float, list[Kind]]) -> list[Cell]:
        cells = []
        for value in self.study.sparsities:
            group = self.study.group(kind, value)
            cells.append(self._cell(group, kind in best[value]))
            if value:
                cells.append(Cell("") if group is None else _flops(group))
            if group is not None:
                self.records.append(self._record(group, kind in best[value]))
        return cells

    def _cell(self, group: Group | None, best: bool) -> Cell:
        if group is None:
            return Cell("")
        mark = "" if group.complete else UNFINISHED
        accuracy, explored = group.summary(self.accuracy), group.summary(self.explored)
        if accuracy is None or explored is None:
            return Cell(NOTHING + mark)
        second = f"R_s {rate(explored.mean)}, n {accuracy.n}{mark}"
        return Cell(mean_and_spread(accuracy.mean, accuracy.std, self.digits), second, best)

    def _record(self, group: Group, best: bool) -> Record:
        record = {**self.study.about(group), "best": best}
        measured = (
            "test_accuracy",
            "test_accuracy_at_best_validation",
            "exploration_rate",
            self.accuracy,
            self.explored,
        )
        for name in dict.fromkeys(measured):
            record |= summary_fields(name, group.summary(name))
        for name in ("train_flops_ratio", "inference_flops_ratio"):
            summary = group.summary(name)
            record[name] = summary.mean if summary else None
        return record

    # Published numbers ------------------------------------------------------------------------------------------

    def _published_rows(self, method: str) -> list[list[Cell]]:
        """A row for each source and variant that has numbers for a method at a sparsity of one's own runs."""
        wanted = {group.sparsity for group in self.study.groups if group.kind.method == method}
        lines: dict[tuple[Source, tuple[tuple[str, object], ...]], dict[float, Published]] = {}
        for result in self.published:
            if result.method == method and result.sparsity in wanted:
                lines.setdefault((result.source, result.variant), {})[result.sparsity] = result
        rows = []
        for (source, _), results in lines.items():
            label = Cell(method, ", ".join([*_variant_in_words(results), f"published {self._number(source)}"]))
            cells = [
                cell for value in self.study.sparsities for cell in self._published_cells(results.get(value), value)
            ]
            rows.append([label, *cells])
        return rows

    def _published_cells(self, result: Published | None, value: float) -> list[Cell]:
        if result is None:
            return [Cell("")] * (2 if value else 1)
        groups = [g for g in self.study.groups if g.sparsity == value and g.kind.method == result.method]
        nearest = result.nearest(groups)
        ours = nearest.summary(self.accuracy)
        comparison = compare(ours, result) if ours else None
        differing = result.differing(nearest)
        if differing:
            which = f"{nearest.kind.label} at {sparsity(value)}" if value else nearest.kind.label
            self.notes[f"[{self.sources.index(result.source) + 1}] and {which}: {differences_in_words(differing)}."] = (
                None
            )
        parts = [] if result.exploration_rate is None else [f"R_s {rate(result.exploration_rate)}"]
        if comparison is not None:
            verdict = {True: ", within noise", False: ", beyond noise", None: ""}[comparison.within_noise]
            parts.append(f"ours {100 * comparison.difference:+.2f}{verdict}")
        self.records.append({
            "dataset": self.study.dataset, "model": self.study.model, "method": result.method,
            "settings": dict(result.variant), "sparsity": value, "density": round(1.0 - value, 12),
            "seeds": result.source.seeds, "test_accuracy_mean": result.accuracy, "test_accuracy_std": result.std,
            "exploration_rate_mean": result.exploration_rate, "train_flops_ratio": result.train_flops_ratio,
            "inference_flops_ratio": result.inference_flops_ratio, "published": True, "source": result.source.id,
            "cite": result.source.cite, "secondary": result.source.secondary,
            "compared_with": dict(nearest.kind.settings) if comparison else None,
            "difference": comparison.difference if comparison else None,
            "within_noise": comparison.within_noise if comparison else None,
            "recipe_differences": {name: list(pair) for name, pair in differing.items()},
        })  # fmt: skip
        cell = Cell(mean_and_spread(result.accuracy, result.std), "; ".join(parts), style="italic")
        ratios = result.train_flops_ratio, result.inference_flops_ratio
        return [cell, _ratios(*ratios)] if value else [cell]

    def _number(self, source: Source) -> str:
        if source not in self.sources:
            self.sources.append(source)
        return f"[{self.sources.index(source) + 1}]"

    # Notes ------------------------------------------------------------------------------------------------------

    def _all_notes(self) -> list[str]:
        notes = [
            f"Test accuracy in % {MEASURED_WHEN[self.best_by]}: mean ± standard deviation over n seeds; R_s: "
            "exploration rate then; FLOPs: of training, and of inference below it, relative to dense."
        ]
        unfinished = unfinished_in_words(run for group in self.study.groups for run in group.runs)
        if unfinished:
            notes.append(f"{UNFINISHED} {unfinished}")
        if self.sources:
            notes.append(
                "Ours: the difference to our runs with the nearest recipe, in points; within noise: at most twice the "
                "root of the sum of both variances."
            )
        for number, source in enumerate(self.sources, 1):
            how = "secondary transcription: read in another project, not in the work itself" if source.secondary else ""
            how = "; ".join(filter(None, [how, "" if source.seeds is None else f"n {source.seeds}"]))
            notes.append(
                " ".join(filter(None, [f"[{number}] {source.cite}{f' ({how})' if how else ''}.", source.remark]))
            )
        notes += self.notes
        for source in sources_for(self.study.dataset, self.study.model):
            if source not in self.sources and source.remark and not any(r.source == source for r in self.published):
                notes.append(f"{source.cite}: {source.remark}")
        return notes


def _best_kinds(study: Study, value: float, accuracy: str) -> list[Kind]:
    """The sparse kinds with the highest mean of a column, where at least two have all their seeds finished."""
    means = {}
    for group in study.groups:
        if group.sparsity == value and group.complete and group.kind.method != "dense":
            summary = group.summary(accuracy)
            if summary:
                means[group.kind] = summary.mean
    highest = max(means.values(), default=0.0)
    return [kind for kind, mean in means.items() if mean == highest] if len(means) > 1 else []


def _flops(group: Group) -> Cell:
    training, inference = group.summary("train_flops_ratio"), group.summary("inference_flops_ratio")
    return _ratios(training.mean if training else None, inference.mean if inference else None)


def _ratios(training: float | None, inference: float | None) -> Cell:
    if training is None and inference is None:
        return Cell("")
    return Cell(rate(training, "×"), str(rate(inference, "×")))


def _variant_in_words(results: dict[float, Published]) -> list[str]:
    settings = next(iter(results.values())).settings
    training = settings["training_multiplier"]
    return [
        *([settings["allocation"]] if "allocation" in settings else []),
        *([f"{training:g}× training"] * (training != 1)),
    ]
