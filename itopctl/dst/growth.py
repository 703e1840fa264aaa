"""Growth rules: which inactive weights come. Candidates are all that were not kept, those just dropped included.

A rule sees all weights of a layer (`LayerView`) and returns one score for each; the candidates with the *highest*
scores grow. The engine selects exactly as many as it must, breaks ties by a seeded random key, and never looks at the
score of a kept weight. What a rule declares beside its name and source:

- `needs`: "gradient" (the dense ∂L/∂w, the mean over `gradient_batches` batches), "momentum" (its moving average) or
  "times_active".
- `settings`: fields of `Rules` that it takes as keywords, with their defaults.
- `chooses=True`: it is called with the number to grow as well, and returns the flat positions of so many distinct
  candidates, instead of scores.
- `sampled=True`: it looks at the gradient of few weights, so that it costs no dense backward pass.
- `elementwise=True`: the score of a weight depends on that weight alone, so that large layers may be scored piece by
  piece, without a dense gradient in memory.
- `explores`: "uniformly" (every candidate is as likely), "unexplored" (those first that were never active) or
  "revisits" (the weights it prefers are much the same every time); undeclared, nothing is known before training.

torch is not imported here, so that the catalogue stays light.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from itopctl.catalogue import GROWTHS
from itopctl.settings import Setting

if TYPE_CHECKING:
    from torch import Tensor

    from itopctl.dst.layer_view import LayerView


@GROWTHS.add("random", source="Mocanu et al. 2018 (arXiv 1707.04780)", chooses=True, explores="uniformly")
def random(layer: LayerView, count: int) -> Tensor:
    """grow uniformly at random, without replacement"""
    return layer.random_candidates(count)


@GROWTHS.add(
    "random-unexplored",
    source="Liu et al. 2021 (code: random_unfired), exact count",
    chooses=True,
    explores="unexplored",
)
def random_unexplored(layer: LayerView, count: int) -> Tensor:
    """grow at random among the weights that were never active; once these are used up, among all inactive ones"""
    import torch

    unexplored = layer.unexplored_positions()
    if count <= unexplored.numel():
        return unexplored[layer.random_subset(unexplored.numel(), count)]
    taken = torch.cat([layer.kept, unexplored]).sort().values
    others = layer.with_kept(taken).random_candidates(count - unexplored.numel())
    return torch.cat([unexplored, others])


@GROWTHS.add(
    "gradient",
    source="Evci et al. 2020 (arXiv 1911.11134)",
    needs=("gradient",),
    explores="revisits",
    elementwise=True,
)
def gradient(layer: LayerView) -> Tensor:
    """grow where the dense gradient of the loss is largest, |∂L/∂w|"""
    return layer.gradient.abs()


@GROWTHS.add(
    "momentum",
    source="Dettmers and Zettlemoyer 2019 (arXiv 1907.04840)",
    needs=("momentum",),
    explores="revisits",
)
def momentum(layer: LayerView) -> Tensor:
    """grow where the moving average of the dense gradient is largest"""
    return layer.momentum.abs()


@GROWTHS.add(
    "momentum-neuron",
    source="Dettmers and Zettlemoyer 2019 (code: momentum_neuron), exact count",
    needs=("momentum",),
    explores="revisits",
    chooses=True,
)
def momentum_neuron(layer: LayerView, count: int) -> Tensor:
    """share growth over output neurons by their mean |momentum|, then grow the largest within each

    A neuron is a slice of the weight along its first dimension (input channels of a transposed convolution).
    """
    import torch

    from itopctl.dst.apportion import apportion
    from itopctl.dst.top_k import highest

    rows = layer.momentum.abs().reshape(layer.shape[0], -1)
    width = rows.shape[1]
    row_of_kept = layer.kept // width
    free = width - torch.bincount(row_of_kept, minlength=layer.shape[0])
    shares = apportion(rows.double().mean(dim=1).tolist(), count, free.tolist())
    bounds = torch.searchsorted(row_of_kept, torch.arange(layer.shape[0] + 1, device=layer.kept.device)).tolist()
    grown = [
        row * width
        + highest(rows[row], share, layer.generator, layer.kept[bounds[row] : bounds[row + 1]] - row * width)
        for row, share in enumerate(shares)
        if share
    ]
    return torch.cat(grown) if grown else layer.kept[:0]


@GROWTHS.add(
    "gradient-plus-exploration",
    source="Huang et al. 2023, DST-EE (arXiv 2211.16667); defaults of c and ε are ours",
    needs=("gradient", "times_active"),
    settings={
        "exploration_weight": Setting(1e-3, "c, the weight of exploration", at_least=0),
        "exploration_offset": Setting(1.0, "ε, added to the times a weight was active", above=0),
    },
    elementwise=True,
)
def gradient_plus_exploration(layer: LayerView, exploration_weight: float, exploration_offset: float) -> Tensor:
    """DST-EE: grow where |∂L/∂w| + c·ln t / (N + ε) is largest, t the step and N how often the weight was active"""
    bonus = exploration_weight * math.log(max(layer.step, 1))
    return layer.gradient.abs() + bonus / (layer.times_active + exploration_offset)


@GROWTHS.add(
    "sampled-gradient",
    source="Heddes et al. 2024, GSE (arXiv 2401.06898), its uniform distribution, drawn without replacement",
    needs=("gradient",),
    settings={"sampled_share": Setting(1.0, "candidates drawn for each active weight", above=0)},
    chooses=True,
    sampled=True,
    explores="revisits",
)
def sampled_gradient(layer: LayerView, count: int, sampled_share: float) -> Tensor:
    """GSE: draw γ·nnz candidates at random and grow the largest |∂L/∂w| among them; γ is sampled_share"""
    from itopctl.dst.top_k import highest

    wanted = max(count, math.floor(round(sampled_share * layer.active_count, 9)))
    sampled = layer.random_candidates(min(wanted, layer.candidate_count))
    return sampled[highest(layer.at(sampled).gradient.abs(), count, layer.generator)]
