from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from itopctl.report.paper import paper_tables
from itopctl.report.table import Cell, Record, Table
from tests.report.records import paper_runs, run, unfinished
from tests.report.written import value_of


def table_of(runs: list[Record], order: tuple[str, ...] = ()) -> Table:
    (table,) = paper_tables(runs, order)
    return table


def labels(table: Table) -> list[str]:
    return [in_words(row[0]) for row in table.rows]


def in_words(place: Cell) -> str:
    """Both lines of a cell as one."""
    return f"{place.text}, {place.second}" if place.second else place.text


def headers(table: Table) -> list[str]:
    """Of all columns but those of FLOPs."""
    return [column.header for column in table.columns if not column.header.startswith("FLOPs")]


def without_flops(table: Table) -> list[list[str]]:
    kept = [index for index, column in enumerate(table.columns) if not column.header.startswith("FLOPs")]
    return [[in_words(row[index]) for index in kept] for row in table.rows]


def cell(table: Table, label: str, header: str) -> Cell:
    return table.rows[labels(table).index(label)][[column.header for column in table.columns].index(header)]


def best(table: Table) -> list[tuple[str, str]]:
    """(row, column) of every marked cell."""
    return [
        (in_words(row[0]), column.header)
        for row in table.rows
        for column, place in zip(table.columns, row, strict=True)
        if place.best
    ]


# Numbers ----------------------------------------------------------------------------------------------------


def test_a_cell_is_mean_deviation_and_number_of_seeds_with_the_exploration_rate() -> None:
    """0.93, 0.95, 0.97: mean 0.95, deviation √((0.0004 + 0 + 0.0004) / 2) = 0.02; rates 0.2, 0.3, 0.4: mean 0.3."""
    runs = [run(seed=n, accuracy=0.93 + 0.02 * n, exploration_rate=0.2 + 0.1 * n) for n in range(3)]
    table = table_of(runs)
    assert cell(table, "set-itop", "sparsity 90 %") == Cell(value_of("95.00 ± 2.00"), "R_s 0.30, n 3")
    (record,) = table.records
    assert record["test_accuracy_mean"] == pytest.approx(0.95)
    assert record["test_accuracy_std"] == pytest.approx(0.02)
    assert record["exploration_rate_mean"] == pytest.approx(0.3)
    assert record["exploration_rate_std"] == pytest.approx(0.1)
    assert (record["seeds"], record["seeds_finished"], record["density"]) == (3, 3, 0.1)
    assert record["train_flops_ratio"] == record["inference_flops_ratio"] == pytest.approx(0.1)


def test_one_seed_has_a_mean_and_no_deviation() -> None:
    table = table_of([run(accuracy=0.9123)])
    assert cell(table, "set-itop", "sparsity 90 %") == Cell(value_of("91.23"), "R_s 0.10, n 1")
    assert table.records[0]["test_accuracy_std"] is None


def test_a_record_has_the_accuracy_at_the_best_validation_too() -> None:
    table = table_of([run(seed=n, test_accuracy_at_best_validation=0.5 + 0.1 * n) for n in range(2)])
    assert table.records[0]["test_accuracy_at_best_validation_mean"] == pytest.approx(0.55)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.integers(0, 4))
def test_unfinished_seeds_change_the_mark_and_not_the_mean(accuracies: list[float], missing: int) -> None:
    done = [run(seed=n, accuracy=value) for n, value in enumerate(accuracies)]
    waiting = [unfinished("set-itop", 0.9, 100 + n) for n in range(missing)]
    (before,), (after,) = table_of(done).records, table_of([*waiting, *done]).records
    assert {k: v for k, v in before.items() if k != "seeds"} == {k: v for k, v in after.items() if k != "seeds"}
    marked = in_words(cell(table_of([*waiting, *done]), "set-itop", "sparsity 90 %")).endswith("*")
    assert marked == bool(missing)


# Rows and columns -------------------------------------------------------------------------------------------


def test_dense_is_on_top_and_methods_follow_in_the_order_given() -> None:
    runs = [run("set-itop"), run("zz-new"), run("rigl-itop"), run("static"), run("dense", 0.0), run("aa-new")]
    order = ("static", "set-itop", "rigl-itop", "dense")
    assert labels(table_of(runs, order)) == ["dense", "static", "set-itop", "rigl-itop", "aa-new", "zz-new"]


def test_columns_are_the_sparsities_from_none_to_most() -> None:
    runs = [run(sparsity=0.98), run(sparsity=0.9), run(sparsity=0.965), run("dense", 0.0)]
    table = table_of(runs)
    assert headers(table) == ["method", "dense", "sparsity 90 %", "sparsity 96.5 %", "sparsity 98 %"]
    assert [column.header for column in table.columns[2:4]] == ["sparsity 90 %", "FLOPs at 90 %"]


def test_there_is_no_dense_column_without_a_dense_run() -> None:
    assert headers(table_of([run()])) == ["method", "sparsity 90 %"]


def test_a_place_for_which_there_is_no_run_is_empty() -> None:
    table = table_of([run("dense", 0.0), run(sparsity=0.9)])
    assert cell(table, "dense", "sparsity 90 %") == Cell("") == cell(table, "set-itop", "dense")
    assert len(table.records) == 2


def test_each_data_set_and_model_has_its_own_table_in_the_order_of_the_runs() -> None:
    runs = [run(model="b"), run(dataset="mnist"), run(), run(model="b", seed=1)]
    assert [table.title for table in paper_tables(runs)] == ["b on digits", "lenet-5 on mnist", "lenet-5 on digits"]
    assert [table.records[0]["seeds"] for table in paper_tables(runs)] == [2, 1, 1]


def test_settings_that_differ_between_tables_do_not_name_rows() -> None:
    runs = [run(), run(dataset="mnist", settings={"optimizer.lr": 0.5})]
    assert [labels(table) for table in paper_tables(runs)] == [["set-itop"], ["set-itop"]]


# What varies ------------------------------------------------------------------------------------------------


def test_runs_with_different_update_intervals_are_rows_of_their_own_by_size() -> None:
    runs = [run(seed=n, settings={"update_interval": dt}) for dt in (1500, 500, 4000) for n in range(2)]
    table = table_of(runs)
    assert labels(table) == ["set-itop, ΔT 500", "set-itop, ΔT 1500", "set-itop, ΔT 4000"]
    assert [record["seeds"] for record in table.records] == [2, 2, 2]
    assert [record["settings"] for record in table.records] == [{"update_interval": dt} for dt in (500, 1500, 4000)]


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("optimizer.lr", [0.1, 0.05], ["set-itop, lr 0.05", "set-itop, lr 0.1"]),
        ("drop_fraction", [0.5, 0.3], ["set-itop, ζ 0.3", "set-itop, ζ 0.5"]),
        ("batch_size", [128, 64], ["set-itop, batch 64", "set-itop, batch 128"]),
        ("allocation", ["uniform", "erk"], ["set-itop, allocation erk", "set-itop, allocation uniform"]),
        ("update_replaces_step", [True, False], ["set-itop, update replaces step no",
                                                 "set-itop, update replaces step yes"]),
        ("optimizer.momentum", [0.9, None], ["set-itop, optimizer.momentum 0.9", "set-itop"]),
        ("lr_schedule.milestones", [[0.6], [0.5, 0.75]], ["set-itop, lr schedule.milestones 0.5/0.75",
                                                         "set-itop, lr schedule.milestones 0.6"]),
        ("epochs", [10, 4], ["set-itop, epochs 4", "set-itop, epochs 10"]),
    ],
)  # fmt: skip
def test_a_setting_that_varies_is_part_of_the_rows_name(name: str, values: list[Any], expected: list[str]) -> None:
    table = table_of([run(seed=seed, settings={name: value}) for value in values for seed in range(2)])
    assert labels(table) == expected


def test_an_empty_list_is_named_too() -> None:
    said = labels(table_of([run(settings={"keep_dense": value}) for value in (["fc"], [])]))
    assert sorted(said) == ["set-itop, keep dense fc", "set-itop, keep dense none"]


def test_two_settings_that_vary_are_both_named() -> None:
    runs = [run(settings={"update_interval": dt, "optimizer.lr": lr}) for dt in (10, 40) for lr in (0.1, 0.2)]
    assert labels(table_of(runs)) == [
        "set-itop, ΔT 10, lr 0.1", "set-itop, ΔT 10, lr 0.2", "set-itop, ΔT 40, lr 0.1", "set-itop, ΔT 40, lr 0.2",
    ]  # fmt: skip


def test_what_varies_in_one_method_does_not_name_the_rows_of_another() -> None:
    runs = [run(settings={"update_interval": 10}), run(), run("static")]
    assert labels(table_of(runs)) == ["set-itop, ΔT 10", "set-itop, ΔT 40", "static"]


def _identity(point: tuple[str, float, int, dict[str, Any]]) -> str:
    method, value, seed, settings = point
    return repr((method, value, seed, sorted(settings.items())))


SETTINGS = st.fixed_dictionaries(
    {
        "update_interval": st.sampled_from([10, 40]),
        "optimizer.lr": st.sampled_from([0.1, 0.2]),
        "lr_schedule.milestones": st.sampled_from([[0.5], [0.5, 0.75]]),
        "momentum": st.sampled_from([None, 0.9]),
    }
)
POINTS = st.lists(
    st.tuples(st.sampled_from(["set-itop", "rigl-itop"]), st.sampled_from([0.9, 0.95]), st.integers(0, 2), SETTINGS),
    min_size=1,
    max_size=12,
    unique_by=_identity,
)


@given(POINTS)
def test_nothing_but_the_seed_is_ever_averaged_over(points: list[tuple[str, float, int, dict[str, Any]]]) -> None:
    runs = [run(method, value, seed, settings=settings) for method, value, seed, settings in points]
    table = table_of(runs)
    groups: dict[str, int] = {}
    for method, value, _, settings in points:
        key = repr((method, value, sorted(settings.items())))
        groups[key] = groups.get(key, 0) + 1
    assert sorted(record["seeds"] for record in table.records) == sorted(groups.values())
    assert len(set(labels(table))) == len(labels(table))


# Marks ------------------------------------------------------------------------------------------------------


def test_the_best_sparse_cell_of_each_column_is_marked_and_the_dense_one_never() -> None:
    runs = [
        run("dense", 0.0, accuracy=0.99),
        run("static", 0.9, accuracy=0.90), run("static", 0.95, accuracy=0.89),
        run("set-itop", 0.9, accuracy=0.93), run("set-itop", 0.95, accuracy=0.88),
    ]  # fmt: skip
    table = table_of(runs)
    assert sorted(best(table)) == [("set-itop", "sparsity 90 %"), ("static", "sparsity 95 %")]
    assert [record["best"] for record in table.records].count(True) == 2
    assert "best" in table.best


def test_the_best_of_a_column_in_which_dense_wins_is_the_best_of_the_others() -> None:
    runs = [run(method, 0.0, accuracy=accuracy) for method, accuracy in [("dense", 0.99), ("a", 0.9), ("b", 0.95)]]
    assert best(table_of(runs)) == [("b", "dense")]


def test_a_column_with_a_single_sparse_method_has_no_best() -> None:
    table = table_of([run("dense", 0.0), run("set-itop", 0.9), unfinished("static", 0.9, 0)])
    assert best(table) == [] and not table.best


def test_the_best_is_by_mean_not_by_the_luckiest_seed() -> None:
    lucky = [run("static", seed=n, accuracy=value) for n, value in enumerate([0.99, 0.5])]
    steady = [run("set-itop", seed=n, accuracy=0.8) for n in range(2)]
    assert best(table_of([*lucky, *steady])) == [("set-itop", "sparsity 90 %")]


def test_methods_that_are_equally_good_are_all_marked() -> None:
    table = table_of([run("static", accuracy=0.9), run("set-itop", accuracy=0.9), run("rigl-itop", accuracy=0.8)])
    assert sorted(row for row, _ in best(table)) == ["set-itop", "static"]


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("queued", "* 1 run is not finished."), ("running", "* 1 run is not finished."),
        ("failed", "* 1 run failed (set-itop at 90 %)."), ("lost", "* 1 run was lost (set-itop at 90 %)."),
    ],
)  # fmt: skip
def test_a_cell_with_unfinished_seeds_is_marked_and_a_note_says_what_the_mark_means(state: str, said: str) -> None:
    table = table_of([run(accuracy=0.9), unfinished("set-itop", 0.9, 1, state)])
    assert in_words(cell(table, "set-itop", "sparsity 90 %")).endswith(", n 1*")
    assert [note for note in table.notes if note.startswith("* ")] == [said]
    assert (table.records[0]["seeds"], table.records[0]["seeds_finished"]) == (2, 1)


def test_a_cell_with_no_finished_run_is_a_marked_dash_and_a_record_without_numbers() -> None:
    table = table_of([unfinished("set-itop", 0.9, 0)])
    assert cell(table, "set-itop", "sparsity 90 %") == Cell("–*")
    (record,) = table.records
    assert (record["seeds"], record["seeds_finished"], record["best"]) == (1, 0, False)
    assert record["test_accuracy_mean"] is record["exploration_rate_mean"] is record["train_flops_ratio"] is None


def test_a_run_that_is_not_done_does_not_count_whatever_it_has_measured() -> None:
    table = table_of([run(accuracy=0.9), run(seed=1, accuracy=0.1, state="failed")])
    place = cell(table, "set-itop", "sparsity 90 %")
    assert (place.text, place.second[-4:]) == ("90.00", "n 1*")


def test_a_table_of_finished_runs_has_no_mark_and_no_note_of_it() -> None:
    table = table_of([run(), run("static")])
    assert not any(note.startswith("*") for note in table.notes)
    assert not any(in_words(place).endswith("*") for row in table.rows for place in row)


def test_the_small_study_has_the_numbers_worked_out_by_hand() -> None:
    lenet, mine = paper_tables(paper_runs(), ("static", "set-itop", "rigl-itop"))
    assert without_flops(lenet) == [
        ["dense", "97.50 ± 0.71, R_s 1.00, n 2", "", ""],
        ["static", "", "–*", "60.00 ± 1.41, R_s 0.02, n 2"],
        ["set-itop, ΔT 10", "", "94.00 ± 0.00, R_s 0.80, n 2", "–*"],
        ["set-itop, ΔT 40", "", "95.00 ± 2.00, R_s 0.40, n 3", "80.00, R_s 0.10, n 1*"],
    ]
    assert best(lenet) == [("set-itop, ΔT 40", "sparsity 90 %")]  # the other column has one complete cell
    assert mine.title == "my_models:big_{net} on cifar10"
    assert without_flops(mine) == [["rigl-itop", "50.00, R_s 0.25, n 1"]]


def test_what_comes_with_a_rule_is_not_named_beside_it() -> None:
    runs = [
        run("rigl", settings={"growth": growth, **own})
        for growth, own in [
            ("gradient", {"gradient_batches": 4}), ("momentum", {"momentum_decay": 0.9}),
            ("momentum", {"momentum_decay": 0.5}),
        ]
    ]  # fmt: skip
    assert labels(table_of(runs)) == [
        "rigl, growth gradient", "rigl, growth momentum, momentum decay 0.5",
        "rigl, growth momentum, momentum decay 0.9",
    ]  # fmt: skip
