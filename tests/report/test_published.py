"""Published numbers beside one's own: which are shown, where, and what is said of the difference."""

from __future__ import annotations

import math
from importlib.resources import files
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from itopctl.catalogue import METHODS, MODELS
from itopctl.report.figures.figure_data import published_points
from itopctl.report.groups import studies
from itopctl.report.paper import paper_tables
from itopctl.report.published import compare, published_for, sources_for
from itopctl.report.statistics import summarise
from itopctl.report.table import Record, Table
from tests.report.records import run, unfinished
from tests.report.test_paper import cell, in_words, labels

PLACE = {"dataset": "cifar10", "model": "resnet34"}
EAST = {
    "epochs": 250, "batch_size": 128, "optimizer.lr": 0.1, "optimizer.weight_decay": 1e-4, "allocation": "erk",
    "training_multiplier": 1.0,
}  # fmt: skip


def ours(method: str = "set-itop", sparsity: float = 0.99, seed: int = 0, **changed: Any) -> Record:
    interval = {"set-itop": 1500, "rigl-itop": 4000}.get(method)
    settings = {**EAST, "update_interval": interval, **changed.pop("settings", {})}
    return run(method, sparsity, seed, settings=settings, **PLACE, **changed)


def table_of(*runs: Record) -> Table:
    (table,) = paper_tables(runs)
    return table


def test_a_published_number_has_a_row_with_its_source_difference_and_verdict() -> None:
    """Published: 93.09 ± 0.15. Ours: 93.2 and 93.4, mean 93.3, s 0.1414: +0.21, and 2·√(0.15² + 0.1414²) = 0.41."""
    table = table_of(ours(seed=0, accuracy=0.932), ours(seed=1, accuracy=0.934))
    assert labels(table) == ["set-itop", "set-itop, erk, published [1]"]
    assert in_words(cell(table, "set-itop, erk, published [1]", "sparsity 99 %")) == (
        "93.09 ± 0.15, ours +0.21, within noise"
    )
    assert any(
        note.startswith("[1] EAST") and "secondary transcription" in note and "n 3" in note for note in table.notes
    )
    assert not any("there" in note for note in table.notes), "the recipes are the same"


def test_what_lies_outside_of_the_noise_is_said_to() -> None:
    table = table_of(ours(seed=0, accuracy=0.92), ours(seed=1, accuracy=0.921))
    assert in_words(cell(table, "set-itop, erk, published [1]", "sparsity 99 %")).endswith("ours -1.04, beyond noise")


def test_one_seed_gives_a_difference_and_no_verdict() -> None:
    table = table_of(ours(accuracy=0.92))
    assert in_words(cell(table, "set-itop, erk, published [1]", "sparsity 99 %")) == "93.09 ± 0.15, ours -1.09"
    assert table.records[1]["within_noise"] is None


def test_runs_that_are_not_finished_give_no_difference() -> None:
    table = table_of(unfinished("set-itop", 0.99, 0, settings=EAST, **PLACE))
    assert in_words(cell(table, "set-itop, erk, published [1]", "sparsity 99 %")) == "93.09 ± 0.15"
    assert table.records[1]["difference"] is None


def test_different_recipes_are_pointed_out() -> None:
    table = table_of(ours(settings={"epochs": 10, "batch_size": 64, "update_interval": 100}))
    assert (
        "[1] and set-itop at 99 %: epochs 250 there, 10 here; batch 128 there, 64 here; ΔT 1500 there, 100 here."
        in (table.notes)
    )


def test_the_difference_is_to_the_runs_with_the_nearest_recipe() -> None:
    far = [ours(seed=n, accuracy=0.5, settings={"update_interval": 100}) for n in range(2)]
    near = [ours(seed=n, accuracy=0.93 + n / 1000) for n in range(2)]
    table = table_of(*far, *near)
    assert table.records[-1]["difference"] == pytest.approx(0.9305 - 0.9309)
    assert table.records[-1]["compared_with"] == {"update_interval": 1500}


def test_only_numbers_of_the_same_data_model_method_and_sparsity_are_shown() -> None:
    for other in ({"model": "resnet18"}, {"dataset": "cifar100"}):
        assert not any("published" in label for label in labels(table_of({**ours(), **other})))
    assert not any("published" in label for label in labels(table_of(ours(sparsity=0.97))))
    assert not any("published" in label for label in labels(table_of(ours("gse"))))


def test_the_papers_own_claim_is_quoted_where_its_table_is_not_known() -> None:
    table = table_of(run("set-itop", 0.98, dataset="cifar100", model="resnet34"))
    assert any("at sparsity 98 % the dense accuracy is matched" in note for note in table.notes)


def test_costs_and_exploration_rates_are_printed_as_published() -> None:
    table = table_of(run("rigl-itop", 0.9, dataset="imagenet", model="resnet50"))
    shown = [label for label in labels(table) if "published" in label]
    assert shown == ["rigl-itop, erk, published [1]", "rigl-itop, erk, 2× training, published [1]"]
    assert in_words(cell(table, shown[0], "sparsity 90 %")).startswith("73.82 ± 0.08, R_s 0.83; ours")
    assert in_words(cell(table, shown[0], "FLOPs at 90 %")) == "0.25×, 0.24×"
    assert in_words(cell(table, shown[1], "FLOPs at 90 %")) == "0.50×, 0.24×"


def test_the_same_number_from_two_sources_has_two_rows() -> None:
    table = table_of(run("rigl", 0.9, dataset="imagenet", model="resnet50"))
    sources = [record["source"] for record in table.records if record.get("published")]
    assert sources == ["itop-imagenet", "rigl-imagenet", "rigl-imagenet", "rigl-imagenet", "rigl-imagenet"]


def test_published_numbers_are_never_marked_as_the_best() -> None:
    table = table_of(ours(accuracy=0.1), ours("rigl-itop", accuracy=0.2))
    assert [in_words(row[0]) for row in table.rows if any(place.best for place in row)] == ["rigl-itop"]


def everything() -> list[Any]:
    places = {
        (d, m) for d in ("imagenet", "cifar10", "cifar100") for m in ("resnet50", "resnet34", "wrn-22-2", "vgg19")
    }
    return [result for place in sorted(places) for result in published_for(*place)]


def test_every_published_number_is_a_fraction_with_a_source() -> None:
    assert len(everything()) == 159
    for result in everything():
        assert 0.05 < result.accuracy < 1 and 0 <= result.sparsity < 1 and result.source.cite
        assert result.std is None or 0 <= result.std < 0.2
        assert result.exploration_rate is None or 1 - result.sparsity - 1e-9 <= result.exploration_rate <= 1
    assert {r.source.id for r in everything() if r.source.secondary} == {"granet-cifar", "east-cifar10"}
    assert [s.id for s in sources_for("cifar100", "resnet34")] == ["itop-cifar100-claim"]


def test_methods_of_ours_have_the_names_that_published_numbers_use() -> None:
    used = {result.method for result in everything()}
    assert {"dense", "static", "set", "rigl", "snfs", "set-itop", "rigl-itop"} <= used & set(METHODS.names())


@given(st.lists(st.floats(0.1, 1), min_size=2, max_size=5), st.integers(0, 13))
def test_the_noise_is_two_deviations_of_a_difference(accuracies: list[float], number: int) -> None:
    theirs = published_for("cifar10", "resnet34")[number]
    ours_, found = summarise(accuracies), None
    assert ours_ is not None and ours_.std is not None and theirs.std is not None
    found = compare(ours_, theirs)
    slow = math.fsum(accuracies) / len(accuracies) - theirs.accuracy
    variance = math.fsum((a - ours_.mean) ** 2 for a in accuracies) / (len(accuracies) - 1) + theirs.std**2
    assert found.difference == pytest.approx(slow, abs=1e-12)
    assert abs(slow**2 - 4 * variance) < 1e-12 or found.within_noise == (slow**2 <= 4 * variance)


def test_an_order_of_runs_changes_nothing() -> None:
    runs = [ours(seed=n, accuracy=0.93 + n / 1000) for n in range(3)] + [ours("rigl-itop", seed=n) for n in range(2)]
    assert table_of(*runs).rows == table_of(*reversed(runs)).rows
    assert len(studies(runs)) == 1


def test_points_of_a_figure_are_of_ones_own_methods_and_within_ones_own_sparsities() -> None:
    found = studies([ours(sparsity=0.99), ours(sparsity=0.9995), ours("gse")])
    points = published_points(found)
    assert [(point.method, point.sparsity) for point in points] == [
        ("set-itop", 0.99), ("set-itop", 0.999), ("set-itop", 0.9995),
    ]  # fmt: skip
    assert {point.label for point in points} == {"EAST erk"}
    assert published_points(studies([ours(sparsity=0.9) | {"model": "mine"}])) == []


def test_a_label_names_source_allocation_and_length_of_training() -> None:
    labels_ = {result.label for result in published_for("imagenet", "resnet50")}
    assert {"ITOP erk", "ITOP erk 2×", "RigL uniform", "RigL erk 100×"} <= labels_


def test_published_rows_name_models_that_there_are_and_the_papers_vgg_c_is_its_own() -> None:
    text = files("itopctl.report").joinpath("published.yaml").read_text(encoding="utf-8")
    entries = yaml.safe_load(text)
    named = {row.get("model") or entry["model"] for entry in entries for row in entry["rows"]}
    assert named <= set(MODELS.names())
    assert "vgg16-c" not in named  # nobody published numbers of this package's own variant
