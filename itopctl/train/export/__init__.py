"""A trained network as a file for others, which is read without itopctl. Light: PyTorch is imported when it is made.

`program.py`, `graph.py`, `weights.py` each write one format, and read it again to check it; `network.py` is what they
write; `check.py` measures what was written. Every network takes images as bytes, [batch, channels, height, width], and
normalises them itself, but for weights alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        name: as it is asked for.
        suffix: of its name.
        module: of this package, which has `written(network, sparse)` → bytes and `reader(data, network)` → a
            function of images that gives logits.
        computes: whether the file is a program, not weights alone.
        packages: what is installed beside itopctl for it.
    """

    name: str
    suffix: str
    module: str
    computes: bool
    packages: tuple[str, ...] = ()

    def load(self) -> ModuleType:
        """What writes and reads it."""
        return import_module(f"{__name__}.{self.module}")


FORMATS = {
    one.name: one
    for one in (
        Format("torch", ".pt2", "program", True),
        Format("onnx", ".onnx", "graph", True, ("onnx", "onnxscript")),
        Format("safetensors", ".safetensors", "weights", False, ("safetensors",)),
    )
}
"""What a network can be exported as."""
