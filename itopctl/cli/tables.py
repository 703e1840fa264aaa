"""Plans, failures and sweeps as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from itopctl.config.run_config import flat_settings, varying_within
from itopctl.report.conditions import is_number
from itopctl.report.number_text import NOTHING, duration, number, sparsity
from itopctl.report.quantity import MISSING, Quantity
from itopctl.report.runs import state_cell
from itopctl.report.table import Cell, Column, Record, Table

if TYPE_CHECKING:
    from itopctl.plan import Plan


_SHOWN_STATES = ("total", "done", "running", "pending", "queued", "failed", "lost")
_ROWS_SHOWN = 200  # of a plan, to a person


def plan_table(plan: Plan) -> Table:
    """The runs a plan would start, with the settings that differ among the runs of a method."""
    configs = plan.configs
    states = dict.fromkeys(plan.new, "new") | dict.fromkeys(plan.failed, "failed")
    flat = {run_id: flat_settings(configs[run_id].model_dump(mode="json")) for run_id in plan.to_run}
    named = ("dataset", "model", "method", "sparsity", "seed")
    shown = list(dict.fromkeys([*named, *varying_within(flat.values(), "method")]))
    columns = [Column("run"), Column("state"), *(Column(name, _alignment(name)) for name in shown)]
    rows = [
        [Cell(run_id), Cell(states[run_id]), *(Cell(_shown(name, values.get(name))) for name in shown)]
        for run_id, values in flat.items()
    ]
    records: list[Record] = [
        {"run_id": run_id, "state": states[run_id], "config": configs[run_id].model_dump(mode="json")}
        for run_id in flat
    ]
    hidden = len(rows) - _ROWS_SHOWN
    notes = [f"… and {hidden:,} more; --format csv or json lists them all."] if hidden > 0 else []
    return Table(f"{len(rows):,} to run", columns, rows[:_ROWS_SHOWN], records, notes)


def _alignment(name: str) -> Literal["left", "right"]:
    return "left" if name in ("dataset", "model", "method") else "right"


def latest_failures(failed: Sequence[Record], count: int) -> Table:
    """Some failed runs, each with its cause and the last that it printed (`log`).

    Args:
        failed: those to show.
        count: how many there are.
    """
    columns = [Column("run"), Column("state"), Column("why"), Column("last line of its log")]
    rows = [
        [
            Cell(run["run_id"]), state_cell(run["state"], run["cause"]), Cell(run["message"] or ""),
            Cell(next((line for line in reversed((run["log"] or "").splitlines()) if line.strip()), NOTHING)),
        ]
        for run in failed
    ]  # fmt: skip
    hidden = count - len(failed)
    notes = ["`itopctl show RUN` has the last lines of its log; `itopctl retry --cause CAUSE` tries runs again."]
    notes += [f"… and {hidden:,} more: itopctl status --state failed --state lost"] * (hidden > 0)
    return Table("Failed and lost", columns, rows, failed, notes)


def failures_table(failed: Sequence[Record], again: bool = False) -> Table:
    """Failed runs with their causes; `again`: those that would be tried again."""
    columns = [
        Column("run"), Column("state"), Column("method"), Column("sparsity", "right"), Column("ΔT", "right"),
        Column("seed", "right"), Column("why"),
    ]  # fmt: skip
    rows = [
        [
            Cell(run["run_id"]), state_cell(run["state"], run["cause"]), Cell(run["method"]),
            Cell(sparsity(run["sparsity"])), Cell(number(run["update_interval"])), Cell(number(run["seed"])),
            Cell(run["message"] or ""),
        ]
        for run in failed
    ]  # fmt: skip
    how = "this command without --dry-run" if again else "the same sweep command"
    notes = (f"`itopctl logs RUN` shows what happened; {how} tries them again.",)
    return Table("To try again" if again else "Failed", columns, rows, failed, notes)


def sweeps_table(summaries: Sequence[Record]) -> Table:
    """Per sweep: runs by state, and the time left."""
    states = [name for name in _SHOWN_STATES if name != "pending" or any(row["pending"] for row in summaries)]
    columns = [Column("sweep"), *(Column(state, "right") for state in states), Column("time left", "right")]
    rows = []
    for row in summaries:
        cells = [Cell(number(row[state] or None), style=_count_style(state, row)) for state in states]
        rows.append([Cell(row["sweep"]), *cells, Cell(duration(row["seconds_left"]))])
    return Table("", columns, rows, summaries)


def _count_style(state: str, row: Record) -> str:
    if state in ("failed", "lost") and row[state]:
        return "red"
    return "green" if state == "done" and row["done"] == row["total"] else ""


def _shown(name: str, value: Any) -> str | Quantity:
    if value is None:
        return MISSING
    if name == "sparsity":
        return sparsity(value)
    if isinstance(value, list):
        return "/".join(f"{item:g}" if isinstance(item, float) else str(item) for item in value)
    return Quantity.of(value, "g" if isinstance(value, float) else "") if is_number(value) else str(value)
