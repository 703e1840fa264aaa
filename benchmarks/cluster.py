"""A thousand runs on a cluster: submitting them, and looking at them while they are at work.

SLURM's commands are stand-ins that answer at once and are counted, so that what is measured is our own time.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from benchmarks.measure import Figure, median_seconds, run_python
from itopctl.config.expand import expand
from itopctl.config.reading import read_text
from itopctl.config.sweep import parse_sweep
from itopctl.dispatch.manifest import record_config
from itopctl.plan import PlannedSweep, make_plan
from itopctl.store.files import write_json
from itopctl.store.journal import JournalWriter
from itopctl.store.rundir import Results
from itopctl.store.submissions import live_submissions

SPEC = """
name: thousand
base: {dataset: synthetic, model: lenet-5, epochs: 250, method: set-itop}
grid: {sparsity: [0.8, 0.9, 0.95, 0.98], update_interval: [250, 500, 1000, 2000, 4000], seed: 50}
slurm: {mem: 4G, timeout_min: 600}
"""
JOBS = 1000

_ANSWERS = {
    "scontrol": "echo ClusterName = bench; echo MaxArraySize = 1001; echo AccountingStorageType = x/slurmdbd",
    "sbatch": "echo Submitted batch job 4711",
    "squeue": 'cat "$BENCH_FOLDER/queue" 2>/dev/null || true',
    "sacct": 'cat "$BENCH_FOLDER/accounts" 2>/dev/null || true',
    "scancel": "true",
    "srun": "true",
}  # fmt: skip


def thousand_on_a_cluster() -> list[Figure]:
    """Submit a thousand runs, each as a job; then ask for the status while they run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _make_commands(folder)
        (folder / "spec.yaml").write_text(SPEC)
        os.environ.update(BENCH_FOLDER=name, PATH=f"{folder / 'bin'}:{os.environ['PATH']}")
        here = Path.cwd()
        os.chdir(folder)
        try:
            began = time.perf_counter()
            run_python("-m", "itopctl", "sweep", "spec.yaml", "--cluster", "slurm")
            submitting = time.perf_counter() - began
            _let_all_run(Results(folder / "results"), folder)
            run_python("-m", "itopctl", "status")  # the first takes in what all of them have written
            (folder / "calls").unlink()
            run_python("-m", "itopctl", "status")
            calls = len((folder / "calls").read_text().split())
            seconds = median_seconds(lambda: run_python("-m", "itopctl", "status"), 3)
            imports = median_seconds(lambda: run_python("-c", "import sqlalchemy, rich.table, typer"), 3)
        finally:
            os.chdir(here)
    asked = f"{calls} calls of SLURM's commands; {seconds / imports:.1f} × importing sqlalchemy, rich and typer"
    return [
        Figure("submit 1,000 runs as 1,000 jobs", submitting, 5.0, "beyond sbatch's own time"),
        Figure("`itopctl status` over 1,000 running jobs", seconds, 2.0, asked, 3 / max(1, calls), 1.0, "≤ 3 calls"),
    ]


def _make_commands(folder: Path) -> None:
    (folder / "bin").mkdir()
    for name, answer in _ANSWERS.items():
        path = folder / "bin" / name
        path.write_text(f'#!/bin/sh\necho {name} >> "$BENCH_FOLDER/calls"\n{answer}\n')
        path.chmod(0o755)


def _let_all_run(results: Results, folder: Path) -> None:
    """Every job runs, each run has ten epochs behind it, and one job is known to the accounts alone."""
    (submission,) = live_submissions(results)
    expansion = expand(parse_sweep(read_text(SPEC, "spec.yaml")))
    configs = make_plan([PlannedSweep(parse_sweep(read_text(SPEC, "spec.yaml")), expansion)], {}).configs
    lines = [f"4711|{index}|RUNNING|None|{submission.name}" for index in range(1, JOBS)]
    (folder / "queue").write_text("\n".join(lines) + "\n")
    (folder / "accounts").write_text(f"4711_0|RUNNING|0:0|Unknown|{submission.name}\n")
    for index, (run_id,) in enumerate(submission.request.jobs):
        record_config(results, run_id, configs[run_id])
        run = results.run(run_id)
        job = {"scheduler": "slurm", "job_id": f"4711_{index}", "host": "node", "pid": 1}
        write_json(run.lock, {**job, "job_id": f"slurm:bench:4711_{index}"})
        journal = JournalWriter(run.journal)
        journal.write("started", {"step": 0, "epoch": 0, "total_steps": 10_000, "total_epochs": 250, **job})
        for epoch in range(10):
            measured = {"train_loss": 0.5, "validation_accuracy": 0.7, "test_accuracy": 0.7, "exploration_rate": 0.5}
            journal.write("evaluated", {"step": epoch * 36, "epoch": epoch, **measured})
        journal.close()
