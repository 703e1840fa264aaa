"""The pool with real worker processes: results, killed workers, failing runs, interrupts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from itopctl.config.identity import run_id
from itopctl.config.run_config import RunConfig
from itopctl.dispatch.manifest import record_config
from itopctl.dispatch.pool import MAX_ATTEMPTS, QUICK_FAILURES, Outcome, Pool
from itopctl.dispatch.slots import Slot, plan_slots, visible_gpus
from itopctl.errors import NotWritableError
from itopctl.store.checkpoints import checkpoints
from itopctl.store.files import read_json
from itopctl.store.journal import read_journal
from itopctl.store.locks import is_held
from itopctl.store.rundir import Results
from tests.forked import fork_modules, import_what_workers_need
from tests.helpers import itopctl, run_config, write_spec


@pytest.fixture(autouse=True)
def _workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes of the pool are forked from here, but where a test asks for those that are
    `really_started`. That saves importing torch for each."""
    if "really_started" not in request.fixturenames:
        import_what_workers_need()
        fork_modules(monkeypatch.setattr)


@pytest.fixture
def really_started() -> None:
    """For tests with workers that are started as programs, as a user's are."""


class Watcher:
    """An observer that remembers, and that may do something at an event."""

    def __init__(self, on_event: Callable[[dict[str, Any]], None] = lambda event: None) -> None:
        self.on_event = on_event
        self.log: list[tuple[str, str]] = []

    def started(self, run_id: str) -> None:
        self.log.append(("started", run_id))

    def event(self, event: dict[str, Any]) -> None:
        self.on_event(event)

    def ended(self, run_id: str, state: str, cause: str | None, message: str | None, again: bool) -> None:
        self.log.append((f"{state} {cause}" + " again" * again, run_id))

    def note(self, text: str) -> None:
        self.log.append(("note", text))

    def tick(self) -> None: ...


def run_pool(
    results: Results, configs: list[RunConfig], workers: int = 1, watcher: Watcher | None = None
) -> tuple[Outcome, Watcher]:
    watcher = watcher or Watcher()
    by_id = {run_id(config): config for config in configs}
    pool = Pool(
        results, Path("data"), [Slot(1)] * workers, watcher, prepare=lambda i: record_config(results, i, by_id[i])
    )
    return pool.run(by_id), watcher


def measured(results: Results, config: RunConfig) -> dict[str, Any]:
    """A run's result without what a clock decides."""
    result = read_json(results.run(run_id(config)).result)
    assert result is not None
    times = ("wall_seconds", "steps_per_second", "peak_memory_bytes", "energy_joules", "finished_at", "attempt")
    return {name: value for name, value in result.items() if name not in times}


def test_a_result_does_not_depend_on_what_runs_beside_it(tmp_path: Path) -> None:
    configs = [run_config(seed=seed) for seed in range(4)]
    alone, together = Results(tmp_path / "alone"), Results(tmp_path / "together")
    for config in configs[:1]:
        run_pool(alone, [config])
    outcome, _ = run_pool(together, configs, workers=3)
    assert set(outcome.states.values()) == {"done"}
    assert outcome.stopped is None
    assert measured(alone, configs[0]) == measured(together, configs[0])
    assert len({str(measured(together, config)) for config in configs}) == 4


def test_a_finished_run_leaves_its_files_and_no_lock(tmp_path: Path, really_started: None) -> None:
    config = run_config()
    results = Results(tmp_path)
    run_pool(results, [config])
    run = results.run(run_id(config))
    left = {path.name for path in run.path.iterdir()}
    assert left == {"config.json", "journal.jsonl", "result.json", "environment.json", "log.txt", "network.pt"}
    events = [event["event"] for event in read_journal(run.journal).events]
    assert events[0] == "started"
    assert events[-1] == "finished"
    environment = read_json(run.environment)
    assert environment is not None
    assert environment["threads"] == 1
    assert environment["packages"]["torch"]
    assert "epoch 2 " in run.log.read_text()


def test_a_killed_worker_costs_its_run_one_attempt(tmp_path: Path, really_started: None) -> None:
    config, other = run_config(epochs=8), run_config(epochs=8, seed=1)
    results = Results(tmp_path / "killed")
    killed: list[int] = []

    def kill_once(event: dict[str, Any]) -> None:
        if event["event"] == "evaluated" and event["step"] == 22 and not killed:
            holder = read_json(results.run(event["run_id"]).lock)
            assert holder is not None
            killed.append(holder["pid"])
            os.kill(holder["pid"], signal.SIGKILL)

    outcome, watcher = run_pool(results, [config, other], watcher=Watcher(kill_once))
    assert set(outcome.states.values()) == {"done"}
    assert ("failed killed again", run_id(config)) in watcher.log
    events = read_journal(results.run(run_id(config)).journal).events
    history = [(e["attempt"], e["event"]) for e in events if e["event"] in ("started", "failed", "finished")]
    assert history == [(1, "started"), (1, "failed"), (2, "started"), (2, "finished")]
    assert next(e["cause"] for e in events if e["event"] == "failed") == "killed"
    assert "SIGKILL" in next(e["message"] for e in events if e["event"] == "failed")
    undisturbed = Results(tmp_path / "undisturbed")
    run_pool(undisturbed, [config])
    assert measured(results, config) == measured(undisturbed, config)


@pytest.mark.slow
def test_a_run_whose_worker_is_always_killed_is_given_up(tmp_path: Path) -> None:
    config, other = run_config(epochs=5), run_config(seed=1)
    results = Results(tmp_path)

    def kill(event: dict[str, Any]) -> None:
        if event["event"] == "evaluated" and event["run_id"] == run_id(config):
            holder = read_json(results.run(event["run_id"]).lock)
            if holder is not None:
                os.kill(holder["pid"], signal.SIGKILL)

    outcome, _ = run_pool(results, [config, other], watcher=Watcher(kill))
    assert outcome.states == {run_id(config): "failed", run_id(other): "done"}
    failures = [e for e in read_journal(results.run(run_id(config)).journal).events if e["event"] == "failed"]
    assert [e["attempt"] for e in failures] == list(range(1, MAX_ATTEMPTS + 1))


def own_model(folder: Path, body: str) -> str:
    """A module with a model of the user's; returns its name in a spec."""
    name = f"own_{folder.name.replace('-', '_')[-30:]}"
    (folder / f"{name}.py").write_text(body)
    return f"{name}:make_model"


FAILING = "def make_model(input_shape, classes):\n    raise RuntimeError('no such layer: café')\n"
EXITING = "import os\ndef make_model(input_shape, classes):\n    print('last words', flush=True)\n    os._exit(7)\n"
HUNGRY = "import torch\ndef make_model(input_shape, classes):\n    return torch.nn.Linear(10**8, 10**8)\n"


@pytest.mark.parametrize(
    ("body", "cause", "words"),
    [(FAILING, "user-error", "no such layer: café"), (HUNGRY, "out-of-memory", "memory")],
)
def test_one_failing_run_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, cause: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    bad, good = run_config(model=own_model(tmp_path, body)), run_config()
    results = Results(tmp_path / "results")
    outcome, watcher = run_pool(results, [bad, good])
    assert outcome.states == {run_id(bad): "failed", run_id(good): "done"}
    assert (f"failed {cause}", run_id(bad)) in watcher.log
    (failure,) = [e for e in read_journal(results.run(run_id(bad)).journal).events if e["event"] == "failed"]
    assert failure["cause"] == cause
    assert words in failure["message"].lower()
    assert "Traceback" in results.run(run_id(bad)).log.read_text()


CLOSING = "import os, sys\ndef make_model(input_shape, classes):\n    {}\n    raise RuntimeError('no such layer')\n"


@pytest.mark.parametrize("how", ["os.close(1); os.close(2)", "sys.stdout.close(); sys.stderr.close()"])
def test_a_failure_keeps_its_cause_where_nothing_can_be_printed_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.chdir(tmp_path)
    bad, good = run_config(model=own_model(tmp_path, CLOSING.format(how))), run_config()
    results = Results(tmp_path / "results")
    outcome, _ = run_pool(results, [bad, good])
    assert outcome.states == {run_id(bad): "failed", run_id(good): "done"}
    (failure,) = [e for e in read_journal(results.run(run_id(bad)).journal).events if e["event"] == "failed"]
    assert (failure["cause"], failure["message"]) == ("user-error", "RuntimeError: no such layer")


def test_a_model_that_ends_the_process_costs_attempts_and_not_the_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bad, good = run_config(model=own_model(tmp_path, EXITING)), run_config()
    results = Results(tmp_path / "results")
    outcome, _ = run_pool(results, [bad, good])
    assert outcome.states == {run_id(bad): "failed", run_id(good): "done"}
    failures = [e for e in read_journal(results.run(run_id(bad)).journal).events if e["event"] == "failed"]
    assert len(failures) == MAX_ATTEMPTS
    assert "exit code 7" in failures[0]["message"]
    assert "last words" in results.run(run_id(bad)).log.read_text()


def test_many_quick_failures_stop_the_sweep_and_name_the_common_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = own_model(tmp_path, FAILING)
    outcome, watcher = run_pool(Results(tmp_path / "r"), [run_config(model=model, seed=seed) for seed in range(12)])
    assert outcome.stopped == "failures"
    assert outcome.common_cause is not None
    assert outcome.common_cause[0] == "user-error"
    assert "no such layer" in outcome.common_cause[1]
    assert len([entry for entry in watcher.log if entry[0] == "started"]) == QUICK_FAILURES


def test_a_run_at_another_process_is_left_alone(tmp_path: Path) -> None:
    config = run_config()
    results = Results(tmp_path)
    record_config(results, run_id(config), config)
    from itopctl.store.locks import locked

    with locked(results.run(run_id(config))):
        outcome, _ = run_pool(results, [config])
    assert outcome.states == {run_id(config): "elsewhere"}
    assert not results.run(run_id(config)).result.exists()


HIJACKED = """
import json, os
from pathlib import Path
def make_model(input_shape, classes):
    (lock,) = Path("results/runs").glob("*/lock")
    lock.write_text(json.dumps(json.loads(lock.read_text()) | CHANGED))
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("changed", [{"host": "elsewhere"}, {"namespace": "pid:[1]"}])
def test_nothing_is_written_for_another_hosts_process_of_the_dead_workers_pid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = run_config(model=own_model(tmp_path, HIJACKED.replace("CHANGED", repr(changed))))
    results = Results(tmp_path / "results")
    outcome, _ = run_pool(results, [config])
    assert outcome.states == {run_id(config): "elsewhere"}
    run = results.run(run_id(config))
    assert [event["event"] for event in read_journal(run.journal).events] == ["started"]
    assert run.lock.exists()


def test_a_config_that_is_not_its_directorys_is_refused(tmp_path: Path) -> None:
    config, other = run_config(), run_config(seed=1)
    results = Results(tmp_path)
    pool = Pool(
        results, Path("data"), [Slot(1)], Watcher(), prepare=lambda i: record_config(results, i, other)
    )  # fmt: skip
    outcome = pool.run([run_id(config)])
    assert outcome.states == {run_id(config): "failed"}


@pytest.mark.parametrize(
    ("workers", "per_gpu", "cores", "gpus", "expected"),
    [
        (None, 1, 8, [], [Slot(1)] * 8),
        (2, 1, 8, [], [Slot(4)] * 2),
        (16, 1, 8, [], [Slot(1)] * 16),
        (None, 1, 8, ["0", "3"], [Slot(4, "0"), Slot(4, "3")]),
        (None, 2, 8, ["0", "3"], [Slot(2, "0"), Slot(2, "3"), Slot(2, "0"), Slot(2, "3")]),
        (3, 1, 8, ["0", "1"], [Slot(2, "0"), Slot(2, "1"), Slot(2, "0")]),
    ],
)
def test_every_worker_gets_its_share_of_cores_and_one_gpu(
    workers: int | None, per_gpu: int, cores: int, gpus: list[str], expected: list[Slot]
) -> None:
    assert plan_slots(workers, per_gpu, cores, gpus) == expected


SEEING = (
    "import os, torch\n"
    "def make_model(input_shape, classes):\n"
    "    print('sees', repr(os.environ.get('CUDA_VISIBLE_DEVICES')), torch.get_num_threads(), flush=True)\n"
    "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, classes))\n"
)


@pytest.mark.parametrize(("slot", "seen"), [(Slot(2, "3"), "sees '3' 2"), (Slot(1), "sees None 1")])
def test_a_worker_sees_its_gpu_alone_and_has_its_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, really_started: None, slot: Slot, seen: str
) -> None:
    monkeypatch.chdir(tmp_path)
    config = run_config(model=own_model(tmp_path, SEEING), device="cpu")
    results = Results(tmp_path / "results")
    pool = Pool(results, Path("data"), [slot], Watcher(), prepare=lambda i: record_config(results, i, config))
    assert pool.run([run_id(config)]).states == {run_id(config): "done"}
    assert seen in results.run(run_id(config)).log.read_text()


@pytest.mark.parametrize(
    ("listed", "gpus"), [("0,1", ["0", "1"]), ("GPU-8a, GPU-9b", ["GPU-8a", "GPU-9b"]), ("", []), ("-1", [])]
)
def test_gpus_are_those_the_environment_allows(listed: str, gpus: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert visible_gpus() == gpus


# Interrupts of the real command -------------------------------------------------------------------------------


def start_sweep(spec: Path, results: Path) -> subprocess.Popen[str]:
    """The command in a process group of its own, so that an interrupt reaches what a terminal would reach."""
    return subprocess.Popen(
        [sys.executable, "-m", "itopctl", "sweep", str(spec), "--results", str(results)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def wait_for_steps(results: Results, deadline: float = 120.0) -> list[int]:
    """Wait until some run has journalled an epoch; returns the pids of the workers."""
    until = time.monotonic() + deadline
    while time.monotonic() < until:
        held = [results.run(run_id) for run_id in results.run_ids() if is_held(results.run(run_id))]
        if any(e["event"] == "evaluated" for run in held for e in read_journal(run.journal).events):
            return [holder["pid"] for run in held if (holder := read_json(run.lock))]
        time.sleep(0.05)
    raise AssertionError("no run got anywhere")


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until_gone(pids: list[int], deadline: float = 60.0) -> None:
    until = time.monotonic() + deadline
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < until, f"still alive: {[pid for pid in pids if is_alive(pid)]}"
        time.sleep(0.05)


LONG = {
    "base": {
        "dataset": "digits", "model": "lenet-300-100", "method": "set-itop", "sparsity": 0.9, "update_interval": 5,
        "epochs": 300,
    },
    "grid": {"seed": 2},
}  # fmt: skip


@pytest.mark.slow
def test_an_interrupt_stops_cleanly_and_the_same_command_goes_on_to_the_same_result(tmp_path: Path) -> None:
    base = {**LONG["base"], "epochs": 100}  # type: ignore[dict-item]
    spec, results = write_spec(tmp_path, **{**LONG, "base": base}), Results(tmp_path / "results")
    sweep = start_sweep(spec, results.path)
    pids = wait_for_steps(results)
    os.killpg(sweep.pid, signal.SIGINT)
    output, _ = sweep.communicate(timeout=120)
    assert sweep.returncode == 1
    assert "Stopping after the current step" in output
    assert "Interrupted. Run the same command again to go on" in output
    assert "Traceback" not in output
    wait_until_gone(pids)
    runs = [results.run(run_id) for run_id in results.run_ids()]
    run = next(run for run in runs if any(e["event"] == "evaluated" for e in read_journal(run.journal).events))
    assert checkpoints(run)
    assert not run.lock.exists()
    stopped_at = read_journal(run.journal).events[-1]
    assert stopped_at["cause"] == "cancelled"

    again = itopctl("sweep", spec, "--results", results.path)
    assert again.returncode == 0, again.stdout + again.stderr
    second = [e for e in read_journal(run.journal).events if e["event"] == "started"][1]
    assert second["step"] == stopped_at["step"]
    assert not checkpoints(run)
    undisturbed = Results(tmp_path / "undisturbed")
    itopctl("sweep", spec, "--results", undisturbed.path)
    for config in (run_config(**base, seed=seed) for seed in range(2)):
        assert measured(results, config) == measured(undisturbed, config)


def test_a_second_interrupt_kills(tmp_path: Path) -> None:
    slow = {**LONG, "base": {**LONG["base"], "dataset": "synthetic", "model": "resnet18", "batch_size": 1000}}
    spec, results = write_spec(tmp_path, **slow), Results(tmp_path / "results")
    sweep = start_sweep(spec, results.path)
    until = time.monotonic() + 60
    while not any(is_held(results.run(i)) for i in results.run_ids()):
        assert time.monotonic() < until
        time.sleep(0.05)
    pids = [holder["pid"] for i in results.run_ids() if (holder := read_json(results.run(i).lock))]
    time.sleep(1.0)
    os.killpg(sweep.pid, signal.SIGINT)
    time.sleep(0.3)
    os.killpg(sweep.pid, signal.SIGINT)
    output, _ = sweep.communicate(timeout=60)
    assert sweep.returncode == 1
    assert "Killing" in output
    wait_until_gone(pids)
    assert not any(results.run(i).lock.exists() for i in results.run_ids())


def test_workers_do_not_outlive_a_command_that_is_killed(tmp_path: Path) -> None:
    spec, results = write_spec(tmp_path, **LONG), Results(tmp_path / "results")
    sweep = start_sweep(spec, results.path)
    pids = wait_for_steps(results)
    sweep.kill()
    sweep.communicate()
    wait_until_gone(pids)
    until = time.monotonic() + 60  # a worker that had no lock yet, when the command was killed, ends a little later
    while '"queued": 2' not in (states := itopctl("status", "--results", results.path, "--json")).stdout:
        assert time.monotonic() < until, states.stdout
        time.sleep(0.2)  # they stop cleanly: nothing is lost, and nothing runs


def test_a_run_that_does_not_stop_when_it_is_asked_is_given_up_for_the_reason_that_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "never_stops.py").write_text(
        "import time, torch\n"
        "class Net(torch.nn.Linear):\n"
        "    def forward(self, x):\n"
        "        time.sleep(600)\n"
        "def make(input_shape, classes):\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), Net(64, classes))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    config, waits = run_config(model="never_stops:make"), run_config(model="never_stops:make", seed=1)
    results = Results(tmp_path / "results")
    by_id = {run_id(one): one for one in (config, waits)}
    asked: list[float] = []

    class Impatient(Watcher):
        def event(self, event: dict[str, Any]) -> None:
            if event["event"] == "started" and not asked:
                asked.append(time.monotonic())
                pool.stop(("timeout", "its time is nearly up"))

        def tick(self) -> None:
            if asked and time.monotonic() - asked[0] > 1.0:
                pool.give_up()

    watcher = Impatient()
    pool = Pool(results, Path("data"), [Slot(1)], watcher, lambda i: record_config(results, i, by_id[i]))
    outcome = pool.run(by_id)
    assert outcome.states == {run_id(config): "cancelled"}  # the other was not begun
    events = read_journal(results.run(run_id(config)).journal).events
    assert [(e["event"], e.get("cause")) for e in events][-1] == ("failed", "timeout")
    assert events[-1]["message"] == "its time is nearly up; it did not save itself in time"
    assert not results.run(run_id(config)).lock.exists()


def test_a_config_is_not_written_through_a_link(tmp_path: Path) -> None:
    results, config = Results(tmp_path / "results"), run_config()
    (tmp_path / "elsewhere").mkdir()
    results.runs.mkdir(parents=True)
    results.run(run_id(config)).path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotWritableError, match="it is a symbolic link"):
        record_config(results, run_id(config), config)
    assert not list((tmp_path / "elsewhere").iterdir())
