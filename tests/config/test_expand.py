"""A spec becomes its runs, each once: grid × zip, blocks, exclusions, overrides, limits."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itopctl.config.identity import run_id
from itopctl.config.run_config import RunConfig
from tests.config.build import BASE, SPARSE, complaint, config, expanded, expansion, spec_text

DENSE: dict[str, Any] = {**BASE, "method": "dense"}


def settings_of(runs: dict[str, RunConfig], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(getattr(run, name) for name in names) for run in runs.values()]


def test_a_base_alone_is_one_run_under_its_id() -> None:
    found = expansion()
    assert found.runs == {run_id(config()): config()}
    assert (found.points, found.excluded, found.duplicates, found.warnings) == (1, 0, 0, ())


def test_a_grid_is_every_combination_in_the_order_written() -> None:
    found = expansion(grid={"sparsity": [0.5, 0.9], "seed": [0, 1]})
    assert settings_of(found.runs, "sparsity", "seed") == [(0.5, 0), (0.5, 1), (0.9, 0), (0.9, 1)]


def test_settings_in_zip_vary_together() -> None:
    found = expansion(zip={"optimizer.lr": [0.1, 0.05], "batch_size": [128, 64]})
    assert [(run.optimizer.lr, run.batch_size) for run in found.runs.values()] == [(0.1, 128), (0.05, 64)]


def test_each_point_of_the_grid_is_combined_with_each_row_of_zip() -> None:
    found = expansion(grid={"seed": 3}, zip={"sparsity": [0.5, 0.9], "batch_size": [128, 64]})
    assert settings_of(found.runs, "seed", "sparsity", "batch_size") == [
        (seed, *row) for seed in range(3) for row in ((0.5, 128), (0.9, 64))
    ]


@pytest.mark.parametrize(
    ("base", "sections", "override", "where"),
    [
        ({"layer_density": {f"l{n}": 0.5 for n in range(4000)}}, {}, "seed=0", "base.layer_density"),
        ({"lr_schedule": {"milestones": list(range(1, 3001))}}, {}, "seed=0", "base.lr_schedule.milestones"),
        ({}, {"exclude": [{"batch_size": list(range(4000))}]}, "seed=0", "exclude[0].batch_size"),
        ({}, {"exclude": [{"batch_size": n} for n in range(2500)]}, "seed=0", "exclude[0].batch_size"),
        ({}, {"zip": {"keep_dense": [["x"] * 4000]}}, "seed=0", "zip.keep_dense[0]"),
        ({}, {}, f"keep_dense={['x'] * 4000}", "keep_dense"),
    ],
)
def test_long_lists_that_would_be_read_for_many_runs_are_refused_at_once(
    base: dict[str, Any], sections: dict[str, Any], override: str, where: str
) -> None:
    text = spec_text({**SPARSE, **base}, grid={"seed": 500}, **sections)
    assert f" {where}: the lists and mappings of this sweep" in complaint(text, override)


def test_a_few_hundred_layers_are_no_long_list() -> None:
    found = expansion({**SPARSE, "layer_density": {f"l{n}": 0.5 for n in range(300)}}, grid={"seed": 30})
    assert found.points == 30


def test_five_seeds_are_0_to_4() -> None:
    assert settings_of(expansion(grid={"seed": 5}).runs, "seed") == [(0,), (1,), (2,), (3,), (4,)]


def test_an_axis_wins_over_the_base() -> None:
    assert settings_of(expansion(grid={"sparsity": [0.5]}).runs, "sparsity") == [(0.5,)]


def test_whole_optimizers_can_be_an_axis() -> None:
    found = expansion(grid={"optimizer": [{"name": "sgd", "lr": 0.2}, {"name": "adam"}]})
    assert [(run.optimizer.name, run.optimizer.lr) for run in found.runs.values()] == [("sgd", 0.2), ("adam", 1e-3)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=4, unique=True),
    st.lists(st.integers(1, 50), min_size=1, max_size=3, unique=True),
    st.lists(st.integers(0, 99).map(lambda n: n / 100), min_size=1, max_size=3, unique=True),
    st.integers(1, 3),
)
def test_a_grid_has_as_many_runs_as_the_product_of_its_lengths(
    seeds: list[int], epochs: list[int], sparsities: list[float], rows: int
) -> None:
    found = expansion(
        grid={"seed": seeds, "epochs": epochs, "sparsity": sparsities},
        zip={"batch_size": list(range(1, rows + 1)), "optimizer.lr": [1 / n for n in range(1, rows + 1)]},
    )
    assert found.points == len(found.runs) == math.prod(map(len, (seeds, epochs, sparsities))) * rows
    assert all(run_id(run) == name for name, run in found.runs.items())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_points_are_runs_and_duplicates(seeds: list[int]) -> None:
    found = expansion(grid={"seed": seeds})
    assert (found.points, len(found.runs), found.duplicates) == (
        len(seeds), len(set(seeds)), len(seeds) - len(set(seeds)),
    )  # fmt: skip


def test_the_same_value_spelt_twice_on_an_axis_is_one_run() -> None:
    found = expanded("name: a\nbase: {dataset: digits, model: lenet-5, method: set, epochs: 1}\n"
                     "grid: {sparsity: [0.1, 1e-1, 0.10, 1.0e-1]}\n")  # fmt: skip
    assert (len(found.runs), found.duplicates) == (1, 3)


def test_settings_that_mean_nothing_for_dense_collapse_into_one_run() -> None:
    found = expansion(
        BASE, grid={"method": ["dense", "rigl-itop"], "sparsity": [0.5, 0.9], "update_interval": [5, 9, 13]}
    )
    assert [run.method for run in found.runs.values()] == ["dense", *["rigl-itop"] * 6]
    assert (found.points, found.duplicates) == (12, 5)
    assert found.ignored == {("dense", ("sparsity", "update_interval")): 6}


def test_settings_that_mean_nothing_for_static_collapse_for_each_sparsity() -> None:
    found = expansion({**SPARSE, "method": "static"}, grid={"sparsity": [0.5, 0.9], "update_interval": [5, 9, 13]})
    assert settings_of(found.runs, "sparsity", "update_interval") == [(0.5, None), (0.9, None)]
    assert found.ignored == {("static", ("update_interval",)): 6}


def test_an_interval_in_epochs_and_the_same_in_steps_are_one_run() -> None:
    found = expansion(grid={"update_interval": ["1 epoch", 11, "1.0 epochs"]})
    assert settings_of(found.runs, "update_interval") == [(11,)]


def test_a_run_that_matches_all_keys_of_an_exclude_entry_is_left_out() -> None:
    found = expansion(
        grid={"method": ["set-itop", "rigl-itop"], "update_interval": [500, 1500]},
        exclude=[{"method": "rigl-itop", "update_interval": 500}],
    )
    assert settings_of(found.runs, "method", "update_interval") == [
        ("set-itop", 500), ("set-itop", 1500), ("rigl-itop", 1500),
    ]  # fmt: skip
    assert (found.points, found.excluded) == (3, 1)


@pytest.mark.parametrize(
    ("entry", "left"),
    [
        ({"sparsity": 0.5}, [0.9]),
        ({"sparsity": [0.5, 0.7]}, [0.9]),
        ({"density": 0.1}, [0.5]),
        ({"density": 0.5, "seed": 0}, [0.9]),
        ({"optimizer.lr": 0.1, "sparsity": 0.9}, [0.5]),
        ({"optimizer": {"lr": 0.1}, "sparsity": 0.9}, [0.5]),
        ({"growth": "gradient", "sparsity": 0.9}, [0.5]),  # from the method's preset
        ({"update_interval": "1 epoch", "sparsity": 0.9}, [0.5]),  # as it was typed
        ({"update_interval": 11, "sparsity": 0.9}, [0.5]),  # as it was resolved
        ({"lr_schedule.milestones": [0.5, 0.75], "sparsity": 0.9}, [0.5]),
    ],
)
def test_an_exclude_entry_matches_what_the_run_is_however_it_was_written(
    entry: dict[str, Any], left: list[float]
) -> None:
    found = expansion({**SPARSE, "update_interval": "1 epoch"}, grid={"sparsity": [0.5, 0.9]}, exclude=[entry])
    assert [run.sparsity for run in found.runs.values()] == left


def test_an_entry_in_epochs_matches_an_interval_that_the_method_brings() -> None:
    base = {**SPARSE, "method": "set"}  # once an epoch
    found = expansion(base, grid={"seed": 2}, exclude=[{"update_interval": "1 epoch", "seed": 0}])
    assert settings_of(found.runs, "seed", "update_interval") == [(1, 11)]


def test_an_exclude_entry_that_matches_nothing_is_a_warning_with_its_line() -> None:
    found = expanded(
        "name: a\nbase: {dataset: digits, model: lenet-5, method: dense, epochs: 1}\n"
        "grid: {seed: 2}\nexclude:\n- {seed: 1}\n- {seed: 7}\n"
    )
    assert found.warnings == ("spec.yaml:6: exclude[1]: {seed: 7} matches no run.",)


@pytest.mark.parametrize(
    "value", [10**400, "x", None, True, [], {"a": 1}, float("inf")], ids=lambda value: ascii(value)[:9]
)
def test_an_exclude_entry_of_any_value_is_compared_and_matches_nothing(value: object) -> None:
    assert len(expansion(exclude=[{"sparsity": value}]).warnings) == 1


def test_excluding_everything_leaves_nothing_to_run() -> None:
    message = complaint(spec_text(grid={"seed": 2}, exclude=[{"sparsity": 0.9}]))
    assert message == "spec.yaml:1: expands to no run at all: all 2 points left out by exclude."


def test_included_blocks_add_their_runs_on_top_of_the_outer_base() -> None:
    found = expansion(
        grid={"sparsity": [0.5, 0.9]},
        include=[
            {"base": {"method": "dense"}, "grid": {"seed": 2}},
            {"base": {"epochs": 7}, "zip": {"sparsity": [0.1, 0.2]}, "exclude": [{"sparsity": 0.1}]},
        ],
    )
    assert settings_of(found.runs, "method", "sparsity", "seed", "epochs") == [
        ("rigl-itop", 0.5, 0, 2000), ("rigl-itop", 0.9, 0, 2000), ("dense", 0.0, 0, 2000), ("dense", 0.0, 1, 2000),
        ("rigl-itop", 0.2, 0, 7),
    ]  # fmt: skip


def test_points_that_two_blocks_share_are_one_run() -> None:
    found = expansion(grid={"seed": 2}, include=[{"grid": {"seed": 3}}])
    assert (len(found.runs), found.duplicates) == (3, 2)


def test_a_spec_of_included_blocks_alone_has_no_run_of_the_bare_base() -> None:
    found = expansion(BASE, include=[{"base": {"method": "dense"}}])
    assert settings_of(found.runs, "method") == [("dense",)]


def test_two_specs_that_share_points_share_their_runs() -> None:
    one = expansion(grid={"seed": [0, 1, 2], "sparsity": [0.5]})
    two = expansion({**BASE, "method": "rigl-itop"}, grid={"density": [0.5], "seed": [2, 3]})
    shared = one.runs.keys() & two.runs.keys()
    assert [one.runs[name].seed for name in shared] == [2]


def test_a_spec_that_gained_points_keeps_the_runs_it_had() -> None:
    before = expansion(grid={"sparsity": [0.5], "seed": 2})
    after = expansion(grid={"seed": 3, "sparsity": [0.9, 0.5]})
    assert before.runs.keys() < after.runs.keys()


def test_the_limit_is_the_most_points_a_spec_may_have() -> None:
    text = spec_text(grid={"seed": 10})
    assert len(expanded(text, limit=10).runs) == 10
    assert complaint(text, limit=9) == (
        "spec.yaml:1: expands to 10 runs, more than the limit of 9; raise it with --max-runs 10."
    )


def test_the_limit_counts_the_points_of_all_blocks() -> None:
    text = spec_text(grid={"seed": 6}, include=[{"grid": {"seed": 6}}])
    assert "expands to 12 runs" in complaint(text, limit=10)


def test_an_enormous_grid_is_refused_before_it_is_expanded() -> None:
    numbers = list(range(1, 101))
    text = spec_text(grid={"seed": 100_000, "epochs": numbers, "batch_size": numbers, "sparsity": [0.1] * 100})
    assert "expands to 100,000,000,000 runs, more than the limit of 10,000" in complaint(text)


def test_an_override_wins_over_base_preset_and_axis() -> None:
    found = expanded(
        spec_text(grid={"sparsity": [0.5, 0.9], "seed": 2}), "sparsity=0.7", "epochs=9", "optimizer.lr=1e-2",
        "update_interval=1 epoch",
    )  # fmt: skip
    assert settings_of(found.runs, "sparsity", "epochs", "update_interval", "seed") == [
        (0.7, 9, 11, 0), (0.7, 9, 11, 1),
    ]  # fmt: skip
    assert {run.optimizer.lr for run in found.runs.values()} == {0.01}
    assert found.duplicates == 2


def test_the_last_override_of_a_setting_wins() -> None:
    (run,) = expanded(spec_text(), "epochs=3", "epochs=4", "sparsity=0.5", "density=0.2").runs.values()
    assert (run.epochs, run.sparsity) == (4, 0.8)


def test_an_override_may_be_a_part_or_a_list() -> None:
    (run,) = expanded(spec_text(), "optimizer={name: adam, lr: 0.01}", "keep_dense=[conv*]").runs.values()
    assert (run.optimizer.name, run.optimizer.lr, run.keep_dense) == ("adam", 0.01, ("conv*",))


def test_an_override_spells_the_same_run_as_the_file_does() -> None:
    assert expanded(spec_text(), "sparsity=0.5").runs == expansion({**SPARSE, "sparsity": 0.5}).runs


def test_an_override_is_there_when_exclusions_are_matched() -> None:
    assert "left out by exclude" in complaint(spec_text(exclude=[{"sparsity": 0.5}]), "sparsity=0.5")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs", "--set epochs: key=value expected, such as --set epochs=1."),
        ("=5", "--set =5: key=value expected, such as --set epochs=1."),
        ("", "--set : key=value expected, such as --set epochs=1."),
        ("epoch=5", "--set epoch=5: epoch: unknown setting 'epoch'. Did you mean 'epochs'?"),
        ("epochs=five", "--set epochs=five: epochs: found 'five'; a valid integer expected"),
        ("epochs=", "--set epochs=: epochs: found null; a valid integer expected"),
        ("epochs=[1]", "--set epochs=[1]: epochs: found [1]; a valid integer expected"),
        ("epochs=true", "--set epochs=true: epochs: found true; a valid integer expected"),
        ("sparsity=1.5", "--set sparsity=1.5: sparsity: found 1.5; less than 1 expected"),
        ("optimizer.lr=.nan", "--set optimizer.lr=.nan: optimizer.lr: found nan; a finite number expected"),
        ("optimizer=sgd", "--set optimizer=sgd: optimizer: a mapping with name, lr, "),
        ("growth=gradien", "--set growth=gradien: growth: unknown growth rule 'gradien'. Did you mean 'gradient'?"),
        ("epochs={a: 1, a: 2}", "--set epochs={a: 1, a: 2}:1: a: the same key twice"),
    ],
)
def test_a_wrong_override_is_refused_by_its_own_name(override: str, message: str) -> None:
    assert complaint(spec_text(), override).startswith(message)


@pytest.mark.parametrize("override", ["epochs=[", "epochs=*x", "epochs=a: b: c", "epochs='"])
def test_an_override_that_is_not_yaml_is_refused(override: str) -> None:
    message = complaint(spec_text(), override)
    assert message.startswith(f"--set {override}") and "not valid YAML" in message


def test_a_wrong_value_in_a_grid_is_refused_with_its_place_in_the_list() -> None:
    text = "name: a\nbase: {dataset: digits, model: lenet-5, method: set, epochs: 1}\n"
    message = complaint(text + "grid:\n  sparsity:\n  - 0.5\n  - 1.5\n")
    assert message.startswith("spec.yaml:6: grid.sparsity[1]: found 1.5; less than 1 expected")
