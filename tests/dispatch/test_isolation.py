"""Same run, same bits, whatever ran before it in the same worker: with models that change all they can."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from itopctl.config.identity import run_id
from itopctl.config.run_config import RunConfig
from itopctl.dispatch.manifest import record_config
from itopctl.dispatch.pool import Pool
from itopctl.dispatch.slots import Slot
from itopctl.store.files import read_json
from itopctl.store.journal import read_journal
from itopctl.store.locks import is_alive_here
from itopctl.store.rundir import Results
from tests.dispatch.fake_slurm import FakeSlurm
from tests.dispatch.hostile import HOSTILE, write_modules
from tests.dispatch.test_job import Place
from tests.dispatch.test_pool import Watcher, measured
from tests.helpers import run_config


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("modules")
    write_modules(folder)
    return folder


@pytest.fixture(autouse=True)
def found(modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules are on Python's path, here and in workers."""
    monkeypatch.syspath_prepend(modules)
    monkeypatch.setenv("PYTHONPATH", f"{modules}:{os.environ.get('PYTHONPATH', '')}")


def results_of(results: Results, configs: list[RunConfig]) -> dict[str, str]:
    """Run them one after the other in a worker with two threads; returns the states by model and seed."""
    by_id = {run_id(config): config for config in configs}
    pool = Pool(results, Path("data"), [Slot(2)], Watcher(), lambda i: record_config(results, i, by_id[i]))
    states = pool.run(by_id).states
    return {f"{config.model} {config.seed}": states[id_] for id_, config in by_id.items() if id_ in states}


def bits(results: Results, config: RunConfig) -> tuple[dict[str, Any], bytes]:
    """What a run gave: its result, and its trained network to the bit."""
    return measured(results, config), results.run(run_id(config)).network.read_bytes()


# Layers of this size PyTorch computes with several threads.
SHIPPED = [run_config(dataset="synthetic", model="lenet-300-100", epochs=1, seed=seed) for seed in range(4)]

UNFORKED = """
import sys
from pathlib import Path
from itopctl.dispatch.attempt import execute
from itopctl.dispatch.attempt_values import Job
from itopctl.store.rundir import RunDirectory
from itopctl.train.setup import be_deterministic

be_deterministic(2)
for path in sys.argv[1:]:
    assert execute(RunDirectory(Path(path)), Path("data"), Job(), lambda: None).state == "done"
"""


@pytest.fixture(scope="module")
def tame(modules: Path) -> list[RunConfig]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(modules)
        return [run_config(model="tame:make", seed=seed) for seed in range(3)]


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, modules: Path, tame: list[RunConfig]
) -> dict[str, tuple[dict[str, Any], bytes]]:
    """By id, what runs give in a process that is no fork of another, and in which nothing hostile ran."""
    results = Results(tmp_path_factory.mktemp("undisturbed"))
    configs = {run_id(config): config for config in (*SHIPPED, *tame)}
    for id_, config in configs.items():
        record_config(results, id_, config)
    environment = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [sys.executable, "-c", UNFORKED, *(str(results.run(id_).path) for id_ in configs)],
        env={**os.environ, **environment, "PYTHONPATH": f"{modules}:{Path.cwd()}"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {id_: bits(results, config) for id_, config in configs.items()}


def test_a_run_gives_the_same_bits_whatever_ran_before_it_in_its_worker(
    tmp_path: Path, undisturbed: dict[str, tuple[dict[str, Any], bytes]], tame: list[RunConfig]
) -> None:
    hostile, results = [run_config(model=model) for model in HOSTILE], Results(tmp_path)
    runs = [hostile[0], tame[0], *SHIPPED[:2], hostile[1], SHIPPED[2], tame[1], hostile[2], tame[2], SHIPPED[3]]
    states = results_of(results, runs)
    assert {name: state for name, state in states.items() if state != "done"} == {
        f"{model} 0": "failed" for model in HOSTILE
    }
    for config in (*tame, *SHIPPED):
        assert bits(results, config) == undisturbed[run_id(config)], (config.model, config.seed)
    pids = [read_journal(results.run(run_id(config)).journal).events[0]["pid"] for config in runs]
    assert pids[2] == pids[3]  # runs without code of the user's share a process
    assert len(set(pids)) == len(runs) - 1


def test_runs_of_a_job_give_the_same_bits_whatever_ran_before_them(
    fake: FakeSlurm, tmp_path: Path, local_disk: None, tame: list[RunConfig],
    undisturbed: dict[str, tuple[dict[str, Any], bytes]],
) -> None:  # fmt: skip
    place = Place(tmp_path / "a place", fake)
    configs = {run_id(one): one for one in (run_config(model=HOSTILE[0]), SHIPPED[0], tame[0])}
    job = place.submit(tuple(configs), configs, cpus_per_task=2)
    assert place.fake.run(job) == 1, place.printed()
    hostile, *others = configs
    assert place.attempts(hostile) == [(job, "user-error")]
    for id_ in others:
        assert bits(place.results, configs[id_]) == undisturbed[id_]


GRADIENTS_OFF = "gradients are switched off for the whole process, by {} or a module that it imports"
SENTENCES = {
    "hostile:dtype": "the default dtype of the process was set to torch.float64, by hostile:dtype",
    "hostile:gradient": GRADIENTS_OFF.format("hostile:gradient"),
    "hostile:gradient_later": GRADIENTS_OFF.format("hostile:gradient_later"),
    "hostile:device": "the default device of the process was set to meta, by hostile:device",
    "hostile:inference": "the weights of the model were made under torch.inference_mode()",
}
"""Models that cannot be trained, and what is said of them."""


def test_settings_of_a_module_count_for_its_own_run_and_are_recorded_or_refused_in_a_sentence(
    tmp_path: Path, tame: list[RunConfig]
) -> None:
    results, mild = Results(tmp_path), run_config(model="hostile:mild")
    states = results_of(results, [mild, tame[0], *(run_config(model=model) for model in SENTENCES)])
    assert states.pop("hostile:mild 0") == states.pop("tame:make 0") == "done"
    assert set(states.values()) == {"failed"}
    for model, sentence in SENTENCES.items():
        run = results.run(run_id(run_config(model=model)))
        (failure,) = [e for e in read_journal(run.journal).events if e["event"] == "failed"]
        assert failure["cause"] == "user-error"
        assert failure["message"].startswith(sentence)
        assert "Traceback" not in run.log.read_text()
    environment = read_json(results.run(run_id(mild)).environment) or {}
    assert environment["threads"] == 3
    changed = environment["settings"]
    assert changed["float32_matmul_precision"] == "medium"
    assert changed["autocast_cpu"] is changed["anomaly_detection"] is changed["flush_denormal"] is True
    assert changed["deterministic_algorithms"] is changed["mkldnn.enabled"] is False
    assert (changed["module_hooks"], changed["function_modes"]) == (["forward"], ["Functions"])
    assert "grad_enabled" not in changed and "default_dtype" not in changed
    assert "settings" not in (read_json(results.run(run_id(tame[0])).environment) or {})


def test_where_a_worker_alone_is_killed_the_process_that_makes_its_run_ends_and_the_run_is_made_again(
    tmp_path: Path,
) -> None:
    config, results, made_by = run_config(), Results(tmp_path), []

    def kill_the_worker(event: dict[str, Any]) -> None:
        holder = read_json(results.run(event["run_id"]).lock)
        if event["event"] == "evaluated" and not made_by and holder is not None:
            made_by.append(holder)
            stat = Path(f"/proc/{holder['pid']}/stat").read_text().rpartition(")")[2].split()
            os.kill(holder["pid"], signal.SIGSTOP)  # or it might finish before anybody ends it
            os.kill(int(stat[1]), signal.SIGKILL)

    watcher = Watcher(kill_the_worker)
    pool = Pool(results, Path("data"), [Slot(1)], watcher, lambda i: record_config(results, i, config))
    assert pool.run([run_id(config)]).states == {run_id(config): "done"}
    assert not is_alive_here(made_by[0])
    events = read_journal(results.run(run_id(config)).journal).events
    assert [e["attempt"] for e in events if e["event"] == "started"] == [1, 2]
    (failure,) = [e for e in events if e["event"] == "failed"]
    assert (failure["cause"], failure["message"]) == ("killed", "its process was killed by SIGKILL")


@pytest.mark.parametrize(("models", "forks"), [([None] * 3, False), (["tame:make"], False), (["tame:make"] * 3, True)])
def test_a_worker_stays_small_unless_it_makes_several_runs_with_code_of_the_users(
    tmp_path: Path, models: list[str | None], forks: bool
) -> None:
    """Schedulers that add up the memory of a job's processes count what two of them share twice."""
    configs = [run_config(**({"model": model} if model else {}), seed=seed) for seed, model in enumerate(models)]
    by_id, results, imported = {run_id(config): config for config in configs}, Results(tmp_path), set()

    def look(event: dict[str, Any]) -> None:
        holder = read_json(results.run(event["run_id"]).lock)
        if event["event"] == "evaluated" and holder is not None:
            stat = Path(f"/proc/{holder['pid']}/stat").read_text().rpartition(")")[2].split()
            imported.add("libtorch" in Path(f"/proc/{stat[1]}/maps").read_text())

    own_code = by_id if any(models) else ()
    pool = Pool(
        results, Path("data"), [Slot(1)], Watcher(look), lambda i: record_config(results, i, by_id[i]),
        own_code=own_code,
    )  # fmt: skip
    assert set(pool.run(by_id).states.values()) == {"done"}
    assert imported == {forks}
