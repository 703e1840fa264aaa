"""From runs to arrays of jobs: nothing lost or doubled, no array too large, and never more at work than was wished."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itopctl.config.slurm import SlurmOptions
from itopctl.dispatch.submitter import Array, Order, arrays_of, pack, split
from itopctl.store.submissions import JobState, Request, Submission, SubmissionDirectory, SubmissionState

MODEST = settings(derandomize=True, deadline=None, max_examples=60)
SIZES = st.integers(0, 60)
LARGEST = st.integers(1, 20)


def runs_of(count: int, letter: str = "r") -> tuple[str, ...]:
    return tuple(f"{letter}{number}" for number in range(count))


def order(count: int, first: int = 0, **options: int) -> Order:
    return Order("one", runs_of(count), SlurmOptions(**options), first)


def tokens() -> itertools.count:
    return itertools.count(1)


def arrays(asked: Order, largest: int, live: tuple[Submission, ...] = ()) -> list[Array]:
    count = tokens()
    return arrays_of(asked, largest, live, lambda: str(next(count)))


def live(name: str, jobs: int, throttle: int | None, over: int = 0, sweep: str = "one") -> Submission:
    """A submission that was made before, of which some jobs are over."""
    runs = tuple((f"{name}{index}",) for index in range(jobs))
    request = Request(
        name=name, sweep=sweep, scheduler="slurm", cluster="c", user="u", jobs=runs, data_dir="", options={},
        throttle=throttle, attempts={}, code={}, by={}, created_at="",
    )  # fmt: skip
    known = tuple(JobState("ended" if index < over else "pending") for index in range(jobs))
    return Submission(SubmissionDirectory(Path(name)), request, SubmissionState(f"id-{name}", known))


# Runs to jobs, jobs to arrays -------------------------------------------------------------------------------


@MODEST
@given(SIZES, st.integers(1, 70))
def test_packing_keeps_every_run_once_in_order_and_fills_all_jobs_but_the_last(count: int, runs_per_job: int) -> None:
    jobs = pack(runs_of(count), runs_per_job)
    assert tuple(itertools.chain(*jobs)) == runs_of(count)
    assert all(len(job) == runs_per_job for job in jobs[:-1])
    assert all(jobs)


@MODEST
@given(SIZES, LARGEST)
def test_splitting_keeps_every_job_once_in_order_in_as_few_arrays_of_nearly_equal_size_as_can_be(
    count: int, largest: int
) -> None:
    jobs = pack(runs_of(count), 1)
    parts = split(jobs, largest)
    assert list(itertools.chain(*parts)) == jobs
    sizes = [len(part) for part in parts]
    assert len(sizes) == -(-count // largest)
    assert all(0 < size <= largest for size in sizes)
    assert max(sizes, default=0) - min(sizes, default=0) <= 1


@MODEST
@given(SIZES, LARGEST, st.integers(1, 5), st.integers(0, 70), st.none() | st.integers(1, 12))
def test_an_order_has_every_run_once_in_order_whatever_is_asked_for(
    count: int, largest: int, runs_per_job: int, first: int, parallelism: int | None
) -> None:
    asked = Order(
        "one", runs_of(count), SlurmOptions(runs_per_job=runs_per_job, array_parallelism=parallelism), first
    )  # fmt: skip
    made = arrays(asked, largest)
    assert tuple(run for array in made for job in array.jobs for run in job) == runs_of(count)
    assert all(len(array.jobs) <= largest for array in made)
    assert len({array.name for array in made}) == len(made)
    for array in made:
        assert (array.throttle is None) == (parallelism is None)
        assert array.throttle is None or 1 <= array.throttle <= min(parallelism or 0, len(array.jobs))


def test_nothing_to_run_is_no_array() -> None:
    assert arrays(order(0), 10) == []
    assert arrays(order(0, first=3), 10) == []


def test_a_sweep_of_a_thousand_and_one_runs_fits_one_array_of_slurm_as_it_comes() -> None:
    assert [len(array.jobs) for array in arrays(order(1001), 1001)] == [1001]
    assert [len(array.jobs) for array in arrays(order(1002), 1001)] == [501, 501]


def test_names_say_whose_they_are_and_are_what_slurm_takes_for_a_name() -> None:
    long = Order("s" * 300, runs_of(1), SlurmOptions())
    (array,) = arrays_of(long, 10)
    assert array.name.startswith("s" * 60 + "-") and len(array.name) < 80
    assert arrays_of(long, 10)[0].name != array.name


# Throttle ---------------------------------------------------------------------------------------------------


@dataclass
class Site:
    """A sweep's arrays at a scheduler that starts whatever it may, and the arrays that each waits for."""

    made: dict[str, Submission] = field(default_factory=dict)
    awaits: dict[str, set[str]] = field(default_factory=dict)

    def submit(self, asked: Order, largest: int) -> None:
        ids = {f"id-{name}" for name in self.made}
        count = itertools.count(len(self.made))
        before = [one for one in self.made.values() if not one.state.over]
        for array in arrays_of(asked, largest, before, lambda: str(next(count))):
            known = {one.removeprefix("id-") for one in (*array.after_end, *array.after_success)}
            assert known <= set(self.made), "it waits for what was not submitted before"
            assert {one for one in array.after_end if one.startswith("id-")} <= ids
            self.made[array.name] = live(array.name, len(array.jobs), array.throttle)
            self.awaits[array.name] = known

    def may_run_together(self) -> list[tuple[str, ...]]:
        """Sets of arrays that can all be at work at one time: none waits for another, nor for what waits for it."""
        alive = [name for name, one in self.made.items() if not one.state.over]
        found = []
        for size in range(1, len(alive) + 1):
            for names in itertools.combinations(alive, size):
                if all(self._waits_for(one, other) is False for one, other in itertools.permutations(names, 2)):
                    found.append(names)
        return found

    def _waits_for(self, one: str, other: str) -> bool:
        return other in self.awaits[one] or any(self._waits_for(third, other) for third in self.awaits[one])

    def most_at_work(self, names: tuple[str, ...]) -> int:
        return sum(min(one.request.throttle or 10**6, len(one.live_jobs)) for one in map(self.made.__getitem__, names))

    def jobs_left(self) -> int:
        return sum(len(one.live_jobs) for one in self.made.values())

    def some_end(self, name: str, count: int) -> None:
        """Jobs of an array end; of those only that had begun."""
        one = self.made[name]
        if any(not self.made[other].state.over for other in self.awaits[name]):
            return
        for index in one.live_jobs[:count]:
            one = one.with_job(index, phase="ended")
        self.made[name] = one


STEPS = st.lists(
    st.tuples(st.integers(1, 12), st.integers(0, 5), st.lists(st.tuples(st.integers(0, 8), st.integers(1, 9)))),
    min_size=1,
    max_size=3,
)


@MODEST
@given(STEPS, st.integers(1, 6), st.integers(3, 6))
def test_never_more_of_a_sweep_is_at_work_than_was_wished_over_all_its_arrays_and_submissions(
    steps: list[tuple[int, int, list[tuple[int, int]]]], limit: int, largest: int
) -> None:
    site = Site()
    for count, first, ends in steps:
        site.submit(order(count, first, array_parallelism=limit), largest)
        for names in site.may_run_together():
            assert site.most_at_work(names) <= limit, (names, site.awaits)
        for number, ended in ends:
            if number < len(site.made):
                site.some_end(list(site.made)[number], ended)
                for names in site.may_run_together():
                    assert site.most_at_work(names) <= limit


@MODEST
@given(st.lists(st.tuples(st.integers(1, 10), st.none() | st.integers(1, 6)), min_size=2, max_size=4))
def test_a_later_wish_holds_for_the_later_arrays_whatever_was_wished_before(
    steps: list[tuple[int, int | None]],
) -> None:
    site = Site()
    for count, limit in steps:
        before = set(site.made)
        site.submit(order(count, **({} if limit is None else {"array_parallelism": limit})), 5)
        if limit is not None:
            for names in site.may_run_together():
                if set(names) - before:
                    assert site.most_at_work(names) <= limit, (names, site.awaits)


@MODEST
@given(STEPS, st.integers(1, 6))
def test_every_array_comes_to_its_turn(steps: list, limit: int) -> None:
    site = Site()
    for count, first, _ in steps:
        site.submit(order(count, first, array_parallelism=limit), 4)
    while left := site.jobs_left():
        for name in site.made:
            site.some_end(name, 1)
        assert site.jobs_left() < left


def test_one_array_uses_all_that_was_wished() -> None:
    (array,) = arrays(order(10, array_parallelism=4), 100)
    assert (array.throttle, array.after_end) == (4, ())


def test_several_arrays_share_what_was_wished_and_go_side_by_side() -> None:
    made = arrays(order(9, array_parallelism=5), 3)
    assert [array.throttle for array in made] == [2, 2, 1]
    assert [array.after_end for array in made] == [(), (), ()]


def test_more_arrays_than_places_take_turns() -> None:
    made = arrays(order(15, array_parallelism=2), 3)
    assert [array.throttle for array in made] == [1, 1, 1, 1, 1]
    assert [array.after_end for array in made] == [(), (), ("one-1",), ("one-2",), ("one-3",)]


def test_jobs_of_an_earlier_submission_that_are_over_take_no_place() -> None:
    (array,) = arrays(order(9, array_parallelism=5), 100, (live("old", 8, 5, over=6),))
    assert (array.throttle, array.after_end) == (3, ())
    (array,) = arrays(order(9, array_parallelism=5), 100, (live("old", 8, 5),))
    assert (array.throttle, array.after_end) == (5, ("id-old",))


def test_other_sweeps_have_places_of_their_own() -> None:
    (array,) = arrays(order(9, array_parallelism=5), 100, (live("old", 8, 5, sweep="two"),))
    assert (array.throttle, array.after_end) == (5, ())


def test_without_a_wish_nothing_waits_and_nothing_is_throttled() -> None:
    made = arrays(order(20), 5, (live("old", 8, 3),))
    assert {(array.throttle, array.after_end) for array in made} == {(None, ())}


# Some first, and after others -------------------------------------------------------------------------------


@MODEST
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 6), st.none() | st.integers(1, 4))
def test_the_first_runs_are_alone_and_all_others_wait_for_their_success(
    count: int, first: int, largest: int, parallelism: int | None
) -> None:
    made = arrays(Order("one", runs_of(count), SlurmOptions(array_parallelism=parallelism), first), largest)
    ahead = [array for array in made if not array.after_success]
    rest = [array for array in made if array.after_success]
    assert tuple(run for array in ahead for (run,) in array.jobs) == runs_of(count)[:first]
    assert all(set(array.after_success) == {one.name for one in ahead} for array in rest)


def test_what_an_order_waits_for_every_array_waits_for() -> None:
    asked = Order("one", runs_of(6), SlurmOptions(array_parallelism=2), 2, ("7", "8_1"), ("9",))
    ids = {"one-1": "100", "one-2": "200"}
    assert [array.dependency(ids) for array in arrays(asked, 3)] == [
        "afterok:7:8_1,afterany:9",
        "afterok:7:8_1:100,afterany:9",
        "afterok:7:8_1:100,afterany:9",
    ]


@pytest.mark.parametrize(
    ("success", "end", "said"),
    [
        ((), (), None),
        (("1",), (), "afterok:1"),
        ((), ("2", "3"), "afterany:2:3"),
        (("1",), ("2",), "afterok:1,afterany:2"),
    ],
)
def test_a_dependency_is_in_sbatchs_words(success: tuple[str, ...], end: tuple[str, ...], said: str | None) -> None:
    assert Array("one-1", (), None, success, end).dependency({}) == said
