"""Runs by other versions of the user's own code: which stand for planned ones, and what the plan says of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from itopctl.config.expand import expand
from itopctl.config.identity import run_id
from itopctl.config.reading import read_text
from itopctl.config.run_config import RunConfig
from itopctl.config.sweep import parse_sweep
from itopctl.errors import UserError
from itopctl.plan import PlannedSweep, make_plan
from itopctl.plan.versions import KnownVersions, check_accepted, settled, superseded
from tests.config.build import SPARSE, spec_text

Versions = dict[str, str] | None
NOW: dict[str, str] = {}


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlannedSweep:
    """Two runs of a model and a rule of the user's own."""
    (tmp_path / "nets.py").write_text("def net(input_shape, classes): ...")
    (tmp_path / "rules.py").write_text("def grow(layer): ...")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    base = {**SPARSE, "model": "nets:net", "growth": "rules:grow"}
    spec = parse_sweep(read_text(spec_text(base, grid={"seed": 2}), "spec.yaml"))
    planned = PlannedSweep(spec, expand(spec))
    (NOW["nets"], NOW["rules"]) = (first(planned).own_code or {}).values()
    return planned


def first(sweep: PlannedSweep) -> RunConfig:
    return next(iter(sweep.expansion.runs.values()))


def by(config: RunConfig, versions: Versions) -> RunConfig:
    return config.model_copy(update={"own_code": versions})


def settle(
    sweep: PlannedSweep, made: Sequence[tuple[Versions, str]],
    accepted: Mapping[str, Sequence[str]] = MappingProxyType({}), accept: tuple[str, ...] = (),
) -> tuple[PlannedSweep, dict[str, str]]:  # fmt: skip
    """The sweep, with runs like its first by these versions in these states; and what these are."""
    states, runs = {}, []
    for versions, state in made:
        config = by(first(sweep), versions)
        states[run_id(config)] = state
        if versions:
            runs.append((run_id(config), state, config.model_dump(mode="json")))
    return settled(sweep, states, KnownVersions(runs, states), accepted, accept), states


def earlier(**versions: str) -> dict[str, str]:
    return {**NOW, **versions}


def test_runs_that_nobody_made_before_are_planned_as_they_are(sweep: PlannedSweep) -> None:
    found, _ = settle(sweep, [])
    assert (found.expansion.runs, found.notes, dict(found.accepted)) == (sweep.expansion.runs, (), {})


@pytest.mark.parametrize("state", ["done", "running", "pending"])
def test_a_run_by_unknown_code_stands_for_the_planned_one(sweep: PlannedSweep, state: str) -> None:
    found, states = settle(sweep, [(None, state)])
    (unknown,) = states
    assert next(iter(found.expansion.runs)) == unknown and found.expansion.runs[unknown].own_code is None
    assert list(found.expansion.runs)[1:] == list(sweep.expansion.runs)[1:]
    assert found.notes == (f"tried: 1 {state} by unknown code of `nets`, `rules`: no digest was recorded then",)
    assert len(getattr(make_plan([found], states), state)) == 1


def test_a_run_by_an_earlier_version_is_told_of_and_planned_anew(sweep: PlannedSweep) -> None:
    found, _ = settle(sweep, [(earlier(nets="aaaaaaaaaaaa"), "done")])
    assert found.expansion.runs == sweep.expansion.runs
    assert found.notes == (
        "tried: 1 done by an earlier `nets` (aaaaaaaaaaaa), to be made anew with the code as it is now; --accept-code "
        "nets counts them as done",
    )


@pytest.mark.parametrize(
    ("state", "said"),
    [("failed", "unfinished"), ("lost", "unfinished"), ("queued", "unfinished"), ("running", "running"),
     ("pending", "pending")],
)  # fmt: skip
def test_what_is_not_finished_by_an_earlier_version_is_never_gone_on_with(
    sweep: PlannedSweep, state: str, said: str
) -> None:
    for accept in ((), ("nets",)):
        found, _ = settle(sweep, [(earlier(nets="aaaaaaaaaaaa"), state)], accept=accept)
        assert found.expansion.runs == sweep.expansion.runs
        assert found.notes[0].startswith(f"tried: 1 {said} by an earlier `nets` (aaaaaaaaaaaa), to be ")
    assert settle(sweep, [(None, "failed")])[0].expansion.runs == sweep.expansion.runs


def test_an_accepted_change_of_one_module_does_not_accept_that_of_another(sweep: PlannedSweep) -> None:
    both = [(earlier(nets="aaaaaaaaaaaa", rules="bbbbbbbbbbbb"), "done")]
    found, _ = settle(sweep, both, accept=("nets",))
    assert found.expansion.runs == sweep.expansion.runs
    assert "--accept-code nets --accept-code rules counts them" in found.notes[0]
    found, states = settle(sweep, both, accept=("nets", "rules"))
    assert next(iter(found.expansion.runs)) in states
    assert found.accepted == {
        "nets": tuple(sorted(("aaaaaaaaaaaa", NOW["nets"]))), "rules": tuple(sorted(("bbbbbbbbbbbb", NOW["rules"]))),
    }  # fmt: skip


def test_what_was_accepted_before_counts_and_a_third_version_does_not(sweep: PlannedSweep) -> None:
    accepted = {"nets": ["aaaaaaaaaaaa", NOW["nets"]]}
    found, states = settle(sweep, [(earlier(nets="aaaaaaaaaaaa"), "done")], accepted)
    assert next(iter(found.expansion.runs)) in states
    assert found.notes == (
        f"tried: 1 done by an earlier `nets` (aaaaaaaaaaaa), `rules` ({NOW['rules']}), declared to be the same "
        "(--accept-code)",
    )
    found, _ = settle(sweep, [(earlier(nets="cccccccccccc"), "done")], accepted)
    assert found.expansion.runs == sweep.expansion.runs


def test_a_finished_run_by_the_code_as_it_is_goes_before_all_others(sweep: PlannedSweep) -> None:
    found, _ = settle(sweep, [(NOW, "done"), (None, "done"), (earlier(nets="aaaaaaaaaaaa"), "done")], accept=("nets",))
    assert found.expansion.runs == sweep.expansion.runs and found.notes == ()
    assert set(found.accepted["nets"]) == {"aaaaaaaaaaaa", "unknown", NOW["nets"]}
    failed, states = settle(sweep, [(NOW, "failed"), (None, "done")])
    assert next(iter(failed.expansion.runs)) in states


def test_a_stored_run_that_is_not_what_its_id_says_stands_for_nothing(sweep: PlannedSweep) -> None:
    config = by(first(sweep), earlier(nets="aaaaaaaaaaaa"))
    known = KnownVersions([("0123456789ab", "done", config.model_dump(mode="json")), ("b" * 12, "done", {"no": 1})], {})
    assert settled(sweep, {}, known, {}, ("nets",)).expansion.runs == sweep.expansion.runs


def test_a_module_that_no_run_names_cannot_be_accepted(sweep: PlannedSweep) -> None:
    check_accepted([sweep], ["nets", "rules"])
    with pytest.raises(UserError, match=r"--accept-code: unknown module of your own 'net'\. Did you mean 'nets'\?"):
        check_accepted([sweep], ["net"])
    spec = parse_sweep(read_text(spec_text(SPARSE), "spec.yaml"))
    with pytest.raises(UserError, match="--accept-code nets: no run of these specs names a module of your own"):
        check_accepted([PlannedSweep(spec, expand(spec))], ["nets"])


def test_runs_are_superseded_where_another_version_of_them_is_planned(sweep: PlannedSweep) -> None:
    config = first(sweep)
    others: dict[str, Any] = {
        "old": by(config, None), "other": by(config, earlier(nets="a" * 12)),
        "seed": config.model_copy(update={"seed": 9}),
    }  # fmt: skip
    stored = {name: other.model_dump(mode="json") for name, other in others.items()} | {"odd": {"no": 1}}
    assert superseded(sweep, stored) == {"old", "other"}
    assert superseded(sweep, {run_id(config): config.model_dump(mode="json")}) == set()
