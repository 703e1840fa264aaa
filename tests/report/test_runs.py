from __future__ import annotations

import pytest

from itopctl.report.runs import runs_table, state_cell
from itopctl.store.queries import RUN_COLUMNS
from tests.report.records import store_runs


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
