"""Drop rules: which active weights go.

A rule sees the active weights of a layer (`LayerView`) and returns one score for each; the *lowest* go. The engine
selects exactly as many as it must, breaks ties by a seeded random key, and never looks at an inactive weight. What a
rule declares beside its name and source:

- `needs`: "gradient" (∂L/∂w of the batch, at these weights), "momentum" or "times_active".
- `settings`: fields of `Rules` that it takes as keywords, with their defaults.
- `scope="network"`: the scores of all layers are ranked together.
- `chooses=True`: it is called with the number to drop as well, and returns a bool for each active weight, True where
  it goes, instead of scores.
- `any_number=True`: it does not keep to that number, so that how much is explored cannot be said before training.

A rule that reads the gradient is asked before the optimizer's step, while the weights are those of the gradient; any
other one after it. torch is not imported here, so that the catalogue stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from itopctl.catalogue import DROPS
from itopctl.settings import Setting

if TYPE_CHECKING:
    from torch import Tensor

    from itopctl.dst.layer_view import LayerView


@DROPS.add("magnitude", source="Mocanu et al. 2018; Evci et al. 2020")
def magnitude(layer: LayerView) -> Tensor:
    """drop the weights closest to zero, |w|, layer by layer"""
    return layer.weight.abs()


@DROPS.add("global-magnitude", source="Dettmers and Zettlemoyer 2019 (code); exact rank", scope="network")
def global_magnitude(layer: LayerView) -> Tensor:
    """drop the weights closest to zero, |w|, of the whole network"""
    return layer.weight.abs()


@DROPS.add("sign-split", source="Mocanu et al. 2018 (arXiv 1707.04780), exact count", chooses=True)
def sign_split(layer: LayerView, count: int) -> Tensor:
    """SET: drop the fraction ζ of the positive weights closest to zero, and of the negative ones

    round(ζ·n₊) of the positive weights go, and the rest of `count` are weights at or below zero, zeros first. Where
    one sign has too few, the other makes up for it.
    """
    from itopctl.dst.top_k import highest, lowest

    weight = layer.weight
    positive = (weight > 0).nonzero().squeeze(1)
    others = (weight <= 0).nonzero().squeeze(1)
    of_positive = min(round(layer.drop_fraction * positive.numel()), count)
    of_positive = max(of_positive, count - others.numel())
    goes = weight.new_zeros(weight.shape).bool()
    goes[positive[lowest(weight[positive], of_positive, layer.generator)]] = True
    goes[others[highest(weight[others], count - of_positive, layer.generator)]] = True
    return goes


@DROPS.add("taylor", source="Molchanov et al. 2019 (arXiv 1906.10771): first-order Taylor", needs=("gradient",))
def taylor(layer: LayerView) -> Tensor:
    """drop where zeroing the weight changes the loss least to first order, (w·∂L/∂w)²

    Ranked by the absolute product: the same order, and small products do not vanish when they are squared.
    """
    return _product(layer).abs()


@DROPS.add("sensitivity", source="Lee et al. 2019, SNIP (arXiv 1810.02340), its score", needs=("gradient",))
def sensitivity(layer: LayerView) -> Tensor:
    """drop where the loss is least sensitive to the weight, |w·∂L/∂w|"""
    return _product(layer).abs()


@DROPS.add(
    "mest",
    source="Yuan et al. 2021, MEST (arXiv 2110.14032); its released code runs with λ = 0",
    needs=("gradient",),
    settings={"gradient_weight": Setting(0.01, "λ, the gradient's weight", at_least=0)},
)
def mest(layer: LayerView, gradient_weight: float) -> Tensor:
    """drop where |w| + λ·|∂L/∂w| is smallest; λ is gradient_weight"""
    return layer.weight.abs() + gradient_weight * layer.gradient.abs()


def _product(layer: LayerView) -> Tensor:
    """w·∂L/∂w, in single precision at least: in half precision most products would be zero, and so tied."""
    weight, gradient = layer.weight, layer.gradient
    return weight * gradient if weight.itemsize >= 4 else weight.float() * gradient.float()


@DROPS.add(
    "threshold",
    source="Mostafa and Wang 2019 (arXiv 1902.05967), with a fixed threshold",
    settings={"drop_threshold": Setting(1e-3, "τ", at_least=0)},
    chooses=True,
    any_number=True,
)
def threshold(layer: LayerView, count: int, drop_threshold: float) -> Tensor:
    """drop every weight with |w| ≤ τ, however many they are; τ is drop_threshold, and ζ is not looked at"""
    return layer.weight.abs() <= drop_threshold
