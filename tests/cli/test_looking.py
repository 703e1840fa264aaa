"""`status`, `show`, `logs`, `report`, `list`, `data`, `schema`: what people see of a finished sweep."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from itopctl import __version__
from tests.conftest import FinishedSweep
from tests.helpers import itopctl

PROMISED = [
    "run_id",
    "sweep",
    "state",
    "cause",
    "dataset",
    "model",
    "method",
    "growth",
    "drop",
    "allocation",
    "sparsity",
    "density",
    "update_interval",
    "drop_fraction",
    "seed",
    "epochs",
    "test_accuracy",
    "test_accuracy_at_best_validation",
    "validation_accuracy",
    "exploration_rate",
    "exploration_rate_at_best_validation",
    "train_flops_ratio",
    "inference_flops_ratio",
    "steps",
    "wall_seconds",
]


def runs_of(finished_sweep: FinishedSweep) -> list[dict]:
    return json.loads(itopctl("report", "-t", "runs", "--format", "json", "--results", finished_sweep.results).stdout)


def test_the_runs_table_has_every_promised_field_filled(finished_sweep: FinishedSweep) -> None:
    runs = runs_of(finished_sweep)
    assert len(runs) == 14
    for run in runs:
        assert set(PROMISED) <= set(run)
        assert run["state"] == "done"
        assert run["density"] == pytest.approx(1 - run["sparsity"])
        assert run["density"] - 1e-4 <= run["exploration_rate"] <= 1.0
        assert 0 < run["train_flops_ratio"] <= 1.0
        assert (run["growth"] is None) == (run["method"] in ("dense", "static"))
        assert run["steps"] == 44
    explored = {(r["method"], r["sparsity"]): r["exploration_rate"] for r in runs}
    assert explored["dense", 0.0] == 1.0
    assert explored["static", 0.9] == pytest.approx(0.1, abs=1e-4)
    assert explored["set-itop", 0.9] > 0.2


def test_the_paper_table_has_dense_on_top_and_n_seeds_in_each_cell(finished_sweep: FinishedSweep) -> None:
    shown = itopctl("report", "trial", "--results", finished_sweep.results)
    assert shown.returncode == 0
    rows = [line for line in shown.stdout.splitlines() if line.startswith("│")]
    assert [row.split()[1] for row in rows[::2]] == ["dense", "static", "set-itop", "rigl-itop"]
    assert shown.stdout.count(", n 2 ") == 7
    cells = json.loads(itopctl("report", "--json", "--results", finished_sweep.results).stdout)
    runs = runs_of(finished_sweep)
    for cell in cells:
        members = [
            r["test_accuracy"] for r in runs if (r["method"], r["sparsity"]) == (cell["method"], cell["sparsity"])
        ]
        assert cell["seeds"] == cell["seeds_finished"] == len(members) == 2
        assert cell["test_accuracy_mean"] == pytest.approx(sum(members) / 2)
        assert cell["test_accuracy_std"] == pytest.approx(abs(members[0] - members[1]) / 2**0.5)


@pytest.mark.parametrize(
    ("ending", "start"),
    [(".md", "**lenet"), (".tex", "% needs"), (".csv", "dataset,"), (".json", "["), (".html", "<!DOCTYPE")],
)
def test_a_report_is_written_in_the_format_of_its_ending(
    finished_sweep: FinishedSweep, tmp_path: Path, ending: str, start: str
) -> None:
    path = tmp_path / f"table{ending}"
    done = itopctl("report", "--results", finished_sweep.results, "-o", path)
    assert done.returncode == 0
    assert path.read_text().startswith(start)


def test_csv_has_one_line_a_run(finished_sweep: FinishedSweep) -> None:
    text = itopctl("report", "-t", "runs", "-f", "csv", "--results", finished_sweep.results).stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 14
    assert set(PROMISED) <= set(rows[0])


def test_status_counts_and_lists(finished_sweep: FinishedSweep) -> None:
    (row,) = json.loads(itopctl("status", "trial", "--json", "--results", finished_sweep.results).stdout)
    assert row == {
        "sweep": "trial", "total": 14, "done": 14, "running": 0, "pending": 0, "queued": 0, "failed": 0, "lost": 0,
        "seconds_left": None,
    }  # fmt: skip
    listed = itopctl("status", "--runs", "--results", finished_sweep.results).stdout
    assert listed.count("done") == 14
    nothing = itopctl("status", "--state", "failed", "--json", "--results", finished_sweep.results).stdout
    assert json.loads(nothing) == []
    assert itopctl("status", "--state", "failed", "--results", finished_sweep.results).stdout == (
        "No run is in such a state.\n"
    )


def test_show_tells_config_attempts_metrics_history_and_layers(finished_sweep: FinishedSweep) -> None:
    run = next(r for r in runs_of(finished_sweep) if r["method"] == "rigl-itop")
    shown = itopctl("show", run["run_id"][:6], "--results", finished_sweep.results)
    assert shown.returncode == 0
    for part in ("Config", "Attempts", "Metrics", "History", "Layers", "1.weight", "optimizer.lr", run["run_id"]):
        assert part in shown.stdout
    details = json.loads(itopctl("show", run["run_id"], "--json", "--results", finished_sweep.results).stdout)
    assert details["sweeps"] == ["trial"]
    assert [layer["name"] for layer in details["layers"]] == ["1.weight", "3.weight", "5.weight"]
    assert len([e for e in details["evaluations"] if e["kind"] == "epoch"]) == 4
    assert details["attempt_history"][0]["cause"] == "finished"


def test_logs_prints_what_happened(finished_sweep: FinishedSweep) -> None:
    run = runs_of(finished_sweep)[0]
    printed = itopctl("logs", run["run_id"], "--results", finished_sweep.results)
    assert re.search(r"epoch 4  step 44  loss [\d.]+  validation [\d.]+ %  test [\d.]+ %  R_s [\d.]+", printed.stdout)
    followed = itopctl("logs", "-f", run["run_id"], "--results", finished_sweep.results)
    assert followed.stdout == printed.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("status", "tiral"), "Did you mean 'trial'?"),
        (("report", "nothing"), "unknown sweep 'nothing'"),
        (("status", "--state", "runing"), "Did you mean 'running'?"),
        (("report", "--table", "papers"), "Did you mean 'paper'?"),
        (("report", "--format", "html5"), "Allowed: rich, markdown"),
        (
            ("report", "-o", "table.docx"),
            "unknown ending '.docx'. Allowed: .md, .txt, .tex, .csv, .json, .html. Or name",
        ),
        (("retry", "--slurm", "mem=1G"), "--slurm means nothing with --cluster local.\n"),
        (("show", "zzz"), "there is no run 'zzz'"),
        (("logs", "zzz"), "there is no run 'zzz'"),
        (("list", "method"), "Did you mean 'methods'?"),
        (("status", "--watch", "--json"), "--watch"),
    ],
)
def test_a_wrong_word_is_exit_2_with_the_right_one(
    finished_sweep: FinishedSweep, arguments: tuple[str, ...], words: str
) -> None:
    wrong = itopctl(*arguments, "--results", finished_sweep.results)
    assert wrong.returncode == 2
    assert words in wrong.stderr
    assert wrong.stdout == ""
    assert len(wrong.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("ending", "starts"), [(".tex", "\\begin"), (".CSV", "run_id,"), (".json", "["), ("", "| "), ("-0.95", "| ")]
)
def test_the_ending_of_a_file_says_what_is_written(
    finished_sweep: FinishedSweep, tmp_path: Path, ending: str, starts: str
) -> None:
    path = tmp_path / f"table{ending}"
    done = itopctl("report", "-t", "runs", "-o", path, "--results", finished_sweep.results)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert any(line.startswith(starts) for line in path.read_text().splitlines())
    nowhere = itopctl("report", "-o", tmp_path / "no" / f"table{ending}", "--results", finished_sweep.results)
    assert nowhere.returncode == 3 and "there is no folder" in nowhere.stderr


@pytest.mark.parametrize("width", ["70", "100", "130"])
def test_help_is_broken_where_the_terminal_ends_and_not_where_the_source_does(width: str) -> None:
    lines = [line.strip() for line in itopctl("plan", "--help", COLUMNS=width).stdout.splitlines()]
    text = lines[lines.index(next(line for line in lines if line.startswith("Steps, topology"))) :]
    paragraph = text[: text.index("")]
    assert " ".join(paragraph).endswith("and ends with 2.")
    assert all(len(f"{line} {after.split()[0]}") > int(width) - 2 for line, after in itertools.pairwise(paragraph))


@pytest.mark.parametrize("command", [("status",), ("report",), ("show", "abc"), ("logs", "abc"), ("list", "sweeps")])
def test_without_results_a_command_says_how_to_begin(tmp_path: Path, command: tuple[str, ...]) -> None:
    empty = itopctl(*command, cwd=tmp_path)
    assert empty.returncode == 3
    assert "itopctl sweep SPEC.yaml" in empty.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("methods", "rigl-itop"), ("models", "resnet34"), ("datasets", "fashion_mnist"), ("growth", "gradient"),
        ("drop", "magnitude"), ("allocations", "erk"),
    ],
)  # fmt: skip
def test_every_name_is_listed_with_what_it_is_and_its_source(kind: str, name: str) -> None:
    entries = {entry["name"]: entry for entry in json.loads(itopctl("list", kind, "--json").stdout)}
    assert name in entries
    for entry in entries.values():
        assert entry["summary"]
        assert entry["source"]


def test_recorded_sweeps_are_listed(finished_sweep: FinishedSweep) -> None:
    assert "trial" in itopctl("list", "sweeps", "--results", finished_sweep.results).stdout


def test_data_list_says_what_is_there(tmp_path: Path) -> None:
    entries = {e["name"]: e for e in json.loads(itopctl("data", "list", "--json", "--data-dir", tmp_path).stdout)}
    assert entries["digits"]["found"] == "built in"
    assert entries["cifar100"]["found"] is None
    assert entries["cifar100"]["classes"] == 100


def test_data_check_reads_a_built_in_set_and_misses_a_missing_one(tmp_path: Path) -> None:
    assert "1,437 + 360 images of 1×8×8" in itopctl("data", "check", "digits").stdout
    missing = itopctl("data", "check", "cifar10", "--data-dir", tmp_path)
    assert missing.returncode == 3
    assert "itopctl data fetch cifar10" in missing.stderr


def test_a_damaged_data_set_is_exit_3(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name in ("train", "test"):
        (folder / name).write_bytes(b"not a pickle")
    damaged = itopctl("data", "check", "cifar100", "--data-dir", tmp_path)
    assert damaged.returncode == 3
    assert "is damaged" in damaged.stderr


def test_version_and_module_run() -> None:
    assert itopctl("--version").stdout.strip() == f"itopctl {__version__}"


def test_no_arguments_show_the_help() -> None:
    assert "Commands" in itopctl().stdout


LIGHT = """
import sys
sys.argv = ["itopctl", *{arguments!r}]
from itopctl.cli.app import run
try:
    run()
except SystemExit:
    pass
heavy = [name for name in {forbidden!r} if name in sys.modules]
assert not heavy, heavy
"""


@pytest.mark.parametrize(
    ("arguments", "forbidden"),
    [
        (["--help"], ["torch", "sqlalchemy", "matplotlib", "numpy", "pydantic", "yaml"]),
        (["sweep", "--help"], ["torch", "sqlalchemy", "matplotlib", "numpy"]),
        (
            ["sweep", "sweeps/cifar100.yaml", "--dry-run", "--results", "/no-such-place"],
            ["torch", "sqlalchemy", "numpy"],
        ),
        (["list", "methods"], ["torch", "sqlalchemy", "numpy"]),
        (["schema"], ["torch", "sqlalchemy", "numpy"]),
    ],
)
def test_light_commands_import_nothing_heavy(arguments: list[str], forbidden: list[str]) -> None:
    code = LIGHT.format(arguments=arguments, forbidden=forbidden)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "index", "expected"),
    [
        ("itopctl re", 1, ["retry", "report"]),
        ("itopctl list meth", 2, ["methods"]),
        ("itopctl report --format mark", 3, ["markdown"]),
        ("itopctl data check cifar", 3, ["cifar10", "cifar100"]),
    ],
)
def test_the_shell_completes_commands_and_names(words: str, index: int, expected: list[str]) -> None:
    done = itopctl(_ITOPCTL_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(index))
    assert done.stdout.split() == expected


def test_the_shell_completes_sweeps_and_runs(finished_sweep: FinishedSweep) -> None:
    environment = {"_ITOPCTL_COMPLETE": "complete_bash", "ITOPCTL_RESULTS": str(finished_sweep.results)}
    sweeps = itopctl(**environment, COMP_WORDS="itopctl report tr", COMP_CWORD="2")
    assert sweeps.stdout.split() == ["trial"]
    run_id = runs_of(finished_sweep)[0]["run_id"]
    runs = itopctl(**environment, COMP_WORDS=f"itopctl show {run_id[:5]}", COMP_CWORD="2")
    assert runs.stdout.split() == [run_id]


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    assert "Traceback" in itopctl("--debug", "status", cwd=tmp_path).stderr
