"""The general table, by hand and against a slow reference that looks at every run for every cell."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itopctl.catalogue import METHODS
from itopctl.errors import UserError
from itopctl.report.fields import Fields
from itopctl.report.pivot import MOST_COLUMNS, Pivot, pivot_table
from itopctl.report.table import Record, Table
from tests.report.records import paper_runs, run, unfinished

FIELDS = Fields((
    "run_id", "state", "method", "model", "dataset", "sparsity", "density", "seed", "update_interval", "optimizer.lr",
    "test_accuracy", "exploration_rate", "test_accuracy_at_best_validation", "exploration_rate_at_best_validation",
    "train_flops_ratio", "wall_seconds", "peak_memory_bytes",
))  # fmt: skip


def lenet() -> list[Record]:
    return [found for found in paper_runs() if found["model"] == "lenet-5"]


def made(runs: list[Record], fields: Fields = FIELDS, **wanted: Any) -> Table:
    return pivot_table(runs, Pivot(**wanted), fields, METHODS.names())


def texts(table: Table) -> list[list[str]]:
    return [[f"{cell.text}|{cell.second}" if cell.second else cell.text for cell in row] for row in table.rows]


def test_without_rows_and_columns_it_is_laid_out_as_a_papers_table() -> None:
    table = made(lenet())
    assert [column.header for column in table.columns] == ["method", "dense", "sparsity 90 %", "sparsity 98 %"]
    assert texts(table) == [
        ["dense", "97.50 ± 0.71|R_s 1.00, n 2", "", ""],
        ["static", "", "–*", "60.00 ± 1.41|R_s 0.02, n 2"],
        ["set-itop|ΔT 10", "", "94.00 ± 0.00|R_s 0.80, n 2", "–*"],
        ["set-itop|ΔT 40", "", "95.00 ± 2.00|R_s 0.40, n 3", "80.00|R_s 0.10, n 1*"],
    ]
    assert not any("Averaged" in note for note in table.notes)


def test_rows_alone_have_a_column_for_each_field_of_the_cell() -> None:
    table = made(lenet(), rows=("method", "sparsity"), cells=("accuracy", "n", "train_flops_ratio"))
    assert [column.header for column in table.columns] == ["method", "sparsity", "test %", "n", "train FLOPs"]
    assert [column.align for column in table.columns] == ["left", "right", "right", "right", "right"]
    assert ["set-itop", "90 %", "94.60 ± 1.52", "5", "0.1×"] in texts(table)
    assert ["set-itop", "98 %", "80.00*", "1", "0.02×"] in texts(table)
    assert ["static", "90 %", "–*", "0", "–"] in texts(table)


def test_what_a_cell_averages_over_is_said_by_name_and_values() -> None:
    by_method = made(lenet(), rows=("method",))
    assert "Averaged over sparsity 90 %, 98 % (in 1 of 3 cells)." in by_method.notes
    assert "Averaged over update_interval 10, 40 (in 1 of 3 cells)." in by_method.notes
    (record,) = [record for record in by_method.records if record["method"] == "set-itop"]
    assert record["averaged_over"] == {"sparsity": [0.9, 0.98], "update_interval": [10, 40]}
    assert (record["runs"], record["runs_finished"], record["test_accuracy_n"]) == (8, 6, 6)


def test_the_seed_is_not_said_to_be_averaged_over_nor_what_only_unfinished_runs_differ_in() -> None:
    runs = [run(seed=0), run(seed=1), unfinished("set-itop", 0.9, 0, settings={"update_interval": 80})]
    (record,) = made(runs, rows=("method",)).records
    assert record["averaged_over"] == {}


def test_of_mixed_methods_the_rules_that_make_them_up_are_not_named_one_by_one() -> None:
    mixed = [
        run("set-itop", settings={"growth": "random", "drop_schedule.stop": 1.0, "optimizer.lr": 0.1}),
        run("rigl", settings={"growth": "gradient", "drop_schedule.stop": 0.75, "update_interval": 100}),
        run("static"),
    ]
    (record,) = made(mixed, rows=("sparsity",)).records
    assert record["averaged_over"] == {"method": ["rigl", "set-itop", "static"], "update_interval": [40, 100, None]}
    mine = [*mixed, run("rigl", seed=1, settings={"growth": "gradient", "drop_schedule.stop": 0.5})]
    assert made(mine, rows=("sparsity",)).records[0]["averaged_over"]["drop_schedule.stop"] == [0.5, 0.75, 1.0, None]


def test_rows_and_columns_may_be_any_fields_and_several() -> None:
    table = made(lenet(), rows=("sparsity",), columns=("method", "ΔT"), cells=("accuracy",))
    assert [c.header for c in table.columns] == ["sparsity", "dense", "static", "set-itop, ΔT 10", "set-itop, ΔT 40"]
    assert texts(table)[1] == ["90 %", "", "–*", "94.00 ± 0.00", "95.00 ± 2.00"]


def test_with_methods_as_columns_rows_are_whatever_else_varies() -> None:
    table = made(lenet(), columns=("method",))
    assert [column.header for column in table.columns] == ["sparsity", "dense", "static", "set-itop"]
    assert texts(table)[1] == ["90 %|ΔT 10", "", "", "94.00 ± 0.00|R_s 0.80, n 2"]
    alike = [run("set-itop"), run("rigl-itop")]
    assert [row[0] for row in texts(made(alike, columns=("method",)))] == ["90 %"]


def test_rows_are_in_the_order_asked_for_and_those_without_a_value_last() -> None:
    names = ("method", "sparsity", "ΔT")
    upwards = made(lenet(), rows=names, order=[("test_accuracy", False)])
    downwards = made(lenet(), rows=names, order=[("test_accuracy", True)])
    first = [row[3] for row in texts(upwards)]
    assert first == ["60.00 ± 1.41", "80.00*", "94.00 ± 0.00", "95.00 ± 2.00", "97.50 ± 0.71", "–*", "–*"]
    assert [row[3] for row in texts(downwards)] == [*first[4::-1], "–*", "–*"]


def test_validation_chooses_the_accuracy_and_the_rate_of_its_epoch() -> None:
    runs = [run(accuracy=0.5, test_accuracy_at_best_validation=0.75, exploration_rate_at_best_validation=0.3)]
    table = made(runs, Fields(FIELDS.names, "validation"))
    assert texts(table) == [["set-itop", "75.00|R_s 0.30, n 1"]]
    assert "R_s: exploration rate at the epoch with the best validation accuracy" in table.notes[0]
    both = made(runs, Fields(FIELDS.names, "validation"), rows=("method",), cells=("accuracy", "test_accuracy"))
    assert [column.header for column in both.columns[1:]] == ["test % at best validation", "test %"]
    assert "after the last step" in made(runs).notes[0]


def test_digits_are_those_of_the_deviation() -> None:
    assert texts(made(lenet(), rows=("method",), cells=("accuracy",), digits=1)) == [
        ["dense", "97.5 ± 0.7"], ["static", "60 ± 1*"], ["set-itop", "92 ± 6*"],
    ]  # fmt: skip


def test_a_field_that_not_every_finished_run_has_says_of_how_many_it_is() -> None:
    runs = [run(seed=0, wall_seconds=10.0), run(seed=1, wall_seconds=None), run(seed=2, wall_seconds=20.0)]
    assert texts(made(runs, rows=("method",), cells=("wall_seconds", "n"))) == [
        ["set-itop", "15 s ± 7.1 s (2 of 3)", "3"]
    ]


def test_values_that_differ_by_dust_alone_are_one() -> None:
    runs = [run(sparsity=0.9), run(sparsity=1 - 0.1, seed=1), run(sparsity=0.9 + 1e-15, seed=2)]
    assert len(made(runs, rows=("sparsity",)).rows) == len(made(runs).rows) == 1


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"rows": ("method",), "columns": ("method",)}, "method stands in both --rows and --columns"),
        ({"rows": ("ΔT",), "columns": ("update_interval",)}, "update_interval stands in both"),
        ({"cells": ("state",)}, "--cell: state is a text; a cell holds means of numbers"),
        ({"rows": ("mehtod",)}, "unknown field 'mehtod'. Did you mean 'method'?"),
        ({"cells": ("nn",)}, "unknown field 'nn'"),
    ],
)
def test_what_makes_no_table_is_refused(wanted: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words.replace("?", r"\?")):
        made(lenet(), **wanted)


def test_more_columns_than_anybody_reads_are_refused() -> None:
    runs = [run(seed=seed) for seed in range(MOST_COLUMNS + 1)]
    assert len(made(runs[1:], columns=("seed",)).columns) == MOST_COLUMNS + 1
    with pytest.raises(UserError, match="--columns seed: 101 columns; at most 100 are drawn"):
        made(runs, columns=("seed",))


def test_runs_that_do_not_say_what_they_are_are_left_out_and_none_make_an_empty_table() -> None:
    assert made([{**run(), "method": None}]).rows == made([]).rows == []


# Against a slow reference ---------------------------------------------------------------------------------------

AXES = ("method", "sparsity", "update_interval", "optimizer.lr", "seed")


@st.composite
def some_runs(draw: st.DrawFn) -> list[Record]:
    points = draw(st.lists(
        st.tuples(
            st.sampled_from(["set-itop", "rigl-itop", "static", "dense"]), st.sampled_from([0.0, 0.9, 0.95]),
            st.integers(0, 2), st.sampled_from([10, 40, None]), st.sampled_from([0.1, 0.05]),
            st.sampled_from(["done", "done", "failed"]), st.floats(0, 1),
        ),
        max_size=25, unique_by=lambda point: point[:5],
    ))  # fmt: skip
    return [
        {
            **run(method, sparsity, seed, settings={"update_interval": interval, "optimizer.lr": lr}),
            "state": state, "test_accuracy": accuracy if state == "done" else None,
        }
        for method, sparsity, seed, interval, lr, state, accuracy in points
    ]  # fmt: skip


@given(some_runs(), st.permutations(AXES), st.integers(1, 3), st.integers(0, 2))
@settings(max_examples=120, deadline=None)
def test_every_cell_is_the_mean_of_the_runs_that_fall_into_it(
    runs: list[Record], axes: list[str], rows: int, columns: int
) -> None:
    used = (*axes[:rows], *axes[rows : rows + columns])
    table = made(runs, rows=used[:rows], columns=used[rows:], cells=("accuracy", "n"))
    assert sum(record["runs"] for record in table.records) == len(runs)
    for record in table.records:
        members = [r for r in runs if all(r["settings"][name] == record[name] for name in used)]
        found = [r["test_accuracy"] for r in members if r["state"] == "done"]
        assert (record["runs"], record["runs_finished"], record["test_accuracy_n"]) == (
            len(members), len(found), len(found),
        )  # fmt: skip
        assert record["test_accuracy_mean"] == (pytest.approx(statistics.mean(found)) if found else None)
        assert record["test_accuracy_std"] == (pytest.approx(statistics.stdev(found)) if len(found) > 1 else None)
        finished = [r["settings"] for r in members if r["state"] == "done"]
        differing = {n for n in AXES if n != "seed" and len({s[n] for s in finished}) > 1}
        assert set(record["averaged_over"]) == differing
    assert all(len(row) == len(table.columns) for row in table.rows)


@given(some_runs())
@settings(max_examples=60, deadline=None)
def test_the_usual_rows_average_over_nothing_but_seeds(runs: list[Record]) -> None:
    assert all(record["averaged_over"] == {} for record in made(runs).records)
    assert all(record["averaged_over"] == {} for record in made(runs, columns=("update_interval",)).records)
