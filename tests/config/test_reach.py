"""`update_interval: {reach: 0.95}`: what is asked for is solved once a run is known, and the run is the solution's."""

from __future__ import annotations

from typing import Any

import pytest

from itopctl.config.expand import Expansion, expand, parse_overrides
from itopctl.config.identity import run_id
from itopctl.config.reading import read_text
from itopctl.config.run_config import RunConfig
from itopctl.config.sweep import parse_sweep
from itopctl.errors import UserError
from tests.config.build import BASE, SPARSE, config, spec_text

SET = {**SPARSE, "method": "set-itop"}


class Solver:
    """Finds 1000 × R_s; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, RunConfig]] = []

    def __call__(self, run: RunConfig, reach: float) -> int:
        self.asked.append((reach, run))
        if reach > 0.99:
            raise UserError(f"{reach:g} is out of reach.")
        return round(1000 * reach)


def solved(
    base: dict[str, Any], *overrides: str, solver: Solver | None = None, **sections: Any
) -> tuple[Expansion, Solver]:
    solver = solver or Solver()
    spec = parse_sweep(read_text(spec_text(base, **sections), "spec.yaml"))
    return expand(spec, parse_overrides(overrides), solve=solver), solver


def intervals(found: Expansion) -> list[int | None]:
    return [run.update_interval for run in found.runs.values()]


def complaint(base: dict[str, Any], *overrides: str, **sections: Any) -> str:
    with pytest.raises(UserError) as caught:
        solved(base, *overrides, **sections)
    return str(caught.value)


def test_the_interval_is_the_solvers_and_so_is_the_identity() -> None:
    found, _ = solved({**SET, "update_interval": {"reach": 0.4}})
    assert list(found.runs) == [run_id(config(method="set-itop", update_interval=400))]


def test_two_rates_that_are_reached_by_one_interval_are_one_run() -> None:
    found, _ = solved(SET, grid={"update_interval": [{"reach": 0.4}, {"reach": 0.4001}, 400]})
    assert (len(found.runs), found.points) == (1, 3)


def test_it_may_stand_wherever_an_interval_may() -> None:
    grid = {"update_interval": [{"reach": 0.1}, 7, "2 epochs"], "sparsity": [0.8, 0.9]}
    assert intervals(solved(SET, grid=grid)[0]) == [100, 100, 7, 7, 22, 22]
    together = {"update_interval": [{"reach": 0.1}, {"reach": 0.2}], "sparsity": [0.8, 0.9]}
    assert intervals(solved(SET, zip=together)[0]) == [100, 200]
    assert intervals(solved(SET, "update_interval={reach: 0.9}", grid={"update_interval": [3, 4]})[0]) == [900]


def test_the_solver_is_asked_about_the_whole_run_and_only_where_a_spec_asks() -> None:
    _, solver = solved(SET, grid={"update_interval": [5, {"reach": 0.25}], "sparsity": [0.8, 0.9]})
    assert [(reach, run.sparsity) for reach, run in solver.asked] == [(0.25, 0.8), (0.25, 0.9)]
    assert solved(SET)[1].asked == []


@pytest.mark.parametrize("method", ["dense", "static"])
def test_it_means_nothing_where_there_are_no_updates(method: str) -> None:
    found, solver = solved({**SET, "method": method, "update_interval": {"reach": 0.4}})
    assert intervals(found) == [None]
    assert solver.asked == []
    assert any("update_interval" in names for _, names in found.ignored)


@pytest.mark.parametrize("method", ["dense", "set-itop"])
@pytest.mark.parametrize(
    "value",
    [{"reach": 0}, {"reach": 1.5}, {"reach": -0.1}, {"reach": "0.9"}, {"reach": True}, {"reach": None}, {}, {"rech": 1},
     {"reach": 0.5, "at": 3}],
    ids=str,
)  # fmt: skip
def test_what_is_no_rate_is_refused_for_every_method(method: str, value: dict[str, Any]) -> None:
    said = complaint({**BASE, "method": method, "sparsity": 0.9, "update_interval": value})
    assert said.startswith("spec.yaml:8: base.update_interval: found {")
    assert said.endswith("an exploration rate in (0, 1] expected, such as {reach: 0.95}.")


def test_a_rate_out_of_reach_is_complained_of_where_it_stands() -> None:
    assert complaint(SET, grid={"update_interval": [5, {"reach": 0.995}]}) == (
        "spec.yaml:11: grid.update_interval[1]: 0.995 is out of reach."
    )
    assert complaint(SET, "update_interval={reach: 1}") == (
        "--set update_interval={reach: 1}: update_interval: 1 is out of reach."
    )


def test_exclude_matches_it_as_it_was_written_or_as_it_was_solved() -> None:
    grid = {"update_interval": [{"reach": 0.4}, {"reach": 0.5}, 6]}
    assert intervals(solved(SET, grid=grid, exclude=[{"update_interval": {"reach": 0.4}}])[0]) == [500, 6]
    assert intervals(solved(SET, grid=grid, exclude=[{"update_interval": 400}])[0]) == [500, 6]
    either = [{"update_interval": [{"reach": 0.5}, 6]}]
    assert intervals(solved(SET, grid=grid, exclude=either)[0]) == [400]


def test_what_is_left_out_need_not_be_within_reach() -> None:
    grid = {"update_interval": [{"reach": 0.4}, {"reach": 0.999}], "sparsity": [0.5, 0.98]}
    found, solver = solved(SET, grid=grid, exclude=[{"update_interval": {"reach": 0.999}}])
    assert (intervals(found), found.excluded) == ([400, 400], 2)
    assert {reach for reach, _ in solver.asked} == {0.4}


def test_the_plan_is_told_what_was_found() -> None:
    found, _ = solved(SET, grid={"update_interval": [{"reach": 0.4}, {"reach": 0.2}]})
    assert found.solved == {0.4: (400,), 0.2: (200,)}


def test_the_mean_of_batches_must_fit_in_what_was_found() -> None:
    said = complaint({**SET, "drop": "taylor", "gradient_batches": 20, "update_interval": {"reach": 0.01}})
    assert "gradient_batches: found 20; less than update_interval (10) expected." in said


def test_without_a_solver_it_is_refused_where_it_stands() -> None:
    spec = parse_sweep(read_text(spec_text({**SET, "update_interval": {"reach": 0.4}}), "spec.yaml"))
    with pytest.raises(UserError, match=r"spec.yaml:8: base.update_interval: found \{'reach': 0.4\}; whole steps"):
        expand(spec)
