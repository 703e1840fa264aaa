"""What a run leaves when it has come to its end, as written to `result.json`."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from itopctl.config.run_config import RunConfig
from itopctl.dst import FlopsMeter, SparseTraining, inference_flops
from itopctl.train.data.tensors import ImageData
from itopctl.train.evaluation import Evaluation
from itopctl.train.measure import device_name, peak_memory_bytes


class Trained(Protocol):
    """What is asked of a training (`itopctl.train.loop.Training`) when it has come to its end."""

    config: RunConfig
    data: ImageData
    device: torch.device
    meter: FlopsMeter
    sparse: SparseTraining
    progress: Any
    inference_ratio: float

    @property
    def wall_seconds(self) -> float: ...

    @property
    def energy_joules(self) -> float | None: ...

    def measured(self) -> Evaluation: ...


def result_of(training: Trained) -> dict[str, Any]:
    """The result of a training that has come to its end; accuracies, rates and ratios are fractions."""
    evaluation = training.measured()
    best = training.progress.best or {}
    config, meter = training.config, training.meter
    training_ratio = meter.training_ratio(config.epochs * config.steps_per_epoch)
    of_sample = 2.0 * inference_flops(meter.costs.values(), (), "macs")  # a multiplication and an addition each
    return {
        "test_accuracy": evaluation.test_accuracy,
        "validation_accuracy": evaluation.validation_accuracy,
        "exploration_rate": training.sparse.exploration_rate,
        "best_epoch": best.get("epoch"),
        "best_validation_accuracy": best.get("validation_accuracy"),
        "test_accuracy_at_best_validation": best.get("test_accuracy"),
        "exploration_rate_at_best_validation": best.get("exploration_rate"),
        "density": training.sparse.density,
        "total_density": training.sparse.total_density,
        "maskable": training.sparse.maskable,
        "active": training.sparse.active,
        "trainable": training.sparse.trainable,
        "left_dense": training.sparse.left_dense,
        "train_loss": training.progress.last_loss,
        "train_flops_ratio": training_ratio,
        "inference_flops_ratio": training.inference_ratio,
        "train_flops": 3 * of_sample * len(training.data.train) * config.epochs * training_ratio,
        "inference_flops": of_sample * training.inference_ratio,
        "topology_updates": training.sparse.updates_done,
        "epochs": config.total_epochs,
        "steps": training.progress.step,
        "steps_per_second": training.progress.step / max(training.progress.training_seconds, 1e-9),
        "wall_seconds": training.wall_seconds,
        "peak_memory_bytes": peak_memory_bytes(training.device),
        "energy_joules": training.energy_joules,
        "device_name": device_name(training.device),
        "threads": torch.get_num_threads(),
        "layers": [
            {"name": layer.name, "shape": list(layer.shape), "size": layer.size, "active": layer.active,
             "density": layer.density, "exploration_rate": layer.exploration_rate, "dropped": layer.dropped,
             "backend": layer.backend}
            for layer in training.sparse.layers()
        ],
    }  # fmt: skip
