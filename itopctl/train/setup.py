"""What a run needs before its first step: a device, a process that repeats itself, and the engine's rules."""

from __future__ import annotations

import os
import random

import numpy as np
import torch

from itopctl.dst import Rules
from itopctl.dst.rules import RULE_SETTINGS, DropSchedule
from itopctl.errors import EnvironmentUnfitError
from itopctl.spec.config import RunConfig


def choose_device(name: str) -> torch.device:
    """`auto`: the first GPU if there is one, else the CPU.

    Raises:
        EnvironmentUnfitError: a GPU was asked for by name and there is none.
    """
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise EnvironmentUnfitError(f"device {name!r} was asked for, and PyTorch finds no GPU on this machine.")
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seed_everything(seed: int) -> None:
    """Seed every global generator; what we draw ourselves is keyed, but a user's model may draw from these."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def be_deterministic(threads: int) -> None:
    """Settings of the process under which the same run gives the same bits."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")  # fp32 means fp32, not TF32
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)


def rules_of(config: RunConfig) -> Rules:
    """The engine's rules, from a resolved run config."""
    schedule = config.drop_schedule
    dense_in_budget = config.dense_in_budget
    return Rules(
        allocation=config.allocation,
        allocation_power=1.0 if config.allocation_power is None else config.allocation_power,
        keep_dense=config.keep_dense or (),
        layer_density=tuple((config.layer_density or {}).items()),
        dense_in_budget=True if dense_in_budget is None else dense_in_budget,
        drop=config.drop,
        growth=config.growth,
        redistribution=config.redistribution or "none",
        drop_fraction=config.drop_fraction,
        drop_schedule=DropSchedule(schedule.name, schedule.final, schedule.stop, schedule.power) if schedule else None,
        update_interval=config.update_interval,
        update_replaces_step=config.update_replaces_step,
        replace_rounding=config.replace_rounding,
        **{name: getattr(config, name) for name in RULE_SETTINGS},
    )
