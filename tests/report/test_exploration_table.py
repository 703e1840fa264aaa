from __future__ import annotations

import pytest

from itopctl.report.exploration_table import exploration_tables
from itopctl.report.table import Record, Table
from tests.report.records import run, unfinished


def table_of(*runs: Record, best_by: str = "final") -> Table:
    (table,) = exploration_tables(runs, best_by=best_by)
    return table


def column(table: Table, header: str) -> list[str]:
    index = [column.header for column in table.columns].index(header)
    return [row[index].text for row in table.rows]


def interval(steps: int, seed: int = 0, sparsity: float = 0.9, **changed: object) -> Record:
    return run("set-itop", sparsity, seed, settings={"update_interval": steps}, **changed)


def test_rows_are_by_sparsity_growth_and_interval() -> None:
    runs = [interval(40, sparsity=0.98), interval(40), interval(10), run("rigl-itop"), run("static"), run("dense", 0.0)]
    table = table_of(*runs)
    assert column(table, "sparsity") == ["90 %", "90 %", "90 %", "90 %", "98 %"]
    assert column(table, "growth") == ["–", "gradient", "random", "random", "random"]
    assert column(table, "ΔT") == ["–", "40", "10", "40", "40"]


def test_a_row_is_the_mean_of_its_seeds_beside_what_was_predicted() -> None:
    rates = (0.40, 0.42, 0.41)
    runs = [
        interval(40, seed, accuracy=0.93 + 0.02 * seed, exploration_rate=value, predicted_exploration_rate=0.415,
                 prediction="expected")
        for seed, value in enumerate(rates)
    ]  # fmt: skip
    table = table_of(*runs)
    assert column(table, "test %") == ["95.00 ± 2.00"]
    assert (column(table, "R_s"), column(table, "predicted"), column(table, "n")) == (["0.41"], ["0.41"], ["3"])
    (record,) = table.records
    assert record["largest_difference"] == pytest.approx(0.015)
    assert any("differs from it by more than 0.015" in note for note in table.notes)


def test_an_upper_estimate_is_marked_and_not_counted_as_a_difference() -> None:
    table = table_of(run("rigl-itop", exploration_rate=0.3, predicted_exploration_rate=0.9, prediction="upper"))
    assert column(table, "predicted") == ["≤ 0.90"]
    assert not any("differs" in note for note in table.notes)
    assert any("upper estimate" in note for note in table.notes)


def test_without_a_prediction_there_is_a_dash() -> None:
    assert column(table_of(interval(40)), "predicted") == ["–"]


def test_the_accuracy_at_the_best_validation_comes_with_the_rate_of_that_step() -> None:
    measured = {"test_accuracy_at_best_validation": 0.9, "exploration_rate_at_best_validation": 0.2}
    table = table_of(interval(40, accuracy=0.8, exploration_rate=0.3) | measured, best_by="validation")
    assert (column(table, "test %"), column(table, "R_s")) == (["90.00"], ["0.20"])


def test_unfinished_seeds_are_marked() -> None:
    table = table_of(interval(40), unfinished("set-itop", 0.9, 1))
    assert column(table, "n") == ["1*"]
    assert any(note.startswith("*") for note in table.notes)


def test_what_else_varies_has_a_column_of_its_own() -> None:
    table = table_of(interval(40), run(settings={"optimizer.lr": 0.5}))
    assert column(table, "settings") == ["lr 0.1", "lr 0.5"]


def test_there_is_no_table_without_a_sparse_run() -> None:
    assert exploration_tables([run("dense", 0.0)]) == []
