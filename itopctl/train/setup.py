"""What a run needs before its first step: a device, a process that repeats itself, and the engine's rules."""

from __future__ import annotations

import os
import random

import numpy as np
import torch

from itopctl.config.run_config import RunConfig
from itopctl.dst import Rules
from itopctl.dst.random_streams import keyed_generator
from itopctl.errors import EnvironmentUnfitError, UserError
from itopctl.train.ranks import ALONE, Rank


def choose_device(name: str, rank: Rank = ALONE) -> torch.device:
    """`auto`: a GPU if there is one, else the CPU. `cuda` and `auto`: the first GPU, or the one of this process's own.

    Where several processes train one run, each has a GPU: the scheduler shows it no other, or they count through.

    Raises:
        EnvironmentUnfitError: a GPU was asked for by name and there is none, or too few for the processes.
    """
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise EnvironmentUnfitError(f"device {name!r} was asked for, and PyTorch finds no GPU on this machine.")
    if name not in ("auto", "cuda"):
        return torch.device(name)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if rank.alone:
        return torch.device("cuda")
    visible = torch.cuda.device_count()
    if visible > 1 and rank.local >= visible:
        raise EnvironmentUnfitError(
            f"process {rank.index} is the {rank.local + 1}. on this machine, and PyTorch finds {visible} GPUs on it; "
            "each process needs its own."
        )
    return torch.device("cuda", rank.local if visible > 1 else 0)


def seed_everything(seed: int) -> None:
    """Seed every global generator; what we draw ourselves is keyed, but a user's model may draw from these."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def seed_step(seed: int, step: int, rank: Rank) -> None:
    """Seed what a model draws at a step by itself (dropout), for each process otherwise; it needs no saving then."""
    torch.manual_seed(keyed_generator("step", seed, step, rank.index).initial_seed())


def seed_measurement(seed: int, step: int) -> None:
    """Seed what a model draws where it is measured after a step, however often that is done."""
    seed_everything(keyed_generator("measurement", seed, step).initial_seed() % 2**32)


def be_deterministic(threads: int) -> None:
    """Settings of the process under which the same run gives the same bits."""
    choose_exact_arithmetic()
    torch.set_num_threads(threads)


def choose_exact_arithmetic() -> None:
    """The same settings but for the threads: none is started, so the process can be forked, and hands them on."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_float32_matmul_precision("highest")  # fp32 means fp32, not TF32
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)


def compute_of(config: RunConfig, rank: Rank = ALONE) -> str:
    """How layers are computed: as the config says, but `auto` is `masked` where sparse layers cannot be.

    These compute in single precision, uncompiled, in one process.

    Raises:
        UserError: sparse layers were asked for, and cannot be.
    """
    limits = {
        f"precision is {config.precision}": config.precision != "fp32", "compile is true": config.compile,
        "several processes train the run": not rank.alone,
    }  # fmt: skip
    reasons = [reason for reason, holds in limits.items() if holds]
    if config.compute == "sparse" and reasons:
        raise UserError(f"compute: sparse is not possible where {reasons[0]}; use auto or masked.")
    return "masked" if reasons else config.compute


def rules_of(config: RunConfig) -> Rules:
    """The engine's rules, from a resolved run config."""
    return Rules.of_settings(config.model_dump())
