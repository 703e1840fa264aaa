"""The planner of exploration: against brute force, and against what the engine's random growth really explores."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from statistics import fmean, stdev

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from itopctl.catalogue import DROPS, GROWTHS
from itopctl.dst import SparseTraining, expected_exploration, expected_layer_exploration, interval_for_exploration
from itopctl.dst.expected import (
    explored_with_interval,
    how_known,
    most_layer_exploration,
    predicted_layer_exploration,
    replaced_weights,
)
from itopctl.dst.rules import DropSchedule, Rules
from itopctl.dst.schedule import drop_fraction_at, last_update_before, next_update
from itopctl.errors import UserError
from tests.dst.nets import mlp, modest, plain_sgd

Shares = dict[str, tuple[int, int]]

schedules = st.builds(
    lambda name, start, share, hundredths: (start, DropSchedule(name, final=share * start, stop=hundredths / 100)),
    st.sampled_from(["cosine", "linear", "exponential", "constant"]),
    st.floats(0.01, 1.0),
    st.floats(0.0, 1.0),
    st.integers(1, 100),
)
layers = st.integers(1, 400).flatmap(lambda size: st.tuples(st.integers(1, size), st.just(size)))
networks = st.lists(layers, min_size=1, max_size=4).map(lambda found: {str(i): share for i, share in enumerate(found)})


def rules(start: float, schedule: DropSchedule, rounding: str = "ceil", interval: int = 1) -> Rules:
    return Rules.of_method(
        "set-itop",
        drop_fraction=start,
        drop_schedule=schedule,
        replace_rounding=rounding,
        update_interval=interval,
    )


def rate(made: Rules, shares: Shares, total_steps: int, interval: int) -> float:
    """Expected R_s, the weights that stay unexplored counted update by update."""
    made, unexplored = made.with_interval(interval), 0.0
    for active, size in shares.values():
        left = float(size - active)
        for step in range(1, total_steps + 1):
            zeta = drop_fraction_at(made, step, total_steps)
            if zeta is not None and left:
                grown = made.count_to_replace(active, zeta)
                left -= left * grown / (size - active + grown)
        unexplored += left
    return 1 - unexplored / sum(size for _, size in shares.values())


# The interval ---------------------------------------------------------------------------------------------


@modest(400)
@given(schedules, st.sampled_from(["ceil", "floor"]), networks, st.integers(1, 120), st.data())
def test_the_interval_is_the_largest_that_reaches_the_target(schedule, rounding, shares, total_steps, data):
    made = rules(*schedule, rounding)
    assume(last_update_before(made, total_steps) > 1)
    rates = {interval: rate(made, shares, total_steps, interval) for interval in range(1, total_steps + 1)}
    just_below = st.sampled_from(sorted(set(rates.values()))).map(lambda reached: reached - 1e-9)
    target = data.draw(just_below | st.floats(0.001, 1.0))
    assume(0 < target <= 1)
    assume(all(abs(reached - target) > 1e-12 for reached in rates.values()))
    reaching = [interval for interval, reached in rates.items() if reached >= target]
    if reaching:
        # Intervals that never come to an update are all alike; the first of them says so.
        never = last_update_before(made, total_steps)
        assert interval_for_exploration(target, made, shares, total_steps) == min(max(reaching), never)
    else:
        with pytest.raises(UserError, match="out of reach") as error:
            interval_for_exploration(target, made, shares, total_steps)
        assert f"explores {rates[1]:.4f}" in str(error.value)


def test_a_drop_fraction_that_rises_is_refused():
    with pytest.raises(UserError, match="rises"):
        interval_for_exploration(0.5, rules(0.1, DropSchedule("linear", final=0.9)), {"a": (20, 100)}, 50)


@modest(60)
@given(schedules, networks, st.integers(150, 200), st.sampled_from(["ceil", "floor"]), st.floats(0.0, 1.0))
def test_the_next_longer_interval_explores_too_little(schedule, shares, total_steps, rounding, place):
    made = rules(*schedule, rounding)
    low, high = (rate(made, shares, total_steps, interval) for interval in (total_steps, 1))
    target = low + (high - low) * place
    assume(low < target < high)
    interval = interval_for_exploration(target, made, shares, total_steps)
    assert rate(made, shares, total_steps, interval) >= target - 1e-12
    for longer in range(interval + 1, total_steps + 1):
        assert rate(made, shares, total_steps, longer) < target + 1e-12


def test_a_target_that_the_initial_network_reaches_needs_no_update():
    made = rules(0.5, DropSchedule("constant"))
    assert interval_for_exploration(0.19, made, {"a": (20, 100)}, 50) == 50


@pytest.mark.parametrize("stop", [1.0, 0.01])
def test_a_target_that_the_initial_network_reaches_is_within_reach_of_a_training_without_any_update(stop):
    made = rules(0.5, DropSchedule("constant", stop=stop))
    assert interval_for_exploration(0.19, made, {"a": (20, 100)}, 1) == 1
    with pytest.raises(UserError, match="out of reach"):
        interval_for_exploration(0.21, made, {"a": (20, 100)}, 1)


def test_a_target_out_of_reach_names_what_is_reached():
    made = rules(0.1, DropSchedule("constant"))
    # One update of 2 among 82 weights: 18 + 2/82 of 80 … all but 80·80/82 are explored.
    with pytest.raises(UserError, match=rf"0.9 is out of reach: .* 2 steps explores {1 - 0.8 * 80 / 82:.4f}"):
        interval_for_exploration(0.9, made, {"a": (20, 100)}, 2)


@pytest.mark.parametrize("target", [0.0, -0.5, 1.01, math.nan])
def test_a_target_outside_the_unit_interval_is_the_users_error(target):
    with pytest.raises(UserError, match="outside"):
        interval_for_exploration(target, rules(0.5, DropSchedule()), {"a": (1, 10)}, 50)


@pytest.mark.parametrize("method", ["static", "dense"])
def test_a_fixed_topology_has_no_interval(method):
    with pytest.raises(UserError, match="never changes"):
        interval_for_exploration(0.5, Rules.of_method(method), {"a": (1, 10)}, 50)


def test_the_interval_of_rules_does_not_matter_and_a_long_training_is_no_work():
    shares = {"a": (50_000, 1_000_000), "b": (3_000, 30_000)}
    found = {
        interval_for_exploration(0.5, rules(0.5, DropSchedule(final=0.005), interval=interval), shares, 88_000)
        for interval in (1, 1500, 90_000)
    }
    assert len(found) == 1
    made, interval = rules(0.5, DropSchedule(final=0.005)), found.pop()
    assert 1500 < interval < 2500  # ΔT = 1500 explores .5553 of a layer at density .05
    total = [weighted(expected_layer_exploration(made.with_interval(i), shares, 88_000), shares)
             for i in (interval, interval + 1)]  # fmt: skip
    assert total[0] >= 0.5 > total[1]


def weighted(rates: dict[str, float], shares: Shares) -> float:
    return sum(rates[name] * size for name, (_, size) in shares.items()) / sum(size for _, size in shares.values())


# The expectation ------------------------------------------------------------------------------------------


@modest(100)
@given(schedules, st.sampled_from(["ceil", "floor"]), networks, st.integers(1, 60), st.integers(1, 20))
def test_the_expectation_of_every_layer_is_that_of_the_counts_replaced(schedule, rounding, shares, total, interval):
    made = rules(*schedule, rounding, interval)
    found = expected_layer_exploration(made, shares, total)
    assert list(found) == list(shares)
    for name, share in shares.items():
        assert found[name] == pytest.approx(rate(made, {name: share}, total, interval), abs=1e-12)


def test_where_every_count_is_whole_the_expectation_is_the_closed_form():
    made = rules(0.5, DropSchedule("constant"), interval=10)
    found = expected_layer_exploration(made, {"a": (20, 100), "b": (4, 40), "dense": (9, 9)}, 100)
    assert found["a"] == pytest.approx(expected_exploration(0.2, [0.5] * 9))
    assert found["b"] == pytest.approx(expected_exploration(0.1, [0.5] * 9))
    assert found["dense"] == 1.0


def test_rounding_up_explores_more_than_rounding_down():
    shares = {"a": (3, 50)}
    up, down = (
        expected_layer_exploration(rules(0.3, DropSchedule("constant"), rounding), shares, 30)["a"]
        for rounding in ("ceil", "floor")
    )
    assert down == pytest.approx(3 / 50)  # .9 of a weight: none is ever replaced
    assert up == pytest.approx(1 - 47 / 50 * (47 / 48) ** 29)


@pytest.mark.parametrize("rounding", ["ceil", "floor"])
@pytest.mark.parametrize("sparsity", [0.97, 0.85, 0.5])
@pytest.mark.parametrize("allocation", ["erk", "uniform"])
def test_the_engine_explores_what_is_expected_in_every_layer_and_in_all(rounding, sparsity, allocation):
    settings = {
        "sparsity": sparsity, "total_steps": 40, "update_interval": 3, "replace_rounding": rounding,
        "drop_fraction": 0.4, "drop_schedule": {"name": "cosine", "final": 0.05}, "allocation": allocation,
    }  # fmt: skip
    seeds, measured = 40, {}
    for seed in range(seeds):
        model = mlp(30, 40, 7, bias=False)
        sparse = SparseTraining(model, plain_sgd(model), "set-itop", seed=seed, **settings)
        shares = {layer.name: (layer.active, layer.size) for layer in sparse.layers()}
        for _ in range(40):
            sparse.step()
        for layer in sparse.layers():
            measured.setdefault(layer.name, []).append(layer.exploration_rate)
        measured.setdefault("total", []).append(sparse.exploration_rate)
    expected = expected_layer_exploration(sparse.rules, shares, 40)
    expected["total"] = weighted(expected, shares)
    for name, rates in measured.items():
        error = stdev(rates) / math.sqrt(seeds)
        assert abs(fmean(rates) - expected[name]) <= 4 * error + 1e-12, (name, fmean(rates), expected[name], error)


@modest(100)
@given(schedules, st.sampled_from(["ceil", "floor"]), networks, st.integers(1, 60), st.integers(1, 20))
def test_the_weights_replaced_are_counted_as_the_engine_counts_them(schedule, rounding, shares, total, interval):
    made = rules(*schedule, rounding, interval)
    fractions = [zeta for step in range(total + 1) if (zeta := drop_fraction_at(made, step, total)) is not None]
    assert replaced_weights(made, shares, total) == {
        name: sum(made.count_to_replace(active, zeta) for zeta in fractions) for name, (active, _) in shares.items()
    }


@modest(100)
@given(schedules, st.sampled_from(["ceil", "floor"]), networks, st.integers(1, 60), st.integers(1, 20))
def test_random_growth_explores_no_more_than_growth_of_unexplored_weights(schedule, rounding, shares, total, interval):
    made = rules(*schedule, rounding, interval)
    expected, most = (of(made, shares, total) for of in (expected_layer_exploration, most_layer_exploration))
    assert all(active / size - 1e-12 <= expected[name] for name, (active, size) in shares.items())
    assert all(expected[name] <= most[name] + 1e-12 and most[name] <= 1 for name in shares)


@pytest.mark.parametrize("total_steps", [20, 120])
def test_growth_of_unexplored_weights_explores_exactly_what_is_counted(total_steps):
    model = mlp(30, 40, 7, bias=False)
    sparse = SparseTraining(
        model, plain_sgd(model), "set-itop", sparsity=0.9, growth="random-unexplored", total_steps=total_steps,
        update_interval=3,
    )  # fmt: skip
    shares = {layer.name: (layer.active, layer.size) for layer in sparse.layers()}
    for _ in range(total_steps):
        sparse.step()
    found, known = predicted_layer_exploration(sparse.rules, shares, total_steps)
    assert known == "exact"
    assert found == {layer.name: layer.exploration_rate for layer in sparse.layers()}
    assert (max(found.values()) == 1.0) == (total_steps == 120)


def test_an_interval_is_found_for_growth_of_unexplored_weights_too():
    made = Rules.of_method("set-itop", growth="random-unexplored", update_interval=1)
    shares = {"a": (50, 1000)}
    interval = interval_for_exploration(0.6, made, shares, 1000)
    reached = [explored_with_interval(i, made, shares, 1000) for i in (interval, interval + 1)]
    assert reached[0] >= 0.6 > reached[1]
    assert interval > interval_for_exploration(0.6, rules(0.5, DropSchedule(final=0.005)), shares, 1000)


# What is known ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("drop", "growth", "redistribution", "known"),
    [
        ("magnitude", "random", "none", "expected"),
        ("sign-split", "random", "none", "expected"),
        ("mest", "random", "none", "expected"),
        ("magnitude", "random-unexplored", "none", "exact"),
        ("magnitude", "gradient", "none", "upper"),
        ("magnitude", "momentum", "momentum", "upper"),
        ("magnitude", "sampled-gradient", "none", "upper"),
        ("magnitude", "gradient-plus-exploration", "none", "bound"),
        ("global-magnitude", "random", "none", "approximate"),
        ("magnitude", "random", "nonzeros", "approximate"),
        ("magnitude", "gradient-plus-exploration", "nonzeros", "unknown"),
        ("threshold", "random", "none", "unknown"),
    ],
)
def test_it_is_said_how_well_exploration_is_known(drop, growth, redistribution, known):
    assert how_known(drop, growth, redistribution) == known


def test_every_rule_says_what_is_known_of_it():
    found = {how_known(drop, growth) for drop in DROPS.names() for growth in GROWTHS.names()}
    assert found == {"expected", "exact", "upper", "bound", "approximate", "unknown"}


def test_functions_of_the_users_own_are_not_imported_where_that_is_not_wanted(tmp_path, monkeypatch):
    (tmp_path / "loud_rules.py").write_text("raise SystemExit('imported')\ndef mine(layer): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert how_known("magnitude", "loud_rules:mine", import_own=False) == "bound"
    assert how_known("loud_rules:mine", "random", import_own=False) == "unknown"
    with pytest.raises(SystemExit, match="imported"):
        how_known("magnitude", "loud_rules:mine")


@pytest.mark.parametrize(("declared", "known"), [("@rule()", "expected"), ("@rule(chooses=True)", "unknown")])
def test_a_drop_rule_of_the_users_own_drops_as_many_as_it_must_unless_it_chooses(
    tmp_path, monkeypatch, declared, known
):
    name = f"own_drop_{known}"
    (tmp_path / f"{name}.py").write_text(f"from itopctl.dst import rule\n{declared}\ndef mine(layer): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert how_known(f"{name}:mine", "random") == known


def test_a_network_that_does_not_change_is_known_exactly():
    shares = {"a": (20, 100), "b": (5, 5)}
    assert predicted_layer_exploration(Rules.of_method("static"), shares, 50) == ({"a": 0.2, "b": 1.0}, "exact")
    dense = {"a": (100, 100)}
    assert predicted_layer_exploration(rules(0.5, DropSchedule()), dense, 50) == ({"a": 1.0}, "exact")
    never_updated = Rules.of_method("rigl", update_interval=50, drop="threshold")
    assert predicted_layer_exploration(never_updated, {"a": (20, 100)}, 50) == ({"a": 0.2}, "exact")


def test_planning_imports_neither_torch_nor_numpy_before_it_counts():
    code = (
        "import sys; import itopctl.dst.expected as e; assert not {'torch', 'numpy'} & set(sys.modules);"
        "from itopctl.dst.rules import Rules; r = Rules.of_method('set-itop');"
        "e.predicted_layer_exploration(r, {'a': (5, 50)}, 9000); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# The schedule ---------------------------------------------------------------------------------------------


@modest(200)
@given(schedules, st.integers(1, 150), st.integers(1, 40))
def test_the_next_update_is_the_first_step_at_which_one_is_due(schedule, total, interval):
    made = rules(*schedule, interval=interval)
    due = [step for step in range(total + 1) if drop_fraction_at(made, step, total) is not None]
    for step in range(-2, total + 3):
        assert next_update(made, step, total) == next(itertools.chain((at for at in due if at >= step), [None]))


@pytest.mark.parametrize("method", ["static", "dense"])
def test_a_fixed_topology_has_no_next_update(method):
    assert next_update(Rules.of_method(method), 1, 100) is None


def test_the_exponential_schedule_takes_the_hand_computed_values():
    # .1 + .4·(1 − t/100)³: a half cubed is 1/8, a quarter cubed 1/64, three quarters cubed 27/64.
    cubic = rules(0.5, DropSchedule("exponential", final=0.1))
    assert drop_fraction_at(cubic, 25, 100) == pytest.approx(0.1 + 0.4 * 27 / 64)
    assert drop_fraction_at(cubic, 50, 100) == pytest.approx(0.15)
    assert drop_fraction_at(cubic, 75, 100) == pytest.approx(0.1 + 0.4 / 64)


def test_the_power_of_the_exponential_schedule_can_be_chosen_and_it_ends_at_the_stop():
    squared = rules(0.4, DropSchedule("exponential", stop=0.5, power=2.0))
    assert drop_fraction_at(squared, 25, 100) == pytest.approx(0.1)
    assert drop_fraction_at(squared, 40, 100) == pytest.approx(0.4 * 0.04)
    assert drop_fraction_at(squared, 50, 100) is None
    root = rules(0.4, DropSchedule("exponential", power=0.5))
    assert drop_fraction_at(root, 75, 100) == pytest.approx(0.2)


def test_a_power_of_zero_or_less_is_the_users_error():
    with pytest.raises(UserError, match="power"):
        DropSchedule("exponential", power=0.0)
