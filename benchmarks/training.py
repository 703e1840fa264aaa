"""A sweep of real training runs, start-up included."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import Figure, run_python

SPEC = """
name: twelve
base: {dataset: fashion_mnist, model: lenet-300-100, epochs: 1, batch_size: 128, update_interval: 100}
grid: {method: [set-itop, rigl-itop], sparsity: [0.9, 0.95], seed: 3}
"""

# The same training in the plainest PyTorch: one process, dense, the data set as one tensor.
PLAIN = """
import sys, torch
from pathlib import Path
from itopctl.train.data.tensors import load_images
torch.set_num_threads(1)
data = load_images("fashion_mnist", 0.1, Path(sys.argv[1]), torch.device("cpu"))
model = torch.nn.Sequential(
    torch.nn.Flatten(), torch.nn.Linear(784, 300), torch.nn.ReLU(), torch.nn.Linear(300, 100), torch.nn.ReLU(),
    torch.nn.Linear(100, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
for images, labels in data.train_batches(128, "none", 0, 0):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()
"""


def fashion_sweep() -> list[Figure]:
    """Twelve one-epoch runs of LeNet-300-100 on Fashion-MNIST, on all cores, beside one dense epoch by hand."""
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "twelve.yaml"
        spec.write_text(SPEC)
        began = time.perf_counter()
        command = [sys.executable, "-m", "itopctl", "sweep", str(spec), "--results", str(Path(folder) / "results")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"the sweep failed:\n{done.stdout}{done.stderr}")
    began = time.perf_counter()
    run_python("-c", PLAIN, "data")
    plain = time.perf_counter() - began
    what = "12 one-epoch runs, LeNet-300-100 on Fashion-MNIST, two cores, start-up included"
    beside = f"{seconds / plain:.1f} × one dense epoch in plain PyTorch ({plain:.1f} s, start-up included, one thread)"
    return [Figure(what, seconds, 25.0, beside)]
