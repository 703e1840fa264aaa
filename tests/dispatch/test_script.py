"""The batch scripts, as sbatch gets them.

The golden ones are made anew by `python -m tests.dispatch.test_script`; read what changed before committing them.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from itopctl.config.slurm import SlurmOptions
from itopctl.dispatch.script import script_text, signal_delay, submit_script
from itopctl.errors import UserError
from tests.dispatch.fake_slurm import FakeSlurm
from tests.dispatch.fake_slurm_commands import words_of

GOLDEN = Path(__file__).parent / "golden"
FOLDER = Path("/home/me/its results/submissions/cifar100-0badc0de")
SNAPSHOT = Path("/home/me/its results/snapshots/0123456789ab")
EVERYTHING = SlurmOptions(
    partition="gpu,long", account="lab", qos="high", constraint="a100|h100", gpus_per_node="a100:2", cpus_per_task=8,
    mem="64G", timeout_min=600, array_parallelism=20, runs_per_job=4, runs_per_gpu=2, signal_delay_s=120,
    setup=["module load cuda", "echo \"it's $HOSTNAME\""],
    additional_parameters={
        "nice": 100, "exclusive": True, "comment": "it's \"mine\"", "mail_user": "me@lab", "oversubscribe": False,
    },
)  # fmt: skip
NOTHING = SlurmOptions()
SCRIPTS: dict[str, dict[str, Any]] = {
    "minimal": {"options": SlurmOptions(), "jobs": 1},
    "everything": {
        "options": EVERYTHING, "jobs": 50, "throttle": 20, "dependency": "afterok:12:13_4,afterany:9",
        "folder": Path("/home/me/it's \"mine\"/submissions/cifar100-0badc0de"),
        "snapshot": Path("/home/me/it's \"mine\"/snapshots/0123456789ab"),
        "workdir": Path("/home/me/it's \"mine\"/snapshots/0123456789ab/experiments"),
    },
    "distributed": {
        "options": SlurmOptions(gpus_per_node=4, cpus_per_task=6, distributed=True, timeout_min=60), "jobs": 3,
    },
    "no_snapshot": {
        "options": SlurmOptions(timeout_min=2), "jobs": 2, "snapshot": None, "workdir": Path("/home/me/work"),
    },
    "after_the_end_of_others": {"options": SlurmOptions(), "jobs": 2, "throttle": 1, "dependency": "afterany:9"},
    "probe": {"options": SlurmOptions(timeout_min=1), "jobs": 1, "module": "itopctl.dispatch.probe"},
}  # fmt: skip


def script(
    folder: Path = FOLDER, name: str = "cifar100-0badc0de", jobs: int = 1, options: SlurmOptions = NOTHING,
    throttle: int | None = None, dependency: str | None = None, snapshot: Path | None = SNAPSHOT,
    workdir: Path = SNAPSHOT, **about: Any,
) -> str:  # fmt: skip
    return script_text(folder, name, jobs, options, throttle, dependency, snapshot, workdir, **about)


def portable(text: str) -> str:
    """A script without the path of this Python."""
    return text.replace(shlex.quote(sys.executable), "/usr/bin/python3")


def asked_of(text: str) -> dict[str, str]:
    """What a script asks sbatch for."""
    lines = [line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH --")]
    return {key: " ".join(words_of(value)) for key, _, value in (line.partition("=") for line in lines)}


def is_sound(text: str) -> bool:
    """Whether bash can read a script."""
    return subprocess.run(["bash", "-n"], input=text.encode(), check=False).returncode == 0


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_script_is_the_golden_one(name: str) -> None:
    assert portable(script(**SCRIPTS[name])) == (GOLDEN / f"{name}.sh").read_text()


def test_there_is_no_golden_script_that_nobody_makes() -> None:
    assert {path.stem for path in GOLDEN.glob("*.sh")} == set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_bash_can_read_the_script(name: str) -> None:
    assert is_sound(script(**SCRIPTS[name]))


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_pretended_slurm_takes_the_script(fake: FakeSlurm, name: str, tmp_path: Path) -> None:
    text = script(**SCRIPTS[name]).replace("gpu,long", "main")
    array = submit_script(tmp_path, text)
    assert fake.arrays[array]["asked"] == {k: v or True for k, v in asked_of(text).items()}


# What is asked for ------------------------------------------------------------------------------------------


def test_where_nothing_is_asked_for_the_cluster_decides() -> None:
    assert set(asked_of(script())) == {
        "array", "chdir", "error", "job-name", "nodes", "ntasks-per-node", "open-mode", "output", "requeue", "signal",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("jobs", "throttle", "array"), [(1, None, "0-0%1"), (7, None, "0-6%7"), (7, 3, "0-6%3"), (7, 20, "0-6%7")]
)
def test_an_array_has_an_index_for_each_job_and_its_throttle(jobs: int, throttle: int | None, array: str) -> None:
    assert asked_of(script(jobs=jobs, throttle=throttle))["array"] == array


@pytest.mark.parametrize(
    ("options", "seconds"),
    [({}, 90), ({"timeout_min": 600}, 90), ({"timeout_min": 6}, 90), ({"timeout_min": 2}, 30), ({"timeout_min": 1}, 15),
     ({"timeout_min": 1, "signal_delay_s": 40}, 40), ({"signal_delay_s": 300}, 300)],
)  # fmt: skip
def test_a_run_is_saved_well_before_its_time_is_up(options: dict[str, int], seconds: int) -> None:
    chosen = SlurmOptions(**options)
    assert signal_delay(chosen) == seconds
    assert asked_of(script(options=chosen))["signal"] == f"USR2@{seconds}"


def test_a_parameter_that_is_false_is_left_out_and_one_that_is_true_has_no_value() -> None:
    lines = script(options=SlurmOptions(additional_parameters={"exclusive": True, "hold": False})).splitlines()
    assert "#SBATCH --exclusive" in lines
    assert not [line for line in lines if "hold" in line]


def test_underscores_in_further_parameters_are_sbatchs_dashes() -> None:
    options = SlurmOptions(additional_parameters={"mail_type": "END", "cpu-freq": "high"})
    assert asked_of(script(options=options)) | {"mail-type": "END", "cpu-freq": "high"} == asked_of(
        script(options=options)
    )


def test_a_step_gets_the_cores_of_its_job_which_it_would_not_inherit() -> None:
    assert " --cpus-per-task=3 " in script(options=SlurmOptions(cpus_per_task=3)).splitlines()[-1]
    assert "--cpus-per-task" not in script().splitlines()[-1]


def test_what_can_never_begin_does_not_stay_in_the_queue() -> None:
    assert asked_of(script(dependency="afterok:1"))["kill-on-invalid-dep"] == "yes"
    assert "kill-on-invalid-dep" not in asked_of(script(dependency="afterany:1"))


AMBIGUOUS = ["/a/100%/b", "/a/%j/b", "/a/new\nline/b", "/a/back\\slash/b"]


@pytest.mark.parametrize("folder", AMBIGUOUS)
def test_a_path_that_slurm_would_read_as_something_else_is_refused(folder: str) -> None:
    with pytest.raises(UserError, match="use another"):
        script(folder=Path(folder))


@pytest.mark.parametrize("folder", AMBIGUOUS)
def test_so_is_such_a_folder_to_work_in(folder: str) -> None:
    with pytest.raises(UserError, match="use another"):
        script(snapshot=None, workdir=Path(folder))


def test_a_snapshot_that_python_could_not_find_is_refused() -> None:
    with pytest.raises(UserError, match="use another"):
        script(folder=Path("/a:b/submissions/one"), snapshot=Path("/a:b/snapshots/0123456789ab"))


# Quoting ----------------------------------------------------------------------------------------------------

AWKWARD = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="%/\\:\x85\u2028\u2029"),
    min_size=1,
    max_size=25,
).filter(lambda name: name.strip() not in ("", ".", ".."))
QUOTING = settings(
    derandomize=True, deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@QUOTING
@given(folder=AWKWARD, snapshot=AWKWARD)
def test_any_path_reaches_the_process_that_the_job_starts(
    fake: FakeSlurm, tmp_path: Path, folder: str, snapshot: str
) -> None:
    told = tmp_path / "told.json"
    (tmp_path / "tell.py").write_text(
        "import json, os, pathlib, sys\n"
        f"pathlib.Path({str(told)!r}).write_text(json.dumps([sys.argv[1:], os.environ['PYTHONPATH'], os.getcwd()]))\n"
    )
    submission, code = tmp_path / f"a{folder}z" / "submissions" / "one", tmp_path / f"b{snapshot}y"
    for path in (submission, code):
        path.mkdir(parents=True, exist_ok=True)
    (code / "tell.py").write_text((tmp_path / "tell.py").read_text())
    text = script_text(submission, "one", 2, SlurmOptions(), None, None, code, code, module="tell")
    assert is_sound(text)
    array = submit_script(submission, text)
    assert fake.run(f"{array}_1") == 0, (fake.folder / f"batch-{array}_1.out").read_text()
    arguments, path, here = json.loads(told.read_text())
    assert arguments == [str(submission)]
    assert path.split(":")[0] == str(code)
    assert here == str(code)
    assert (submission / f"{array}_1_0_log.out").exists()


def test_no_module_is_imported_for_lying_where_a_job_runs(fake: FakeSlurm, tmp_path: Path) -> None:
    code, theirs = tmp_path / "code", tmp_path / "theirs"
    code.mkdir()
    theirs.mkdir()
    (code / "tell.py").write_text("import json, other; print(json.__name__, other.WHOSE)")
    (code / "other.py").write_text("WHOSE = 'of the snapshot'")
    for name in ("json", "other", "runpy"):
        (theirs / f"{name}.py").write_text("raise SystemExit('it was imported')")
    array = submit_script(tmp_path, script_text(tmp_path, "one", 1, NOTHING, None, None, code, theirs, module="tell"))
    assert fake.run(f"{array}_0") == 0
    assert (tmp_path / f"{array}_0_0_log.out").read_text() == "json of the snapshot\n"


@QUOTING
@given(value=AWKWARD)
def test_any_value_of_a_further_parameter_reaches_sbatch(fake: FakeSlurm, tmp_path: Path, value: str) -> None:
    text = script(options=SlurmOptions(additional_parameters={"comment": value}))
    assert is_sound(text)
    (tmp_path / "one").mkdir(exist_ok=True)
    array = submit_script(tmp_path / "one", text)
    assert fake.arrays[array]["asked"]["comment"] == value


def test_commands_of_the_setup_run_before_the_job_as_they_were_written(fake: FakeSlurm, tmp_path: Path) -> None:
    (tmp_path / "tell.py").write_text("import os; print(os.environ['GREETING'])")
    setup = ["GREETING=\"it's $((1+1)) o'clock\"", "export GREETING"]
    text = script_text(tmp_path, "one", 1, SlurmOptions(setup=setup), None, None, tmp_path, tmp_path, module="tell")
    array = submit_script(tmp_path, text)
    assert fake.run(f"{array}_0") == 0
    assert (tmp_path / f"{array}_0_0_log.out").read_text() == "it's 2 o'clock\n"


def test_a_copy_of_the_script_stays_and_nothing_else_of_submitit(fake: FakeSlurm, tmp_path: Path) -> None:
    text = script(folder=tmp_path)
    submit_script(tmp_path, text)
    assert (tmp_path / "submission.sh").read_text() == text
    left = {path.name for path in tmp_path.iterdir()} - {"fake slurm"}
    assert left == {"submission.sh"}


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, about in SCRIPTS.items():
        (GOLDEN / f"{name}.sh").write_text(portable(script(**about)))
