"""`itopctl plot`, typed in a folder with the results of a finished sweep."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from itopctl.report.figures.catalogue import FIGURES
from tests.cli.desk import BASE, Desk
from tests.conftest import FinishedSweep
from tests.helpers import itopctl, write_spec


@pytest.fixture
def plot(desk: Desk, finished_sweep: FinishedSweep) -> Any:
    """Types `itopctl plot …` where the results of a finished sweep are."""
    shutil.copytree(finished_sweep.results, desk.results.path)
    return lambda *arguments: desk("plot", *arguments)


@pytest.mark.parametrize("name", FIGURES.names())
def test_each_figure_is_written_with_its_data_beside_it(plot: Any, name: str) -> None:
    done = plot(name)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{name}.svg, and its data: {name}.csv\n"
    assert Path(f"{name}.svg").read_text().startswith("<?xml")
    with Path(f"{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows and {row["model"] for row in rows} == {"lenet-300-100"}


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("PDF", b"%PDF"), ("svg", b"<?xml")])
def test_the_ending_of_the_file_chooses_its_format(plot: Any, tmp_path: Path, ending: str, start: bytes) -> None:
    out = tmp_path / f"my figure.v2.{ending}"
    done = plot("interval", "trial", "-o", out, "--width", "page", "--no-title", "--best-by", "validation")
    assert done.code == 0, done.err
    assert out.read_bytes().startswith(start) and out.with_suffix(".csv").is_file()


def test_the_data_hold_the_numbers_of_the_report(plot: Any, desk: Desk) -> None:
    assert plot("sparsity").code == 0
    report = desk("report", "--format", "csv").out
    wanted = {(r["method"], r["sparsity"]): r["test_accuracy_mean"] for r in csv.DictReader(report.splitlines())}
    with Path("sparsity.csv").open() as file:
        found = {(r["method"], r["sparsity"]): r["accuracy_mean"] for r in csv.DictReader(file)}
    assert found == wanted


def test_the_last_epoch_of_a_curve_is_the_result_of_its_runs(plot: Any, desk: Desk) -> None:
    assert plot("learning").code == 0
    with Path("learning.csv").open() as file:
        rows = list(csv.DictReader(file))
    last = max(float(row["epoch"]) for row in rows)
    ends = {(r["method"], r["sparsity"]): float(r["test_accuracy_mean"]) for r in rows if float(r["epoch"]) == last}
    report = desk("report", "--format", "csv").out
    for row in csv.DictReader(report.splitlines()):
        assert ends[row["method"], row["sparsity"]] == pytest.approx(float(row["test_accuracy_mean"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sparsty"], "unknown figure 'sparsty'. Did you mean 'sparsity'?"),
        (["interval", "trail"], "unknown sweep 'trail'. Did you mean 'trial'?"),
        (
            ["interval", "-o", "x.jpeg"],
            "-o x.jpeg: unknown ending '.jpeg'. Did you mean '.png'? Allowed: .png, .svg, .pdf.",
        ),
        (["interval", "-o", "x"], "-o x: it has no ending; .png, .svg or .pdf says what to write."),
        (["interval", "--width", "colum"], "--width: unknown width 'colum'. Did you mean 'column'?"),
        (["interval", "--best-by", "finl"], "--best-by: unknown choice 'finl'. Did you mean 'final'?"),
    ],
)
def test_what_is_mistyped_is_answered_with_what_is_allowed(plot: Any, arguments: list[str], message: str) -> None:
    done = plot(*arguments)
    assert done.code == 2
    assert message in done.err and "Traceback" not in done.err
    assert not list(Path().glob("*.csv"))


def test_a_folder_that_is_not_there_is_said_before_any_work(plot: Any) -> None:
    done = plot("interval", "-o", "nowhere/figure.svg")
    assert (done.code, done.err) == (
        3, "itopctl: nowhere/figure.svg cannot be written: there is no folder nowhere.\n"
    )  # fmt: skip


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_said(plot: Any, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    done = plot("interval", "-o", locked / "figure.svg")
    assert done.code == 3 and "cannot be written: Permission denied" in done.err


def test_a_place_where_a_folder_lies_is_said(plot: Any) -> None:
    Path("figure.svg").mkdir()
    done = plot("interval", "-o", "figure.svg")
    assert done.code == 3 and "figure.svg cannot be written: Is a directory." in done.err


def test_where_nothing_is_finished_that_is_said(desk: Desk) -> None:
    write_spec(desk.folder, base=BASE, grid={"seed": 2})
    assert desk("sweep", desk.spec, "--max-runs", "0").code in (0, 2)
    desk.submit()
    done = desk("plot", "interval")
    assert done.code == 3
    assert done.err == (
        "itopctl: there is nothing to draw in the figure 'interval' yet: none of the runs is finished.\n"
    )


def test_where_nothing_was_run_that_is_said(desk: Desk) -> None:
    done = desk("plot", "interval")
    assert done.code == 3 and "nothing was run here yet" in done.err


def test_the_help_names_every_figure_and_imports_nothing_heavy() -> None:
    done = itopctl("plot", "--help", COLUMNS="200")
    assert done.returncode == 0
    assert all(name in done.stdout for name in FIGURES.names())


def test_several_results_folders_are_refused_and_not_the_last_one_taken(plot: Any, tmp_path: Path) -> None:
    done = plot("sparsity", "--results", "results", "--results", tmp_path)
    assert done.code == 2 and "found several" in done.err
