"""Drop rules: which active weights go. A rule returns a score for each weight; the *lowest* active ones are dropped.

The engine selects exactly as many as it must, breaks ties by a seeded random key, and never looks at the score
of an inactive weight. torch is not imported here, so that the catalogue stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from itopctl.catalogue import DROPS

if TYPE_CHECKING:
    from torch import Tensor

    from itopctl.dst.rules import LayerView


@DROPS.add("magnitude", source="Mocanu et al. 2018; Evci et al. 2020")
def magnitude(layer: LayerView) -> Tensor:
    """drop the weights closest to zero, |w|"""
    return layer.weight.abs()
