"""One resolved run: every setting explicit, plain data, frozen. Everything a run does follows from it.

A field declared with `identity: False` does not change the experiment (where and how fast it runs): it is
recorded, not hashed. A field added in a later version is null by default or declares `as_before`, the value that
means "as before it existed" (`itopctl.config.identity`). One with `written: False` is no setting: nobody types it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model

from itopctl.catalogue import ARGS, DATASETS, OWN_CODE, comparable, is_user_function, modules_named, rule_settings
from itopctl.settings import Setting

_Decay = Annotated[float, Field(ge=0.0, lt=1.0)]
_Globs = Annotated[tuple[str, ...] | None, Field(strict=False), AfterValidator(lambda globs: globs or None)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class OptimizerConfig(_Part):
    """The optimizer and its settings; those that another optimizer has are null."""

    name: Literal["sgd", "adam", "adamw"] = Field(description="sgd, adam or adamw")
    lr: float = Field(gt=0.0, description="peak learning rate")
    weight_decay: float = Field(ge=0.0, description="L2 penalty (sgd, adam) or decoupled decay (adamw)")
    momentum: float | None = Field(default=None, ge=0.0, lt=1.0, description="sgd: momentum")
    nesterov: bool | None = Field(default=None, description="sgd: Nesterov's momentum")
    betas: Annotated[tuple[_Decay, _Decay] | None, Field(strict=False)] = Field(
        default=None, description="adam, adamw: decay of the two moments"
    )
    eps: float | None = Field(default=None, gt=0.0, description="adam, adamw: added to the denominator")


class LrScheduleConfig(_Part):
    """How the learning rate changes; positions are fractions of training, so a multiplier stretches them."""

    name: Literal["milestones", "cosine", "one-cycle", "constant"] = Field(
        description="milestones (times gamma at each), cosine (to zero), one-cycle (up to lr, then to zero), constant"
    )
    milestones: Annotated[tuple[float, ...] | None, Field(strict=False)] = Field(
        default=None,
        description="milestones: positions in epochs (1 or more) or as fractions of training (below 1)",
    )
    gamma: float | None = Field(default=None, gt=0.0, le=1.0, description="milestones: factor at each")
    warmup: float | None = Field(
        default=None,
        ge=0.0,
        lt=1.0,
        description="fraction of training over which lr rises linearly from zero",
    )
    peak: float | None = Field(
        default=None, gt=0.0, lt=1.0, description="one-cycle: fraction of training at which lr is reached"
    )


class DropScheduleConfig(_Part):
    """How the drop fraction ζ changes over training."""

    name: Literal["cosine", "linear", "exponential", "constant"] = Field(
        description="cosine, linear or exponential from drop_fraction to `final`, or constant"
    )
    final: float = Field(ge=0.0, le=1.0, description="drop fraction at the end of the schedule")
    stop: float = Field(
        gt=0.0,
        le=1.0,
        description="fraction of training at which the schedule ends; no topology updates from there on",
    )
    power: float | None = Field(default=None, gt=0.0, description="exponential: of (1 − progress)")


_Args = dict[str, bool | int | float | str] | None


class _BeforeRuleSettings(_Part):
    """What stands before the settings that rules declare."""

    dataset: str = Field(description="name of a data set (`itopctl list datasets`)")
    model: str = Field(description="name of a model (`itopctl list models`) or package.module:function")
    method: str = Field(description="sparse-training method (`itopctl list methods`); sets the fields below it")
    sparsity: float = Field(ge=0.0, lt=1.0, description="fraction of zero weights over all maskable layers, in [0, 1)")
    allocation: str | None = Field(
        default=None, description="how density is shared over layers (`itopctl list allocations`)"
    )
    allocation_power: float | None = Field(
        default=None, ge=0.0, description="exponent of the allocation's raw share; 0 is uniform"
    )
    keep_dense: Annotated[tuple[str, ...] | None, Field(strict=False)] = Field(
        default=None, description="globs over layer names, or type:Class or type:depthwise, that stay dense"
    )
    layer_density: dict[str, Annotated[float, Field(gt=0.0, le=1.0)]] | None = Field(
        default=None, description="density of layers by glob over their names, or by type:Class"
    )
    dense_in_budget: bool | None = Field(
        default=None,
        description="whether the other layers pay for keep_dense and layer_density (else they have the sparsity alone)",
        json_schema_extra={"as_before": True},
    )
    also_mask: _Globs = Field(
        default=None,
        description="globs over names of further parameters to mask, of two or more dimensions, such as embeddings",
    )
    drop: str | None = Field(default=None, description="drop rule (`itopctl list drop`) or package.module:function")
    growth: str | None = Field(
        default=None, description="growth rule (`itopctl list growth`) or package.module:function"
    )
    redistribution: str | None = Field(
        default=None,
        description="which layers grow what was dropped (`itopctl list redistributions`) or package.module:function",
        json_schema_extra={"as_before": "none"},
    )
    drop_fraction: float | None = Field(
        default=None,
        gt=0.0,
        le=1.0,
        description="fraction of active weights replaced by the first topology update",
    )
    drop_schedule: DropScheduleConfig | None = Field(
        default=None, description="how drop_fraction changes over training"
    )
    update_interval: int | None = Field(
        default=None,
        ge=1,
        le=10**12,
        description='optimizer steps between topology updates; or epochs: "1 epoch"; or what to explore: {reach: 0.95}',
    )
    update_replaces_step: bool | None = Field(
        default=None,
        description="whether a topology update takes the place of the optimizer's step (RigL) or follows it",
    )
    replace_rounding: Literal["floor", "ceil"] | None = Field(
        default=None, description="how the number of replaced weights is rounded"
    )


def _field_of(setting: Setting) -> tuple[Any, Any]:
    """The field of a run for a setting that some rules declare; null where the rules of the run do not."""
    known: Any = {"as_before": setting.as_before} if setting.as_before is not None else None
    limits = {"ge": setting.at_least, "gt": setting.above, "le": setting.at_most, "lt": setting.below}
    given: dict[str, Any] = {name: limit for name, limit in limits.items() if limit is not None}
    return setting.kind | None, Field(None, description=setting.description, json_schema_extra=known, **given)


_OWN_DESCRIPTION = "settings of a function of your own that {} names, as it declares them"
if TYPE_CHECKING:
    _WithRuleSettings = _BeforeRuleSettings
else:
    _WithRuleSettings = create_model(
        "_WithRuleSettings",
        __base__=_BeforeRuleSettings,
        **{name: _field_of(setting) for name, setting in rule_settings().items()},
        **{
            args: (_Args, Field(default=None, description=_OWN_DESCRIPTION.format(named)))
            for args, named in ARGS.items()
        },
    )


class RunConfig(_WithRuleSettings):
    """One run. Settings that mean nothing for its method are null."""

    seed: int = Field(default=0, ge=0, lt=2**32, description="of initial weights, masks, batch order and growth")
    epochs: int = Field(ge=1, le=1_000_000, description="passes over the training set, before training_multiplier")
    training_multiplier: float = Field(
        default=1.0, gt=0.0, le=1000.0, description="stretches training and every schedule (not update_interval)"
    )
    batch_size: int = Field(default=128, ge=1, le=10**9, description="samples a step")
    optimizer: OptimizerConfig = Field(description="optimizer and its settings")
    lr_schedule: LrScheduleConfig = Field(description="learning-rate schedule")
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0, description="of the cross-entropy")
    validation: float = Field(
        default=0.1,
        ge=0.0,
        le=0.5,
        description="fraction of the training set held out to choose the best epoch; 0 trains on all",
    )
    augment: Literal["none", "crop-flip"] = Field(
        description="crop-flip: random crop after padding by 4 and horizontal flip; training images only"
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(default="fp32", description="arithmetic of forward and backward")
    channels_last: bool = Field(
        default=False, description="memory layout of convolutions", json_schema_extra={"identity": False}
    )
    compute: Literal["masked", "sparse", "auto"] = Field(
        default="auto",
        description="dense arithmetic under masks, with the nonzeros alone (sparse), or what is faster (auto)",
        json_schema_extra={"identity": False},
    )
    compile: bool = Field(default=False, description="use torch.compile", json_schema_extra={"identity": False})
    device: str = Field(
        default="auto",
        description="auto (a GPU if there is one), cpu, cuda or mps",
        pattern=r"^(auto|cpu|cuda|mps)$",
        json_schema_extra={"identity": False},
    )
    evaluate_updates: Literal["always", "auto", "never"] = Field(
        default="always",
        description="measure accuracy at topology updates: always, auto (for at most a quarter of training), never",
        json_schema_extra={"identity": False},
    )

    checkpoint_minutes: float = Field(
        default=10.0,
        gt=0.0,
        le=100_000.0,
        description="minutes between two checkpoints of a run",
        json_schema_extra={"identity": False},
    )
    keep_checkpoints: bool = Field(
        default=False,
        description="keep the last checkpoints of a finished run; the newest then holds the trained network",
        json_schema_extra={"identity": False},
    )
    keep_network: bool = Field(
        default=True,
        description="keep the trained network of a finished run, its nonzeros alone, for `itopctl export`",
        json_schema_extra={"identity": False},
    )

    own_code: dict[str, str] | None = Field(
        default=None,
        description="module of your own that the run names: digest of its code (null: none, or not recorded)",
        json_schema_extra={"written": False},
    )

    def setting(self, name: str) -> Any:
        """The value of a setting that some rules declare (`itopctl.catalogue.rule_settings`)."""
        return getattr(self, name)

    def args(self, named: str) -> dict[str, Any]:
        """Settings of the user's own function that a setting such as `model` names; empty for one of this package."""
        return getattr(self, f"{named}_args") or {}

    @property
    def density(self) -> float:
        """1 − sparsity, without float dust."""
        return round(1.0 - self.sparsity, 12)

    @property
    def total_epochs(self) -> int:
        """Epochs actually trained, at least 1."""
        return max(1, round(self.epochs * self.training_multiplier))

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        return steps_per_epoch(self.dataset, self.validation, self.batch_size)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.total_epochs * self.steps_per_epoch


def steps_per_epoch(dataset: str, validation: float, batch_size: int) -> int:
    """Optimizer steps of one epoch over the training part of a catalogued data set.

    The last batch may be smaller than the others; one of a single sample is left out, since batch
    normalisation has no variance to work with there.
    """
    samples = int(DATASETS.get(dataset).options["train"])
    return batches_of(samples - round(samples * validation), batch_size)


def batches_of(samples: int, batch_size: int) -> int:
    """How many batches one pass over `samples` takes; see `steps_per_epoch`."""
    lone = batch_size > 1 and samples > 1 and samples % batch_size == 1
    return max(1, math.ceil(samples / batch_size) - int(lone))


@functools.cache
def hashed_fields(model: type[BaseModel]) -> dict[str, Any]:
    """Fields that define the experiment → the declared value that means "as before the field existed", or None."""
    extras = {
        name: field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        for name, field in model.model_fields.items()
    }
    return {name: extra.get("as_before") for name, extra in extras.items() if extra.get("identity") is not False}


def written_settings() -> list[str]:
    """Names of the fields of a run that a spec may set, without those whose entries are functions' own (`ARGS`)."""
    extras = {name: field.json_schema_extra for name, field in RunConfig.model_fields.items()}
    unwritten = {name for name, extra in extras.items() if isinstance(extra, dict) and extra.get("written") is False}
    return [name for name in extras if name not in unwritten | ARGS.keys()]


def unhashed_settings() -> frozenset[str]:
    """Names of the settings that do not change the experiment."""
    return frozenset(RunConfig.model_fields) - hashed_fields(RunConfig).keys()


def defining_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What tells a run's experiment from others, flat: without settings that are recorded only, and without those
    that have the value "as before they existed", which older records lack.

    A module of the user's own of which no digest is recorded has the version `UNKNOWN_VERSION`.
    """
    before, unhashed = hashed_fields(RunConfig), unhashed_settings()
    found = {
        name: value
        for name, value in flat_settings(config).items()
        if name not in unhashed and (value is None or value != before.get(name))
    }
    return {**found, **{f"{OWN_CODE}{m}": version for m, version in versions_of(config).items()}}


UNKNOWN_VERSION = "unknown"
"""Stands for the digest of a module where a run does not record it."""


def versions_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Module that a run names a function of → its digest, or `UNKNOWN_VERSION`."""
    recorded = config.get("own_code")
    versions = recorded if isinstance(recorded, Mapping) else {}
    return {name: versions.get(name, UNKNOWN_VERSION) for name in sorted(modules_named(config.values()))}


def flat_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config's plain data with nested settings by dotted name, such as `optimizer.lr`."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}.{inner}": inner_value for inner, inner_value in value.items()})
        else:
            flat[name] = value
    return flat


def user_functions(config: Mapping[str, Any]) -> set[str]:
    """Functions of the user's own that a run with this config calls, as `package.module:function`."""
    return {value for value in config.values() if isinstance(value, str) and is_user_function(value)}


def calls_own_code(config: RunConfig) -> bool:
    """Whether a run calls any function of the user's own."""
    return bool(user_functions(config.model_dump()))


def varying_within(flat: Iterable[Mapping[str, Any]], group: str) -> list[str]:
    """Settings that are not the same in all runs of some group; what the group alone decides is not among them.

    Nor is what comes with a rule (`comparable`).
    """
    seen: dict[tuple[Any, ...], str] = {}
    varying: dict[str, None] = {}
    for values in flat:
        for name, value in values.items():
            if seen.setdefault((values[group], *comparable(name, values)), repr(value)) != repr(value):
                varying[name] = None
    return list(varying)
