"""Dynamic sparse training for PyTorch: masks, allocation, drop and growth rules, exploration rate, FLOPs.

Knows tensors and nothing else: no config files, no paths, no jobs, no database. In a training loop of your own:

    from itopctl.dst import SparseTraining

    sparse = SparseTraining(model, optimizer, method="rigl-itop", sparsity=0.9, total_steps=10_000)
    ...
    loss.backward()
    sparse.step()            # in place of optimizer.step()

Where to look, in the order of reading: `methods.py` the named presets · `rules.py` their settings · `allocation.py`
density per layer · `schedule.py` the drop fraction ζ over training · `drop.py`, `growth.py`, `redistribution.py` the
rules, and `layer_view.py` what they see · `update.py` one topology update, by `top_k.py` exact k-subsets and
`apportion.py` exact shares · `explored_set.py` the explored set and R_s · `expected.py` what random growth will explore
· `maskable.py` what can be masked, `scope.py` what of it is trained · `layer.py` one of these, under a mask
(`masked_layer.py`, `masking.py`) or as its nonzeros alone (`compressed_layer.py`, computed by `sparse/`), as
`backends.py` chooses by `speed.py` · `gradient_masks.py` masked gradients, `gradients.py` dense ones kept for the
rules, `step_gradients.py` those of one step · `optimizers.py` who holds which weights, and the state of a new one ·
`writes.py` weights that others write · `parallel.py` equal masks on all ranks · `topology.py` the updates of all layers
· `flops.py` costs and sizes · `reports.py` what the engine tells · `network.py` what can be read of it · `engine.py`
the object that puts them together · `averages.py` averages of weights.

This module imports torch only when one of its names is asked for, so that the catalogues stay light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from itopctl.catalogue import model, rule
    from itopctl.dst.averages import WeightAverage
    from itopctl.dst.engine import SparseTraining
    from itopctl.dst.expected import (
        expected_exploration,
        expected_layer_exploration,
        expected_total_exploration,
        interval_for_exploration,
    )
    from itopctl.dst.flops import FlopsMeter, inference_flops, layer_costs, size_megabytes
    from itopctl.dst.layer_view import LayerView
    from itopctl.dst.reports import LayerReport, TopologyUpdate
    from itopctl.dst.rules import DropSchedule, Rules
    from itopctl.dst.sparse.parameter import SparseParameter
    from itopctl.settings import setting

_HOME = {
    "SparseTraining": "itopctl.dst.engine",
    "WeightAverage": "itopctl.dst.averages",
    "SparseParameter": "itopctl.dst.sparse.parameter",
    "TopologyUpdate": "itopctl.dst.reports",
    "LayerReport": "itopctl.dst.reports",
    "Rules": "itopctl.dst.rules",
    "DropSchedule": "itopctl.dst.rules",
    "LayerView": "itopctl.dst.layer_view",
    "rule": "itopctl.catalogue",
    "model": "itopctl.catalogue",
    "setting": "itopctl.settings",
    "expected_exploration": "itopctl.dst.expected",
    "expected_layer_exploration": "itopctl.dst.expected",
    "expected_total_exploration": "itopctl.dst.expected",
    "interval_for_exploration": "itopctl.dst.expected",
    "layer_costs": "itopctl.dst.flops",
    "inference_flops": "itopctl.dst.flops",
    "size_megabytes": "itopctl.dst.flops",
    "FlopsMeter": "itopctl.dst.flops",
}

__all__ = [
    "DropSchedule",
    "FlopsMeter",
    "LayerReport",
    "LayerView",
    "Rules",
    "SparseParameter",
    "SparseTraining",
    "TopologyUpdate",
    "WeightAverage",
    "expected_exploration",
    "expected_layer_exploration",
    "expected_total_exploration",
    "inference_flops",
    "interval_for_exploration",
    "layer_costs",
    "model",
    "rule",
    "setting",
    "size_megabytes",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
