"""Models of a user's that change whatever there is to change in their process, as they are imported, made or called."""

from __future__ import annotations

from pathlib import Path

RUIN = '''
import builtins, gc, locale, os, random, resource, signal, sys, threading, time, warnings
import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


class Functions(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


class Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


def double(module, inputs, output):
    return output * 2 if output.is_floating_point() else output


KEPT = []


def settings():
    """All that a run can be trained with."""
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.deterministic = True
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch._C._set_mkldnn_enabled(False)
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.set_flush_denormal(True)
    torch.autograd.set_detect_anomaly(True)
    torch.set_num_threads(3)
    context = torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False)
    context.__enter__()
    KEPT.append(context)
    Functions().__enter__()
    nn.modules.module.register_module_forward_hook(double)
    os.environ.update(OMP_NUM_THREADS="3", CUBLAS_WORKSPACE_CONFIG=":16:8", ITOPCTL_CACHE="/nowhere", TZ="Asia/Tokyo")
    time.tzset()
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(13)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    locale.setlocale(locale.LC_ALL, "C")
    os.umask(0o077)
    os.chdir("/")
    sys.path.reverse()
    sys.setrecursionlimit(700)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    np.seterr(all="raise")
    gc.disable()
    threading.Thread(target=time.sleep, args=(600,)).start()  # and is not waited for
    nn.Linear.reset_parameters = lambda self: None


def ruin():
    """The rest, too."""
    settings()
    warnings.simplefilter("error")
    builtins.sum = torch.randperm = torch.nn.functional.cross_entropy = torch.optim.SGD.step = lambda *_, **__: None
    Dispatch().__enter__()
    KEPT.append(torch._C._InferenceMode(True))
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")


def net(classes, inner=nn.ReLU):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), inner(), nn.Linear(32, classes))


class Ruining(nn.Module):
    def forward(self, x):
        ruin()
        return x


def in_builder(input_shape, classes):
    ruin()
    return net(classes)


def in_forward(input_shape, classes):
    return net(classes, Ruining)


def mild(input_shape, classes):
    made = net(classes)
    settings()
    return made


def dtype(input_shape, classes):
    made = net(classes)
    torch.set_default_dtype(torch.float64)
    return made


def gradient(input_shape, classes):
    torch.set_grad_enabled(False)
    return net(classes)


class NoGradient(nn.Module):
    def forward(self, x):
        torch.set_grad_enabled(not self.training or x.shape[0] == 1)
        return x


def gradient_later(input_shape, classes):
    return net(classes, NoGradient)


def device(input_shape, classes):
    torch.set_default_device("meta")
    return net(classes)


def exits(input_shape, classes):
    os._exit(7)


@torch.inference_mode()
def inference(input_shape, classes):
    return net(classes)
'''

MODULES = {
    "hostile": RUIN,
    "hostile_import": "import hostile\nhostile.ruin()\nfrom hostile import net\n"
    "def make(input_shape, classes):\n    return net(classes)\n",
    "tame": "from torch import nn\ndef make(input_shape, classes):\n    return nn.Sequential("
    "nn.Flatten(), nn.Linear(64, 40), nn.Dropout(0.1), nn.ReLU(), nn.Linear(40, classes))\n",
}
HOSTILE = ("hostile_import:make", "hostile:in_builder", "hostile:in_forward")
"""Models after which nothing in a process is as it was."""


def write_modules(folder: Path) -> None:
    """Write the modules of these models to a folder."""
    for name, source in MODULES.items():
        (folder / f"{name}.py").write_text(source)
