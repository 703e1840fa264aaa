"""The weights of a network alone, as a safetensors file.

A weight with few active entries is two tensors: `NAME.values`, its nonzeros, and `NAME.positions`, where each stands in
the flat weight. Its shape is in the metadata (`itopctl`, JSON, `shapes`), as is what normalises images.
"""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Callable

import torch
from torch import Tensor

from itopctl.errors import UserError
from itopctl.train.export.network import Classifier, TrainedNetwork

_SHORT = 2**31


def written(network: TrainedNetwork, sparse: bool) -> bytes:
    """The file.

    Args:
        network: to write down.
        sparse: whether weights with inactive entries are kept as these two tensors, or whole.
    """
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    for name, tensor in network.model.state_dict().items():
        if not isinstance(tensor, Tensor):
            raise UserError(f"{name} of the model's state is no tensor, and safetensors holds nothing else.")
        active = network.active.get(name) if sparse else None
        if active is None or 2 * int(active.sum()) >= active.numel():  # these two would take more room
            tensors[name] = tensor.detach().clone(memory_format=torch.contiguous_format)
        else:
            positions = active.view(-1).nonzero().squeeze(1)
            tensors[f"{name}.values"] = tensor.detach().reshape(-1)[positions]
            tensors[f"{name}.positions"] = positions.to(torch.int32) if active.numel() < _SHORT else positions
    return save(tensors, metadata={"format": "pt", "itopctl": network.about()})


def reader(data: bytes, network: TrainedNetwork) -> Callable[[Tensor], Tensor]:
    """The network with the weights that were written."""
    from safetensors.torch import load

    tensors = load(data)
    shapes = json.loads(_metadata(data)["itopctl"])["shapes"]
    for name, shape in shapes.items():
        if f"{name}.values" in tensors:
            values, positions = tensors.pop(f"{name}.values"), tensors.pop(f"{name}.positions").long()
            tensors[name] = torch.zeros(shape, dtype=values.dtype)
            tensors[name].view(-1)[positions] = values
    model = copy.deepcopy(network.model)
    model.load_state_dict(tensors)
    return Classifier(model, network.normalisation).eval()


def _metadata(data: bytes) -> dict[str, str]:
    (length,) = struct.unpack("<Q", data[:8])
    metadata: dict[str, str] = json.loads(data[8 : 8 + length])["__metadata__"]
    return metadata
