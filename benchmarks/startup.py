"""How soon the command line answers."""

from __future__ import annotations

from benchmarks.measure import Figure, command_seconds


def help_text() -> list[Figure]:
    """`itopctl --help`, beside a Python that does nothing and one that imports torch."""
    seconds = command_seconds(["-m", "itopctl", "--help"])
    nothing = command_seconds(["-c", "pass"])
    with_torch = command_seconds(["-c", "import torch"], repetitions=3)
    beside = f"{seconds / nothing:.1f} × an empty Python, {seconds / with_torch:.2f} × `import torch`"
    return [Figure("`itopctl --help`", seconds, 0.25, beside)]
