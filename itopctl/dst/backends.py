"""How each layer of a training is computed, and the layers made so: masked ones, or sparse ones in place."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import cast

from torch import Tensor, nn

from itopctl.dst.compressed_layer import BACKENDS, CompressedLayer, compressible
from itopctl.dst.layer import Layer
from itopctl.dst.maskable import Maskable, modules_of
from itopctl.dst.masked_layer import MaskedLayer, MaskedParameter
from itopctl.dst.masking import Masker
from itopctl.dst.sparse.batch_last import keep_layout
from itopctl.dst.speed import LayerWork, faster, works_of
from itopctl.errors import UserError, unknown

CHOICES = ("masked", "sparse", "auto")
"""What can be asked for all layers at once."""


class Chosen:
    """The backend of each layer that is to have inactive weights.

    Args:
        model: their modules are looked at; nothing is changed yet.
        weights: of the model that may be made sparse, by name, in its order.
        counts: name → number of active weights of each that is not fully active.
        compute: one of `CHOICES`, or the backend of layers by name; those left out are masked.
        example: a batch as the model will be given it: for `auto`, and to see which layers are called.
        timed: for `auto`: seconds of a layer's step by kind, as `itopctl.dst.speed.measure` gives them.
        why_masked: why no layer can be sparse here, if so.

    Raises:
        UserError: what is asked for is not known, or not possible.
    """

    def __init__(
        self,
        model: nn.Module,
        weights: Mapping[str, Maskable],
        counts: Mapping[str, int],
        compute: str | Mapping[str, str],
        example: Tensor | None,
        timed: Callable[[LayerWork], Mapping[str, float]],
        why_masked: str | None,
    ) -> None:
        self._model, self._weights, self._counts = model, weights, counts
        whole = {name: weights[name].parameter for name in counts if weights[name].rows is None}
        users = modules_of(model, whole)
        self._modules = {
            name: cast("nn.Linear | nn.Conv2d", modules[0]) for name, modules in users.items() if compressible(modules)
        }
        self.backends = self._choose(compute, example, timed, why_masked)

    def drawn(self, seed: int, counted: bool, masker: Masker, dense_gradient_read: Callable[[], bool]) -> list[Layer]:
        """The layers, their initial topologies drawn; modules become sparse in place.

        Args:
            seed, counted: as of `Layer`.
            masker: of masked layers.
            dense_gradient_read: as of `CompressedLayer`.
        """
        layers: list[Layer] = []
        homes: dict[str, MaskedParameter] = {}
        for index, (name, weight) in enumerate(self._weights.items()):
            if name in self.backends:
                module = self._modules[name]
                layers.append(
                    CompressedLayer(index, name, module, self._counts[name], seed, counted, dense_gradient_read)
                )
            elif name in self._counts:
                home = homes.get(weight.parameter_name) or MaskedParameter(weight, masker)
                homes[weight.parameter_name] = home
                layers.append(MaskedLayer(index, weight, self._counts[name], seed, counted, home))
        if any(isinstance(self._modules[name], nn.Conv2d) for name in self.backends):
            keep_layout(self._model)
        return layers

    def _choose(
        self,
        compute: str | Mapping[str, str],
        example: Tensor | None,
        timed: Callable[[LayerWork], Mapping[str, float]],
        why_masked: str | None,
    ) -> dict[str, str]:
        """The backend of each layer that is to be sparse."""
        if isinstance(compute, Mapping):
            chosen = self._given(compute)
        elif compute not in CHOICES:
            raise UserError(unknown("compute", compute, CHOICES))
        elif compute == "sparse":
            chosen = dict.fromkeys(self._modules if example is None else self._works(example), "sparse")
            if self._counts and not chosen:
                warnings.warn("compute is sparse, and no layer can be computed so: all are masked", stacklevel=4)
        elif compute == "masked" or why_masked:
            return {}
        elif example is None:
            raise UserError("compute='auto' measures the layers: pass a batch as `example`.")
        else:
            works = self._works(example)
            fast = faster(works, {name: timed(work) for name, work in works.items()})
            chosen = {name: "sparse" for name in works if name in fast}
        if chosen and why_masked:
            raise UserError(f"sparse layers {why_masked}; compute 'masked' has no such limit.")
        return chosen

    def _works(self, example: Tensor) -> dict[str, LayerWork]:
        return works_of(self._model, example, {name: self._counts[name] for name in self._modules})

    def _given(self, compute: Mapping[str, str]) -> dict[str, str]:
        for name in compute:
            if name not in self._weights:
                raise UserError(unknown("layer", str(name), list(self._weights)))
        chosen = {name: compute[name] for name in self._counts if compute.get(name, "masked") != "masked"}
        for name, backend in chosen.items():
            if name not in self._modules or backend not in BACKENDS:
                raise UserError(f"{name} cannot be computed by {backend!r}.")
        return chosen
