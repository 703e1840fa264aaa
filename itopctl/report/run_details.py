"""One run in full: its config, attempts, metrics, history and layers, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from itopctl.catalogue import OWN_CODE, modules_named
from itopctl.errors import left_dense_in_words
from itopctl.report.fields import shown
from itopctl.report.number_text import NOTHING, number, percent, rate
from itopctl.report.quantity import MISSING, Quantity
from itopctl.report.table import Cell, Column, Record, Table
from itopctl.schema import Run, Source, fields_of

_EVALUATIONS_SHOWN = 12
_DIGITS = 4  # of what was measured


def run_tables(run: Record) -> list[Table]:
    """Tables of a run's details (`itopctl.store.queries.run_details`)."""
    tables = [_config(run), _attempts(run), _metrics(run), _history(run), _layers(run)]
    return [table for table in tables if table.rows]


def _config(run: Record) -> Table:
    config = run["config"]
    rows = []
    for name, value in config.items():
        for inner, inner_value in value.items() if isinstance(value, dict) else [("", value)]:
            if inner_value is not None:
                rows.append([Cell(f"{name}.{inner}" if inner else name), Cell(_plain(inner_value))])
    recorded = config.get("own_code") or {}
    for module in sorted(modules_named(config.values()) - set(recorded)):
        rows.append([Cell(f"{OWN_CODE}{module}"), Cell("not recorded")])
    return Table("Config", [Column("setting"), Column("value")], rows, [])


def _attempts(run: Record) -> Table:
    columns = [
        Column("attempt", "right"),
        *(Column(n) for n in ("where", "code", "started", "ended", "state", "cause", "message")),
    ]
    rows = [
        [
            Cell(Quantity.of(a["attempt"], "")),
            Cell(" ".join(str(a[n]) for n in ("scheduler", "job_id", "host") if a[n]) or NOTHING),
            Cell(attempt_code(a)), *(Cell(time_in_words(a[n])) for n in ("started_at", "ended_at")), Cell(a["state"]),
            Cell(a["cause"] or ""),
            Cell(a["message"] or ""),
        ]
        for a in run["attempt_history"]
    ]  # fmt: skip
    return Table("Attempts", columns, rows, [], _differences(run["attempt_history"]))


def attempt_code(attempt: Record) -> str:
    """Commit, with a plus where files differed from it; else the digest of the code."""
    commit = attempt.get("git_commit")
    return commit[:7] + "+" * bool(attempt.get("git_dirty")) if commit else attempt.get("code") or NOTHING


def _differences(attempts: Sequence[Record]) -> list[str]:
    """Sentences where what ran was not what was submitted, or not the same each time."""
    notes = [
        f"Attempt {a['attempt']} ran code {a['code']}, not {a['submitted_code']}, which was submitted."
        for a in attempts
        if a.get("submitted_code")
    ]
    digests = list(dict.fromkeys(a["code"] for a in attempts if a.get("code")))
    if len(digests) > 1:
        notes.append(f"The attempts ran different code: {', '.join(digests)}.")
    return notes


def _metrics(run: Record) -> Table:
    measured = [field for field in fields_of(Run).values() if field.source is Source.RESULT]
    pairs = [(field.meaning, _measured(run, field.name)) for field in measured]
    rows = [[Cell(meaning), Cell(value)] for meaning, value in pairs if value != MISSING]
    return Table("Metrics", [Column("metric"), Column("value", "right")], rows, [])


def _measured(run: Record, name: str) -> str | Quantity:
    return _left_dense(run) if name == "left_dense" else shown(name, run[name], _DIGITS)


def _left_dense(run: Record) -> str | Quantity:
    """Trained parameters of two or more dimensions without a mask, where a run had masks."""
    known = run["left_dense"] and run["trainable"] and run["sparsity"]
    return left_dense_in_words(run["left_dense"], run["trainable"]) if known else MISSING


def _history(run: Record) -> Table:
    evaluations = run["evaluations"]
    shown = evaluations[-_EVALUATIONS_SHOWN:]
    columns = [
        Column("after"), Column("step", "right"), Column("epoch", "right"), Column("loss", "right"),
        Column("validation %", "right"), Column("test %", "right"), Column("R_s", "right"), Column("ζ", "right"),
    ]  # fmt: skip
    rows = [
        [
            Cell(e["kind"]), Cell(Quantity.of(e["step"], "")), Cell(number(e["epoch"], 4)),
            Cell(number(e["train_loss"], 4)), Cell(percent(e["validation_accuracy"])),
            Cell(percent(e["test_accuracy"])), Cell(number(e["exploration_rate"], 4)), Cell(number(e["drop_fraction"])),
        ]
        for e in shown
    ]  # fmt: skip
    title = "History" + (f" (last {len(shown)} of {len(evaluations)})" if len(shown) < len(evaluations) else "")
    return Table(title, columns, rows, [])


def _layers(run: Record) -> Table:
    columns = [
        Column("layer"), Column("shape"), Column("weights", "right"), Column("active", "right"),
        Column("density", "right"), Column("R_s", "right"), Column("dropped", "right"), Column("computed"),
    ]  # fmt: skip
    rows = [
        [
            Cell(layer["name"]), Cell("×".join(map(str, layer["shape"]))), Cell(number(layer["size"])),
            Cell(number(layer["active"])), Cell(number(layer["density"], 4)), Cell(rate(layer["exploration_rate"])),
            Cell(number(layer["dropped"])), Cell(layer["backend"] or NOTHING),
        ]
        for layer in run["layers"]
    ]  # fmt: skip
    return Table("Layers", columns, rows, [])


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def time_in_words(stamp: str | None) -> str:
    """A time of the store as `2026-11-24 20:01:02`, in UTC."""
    return stamp[:19].replace("T", " ") if stamp else NOTHING
