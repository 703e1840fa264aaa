"""The network of a run as it is computed: its memory layout, precision and compilation, and the processes it is on.

Not how it is trained: masks, optimizer and loss are the loop's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from itopctl.catalogue import MODELS
from itopctl.config.run_config import RunConfig, user_functions
from itopctl.train.process_settings import check_trainable
from itopctl.train.ranks import ALONE, Rank


class Network:
    """The model of a run, on its device.

    With several processes, batch norm takes its statistics over the whole batch on GPUs (SyncBatchNorm, which PyTorch
    has only there); on CPUs over each process's share of it, and those of process 0 are what is evaluated and saved.

    Args:
        config: the resolved run.
        shape, classes: of the data: channels, height and width; number of labels.
        device: where it lies.
        rank: which of the processes that train it this is; they have joined.

    Attributes:
        model: the model itself.
        shared: the model as the processes share it, DistributedDataParallel; alone, the model.
    """

    def __init__(
        self,
        config: RunConfig,
        shape: tuple[int, int, int],
        classes: int,
        device: torch.device,
        rank: Rank = ALONE,
    ) -> None:
        self._device, self._precision = device, config.precision
        self._layout = torch.channels_last if config.channels_last else torch.contiguous_format
        args = config.args("model")
        model: nn.Module = MODELS.function(config.model)(input_shape=shape, classes=classes, **args)
        check_trainable(model, user_functions(config.model_dump()))
        self.model = model.to(device=device).to(memory_format=self._layout)
        self.shared = self.model
        if not rank.alone:
            if device.type == "cuda":
                self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
            self.shared = self._share(torch.zeros(2, *shape, device=device))
        self._train: Callable[..., Any] = self.shared
        self._evaluate: Callable[..., Any] = self.model
        if config.compile:
            torch._dynamo.reset()  # or the runs before this one in the process would count against its recompilations
            self._evaluate = torch.compile(self.model)
            self._train = self._evaluate if rank.alone else torch.compile(self.shared)

    def train_logits(self, images: Tensor) -> Tensor:
        """Logits to train by; with several processes, all of them call this, and then `backward`."""
        logits: Tensor = self._train(self._laid_out(images))
        return logits

    def logits(self, images: Tensor) -> Tensor:
        """Logits of this process's own: nothing is communicated."""
        logits: Tensor = self._evaluate(self._laid_out(images))
        return logits

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """The context to compute logits and loss in."""
        if self._precision == "fp32":
            return contextlib.nullcontext()
        kind = torch.bfloat16 if self._precision == "bf16" else torch.float16
        return torch.autocast(self._device.type, dtype=kind)

    def _laid_out(self, images: Tensor) -> Tensor:
        return images.contiguous(memory_format=torch.channels_last) if self._layout is torch.channels_last else images

    def _share(self, images: Tensor) -> DistributedDataParallel:
        """Wrap the model; two backward passes are made for it, of which nothing remains.

        The first finds out whether the loss leaves parameters out, of which DistributedDataParallel must be told. The
        second lets it order its buckets now, rather than after the first step: gradients of three or more processes
        are added up in an order that follows the buckets, so that a training which goes on from a checkpoint would
        differ in the last bits from one that was never stopped.
        """
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        self._backward(self.model, images)
        left_out = any(p.grad is None for p in self.model.parameters() if p.requires_grad)
        self.model.zero_grad(set_to_none=True)
        shared = DistributedDataParallel(
            self.model, device_ids=[self._device] if self._device.type == "cuda" else None,
            gradient_as_bucket_view=True, find_unused_parameters=left_out,
        )  # fmt: skip
        self._backward(shared, images)
        self.model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        return shared

    def _backward(self, model: nn.Module, images: Tensor) -> None:
        with self.precision():
            logits: Tensor = model(self._laid_out(images))
        logits.sum().backward()
