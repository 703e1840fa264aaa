"""The page that is made from a real sweep."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from itopctl import __version__
from itopctl.api.page import html_page
from itopctl.api.project import Project
from itopctl.api.sources import Origin
from itopctl.cli.common import print_page
from itopctl.config.run_config import defining_settings
from itopctl.errors import EnvironmentUnfitError
from itopctl.store import tables
from itopctl.store.database import Store
from itopctl.store.ingest import ingest
from itopctl.store.queries import RUN_COLUMNS, select_runs
from itopctl.store.rundir import Results
from tests.browser.chromium import Browser
from tests.browser.conftest import browser as browser  # a fixture
from tests.browser.conftest import downloads as downloads
from tests.browser.test_page import sticking_out
from tests.conftest import FinishedSweep
from tests.report.test_page import Document

Record = dict[str, Any]


@pytest.fixture
def source(finished_sweep: FinishedSweep) -> Iterator[Origin]:
    project = Project(finished_sweep.results)
    with project.opened() as store:
        yield Origin("here", store, project.folder)


def runs_of(source: Origin) -> list[Record]:
    runs = select_runs(source.store, columns=(*RUN_COLUMNS, "config"))
    for run in runs:
        run["settings"] = defining_settings(run.pop("config"))
    return runs


@pytest.fixture(scope="module")
def page_text(finished_sweep: FinishedSweep) -> str:
    project = Project(finished_sweep.results)
    with project.opened() as store:
        whole = Origin("here", store, project.folder)
        return html_page(runs_of(whole), [whole], ["trial"])


def test_the_page_has_tables_figures_verdicts_runs_and_how_to_reproduce_them(page_text: str, source: Origin) -> None:
    document = Document(page_text)
    assert document.faults == []
    headings = re.findall(r"<h2>(.*?)</h2>", page_text)
    assert headings == ["Results", "Verdicts", "Figures", "Exploration", "Cost", "Runs", "How to reproduce"]
    assert page_text.count("<figure ") == 6 and page_text.count('class="data"') == 6
    runs = runs_of(source)
    assert {f"run-{run['run_id']}" for run in runs} <= set(document.ids())
    assert f"{len(runs)} runs: {len(runs)} done" in document.text
    assert "the claims" in document.text


def test_the_page_says_with_what_and_from_which_spec_the_runs_were_made(
    page_text: str, finished_sweep: FinishedSweep, source: Origin
) -> None:
    text = Document(page_text).text
    assert finished_sweep.spec.read_text() in text
    assert f"itopctl sweep '{finished_sweep.spec}'" in text  # there is a space in its path
    assert source.results is not None
    said = json.loads(source.results.run(runs_of(source)[0]["run_id"]).environment.read_text())
    for word in (said["python"], said["packages"]["torch"], said["platform"], said["device_name"], said["code"]):
        assert word in text
    assert f"itopctl {__version__}" in text
    assert "digits (UCI optical digits, in scikit-learn)" in text
    if said["git_commit"]:
        assert f"git checkout {said['git_commit']}" in text


def test_where_runs_were_made_with_different_things_the_page_says_so(finished_sweep: FinishedSweep) -> None:
    folder, store = Results(finished_sweep.results), Store("sqlite://")  # of its own: it is changed here
    ingest(store, folder)
    source = Origin("here", store, folder)
    runs = runs_of(source)
    with store.write() as connection:
        connection.execute(
            sa.update(tables.attempts)
            .where(tables.attempts.c.run_id == runs[0]["run_id"])
            .values(git_commit="f00", git_dirty=True, host="<other>")
        )
    text = Document(html_page(runs, [source], [])).text
    store.close()
    assert "f00, and changes that were not committed 1 run" in text
    assert "git checkout" not in text
    assert "<other>" in text and "All runs" in text


def test_without_the_files_of_the_runs_the_page_says_what_the_store_knows(source: Origin) -> None:
    text = Document(html_page(runs_of(source), [Origin("there", source.store, None)], ["trial"])).text
    assert "digest of the code" in text and "threads" in text
    assert "torchvision" not in text.partition("What the runs were made with")[2]


def test_with_several_stores_figures_that_need_histories_are_left_out_and_the_page_says_so(source: Origin) -> None:
    text = html_page(
        runs_of(source), [source, Origin("there", source.store, None)], [], remarks=["1 run found in two places."]
    )
    assert text.count("<figure ") == 3
    assert "The figure learning is left out: the histories of its runs are in several stores." in text
    assert "1 run found in two places." in text


def test_runs_that_have_not_begun_make_a_page_that_says_what_is_missing(source: Origin) -> None:
    empty = dict.fromkeys(RUN_COLUMNS)
    kept = ("run_id", "sweep", "dataset", "model", "method", "sparsity", "density", "seed", "settings")
    waiting = [
        {**empty, "state": "queued", "attempts": 0, **{name: run[name] for name in kept}, "run_id": f"{n:012x}"}
        for n, run in enumerate(runs_of(source))
    ]
    text = Document(html_page(waiting, [source], [])).text
    assert "The figure sparsity is left out: there is nothing to draw" in text
    assert "queued" in text and "What the runs were made with" not in text


def test_no_runs_make_no_page(source: Origin) -> None:
    with pytest.raises(EnvironmentUnfitError, match="no runs to report on"):
        html_page([], [source], [])


def test_a_page_is_printed_or_written_and_where_it_cannot_be_that_is_said(tmp_path: Path, capfdbinary: Any) -> None:
    print_page("<p>Δ</p>\n", None)
    assert capfdbinary.readouterr().out == "<p>Δ</p>\n".encode()
    print_page("<p>Δ</p>\n", tmp_path / "a.html")
    assert (tmp_path / "a.html").read_bytes() == "<p>Δ</p>\n".encode()
    assert b"open it in a browser" in capfdbinary.readouterr().err
    with pytest.raises(EnvironmentUnfitError, match="cannot be written"):
        print_page("", tmp_path / "none" / "a.html")


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_of_a_real_sweep_fits_a_desk_and_a_phone(
    page_text: str, browser: Browser, tmp_path: Path, width: int
) -> None:
    path = tmp_path / "page.html"
    path.write_text(page_text, encoding="utf-8")
    browser.open(path, width=width)
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert sticking_out(browser) == []
    assert all(url.startswith("file:") for url in browser.requests())
    assert browser.complaints() == []
