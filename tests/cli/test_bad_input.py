"""Whatever is wrong with a spec: exit code 2, one message that says where and what, nothing started or written."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from itopctl.cli.app import run
from tests.helpers import itopctl

BASE = "base: {dataset: digits, model: lenet-300-100, method: set-itop, sparsity: 0.9, epochs: 1}\n"
GOOD = "name: good\n" + BASE


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: int
    out: str
    message: str


Ask = Callable[..., Answer]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Runs `itopctl` with some arguments in an empty folder, in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("ITOPCTL_RESULTS", "ITOPCTL_DATA"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["itopctl", *arguments])
        try:
            code = run()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return call


def check(answer: Answer, *says: str) -> None:
    """Exit code 2 and one readable line on stderr that begins with the first of `says` and has all others."""
    assert answer.code == 2
    assert answer.out == ""
    assert answer.message.startswith(f"itopctl: {says[0]}"), answer.message
    assert answer.message.endswith("\n") and answer.message[:-1].isprintable(), answer.message
    assert [part for part in says[1:] if part not in answer.message] == [], answer.message
    assert "Traceback" not in answer.message
    assert len(answer.message) < 2000


BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGE_BOMB = "a: &a {k: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 20)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

# What is wrong: (the lines after GOOD's two, where, and what else the message holds).
WRONG: dict[str, tuple[str, ...]] = {
    # unknown keys and names
    "an unknown key": ("gird: {seed: [1]}", "spec.yaml:3: gird: ", "'gird'", "'grid'", "Allowed: name, "),
    "an unknown setting": ("grid: {epoch: [1]}", "spec.yaml:3: grid.epoch: ", "'epoch'", "'epochs'", "Allowed: "),
    "an unknown nested setting": (
        "include: [{base: {optimizer: {lrr: 1}}}]",
        "spec.yaml:3: include[0].base.optimizer.lrr: ", "'optimizer.lrr'", "Did you mean 'optimizer.lr'?",
    ),
    "an unknown slurm option": (
        "slurm:\n  partitoin: gpu", "spec.yaml:4: slurm.partitoin: ", "'partition'", "Allowed: ",
    ),
    "an unknown method": (
        "grid: {method: [set-itop, rigl_itop]}", "spec.yaml:3: grid.method[1]: ", "'rigl_itop'",
        "Did you mean 'rigl-itop'?", "Allowed: dense, static, ",
    ),
    "an unknown data set": (
        "grid: {dataset: [cifar-10]}", "spec.yaml:3: grid.dataset[0]: ", "'cifar-10'", "'cifar10'", "digits, mnist",
    ),
    "an unknown model": (
        "grid: {model: [resnet-34]}", "spec.yaml:3: grid.model[0]: ", "'resnet-34'", "'resnet34'", "lenet-5, ",
        "package.module:function",
    ),
    "an unknown growth rule": (
        "grid: {growth: [gradien]}", "spec.yaml:3: grid.growth[0]: ", "Did you mean 'gradient'?",
    ),
    "an unknown drop rule": ("grid: {drop: [magnitud]}", "spec.yaml:3: grid.drop[0]: ", "Did you mean 'magnitude'?"),
    "an unknown allocation": (
        "grid: {allocation: [erdk]}", "spec.yaml:3: grid.allocation[0]: ", "'erk'",
        "Allowed: uniform, uniform-plus, er, erk, package.module:function.",
    ),
    "an unknown optimizer": (
        "grid: {optimizer.name: [adm]}", "spec.yaml:3: grid.optimizer.name[0]: found 'adm'", "'sgd', 'adam' or 'adamw'",
        "Did you mean 'adam'?",
    ),
    "a module that is not there": (
        "grid: {model: ['no_such_module:make']}", "spec.yaml:3: grid.model[0]: ", "'no_such_module'",
    ),
    # wrong types and ranges
    "text for a number": ("grid: {epochs: [many]}", "spec.yaml:3: grid.epochs[0]: found 'many'", "integer expected"),
    "a truth value for a number": (
        "grid: {epochs: [true]}", "spec.yaml:3: grid.epochs[0]: found true", "integer expected",
    ),
    "a truth value for a fraction": (
        "grid: {drop_fraction: [false]}", "spec.yaml:3: grid.drop_fraction[0]: found false", "number expected",
    ),
    "a number for a truth value": ("grid: {compile: [1]}", "spec.yaml:3: grid.compile[0]: found 1", "boolean expected"),
    "a list for a number": ("grid: {epochs: [[1]]}", "spec.yaml:3: grid.epochs[0]: found [1]", "integer expected"),
    "a fraction for an integer": ("grid: {batch_size: [1.5]}", "spec.yaml:3: grid.batch_size[0]: found 1.5", "integer"),
    "null for a number": ("grid: {epochs: [null]}", "spec.yaml:3: grid.epochs[0]: found null", "integer expected"),
    "text for a part": ("grid: {optimizer: [sgd]}", "spec.yaml:3: grid.optimizer[0]: ", "'sgd'", "name, lr, "),
    "a list for a section": ("include: 5", "spec.yaml:3: include: ", "found 5", "base, grid, zip, exclude"),
    "a wrong slurm option": ("slurm: {timeout_min: soon}", "spec.yaml:3: slurm.timeout_min: found 'soon'", "integer"),
    "a sparsity of 1": ("grid: {sparsity: [0.5, 1]}", "spec.yaml:3: grid.sparsity[1]: found 1", "in [0, 1)"),
    "a sparsity in percent": ("grid: {sparsity: [90]}", "spec.yaml:3: grid.sparsity[0]: found 90", "in [0, 1)"),
    "a negative sparsity": ("grid: {sparsity: [-0.1]}", "spec.yaml:3: grid.sparsity[0]: found -0.1", "in [0, 1)"),
    "a sparsity that is nan": ("grid: {sparsity: [.nan]}", "spec.yaml:3: grid.sparsity[0]: found nan", "finite"),
    "an infinite rate": ("grid: {optimizer.lr: [.inf]}", "spec.yaml:3: grid.optimizer.lr[0]: found inf", "finite"),
    "an infinite number of epochs": ("grid: {epochs: [.inf]}", "spec.yaml:3: grid.epochs[0]: found inf", "expected"),
    "a negative seed": ("grid: {seed: [-1]}", "spec.yaml:3: grid.seed[0]: found -1", "greater than or equal to 0"),
    "a seed beyond 32 bits": ("grid: {seed: [4294967296]}", "spec.yaml:3: grid.seed[0]: found 4294967296", "less than"),
    "a million million seeds": (
        "grid: {seed: 1000000000000}", "spec.yaml:3: grid.seed: found 1000000000000", "100,000",
    ),
    "no seeds": ("grid: {seed: 0}", "spec.yaml:3: grid.seed: found 0", "from 1 to 100,000"),
    "an interval of no epochs": (
        "grid: {update_interval: [0 epochs]}", "spec.yaml:3: grid.update_interval[0]: found '0 epochs'", "'1 epoch'",
    ),
    "an interval of no steps": ("grid: {update_interval: [0]}", "spec.yaml:3: grid.update_interval[0]: found 0", "1"),
    "an interval in words": (
        "grid: {update_interval: [often]}", "spec.yaml:3: grid.update_interval[0]: found 'often'", "1500", "'1 epoch'",
    ),
    "milestones out of order": (
        "grid: {lr_schedule.milestones: [[0.75, 0.5]]}",
        "spec.yaml:3: grid.lr_schedule.milestones[0]: found [0.75, 0.5]", "rising",
    ),
    "milestones beyond the end": (
        "grid: {lr_schedule.milestones: [[100]]}", "spec.yaml:3: grid.lr_schedule.milestones[0]: found [100]", "rising",
    ),
    "nesterov without momentum": (
        "include: [{base: {optimizer: {nesterov: true, momentum: 0}}}]",
        "spec.yaml:3: include[0].base.optimizer.nesterov: ", "momentum",
    ),
    "sparsity and density": ("grid: {density: [0.1]}", "spec.yaml:3: grid.density[0]: sparsity and density both given"),
    "no milestones in zero epochs": (
        "include: [{base: {epochs: 0, lr_schedule: {milestones: [5]}}}]", "spec.yaml:3: include[0].base.", "found ",
    ),
    "a validation set without end": (
        "include: [{base: {update_interval: 1 epoch, validation: .inf}}]",
        "spec.yaml:3: include[0].base.validation: found inf", "finite",
    ),
    "a number of thousands of digits": ("grid: {seed: [0x" + "f" * 5000 + "]}", "spec.yaml:3: "),
    "a list as long as a book": (
        "grid: {epochs: [[" + "1, " * 10_000 + "]]}", "spec.yaml:3: grid.epochs[0]: found [1, 1",
    ),
    # grids and what they expand to
    "an empty grid": ("grid: {}", "spec.yaml:3: grid: ", "found {}", "lists of values"),
    "a grid that says nothing": ("grid:", "spec.yaml:3: grid: ", "found null", "lists of values"),
    "an empty axis": ("grid: {seed: []}", "spec.yaml:3: grid.seed: ", "empty list"),
    "a value that is not in a list": ("grid: {sparsity: 0.5}", "spec.yaml:3: grid.sparsity: ", "found 0.5", "[0.5]"),
    "zip lists of unequal length": (
        "zip:\n  batch_size: [64, 128]\n  optimizer.lr: [0.1, 0.2, 0.3]",
        "spec.yaml:3: zip: ", "one length", "batch_size: 2", "optimizer.lr: 3",
    ),
    "a setting on two axes": ("grid: {epochs: [1]}\nzip: {epochs: [2]}", "spec.yaml:4: zip.epochs[0]: ", "two axes"),
    "a setting dotted and nested": (
        "include: [{base: {optimizer: {lr: 1}, optimizer.lr: 2}}]", "spec.yaml:3: include[0].base.optimizer.lr: ",
        "twice",
    ),
    "nothing left to run": ("exclude: [{method: set-itop}]", "spec.yaml:1: ", "no run at all", "1 point", "exclude"),
    "more runs than the limit": ("grid: {seed: 10001}", "spec.yaml:1: ", "10,001", "10,000", "--max-runs 10001"),
    # the same key twice
    "the same key twice": ("grid: {seed: [1]}\ngrid: {seed: [2]}", "spec.yaml:4: grid: the same key twice", "line 3"),
    "the same setting twice": (
        "grid:\n  seed: [1]\n  seed: [2]", "spec.yaml:5: grid.seed: the same key twice", "line 4",
    ),
    # YAML
    "YAML that does not parse": ("grid: {seed: [1}", "spec.yaml:3: not valid YAML: "),
    "a tab": ("grid:\n\tseed: 1", "spec.yaml:4: not valid YAML: "),
    "an alias of nothing": ("grid: *nowhere", "spec.yaml:3: not valid YAML: ", "undefined alias"),
    "two documents": ("---\nname: b", "spec.yaml:3: not valid YAML: ", "single document"),
    "an alias bomb": (BOMB, "spec.yaml:", "aliases unfold to more than 200,000 values"),
    "an alias bomb of merge keys": (MERGE_BOMB, "spec.yaml:", "aliases unfold to more than 200,000 values"),
    "an alias that refers to itself": ("grid: &g\n  seed: *g", "spec.yaml:", "refer to themselves"),
    "deep nesting": ("grid: " + "[" * 10_000 + "]" * 10_000, "spec.yaml:3: nested deeper than 20"),
    "a python tag on a word": ("grid: !!python/name:os.system", "spec.yaml:3: ", "tag", "not allowed"),
    "a python tag on a list": (
        "grid: {seed: [!!python/object/apply:os.mkdir [made]]}", "spec.yaml:3: ", "tag", "not allowed",
    ),
    "a tag that its value does not fit": ("grid: {compile: [!!bool maybe]}", "spec.yaml:3: ", "maybe"),
    "a key that is not text": ("1: x", "spec.yaml:3: the key 1 is not text."),
    "a control character": ("description: \x07", "spec.yaml:3: not valid YAML: "),
    "a key with a line break and a colour": (
        '"gr\\nid\\e[31m": {}', "spec.yaml:3: ", "unknown key", "'gr\\nid\\x1b[31m'",
    ),
    # what is missing
    "a block without sparsity": (
        "include: [{base: {sparsity: null}}]", "spec.yaml:3: include[0].base.sparsity: found null", "in [0, 1)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_spec_is_refused_with_one_message_and_nothing_is_written(wrong: str, ask: Ask, tmp_path: Path) -> None:
    text, *says = WRONG[wrong]
    (tmp_path / "spec.yaml").write_text(f"{GOOD}{text}\n")
    start = time.perf_counter()
    check(ask("sweep", "spec.yaml"), *says)
    assert time.perf_counter() - start < 10
    assert [path.name for path in tmp_path.iterdir()] == ["spec.yaml"]


WHOLE: dict[str, tuple[str | bytes, ...]] = {
    "an empty file": (b"", "spec.yaml: a spec is a mapping", "found nothing"),
    "a word": (b"hello\n", "spec.yaml:1: a spec is a mapping", "found a text"),
    "a list": (b"- name: a\n", "spec.yaml:1: a spec is a mapping", "found a list"),
    "no name": (BASE.encode(), "spec.yaml:1: a sweep needs a name", "found null"),
    "a name with a slash": (b"name: ../a\n", "spec.yaml:1: name: a sweep needs a name", "'../a'"),
    "no method": (b"name: a\nbase: {dataset: digits, model: lenet-5}\n", "spec.yaml:1: a run needs method"),
    "nothing but a name": (b"name: a\n", "spec.yaml:1: a run needs dataset"),
    "no sparsity": (
        b"name: a\nbase: {dataset: digits, model: lenet-5, epochs: 1, method: set}\n",
        "spec.yaml:2: base.method: set needs a sparsity (or density)",
    ),
    "Latin-1": ("name: a\ndescription: größer\n".encode("latin-1"), "spec.yaml:2: not UTF-8", "0xf6", "save the file"),
    "UTF-16": (GOOD.encode("utf-16"), "spec.yaml:1: not UTF-8", "0xff"),
    "a picture": (b"\x89PNG\r\n\x1a\n\x00\x00", "spec.yaml:1: not UTF-8", "0x89"),
    "zeros": (b"\x00" * 100, "spec.yaml:1: not valid YAML: "),
    "more than a megabyte": (GOOD.encode() + b"#" * 1_000_000, "spec.yaml: 1,000,10", "at most 1,000,000"),
    "more values than any spec has": (b"name: [" + b"1," * 210_000 + b"]", "spec.yaml:1: more than 200,000 values"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WHOLE)
def test_a_file_that_is_no_spec_is_refused_with_one_message_and_nothing_is_written(
    wrong: str,
    ask: Ask,
    tmp_path: Path,
) -> None:
    raw, *says = WHOLE[wrong]
    assert isinstance(raw, bytes)
    (tmp_path / "spec.yaml").write_bytes(raw)
    check(ask("sweep", "spec.yaml"), *map(str, says))
    assert [path.name for path in tmp_path.iterdir()] == ["spec.yaml"]


def test_a_path_that_does_not_exist_is_refused_with_the_nearest_one(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "digits.yaml").write_text(GOOD)
    check(ask("sweep", "digit.yaml"), "digit.yaml: no such file.", "Did you mean digits.yaml?")
    check(ask("sweep", "nowhere/at/all.yaml"), "nowhere/at/all.yaml: no such file.")
    assert [path.name for path in tmp_path.iterdir()] == ["digits.yaml"]


def test_a_folder_is_refused(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "specs").mkdir()
    check(ask("sweep", "specs"), "specs is a folder; a spec is a YAML file.")
    check(ask("sweep", "."), ". is a folder")
    assert [path.name for path in tmp_path.iterdir()] == ["specs"]


def test_a_file_of_a_terabyte_is_refused_unread(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "huge.yaml").write_bytes(b"")
    os.truncate(tmp_path / "huge.yaml", 1 << 40)
    check(ask("sweep", "huge.yaml"), "huge.yaml: 1,099,511,627,776 bytes", "at most 1,000,000")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("epochs", ("--set epochs: ", "key=value expected")),
        ("=1", ("--set =1: ", "key=value expected")),
        ("epoch=1", ("--set epoch=1: epoch: ", "Did you mean 'epochs'?", "Allowed: ")),
        ("epochs=many", ("--set epochs=many: epochs: found 'many'", "integer expected")),
        ("epochs=true", ("--set epochs=true: epochs: found true", "integer expected")),
        ("sparsity=1", ("--set sparsity=1: sparsity: found 1", "in [0, 1)")),
        ("sparsity=.nan", ("--set sparsity=.nan: sparsity: found nan", "finite")),
        ("seed=-1", ("--set seed=-1: seed: found -1", "greater than or equal to 0")),
        ("method=rigl_itop", ("--set method=rigl_itop: method: ", "Did you mean 'rigl-itop'?")),
        (
            "update_interval=0 epochs",
            ("--set update_interval=0 epochs: update_interval: found '0 epochs'", "'1 epoch'"),
        ),
        ("epochs=[1", ("--set epochs=[1:", "not valid YAML")),
        ("epochs=!!python/name:os.system", ("--set epochs=!!python/name:os.system", "tag", "not allowed")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_override_is_refused(override: str, says: tuple[str, ...], ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(GOOD)
    check(ask("sweep", "spec.yaml", "--set", override), *says)
    assert [path.name for path in tmp_path.iterdir()] == ["spec.yaml"]


def test_one_wrong_spec_among_good_ones_starts_nothing(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "wrong.yaml").write_text("name: wrong\ngird: {}\n")
    check(ask("sweep", "good.yaml", "wrong.yaml"), "wrong.yaml:2: gird: ", "'grid'")
    assert {path.name for path in tmp_path.iterdir()} == {"good.yaml", "wrong.yaml"}


def test_two_specs_of_one_name_are_refused(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "b.yaml").write_text(GOOD)
    check(ask("sweep", "a.yaml", "b.yaml"), "b.yaml:1: name: 'good' is the name of a.yaml, too")
    assert {path.name for path in tmp_path.iterdir()} == {"a.yaml", "b.yaml"}


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (("--cluster", "locl"), ("--cluster: unknown cluster 'locl'. Did you mean 'local'?", "Allowed: ")),
        (("--format", "markdwn"), ("--format: unknown format 'markdwn'. Did you mean 'markdown'?", "Allowed: ")),
        (("--max-runs", "1"), ("spec.yaml:1: expands to 2 runs, more than the limit of 1", "--max-runs 2")),
    ],
)
def test_a_wrong_option_is_refused(option: tuple[str, str], says: tuple[str, ...], ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(GOOD + "grid: {seed: 2}\n")
    check(ask("sweep", "spec.yaml", *option), *says)
    assert [path.name for path in tmp_path.iterdir()] == ["spec.yaml"]


def test_a_raised_limit_lets_a_larger_spec_through_and_a_dry_run_writes_nothing(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(GOOD + "grid: {seed: 12}\n")
    planned = ask("sweep", "spec.yaml", "--dry-run", "--max-runs", "12")
    assert (planned.code, planned.message) == (0, "")
    assert "12 new" in planned.out
    assert [path.name for path in tmp_path.iterdir()] == ["spec.yaml"]


def test_a_dry_run_says_that_dense_runs_collapsed(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(
        GOOD + "grid: {method: [dense, set-itop], update_interval: [5, 10]}\n"
    )  # fmt: skip
    planned = ask("sweep", "spec.yaml", "--dry-run")
    assert "3 new" in planned.out and "1 duplicate" in planned.out
    assert "mean nothing for dense" in planned.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("spec.yaml",), ("spec.yaml:3: gird: unknown key 'gird'. Did you mean 'grid'?",)),
        (("spec.yml",), ("spec.yml: no such file. Did you mean spec.yaml?",)),
        (("spec.yaml", "--set", "epochs"), ("--set epochs: key=value expected",)),
    ],
)
def test_the_process_itself_ends_with_2_and_one_line(
    arguments: tuple[str, ...], says: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "spec.yaml").write_text(GOOD + "gird: {}\n")
    done = itopctl("sweep", *arguments, cwd=tmp_path)
    check(Answer(done.returncode, done.stdout, done.stderr), *says)
    assert [path.name for path in tmp_path.iterdir()] == ["spec.yaml"]


def test_a_process_with_a_plain_ascii_terminal_still_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(GOOD + "größe: 1\n", encoding="utf-8")
    done = itopctl("sweep", "spec.yaml", cwd=tmp_path, PYTHONIOENCODING="ascii:backslashreplace", LC_ALL="C")
    check(Answer(done.returncode, done.stdout, done.stderr), "spec.yaml:3: gr", "unknown key")


def test_the_traceback_is_there_for_who_asks(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(GOOD + "gird: {}\n")
    done = itopctl("--debug", "sweep", "spec.yaml", cwd=tmp_path)
    assert done.returncode != 0 and "Traceback" in done.stderr
