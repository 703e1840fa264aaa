"""The values that steer a topology update: `Rules`, the settings of a method, and `LayerView`, what a rule sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from itopctl.catalogue import ALLOCATIONS, DROPS, GROWTHS, METHODS, is_user_function
from itopctl.errors import UserError, unknown

if TYPE_CHECKING:
    import torch
    from torch import Tensor


SCHEDULES = ("cosine", "linear", "constant")


@dataclass(frozen=True)
class DropSchedule:
    """How ζ, the fraction of a layer's active weights replaced by an update, changes over training.

    Attributes:
        name: `cosine` (from drop_fraction to `final`), `linear` (the same, straight) or `constant`.
        final: ζ at the end of the schedule, in [0, 1].
        stop: fraction of training, in (0, 1], at which the schedule ends; there are no updates from there on.
    """

    name: Literal["cosine", "linear", "constant"] = "cosine"
    final: float = 0.0
    stop: float = 1.0

    def __post_init__(self) -> None:
        _check_word("drop schedule", self.name, SCHEDULES)
        _check_range("final", self.final, 0.0 <= self.final <= 1.0, "in [0, 1]")
        _check_range("stop", self.stop, 0.0 < self.stop <= 1.0, "in (0, 1]")


@dataclass(frozen=True)
class Rules:
    """A sparse-training method, every setting explicit.

    Attributes:
        allocation: name in the catalogue of allocations; None: every layer is dense.
        allocation_power: exponent of the allocation's raw share.
        keep_dense: globs over layer names that stay at density 1 (and in the budget).
        drop, growth: names in the catalogues (or `module:function`); None: the topology is static.
        drop_fraction: ζ at step 0, in (0, 1].
        drop_schedule: how ζ changes.
        update_interval: ΔT in optimizer steps, at least 1.
        update_replaces_step: RigL's order, where an update takes the place of the optimizer's step; otherwise
            the optimizer steps first and the update follows (ITOP, SET).
        replace_rounding: whether ζ·nnz is rounded up (ITOP; at least one weight moves) or down (RigL).
    """

    allocation: str | None = None
    allocation_power: float = 1.0
    keep_dense: tuple[str, ...] = ()
    drop: str | None = None
    growth: str | None = None
    drop_fraction: float | None = None
    drop_schedule: DropSchedule | None = None
    update_interval: int | None = None
    update_replaces_step: bool | None = None
    replace_rounding: Literal["floor", "ceil"] | None = None

    def __post_init__(self) -> None:
        if self.allocation is not None:
            ALLOCATIONS.get(self.allocation)
        _check_range("allocation_power", self.allocation_power, self.allocation_power >= 0.0, "0 or more")
        if not self.dynamic:
            return
        missing = [f.name for f in fields(self) if f.name != "allocation" and getattr(self, f.name) is None]
        if missing:
            raise UserError(f"a dynamic method needs {', '.join(missing)}.")
        assert self.drop and self.growth and self.update_interval is not None and self.drop_fraction is not None
        DROPS.get(self.drop)
        GROWTHS.get(self.growth)
        _check_range("update_interval", self.update_interval, self.update_interval >= 1, "1 step or more")
        _check_range("drop_fraction", self.drop_fraction, 0.0 < self.drop_fraction <= 1.0, "in (0, 1]")
        _check_word("replace_rounding", str(self.replace_rounding), ("floor", "ceil"))

    @property
    def sparse(self) -> bool:
        """Whether any layer may have a mask."""
        return self.allocation is not None

    @property
    def dynamic(self) -> bool:
        """Whether the topology changes during training."""
        return self.drop is not None or self.growth is not None

    @property
    def needs_gradient(self) -> bool:
        """Whether a rule reads the dense gradient.

        A rule of the user's own gets one, unless the function has an attribute `needs_gradient` that is False.
        """
        for catalogue, name in ((GROWTHS, self.growth), (DROPS, self.drop)):
            if name is None:
                continue
            if is_user_function(name):
                needed = getattr(catalogue.function(name), "needs_gradient", True)
            else:
                needed = catalogue.get(name).options.get("needs_gradient", False)
            if needed:
                return True
        return False

    @classmethod
    def of_method(cls, method: str, **overrides: Any) -> Rules:
        """The rules of a named method, some of them overridden.

        `update_interval` may be `"K epoch(s)"` in a preset; a caller who wants it so must pass the steps.

        Raises:
            UserError: unknown method or setting, or an interval in epochs left unresolved.
        """
        entry = METHODS.get(method)
        known = {field.name for field in fields(cls)}
        for name in overrides:
            if name not in known:
                raise UserError(unknown("rule", name, sorted(known)))
        settings = {**entry.options["preset"], **overrides}
        settings = {name: value for name, value in settings.items() if name not in entry.options["ignores"]}
        schedule = settings.get("drop_schedule")
        if isinstance(schedule, Mapping):
            for name in schedule:
                _check_word("setting of drop_schedule", name, [field.name for field in fields(DropSchedule)])
            settings["drop_schedule"] = DropSchedule(**schedule)
        if isinstance(settings.get("update_interval"), str):
            raise UserError(
                f"method {method!r} updates every {settings['update_interval']}: pass update_interval in steps."
            )
        return cls(**settings)


def _check_word(kind: str, found: str, allowed: Sequence[str]) -> None:
    if found not in allowed:
        raise UserError(unknown(kind, found, allowed))


def _check_range(name: str, found: float, inside: bool, range_: str) -> None:
    if not inside:
        raise UserError(f"{name} is {found!r}; it must be {range_}.")


@dataclass(frozen=True)
class LayerView:
    """What a drop or growth rule may look at: one layer, at one update.

    Attributes:
        name: the weight's parameter name.
        weight: the weight, masked; read only.
        active: bool tensor of the weight's shape.
        dense_gradient: gradient of the loss for every weight, masked ones included; None unless needed.
        step: optimizer steps done.
        generator: seeded by (seed, update, layer), so that a rule's draws depend on nothing else.
    """

    name: str
    weight: Tensor
    active: Tensor
    dense_gradient: Tensor | None
    step: int
    generator: torch.Generator

    @property
    def gradient(self) -> Tensor:
        """The dense gradient; an error for a rule that did not ask for it."""
        if self.dense_gradient is None:
            raise RuntimeError("this rule reads layer.gradient: declare it with needs_gradient=True")
        return self.dense_gradient

    def random_scores(self) -> Tensor:
        """Independent uniform scores in [0, 1), of the weight's shape."""
        import torch

        return torch.rand(self.weight.shape, generator=self.generator, device=self.weight.device)
