"""What stands in the figures: their records, which are the CSV beside each."""

from __future__ import annotations

import csv
import io
import statistics
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace

import pytest

from itopctl.errors import EnvironmentUnfitError, UserError
from itopctl.report.figures.catalogue import FIGURES
from itopctl.report.figures.figure_data import Material
from itopctl.report.figures.make import as_csv, figure_records
from itopctl.report.groups import studies
from itopctl.report.table import Record
from tests.report.materials import METHODS, PUBLISHED, fashion, material, study_runs
from tests.report.records import unfinished

NAMES = ("exploration", "interval", "rs-accuracy", "sparsity", "layers", "learning")


def members(found: Material, **wanted: object) -> list[Record]:
    """Finished runs by what their settings say: the slow way to a group."""
    return [
        run
        for study in found.studies
        for group in study.groups
        for run in group.runs
        if run["state"] == "done" and all({**run, **run["settings"]}[name] == value for name, value in wanted.items())
    ]


def only(records: Iterable[Record], **wanted: object) -> Record:
    (record,) = [r for r in records if all(r[name] == value for name, value in wanted.items())]
    return record


def test_the_figures_are_those_promised_each_with_a_line_that_says_what_it_shows() -> None:
    assert tuple(FIGURES.names()) == NAMES
    assert all(entry.summary and "\n" not in entry.summary for entry in FIGURES)


def test_an_unknown_figure_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown figure 'sparsty'\. Did you mean 'sparsity'\?"):
        figure_records("sparsty", fashion())


@pytest.mark.parametrize("name", ["interval", "sparsity"])
@pytest.mark.parametrize("best_by", ["final", "validation"])
def test_accuracies_are_means_and_deviations_over_seeds(name: str, best_by: str) -> None:
    found = fashion(best_by=best_by)
    records = figure_records(name, found)
    field = "test_accuracy" if best_by == "final" else "test_accuracy_at_best_validation"
    rate = "exploration_rate" if best_by == "final" else "exploration_rate_at_best_validation"
    for method, interval in (("set-itop", 50), ("rigl-itop", 800), ("static", None)):
        for sparsity in (0.9, 0.95, 0.98):
            record = only(records, method=method, update_interval=interval, sparsity=sparsity)
            runs = members(found, method=method, update_interval=interval, sparsity=sparsity)
            assert record["seeds"] == len(runs) == 3
            assert record["accuracy_mean"] == pytest.approx(statistics.mean(run[field] for run in runs))
            assert record["accuracy_std"] == pytest.approx(statistics.stdev(run[field] for run in runs))
            assert record["exploration_rate_mean"] == pytest.approx(statistics.mean(run[rate] for run in runs))


def test_in_the_figure_of_intervals_a_kind_is_what_differs_beside_the_interval() -> None:
    rates = [study_runs([0.9], {"set-itop": [50, 200]}, 1, {"optimizer.lr": lr}) for lr in (0.1, 0.2)]
    records = figure_records("interval", material([*rates[0], *rates[1]]))
    assert {(r["method"], r["details"], r["update_interval"]) for r in records} == {
        ("set-itop", f"lr {lr}", interval) for lr in (0.1, 0.2) for interval in (50, 200)
    }


def test_every_finished_run_is_a_point_of_accuracy_against_exploration() -> None:
    found = fashion()
    records = figure_records("rs-accuracy", found)
    wanted = {(run["run_id"], run["test_accuracy"], run["exploration_rate"]) for run in members(found)}
    assert len(records) == len(wanted) == 66
    assert {(r["run_id"], r["accuracy"], r["exploration_rate"]) for r in records} == wanted


def test_published_points_stand_beside_ones_own_of_the_same_study() -> None:
    records = figure_records("sparsity", fashion(published=PUBLISHED))
    published = [record for record in records if record["source"] is not None]
    assert [(r["method"], r["sparsity"], r["accuracy_mean"], r["accuracy_std"]) for r in published] == [
        (p.method, p.sparsity, p.accuracy, p.std) for p in PUBLISHED if p.dataset is None
    ]
    assert all(r["dataset"] == "fashion_mnist" and r["seeds"] is None for r in published)
    assert len(records) - len(published) == 1 + 7 * 3


def test_exploration_begins_with_the_density_and_holds_every_epoch() -> None:
    found = fashion()
    records = figure_records("exploration", found)
    curve = [r for r in records if r["details"] == "ΔT 50" and r["method"] == "set-itop" and r["sparsity"] == 0.95]
    assert [r["epoch"] for r in curve] == list(range(11))
    assert curve[0]["exploration_rate_mean"] == pytest.approx(0.05)
    number = next(
        i for i, (_, g) in enumerate(found.groups()) if (g.kind.label, g.sparsity) == ("set-itop, ΔT 50", 0.95)
    )
    assert [r["exploration_rate_mean"] for r in curve[1:]] == [
        point["exploration_rate_mean"] for point in found.curves[number]
    ]


def test_learning_holds_accuracies_and_loss_of_every_group_and_epoch() -> None:
    records = figure_records("learning", fashion())
    assert len(records) == (1 + 7 * 3) * 10
    assert {"epoch", "step", "test_accuracy_mean", "validation_accuracy_std", "train_loss_mean"} <= set(records[0])


def test_layers_stand_in_the_order_of_the_network() -> None:
    records = figure_records("layers", fashion())
    assert len(records) == (1 + 7 * 3) * 3
    assert [r["layer"] for r in records[:3]] == ["fc1.weight", "fc2.weight", "fc3.weight"]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_finished_does_not_count(name: str) -> None:
    more = [unfinished("set-itop", 0.9, 3, run_id="x", settings={"update_interval": 200}, final_density=None)]
    runs = study_runs([0.9], {"set-itop": [200]}, 2)
    assert figure_records(name, material([*runs, *more])) == figure_records(name, material(runs))


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_of_nothing_finished_says_so(name: str) -> None:
    found = material([unfinished("set-itop", 0.9, seed, run_id=str(seed)) for seed in range(2)])
    with pytest.raises(EnvironmentUnfitError, match=f"nothing to draw in the figure '{name}' yet: none of the runs is"):
        figure_records(name, found)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("interval", "none of the finished runs has an update interval"),
        ("sparsity", "all of the finished runs are dense"),
        ("rs-accuracy", "all of the finished runs are dense"),
    ],
)
def test_dense_runs_alone_answer_no_question_on_sparsity(name: str, why: str) -> None:
    with pytest.raises(EnvironmentUnfitError, match=why):
        figure_records(name, material(study_runs([], {"dense": [None]})))


@pytest.mark.parametrize("name", ["exploration", "learning", "layers"])
def test_finished_runs_without_a_history_are_told_from_unfinished_ones(name: str) -> None:
    found = Material(studies(study_runs([0.9], {"set-itop": [40]}), METHODS))
    empty = replace(found, curves=[[]], layers=[[]])
    with pytest.raises(EnvironmentUnfitError, match=r"the finished runs (have no history|say nothing of their layers)"):
        figure_records(name, empty)


def test_one_seed_has_no_deviation() -> None:
    found = material(study_runs([0.9], {"set-itop": [40]}, 1))
    assert figure_records("sparsity", found)[0]["accuracy_std"] is None
    assert {r["exploration_rate_std"] for r in figure_records("exploration", found)} == {None}


@pytest.mark.parametrize("name", NAMES)
def test_the_csv_says_what_the_records_say(name: str) -> None:
    records = figure_records(name, fashion(published=PUBLISHED))
    rows = list(csv.DictReader(io.StringIO(as_csv(records))))
    assert len(rows) == len(records)
    for row, record in zip(rows, records, strict=True):
        assert row == {key: "" if value is None else str(value) for key, value in record.items()}


def test_records_are_made_without_matplotlib() -> None:
    code = (
        "import sys; from tests.report.materials import fashion\n"
        "from itopctl.report.figures.make import figure_records\n"
        f"for name in {NAMES!r}: figure_records(name, fashion())\n"
        "assert 'matplotlib' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
