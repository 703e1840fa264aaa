"""The drop fraction ζ as a function of the step, and the steps at which the topology is updated. Pure arithmetic."""

from __future__ import annotations

import math

from itopctl.dst.rules import Rules


def last_update_before(rules: Rules, total_steps: int) -> int:
    """First step at which no update happens any more: `stop` × total_steps, rounded up (but for float dust)."""
    assert rules.drop_schedule is not None
    return math.ceil(round(rules.drop_schedule.stop * total_steps, 6))


def drop_fraction_at(rules: Rules, step: int, total_steps: int) -> float | None:
    """ζ where an update is due after `step` optimizer steps, else None.

    Updates are due at ΔT, 2ΔT, … strictly before `stop` × total_steps: an update at the very last step would
    cut weights that nothing could train again. Cosine: RigL eq. 1, with ITOP's floor.
    """
    if not rules.dynamic:
        return None
    assert rules.update_interval and rules.drop_schedule and rules.drop_fraction is not None
    if step <= 0 or step % rules.update_interval:
        return None  # asked at every step: nothing else is worked out for most of them
    end = last_update_before(rules, total_steps)
    if step >= end:
        return None
    start, final, progress = rules.drop_fraction, rules.drop_schedule.final, step / end
    match rules.drop_schedule.name:
        case "cosine":
            return final + (start - final) / 2 * (1 + math.cos(math.pi * progress))
        case "linear":
            return start + (final - start) * progress
        case "constant":
            return start
    raise ValueError(f"unknown drop schedule {rules.drop_schedule.name!r}")


def update_fractions(rules: Rules, total_steps: int) -> list[float]:
    """ζ at every update of a training of `total_steps`, in order."""
    if not rules.dynamic:
        return []
    assert rules.update_interval
    due = (drop_fraction_at(rules, step, total_steps) for step in range(0, total_steps + 1, rules.update_interval))
    return [zeta for zeta in due if zeta is not None]
