from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from itopctl.errors import UserError
from itopctl.report.fields import Fields, heading, in_order, kinds_of, ordered, shown, shown_mean, split
from itopctl.report.groups import studies
from itopctl.report.table import Record
from tests.report.records import paper_runs, run

FIELDS = Fields(("method", "seed", "test_accuracy", "test_accuracy_at_best_validation", "update_interval"))


def test_a_field_may_be_named_as_it_stands_in_tables() -> None:
    assert FIELDS.resolve("ΔT") == "update_interval"
    assert FIELDS.resolve("accuracy") == "test_accuracy"
    assert Fields(FIELDS.names, "validation").resolve("accuracy") == "test_accuracy_at_best_validation"
    assert FIELDS.resolve("n", also=("n",)) == "n"


@pytest.mark.parametrize(("name", "guess"), [("sede", "seed"), ("acuracy", "accuracy"), ("Method", "method")])
def test_an_unknown_field_is_refused_with_the_nearest(name: str, guess: str) -> None:
    with pytest.raises(UserError, match=f"unknown field '{name}'. Did you mean '{guess}'"):
        FIELDS.resolve(name)


def test_a_value_is_of_the_record_or_else_of_the_settings_or_what_goes_without_saying() -> None:
    fields = Fields((), unsaid={"redistribution": "none", "method": "nobody"})
    found = run("set-itop", settings={"optimizer.lr": 0.25, "drop_threshold": None})
    assert fields.value(found, "optimizer.lr") == 0.25
    assert fields.value(found, "method") == "set-itop"
    assert fields.value(found, "redistribution") == "none"
    assert fields.value(found, "drop_threshold") is None
    assert fields.value(found, "lr_schedule.milestones") == "0.5/0.75"
    assert fields.value(run(sparsity=0.965), "density") == 0.035
    assert fields.value({"run_id": "0"}, "optimizer.lr") is None


def test_kinds_are_told_by_the_values_that_there_are() -> None:
    runs = [{"a": 1}, {"a": True}, {"a": "x"}, {"a": None}, {"a": 0.5}, {"a": "x"}]
    assert kinds_of(runs, "a", FIELDS) == {"a number": [1, 0.5], "true or false": [True], "a text": ["x"]}


@pytest.mark.parametrize(
    ("name", "value", "digits", "text"),
    [
        ("sparsity", 0.965, None, "96.5 %"), ("test_accuracy", 0.97314, None, "97.31"), ("seed", 12345, None, "12345"),
        ("test_accuracy", 0.97314, 3, "97.3"), ("exploration_rate", 0.3141, None, "0.31"),
        ("steps", 12345, 2, "12,345"),
        ("exploration_rate", 0.3141, 3, "0.314"), ("train_flops_ratio", 0.1234, None, "0.12×"), ("any", None, 3, "–"),
        ("train_flops", 1.2345e15, None, "1.23 P"), ("wall_seconds", 3725.0, 2, "1 h 02 min"),
        ("peak_memory_bytes", 812_000_000, None, "812 MB"), ("optimizer.lr", 1e-3, None, "0.001"),
        ("optimizer.nesterov", True, None, "yes"), ("keep_dense", ["a", "b"], None, "a/b"),
    ],
)  # fmt: skip
def test_a_value_is_shown_as_its_field_is_read(name: str, value: Any, digits: int | None, text: str) -> None:
    assert str(shown(name, value, digits)) == text


@pytest.mark.parametrize(
    ("name", "mean", "std", "digits", "text"),
    [
        ("test_accuracy", 0.9685, 0.0085, None, "96.85 ± 0.85"), ("test_accuracy", 0.9684, 0.0084, 1, "96.8 ± 0.8"),
        ("exploration_rate", 0.814, 0.012, None, "0.81 ± 0.01"), ("train_flops_ratio", 0.1, 0.0, None, "0.1×"),
        ("wall_seconds", 10.0, 2.0, 1, "10 s ± 2.0 s"), ("peak_memory_bytes", 8e8, 0.0, None, "800 MB"),
        ("train_loss", 0.12345, 0.0051, None, "0.1235 ± 0.0051"), ("train_loss", 0.12345, None, None, "0.123"),
        ("train_flops", 1.25e15, 3e13, None, "1.25 P ± 30 T"),
    ],
)  # fmt: skip
def test_a_mean_is_shown_as_its_field_is_read(
    name: str, mean: float, std: float | None, digits: int | None, text: str
) -> None:
    assert str(shown_mean(name, mean, std, digits)) == text


values = st.none() | st.integers(-5, 5) | st.floats(-5, 5) | st.sampled_from(["a", "b", "c"])


@given(st.lists(st.fixed_dictionaries({"a": values, "b": st.integers(0, 2)}), max_size=12), st.booleans())
def test_rows_are_in_order_ties_as_they_came_and_those_without_a_value_last(runs: list[Record], down: bool) -> None:
    found = in_order(runs, [("a", down)], FIELDS, lambda item: [item])
    assert sorted(map(id, found)) == sorted(map(id, runs))
    with_value = [item["a"] for item in found if item["a"] is not None]
    assert [item["a"] for item in found[len(with_value) :]] == [None] * (len(runs) - len(with_value))
    ranks = [(isinstance(value, str), value if isinstance(value, str) else float(value)) for value in with_value]
    assert ranks == sorted(ranks, reverse=down)
    by_b = in_order(runs, [("b", False), ("a", down)], FIELDS, lambda item: [item])
    assert [item["b"] for item in by_b] == sorted(item["b"] for item in runs)
    for number in range(3):  # the second field decides where the first does not
        assert [r for r in by_b if r["b"] == number] == [r for r in found if r["b"] == number]


def test_the_rows_of_a_study_can_be_in_the_order_of_any_field() -> None:
    study = studies(paper_runs())[0]
    best = ordered(study, [("test_accuracy", True)], FIELDS)
    assert [kind.label for kind in best.kinds] == ["dense", "set-itop, ΔT 10", "set-itop, ΔT 40", "static"]
    assert sorted(map(id, best.groups)) == sorted(map(id, study.groups))
    assert ordered(study, [], FIELDS) is study


def test_runs_are_split_by_values_and_titled_by_them() -> None:
    parts = split(paper_runs(), ("dataset", "model"), FIELDS)
    assert [heading(values) for values, _ in parts] == ["lenet-5 on digits", "my_models:big_{net} on cifar10"]
    assert [len(members) for _, members in parts] == [14, 1]
    dusty = [run(sparsity=0.9), run(sparsity=1 - 0.1)]
    ((values, members),) = split(dusty, ("sparsity", "update_interval"), FIELDS)
    assert len(members) == 2 and heading(values) == "sparsity 90 %, ΔT 40"
    assert heading({}) == ""
