"""Expanding, planning and looking at ten thousand runs."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from benchmarks.measure import Figure, command_seconds, median_seconds
from itopctl.config.expand import expand
from itopctl.config.reading import read_text
from itopctl.config.sweep import parse_sweep
from itopctl.dispatch.manifest import SweepRecords, record_config
from itopctl.plan import Plan, PlannedSweep, make_plan
from itopctl.store.database import open_store
from itopctl.store.files import write_json
from itopctl.store.ingest import ingest
from itopctl.store.journal import JournalWriter
from itopctl.store.queries import run_states
from itopctl.store.rundir import Results

SPEC = """
name: ten-thousand
base: {dataset: cifar100, model: resnet34, epochs: 250}
grid:
  method: [set-itop, rigl-itop]
  sparsity: [0.5, 0.8, 0.9, 0.95, 0.98]
  update_interval: [250, 500, 1000, 1500, 2000, 3000, 4000, 6000, 8000, 10000]
  seed: 100
"""


def plan_ten_thousand(results: Results | None = None) -> Plan:
    """Read, expand and plan the spec, against the store of a results folder if one is given."""
    spec = parse_sweep(read_text(SPEC, "ten-thousand.yaml"))
    expansion = expand(spec)
    states = {}
    if results is not None:
        store = open_store(results.database)
        states = {run_id: state for run_id, (state, _) in run_states(store, list(expansion.runs)).items()}
        store.close()
    return make_plan([PlannedSweep(spec, expansion)], states)


def expand_and_plan() -> list[Figure]:
    """Ten thousand runs from YAML to a plan, beside reading as much JSON."""
    plan = plan_ten_thousand()
    text = json.dumps([config.model_dump(mode="json") for config in plan.configs.values()])
    seconds = median_seconds(plan_ten_thousand, 3)
    parsing = median_seconds(lambda: json.loads(text), 3)
    return [
        Figure("expand and plan 10,000 runs", seconds, 2.0, f"{seconds / parsing:.0f} × reading their configs as JSON")
    ]


def status_of_many() -> list[Figure]:
    """`itopctl status` over ten thousand finished runs, once they are in the store; and putting them there."""
    with tempfile.TemporaryDirectory() as folder:
        results = Results(Path(folder))
        _make_finished_runs(results)
        store = open_store(results.database)
        began = time.perf_counter()
        ingest(store, results)
        ingesting = time.perf_counter() - began
        store.close()
        seconds = command_seconds(["-m", "itopctl", "status", "--results", folder], repetitions=5)
        imports = command_seconds(["-c", "import sqlalchemy, rich.table, typer"], repetitions=5)
        replan = median_seconds(lambda: plan_ten_thousand(results), 3)
        paper = command_seconds(["-m", "itopctl", "report", "--results", folder], repetitions=3)
    beside = f"{seconds / imports:.1f} × importing sqlalchemy, rich and typer"
    return [
        Figure("`itopctl status` over 10,000 finished runs", seconds, 1.0, beside),
        Figure("`itopctl report` over 10,000 finished runs", paper, None, f"{paper / seconds:.1f} × `status`"),
        Figure("plan 10,000 runs that are finished", replan, 2.0, ""),
        Figure("take 10,000 finished run directories into an empty store", ingesting, None, "once"),
    ]


def _make_finished_runs(results: Results) -> None:
    """Run directories as a finished sweep leaves them, with ten epochs of history each."""
    plan = plan_ten_thousand()
    SweepRecords(results, plan).write()
    for number, (run_id, config) in enumerate(plan.configs.items()):
        record_config(results, run_id, config)
        run = results.run(run_id)
        journal = JournalWriter(run.journal)
        network = {"exploration_rate": 0.5, "density": config.density, "drop_fraction": 0.1, "wall_seconds": 1.0}
        accuracies = {"train_loss": 0.5, "validation_accuracy": 0.7, "test_accuracy": 0.7 + number % 7 / 100}
        for epoch in range(10):
            journal.write("evaluated", {"step": epoch * 352, "epoch": epoch, **accuracies, **network})
        journal.close()
        result = {**accuracies, "exploration_rate": 0.5, "steps": 88_000, "epochs": 250, "wall_seconds": 3600.0}
        write_json(run.result, {"run_id": run_id, "density": config.density, "layers": [], **result})
