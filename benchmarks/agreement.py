"""How often masked and sparse runs keep the same topology: the same mathematics, with sums made in another order."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from benchmarks.measure import Figure
from itopctl.config.expand import expand
from itopctl.config.reading import read_text
from itopctl.config.run_config import RunConfig
from itopctl.config.sweep import parse_sweep
from itopctl.train.loop import Training
from itopctl.train.setup import be_deterministic

SPEC = """
name: pairs
base: {dataset: digits, model: lenet-300-100, sparsity: 0.9, epochs: 40, update_interval: 10, compute: masked}
grid: {method: [set, rigl, set-itop, rigl-itop, mest, dst-ee], seed: 2}
"""


def masked_and_sparse() -> list[Figure]:
    """Pairs of runs that differ in `compute` alone: in how many the masks are the same after the last step."""
    be_deterministic(1)
    began = time.perf_counter()
    configs = list(expand(parse_sweep(read_text(SPEC, "pairs.yaml"))).runs.values())
    alike = 0
    differences = []
    for config in configs:
        masked, sparse = (_trained(config.model_copy(update={"compute": how})) for how in ("masked", "sparse"))
        names = [layer.name for layer in masked.sparse.layers()]
        assert masked.sparse.active == sparse.sparse.active
        alike += all(torch.equal(masked.sparse.mask(name), sparse.sparse.mask(name)) for name in names)
        differences.append(abs(masked.sparse.exploration_rate - sparse.sparse.exploration_rate))
    what = f"{len(configs)} pairs of runs, masked and sparse, LeNet-300-100 on digits, {configs[0].total_steps} steps"
    beside = (
        f"{alike} of {len(configs)} pairs end with the same topology; R_s differs by {max(differences):.4f} at most"
    )
    return [Figure(what, time.perf_counter() - began, None, beside)]


def _trained(config: RunConfig) -> Training:
    training = Training(config, Path("data"), lambda name, fields: None)
    training.run()
    return training
