from __future__ import annotations

import pytest

from itopctl.report.cost import cost_tables
from itopctl.report.table import Table
from tests.report.records import run, unfinished


def cells(table: Table, row: int = 0) -> dict[str, str]:
    return {column.header: cell.text for column, cell in zip(table.columns, table.rows[row], strict=True)}


def test_a_row_says_what_its_runs_cost_and_what_was_had_for_it() -> None:
    """95 % for 0.2 TFLOP (the mean of 0.1 and 0.3): 475 points per TFLOP."""
    runs = [run(seed=n, train_flops=(1 + 2 * n) * 1e11, wall_seconds=10.0 + 20 * n) for n in range(2)]
    (table,) = cost_tables(runs)
    assert cells(table) == {
        "method": "set-itop", "sparsity": "90 %", "test %": "95.00 ± 0.00", "time": "20 s", "speed": "–",
        "training FLOPs": "200 G", "of dense": "0.10×", "inference FLOPs": "100 k", "memory": "100 MB",
        "points per TFLOP": "475", "device": "a CPU",
    }  # fmt: skip
    assert table.records[0]["accuracy_points_per_teraflop"] == pytest.approx(475)


def test_energy_has_a_column_where_a_device_tells_it() -> None:
    (table,) = cost_tables([run(energy_joules=3000.0), run("static")])
    by_method = {row[0].text: row for row in table.rows}
    place = [column.header for column in table.columns].index("energy")
    assert (by_method["set-itop"][place].text, by_method["static"][place].text) == ("3 kJ", "–")
    assert any("whole device" in note for note in table.notes)


def test_speed_is_relative_to_dense_runs_under_the_same_circumstances() -> None:
    """300 steps a second against 100 and 200: twice as fast."""
    runs = [
        run("dense", seed=0, steps_per_second=100.0), run("dense", seed=1, steps_per_second=200.0),
        run(steps_per_second=300.0), run("static", steps_per_second=300.0, threads=2),
    ]  # fmt: skip
    (table,) = cost_tables(runs)
    place = [column.header for column in table.columns].index("speed")
    assert {row[0].text: row[place].text for row in table.rows} == {
        "dense": "1.00×", "set-itop": "2.00×", "static": "–"
    }  # fmt: skip
    assert table.records[0]["speed_up"] == pytest.approx(1.0)


def test_runs_on_several_devices_name_all_of_them() -> None:
    (table,) = cost_tables([run(), run(seed=1, device_name="another")])
    assert cells(table)["device"] == "a CPU, another"


def test_runs_of_old_that_did_not_record_costs_have_dashes() -> None:
    old = dict.fromkeys(("train_flops", "inference_flops", "device_name", "energy_joules"))
    (table,) = cost_tables([run(**old)])
    row = cells(table)
    assert row["training FLOPs"] == row["points per TFLOP"] == row["device"] == "–"


def test_what_is_not_finished_cost_nothing_yet() -> None:
    assert cost_tables([unfinished("set-itop", 0.9, 0)]) == []
