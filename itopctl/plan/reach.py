"""The update interval that reaches a wanted exploration rate, or in a sentence why none does, and what would."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

from itopctl.config.run_config import RunConfig, user_functions
from itopctl.dst.expected import (
    Shares,
    expected_layer_exploration,
    explored_with_interval,
    how_known,
    interval_for_exploration,
    replaced_weights,
)
from itopctl.dst.network_outline import Outline
from itopctl.dst.rules import Rules
from itopctl.errors import UserError, plural
from itopctl.forking import value_from_child
from itopctl.plan.forecast import same_but_seed

_LONGEST = 1_000  # times the training: nobody trains longer for it
_COUNTED_STEPS = 2_000_000  # longer trainings are extrapolated, not counted update by update


_found: dict[tuple[float, str], int] = {}


def interval_for(target: float, config: RunConfig, outline_of: Callable[[RunConfig], Outline]) -> int:
    """`interval_reaching` of a run, once for all seeds.

    Functions of the user's own are called in a child process: what their modules set there changes no other run.

    Args:
        target: R_s, in (0, 1].
        config: the run.
        outline_of: the outline of its network; raises UserError where there can be none.

    Raises:
        UserError: see `interval_reaching`; or there is no outline.
    """
    key = target, same_but_seed(config)
    if key not in _found:

        def find() -> int:
            return interval_reaching(target, config, outline_of(config))

        _found[key] = value_from_child(find) if user_functions(config.model_dump()) else find()
    return _found[key]


def interval_reaching(target: float, config: RunConfig, outline: Outline) -> int:
    """The largest update interval, in steps, with which a run reaches an exploration rate.

    Only where that is known before training: random growth. Growth by gradient explores less, and how much less only
    a training tells.

    Args:
        target: R_s, in (0, 1].
        config: the run; its update interval is not looked at.
        outline: of its network.

    Raises:
        UserError: it is not known, or none does; says what the training does reach, and how long a one would do.
    """
    rules = Rules.of_settings(config.model_dump())
    layers = tuple((layer.name, layer.active, layer.size) for layer in outline.layers)
    return _interval_reaching(target, rules.with_interval(10**12), layers, config.total_epochs, config.steps_per_epoch)


@functools.lru_cache(maxsize=1000)
def _interval_reaching(
    target: float, rules: Rules, layers: Sequence[tuple[str, int, int]], epochs: int, per_epoch: int
) -> int:
    shares = {name: (active, size) for name, active, size in layers}
    assert rules.drop and rules.growth
    if how_known(rules.drop, rules.growth, rules.redistribution) not in ("exact", "expected"):
        raise UserError(_unknown(rules))
    try:
        return interval_for_exploration(target, rules, shares, epochs * per_epoch)
    except UserError as error:
        best = explored_with_interval(1, rules, shares, epochs * per_epoch)
        if best >= target:
            raise  # another reason
        raise UserError(_out_of_reach(target, best, rules, shares, epochs, per_epoch)) from error


def _unknown(rules: Rules) -> str:
    if rules.redistribution != "none":
        what, why = f"with redistribution {rules.redistribution!r}", ""
    elif rules.growth in ("random", "random-unexplored"):
        what, why = f"where weights are dropped by {rules.drop!r}", ""
    else:
        what = f"by growth {rules.growth!r}"
        why = (
            ": it comes back to the same weights (RigL-ITOP on ImageNet reached 0.93 and 0.83, where random growth "
            "would have reached 1.00)"
        )
    return (
        f"how much is explored {what} is not known before training{why}. Give these runs an interval in steps or "
        "epochs; {reach: …} is for random growth."
    )


def _out_of_reach(target: float, best: float, rules: Rules, shares: Shares, epochs: int, per_epoch: int) -> str:
    longer = _epochs_reaching(target, rules, shares, epochs, per_epoch)
    instead = (
        f"Training for {longer:,} epochs would do it, at that interval."
        if longer is not None
        else f"Nor would {_LONGEST:,} times as long a training do it."
    )
    return (
        f"an exploration rate of {target:g} is out of reach: a topology update at every one of "
        f"{epochs * per_epoch:,} steps ({plural(epochs, 'epoch')}) explores {math.floor(best * 1e4) / 1e4:.4f}. "
        f"{instead} A larger drop_fraction or a smaller sparsity explores more, too."
    )


def _epochs_reaching(target: float, rules: Rules, shares: Shares, epochs: int, per_epoch: int) -> int | None:
    """The fewest epochs with which an update at every step reaches the target, roughly where they are very many.

    Updates that are many lie closely along the same schedule of ζ: s times as many leave of each layer's unexplored
    weights the share that they leave now, to the power s. Found so, and corrected by counting.
    """
    factor = _factor(target, rules.with_interval(1), shares, epochs * per_epoch)
    if factor is None:
        return None
    wanted = max(epochs + 1, math.ceil(factor * epochs))

    def reaches(count: int) -> bool:
        return explored_with_interval(1, rules, shares, count * per_epoch) >= target - 1e-12

    if wanted * per_epoch > _COUNTED_STEPS:
        return wanted
    low, high = wanted - 1, wanted
    while not reaches(high):
        low, high = high, high + max(1, high // 100)
    while low > epochs and reaches(low):
        low, high = low - max(1, low // 100), low
    low = max(low, epochs)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high


def _factor(target: float, rules: Rules, shares: Shares, steps: int) -> float | None:
    """How many times as many updates it takes, none beyond `_LONGEST`."""
    total = sum(size for _, size in shares.values())
    if rules.growth == "random":
        rates = expected_layer_exploration(rules, shares, steps)
        left = {name: (1 - active / size, 1 - rates[name]) for name, (active, size) in shares.items()}

        def reached(factor: float) -> float:
            unexplored = (
                size * before * (after / before) ** factor if before else 0.0
                for (before, after), (_, size) in zip(left.values(), shares.values(), strict=True)
            )
            return 1 - math.fsum(unexplored) / total
    else:
        grown = replaced_weights(rules, shares, steps)

        def reached(factor: float) -> float:
            explored = (min(size, active + factor * grown[name]) for name, (active, size) in shares.items())
            return math.fsum(explored) / total

    low, high = 1.0, float(_LONGEST)
    if reached(high) < target - 1e-12:
        return None
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) >= target - 1e-12 else (middle, high)
    return high
