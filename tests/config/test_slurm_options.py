"""What jobs ask of SLURM, by a spec, a site's profile or `--slurm`; what is wrong is refused by place and name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from itopctl.config.reading import read_text
from itopctl.config.slurm import (
    SlurmOptions,
    check_together,
    merged,
    options_of,
    parse_options,
    profile_path,
    read_profile,
)
from itopctl.config.sweep import parse_sweep
from itopctl.errors import UserError
from tests.config.build import spec_text

AT_LEAST_1 = "input should be greater than or equal to 1."
KEEP_ONE = "exclude each other; keep one."
FURTHER = "additional_parameters"
ALLOWED = ", ".join(SlurmOptions.model_fields)
MODEST = settings(derandomize=True, deadline=None, max_examples=50)


def read(text: str) -> SlurmOptions:
    """The options of a profile's text."""
    document = read_text(text, "site.yaml")
    return options_of(document, (), document.data)


def refusal(text: str) -> str:
    with pytest.raises(UserError) as caught:
        read(text)
    return str(caught.value)


def typed(*arguments: str) -> dict[str, Any]:
    """What is given by `--slurm` arguments."""
    return parse_options(arguments).model_dump(exclude_none=True)


# Reading ----------------------------------------------------------------------------------------------------


def test_every_option_is_taken_as_it_was_written() -> None:
    options = {
        "partition": "gpu,long", "account": "lab", "qos": "high", "constraint": "a100|h100", "gpus_per_node": "a100:2",
        "cpus_per_task": 8, "mem": "64G", "timeout_min": 60, "array_parallelism": 5, "runs_per_job": 4,
        "runs_per_gpu": 2, "distributed": False, "max_timeouts": 0, "signal_delay_s": 120,
        "setup": ["module load cuda", "echo \"it's $HOME\""],
        "additional_parameters": {"nice": 100, "exclusive": True, "mail-type": "END", "comment": "it's \"mine\""},
    }  # fmt: skip
    assert set(options) == set(SlurmOptions.model_fields)
    assert read(yaml.safe_dump(options)).model_dump() == options


@pytest.mark.parametrize("text", ["", "{}", "# nothing\n", "mem: null"])
def test_nothing_written_is_nothing_asked_for(text: str) -> None:
    assert read(text) == SlurmOptions()


@pytest.mark.parametrize(
    ("gpus", "count"), [(None, 0), (0, 0), (1, 1), ("2", 2), ("a100:2", 2), ("a100:1,v100:3", 4), ("gpu-x.y:8", 8)]
)
def test_gpus_are_counted_whatever_their_kind(gpus: int | str | None, count: int) -> None:
    options = SlurmOptions(gpus_per_node=gpus)
    assert options.gpu_count == count
    assert options.processes == 1
    assert options.model_copy(update={"distributed": True}).processes == count


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("[1]", "site.yaml:1: a mapping expected; found [1]."),
        ("just words", "site.yaml:1: a mapping expected; found 'just words'."),
        ("partition: [a]", "site.yaml:1: partition: found ['a']: input should be a valid string."),
        ("partition: 'a b'", "site.yaml:1: partition: a word without spaces and quotes expected; found 'a b'."),
        ('account: "a\'b"', 'site.yaml:1: account: a word without spaces and quotes expected; found "a\'b".'),
        ("qos: ''", "site.yaml:1: qos: a word without spaces and quotes expected; found ''."),
        ("qos: 5", "site.yaml:1: qos: found 5: input should be a valid string."),
        ("constraint: 'a\\b'", r"site.yaml:1: constraint: a word without spaces and quotes expected; found 'a\\b'."),
        ("mem: 16X", "site.yaml:1: mem: found '16X'; such as 16G or 512M."),
        ("mem: 1.5G", "site.yaml:1: mem: found '1.5G'; such as 16G or 512M."),
        ("mem: true", "site.yaml:1: mem: found true: input should be a valid string."),
        ("gpus_per_node: 'a100:'", "site.yaml:1: gpus_per_node: found 'a100:'; such as 1 or a100:2."),
        ("gpus_per_node: a100", "site.yaml:1: gpus_per_node: found 'a100'; such as 1 or a100:2."),
        ("gpus_per_node: 'a100:2,v100'", "site.yaml:1: gpus_per_node: found 'a100:2,v100'; such as 1 or a100:2."),
        ("cpus_per_task: 0", f"site.yaml:1: cpus_per_task: found 0: {AT_LEAST_1}"),
        ("cpus_per_task: 2.5", "site.yaml:1: cpus_per_task: found 2.5: input should be a valid integer."),
        ("cpus_per_task: '4'", "site.yaml:1: cpus_per_task: found '4': input should be a valid integer."),
        ("cpus_per_task: true", "site.yaml:1: cpus_per_task: found true: input should be a valid integer."),
        ("timeout_min: 0", f"site.yaml:1: timeout_min: found 0: {AT_LEAST_1}"),
        ("array_parallelism: 0", f"site.yaml:1: array_parallelism: found 0: {AT_LEAST_1}"),
        ("runs_per_job: 0", f"site.yaml:1: runs_per_job: found 0: {AT_LEAST_1}"),
        ("runs_per_gpu: 2000", "site.yaml:1: runs_per_gpu: found 2000: input should be less than or equal to 1000."),
        ("distributed: 1", "site.yaml:1: distributed: found 1: input should be a valid boolean."),
        ("max_timeouts: -1", "site.yaml:1: max_timeouts: found -1: input should be greater than or equal to 0."),
        ("signal_delay_s: 0", f"site.yaml:1: signal_delay_s: found 0: {AT_LEAST_1}"),
        ("setup: module load", "site.yaml:1: setup: found 'module load': input should be a valid list."),
        ("setup:\n- ls\n- 1", "site.yaml:3: setup[1]: found 1: input should be a valid string."),
        ('setup: ["a\\0b"]', "site.yaml:1: setup: a command cannot hold a null character."),
        ("time: 3", "site.yaml:1: time: unknown key 'time': write timeout_min."),
        ("job_name: x", "site.yaml:1: job_name: unknown key 'job_name': itopctl names its jobs."),
        (
            "\npartitoin: x",
            f"site.yaml:2: partitoin: unknown key 'partitoin'. Did you mean 'partition'? Allowed: {ALLOWED}. "
            "Any other sbatch parameter goes under additional_parameters.",
        ),
        ("additional_parameters: 3", f"site.yaml:1: {FURTHER}: found 3: input should be a valid dictionary."),
        (
            "additional_parameters:\n  nice: [1]",
            "site.yaml:2: additional_parameters.nice: found [1]: input should be a valid string.",
        ),
        (
            'additional_parameters: {comment: "a\\nb"}',
            f"site.yaml:1: {FURTHER}.comment: one line without backslashes expected.",
        ),
        (
            'additional_parameters: {comment: "a\\\\b"}',
            f"site.yaml:1: {FURTHER}.comment: one line without backslashes expected.",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_by_file_line_and_key(written: str, said: str) -> None:
    assert refusal(written) == said


@pytest.mark.parametrize("written", ["mem: -3", "gpus_per_node: -1", "timeout_min: 1:00:00"])
def test_what_slurm_would_not_understand_as_it_was_meant_is_refused(written: str) -> None:
    assert written.partition(":")[0] in refusal(written)


@pytest.mark.parametrize("name", ["a b", "-x", "a=b", "", "é"])
def test_a_further_parameter_has_a_name_that_sbatch_could_have(name: str) -> None:
    said = refusal(f"additional_parameters: {{{name!r}: 1}}")
    assert said.startswith("site.yaml:1: additional_parameters.")


@pytest.mark.parametrize(
    ("parameter", "hint"),
    [
        ("mem", "write mem itself"), ("gpus-per-node", "write gpus_per_node"), ("gpus_per_node", "write gpus_per_node"),
        ("time", "write timeout_min"), ("array", "see array_parallelism"), ("job-name", "itopctl names its jobs"),
        ("output", "itopctl keeps the logs of its jobs"), ("error", "itopctl keeps the logs of its jobs"),
        ("signal", "write signal_delay_s"), ("chdir", "jobs run in the snapshot of the code"),
        ("dependency", "use --after"), ("ntasks", "see distributed"), ("nodes", "a job has one node"),
        ("wait", "use --wait"), ("test_only", "use --dry-run"), ("requeue", "jobs are requeued anyway"),
        ("no-requeue", "jobs that are preempted must be able to go on"), ("wrap", "itopctl writes the script"),
    ],
)  # fmt: skip
def test_what_itopctl_sets_itself_cannot_be_set_by_the_back_door(parameter: str, hint: str) -> None:
    said = refusal(f"additional_parameters:\n  nice: 1\n  {parameter}: x")
    assert said.startswith(f"site.yaml:3: additional_parameters.{parameter}: cannot be given here: {hint}")


def test_a_spec_says_where_its_options_are_wrong() -> None:
    text = spec_text(slurm={"partition": "gpu", "mem": "lots"})
    line = text.splitlines().index("  mem: lots") + 1
    with pytest.raises(UserError) as caught:
        parse_sweep(read_text(text, "spec.yaml"))
    assert str(caught.value) == f"spec.yaml:{line}: slurm.mem: found 'lots'; such as 16G or 512M."


def test_a_spec_has_its_options() -> None:
    assert parse_sweep(read_text(spec_text(slurm={"mem": "1G"}), "s.yaml")).slurm == SlurmOptions(mem="1G")
    assert parse_sweep(read_text(spec_text(), "s.yaml")).slurm == SlurmOptions()


# Typed ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ([], {}),
        (["mem=32G"], {"mem": "32G"}),
        (["mem=32"], {"mem": "32"}),
        ([" mem = 3G "], {"mem": "3G"}),
        (["mem=1G", "mem=2G"], {"mem": "2G"}),
        (["partition=1e3", "account=007", "qos=no"], {"partition": "1e3", "account": "007", "qos": "no"}),
        (["constraint=a=b"], {"constraint": "a=b"}),
        (["cpus_per_task=4", "timeout_min=60"], {"cpus_per_task": 4, "timeout_min": 60}),
        (["gpus_per_node=2"], {"gpus_per_node": 2}),
        (["gpus_per_node=a100:2"], {"gpus_per_node": "a100:2"}),
        (["distributed=true"], {"distributed": True}),
        (["setup=module load cuda"], {"setup": ["module load cuda"]}),
        (["setup=[a, b]"], {"setup": ["a", "b"]}),
        (["additional_parameters.nice=10", "additional_parameters.exclusive=true"],
         {"additional_parameters": {"nice": 10, "exclusive": True}}),
        (["additional_parameters={nice: 3}", "additional_parameters.comment=x"],
         {"additional_parameters": {"nice": 3, "comment": "x"}}),
    ],
)  # fmt: skip
def test_options_can_be_typed(arguments: list[str], given: dict[str, Any]) -> None:
    assert typed(*arguments) == given


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("mem", "--slurm mem: KEY=VALUE expected."),
        ("partition={", "--slurm partition={:2: not valid YAML: while parsing a flow node did not find expected node "
         "content."),
        ("cpus_per_task=a", "--slurm: cpus_per_task: found 'a': input should be a valid integer."),
        ("additional_parameters.time=1", f"--slurm: {FURTHER}.time: cannot be given here: write timeout_min."),
        ("mem=lots", "--slurm: mem: found 'lots'; such as 16G or 512M."),
        ("nice=3", f"--slurm: nice: unknown key 'nice'. Allowed: {ALLOWED}. "
         "Any other sbatch parameter goes under additional_parameters."),
    ],
)  # fmt: skip
def test_what_is_typed_wrong_is_refused_by_name(argument: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_options([argument])
    assert str(caught.value) == said


@MODEST
@given(
    st.lists(st.text(st.characters(codec="utf-8"), max_size=12), max_size=3),
    st.sampled_from([*SlurmOptions.model_fields, "additional_parameters.nice"]),
)
def test_whatever_is_typed_is_taken_or_refused_as_the_users_mistake(texts: list[str], key: str) -> None:
    arguments = [*texts, *(f"{key}={text}" for text in texts)]
    for some in (arguments, arguments[len(texts) :], arguments[::-1]):
        try:
            parse_options(some)
        except UserError as error:
            assert str(error)


def test_a_further_parameter_after_one_that_is_no_mapping_is_the_users_mistake() -> None:
    with pytest.raises(UserError):
        parse_options(["additional_parameters=3", "additional_parameters.nice=1"])


# The site's profile -----------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home without any configuration."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("ITOPCTL_SLURM", raising=False)
    return tmp_path


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_without_a_profile_there_are_no_defaults(home: Path) -> None:
    if not Path("/etc/itopctl/slurm.yaml").exists():
        assert profile_path() is None
        assert read_profile() == SlurmOptions()


def test_a_profile_is_looked_for_where_configuration_lies_and_a_named_one_comes_first(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = written(home / ".config/itopctl/slurm.yaml", "mem: 1G")
    assert profile_path() == usual
    assert read_profile().mem == "1G"
    other = written(home / "elsewhere/itopctl/slurm.yaml", "mem: 2G")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "elsewhere"))
    assert profile_path() == other
    assert read_profile().mem == "2G"
    named = written(home / "named.yaml", "mem: 3G")
    monkeypatch.setenv("ITOPCTL_SLURM", str(named))
    assert profile_path() == named
    assert read_profile().mem == "3G"


def test_a_named_profile_that_is_not_there_is_the_users_mistake(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITOPCTL_SLURM", str(home / "nowhere.yaml"))
    with pytest.raises(UserError, match=r"nowhere\.yaml: no such file"):
        read_profile()


def test_what_is_wrong_in_a_profile_is_refused_by_file_and_line(home: Path) -> None:
    path = written(home / ".config/itopctl/slurm.yaml", "partition: gpu\nmem: lots\n")
    with pytest.raises(UserError) as caught:
        read_profile()
    assert str(caught.value) == f"{path}:2: mem: found 'lots'; such as 16G or 512M."


def test_what_is_typed_replaces_the_spec_and_the_spec_the_profile() -> None:
    profile = SlurmOptions(partition="site", mem="1G", account="lab", additional_parameters={"nice": 1, "comment": "a"})
    spec = SlurmOptions(partition="spec", mem="2G", additional_parameters={"nice": 2})
    given = SlurmOptions(partition="typed", additional_parameters={"exclusive": True})
    assert merged(profile, spec, given) == SlurmOptions(
        partition="typed", mem="2G", account="lab",
        additional_parameters={"nice": 2, "comment": "a", "exclusive": True},
    )  # fmt: skip


def test_setup_commands_of_a_later_layer_replace_the_earlier_ones() -> None:
    assert merged(SlurmOptions(setup=["a"]), SlurmOptions(setup=["b"])).setup == ["b"]
    assert merged(SlurmOptions(setup=["a"]), SlurmOptions(setup=[])).setup == []


def test_layers_of_nothing_are_nothing_and_one_layer_is_itself() -> None:
    one = SlurmOptions(mem="1G", additional_parameters={"nice": 1})
    assert merged() == merged(SlurmOptions(), SlurmOptions()) == SlurmOptions()
    assert merged(one) == merged(SlurmOptions(), one) == merged(one, SlurmOptions()) == one


# Together ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mem": "1G", FURTHER: {"mem_per_cpu": "1G"}}, f"mem and mem-per-cpu {KEEP_ONE}"),
        ({"mem": "1G", FURTHER: {"mem-per-gpu": 1}}, f"mem and mem-per-gpu {KEEP_ONE}"),
        ({FURTHER: {"mem-per-gpu": 1, "mem_per_cpu": 1}},
         f"mem-per-cpu and mem-per-gpu {KEEP_ONE}"),
        ({"gpus_per_node": 1, FURTHER: {"gres": "gpu:1"}}, f"gpus_per_node and gres {KEEP_ONE}"),
        ({"gpus_per_node": 1, FURTHER: {"gpus": 1}}, f"gpus_per_node and gpus {KEEP_ONE}"),
        ({"gpus_per_node": 1, FURTHER: {"gpus_per_task": 1}},
         f"gpus_per_node and gpus-per-task {KEEP_ONE}"),
        ({"cpus_per_task": 1, FURTHER: {"cpus-per-gpu": 1}},
         f"cpus_per_task and cpus-per-gpu {KEEP_ONE}"),
        ({"distributed": True}, "distributed trains a run on each of gpus_per_node; give gpus_per_node, too."),
        ({"distributed": True, "gpus_per_node": "a100:0"},
         "distributed trains a run on each of gpus_per_node; give gpus_per_node, too."),
        ({"distributed": True, "gpus_per_node": 2, "runs_per_gpu": 2, "runs_per_job": 4},
         "distributed and runs_per_gpu exclude each other; a run has its GPUs for itself."),
        ({"runs_per_gpu": 2}, "runs_per_gpu is 2, and a job has one run; give runs_per_job, too."),
    ],
)  # fmt: skip
def test_options_that_exclude_each_other_are_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        check_together(SlurmOptions(**options))
    assert str(caught.value) == f"slurm: {said}"


def test_a_run_that_would_be_told_to_end_before_it_begins_is_refused() -> None:
    check_together(SlurmOptions(timeout_min=5, signal_delay_s=299))
    with pytest.raises(UserError, match="signal_delay_s"):
        check_together(SlurmOptions(timeout_min=5, signal_delay_s=300))


@pytest.mark.parametrize(
    "options",
    [
        {}, {"mem": "1G", "gpus_per_node": 1, "cpus_per_task": 4}, {"additional_parameters": {"gres": "gpu:1"}},
        {"additional_parameters": {"mem-per-cpu": "1G"}}, {"distributed": True, "gpus_per_node": 2},
        {"runs_per_gpu": 2, "runs_per_job": 4}, {"runs_per_gpu": 1}, {"distributed": False, "runs_per_job": 3},
    ],
)  # fmt: skip
def test_options_that_go_together_are_taken(options: dict[str, Any]) -> None:
    check_together(SlurmOptions(**options))
