"""`itopctl report`: its options, on a finished sweep and on several results folders."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from itopctl.api import sources
from itopctl.cli import app
from itopctl.report import kinds
from itopctl.store.queries import RUN_COLUMNS
from tests.cli.desk import Done
from tests.conftest import FinishedSweep
from tests.helpers import itopctl
from tests.store.builders import Lab, run_id

Type = Callable[..., Done]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Type:
    """Type `itopctl report …` in this process."""

    def report(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["itopctl", "report", *map(str, arguments)])
        capsys.readouterr()
        try:
            code = app.run()
        except SystemExit as end:
            code = int(end.code or 0)
        return Done(code, *capsys.readouterr())

    return report


@pytest.fixture
def report(typed: Type, finished_sweep: FinishedSweep) -> Type:
    """The same of the finished sweep."""
    return lambda *arguments: typed(*arguments, "--results", finished_sweep.results)


def told(done: Done) -> list[dict[str, Any]]:
    assert done.code == 0, done.err
    found: list[dict[str, Any]] = json.loads(done.out)
    return found


def rows(done: Done) -> list[list[str]]:
    """Cells of a markdown table."""
    assert done.code == 0, done.err
    lines = [line for line in done.out.splitlines() if line.startswith("|")]
    return [[cell.strip().replace("*", "") for cell in line.strip("|").split("|")] for line in lines[2:]]


# Which runs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conditions", "count"),
    [
        (["sparsity>=90% and method in (set-itop, rigl-itop)"], 4),
        (["sparsity>=90%", "method in (set-itop, rigl-itop)"], 4),
        (["update_interval = 5 and seed = 1"], 4),
        (["lr_schedule.name ~ * and optimizer.lr > 0 and seed = 0"], 7),
        (["method = dense or drop_schedule.final = 0.005"], 10),
        (["growth is none"], 6),
        (["density <= 10%", "not method = static"], 4),
        (["redistribution = 'none' and method ~ *-itop"], 8),
        (["state != done"], 0),
        (["results ~ '*results'"], 14),
    ],
)
def test_conditions_on_fields_and_settings_choose_runs(report: Type, conditions: list[str], count: int) -> None:
    options = [word for condition in conditions for word in ("--where", condition)]
    found = told(report("-t", "runs", "--json", *options))
    assert len(found) == count
    assert all(list(run) == [*RUN_COLUMNS, "settings"] for run in found)


def test_a_condition_changes_what_a_paper_table_is_made_of(report: Type) -> None:
    cells = told(report("--json", "-w", "seed = 1 and method != static"))
    assert {cell["method"] for cell in cells} == {"dense", "set-itop", "rigl-itop"}
    assert all(cell["seeds"] == 1 for cell in cells)


def test_where_no_run_is_such_a_table_says_so_and_a_list_is_empty(report: Type) -> None:
    none = report("-w", "method = set-itpo")
    assert (none.code, none.out) == (2, "")
    assert "no run has method 'set-itpo'. Did you mean 'set-itop'?" in none.err
    assert "--where: none of 14 runs is such." in none.err
    listed = report("-w", "method = set-itpo", "-t", "runs", "--json")
    assert told(listed) == [] and "Did you mean 'set-itop'?" in listed.err


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("sparcity >= 0.9", "Did you mean 'sparsity'? Allowed: accuracy, R_s"),
        ("sparsity >= high", "sparsity is a number, 'high' is a text."),
        ("device = cpu", "unknown field 'device'"),
        ("__import__('os').system('true')", "expected after '__import__', found '('."),
        ("(" * 20_000, "at most 60 parentheses"),
    ],
)
def test_a_wrong_condition_is_exit_2_with_its_place_marked(report: Type, condition: str, words: str) -> None:
    wrong = report("--where", condition)
    assert (wrong.code, wrong.out) == (2, "")
    sentence, _, mark = wrong.err.rstrip("\n").split("\n")
    assert sentence.startswith("itopctl: --where: ") and words in sentence
    assert set(mark) == {" ", "^"}


# What is shown --------------------------------------------------------------------------------------------------


def test_rows_columns_and_cells_make_a_table_of_means(report: Type) -> None:
    runs = told(report("-t", "runs", "--json"))
    options = ("--rows", "method,sparsity", "--cell", "accuracy,train_flops_ratio,n")
    records = told(report(*options, "--json"))
    assert len(records) == 7
    for record in records:
        members = [r for r in runs if (r["method"], r["sparsity"]) == (record["method"], record["sparsity"])]
        for field in ("test_accuracy", "train_flops_ratio"):
            assert record[f"{field}_mean"] == pytest.approx(statistics.mean(r[field] for r in members))
            assert record[f"{field}_std"] == pytest.approx(statistics.stdev(r[field] for r in members))
        assert record["runs"] == record["runs_finished"] == record["test_accuracy_n"] == 2
        assert record["averaged_over"] == {}
        assert (record["dataset"], record["model"]) == ("digits", "lenet-300-100")
    assert [row[:2] + row[4:] for row in rows(report(*options, "-f", "markdown"))][:2] == [
        ["dense", "0 %", "2"], ["static", "80 %", "2"],
    ]  # fmt: skip


def test_what_is_averaged_over_is_said(report: Type) -> None:
    shown = report("--rows", "method", "--columns", "dataset")
    assert "Averaged over sparsity 80 %, 90 % (in 3 of 4 cells)." in shown.out
    mixed = report("--rows", "sparsity", "-w", "method ~ *-itop")
    assert "Averaged over method rigl-itop, set-itop." in mixed.out


def test_columns_of_runs_are_the_fields_shown(report: Type) -> None:
    options = (
        "-t",
        "runs",
        "--columns",
        "run_id,method,lr,lr_schedule.milestones,accuracy",
        "--sort",
        "-accuracy,method",
    )
    found = told(report(*options, "--json"))
    assert list(found[0]) == ["run_id", "method", "optimizer.lr", "lr_schedule.milestones", "test_accuracy"]
    assert [run["test_accuracy"] for run in found] == sorted((run["test_accuracy"] for run in found), reverse=True)
    assert "lr_schedule.milestones" in next(csv.reader(io.StringIO(report(*options, "-f", "csv").out)))
    assert "0.5/0.75" in report(*options).out


@pytest.mark.parametrize("table", [(), ("--rows", "method,sparsity"), ("--columns", "sparsity")])
def test_rows_are_sorted_by_means_either_way(report: Type, table: tuple[str, ...]) -> None:
    up = [row[0] for row in rows(report(*table, "--sort", "accuracy", "-f", "markdown"))]
    down = [row[0] for row in rows(report(*table, "--sort", "-accuracy", "-f", "markdown"))]
    assert down[0] == up[-1] == "dense" and down == up[::-1]
    by_name = [row[0] for row in rows(report(*table, "--sort", "method", "-f", "markdown"))]
    assert by_name == sorted(by_name)


def test_the_accuracy_at_the_best_validation_can_be_what_counts(report: Type) -> None:
    runs = told(report("-t", "runs", "--json", "-w", "method = dense"))
    mean = statistics.mean(run["test_accuracy_at_best_validation"] for run in runs)
    for options in ((), ("--rows", "method")):
        shown = report(*options, "--best-by", "validation", "-w", "method = dense", "-f", "markdown")
        assert rows(shown)[0][1].startswith(f"{100 * mean:.2f}")
        assert "at the epoch with the best validation accuracy" in shown.out
    (record,) = told(report("--best-by", "validation", "-w", "method = dense", "--json"))
    assert record["exploration_rate_at_best_validation_mean"] == 1.0
    columns = report("-t", "runs", "--best-by", "validation", "-f", "markdown").out.splitlines()[2]
    assert columns.index("test % at best validation") < columns.index("test % |")


def test_digits_are_significant_ones_of_deviations_and_in_runs_of_what_was_measured(report: Type) -> None:
    for options in ((), ("--rows", "method")):
        cell = rows(report(*options, "--digits", "1", "-w", "method = dense", "-f", "markdown"))[0][1].split(",")[0]
        _, spread = cell.split(" ± ")
        assert len(spread.replace(".", "").strip("0")) == 1
    shown = rows(report("-t", "runs", "--columns", "accuracy,exploration_rate,seed", "--digits", "3", "-f", "markdown"))
    assert all(len(cell.replace(".", "").lstrip("0")) == 3 for row in shown for cell in row[:2])
    assert {row[2] for row in shown} == {"0", "1"}


def test_there_is_a_table_for_each_value_of_a_group(report: Type) -> None:
    shown = report("--group-by", "seed,optimizer.lr")
    assert "lenet-300-100 on digits, seed 0, lr 0.1" in shown.out
    assert "lenet-300-100 on digits, seed 1, lr 0.1" in shown.out
    assert {cell["seed"] for cell in told(report("--group-by", "seed", "--json"))} == {0, 1}
    runs = report("-t", "runs", "--group-by", "method", "-f", "markdown").out
    assert [line for line in runs.splitlines() if line.startswith("**")] == [
        f"**lenet-300-100 on digits, {method}**" for method in ("set-itop", "rigl-itop", "static", "dense")
    ]
    one = report("--rows", "method", "--group-by", "none", "-f", "markdown")
    assert "**" not in one.out and len(rows(one)) == 4
    pivoted = report("--rows", "model", "-f", "markdown").out  # the model is a row, so it is no group
    assert pivoted.startswith("**digits**")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ("--table", "paper", "--rows", "method"),
            "--rows means nothing for --table paper; it goes with --table pivot.",
        ),
        (("-t", "runs", "--cell", "accuracy"), "--cell means nothing for --table runs"),
        (("--margin", "1"), "--margin means nothing for --table paper"),
        (("--rows", "sparcity"), "--rows: unknown field 'sparcity'. Did you mean 'sparsity'?"),
        (("--columns", "sparcity"), "--columns: unknown field 'sparcity'."),
        (("--cell", "acuracy"), "--cell: unknown field 'acuracy'. Did you mean 'accuracy'?"),
        (("--cell", "state"), "--cell: state is a text; a cell holds means of numbers."),
        (("--sort", "-acuracy"), "--sort: unknown field 'acuracy'."),
        (("--group-by", "sede"), "--group-by: unknown field 'sede'. Did you mean 'seed'?"),
        (("--group-by", "none"), "--group-by none: there is a table for each data set and model in any case"),
        (("--rows", "seed", "--group-by", "seed"), "seed stands in both --group-by and --rows."),
        (("--best-by", "valid"), "--best-by: unknown accuracy 'valid'. Did you mean 'validation'?"),
        (("--digits", "0"), "--digits: 0 is not allowed; from 1 to 10."),
        (("nothing",), "unknown sweep 'nothing'. Allowed: trial."),
    ],
)
def test_an_option_that_makes_no_sense_is_exit_2_with_one_sentence(
    report: Type, options: tuple[str, ...], words: str
) -> None:
    wrong = report(*options)
    assert (wrong.code, wrong.out) == (2, "")
    assert words in wrong.err and wrong.err.count("\n") == 1


def test_the_help_says_what_every_option_does(typed: Type) -> None:
    shown = typed("--help").out
    for word in (
        "--where",
        "--rows",
        "--columns",
        "--cell",
        "--sort",
        "--group-by",
        "--best-by",
        "--digits",
        "Default:",
    ):
        assert word in shown
    for name in kinds.TABLES:
        assert f"{name}:" in shown


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("itopctl report --rows method,opt", ["method,optimizer.name", "method,optimizer.lr"]),
        ("itopctl report --sort acc", ["accuracy"]),
        ("itopctl report --table pi", ["pivot"]),
        ("itopctl report --best-by v", ["validation"]),
    ],
)
def test_the_shell_completes_tables_and_names_of_fields(words: str, expected: list[str]) -> None:
    done = itopctl(_ITOPCTL_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD="3")
    assert done.stdout.split()[: len(expected)] == expected


def test_a_table_that_needs_more_of_each_run_gets_it(report: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    kind = dataclasses.replace(
        kinds.TABLES["paper"], make=lambda runs, wish: seen.extend(runs) or [], further=("lengths",)
    )
    monkeypatch.setitem(kinds.TABLES, "more", kind)

    def lengths(store: object, runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return {run["run_id"]: {"length": len(run["config"]["dataset"])} for run in runs[1:]}

    monkeypatch.setitem(sources.FURTHER, "lengths", lengths)
    assert report("-t", "more").code == 0
    assert [run.get("length") for run in seen] == [None, *[6] * 13]
    assert "config" not in seen[0] and seen[0]["settings"]["dataset"] == "digits"


@pytest.mark.parametrize(("table", "count"), [("exploration", 6), ("cost", 7), ("layers", 21)])
def test_further_tables_are_made_of_the_same_runs(report: Type, table: str, count: int) -> None:
    assert len(told(report("-t", table, "--json"))) == count
    assert len(told(report("-t", table, "--json", "-w", "method = set-itop"))) == {"layers": 6}.get(table, 2)
    if table != "layers":
        down = told(report("-t", table, "--json", "--sort", "-accuracy", "--best-by", "validation"))
        means = [record["test_accuracy_mean"] for record in down]
        assert means == sorted(means, reverse=True)
        assert report("-t", table, "--digits", "1").code == 0


def test_speed_is_beside_that_of_dense_runs(report: Type) -> None:
    records = json.loads(report("-t", "cost", "--format", "json").out)
    speeds = {record["method"]: record["speed_up"] for record in records}
    assert speeds["dense"] == pytest.approx(1.0)
    assert all(speed > 0 for speed in speeds.values())


def test_predicted_rates_stand_beside_measured_ones(report: Type) -> None:
    records = told(report("-t", "exploration", "--json"))
    kinds = {record["method"]: record["prediction"] for record in records}
    assert kinds == {"set-itop": "expected", "rigl-itop": "upper", "static": "expected"}
    random = [record for record in records if record["method"] == "set-itop"]
    assert len(random) == 2
    for record in random:
        assert record["exploration_rate_mean"] == pytest.approx(record["predicted_exploration_rate"], abs=0.02)
        assert record["largest_difference"] < 0.02


def test_claims_are_tested_with_the_margin_and_confidence_given(report: Type) -> None:
    usual = told(report("-t", "claims", "--json"))
    assert usual and all("verdict" in record for record in usual)
    assert told(report("-t", "claims", "--json", "--margin", "0.5", "--confidence", "0.95")) == usual
    assert told(report("-t", "claims", "--json", "--margin", "20", "--confidence", "0.6")) != usual


def test_html_is_a_page_of_everything_or_a_table_that_is_named(report: Type, tmp_path: Path) -> None:
    assert report("-o", tmp_path / "all.html", "-w", "method != static").code == 0
    page = (tmp_path / "all.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "set-itop" in page and "Exploration" in page
    assert report("-o", tmp_path / "one.html", "-t", "runs").code == 0
    assert len((tmp_path / "one.html").read_text()) < len(page)
    assert "rigl-itop" in report("--format", "html", "--rows", "method").out
    for option in (("--sort", "method"), ("--digits", "2"), ("--group-by", "seed")):
        wrong = report("--format", "html", *option)
        assert wrong.code == 2 and "means nothing for the page; name a --table" in wrong.err


# Several stores -------------------------------------------------------------------------------------------------

FIRST, SECOND, THIRD = map(run_id, (1, 2, 3))


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders: one run is in both, finished in the second alone; each has one of its own."""
    for name, own in (("mine", FIRST), ("yours", THIRD)):
        lab = Lab.at(tmp_path / name)
        lab.done(own, {"test_accuracy": 0.5}, seed=int(own, 16))
        if name == "mine":
            lab.begun(SECOND, seed=2)
        else:
            lab.done(SECOND, {"test_accuracy": 0.75}, seed=2)
        lab.sweep(f"sweep-{name}", {id_: {} for id_ in (own, SECOND)})
        lab.store.close()
    return tmp_path / "mine", tmp_path / "yours"


def test_the_runs_of_several_folders_are_reported_together(typed: Type, two: tuple[Path, Path]) -> None:
    mine, yours = two
    done = typed("-t", "runs", "--json", "--results", mine, "--results", yours)
    found = {run["run_id"]: run for run in told(done)}
    assert sorted(found) == [FIRST, SECOND, THIRD]
    assert [found[i]["results"] for i in (FIRST, SECOND, THIRD)] == [str(mine), str(yours), str(yours)]
    assert (found[SECOND]["state"], found[SECOND]["test_accuracy"]) == ("done", 0.75)
    assert found[SECOND]["sweep"] == "sweep-mine,sweep-yours"
    assert "1 run found in several places, counted once." in done.err
    shown = typed("-t", "runs", "--results", yours, "--results", mine)
    assert "results" in shown.out and "1 run found in several places, counted once." in shown.out
    (cell,) = told(typed("--json", "--results", mine, "--results", yours))
    assert (cell["seeds"], cell["seeds_finished"]) == (3, 3)


def test_where_a_run_comes_from_is_a_field_like_any_other(typed: Type, two: tuple[Path, Path]) -> None:
    both = [word for folder in two for word in ("--results", str(folder))]
    assert len(told(typed("-t", "runs", "--json", "-w", "results ~ '*/yours'", *both))) == 2
    grouped = typed("--group-by", "results", "-f", "markdown", *both).out
    assert [grouped.count(f"**lenet-5 on digits, results {folder}**") for folder in two] == [1, 1]
    records = told(typed("--rows", "results", "--json", *both))
    assert {Path(record["results"]).name: record["runs"] for record in records} == {"mine": 1, "yours": 2}
    alone = told(typed("-t", "runs", "--json", "--results", two[0]))
    assert "results" not in alone[0]


def test_a_page_can_be_of_several_folders(typed: Type, two: tuple[Path, Path], tmp_path: Path) -> None:
    both = [word for folder in two for word in ("--results", str(folder))]
    done = typed("-o", tmp_path / "page.html", *both)
    assert done.code == 0, done.err
    assert all(run in (tmp_path / "page.html").read_text() for run in (FIRST, SECOND, THIRD))


def test_a_sweep_may_be_in_any_of_the_stores(typed: Type, two: tuple[Path, Path]) -> None:
    both = [word for folder in two for word in ("--results", str(folder))]
    assert len(told(typed("sweep-yours", "-t", "runs", "--json", *both))) == 2
    assert len(told(typed("sweep-yours", "sweep-mine", "-t", "runs", "--json", *both))) == 3
    wrong = typed("sweep-your", *both)
    assert wrong.code == 2 and "Did you mean 'sweep-yours'? Allowed: sweep-mine, sweep-yours." in wrong.err


def test_two_results_of_one_run_that_differ_are_told_by_its_id(typed: Type, tmp_path: Path) -> None:
    for name, accuracy in (("mine", 0.5), ("yours", 0.75)):
        lab = Lab.at(tmp_path / name)
        lab.done(FIRST, {"test_accuracy": accuracy})
        lab.done(SECOND, {"test_accuracy": 0.5}, seed=1)
        lab.store.close()
    both = [word for name in ("mine", "yours") for word in ("--results", str(tmp_path / name))]
    done = typed("-t", "runs", "--json", *both)
    assert {run["test_accuracy"] for run in told(done)} == {0.5}
    sentence = f"1 run finished in several places with different results, of which the first counts: {FIRST}."
    assert done.err.count(sentence) == 1
    assert sentence in " ".join(typed(*both).out.split())


def test_stores_can_be_named_without_folders(typed: Type, two: tuple[Path, Path]) -> None:
    for folder in two:
        assert typed("-t", "runs", "--json", "--results", folder).code == 0  # which fills the store
    urls = [word for folder in two for word in ("--store", f"sqlite:///{folder / 'itop.db'}")]
    assert len(told(typed("-t", "runs", "--json", *urls))) == 3
    mixed = typed("-t", "runs", "--json", "--results", two[0], *urls)
    assert {run["run_id"] for run in told(mixed)} == {FIRST, SECOND, THIRD}


def test_one_of_several_that_cannot_be_read_is_exit_3_with_its_name(typed: Type, two: tuple[Path, Path]) -> None:
    mine, yours = two
    absent = mine.parent / "absent"
    done = typed("--results", mine, "--results", absent)
    assert (done.code, done.out) == (3, "") and str(absent) in done.err
    done = typed("--results", mine, "--store", f"sqlite:///{absent}.db", "--store", f"sqlite:///{absent}2.db")
    assert (done.code, done.out) == (3, "") and f"{absent}.db: there is no such file" in done.err
    assert not absent.with_suffix(".db").exists()
    (yours / "itop.db").write_bytes(b"no database at all" * 100)
    done = typed("--results", mine, "--results", yours)
    assert (done.code, done.out) == (3, "") and str(yours / "itop.db") in done.err


def test_a_folder_that_is_named_twice_is_read_once(typed: Type, two: tuple[Path, Path]) -> None:
    done = typed("-t", "runs", "--json", "--results", two[0], "--results", two[0])
    assert len(told(done)) == 2 and done.err == ""


def test_claims_about_chosen_runs_say_that_they_are(report: Type) -> None:
    assert (
        "Only runs with sparsity = 90%: p is corrected"
        in report("-t", "claims", "-w", "sparsity = 90%", "-f", "markdown").out
    )
    assert "Only runs with" not in report("-t", "claims", "-f", "markdown").out
