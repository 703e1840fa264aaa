"""The page of `itopctl report --format html`: everything that stands on it is fetched here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from itopctl.errors import EnvironmentUnfitError

if TYPE_CHECKING:
    from itopctl.api.sources import Origin
    from itopctl.report.page import Attempt, Environment, RunEntry, Section, Spec

Record = dict[str, Any]

_NOT_RECORDED = "not recorded"
_PACKAGES = ("itopctl", "torch", "torchvision", "numpy", "scikit-learn")
_TITLES = 3  # sweeps that the title names


def html_page(
    runs: Sequence[Record],
    sources: Sequence[Origin],
    sweeps: Sequence[str],
    best_by: str = "final",
    margin: float | None = None,
    confidence: float | None = None,
    remarks: Sequence[str] = (),
    command: str = "",
) -> str:
    """The page about some runs.

    Args:
        runs: records of the store with all of `itopctl.store.queries.RUN_COLUMNS`, and `settings`, in order.
        sources: where they come from.
        sweeps: what was asked for; none: every run.
        best_by: which accuracy counts (`itopctl.report.groups.BEST_BY`).
        margin, confidence: of the verdicts (`itopctl.report.claims.claims_tables`); None: the usual.
        remarks: sentences about the runs, to stand on top.
        command: what it is made with.

    Raises:
        EnvironmentUnfitError: there are no runs.
    """
    from datetime import datetime

    from itopctl import __version__
    from itopctl.api.page_figures import figures_of, verdicts_of
    from itopctl.catalogue import METHODS
    from itopctl.report.page import Page, Section, render_page
    from itopctl.report.paper import paper_tables
    from itopctl.report.runs import runs_table

    if not runs:
        raise EnvironmentUnfitError("there are no runs to report on yet.")
    made = _Making(sources, [run["run_id"] for run in runs])
    commit, dirty = made.commit()
    figures, left_out = figures_of(runs, [source.store for source in sources], best_by)
    page = Page(
        title=_title(sweeps),
        made_at=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        command=command,
        sections=[Section("Results", paper_tables(runs, METHODS.names(), best_by))],
        verdicts=verdicts_of(runs, best_by, margin, confidence),
        figures=figures,
        further=_further(runs, best_by),
        runs_table=runs_table(runs),
        runs=[made.entry(run) for run in runs],
        specs=made.specs(sweeps, runs),
        environment=made.environment(runs),
        commit=commit,
        dirty=dirty,
        left_out=[*remarks, *left_out],
        version=__version__,
    )
    return render_page(page)


def _title(sweeps: Sequence[str]) -> str:
    if not sweeps:
        return "All runs"
    more = f" and {len(sweeps) - _TITLES} more" if len(sweeps) > _TITLES else ""
    return ", ".join(sweeps[:_TITLES]) + more


def _further(runs: Sequence[Record], best_by: str) -> list[Section]:
    from itopctl.catalogue import METHODS
    from itopctl.report.cost import cost_tables
    from itopctl.report.exploration_table import exploration_tables
    from itopctl.report.page import Section

    methods = METHODS.names()
    made = [
        Section("Exploration", exploration_tables(runs, methods, best_by)),
        Section("Cost", cost_tables(runs, methods, best_by)),
    ]
    return [section for section in made if section.tables]


class _Making:
    """How some runs were made, as their sources know it."""

    def __init__(self, sources: Sequence[Origin], run_ids: Sequence[str]) -> None:
        from itopctl.store.provenance import attempts_at, environments

        self._sources = sources
        self._attempts: dict[str, list[Record]] = {}
        self._environments: dict[str, Record] = {}
        for source in reversed(sources):  # of a run that is in several, the first source counts
            self._attempts.update(attempts_at(source.store, run_ids))
            if source.results is not None:
                self._environments.update(environments(source.results, run_ids))

    def entry(self, run: Record) -> RunEntry:
        """A run with its attempts and, where it failed, the last lines of its log."""
        from itopctl.report.page import RunEntry

        attempts = self._attempts.get(run["run_id"], [])
        failed = attempts and run["state"] in ("failed", "lost")
        log = (attempts[-1]["log"] or "") if failed else ""
        return RunEntry(run, run["settings"], [_attempt(one) for one in attempts], log)

    def specs(self, sweeps: Sequence[str], runs: Sequence[Record]) -> list[Spec]:
        """The specs of the sweeps that were asked for; else of those that the runs are in."""
        from itopctl.report.page import Spec
        from itopctl.report.run_details import time_in_words
        from itopctl.store.provenance import recorded_specs

        of_runs = {name for run in runs for name in str(run["sweep"] or "").split(",")}
        wanted = of_runs.intersection(sweeps) if sweeps else of_runs
        found = [one for source in self._sources for one in recorded_specs(source.store) if one["sweep"] in wanted]
        specs = [
            Spec(one["sweep"], one["text"], one["path"], tuple(one["set"]), one["description"],
                 time_in_words(one["updated_at"]),
                 tuple((module, tuple(versions)) for module, versions in one["accepted_code"].items()))
            for one in found
        ]  # fmt: skip
        return list(dict.fromkeys(specs))

    def commit(self) -> tuple[str, bool]:
        """The commit that all runs were made from, and whether files differed from it; "" where there is not one."""
        made = [attempt for attempts in self._attempts.values() for attempt in attempts]
        commits = {one["git_commit"] for one in made}
        if len(commits) != 1 or None in commits:
            return "", False
        return commits.pop(), any(one["git_dirty"] for one in made)

    def environment(self, runs: Sequence[Record]) -> list[Environment]:
        """What the runs that were begun were made with, a property each, the most common value first."""
        begun = [run for run in runs if run["run_id"] in self._attempts or run["run_id"] in self._environments]
        found: dict[str, Counter[str]] = {}
        for run in begun:
            for name, value in self._properties(run).items():
                found.setdefault(name, Counter())[value] += 1
        return [
            _environment(name, counted) for name, counted in found.items() if set(counted) != {_NOT_RECORDED}
        ]  # fmt: skip

    def _properties(self, run: Record) -> Mapping[str, str]:
        here = self._environments.get(run["run_id"], {})
        packages = here.get("packages", {})
        last = (self._attempts.get(run["run_id"]) or [{}])[-1]
        code = last if last.get("git_commit") or last.get("code") else here
        changed = ", and changes that were not committed" if code.get("git_dirty") else ""
        said = {
            "commit": code["git_commit"] + changed if code.get("git_commit") else None,
            "digest of the code": code.get("code"),
            **{name: packages.get(name) for name in _PACKAGES},
            "Python": here.get("python"),
            "system": here.get("platform"),
            "device": run.get("device_name") or here.get("device_name"),
            "threads": run.get("threads") or here.get("threads"),
            "data set": _data_set(run["dataset"]),
        }
        return {name: str(value) if value else _NOT_RECORDED for name, value in said.items()}


def _environment(name: str, counted: Counter[str]) -> Environment:
    from itopctl.report.page import Environment

    return Environment(name, dict(counted.most_common()))


def _data_set(name: str | None) -> str | None:
    """`digits (UCI optical digits, in scikit-learn)`."""
    from itopctl.catalogue import DATASETS

    if name is None or name not in DATASETS.names():
        return name
    source = DATASETS.get(name).source
    return f"{name} ({source})" if source else name


def _attempt(attempt: Record) -> Attempt:
    from itopctl.report.page import Attempt
    from itopctl.report.run_details import attempt_code, time_in_words

    place = [str(attempt[name]) for name in ("scheduler", "job_id", "host") if attempt[name]]
    started, ended = (time_in_words(attempt[n]) if attempt[n] else "" for n in ("started_at", "ended_at"))
    cause = attempt["cause"] if attempt["cause"] not in (None, "finished", attempt["state"]) else ""
    outcome = f"{attempt['state']}: {cause}" if cause else attempt["state"]
    return Attempt(" ".join(place), attempt_code(attempt), started, ended, outcome)
