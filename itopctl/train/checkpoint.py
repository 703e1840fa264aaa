"""A training's state as bytes, and back: what is zero off a mask is stored as its active entries alone.

Loading runs no code: tensors and plain values only (`weights_only`), stored as they are, never compressed.
"""

from __future__ import annotations

import dataclasses
import io
import random
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from itopctl.dst import SparseTraining
from itopctl.dst.compressed_layer import BACKENDS
from itopctl.dst.sparse.module import structure_names
from itopctl.errors import UserError, is_want_of_memory

_MOST_VALUES, _DEEPEST = 1_000_000, 32
_MARGIN = 16 << 20

BEST = ("epoch", "step", "validation_accuracy", "test_accuracy", "exploration_rate")
"""What is known of the epoch that was best on validation."""

_ACTIVE_OF = "active_of"
"""Key of a tensor that is stored sparse: name of the parameter whose mask says where its `entries` stand."""


def encode(state: Mapping[str, Any]) -> bytes:
    """A state of tensors and plain values as the content of a file that `torch.load` reads."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def decode(data: bytes) -> dict[str, Any]:
    """Inverse of `encode`, on the CPU.

    Raises:
        ValueError: it is anything else.
        MemoryError: there is no room for it just now, which says nothing of it.
    """
    try:
        return _decoded(data)
    except MemoryError:
        _check_room(len(data))
    try:
        return _decoded(data)
    except MemoryError as error:
        raise ValueError("it is no checkpoint: it asks for more memory than it can need") from error


def _decoded(data: bytes) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            entries = file.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ValueError("it is compressed")
            if sum(entry.file_size for entry in entries) > len(data):
                raise ValueError("its parts overlap")
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        _check_values(state, len(data))
    except Exception as error:  # a file of somebody else may make PyTorch raise anything
        if is_want_of_memory(error):
            raise MemoryError(f"there is no room for a checkpoint of {len(data) >> 20} MiB") from error
        raise ValueError(f"it is no checkpoint: {type(error).__name__}: {str(error)[:100]}") from error
    if not isinstance(state, dict):
        raise ValueError("it is no checkpoint: no dictionary")
    return state


def _check_room(size: int) -> None:
    """Raise MemoryError where there is less room than a checkpoint of this size can need."""
    try:
        torch.empty(3 * size + _MARGIN, dtype=torch.uint8)
    except RuntimeError as error:
        raise MemoryError(f"there is no room for a checkpoint of {size >> 20} MiB") from error


def _check_values(state: Any, size: int) -> None:
    """Raise ValueError for values that `encode` does not write: tensors larger than the file, nests without end."""
    seen = 0
    waiting = [(state, 0)]
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if seen > _MOST_VALUES or depth > _DEEPEST:
            raise ValueError("it has too many parts")
        if isinstance(value, Tensor):
            plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
            if not plain or value.numel() * value.element_size() > size:
                raise ValueError("it has a tensor that is none of a checkpoint")
        elif isinstance(value, Mapping):
            waiting.extend((inner, depth + 1) for inner in value.values())
        elif isinstance(value, (list, tuple, set)):
            waiting.extend((inner, depth + 1) for inner in value)


def check_fits(
    state: Mapping[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer, sparse: SparseTraining
) -> None:
    """Raise ValueError where whole tensors of a state are not of the shapes and kinds that the training has.

    An optimizer takes over whatever it is given, and reads beyond the end of what is too small.

    Args:
        state: unpacked.
        model, optimizer, sparse: what is to go on from it.
    """
    structure = structure_names(model)
    own = {name: tensor for name, tensor in model.state_dict().items() if name not in structure}
    thin = {name for name, parameter in model.named_parameters(remove_duplicate=False)
            if any(parameter is sparse.weight(layer) for layer in sparse.compressed)}  # fmt: skip
    if state["model"].keys() != own.keys():
        raise ValueError("it is of another model")
    for name, tensor in own.items():
        # How many nonzeros a compressed weight has may have changed: as many as the saved mask has, as `unpack` checks.
        given = state["model"][name]
        like = tensor.new_empty(given.shape) if name in thin and _is_a_row(given) else tensor
        if not _is_alike(given, like):
            raise ValueError(f"{name} is of another shape or kind")
    momentum = any(group.get("momentum") for group in optimizer.param_groups)
    names = {parameter: name for name, parameter in model.named_parameters()}
    shapes = [state["model"][names[weight]].shape for group in optimizer.param_groups for weight in group["params"]]
    for number, slots in state["optimizer"]["state"].items():
        if momentum and not isinstance(slots.get("momentum_buffer"), Tensor):
            raise ValueError("the optimizer's momentum is not there")
        for name, slot in slots.items():
            single = isinstance(slot, (int, float)) or (isinstance(slot, Tensor) and slot.numel() == 1)
            whole = isinstance(slot, Tensor) and slot.shape == shapes[number] and slot.is_floating_point()
            if not (slot is None or whole or (single and name == "step")):
                raise ValueError(f"the optimizer's {name} is of another shape or kind")


def _is_a_row(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 1


def _is_alike(value: Any, tensor: Any) -> bool:
    if not isinstance(tensor, Tensor):
        return type(value) is type(tensor)
    return isinstance(value, Tensor) and value.shape == tensor.shape and value.dtype == tensor.dtype


def check_numbers(values: Mapping[str, Any], like: Any) -> None:
    """Raise ValueError where fields of a dataclass are missing, or of another kind than in the one that is given."""
    for field in dataclasses.fields(like):
        value, own = values.get(field.name), getattr(like, field.name)
        kinds: tuple[type, ...] = (int, float, type(None)) if own is None or isinstance(own, float) else (type(own),)
        kinds = (dict, type(None)) if field.name == "best" else kinds
        if field.name == "energy_joules" and value is None:
            continue  # not in checkpoints of old
        if field.name not in values or isinstance(value, bool) or not isinstance(value, kinds):
            raise ValueError(f"its {field.name} is missing, or no number")
    best = values["best"]
    if best is not None and not all(isinstance(best.get(name), (int, float)) for name in BEST):
        raise ValueError("its best epoch is not whole")


def check_positions(state: Mapping[str, Any]) -> None:
    """Raise ValueError where positions in the schedule, or the costs so far, are no numbers."""
    sparse, meter = state["sparse"], state["meter"]
    whole = [sparse.get(name) for name in ("steps_done", "updates_done", "total_steps")] + [meter.get("steps")]
    if not all(isinstance(number, int) for number in whole) or not isinstance(meter.get("training_cost"), float):
        raise ValueError("its positions or costs are no numbers")
    threads = state.get("threads", 1)
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 4096:
        raise ValueError("its number of threads is none")


class OtherWeightsError(UserError):
    """A state is whole, and of a training that masked another number of weights than the model has now."""


def check_maskable(state: Mapping[str, Any], maskable: int) -> None:
    """Check that a state's training masked as many weights as its model has now.

    Args:
        state: with `maskable`, unless it is not known: older states do not say it.
        maskable: of the training that is to go on from it.

    Raises:
        OtherWeightsError: it did not. ValueError: what the state says is no number.
    """
    masked = state.get("maskable", maskable)
    if isinstance(masked, bool) or not isinstance(masked, int):
        raise ValueError("its number of maskable weights is none")
    if masked != maskable:
        raise OtherWeightsError(
            f"this run was begun with {masked:,} maskable weights, but its model has {maskable:,} now (attention and "
            "recurrent layers are masked since, or the model was changed)"
        )


def backends_in(state: Mapping[str, Any]) -> dict[str, str]:
    """How layers were computed; none was sparse before a state said so.

    Raises:
        ValueError: it says something else.
    """
    backends = state.get("backends", {})
    if not isinstance(backends, dict) or not all(
        isinstance(name, str) and backend in BACKENDS for name, backend in backends.items()
    ):
        raise ValueError("how its layers were computed is not said as it must be")
    return backends


def pack(
    state: Mapping[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer, sparse: SparseTraining
) -> dict[str, Any]:
    """A training's state without the zeros off the masks, in weights and in optimizer state of their shape.

    It is the same whether layers are masked or compressed.

    Args:
        state: the states of the three as `model`, `optimizer` and `sparse`, and whatever else.
        model, optimizer, sparse: what they are of.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    numbers = {p: n for n, p in enumerate(p for group in optimizer.param_groups for p in group["params"])}
    structure = structure_names(model)  # the masks say it, too
    weights = {name: value for name, value in state["model"].items() if name not in structure}
    slots_of = dict(state["optimizer"]["state"])
    for layer, active in sparse.masks.items():
        weight = parameters[layer]
        packed = _packed_compressed if layer in sparse.compressed else _packed
        for name, parameter in parameters.items():
            if parameter is weight and name in weights:
                weights[name] = packed(weights[name], layer, active)
        number = numbers.get(weight)
        if number in slots_of:
            slots_of[number] = {name: packed(slot, layer, active) for name, slot in slots_of[number].items()}
    return {**state, "model": weights, "optimizer": {**state["optimizer"], "state": slots_of}}


def _packed(value: Any, layer: str, active: Tensor) -> Any:
    """A tensor of a mask's shape as its active entries; anything else, and one that is not zero elsewhere, as it is."""
    if not isinstance(value, Tensor) or value.shape != active.shape:
        return value
    entries = value[active]
    if int(torch.count_nonzero(value)) != int(torch.count_nonzero(entries)):
        return value
    return {_ACTIVE_OF: layer, "entries": entries}


def _packed_compressed(value: Any, layer: str, active: Tensor) -> Any:
    """`_packed` of a tensor that is its active entries alone."""
    return {_ACTIVE_OF: layer, "entries": value.clone()} if isinstance(value, Tensor) and value.dim() == 1 else value


def unpack(state: Mapping[str, Any], sparse: SparseTraining) -> dict[str, Any]:
    """Inverse of `pack`: every tensor whole again, or, of a layer that is compressed here, its active entries alone.

    Raises:
        ValueError, KeyError: it does not fit together, or not to `sparse`.
    """
    masks = sparse.masks_in(state["sparse"])
    thin = sparse.compressed
    unpacked = {**state, **{part: _unpacked(state[part], masks, thin) for part in ("model", "optimizer")}}
    numbers = {p: n for n, p in enumerate(p for group in sparse.optimizer.param_groups for p in group["params"])}
    slots_of = unpacked["optimizer"]["state"]
    for name in thin & masks.keys():  # what was stored whole, since something stood off the mask
        value = unpacked["model"][name] = _active_of(unpacked["model"][name], masks[name])
        if not isinstance(value, Tensor) or value.numel() != int(masks[name].sum()):
            raise ValueError(f"{name} does not fit its mask")
        number = numbers.get(sparse.weight(name))
        if number in slots_of:
            slots_of[number] = {key: _active_of(slot, masks[name]) for key, slot in slots_of[number].items()}
    return unpacked


def whole_model(state: Mapping[str, Any], masks: Mapping[str, Tensor]) -> dict[str, Any]:
    """The model's state out of what `pack` gave, every tensor whole.

    Args:
        state: packed.
        masks: name of each layer with inactive weights → bool tensor of its shape.

    Raises:
        ValueError: they do not fit together.
    """
    model: dict[str, Any] = _unpacked(state["model"], masks, frozenset())
    return model


def _active_of(value: Any, mask: Tensor) -> Any:
    return value[mask] if isinstance(value, Tensor) and value.shape == mask.shape else value


def _unpacked(value: Any, masks: Mapping[str, Tensor], thin: frozenset[str]) -> Any:
    if isinstance(value, Mapping):
        if _ACTIVE_OF in value:
            whole = _whole(value, masks)
            return value["entries"] if value[_ACTIVE_OF] in thin else whole
        return {key: _unpacked(inner, masks, thin) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_unpacked(inner, masks, thin) for inner in value)
    return value


def _whole(stored: Mapping[str, Any], masks: Mapping[str, Tensor]) -> Tensor:
    try:
        active, entries = masks[stored[_ACTIVE_OF]], stored["entries"]
        whole = torch.zeros(active.shape, dtype=entries.dtype)
        whole[active] = entries
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise ValueError(f"a tensor of {stored.get(_ACTIVE_OF)!r} does not fit its mask") from error
    return whole


def random_states(device: torch.device) -> dict[str, Any]:
    """States of every global generator that a model may draw from."""
    _, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "device": _generator(device).get_state() if device.type != "cpu" else None,
        "python": random.getstate(),
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
    }


def set_random_states(states: Mapping[str, Any], device: torch.device) -> None:
    """Go on where `random_states` was; a state of another kind of device is passed over."""
    torch.set_rng_state(states["torch"])
    if device.type != "cpu" and states["device"] is not None:
        _generator(device).set_state(states["device"])
    random.setstate(states["python"])
    keys, *rest = states["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *rest))


def _generator(device: torch.device) -> torch.Generator:
    if device.type == "mps":
        return torch.mps._get_default_mps_generator()
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.cuda.default_generators[index]
