from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from itopctl.dst.rules import DropSchedule, Rules
from itopctl.dst.schedule import drop_fraction_at, update_fractions
from tests.dst.nets import modest


def rules(schedule: DropSchedule, start: float = 0.5, interval: int = 1) -> Rules:
    return Rules.of_method("set-itop", drop_schedule=schedule, drop_fraction=start, update_interval=interval)


def test_cosine_with_a_floor_takes_the_hand_computed_values():
    # .005 + .495/2·(1 + cos(π·t/1200)): cos is √½, ½, 0, -½, -√½ at 300, 400, 600, 800, 900.
    itop = rules(DropSchedule("cosine", final=0.005))
    assert drop_fraction_at(itop, 300, 1200) == pytest.approx(0.005 + 0.2475 * (1 + math.sqrt(0.5)))
    assert drop_fraction_at(itop, 400, 1200) == pytest.approx(0.37625)
    assert drop_fraction_at(itop, 600, 1200) == pytest.approx(0.2525)
    assert drop_fraction_at(itop, 800, 1200) == pytest.approx(0.12875)
    assert drop_fraction_at(itop, 900, 1200) == pytest.approx(0.005 + 0.2475 * (1 - math.sqrt(0.5)))


def test_cosine_to_zero_ends_where_rigl_stops():
    # .15·(1 + cos(π·t/750)): the schedule runs over three quarters of 1000 steps.
    rigl = Rules.of_method("rigl", update_interval=125)
    expected = {125: 0.15 * (1 + math.sqrt(0.75)), 250: 0.225, 375: 0.15, 500: 0.075, 625: 0.15 * (1 - math.sqrt(0.75))}
    for step in range(1001):
        assert drop_fraction_at(rigl, step, 1000) == (pytest.approx(expected[step]) if step in expected else None)


def test_linear_goes_straight_from_start_to_final():
    linear = rules(DropSchedule("linear", final=0.1), start=0.5)
    assert drop_fraction_at(linear, 25, 100) == pytest.approx(0.4)
    assert drop_fraction_at(linear, 50, 100) == pytest.approx(0.3)
    assert drop_fraction_at(linear, 75, 100) == pytest.approx(0.2)


def test_linear_reaches_its_final_value_at_the_stop():
    linear = rules(DropSchedule("linear", final=0.0, stop=0.5), start=0.4)
    assert drop_fraction_at(linear, 25, 100) == pytest.approx(0.2)
    assert drop_fraction_at(linear, 49, 100) == pytest.approx(0.008)
    assert drop_fraction_at(linear, 50, 100) is None


def test_constant_stays():
    constant = rules(DropSchedule("constant"), start=0.3, interval=10)
    assert update_fractions(constant, 100) == [0.3] * 9


def test_updates_are_due_at_multiples_of_the_interval_and_not_at_the_last_step():
    constant = rules(DropSchedule("constant"), interval=10)
    due = [step for step in range(-20, 130) if drop_fraction_at(constant, step, 100) is not None]
    assert due == [10, 20, 30, 40, 50, 60, 70, 80, 90]


@modest(300)
@given(st.integers(1, 100), st.integers(1, 400), st.integers(1, 50))
def test_updates_are_strictly_before_the_stop(hundredths, total, interval):
    due = [
        step
        for step in range(total + 1)
        if drop_fraction_at(rules(DropSchedule("constant", stop=hundredths / 100), interval=interval), step, total)
    ]
    assert due == [step for step in range(interval, total, interval) if 100 * step < hundredths * total]


def test_a_stop_whose_product_is_not_exact_in_binary_is_still_strict():
    # .55·100 is 55.00000000000001 in floating point; step 55 is at the stop all the same.
    constant = rules(DropSchedule("constant", stop=0.55), interval=5)
    assert drop_fraction_at(constant, 50, 100) == 0.5
    assert drop_fraction_at(constant, 55, 100) is None


@modest(200)
@given(
    st.sampled_from(["cosine", "linear", "constant"]),
    st.floats(0.01, 1.0),
    st.floats(0.0, 0.99),
    st.integers(1, 300),
    st.integers(1, 20),
)
def test_the_fraction_never_rises_and_stays_between_final_and_start(name, start, share, total, interval):
    final = share * start
    fractions = update_fractions(rules(DropSchedule(name, final=final), start, interval), total)
    assert all(final - 1e-12 <= zeta <= start + 1e-12 for zeta in fractions)
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(fractions))


def test_set_itop_over_88000_steps_updates_58_times_with_a_sum_of_14_56():
    fractions = update_fractions(Rules.of_method("set-itop"), 88_000)
    assert len(fractions) == 58
    assert sum(fractions) == pytest.approx(14.56, abs=0.005)


def test_the_list_of_fractions_is_what_every_step_would_say():
    rigl = Rules.of_method("rigl", update_interval=7)
    one_by_one = [drop_fraction_at(rigl, step, 500) for step in range(501)]
    assert update_fractions(rigl, 500) == [zeta for zeta in one_by_one if zeta is not None]


@pytest.mark.parametrize("method", ["dense", "static"])
def test_a_fixed_topology_is_never_updated(method):
    assert update_fractions(Rules.of_method(method), 10_000) == []
    assert all(drop_fraction_at(Rules.of_method(method), step, 100) is None for step in range(101))


def test_a_training_shorter_than_the_interval_has_no_update():
    assert update_fractions(Rules.of_method("set-itop"), 1500) == []
    assert len(update_fractions(Rules.of_method("set-itop"), 1501)) == 1
