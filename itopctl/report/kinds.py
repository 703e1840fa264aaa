"""The tables that can be made: one entry each, in `TABLES`.

An entry says what the table is, what it needs of each run, which options mean something for it, and who makes it. The
maker imports what it needs when it is called: the help must not wait for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from itopctl.report.fields import Fields
    from itopctl.report.table import Table

Record = dict[str, Any]


@dataclass(frozen=True)
class Wish:
    """How a table is wanted. Names of fields are resolved.

    Attributes:
        fields: what names of fields may be.
        methods: in the order in which their rows stand.
        best_by: which accuracy counts, `final` or `validation`.
        digits: significant digits, or None for the usual ones.
        order: fields that rows are sorted by, the first first, each with whether the largest comes first.
        rows, columns, cells: names of fields; empty where not given.
        apart: fields that are the same in all runs of the table, since there is one for each value.
        several: whether runs come from several stores.
        margin: accuracy, as a fraction, by which two may differ and count as equal; None: the usual.
        confidence: of intervals, as a fraction; None: the usual.
    """

    fields: Fields
    methods: Sequence[str]
    best_by: str = "final"
    digits: int | None = None
    order: Sequence[tuple[str, bool]] = ()
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    several: bool = False
    margin: float | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class TableKind:
    """A table that can be asked for.

    Attributes:
        summary: what it shows, for the help.
        make: runs that are of one group, and the wish → tables.
        columns: fields of a run's record that it reads; None: all.
        settings: whether it reads settings.
        takes: arguments that mean something for it; those that all tables take are not among them.
        group_by: fields for each value of which there is a table, unless `--group-by` says otherwise.
        by_study: whether there is a table for each data set and model in any case.
        further: records beside the run's own that it reads, of `itopctl.api.sources.FURTHER`.
        may_be_empty: whether no runs make an empty table, rather than an error.
    """

    summary: str
    make: Callable[[list[Record], Wish], list[Table]]
    columns: tuple[str, ...] | None
    settings: bool = True
    takes: frozenset[str] = frozenset()
    group_by: tuple[str, ...] = ()
    by_study: bool = False
    further: tuple[str, ...] = ()
    may_be_empty: bool = False


STUDY_COLUMNS = (
    "dataset", "model", "method", "sparsity", "seed", "state", "test_accuracy", "test_accuracy_at_best_validation",
    "exploration_rate", "exploration_rate_at_best_validation",
)  # fmt: skip
"""What `itopctl.report.groups.studies` reads of a run, and which accuracies it may be asked for."""

COSTS = (
    "wall_seconds", "steps_per_second", "train_flops", "train_flops_ratio", "inference_flops", "inference_flops_ratio",
    "peak_memory_bytes", "energy_joules",
)  # fmt: skip
"""What of a run the table of costs averages."""


def _paper(runs: list[Record], wish: Wish) -> list[Table]:
    from itopctl.report.paper import paper_tables

    return paper_tables(runs, wish.methods, wish.best_by, wish.digits, wish.order)


def _exploration(runs: list[Record], wish: Wish) -> list[Table]:
    from itopctl.report.exploration_table import exploration_tables

    return exploration_tables(runs, wish.methods, wish.best_by, wish.digits, wish.order)


def _claims(runs: list[Record], wish: Wish) -> list[Table]:
    from itopctl.report.claims import claims_tables

    return claims_tables(runs, wish.methods, wish.best_by, wish.margin, wish.confidence)


def _layers(runs: list[Record], wish: Wish) -> list[Table]:
    from itopctl.report.layers import layer_tables

    return layer_tables(runs, {run["run_id"]: run["layers"] for run in runs}, wish.methods)


def _cost(runs: list[Record], wish: Wish) -> list[Table]:
    from itopctl.report.cost import cost_tables

    return cost_tables(runs, wish.methods, wish.best_by, wish.digits, wish.order)


def _runs(runs: list[Record], wish: Wish) -> list[Table]:
    from itopctl.report.fields import in_order
    from itopctl.report.runs import runs_table

    in_their_order = in_order(runs, wish.order, wish.fields, lambda run: [run])
    if not wish.several and "results" not in wish.columns:
        in_their_order = [{n: value for n, value in run.items() if n != "results"} for run in in_their_order]
    return [
        runs_table(in_their_order, columns=wish.columns, best_by=wish.best_by, digits=wish.digits, origins=wish.several)
    ]


def _pivot(runs: list[Record], wish: Wish) -> list[Table]:
    from itopctl.report.pivot import USUAL_CELLS, Pivot, pivot_table

    cells = wish.cells or USUAL_CELLS
    pivot = Pivot(wish.rows, wish.columns, cells, wish.order, wish.digits, wish.apart)
    return [pivot_table(runs, pivot, wish.fields, wish.methods)]


TABLES: dict[str, TableKind] = {
    "paper": TableKind(
        "methods against sparsities, beside published numbers",
        _paper,
        (*STUDY_COLUMNS, "train_flops_ratio", "inference_flops_ratio"),
        takes=frozenset({"sort", "best_by", "digits"}),
        by_study=True,
    ),
    "exploration": TableKind(
        "accuracy and R_s against update interval, sparsity and growth, beside predictions",
        _exploration,
        (*STUDY_COLUMNS, "growth", "update_interval", "topology_updates"),
        takes=frozenset({"sort", "best_by", "digits"}),
        by_study=True,
        further=("prediction",),
    ),
    "claims": TableKind(
        "the paper's claims, tested on these runs",
        _claims,
        (*STUDY_COLUMNS, "steps"),
        takes=frozenset({"best_by", "margin", "confidence"}),
        by_study=True,
    ),
    "layers": TableKind(
        "shape, density, R_s and drops of each layer",
        _layers,
        STUDY_COLUMNS,
        by_study=True,
        further=("layers",),
    ),
    "cost": TableKind(
        "time, speed beside dense, FLOPs, memory, energy, and accuracy for it",
        _cost,
        (*STUDY_COLUMNS, *COSTS, "device_name", "threads"),
        takes=frozenset({"sort", "best_by", "digits"}),
        by_study=True,
    ),
    "runs": TableKind(
        "one row a run",
        _runs,
        None,
        takes=frozenset({"columns", "sort", "best_by", "digits"}),
        may_be_empty=True,
    ),
    "pivot": TableKind(
        "any fields as --rows and --columns, means of any in a --cell",
        _pivot,
        STUDY_COLUMNS,
        takes=frozenset({"rows", "columns", "cell", "sort", "best_by", "digits"}),
        group_by=("dataset", "model"),
    ),
}
"""Name → table, in the order of the help. Another one is an entry more."""

PAGE = TableKind(
    "everything on one page (`itopctl.api.page`)",
    lambda runs, wish: [],
    None,
    takes=frozenset({"best_by"}),
    by_study=True,
    further=("prediction",),
)
"""What `--format html` makes where no table is asked for: not a table, but it needs runs like one."""
