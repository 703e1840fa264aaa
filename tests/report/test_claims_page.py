"""The table of claims as a person reads it.

The golden file is made anew by `python -m tests.report.test_claims_page`; read the difference before you keep it.
"""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from itopctl.report.formats import rich_tables
from itopctl.report.table import Record, Table
from tests.report.records import unfinished
from tests.report.test_claims import compared, group, study, table_of, whole

GOLDEN = Path(__file__).parent / "golden" / "claims.txt"


def small_study() -> list[Record]:
    """At 90 % accuracy grows with the interval, at 98 % there are two seeds; one method is not finished."""
    wiggle = [0.0, 0.002, -0.001, 0.001, -0.002]
    runs = group("dense", [0.95 + w for w in wiggle], 0.0, 1.0)
    runs += group("static", [0.93 - w for w in wiggle], 0.9, 0.1) + group("static", [0.60, 0.61], 0.98, 0.02)
    for place, (interval, rate) in enumerate([(50, 0.9), (200, 0.6), (800, 0.3), (1600, 0.2)]):
        accuracies = [0.94 + 0.004 * place + w * (1 + place) / 2 for w in wiggle]
        runs += group("set-itop", accuracies, 0.9, rate, update_interval=interval)
        runs += group("set-itop", [0.70, 0.72], 0.98, rate / 3, update_interval=interval)
    return [*runs, *(unfinished("rigl-itop", 0.9, seed) for seed in range(3))]


def text_of(table: Table, width: int = 100) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(rich_tables([table]))
    return out.getvalue()


def test_the_table_is_as_in_its_golden_file() -> None:
    assert text_of(table_of(small_study())) == GOLDEN.read_text(encoding="utf-8")


def test_a_terminal_of_a_hundred_columns_shows_verdicts_and_what_is_missing_whole() -> None:
    text = text_of(table_of(small_study()))
    assert max(map(len, text.splitlines())) <= 100
    for words in ("not enough runs │", "does not hold   │", "holds           │", " ≥ +1 seed │", "+97 groups │"):
        assert words in text
    assert "No room for: p (corrected)." in text


def test_accuracies_are_percentage_points_with_the_sign_of_the_claim() -> None:
    table = table_of([*group("static", [0.80, 0.90, 0.70]), *group("set-itop", [0.82, 0.93, 0.74])])
    (row,) = [row for row in table.rows if row[0].text == "set-itop" and row[2].text.startswith("+3")]
    assert [cell.text for cell in row[1:]] == [
        "90 %", "+3.00 [+0.52, +5.48]", "3", "0.035 (0.035)", "holds", "",
    ]  # fmt: skip


def test_every_row_is_a_record_in_the_same_order() -> None:
    table = table_of(study())
    assert len(table.rows) == len(table.records)
    assert [row[5].text for row in table.rows] == [record["verdict"] for record in table.records]


def test_a_claim_says_in_how_many_of_its_comparisons_it_holds() -> None:
    table = table_of(study(seeds=8))
    record = whole(table, 2)
    (row,) = [row for row in table.rows if row[0].text == "2 dynamic beats static"]
    assert record["comparisons_hold"] == len([r for r in compared(table, 2) if r["verdict"] == "holds"]) > 0
    assert row[0].second == f"{record['comparisons_hold']} of 8 hold, 0 do not, {8 - record['comparisons_hold']} open"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"margin": 0.01}, "above −1 points, so not worse than dense"),
        ({"margin": 0.0025}, "below +0.25 points, the least that counts"),
        ({"confidence": 0.9}, "a two-sided test at 10 %"),
        ({"best_by": "validation"}, "at the epoch with the best validation accuracy"),
        ({}, "test accuracy after the last step"),
        ({}, "at least 2.5 times the standard deviation"),
    ],
)
def test_the_notes_say_what_was_chosen(options: dict[str, float], words: str) -> None:
    assert any(words in note for note in table_of(study(), **options).notes)


if __name__ == "__main__":
    GOLDEN.write_text(text_of(table_of(small_study())), encoding="utf-8")
