"""The records of a sweep, and bringing a store up to date with them; each may be killed."""

from __future__ import annotations

import os
import pickle
import signal
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from itopctl.config.expand import expand
from itopctl.config.reading import read_text
from itopctl.config.sweep import parse_sweep
from itopctl.dispatch.manifest import SweepRecords, record_config
from itopctl.plan import PlannedSweep, make_plan
from itopctl.store import files
from itopctl.store.database import open_store
from itopctl.store.files import Change, read_json
from itopctl.store.ingest import ingest
from itopctl.store.rundir import Results
from tests.faults.submitting import prepare
from tests.store.builders import Lab, run_id

SPEC = """
name: records
base: {dataset: digits, model: lenet-300-100, method: set-itop, sparsity: 0.9, update_interval: 5, epochs: 2}
grid: {seed: 3}
"""


def write_records(results: str, kill_at: int | None = None, torn: bool = False, record: str | None = None) -> list[str]:
    """Write what a sweep leaves before anything starts; returns the kinds of the changes made.

    Args:
        results: the results folder.
        kill_at, torn: as in `prepare`.
        record: file for a list of all changes.
    """
    kinds = prepare({}, kill_at, torn)
    changes: list[Change] = []
    files.watchers.append(changes.append)
    folder = Results(Path(results))
    spec = parse_sweep(read_text(SPEC, "records.yaml"))
    planned = PlannedSweep(spec, expand(spec))
    SweepRecords(folder, make_plan([planned], {})).write()
    for id_, config in planned.expansion.runs.items():
        record_config(folder, id_, config)
    if record is not None:
        Path(record).write_bytes(pickle.dumps(changes))
    return kinds


def take_in(results: str, database: str, kill_at: int | None = None, seconds: float | None = None) -> int:
    """Open a store and bring it up to date; returns how many moments there were.

    Args:
        results: the results folder.
        database: a file, made where there is none.
        kill_at: SIGKILL itself at the moment of this number: before a statement, before a commit or after it.
        seconds: be killed by the kernel after so long, wherever that is.
    """
    moments = 0

    def moment(*_: Any) -> None:
        nonlocal moments
        if moments == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        moments += 1

    sa.event.listen(sa.Engine, "before_cursor_execute", moment)
    sa.event.listen(sa.Engine, "commit", moment)
    sa.event.listen(sa.Engine, "checkin", moment)
    if seconds is not None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)
    store = open_store(Path(database))
    ingest(store, Results(Path(results)))
    signal.setitimer(signal.ITIMER_REAL, 0)
    store.close()
    return moments


def records_in(results: Results) -> dict[str, Any]:
    """Every file of the records, without times; {} for one that is not whole."""
    found = {str(path.relative_to(results.path)): read_json(path) or {} for path in results.path.rglob("*.json")}
    return {
        name: {key: value for key, value in content.items() if key not in ("created_at", "updated_at")}
        for name, content in found.items()
        if not Path(name).name.startswith(".")
    }


def worked_in(path: Path) -> Lab:
    """A results folder with runs in every state."""
    lab = Lab.at(path)
    ids = [run_id(number) for number in range(8)]
    lab.sweep("one", {id_: {"sparsity": 0.9, "seed": number} for number, id_ in enumerate(ids)})
    for id_ in ids[:3]:
        lab.done(id_)
    lab.failed(ids[3])
    lab.begun(ids[4])[1].close()
    lab.submitted("one-x", (ids[5],), (ids[6],))
    return lab


def more_work(lab: Lab) -> None:
    """What happens next there."""
    lab.done(run_id(4))
    lab.failed(run_id(5), cause="timeout")
    lab.submitted("one-y", (run_id(3),))
