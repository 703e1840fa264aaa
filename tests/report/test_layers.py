from __future__ import annotations

from typing import Any

from itopctl.report.layers import layer_tables
from tests.report.records import run, unfinished


def layer(name: str = "fc.weight", **changed: Any) -> dict[str, Any]:
    return {
        "name": name, "shape": [10, 84], "size": 840, "active": 84, "density": 0.1, "exploration_rate": 0.5,
        "dropped": 168, **changed,
    }  # fmt: skip


def test_a_layer_is_the_mean_over_the_seeds_of_a_group() -> None:
    runs = [run(seed=seed) for seed in range(2)]
    layers = {
        runs[0]["run_id"]: [layer("conv.weight", shape=[6, 1, 5, 5]), layer(exploration_rate=0.4, dropped=100)],
        runs[1]["run_id"]: [layer("conv.weight", shape=[6, 1, 5, 5]), layer(exploration_rate=0.6, dropped=236)],
    }
    (table,) = layer_tables(runs, layers)
    assert table.title == "lenet-5 on digits: set-itop at sparsity 90 %"
    assert [cell.text for cell in table.rows[0]][:2] == ["conv.weight", "6×1×5×5"]
    assert [cell.text for cell in table.rows[1]] == ["fc.weight", "10×84", "840", "84", "0.1", "0.50", "168", "2"]
    assert table.records[1]["dropped"] == 168 and table.records[1]["position"] == 1


def test_groups_have_tables_of_their_own_and_unfinished_ones_none() -> None:
    done, dense, waiting = run(), run("dense", 0.0), unfinished("set-itop", 0.98, 0)
    layers = {record["run_id"]: [layer()] for record in (done, dense, waiting)}
    tables = layer_tables([waiting, done, dense], layers)
    assert [table.title.partition(": ")[2] for table in tables] == ["dense", "set-itop at sparsity 90 %"]


def test_results_of_old_that_did_not_count_drops_have_a_dash() -> None:
    (table,) = layer_tables([run()], {run()["run_id"]: [layer(dropped=None)]})
    assert [cell.text for cell in table.rows[0]][-2:] == ["–", "–"]
