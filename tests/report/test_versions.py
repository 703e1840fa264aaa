"""Runs by several versions of the user's own code: apart in every table, or together with a word on it."""

from __future__ import annotations

from typing import Any

from itopctl.config.run_config import defining_settings
from itopctl.report.fields import Fields
from itopctl.report.groups import studies
from itopctl.report.pivot import Pivot, pivot_table
from itopctl.report.table import Cell
from itopctl.report.versions import same_code, version_notes
from tests.helpers import run_config

A, B = "aaaaaaaaaaaa", "bbbbbbbbbbbb"


def record(
    version: str | None, seed: int = 0, method: str = "static", state: str = "done", **settings: Any
) -> dict[str, Any]:
    """A run of a model of the user's own, by a version of it; None: no digest was recorded."""
    config = run_config(method=method, seed=seed, **settings).model_dump(mode="json") | {"model": "nets:net"}
    config["own_code"] = None if version is None else {"nets": version}
    names = ("dataset", "model", "method", "sparsity", "seed")
    measured = {"test_accuracy": 0.5 + seed / 10, "exploration_rate": 0.1, "state": state}
    return {**{name: config[name] for name in names}, **measured, "settings": defining_settings(config)}


def labels(runs: list[dict[str, Any]]) -> list[str]:
    return [group.kind.label for study in studies(runs) for group in study.groups]


def accepted(runs: list[dict[str, Any]], *versions: str) -> list[dict[str, Any]]:
    for run in runs:
        if same := same_code(run, [{"nets": list(versions)}]):
            run["same_code"] = same
    return runs


def test_runs_by_one_version_are_told_nothing_of() -> None:
    for runs in ([record(A), record(A, 1)], [record(None), record(None, 1)]):
        assert labels(runs) == ["static"]
        assert version_notes(runs) == []


def test_runs_by_two_versions_are_groups_of_their_own_and_the_unknown_one_is_a_version() -> None:
    runs = [record(A), record(A, 1), record(B), record(None)]
    assert labels(runs) == [f"static, nets {A}", f"static, nets {B}", "static, nets unknown"]
    assert version_notes(runs) == [f"Versions of nets: {A} made 2 runs, {B} made 1 run, unknown made 1 run."]


def test_methods_that_were_run_by_different_versions_are_not_compared_without_a_word() -> None:
    found = labels([record(A, method="static"), record(B, method="set-itop")])
    assert sorted(found) == [f"set-itop, nets {B}", f"static, nets {A}"]


def test_runs_that_do_not_use_a_module_have_no_version_of_it() -> None:
    plain = record(A)
    plain["settings"] = {name: v for name, v in plain["settings"].items() if name != "own_code.nets"} | {"model": "m"}
    assert labels([plain, record(A, 1) | {"settings": record(A, 1)["settings"] | {"model": "m"}}]) == ["static"]


def test_versions_that_were_declared_to_be_the_same_are_one_group_with_a_note() -> None:
    runs = accepted([record(A), record(B, 1), record(None, 2)], A, B)
    assert labels(runs) == [f"static, nets {A}/{B}", "static, nets unknown"]
    assert version_notes(runs) == [
        f"Versions of nets: {A} made 1 run, {B} made 1 run, unknown made 1 run. {A} and {B} count as the same "
        "(--accept-code): one run a seed."
    ]
    assert [run["settings"]["own_code.nets"] for run in runs] == [A, B, "unknown"]  # the digest stays what it is
    assert labels(accepted([record(A), record(None, 1)], A, "unknown")) == ["static"]


def test_a_seed_that_two_versions_made_counts_once_the_finished_one() -> None:
    runs = accepted([record(A, 0, state="failed"), record(B, 0), record(A, 1), record(B, 1)], A, B)
    ((group,),) = (study.groups for study in studies(runs))
    assert [(run["seed"], run["state"], run["settings"]["own_code.nets"]) for run in group.runs] == [
        (0, "done", B),
        (1, "done", A),
    ]


def test_a_pivot_names_the_versions_that_it_averages_over() -> None:
    fields = Fields(("method", "sparsity", "test_accuracy", "exploration_rate"))
    apart = pivot_table([record(A), record(B)], Pivot(), fields)
    assert [row[0] for row in apart.rows] == [Cell("static", f"nets {A}"), Cell("static", f"nets {B}")]
    pooled = pivot_table([record(A), record(B)], Pivot(rows=("method",)), fields)
    assert f"Averaged over own_code.nets {A}, {B}." in pooled.notes
