"""`itopctl.Project`: what the command line does, from Python."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import matplotlib.figure
import pandas as pd
import pytest

import itopctl
from itopctl.errors import EnvironmentUnfitError, UserError
from tests.helpers import itopctl as command

SPEC: dict[str, Any] = {
    "name": "from python",
    "base": {"dataset": "digits", "model": "lenet-300-100", "epochs": 2, "update_interval": 5},
    "grid": {"method": ["set-itop", "static"], "sparsity": [0.8, 0.9], "seed": 2},
}
SPEC["name"] = "from-python"


@pytest.fixture(scope="module")
def told() -> list[dict[str, Any]]:
    """What was told of the runs of `project` while they were made."""
    return []


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, told: list[dict[str, Any]]) -> itopctl.Project:
    """A project with a sweep that was run from Python."""
    project = itopctl.Project(tmp_path_factory.mktemp("from python") / "results")
    outcome = project.run(SPEC, workers=2, progress=told.append)
    assert outcome.ok and len(outcome.done) == 8
    return project


def test_the_package_offers_it_without_importing_anything_before() -> None:
    code = "import sys, itopctl; assert 'Project' in dir(itopctl); print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "torch" not in loaded and "pandas" not in loaded and "typer" not in loaded


def test_what_is_done_is_done(project: itopctl.Project) -> None:
    plan = project.plan(SPEC)
    assert (len(plan.done), plan.to_run) == (8, ())
    again = project.run(plan)
    assert again.ok and again.states == {}
    longer = project.plan(SPEC, {"epochs": 3, "optimizer.lr": 0.05})
    assert len(longer.new) == 8 and {c.optimizer.lr for c in longer.configs.values()} == {0.05}


def test_a_spec_as_data_is_the_same_as_in_a_file(project: itopctl.Project, tmp_path: Path) -> None:
    import yaml

    path = tmp_path / "same.yaml"
    path.write_text(yaml.safe_dump(SPEC), encoding="utf-8")
    assert project.plan(path).configs.keys() == project.plan(SPEC).configs.keys()
    assert project.plan([str(path), {**SPEC, "name": "second"}]).duplicates == 8


def test_progress_is_told_run_by_run(project: itopctl.Project, told: list[dict[str, Any]]) -> None:
    ended = [event for event in told if event["event"] == "ended"]
    assert len(ended) == 8 and {event["state"] for event in ended} == {"done"}
    assert sum(event["event"] == "evaluated" for event in told) == 16


def test_runs_are_a_frame_with_a_column_for_each_field_and_setting(project: itopctl.Project) -> None:
    frame = project.runs()
    assert isinstance(frame, pd.DataFrame) and len(frame) == 8
    assert {"test_accuracy", "exploration_rate", "optimizer.lr", "batch_size", "seed"} <= set(frame.columns)
    assert frame["test_accuracy"].between(0, 1).all() and (frame["optimizer.lr"] == 0.1).all()
    chosen = project.runs("from-python", where="sparsity >= 90% and method = set-itop")
    assert len(chosen) == 2 and set(chosen["method"]) == {"set-itop"}
    assert project.runs(where="seed > 7").empty


def test_histories_and_layers_are_long_frames(project: itopctl.Project) -> None:
    history = project.history("from-python")
    epochs = history[history["kind"] == "epoch"]
    assert len(epochs) == 16 and set(epochs.groupby("run_id").size()) == {2}
    one = project.runs()["run_id"][0]
    assert set(project.history(one[:8])["run_id"]) == {one}
    layers = project.layers()
    assert len(layers) == 8 * 3 and layers["density"].between(0, 1).all()


def test_status_counts_runs(project: itopctl.Project) -> None:
    status = project.status()
    assert status.to_dict("records")[0] | {"seconds_left": None} == {
        "sweep": "from-python", "total": 8, "queued": 0, "pending": 0, "running": 0, "done": 8, "failed": 0, "lost": 0,
        "seconds_left": None,
    }  # fmt: skip


def test_a_report_is_a_list_of_tables_that_a_notebook_shows(project: itopctl.Project) -> None:
    report = project.report("from-python", table="paper")
    (table,) = report
    assert "set-itop" in repr(report) and "<table" in report._repr_html_()
    assert report.to_latex().startswith("%") or "\\begin{table" in report.to_latex()
    assert "| method" in table.to_markdown() and set(table.to_frame()["method"]) == {"set-itop", "static"}
    pivot = project.report(rows="method", cell=["test_accuracy", "n"]).to_frame()
    assert list(pivot["method"]) == ["static", "set-itop"]


def test_what_is_reported_is_what_the_command_reports(project: itopctl.Project) -> None:
    printed = command("report", "--table", "cost", "--format", "markdown", "--results", project.folder.path)
    assert project.report(table="cost").to_markdown() == printed.stdout


def test_a_figure_is_matplotlibs(project: itopctl.Project) -> None:
    figure = project.figure("sparsity", "from-python", width="page")
    assert isinstance(figure, matplotlib.figure.Figure) and figure.axes


def test_a_page_is_written(project: itopctl.Project, tmp_path: Path) -> None:
    page = project.page(tmp_path / "all.html", "from-python")
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_run_that_fails_is_a_value(tmp_path: Path) -> None:
    spec = {
        "name": "bad",
        "base": {**SPEC["base"], "method": "static", "sparsity": 0.9, "optimizer": {"name": "sgd", "lr": 1e20}},
    }
    outcome = itopctl.Project(tmp_path).run(spec, workers=1)
    assert not outcome.ok and list(outcome.states.values()) == ["failed"]
    (failed,) = outcome.failed
    assert failed["cause"] == "user-error" and failed["message"].startswith("the loss became")


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda p: p.report(table="papr"), r"^table: unknown table 'papr'\. Did you mean 'paper'\?"),
        (lambda p: p.report(table="layers", digits=3), "^digits means nothing for table='layers'; it goes with table "),
        (lambda p: p.report(best_by="test"), r"^best_by: unknown accuracy 'test'"),
        (lambda p: p.report(rows="methd"), r"^rows: unknown field 'methd'\. Did you mean 'method'\?"),
        (lambda p: p.report("from-pyton"), r"unknown sweep 'from-pyton'\. Did you mean 'from-python'\?"),
        (lambda p: p.figure("sparsity", width="wide"), r"^width: unknown width 'wide'"),
        (lambda p: p.history("zz"), r"there is no sweep or run 'zz'"),
        (lambda p: p.plan({**SPEC, "gird": {}}), r"^the spec:\d+: gird: unknown key 'gird'\. Did you mean 'grid'\?"),
        (lambda p: p.plan({"name": "a", "base": {"model": object()}}), r"^the spec: plain data expected"),
        (lambda p: p.plan(SPEC, {"model": "__main__:net"}), r"put net into a file, such as my_code\.py"),
        (lambda p: p.run(p.plan(SPEC), {"epochs": 9}), r"^set and accept_code belong to `plan`"),
        (lambda p: itopctl.Project(["a", "b"]).run(SPEC), r"several results folders or stores"),
    ],
)  # fmt: skip
def test_mistakes_are_sentences_in_the_words_of_python(project: itopctl.Project, ask: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        ask(project)


def test_where_nothing_was_run_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentUnfitError, match="nothing was run here yet"):
        itopctl.Project(tmp_path / "none").report()


def test_several_folders_are_reported_on_together(project: itopctl.Project, tmp_path: Path) -> None:
    stored = tmp_path / "stored"
    shutil.copytree(Path(__file__).parents[1] / "cli" / "before_schema" / "recorded", stored)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        both = itopctl.Project([project.folder.path, stored]).runs()
    assert len(both) == 8 + 18 and set(both["results"]) == {str(project.folder.path), str(stored)}
