"""Settings of PyTorch that hold for a whole process: which ones a run's own code changed, and which forbid training.

A module of the user's may change them, for its own run alone: that run has a process to itself
(`itopctl.dispatch.worker`). What differs from the settings of other runs is recorded with the run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from itopctl.errors import UserError

_DEVICE = DeviceContext.__name__  # the mode by which PyTorch keeps a default device

_ENVIRONMENT = ("CUBLAS_", "CUDA_", "CUDNN_", "KMP_", "MKL_", "NCCL_", "OMP_", "ONEDNN_", "DNNL_", "PYTORCH_", "TORCH_")
"""How variables of the environment begin that PyTorch and what it computes with read."""

SETTINGS: Mapping[str, Callable[[], Any]] = {
    "default_dtype": lambda: str(torch.get_default_dtype()),
    "default_device": lambda: str(torch.get_default_device()),
    "grad_enabled": torch.is_grad_enabled,
    "inference_mode": torch.is_inference_mode_enabled,
    "anomaly_detection": torch.is_anomaly_enabled,
    "deterministic_algorithms": torch.are_deterministic_algorithms_enabled,
    "deterministic_warn_only": torch.is_deterministic_algorithms_warn_only_enabled,
    "fill_uninitialized_memory": lambda: torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
    "float32_matmul_precision": torch.get_float32_matmul_precision,
    "autocast_cpu": lambda: torch.is_autocast_enabled("cpu"),
    "autocast_cuda": lambda: torch.is_autocast_enabled("cuda"),
    "autocast_dtype_cpu": lambda: str(torch.get_autocast_dtype("cpu")),
    "autocast_dtype_cuda": lambda: str(torch.get_autocast_dtype("cuda")),
    "mha_fastpath": torch.backends.mha.get_fastpath_enabled,
    "environment": lambda: {name: os.environ[name] for name in sorted(os.environ) if name.startswith(_ENVIRONMENT)},
    "flush_denormal": lambda: sys.float_info.min / 2 == 0.0,
    "interop_threads": torch.get_num_interop_threads,
    "cudnn.enabled": lambda: torch.backends.cudnn.enabled,
    "cudnn.benchmark": lambda: torch.backends.cudnn.benchmark,
    "cudnn.deterministic": lambda: torch.backends.cudnn.deterministic,
    "cudnn.allow_tf32": lambda: torch.backends.cudnn.allow_tf32,
    "cuda.matmul.allow_tf32": lambda: torch.backends.cuda.matmul.allow_tf32,
    "cuda.matmul.allow_fp16_reduced_precision_reduction": (
        lambda: torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction
    ),
    "cuda.matmul.allow_bf16_reduced_precision_reduction": (
        lambda: torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
    ),
    "cuda.flash_sdp": torch.backends.cuda.flash_sdp_enabled,
    "cuda.mem_efficient_sdp": torch.backends.cuda.mem_efficient_sdp_enabled,
    "cuda.math_sdp": torch.backends.cuda.math_sdp_enabled,
    "cuda.cudnn_sdp": torch.backends.cuda.cudnn_sdp_enabled,
    "mkldnn.enabled": torch._C._get_mkldnn_enabled,
    "module_hooks": lambda: _global_hooks(),
    "function_modes": lambda: [name for name in map(_name, _get_current_function_mode_stack()) if name != _DEVICE],
    "dispatch_modes": lambda: list(map(_name, _get_current_dispatch_mode_stack())),
}
"""Name → reads the setting. Settings of `torch` by its own names; beside them hooks on all modules
(`torch.nn.modules.module.register_module_…`), modes of `torch.overrides` and `torch.utils._python_dispatch` that are
on, and whether the processor rounds denormal numbers to zero. Threads are recorded with every run."""


def process_settings() -> dict[str, Any]:
    """The settings that this process has now."""
    return {name: _read(setting) for name, setting in SETTINGS.items()}


def changed_since(before: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that are not as they were in `before`, which `process_settings` gave, with the values they have now."""
    return {name: value for name, value in process_settings().items() if value != before.get(name)}


class UnfitSettingsError(UserError):
    """A setting of the process forbids to train in it."""


def check_settings(own: Iterable[str], default_device: bool = True) -> None:
    """Check that this process can train.

    Args:
        own: functions of the user's own, as `package.module:function`, whose modules may have changed it.
        default_device: whether to look at the default device.

    Raises:
        UnfitSettingsError: a setting forbids it; says which, and what to do.
    """
    by = f", by {' or '.join(sorted(own))} or a module that it imports" if own else ""
    if not torch.is_grad_enabled():
        raise UnfitSettingsError(
            f"gradients are switched off for the whole process{by}: nothing can be trained. Instead of "
            "torch.set_grad_enabled(False), use `with torch.no_grad():` around what needs no gradient."
        )
    if torch.get_default_dtype() != torch.float32:
        raise UnfitSettingsError(
            f"the default dtype of the process was set to {torch.get_default_dtype()}{by}: runs are trained in "
            "torch.float32, or by `precision:` in the spec. Leave torch.set_default_dtype alone, or set it back."
        )
    if default_device and torch.get_default_device().type != "cpu":
        raise UnfitSettingsError(
            f"the default device of the process was set to {torch.get_default_device()}{by}: where a run is trained is "
            "said by `device:` in the spec, and its network is moved there. Leave torch.set_default_device alone."
        )


def check_trainable(model: nn.Module, own: Iterable[str]) -> None:
    """Raise UserError where a model, just made, or what it set in this process cannot be trained with."""
    check_settings(own)
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise UserError("the weights of the model were made under torch.inference_mode(): they cannot be trained.")


def check_loss(loss: Tensor, own: Iterable[str]) -> None:
    """Raise UserError where a loss has no gradient."""
    if not loss.requires_grad:
        check_settings(own)
        raise UserError(
            "the loss has no gradient: the output of the model depends on no weight that is trained, or forward "
            "computes it under torch.no_grad()."
        )


def _global_hooks() -> list[str]:
    """The kinds of hooks on all modules of which there are any, such as `forward`."""
    kinds = ("forward_pre", "forward", "backward_pre", "backward")
    registrations = ("buffer_registration", "module_registration", "parameter_registration")
    return [kind for kind in (*kinds, *registrations) if getattr(nn.modules.module, f"_global_{kind}_hooks", None)]


def _name(mode: Any) -> str:
    return type(mode).__name__


def _read(setting: Callable[[], Any]) -> Any:
    """The value of a setting; None where this PyTorch has none, and what it says where it cannot tell."""
    try:
        return setting()
    except AttributeError:
        return None
    except RuntimeError as error:  # old and new ways of setting the precision contradict each other, say
        return f"cannot be told: {str(error).splitlines()[0]}"
