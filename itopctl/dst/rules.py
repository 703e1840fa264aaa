"""`Rules`: a sparse-training method as a value, every setting explicit. Checked when made; nothing is computed here."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from itopctl.catalogue import (
    ALLOCATIONS,
    DROP_SCHEDULES,
    DROPS,
    GROWTHS,
    METHODS,
    REDISTRIBUTIONS,
    Catalogue,
    rule_settings,
)
from itopctl.errors import UserError, unknown
from itopctl.settings import Setting, filled


@dataclass(frozen=True)
class DropSchedule:
    """How ζ, the fraction of a layer's active weights replaced by an update, changes over training.

    Attributes:
        name: in the catalogue of drop schedules: `cosine`, `linear`, `exponential` (from drop_fraction to `final`)
            or `constant`.
        final: ζ at the end of the schedule, in [0, 1].
        stop: fraction of training, in (0, 1], at which the schedule ends; there are no updates from there on.
        power: exponent k of the exponential schedule, above 0.
    """

    name: str = "cosine"
    final: float = 0.0
    stop: float = 1.0
    power: float | None = None

    def __post_init__(self) -> None:
        DROP_SCHEDULES.get(self.name)
        _check_range("final", self.final, 0.0 <= self.final <= 1.0, "in [0, 1]")
        _check_range("stop", self.stop, 0.0 < self.stop <= 1.0, "in (0, 1]")
        _check_range("power", self.power, self.power is None or self.power > 0.0, "above 0")


_Pairs = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Rules:
    """A sparse-training method, every setting explicit.

    Attributes:
        allocation: name in the catalogue of allocations (or `module:function`); None: every layer is dense.
        allocation_power: exponent of the allocation's raw share, 0 or more.
        keep_dense: globs over layer names, or `type:Class` (`type:depthwise`), of layers that stay at density 1.
        layer_density: (glob or type, density in (0, 1]) of layers whose density is given, not allocated; in no order.
        dense_in_budget: whether those two count in the budget, so that the other layers pay for them; otherwise
            the others share their own budget at the global sparsity, as in RigL's code.
        drop, growth, redistribution: names in the catalogues (or `module:function`); drop and growth None: the
            topology is static.
        drop_fraction: ζ at step 0, in (0, 1].
        drop_schedule: how ζ changes.
        update_interval: ΔT in optimizer steps, at least 1.
        update_replaces_step: RigL's order, where an update takes the place of the optimizer's step; otherwise
            the optimizer steps first and the update follows (ITOP, SET).
        replace_rounding: whether ζ·nnz is rounded up (ITOP; at least one weight moves) or down (RigL).
        settings: (name, value) of settings that rules of this package declare (`itopctl.catalogue.rule_settings`), such
            as `gradient_batches` (less than update_interval, or 1) or `gradient_weight`; without those that have the
            default of the rule that reads them.
        drop_args, growth_args, redistribution_args, allocation_args: likewise what functions of the user's own declare.
    """

    allocation: str | None = None
    allocation_power: float = 1.0
    keep_dense: tuple[str, ...] = ()
    layer_density: tuple[tuple[str, float], ...] = ()
    dense_in_budget: bool = True
    drop: str | None = None
    growth: str | None = None
    redistribution: str = "none"
    drop_fraction: float | None = None
    drop_schedule: DropSchedule | None = None
    update_interval: int | None = None
    update_replaces_step: bool | None = None
    replace_rounding: Literal["floor", "ceil"] | None = None
    settings: _Pairs = ()
    drop_args: _Pairs = ()
    growth_args: _Pairs = ()
    redistribution_args: _Pairs = ()
    allocation_args: _Pairs = ()

    def __post_init__(self) -> None:
        if self.allocation is not None:
            ALLOCATIONS.get(self.allocation)
        _check_range("allocation_power", self.allocation_power, self.allocation_power >= 0.0, "0 or more")
        for pattern, density in self.layer_density:
            _check_range(f"layer_density of {pattern!r}", density, 0.0 < density <= 1.0, "in (0, 1]")
        if not self.dynamic:
            return
        missing = [name for name in NEEDED_IF_DYNAMIC if getattr(self, name) is None]
        if missing:
            raise UserError(f"a dynamic method needs {', '.join(missing)}.")
        assert self.drop and self.growth and self.update_interval is not None and self.drop_fraction is not None
        for catalogue, name in self._used():
            catalogue.get(name)
        if self.replace_rounding not in ("floor", "ceil"):
            raise UserError(unknown("replace_rounding", str(self.replace_rounding), ("floor", "ceil")))
        for name, setting in _RANGES.items():
            setting.check(name, getattr(self, name))
        for name, value in self.settings:
            rule_settings()[name].check(name, value)
        batches = self.needed("gradient_batches")
        _check_range("gradient_batches", batches, batches == 1 or batches < self.update_interval,
                     f"less than the update interval of {self.update_interval}")  # fmt: skip

    @property
    def sparse(self) -> bool:
        """Whether any layer may have a mask."""
        return self.allocation is not None

    @property
    def dynamic(self) -> bool:
        """Whether the topology changes during training."""
        return self.drop is not None or self.growth is not None

    @property
    def needs(self) -> frozenset[str]:
        """What the rules read beside the weights: of "gradient", "momentum", "times_active"."""
        return frozenset(need for catalogue, name in self._used() for need in catalogue.options(name).get("needs", ()))

    @property
    def reads_dense_gradient(self) -> bool:
        """Whether growth looks at the gradient of every masked weight (it costs a dense backward pass)."""
        if self.growth is None:
            return False
        options = GROWTHS.options(self.growth)
        return bool({"gradient", "momentum"} & set(options.get("needs", ()))) and not options.get("sampled", False)

    def settings_for(self, kind: str, catalogue: Catalogue, name: str) -> dict[str, Any]:
        """The keyword arguments of a function: the settings it declares, with its defaults for those not given.

        Args:
            kind: which of ours names it: `drop`, `growth`, `redistribution` or `allocation`.
            catalogue: where its name is looked up.
            name: the name.

        Raises:
            UserError: one of `drop_args`, … is no setting of it, or out of its range.
        """
        declared: Mapping[str, Setting] = catalogue.options(name).get("settings", {})
        shared = {setting: value for setting, value in self.settings if setting in declared}
        return filled(declared, {**shared, **dict(getattr(self, f"{kind}_args"))}, f"{kind}_args", name)

    def needed(self, setting: str) -> Any:
        """The value of one of `NEEDED_SETTINGS`, its default where none is given."""
        return dict(self.settings).get(setting, rule_settings()[setting].default)

    def count_to_replace(self, active: int, zeta: float) -> int:
        """How many of `active` weights an update with drop fraction ζ replaces."""
        exact = round(zeta * active, 9)
        return math.floor(exact) if self.replace_rounding == "floor" else math.ceil(exact)

    def with_interval(self, update_interval: int) -> Rules:
        """The same rules at another update interval."""
        return replace(self, update_interval=update_interval)

    def _used(self) -> Iterable[tuple[Catalogue, str]]:
        if self.drop is not None:
            yield DROPS, self.drop
        if self.growth is not None:
            yield GROWTHS, self.growth
        if self.dynamic:
            yield REDISTRIBUTIONS, self.redistribution

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> Rules:
        """The rules that a run's resolved settings describe.

        Args:
            settings: by the names of our attributes, nested ones as mappings; None where a setting means nothing for
                the method. Whatever else a run has is passed over.
        """
        given = {field.name: settings[field.name] for field in fields(cls) if settings.get(field.name) is not None}
        given["settings"] = {name: settings[name] for name in rule_settings() if settings.get(name) is not None}
        if "drop_schedule" in given:
            given["drop_schedule"] = _schedule(given["drop_schedule"])
        given |= _as_pairs(given)
        if "keep_dense" in given:
            given["keep_dense"] = tuple(given["keep_dense"])
        return cls(**given)

    @classmethod
    def of_method(cls, method: str, **overrides: Any) -> Rules:
        """The rules of a named method, some of them overridden.

        `update_interval` may be `"K epoch(s)"` in a preset; a caller who wants it so must pass the steps.
        `drop_schedule` may be a name or a mapping, whose missing entries are the defaults of `DropSchedule`;
        `layer_density` may be one, too.

        Raises:
            UserError: unknown method or setting, or an interval in epochs left unresolved.
        """
        entry = METHODS.get(method)
        known = ({field.name for field in fields(cls)} - {"settings"}) | rule_settings().keys()
        for name, value in overrides.items():
            if name not in known:
                raise UserError(unknown("setting of rules", name, sorted(known)))
            if inspect.isfunction(value):
                module, function = value.__module__, value.__qualname__
                raise UserError(f"{name} is a function; name it, as {f'{module}:{function}'!r}.")
        settings = {**entry.options["preset"], **overrides}
        settings = {name: value for name, value in settings.items() if name not in entry.options["ignores"]}
        own = {name: settings.pop(name) for name in rule_settings() if name in settings}
        settings["settings"] = {name: value for name, value in own.items() if value is not None}
        if isinstance(settings.get("drop_schedule"), str):
            settings["drop_schedule"] = {"name": settings["drop_schedule"]}
        if isinstance(settings.get("drop_schedule"), Mapping):
            settings["drop_schedule"] = _schedule(settings["drop_schedule"])
        settings |= _as_pairs(settings)
        if isinstance(settings.get("keep_dense"), str):
            raise UserError(f"keep_dense is {settings['keep_dense']!r}; it is a list: [{settings['keep_dense']!r}].")
        if isinstance(settings.get("update_interval"), str):
            whose = "update_interval is" if "update_interval" in overrides else f"method {method!r} updates every"
            raise UserError(f"{whose} {settings['update_interval']}: pass update_interval in steps.")
        return cls(**settings)


NEEDED_IF_DYNAMIC = (
    "drop",
    "growth",
    "drop_fraction",
    "drop_schedule",
    "update_interval",
    "update_replaces_step",
    "replace_rounding",
)
"""Settings that a dynamic method cannot be without."""

_RANGES = {"update_interval": Setting(1, at_least=1), "drop_fraction": Setting(0.5, above=0, at_most=1)}
OWN_ARGS = ("drop_args", "growth_args", "redistribution_args")
"""Settings of rules of the user's own."""


def _as_pairs(settings: Mapping[str, Any]) -> dict[str, _Pairs]:
    """Those of some settings that are mappings and that rules hold as pairs."""
    names = ("layer_density", "settings", *OWN_ARGS, "allocation_args")
    return {name: tuple(settings[name].items()) for name in names if isinstance(settings.get(name), Mapping)}


def _schedule(given: Mapping[str, Any]) -> DropSchedule:
    allowed: Sequence[str] = [field.name for field in fields(DropSchedule)]
    for name in given:
        if name not in allowed:
            raise UserError(unknown("setting of drop_schedule", name, allowed))
    return DropSchedule(**given)


def _check_range(name: str, found: Any, inside: bool, range_: str) -> None:
    if not inside:
        raise UserError(f"{name} is {found!r}; it must be {range_}.")
