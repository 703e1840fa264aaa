"""The kinds of inputs: how each damages the results folder, or makes what a command reads, and what is asked then.

Each takes a bench and a source of chance, and tries a fixed number of inputs: one unless `INPUTS` says otherwise.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Callable
from typing import Any

import yaml

from itopctl.train.checkpoint import decode, encode
from tests.fuzz.archives import archive
from tests.fuzz.bench import BEGUN, Bench, commands
from tests.fuzz.databases import damaged_database
from tests.fuzz.mutations import changed, changed_lines, changed_text, damaged
from tests.fuzz.odd_files import odd_file

FILES_AT_ONCE = 4  # of a results folder that are damaged before one command is asked

SPEC: dict[str, Any] = {
    "name": "fuzz",
    "description": "a sweep",
    "base": {
        "dataset": "digits", "model": "lenet-300-100", "epochs": 4, "batch_size": 64, "device": "cpu", "seed": 1,
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5.0e-4},
        "lr_schedule": {"name": "milestones", "milestones": [0.5, 0.75], "gamma": 0.1}, "drop_fraction": 0.3,
    },
    "grid": {"sparsity": [0.9, 0.95], "method": ["set-itop", "rigl-itop"], "update_interval": [5, "1 epochs"]},
    "zip": {"optimizer.lr": [0.1, 0.05], "batch_size": [128, 64]},
    "exclude": [{"method": "rigl-itop", "update_interval": 5}],
    "include": [
        {"base": {"method": "dense"}, "grid": {"seed": 3}},
        {"base": {"method": "static", "allocation": "uniform"}, "grid": {"density": [0.1], "seed": [1, 2]}},
    ],
    "slurm": {"partition": "gpu", "cpus_per_task": 4, "mem": "16G", "timeout_min": 10, "setup": ["true"],
              "additional_parameters": {"nice": 100}},
}  # fmt: skip
_YAML = (
    "!!python/object/apply:os.system ['true']", "!!binary aGk=", "!!set {a, b}", "!!timestamp 2020-01-01", "&a [*a]",
    "*nothing",
    "<<: {a: 1}", "{<<: [{}, {}]}", "? [a]\n: b", "---\nname: b", "%YAML 9.9\n---", "1:30", "0o17", ".inf", "-.nan",
    "!x y", "[" * 3000,
    "{a: " * 3000, "&x " * 50, "|\n  a", ">-\n a", "'", '"\\x00"', "\t", "- - - -", "{? }", "1e99999", "9" * 5000,
    "\u2028", "\ufeff",
)  # fmt: skip


def spec(bench: Bench, rng: random.Random) -> None:
    """A spec: of other values, of odd YAML, or damaged."""
    kind = rng.random()
    value = changed(SPEC, rng) if kind < 0.75 else SPEC
    try:
        text = yaml.safe_dump(value, allow_unicode=rng.random() < 0.5, default_flow_style=rng.random() < 0.3).encode()
    except (yaml.YAMLError, UnicodeError, ValueError):
        text = repr(value).encode("utf-8", "replace")
    if 0.5 < kind < 0.85:
        lines = text.split(b"\n")
        at = rng.randrange(len(lines))
        lines[at] = lines[at].partition(b":")[0] + b": " + rng.choice(_YAML).encode()
        text = b"\n".join(lines)
    elif kind >= 0.85:
        text = damaged(text, rng)
    path = bench.results.parent / "spec.yaml"
    path.write_bytes(text)
    asked = ["sweep", str(path), "--dry-run", "--max-runs", "200", "-f", rng.choice(("rich", "json"))]
    bench.judge([[*asked, "--results", str(bench.results / "none")]])


def files(bench: Bench, rng: random.Random) -> None:
    """Files of a results folder: whatever is JSON, and journals."""
    folder = bench.fresh()
    there = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "itop.db")
    for path in rng.sample(there, FILES_AT_ONCE):
        data = path.read_bytes()
        path.write_bytes(changed_lines(data, rng) if path.suffix == ".jsonl" else changed_text(data, rng))
    if rng.random() < 0.5:  # as it comes from somebody else, or is met by a store that knew it as it was
        (folder / "itop.db").unlink()
    bench.judge([commands(folder, rng, bench.spec)], FILES_AT_ONCE)


def database(bench: Bench, rng: random.Random) -> None:
    """The store: damaged, of another make, or with rows of any kind."""
    folder = bench.fresh(known=rng.random() < 0.5)
    damaged_database(folder / "itop.db", rng)
    bench.judge([commands(folder, rng, bench.spec)])


def archives(bench: Bench, rng: random.Random) -> None:
    """What is imported."""
    folder = bench.fresh()
    source = bench.results.parent / rng.choice(("in.tar", "in.tar.gz", "in.tgz", "in"))
    source.write_bytes(archive(rng))
    bench.judge([["store", "import", str(source), "--results", str(folder)]])
    source.unlink()


def odd_files(bench: Bench, rng: random.Random) -> None:
    """A results folder of somebody else: links, pipes, devices, folders where files belong."""
    folder = bench.fresh()
    for _ in range(rng.choice((1, 1, 2))):
        odd_file(folder, bench.canary, rng)
    asked = commands(folder, rng, bench.spec)
    if rng.random() < 0.2:
        asked = ["store", "import", str(folder), "--results", str(folder.parent / "other")]
    bench.judge([asked])


def checkpoint(bench: Bench, rng: random.Random) -> None:
    """A checkpoint, as training reads it: a dictionary, or ValueError."""
    state = {"step": 3, "model": {"w": [1.0, 2.0]}, "python": (3, (1, 2), None), "torch": _tensor()}
    data = encode(state) if rng.random() < 0.5 else _pickled(rng)
    data = damaged(data, rng) if rng.random() < 0.9 else data
    bench.judge_call(lambda: decode(data), ValueError)


def _tensor() -> Any:
    import torch

    return torch.arange(40)


def _pickled(rng: random.Random) -> bytes:
    """A checkpoint file whose pickle would run something."""
    import io
    import zipfile

    evil = rng.choice(
        (
            b"cos\nsystem\n(S'touch evil'\ntR.",
            b"cbuiltins\nexec\n(S'import evil'\ntR.",
            b"\x80\x04K\x01.",
            b"(" * 5000,
            b"",
        )
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", evil)
        file.writestr("archive/version", "3\n")
    return buffer.getvalue()


def checkpoint_file(bench: Bench, rng: random.Random) -> None:
    """A checkpoint's file in a run's folder, whole or not, under a name that fits or not."""
    folder = bench.fresh()
    data = damaged(bytes(500), rng)
    digest = hashlib.blake2b(data, digest_size=8).hexdigest() if rng.random() < 0.5 else "f" * 16
    step = rng.choice(("000000000021", "999999999999", "1", "-00000000001", "00000000000a"))
    (folder / "runs" / BEGUN / f"checkpoint-{step}-{digest}.pt").write_bytes(data)
    bench.judge([["store", "check", "--results", str(folder)]])


def recorded(bench: Bench, rng: random.Random) -> None:
    """Values that are sound JSON in the records of sweeps and submissions, which name runs, files and jobs."""
    folder = bench.fresh()
    there = [*(folder / "sweeps").glob("*.json"), *(folder / "submissions").rglob("*.json")]
    for path in rng.sample(sorted(there), 3):
        value = json.loads(path.read_text())
        path.write_bytes(json.dumps(changed(copy.deepcopy(value), rng)).encode("utf-8", "surrogatepass"))
    bench.judge([commands(folder, rng, bench.spec)], 3)


KINDS: dict[str, Callable[[Bench, random.Random], None]] = {
    "spec": spec, "files": files, "recorded": recorded, "database": database, "archive": archives,
    "odd files": odd_files, "checkpoint": checkpoint, "checkpoint file": checkpoint_file,
}  # fmt: skip
INPUTS = {"files": FILES_AT_ONCE, "recorded": 3}
QUICK = {"spec": 60, "files": 20, "recorded": 15, "database": 60, "archive": 40, "odd files": 40, "checkpoint": 60,
         "checkpoint file": 10}  # fmt: skip
ALL = {"spec": 3400, "files": 600, "recorded": 300, "database": 1200, "archive": 1300, "odd files": 700,
       "checkpoint": 2400, "checkpoint file": 100}  # fmt: skip


def attempt(bench: Bench, kind: str, number: int) -> None:
    """Try the inputs of a number; the same every time."""
    bench.name = f"{kind} {number}"
    KINDS[kind](bench, random.Random(f"{kind} {number}"))
