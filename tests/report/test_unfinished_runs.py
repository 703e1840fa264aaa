"""What is said of runs without a result: failed ones are told apart from those that are yet to come."""

from __future__ import annotations

from itopctl.report.claims import claims_tables
from itopctl.report.exploration_table import exploration_tables
from itopctl.report.figures.figure_data import Material
from itopctl.report.groups import studies, unfinished_in_words
from tests.report.records import run, unfinished


def test_failed_and_lost_runs_are_counted_and_named_and_the_others_are_not_finished() -> None:
    runs = [
        run(), unfinished("static", 0.9, 0, "failed"), unfinished("static", 0.9, 1, "failed"),
        unfinished("dense", 0.0, 0, "failed"), unfinished("set", 0.98, 0, "lost"),
        unfinished("set", 0.98, 1, "running"), unfinished("set", 0.98, 2),
    ]  # fmt: skip
    assert unfinished_in_words(runs) == (
        "3 runs failed (static at 90 %, dense); 1 run was lost (set at 98 %); 2 runs are not finished."
    )
    assert unfinished_in_words([run()]) == ""


def test_of_failures_in_many_places_a_few_are_named() -> None:
    runs = [unfinished("set", level / 100, 0, "failed") for level in range(90, 97)]
    assert unfinished_in_words(runs) == (
        "7 runs failed (set at 90 %, set at 91 %, set at 92 %, set at 93 % and 3 more)."
    )


def test_every_table_and_figure_says_that_runs_failed() -> None:
    runs = [run(), unfinished("set-itop", 0.9, 1, "failed")]
    (explored,) = exploration_tables(runs)
    assert "* 1 run failed (set-itop at 90 %)." in explored.notes
    (claims,) = claims_tables(runs)
    assert "Missing, since they did not succeed: 1 run failed (set-itop at 90 %)." in claims.notes
    assert Material(studies(runs[1:])).nothing_finished() == (
        "none of the runs is finished: 1 run failed (set-itop at 90 %)"
    )
    assert Material(studies([unfinished("set", 0.9, 0)])).nothing_finished() == "none of the runs is finished"
