"""What figures are made from, invented: studies as sweeps give them, with histories and layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from itopctl.report.figures.figure_data import Material, PublishedPoint
from itopctl.report.groups import studies
from itopctl.report.table import Record
from tests.report.records import run

METHODS = ("dense", "static", "set-itop", "rigl-itop")
INTERVALS = (50, 200, 800)
FASHION = {"dense": [None], "static": [None], "set-itop": INTERVALS, "rigl-itop": INTERVALS}
TEN = (250, 500, 1000, 1500, 2000, 3000, 4000, 6000, 8000, 10000)
RESNET = tuple(f"layer{block}.{n}.conv{conv}.weight" for block in range(1, 5) for n in range(4) for conv in (1, 2))


def study_runs(
    sparsities: Sequence[float],
    kinds: Mapping[str, Sequence[int | None]],
    seeds: int = 3,
    settings: Mapping[str, Any] | None = None,
    **about: Any,
) -> list[Record]:
    """Finished runs of each method at each of its intervals and each sparsity."""
    found = []
    for method, intervals in kinds.items():
        for sparsity in [0.0] if method == "dense" else sparsities:
            for interval in intervals:
                for seed in range(seeds):
                    explored = _explored(method, 1 - sparsity, interval, 1.0)
                    accuracy = 0.89 - 0.01 * sparsity**20 * (1 - explored) + 0.001 * ((seed * 7 + len(found)) % 5)
                    found.append(
                        run(
                            method, sparsity, seed, accuracy=accuracy, exploration_rate=explored,
                            exploration_rate_at_best_validation=0.9 * explored, final_density=1 - sparsity,
                            run_id=f"{about.get('model', '')}{len(found):04d}",
                            settings={"update_interval": interval, **(settings or {})}, **about,
                        )
                    )  # fmt: skip
    return found


def _explored(method: str, density: float, interval: int | None, share: float) -> float:
    if method == "dense":
        return 1.0
    if interval is None:
        return density
    return 1 - (1 - density) * math.exp(-0.3 * density * share * 4000 / interval)


def material(
    runs: Sequence[Record], epochs: int = 10, layers: Sequence[str] = ("fc1.weight", "fc2.weight", "fc3.weight"),
    **about: Any,
) -> Material:  # fmt: skip
    """Studies of the runs, each group with a history and layers."""
    made = Material(studies(runs, METHODS), **about)
    groups = [group for _, group in made.groups()]
    return replace(
        made,
        curves=[_curve(group.kind.method, group, epochs) if group.finished else [] for group in groups],
        layers=[_layers(group, layers) if group.finished else [] for group in groups],
    )


def _curve(method: str, group: Any, epochs: int) -> list[Record]:
    interval, std = group.runs[0]["settings"]["update_interval"], 0.004 if len(group.finished) > 1 else None
    points = []
    for epoch in range(1, epochs + 1):
        share = epoch / epochs
        means = {
            "exploration_rate": _explored(method, 1 - group.sparsity, interval, share),
            "test_accuracy": 0.89 - 0.1 * math.exp(-5 * share) - 0.01 * group.sparsity, "validation_accuracy": 0.88,
            "train_loss": math.exp(-3 * share),
        }  # fmt: skip
        summaries = {f"{name}_{part}": value if part == "mean" else std
                     for name, value in means.items() for part in ("mean", "std")}  # fmt: skip
        points.append({"step": 422 * epoch, "epoch": float(epoch), **summaries})
    return points


def _layers(group: Any, names: Sequence[str]) -> list[Record]:
    last = max(1, len(names) - 1)
    return [
        {
            "position": index, "name": name, "size": 1000,
            "density_mean": min(1.0, (1 - group.sparsity) * (0.5 + 2 * index / last)), "density_std": 0.0,
            "exploration_rate_mean": group.summary("exploration_rate").mean ** (1 - 0.5 * index / last),
            "exploration_rate_std": 0.0,
        }
        for index, name in enumerate(names)
    ]  # fmt: skip


PUBLISHED = (
    PublishedPoint("set-itop", 0.9, 0.893, 0.001, "Liu et al. 2021"),
    PublishedPoint("set-itop", 0.98, 0.886, None, "Liu et al. 2021"),
    PublishedPoint("rigl-itop", 0.95, 0.8905, 0.0008, "Liu et al. 2021"),
    PublishedPoint("dense", 0.0, 0.8935, None, "Liu et al. 2021"),
    PublishedPoint("snip", 0.9, 0.885, None, "_somebody's $own_words$"),
    PublishedPoint("set-itop", 0.9, 0.5, None, "of another study", dataset="cifar10"),
)


def fashion(**about: Any) -> Material:
    """The shipped Fashion-MNIST sweep."""
    here = {"dataset": "fashion_mnist", "model": "lenet-300-100"}
    return material(study_runs([0.9, 0.95, 0.98], FASHION, **here), **about)


def odd_names() -> Material:
    """Long names with every sign that a typesetter might take for itself."""
    here = {
        "dataset": "my_data.sets_$a_b$:load_everything_there_is",
        "model": "my_models.networks:make_a_very_big_network_$x^2$",
    }
    rule = {"growth": "my_rules.growth:a_rule_with_quite_a_long_name_$indeed_"}
    runs = [
        *study_runs([0.9, 0.98], {"dense": [None], "set-itop": [50, 200]}, 2, **here),
        *study_runs([0.9, 0.98], {"set-itop": [50]}, 2, rule, **here),
    ]
    for number, one in enumerate(runs):
        one["run_id"] = f"{number:012x}"
    return material(runs, 10, ["backbone.stage_1.blocks.0.attention.query_projection.weight", "head_$x$_{.weight"])


def cases() -> dict[str, Material]:
    """Materials of every shape that sweeps have."""
    return {
        "fashion": fashion(published=PUBLISHED),
        "many kinds": material(
            study_runs([0.5, 0.8, 0.9, 0.95, 0.98], {"set-itop": TEN, "rigl-itop": TEN}), 250, RESNET
        ),
        "one run": material(study_runs([0.9], {"set-itop": [200]}, 1)),
        "odd names": odd_names(),
        "two studies": material(
            study_runs([0.9, 0.95, 0.98], FASHION, dataset="fashion_mnist")
            + study_runs([0.9, 0.98], {"dense": [None], "static": [None], "set-itop": [10, 40]}, model="lenet-300-100")
        ),
    }
