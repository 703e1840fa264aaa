"""Dynamic sparse training for PyTorch: masks, allocation, drop and growth rules, exploration rate, FLOPs.

Knows tensors and nothing else: no config files, no paths, no jobs, no database. In a training loop of your own:

    from itopctl.dst import SparseTraining

    sparse = SparseTraining(model, optimizer, method="rigl-itop", sparsity=0.9, total_steps=10_000)
    ...
    loss.backward()
    sparse.step()            # in place of optimizer.step()

Where to look: `methods.py` the named presets · `allocation.py` density per layer · `drop.py`, `growth.py` the
rules · `schedule.py` the drop fraction ζ over training · `select.py` exact k-subsets · `exploration.py` R_s ·
`flops.py` costs · `masked_layer.py` one masked weight · `engine.py` the object that puts them together.

This module imports torch only when one of its names is asked for, so that the catalogues stay light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from itopctl.dst.engine import LayerReport, SparseTraining, TopologyUpdate
    from itopctl.dst.exploration import expected_exploration
    from itopctl.dst.flops import FlopsMeter, forward_flops
    from itopctl.dst.rules import DropSchedule, LayerView, Rules

_HOME = {
    "SparseTraining": "engine",
    "TopologyUpdate": "engine",
    "LayerReport": "engine",
    "Rules": "rules",
    "DropSchedule": "rules",
    "LayerView": "rules",
    "expected_exploration": "exploration",
    "forward_flops": "flops",
    "FlopsMeter": "flops",
}

__all__ = [
    "DropSchedule",
    "FlopsMeter",
    "LayerReport",
    "LayerView",
    "Rules",
    "SparseTraining",
    "TopologyUpdate",
    "expected_exploration",
    "forward_flops",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
