"""Records as the store gives them, for the tests of the reports."""

from __future__ import annotations

from typing import Any

from itopctl.report.table import Record
from itopctl.store.queries import RUN_COLUMNS


def run(method: str = "set-itop", sparsity: float = 0.9, seed: int = 0, **changed: Any) -> Record:
    """A finished run as `paper_tables` takes it; `settings` given here come on top of the usual ones."""
    settings = {
        "dataset": "digits", "model": "lenet-5", "method": method, "sparsity": sparsity, "seed": seed,
        "update_interval": None if method in ("dense", "static") else 40, "optimizer.lr": 0.1, "epochs": 4,
        "lr_schedule.milestones": [0.5, 0.75], **changed.pop("settings", {}),
    }  # fmt: skip
    accuracy = changed.pop("accuracy", 0.95)
    return {
        "dataset": "digits", "model": "lenet-5", "method": method, "sparsity": sparsity, "seed": seed,
        "state": "done", "test_accuracy": accuracy, "test_accuracy_at_best_validation": accuracy,
        "exploration_rate": 1 - sparsity, "exploration_rate_at_best_validation": 1 - sparsity,
        "train_flops_ratio": 1 - sparsity, "inference_flops_ratio": 1 - sparsity,
        "growth": {"set-itop": "random", "rigl-itop": "gradient"}.get(method), "topology_updates": 4,
        "update_interval": settings["update_interval"], "run_id": f"{method}-{sparsity}-{seed}",
        "wall_seconds": 10.0, "steps_per_second": 100.0, "train_flops": 2e12 * (1 - sparsity),
        "inference_flops": 1e6 * (1 - sparsity), "peak_memory_bytes": 10**8, "energy_joules": None,
        "device_name": "a CPU", "threads": 1, "settings": settings, **changed,
    }  # fmt: skip


def unfinished(method: str, sparsity: float, seed: int, state: str = "queued", **changed: Any) -> Record:
    """A run that has measured nothing yet."""
    measured = (
        "test_accuracy", "test_accuracy_at_best_validation", "exploration_rate", "train_flops_ratio",
        "inference_flops_ratio",
    )  # fmt: skip
    return {**run(method, sparsity, seed, **changed), **dict.fromkeys(measured), "state": state}


def paper_runs() -> list[Record]:
    """A small study: two models, a dense baseline, a method with two update intervals, unfinished and failed seeds.

    The numbers by hand: set-itop at 90 % and ΔT 40 has 0.93, 0.95, 0.97: mean 0.95, deviation √(0.0008 / 2) = 0.02.
    """
    lenet = [
        *(run("set-itop", 0.9, seed, accuracy=0.93 + 0.02 * seed, exploration_rate=0.4) for seed in range(3)),
        *(
            run("set-itop", 0.9, seed, accuracy=0.94, exploration_rate=0.8, settings={"update_interval": 10})
            for seed in range(2)
        ),
        run("set-itop", 0.98, 0, accuracy=0.8, exploration_rate=0.1),
        unfinished("set-itop", 0.98, 1, "running"),
        unfinished("set-itop", 0.98, 0, settings={"update_interval": 10}),
        run("static", 0.98, 0, accuracy=0.61, exploration_rate=0.02),
        run("static", 0.98, 1, accuracy=0.59, exploration_rate=0.02),
        *(unfinished("static", 0.9, seed, "failed") for seed in range(2)),
        *(run("dense", 0.0, seed, accuracy=0.97 + 0.01 * seed, exploration_rate=1.0) for seed in range(2)),
    ]
    mine = {"model": "my_models:big_{net}", "dataset": "cifar10"}
    return [*lenet, run("rigl-itop", 0.965, 0, accuracy=0.5, exploration_rate=0.25, **mine)]


def store_runs() -> list[Record]:
    """Runs as `itopctl report --table runs` shows them: done, running, failed and queued."""
    empty = dict.fromkeys(RUN_COLUMNS)
    base = {**empty, "sweep": "first,second", "dataset": "digits", "model": "lenet-5", "method": "set-itop", "seed": 0}
    return [
        {
            **base, "run_id": "0123456789ab", "state": "done", "cause": "finished", "sparsity": 0.965, "density": 0.035,
            "update_interval": 1500, "test_accuracy": 0.9731, "test_accuracy_at_best_validation": 0.97,
            "exploration_rate": 0.314, "train_flops_ratio": 0.12, "wall_seconds": 3725.0,
        },
        {**base, "run_id": "1123456789ab", "state": "running", "sparsity": 0.9, "density": 0.1, "update_interval": 40},
        {
            **base, "run_id": "2123456789ab", "state": "failed", "cause": "out-of-memory", "sparsity": 0.9,
            "density": 0.1, "seed": 1, "message": 'no room for "weights", of 3 GB\nsecond line', "update_interval": 40,
        },
        {
            **base, "run_id": "3123456789ab", "state": "queued", "method": "dense", "sparsity": 0.0, "density": 1.0,
            "model": "模型|b:net_a",
        },
    ]  # fmt: skip
