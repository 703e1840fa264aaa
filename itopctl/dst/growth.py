"""Growth rules: which inactive weights come. A rule returns a score for each weight; the *highest* candidates grow.

Candidates are all weights that the drop rule did not keep, those just dropped included. The engine selects
exactly as many as were dropped and breaks ties by a seeded random key. A rule that reads `layer.gradient` is
declared with `needs_gradient=True`: the engine then keeps the dense gradient of that one step.
torch is not imported here, so that the catalogue stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from itopctl.catalogue import GROWTHS

if TYPE_CHECKING:
    from torch import Tensor

    from itopctl.dst.rules import LayerView


@GROWTHS.add("random", source="Mocanu et al. 2018 (arXiv 1707.04780)", needs_gradient=False)
def random(layer: LayerView) -> Tensor:
    """grow uniformly at random, without replacement"""
    return layer.random_scores()


@GROWTHS.add("gradient", source="Evci et al. 2020 (arXiv 1911.11134)", needs_gradient=True)
def gradient(layer: LayerView) -> Tensor:
    """grow where the dense gradient of the loss is largest, |∂L/∂w|"""
    return layer.gradient.abs()
