"""What a run will do and cost, from its config and the outline of its network. Pure arithmetic.

Training FLOPs are counted as the training counts them itself (`itopctl.dst.flops.FlopsMeter`, multiply-accumulates): a
step costs a forward and two backward products, of which the last is dense where growth reads the dense gradient.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from itopctl.catalogue import DATASETS, rule_settings
from itopctl.config.run_config import RunConfig, user_functions
from itopctl.dst.expected import Known, predicted_layer_exploration, replaced_weights, weighted
from itopctl.dst.network_outline import Outline
from itopctl.dst.rules import Rules
from itopctl.dst.schedule import update_fractions
from itopctl.errors import UserError
from itopctl.forking import value_from_child

CHECKPOINTS_KEPT = 2  # itopctl.store.checkpoints.KEPT; one more is there while it is written
_NUMBER = 4  # bytes of a weight, a gradient, a moment: single precision throughout
_EVENT, _PROGRESS, _LAYER, _FILES = 420, 190, 160, 9_000  # bytes of lines and files in a run's folder, measured
_STRUCTURE = 40  # bytes of a nonzero of a sparse layer beside numbers: where it stands, in both directions; an update
_PROGRESS_SECONDS = 0.5
_TENSOR, _STATES = 700, 16_000  # bytes of a checkpoint beside its numbers: a tensor's header, random states
PROCESS_BYTES = 800_000_000
"""Resident in a worker process without any tensors: Python, PyTorch and what reads data (measured, 2.14 on Linux)."""


@dataclass(frozen=True)
class Forecast:
    """What is known of a run before it.

    Attributes:
        steps: optimizer steps.
        updates: topology updates.
        replaced: weights that all of them drop and grow; None where that is not known.
        exploration_rate, exploration_known: R_s at the end, and how well that is known.
        maskable, trainable: number of maskable weights, and of all numbers that are trained.
        density, total_density: active ÷ maskable weights; active weights and all that is not maskable ÷ all weights.
        inference_flops_ratio, train_flops_ratio: relative to dense; the training to one without a multiplier.
        flops_exact: False where weights move between layers, so that costs do, too.
        macs: multiply-accumulates of it by dense arithmetic: masks save none, sparse layers do.
        checkpoint_bytes: of one checkpoint.
        network_bytes: of the trained network that is kept; 0 where it is not.
        memory_bytes: estimate of the most memory that the training holds, without the process around it.
        journal_bytes: of the files that stay when it is finished; progress, which follows the clock, aside.
        starved: layers to which the allocation gives less than one weight.
        left_dense: name → size of every trained parameter of two or more dimensions that is not maskable.
    """

    steps: int
    updates: int
    replaced: int | None
    exploration_rate: float | None
    exploration_known: Known
    maskable: int
    trainable: int
    density: float
    total_density: float
    inference_flops_ratio: float
    train_flops_ratio: float
    flops_exact: bool
    macs: float
    checkpoint_bytes: int
    network_bytes: int
    memory_bytes: int
    journal_bytes: int
    keeps_checkpoints: bool
    starved: tuple[str, ...] = ()
    left_dense: Mapping[str, int] = field(default_factory=dict)

    def kept_bytes(self, seconds: float | None) -> int:
        """Bytes on the disk when the run is finished, in its folder and in the store."""
        progress = 0 if seconds is None else round(seconds / _PROGRESS_SECONDS) * _PROGRESS
        checkpoints = CHECKPOINTS_KEPT * self.checkpoint_bytes if self.keeps_checkpoints else 0
        return self.journal_bytes + progress + checkpoints + self.network_bytes

    def disk_bytes(self, seconds: float | None) -> int:
        """The most bytes that the run takes on the disk: while it writes a checkpoint beside those it keeps."""
        kept = 0 if self.keeps_checkpoints else CHECKPOINTS_KEPT
        return self.kept_bytes(seconds) + (kept + 1) * self.checkpoint_bytes


Fault = Literal["model", "machine", "unknown", "settings"]


@dataclass(frozen=True)
class Impossible:
    """A run that cannot be made, and why.

    Attributes:
        reason: a sentence, with the user's file and line where the fault is in there.
        fault: of the `model` (or the spec); perhaps of this `machine`, which has no GPU, say, or lacks a package; or
            `unknown`, where memory or time ran out: such a run may well be made; of the `settings` that the model's
            module gives the process: such a run fails, and harms no other.
    """

    reason: str
    fault: Fault = "model"


def forecasts(
    configs: Mapping[str, RunConfig], outline_of: Callable[[RunConfig], Outline | Impossible]
) -> dict[str, Forecast | Impossible]:
    """Run id → what is known of the run, or why it cannot be made.

    Functions of the user's own are called in child processes, one for all runs with the same functions: what their
    modules set in a process changes no forecast of other runs.

    Args:
        configs: run id → config.
        outline_of: the outline of a run's network; raises UserError, or says why, where there can be none.
    """
    keys = {run_id: same_but_seed(config) for run_id, config in configs.items()}
    groups: dict[frozenset[str], dict[str, RunConfig]] = {}
    for run_id, config in configs.items():
        groups.setdefault(frozenset(user_functions(config.model_dump())), {}).setdefault(keys[run_id], config)
    seen: dict[str, Forecast | Impossible] = {}
    for functions, group in groups.items():
        foresee = functools.partial(_foreseen, group, outline_of)
        try:
            seen |= value_from_child(foresee) if functions else foresee()
        except UserError as error:  # the child process crashed
            seen |= dict.fromkeys(group, Impossible(f"{', '.join(sorted(functions))}: {error}"))
    return {run_id: seen[key] for run_id, key in keys.items()}


def _foreseen(
    configs: Mapping[str, RunConfig], outline_of: Callable[[RunConfig], Outline | Impossible]
) -> dict[str, Forecast | Impossible]:
    found: dict[str, Forecast | Impossible] = {}
    for key, config in configs.items():
        try:
            outline = outline_of(config)
            found[key] = outline if isinstance(outline, Impossible) else forecast(config, outline)
        except UserError as error:
            found[key] = Impossible(str(error))
    return found


def same_but_seed(config: RunConfig) -> str:
    """A key that runs share which differ in the seed alone."""
    return config.model_dump_json(exclude={"seed"})


def forecast(config: RunConfig, outline: Outline) -> Forecast:
    """What is known of one run.

    Args:
        config: resolved.
        outline: of its network.

    Raises:
        UserError: its rules cannot be understood.
    """
    return _forecast(_Costs.of(config), _rules_of(_rule_settings(config)), outline)


def _rule_settings(config: RunConfig) -> str:
    return config.model_dump_json(include=_RULES)


_RULES = {*Rules.__dataclass_fields__, *rule_settings()} - {"settings"}


@functools.lru_cache(maxsize=10_000)
def _rules_of(settings: str) -> Rules:
    return Rules.of_settings(json.loads(settings))


@dataclass(frozen=True)
class _Costs:
    """Of a config, what costs depend on beside its rules."""

    steps: int
    dense_steps: int
    epochs: int
    samples: int
    images_bytes: int
    batch_size: int
    slots: int
    half: bool
    keeps_checkpoints: bool
    keeps_network: bool
    sparse: bool

    @classmethod
    def of(cls, config: RunConfig) -> _Costs:
        options = DATASETS.get(config.dataset).options
        train, (channels, height, width) = int(options["train"]), options["shape"]
        samples = train - round(train * config.validation)
        sgd = config.optimizer.name == "sgd"
        return cls(
            steps=config.total_steps,
            dense_steps=config.epochs * config.steps_per_epoch,
            epochs=config.total_epochs,
            samples=samples * config.total_epochs,
            images_bytes=(train + int(options["test"])) * channels * height * width,
            batch_size=min(config.batch_size, samples),
            slots=int(bool(config.optimizer.momentum)) if sgd else 2,
            half=config.precision != "fp32",
            keeps_checkpoints=config.keep_checkpoints,
            keeps_network=config.keep_network,
            sparse=config.compute == "sparse",
        )


@functools.lru_cache(maxsize=10_000)
def _forecast(costs: _Costs, rules: Rules, outline: Outline) -> Forecast:
    shares = outline.shares
    rates, known = predicted_layer_exploration(rules, shares, costs.steps)
    updates = len(update_fractions(rules, costs.steps))
    masked = [layer for layer in outline.layers if layer.active < layer.size]
    replaced = sum(replaced_weights(rules, {layer.name: shares[layer.name] for layer in masked}, costs.steps).values())
    inference = outline.inference_ratio
    dense_gradients = _dense_gradients(rules, updates, costs.steps) if masked else 0
    sparse_steps = costs.steps - dense_gradients
    train_cost = sparse_steps * 3 * inference + dense_gradients * (2 * inference + 1)
    return Forecast(
        steps=costs.steps,
        updates=updates,
        replaced=replaced if known != "unknown" else None,
        exploration_rate=None if rates is None else weighted(rates, shares),
        exploration_known=known,
        maskable=outline.maskable,
        trainable=outline.parameters,
        density=outline.active / outline.maskable,
        total_density=outline.total_density,
        inference_flops_ratio=inference,
        train_flops_ratio=train_cost / (3 * costs.dense_steps),
        flops_exact=not masked or not rules.dynamic or rules.redistribution == "none",
        macs=3.0 * outline.macs * costs.samples,
        checkpoint_bytes=_checkpoint_bytes(costs, rules, outline),
        network_bytes=_network_bytes(outline) if costs.keeps_network else 0,
        memory_bytes=_memory_bytes(costs, rules, outline),
        journal_bytes=_FILES + 2 * _EVENT * (updates + costs.epochs) + _LAYER * len(outline.layers),
        keeps_checkpoints=costs.keeps_checkpoints,
        starved=outline.starved,
        left_dense=dict(outline.left_dense),
    )


def _dense_gradients(rules: Rules, updates: int, steps: int) -> int:
    """Steps whose backward pass is dense, as `itopctl.dst.gradients.DenseGradients.wanted` has it."""
    if not rules.dynamic or not updates or not rules.reads_dense_gradient:
        return 0
    assert rules.update_interval is not None
    if "momentum" in rules.needs:
        return updates * rules.update_interval  # every step up to the last update
    return updates * int(rules.needed("gradient_batches"))


def _checkpoint_bytes(costs: _Costs, rules: Rules, outline: Outline) -> int:
    """Weights and moments of active weights alone; masks and explored sets as bits; what rules keep of each weight."""
    masked = [layer for layer in outline.layers if layer.active < layer.size]
    off = sum(layer.size - layer.active for layer in masked)
    sizes = sum(layer.size for layer in masked)
    numbers = (1 + costs.slots) * (outline.parameters - off) + outline.buffers
    numbers += sizes * (("momentum" in rules.needs) + ("times_active" in rules.needs)) if rules.dynamic else 0
    tensors = len(outline.layers) * 2 * (1 + costs.slots) + 3 * len(masked)
    return round(_NUMBER * numbers + 2 * sizes / 8 + _TENSOR * tensors + _STATES)


def _network_bytes(outline: Outline) -> int:
    """Weights of active entries alone, and masks as bits."""
    masked = [layer for layer in outline.layers if layer.active < layer.size]
    sizes = sum(layer.size for layer in masked)
    off = sizes - sum(layer.active for layer in masked)
    numbers = outline.parameters - off + outline.buffers
    return round(_NUMBER * numbers + sizes / 8 + _TENSOR * (2 * len(outline.layers) + len(masked)))


def _memory_bytes(costs: _Costs, rules: Rules, outline: Outline) -> int:
    """Weights, gradients, moments, masks, images, and what a backward pass needs of the forward pass.

    With sparse layers everywhere, these of active weights alone; `auto` may take as much as masks do.
    """
    activations = costs.batch_size * outline.activations * (_NUMBER // 2 if costs.half else _NUMBER)
    if costs.sparse:
        most = max(_sparse_bytes(costs, outline) + activations, _making_bytes(outline))
        return round(most + costs.images_bytes)
    masked = [layer for layer in outline.layers if layer.active < layer.size]
    sizes = sum(layer.size for layer in masked)
    numbers = (2 + costs.slots) * outline.parameters + outline.buffers
    needs = rules.needs if rules.dynamic else frozenset()
    numbers += sizes * (("momentum" in needs) + ("times_active" in needs) + 2 * ("gradient" in needs))
    largest = max((layer.size for layer in masked), default=0)
    update = 24 * largest if rules.dynamic else 0  # positions and scores of one layer at a time
    return round(_NUMBER * numbers + 1.25 * sizes + update + activations + costs.images_bytes)


def _sparse_bytes(costs: _Costs, outline: Outline) -> float:
    """Numbers and structure of nonzeros, and one bit for each weight."""
    thin = [layer for layer in outline.layers if layer.active < layer.size]
    active, sizes = (sum(getattr(layer, name) for layer in thin) for name in ("active", "size"))
    numbers = (2 + costs.slots) * (outline.parameters - sizes + active) + outline.buffers
    return _NUMBER * numbers + _STRUCTURE * active + sizes / 8


def _making_bytes(outline: Outline) -> float:
    """The dense network that a sparse one is made of, and the draw of the active weights of its largest layer."""
    thin = [layer.size for layer in outline.layers if layer.active < layer.size]
    return _NUMBER * (outline.parameters + outline.buffers) + 8 * max(thin, default=0)
