"""The drop fraction ζ as a function of the step, and the steps at which the topology is updated. Pure arithmetic.

A drop schedule is a function of the progress in [0, 1) that returns how far ζ still is from its final value, 1 at
the start. It also gets the schedule's power.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from itopctl.catalogue import DROP_SCHEDULES

if TYPE_CHECKING:
    from itopctl.dst.rules import Rules


@DROP_SCHEDULES.add("cosine", source="Evci et al. 2020, eq. 1; Liu et al. 2021, with a floor")
def cosine(progress: float, power: float) -> float:
    """half a cosine from drop_fraction to `final`"""
    return (1 + math.cos(math.pi * progress)) / 2


@DROP_SCHEDULES.add("linear", source="Dettmers and Zettlemoyer 2019 (arXiv 1907.04840)")
def linear(progress: float, power: float) -> float:
    """straight from drop_fraction to `final`"""
    return 1 - progress


@DROP_SCHEDULES.add("exponential", source="Evci et al. 2020, code: (1 − progress) to the power", power=3.0)
def exponential(progress: float, power: float) -> float:
    """from drop_fraction to `final` as (1 − progress) to the `power`"""
    return float((1 - progress) ** power)


@DROP_SCHEDULES.add("constant", source="Mocanu et al. 2018")
def constant(progress: float, power: float) -> float:
    """drop_fraction throughout"""
    return 1.0


def last_update_before(rules: Rules, total_steps: int) -> int:
    """First step at which no update happens any more: `stop` × total_steps, rounded up (but for float dust)."""
    assert rules.drop_schedule is not None
    return math.ceil(round(rules.drop_schedule.stop * total_steps, 6))


def drop_fraction_at(rules: Rules, step: int, total_steps: int) -> float | None:
    """ζ where an update is due after `step` optimizer steps, else None.

    Updates are due at ΔT, 2ΔT, … strictly before `stop` × total_steps: an update at the very last step would
    cut weights that nothing could train again.
    """
    if not rules.dynamic:
        return None
    assert rules.update_interval and rules.drop_schedule and rules.drop_fraction is not None
    if step <= 0 or step % rules.update_interval:
        return None  # asked at every step: nothing else is worked out for most of them
    end = last_update_before(rules, total_steps)
    if step >= end:
        return None
    schedule, start = rules.drop_schedule, rules.drop_fraction
    entry = DROP_SCHEDULES.get(schedule.name)
    assert entry.function is not None
    left = entry.function(step / end, schedule.power or entry.options.get("power", 1.0))
    return start if left == 1.0 else schedule.final + (start - schedule.final) * left


def next_update(rules: Rules, step: int, total_steps: int) -> int | None:
    """The first step, `step` or later, after which an update is due; None where there is none any more."""
    if not rules.dynamic:
        return None
    assert rules.update_interval
    due = max(1, math.ceil(step / rules.update_interval)) * rules.update_interval
    return due if due < last_update_before(rules, total_steps) else None


def update_fractions(rules: Rules, total_steps: int) -> list[float]:
    """ζ at every update of a training of `total_steps`, in order."""
    if not rules.dynamic:
        return []
    assert rules.update_interval
    due = (drop_fraction_at(rules, step, total_steps) for step in range(0, total_steps + 1, rules.update_interval))
    return [zeta for zeta in due if zeta is not None]
