"""The commands with a team's store: `--store postgresql+psycopg://…`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from itopctl.cli import app
from itopctl.store.rundir import Results
from tests.cli.desk import BASE, Done
from tests.conftest import FinishedSweep
from tests.helpers import itopctl, started, write_spec
from tests.store.postgres import PASSWORD, Postgres, a_postgres

pytestmark = pytest.mark.usefixtures("postgres")


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    """An empty database, for a user with a password, which stands in the URL."""
    with postgres.database() as made:
        yield postgres.guarded_url(made)


@pytest.fixture
def results(finished_sweep: FinishedSweep, tmp_path: Path) -> Path:
    """The folder of a finished sweep, without its own store."""
    copied = tmp_path / "my results"
    shutil.copytree(finished_sweep.results, copied)
    Results(copied).database.unlink()
    return copied


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Any:
    """Carries out a command in this process."""

    def carry_out(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["itopctl", *map(str, arguments)])
        capsys.readouterr()
        try:
            code = app.run()
        except SystemExit as end:
            code = int(end.code or 0)
        seen = capsys.readouterr()
        return Done(code, seen.out, seen.err)

    return carry_out


def says_no_password(*texts: str) -> None:
    for text in texts:
        for form in (PASSWORD, quote(PASSWORD, safe=""), quote(PASSWORD), "sesame", "wr0ng"):
            assert form not in text


def test_a_sweep_and_what_people_ask_of_it_over_a_teams_store(tmp_path: Path, url: str) -> None:
    spec = write_spec(tmp_path, base=BASE, grid={"sparsity": [0.8, 0.9]})
    folder = tmp_path / "results"
    at = ("--results", folder, "--store", url)
    swept = itopctl("sweep", spec, *at)
    assert swept.returncode == 0, swept.stdout + swept.stderr
    assert "2 of 2 runs done" in swept.stdout
    assert not Results(folder).database.exists()
    again = itopctl("sweep", spec, *at)
    assert again.returncode == 0 and "2 done" in again.stdout

    (summary,) = json.loads(itopctl("status", "--json", *at).stdout)
    assert (summary["sweep"], summary["total"], summary["done"]) == ("trial", 2, 2)
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT state, count(*) FROM runs GROUP BY state").all() == [("done", 2)]
    engine.dispose()

    says_no_password(swept.stdout, swept.stderr, again.stdout, again.stderr)
    for path in folder.rglob("*"):
        if path.is_file():
            says_no_password(path.read_text(errors="replace"))


@pytest.mark.parametrize(
    "command",
    [
        ("status", "--json"), ("status", "--runs", "--json"), ("status", "--state", "done", "--json"),
        ("report", "trial", "--format", "json"), ("report", "--table", "runs", "--format", "csv"),
        ("report", "--format", "markdown"), ("list", "sweeps"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_teams_store_says_what_the_file_in_the_results_folder_says(
    here: Any, results: Path, url: str, command: tuple[str, ...]
) -> None:
    theirs = here(*command, "--results", results, "--store", url)
    assert not Results(results).database.exists()
    ours = here(*command, "--results", results)
    assert (theirs.code, theirs.err) == (0, "")
    assert theirs.out == ours.out


def test_a_run_is_shown_alike_from_both(here: Any, results: Path, url: str) -> None:
    (run, *_) = Results(results).run_ids()
    shown = [json.loads(here("show", run, "--json", "--results", results, *at).out) for at in [(), ("--store", url)]]
    assert shown[0] == shown[1]
    assert shown[0]["evaluations"] and shown[0]["layers"]


def test_a_teams_store_is_checked_made_anew_and_filled_with_what_others_send(
    here: Any, results: Path, url: str, tmp_path: Path
) -> None:
    def at(folder: Path) -> tuple[str | Path, ...]:
        return "--results", folder, "--store", url

    checked = here("store", "check", *at(results))
    assert (checked.code, checked.out) == (0, "14 run directories: no problem.\n")
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE runs SET test_accuracy = 2")
    assert here("store", "check", *at(results)).code == 1
    rebuilt = here("store", "rebuild", *at(results))
    assert rebuilt.code == 0 and "14 runs, 14 done" in rebuilt.out
    assert here("store", "check", *at(results)).code == 0

    archive, other = tmp_path / "runs.tar.gz", tmp_path / "other results"
    exported = here("store", "export", archive, "trial", *at(results))
    assert exported.code == 0, exported.err
    with engine.begin() as connection:
        for table in ("runs", "attempts", "evaluations", "layers", "sweeps", "sweep_runs"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
        engine.dispose()
    imported = here("store", "import", archive, *at(other))
    assert imported.code == 0, imported.err
    assert here("store", "check", *at(other)).code == 0
    assert here("report", "-f", "csv", *at(other)).out == here("report", "-f", "csv", "--results", results).out
    assert not Results(other).database.exists()
    says_no_password(*(text for done in (checked, rebuilt, exported, imported) for text in (done.out, done.err)))


COMMANDS = [
    ("sweep", "SPEC"), ("sweep", "SPEC", "--dry-run"), ("status",), ("report",), ("show", "RUN"), ("logs", "RUN"),
    ("retry", "trial"), ("cancel", "trial", "--yes"), ("list", "sweeps"), ("store", "check"), ("store", "rebuild"),
    ("store", "export", "runs.tar"), ("store", "import", "RESULTS"), ("--debug", "status"),
]  # fmt: skip


def filled_in(command: tuple[str, ...], results: Path, spec: Path) -> list[str | Path]:
    words: dict[str, str | Path] = {"SPEC": spec, "RUN": Results(results).run_ids()[0], "RESULTS": results}
    return [words.get(word, word) for word in command]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_wrong_password_is_a_clear_message_and_exit_code_3(
    here: Any, results: Path, finished_sweep: FinishedSweep, url: str, command: tuple[str, ...]
) -> None:
    wrong = url.replace(quote(PASSWORD, safe=""), "wr0ng")
    assert wrong != url
    done = here(*filled_in(command, results, finished_sweep.spec), "--results", results, "--store", wrong)
    assert done.code == 3
    assert "cannot be used" in done.err and 'password authentication failed for user "guarded"' in done.err
    assert ("Traceback" in done.err) == ("--debug" in command)
    says_no_password(done.out, done.err)


@pytest.mark.parametrize("command", COMMANDS[:-1], ids=" ".join)
def test_a_server_that_is_not_there_is_a_clear_message_and_exit_code_3(
    here: Any, results: Path, finished_sweep: FinishedSweep, command: tuple[str, ...]
) -> None:
    nowhere = "postgresql+psycopg://me:op3n-sesame@127.0.0.1:1/store"
    done = here(*filled_in(command, results, finished_sweep.spec), "--results", results, "--store", nowhere)
    assert done.code == 3
    assert "cannot be used" in done.err and "Connection refused" in done.err
    assert "Traceback" not in done.err and done.out == ""
    says_no_password(done.out, done.err)


def test_a_driver_that_is_not_installed_is_named_with_what_installs_it(results: Path, tmp_path: Path) -> None:
    (tmp_path / "psycopg.py").write_text("raise ModuleNotFoundError('no psycopg here', name='psycopg')")
    done = started(
        "status", "--results", results, "--store", "postgresql+psycopg://me:op3n-sesame@127.0.0.1:1/store",
        PYTHONPATH=f"{tmp_path}:{Path.cwd()}",
    )  # fmt: skip
    assert done.returncode == 3
    assert "driver is not installed" in done.stderr and "pip install" in done.stderr and "psycopg" in done.stderr
    says_no_password(done.stdout, done.stderr)


@pytest.mark.slow
def test_a_server_that_stops_during_a_sweep_costs_no_run(tmp_path: Path) -> None:
    """It is an index: the sweep goes on without it, says so, and what was missed is taken in once it is back."""
    spec = write_spec(tmp_path, base={**BASE, "epochs": 20}, grid={"seed": 6})
    folder = Results(tmp_path / "results")
    with a_postgres() as server, server.database() as url:
        command = ["sweep", spec, "--results", folder.path, "--store", url, "--workers", "1"]
        sweep = subprocess.Popen(
            [sys.executable, "-m", "itopctl", *map(str, command)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while not list(folder.runs.glob("*/result.json")):
            assert sweep.poll() is None, sweep.communicate()
            time.sleep(0.02)
        server.stop()
        out, err = sweep.communicate(timeout=200)
        assert sweep.returncode == 3, out + err
        assert "cannot be used" in err and "Traceback" not in err
        assert "The sweep goes on" in out
        assert len(list(folder.runs.glob("*/result.json"))) == 6
        server.start()
        status = itopctl("status", "--json", "--results", folder.path, "--store", url)
        assert [row["done"] for row in json.loads(status.stdout)] == [6]
