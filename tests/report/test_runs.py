from __future__ import annotations

import pytest

from itopctl.report.runs import runs_table, state_cell
from itopctl.report.table import Table
from itopctl.store.queries import RUN_COLUMNS
from tests.report.records import run, store_runs


def test_a_row_shows_what_a_run_is_and_what_it_measured() -> None:
    row = runs_table(store_runs()).rows[0]
    assert [cell.text for cell in row] == [
        "0123456789ab", "done", "digits", "lenet-5", "set-itop", "96.5 %", "1,500", "0", "97.31", "97.00", "0.31",
        "0.12×", "1 h 02 min",
    ]  # fmt: skip


def test_what_is_not_known_yet_is_a_dash() -> None:
    row = runs_table(store_runs()).rows[1]
    assert [cell.text for cell in row][8:] == ["–", "–", "–", "–", "–"]


def test_the_records_are_the_runs_as_they_came() -> None:
    runs = store_runs()
    assert runs_table(runs).records == runs


def test_every_row_has_a_cell_for_every_column() -> None:
    table = runs_table(store_runs(), "Runs")
    assert table.title == "Runs" and len(table.rows) == 4
    assert {len(row) for row in table.rows} == {len(table.columns)}


def test_a_run_of_which_nothing_but_its_id_is_known_has_a_row_too() -> None:
    nothing = dict.fromkeys(RUN_COLUMNS) | {"run_id": "0123456789ab", "state": "queued"}
    texts = [cell.text for cell in runs_table([nothing]).rows[0]]
    assert texts == ["0123456789ab", "queued", *["–"] * 11]


@pytest.mark.parametrize(
    ("state", "cause", "text"),
    [
        ("done", "finished", "done"), ("lost", "lost", "lost"), ("failed", "out-of-memory", "failed: out-of-memory"),
        ("queued", "cancelled", "queued: cancelled"), ("running", None, "running"),
    ],
)  # fmt: skip
def test_a_state_has_its_cause_beside_it_where_that_says_more(state: str, cause: str | None, text: str) -> None:
    assert state_cell(state, cause).text == text


def test_good_and_bad_states_differ_in_colour_for_terminals() -> None:
    assert state_cell("done").style != state_cell("failed").style == state_cell("lost").style


def headers(table: Table) -> list[str]:
    return [column.header for column in table.columns]


def test_the_accuracy_that_counts_comes_first_with_the_rate_of_its_step() -> None:
    runs = [{**store_runs()[0], "exploration_rate_at_best_validation": 0.25}]
    final, validation = runs_table(runs), runs_table(runs, best_by="validation")
    assert [headers(final).index(name) < headers(final).index("R_s") for name in ("test %",)] == [True]
    assert headers(validation)[6:9] == ["test % at best validation", "test %", "R_s"]
    assert [cell.text for cell in validation.rows[0]][6:9] == ["97.00", "97.31", "0.25"]
    assert validation.columns[6].rank == 0 < validation.columns[7].rank
    assert "best validation" in validation.notes[0] and not final.notes


def test_the_fields_asked_for_are_the_columns_and_the_records() -> None:
    runs = [run(seed=seed, run_id=f"{seed:012x}") for seed in range(2)]
    table = runs_table(runs, columns=("seed", "optimizer.lr", "lr_schedule.milestones", "test_accuracy", "state"))
    assert headers(table) == ["seed", "lr", "lr schedule.milestones", "test %", "state"]
    assert [column.align for column in table.columns] == ["right", "right", "left", "right", "left"]
    assert [cell.text for cell in table.rows[1]] == ["1", "0.1", "0.5/0.75", "95.00", "done"]
    assert table.records[1] == {
        "seed": 1, "optimizer.lr": 0.1, "lr_schedule.milestones": "0.5/0.75", "test_accuracy": 0.95, "state": "done",
    }  # fmt: skip


def test_settings_are_in_the_records_and_those_that_vary_have_columns() -> None:
    runs = [{**found, "method": "set", "settings": {"optimizer.lr": 0.1 * n}} for n, found in enumerate(store_runs())]
    table = runs_table(runs)
    assert [record["settings"] for record in table.records] == [run["settings"] for run in runs]
    place = headers(table).index("lr")
    assert [row[place].text for row in table.rows] == ["0", "0.1", "0.2", "0.3"]
    alike = [{**run, "settings": {"optimizer.lr": 0.1}} for run in runs]
    assert "lr" not in headers(runs_table(alike)) and "lr" not in headers(runs_table(store_runs()))


def test_a_narrow_terminal_leaves_out_costs_before_what_tells_runs_apart() -> None:
    runs = [{**found, "method": "set", "settings": {"epochs": 10 + n, "optimizer.lr": 0.1 * n}}
            for n, found in enumerate(store_runs())]  # fmt: skip
    ranked = sorted((column.rank, column.header) for column in runs_table(runs).columns if column.rank)
    order = [header for _, header in ranked]
    assert set(order[-3:]) == {"time", "train FLOPs", next(name for name in order[-3:] if "best" in name)}
    assert {"epochs", "lr"} <= set(order[:-3])


def test_where_runs_come_from_is_shown_where_it_matters() -> None:
    runs = [{**found, "results": "/mine"} for found in store_runs()]
    assert headers(runs_table(runs, origins=True))[2] == "results"
    assert runs_table(runs, origins=True).rows[0][2].text == "/mine"
    assert "results" not in headers(runs_table(runs))


def test_what_was_measured_has_the_digits_asked_for() -> None:
    texts = [cell.text for cell in runs_table(store_runs(), digits=3).rows[0]]
    assert texts[8:12] == ["97.3", "97.0", "0.314", "0.120×"]
    assert texts[5:8] == ["96.5 %", "1,500", "0"]
