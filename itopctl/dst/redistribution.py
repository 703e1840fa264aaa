"""Redistribution: how many of the weights dropped in the whole network each layer grows.

A rule sees the active weights of a layer before the drop (`LayerView`) and returns one number, 0 or more; layers
grow in proportion to it, as exact integers, up to what fits into each. `none`: each layer grows what it lost.

Source of all: Dettmers and Zettlemoyer 2019 (arXiv 1907.04840). Their code rounds, damps and iterates; here the counts
are exact. torch is not imported here, so that the catalogue stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from itopctl.catalogue import REDISTRIBUTIONS

if TYPE_CHECKING:
    from itopctl.dst.layer_view import LayerView

_SOURCE = "Dettmers and Zettlemoyer 2019 (arXiv 1907.04840)"

REDISTRIBUTIONS.declare("none", summary="every layer grows as many as it lost: counts stay fixed", source="-")


@REDISTRIBUTIONS.add("momentum", source=_SOURCE, needs=("momentum",))
def momentum(layer: LayerView) -> float:
    """in proportion to the mean |momentum| of a layer's active weights"""
    return float(layer.momentum.abs().mean())


@REDISTRIBUTIONS.add("magnitude", source=_SOURCE)
def magnitude(layer: LayerView) -> float:
    """in proportion to the mean |w| of a layer's active weights"""
    return float(layer.weight.abs().mean())


@REDISTRIBUTIONS.add("nonzeros", source=_SOURCE)
def nonzeros(layer: LayerView) -> float:
    """in proportion to how many weights of a layer are active"""
    return float(layer.active_count)
