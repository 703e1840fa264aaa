"""A trained network, taken from what a finished run keeps."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from itopctl.catalogue import DATASETS, MODELS
from itopctl.dst.exploration import unpack_bits
from itopctl.spec.config import RunConfig
from itopctl.train.checkpoint import whole_model

Normalisation = tuple[Tensor, Tensor]
"""Mean and standard deviation of each channel, [channels, 1, 1], in units of a pixel's byte."""


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network, on the CPU, in evaluation mode.

    Attributes:
        run_id, config: of the run.
        model: takes normalised images; its weights are whole, zeros included.
        active: name of each weight that has inactive entries → bool tensor of its shape.
        normalisation: of images.
    """

    run_id: str
    config: RunConfig
    model: nn.Module
    active: Mapping[str, Tensor]
    normalisation: Normalisation

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image: channels, height, width."""
        channels, height, width = DATASETS.get(self.config.dataset).options["shape"]
        return channels, height, width

    @functools.cached_property
    def parameters(self) -> int:
        """Numbers in all, zeros included."""
        return sum(tensor.numel() for tensor in self.model.state_dict().values())

    @functools.cached_property
    def nonzeros(self) -> int:
        """Numbers that are not zeros of inactive weights."""
        return self.parameters - sum(int((~active).sum()) for active in self.active.values())

    def about(self) -> str:
        """What a reader of a file wants to know, as JSON."""
        mean, std = (values.flatten().tolist() for values in self.normalisation)
        config = self.config
        return json.dumps({
            "run_id": self.run_id, "model": config.model, "dataset": config.dataset, "method": config.method,
            "sparsity": config.sparsity, "seed": config.seed, "image_shape": list(self.shape),
            "classes": DATASETS.get(config.dataset).options["classes"], "mean": mean, "std": std,
            "shapes": {name: list(active.shape) for name, active in self.active.items()},
        })  # fmt: skip

    def dense(self) -> Classifier:
        """From images as bytes to logits, with whole weights."""
        return Classifier(self.model, self.normalisation).eval()

    def example(self, batch: int = 2) -> Tensor:
        """Images of noise, uint8 [batch, channels, height, width]."""
        generator = torch.Generator().manual_seed(0)
        return torch.randint(0, 256, (batch, *self.shape), generator=generator, dtype=torch.uint8)


class Classifier(nn.Module):
    """A network that takes images as bytes.

    Args:
        model: takes normalised images.
        normalisation: of these.
    """

    def __init__(self, model: nn.Module, normalisation: Normalisation) -> None:
        super().__init__()
        self.normalise = _Normalise(normalisation)
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [batch, channels, height, width] → logits [batch, classes]."""
        logits: Tensor = self.model(self.normalise(images))
        return logits


class _Normalise(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(self, normalisation: Normalisation) -> None:
        super().__init__()
        self.register_buffer("mean", normalisation[0].clone())
        self.register_buffer("std", normalisation[1].clone())

    def forward(self, images: Tensor) -> Tensor:
        return (images.to(torch.float32) - self.mean) / self.std


def kept_of(state: Mapping[str, Any], normalisation: Normalisation) -> dict[str, Any]:
    """What a run keeps of its network.

    Args:
        state: as `itopctl.train.loop.Training.state_dict` gives it.
        normalisation: of images.
    """
    layers = {name: {key: saved[key] for key in ("shape", "mask")} for name, saved in state["sparse"]["layers"].items()}
    mean, std = (values.cpu().clone() for values in normalisation)
    return {"model": state["model"], "sparse": {"layers": layers}, "mean": mean, "std": std}


def trained_network(run_id: str, config: RunConfig, state: Mapping[str, Any]) -> TrainedNetwork:
    """The network of a run.

    Args:
        run_id, config: of the run.
        state: what `kept_of` gave.

    Raises:
        ValueError, KeyError, RuntimeError, …: it is no such state, or not of this run's model.
    """
    options = DATASETS.get(config.dataset).options
    model: nn.Module = MODELS.function(config.model)(input_shape=tuple(options["shape"]), classes=options["classes"])
    active = {
        name: unpack_bits(saved["mask"], torch.Size(saved["shape"]).numel()).view(saved["shape"])
        for name, saved in state["sparse"]["layers"].items()
    }
    model.load_state_dict(whole_model(state, active))
    of_weight = {weight: active[name] for name, weight in model.named_parameters() if name in active}
    tied = model.named_parameters(remove_duplicate=False)
    active = {name: of_weight[weight] for name, weight in tied if weight in of_weight}
    channels = options["shape"][0]
    mean, std = (state[name].to(torch.float32).view(channels, 1, 1) for name in ("mean", "std"))
    return TrainedNetwork(run_id, config, model.requires_grad_(False).eval(), active, (mean, std))
