"""A network as an ONNX graph: input `images`, output `logits`. Weights with inactive entries are sparse constants.

These make the file small. Runtimes make them whole when they load it, and compute densely. They are no sparse
initializers, since what checks a graph takes these for tensors of another type than an operator's input has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from itopctl.errors import UserError
from itopctl.train.export.network import TrainedNetwork
from itopctl.train.export.quiet import quiet

_LARGEST = 2**31 - 1  # bytes of an ONNX file


def written(network: TrainedNetwork, sparse: bool) -> bytes:
    """The graph.

    Args:
        network: to write down.
        sparse: whether weights are sparse constants.
    """
    import onnx

    with quiet():
        program = torch.onnx.export(
            network.dense(), (network.example(),), input_names=["images"], output_names=["logits"], dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},), optimize=False, verbose=False,
        )  # fmt: skip
    assert program is not None
    model = program.model_proto
    for part in (*model.graph.node, *model.graph.initializer, *model.graph.value_info, model.graph):
        del part.metadata_props[:]  # paths of this machine
        part.doc_string = ""
    if sparse:
        _thin(model.graph, {f"model.{name}" for name in network.active})
    onnx.helper.set_model_props(model, {"itopctl": network.about()})
    if model.ByteSize() > _LARGEST:
        raise UserError("an ONNX file holds 2 GiB at most, and this network is larger: use safetensors.")
    data: bytes = model.SerializeToString()
    return data


def _thin(graph: Any, names: set[str]) -> None:
    """Make initializers of these names sparse constants: values, and where each stands in the flat tensor."""
    import onnx

    for initializer in [one for one in graph.initializer if one.name in names]:
        whole = onnx.numpy_helper.to_array(initializer)
        positions = np.flatnonzero(whole)
        if 3 * positions.size >= whole.size:  # a position takes twice a number's room
            continue
        values = onnx.numpy_helper.from_array(whole.reshape(-1)[positions])
        indices = onnx.numpy_helper.from_array(positions.astype(np.int64))
        sparse = onnx.helper.make_sparse_tensor(values, indices, list(whole.shape))
        graph.node.insert(0, onnx.helper.make_node("Constant", [], [initializer.name], sparse_value=sparse))
        graph.initializer.remove(initializer)


def reader(data: bytes, network: TrainedNetwork) -> Callable[[Tensor], Tensor] | None:
    """The graph in onnxruntime; None where that is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
