"""The optimizer of a run config, and its learning rate as a pure function of the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from itopctl.config.run_config import LrScheduleConfig, OptimizerConfig

_ONE_CYCLE_START = 1 / 25  # Smith and Topin 2018; the factors torch's OneCycleLR takes by default
_ONE_CYCLE_END = 1 / 25e4


def make_optimizer(config: OptimizerConfig, model: nn.Module, scaled: bool = False) -> torch.optim.Optimizer:
    """The optimizer over all parameters of the model, weight decay on all of them (as in the papers' recipes).

    Args:
        config: the optimizer's settings.
        model: its parameters are on their device already.
        scaled: whether a gradient scaler will be used. PyTorch's fused SGD leaves its momentum uninitialised where
            the scaler skips the very first step, so it is not used then.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    on_fused_device = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)
    fused = on_fused_device and not scaled
    if config.name == "sgd":
        return torch.optim.SGD(
            parameters, lr=config.lr, momentum=config.momentum or 0.0, nesterov=bool(config.nesterov),
            weight_decay=config.weight_decay, fused=fused,
        )  # fmt: skip
    assert config.betas is not None and config.eps is not None
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(
        parameters,
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=fused,
    )


def lr_factor(config: LrScheduleConfig, step: int, total_steps: int) -> float:
    """Factor on the learning rate for step `step` (from 0) of `total_steps`, in [0, 1]."""
    if config.name == "one-cycle":
        assert config.peak is not None
        return _one_cycle(step, total_steps, config.peak)
    warmup_steps = (config.warmup or 0.0) * total_steps
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if config.name == "cosine":
        progress = (step - warmup_steps) / max(1.0, total_steps - warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * progress))
    if config.name == "milestones":
        assert config.milestones is not None and config.gamma is not None
        # round: 0.3 × 10 steps is step 3, whatever the last bit of the product.
        passed = sum(step >= round(milestone * total_steps, 6) for milestone in config.milestones)
        return float(config.gamma**passed)
    return 1.0


def _one_cycle(step: int, total_steps: int, peak: float) -> float:
    top = peak * total_steps
    if step < top:
        return _cosine_between(_ONE_CYCLE_START, 1.0, step / top)
    return _cosine_between(1.0, _ONE_CYCLE_END, (step - top) / max(1.0, total_steps - top))


def _cosine_between(start: float, end: float, progress: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))
