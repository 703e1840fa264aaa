"""More than ten thousand inputs, a share in each run: no traceback, no hang, nothing touched that lies outside.

`python -m tests.fuzz KIND NUMBER` tries one of them again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.fuzz.bench import Bench, patience
from tests.fuzz.kinds import ALL, INPUTS, KINDS, QUICK, attempt
from tests.share import of_share


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    shared = Path("/dev/shm")  # in memory where that can be had: a fuzzer writes much
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=shared if shared.is_dir() else None) as folder:
        monkeypatch.setenv("PATH", "")  # no SLURM, no git
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.chdir(folder)
        monkeypatch.setattr("sys.argv", ["itopctl"])
        yield Bench(Path(folder))


def try_all(bench: Bench, kind: str, numbers: Sequence[int]) -> None:
    with patience() as begin:
        for number in numbers:
            begin()
            attempt(bench, kind, number)
    assert bench.wrong == [], f"{len(bench.wrong)} problems; the first: " + "\n".join(bench.wrong[:5])
    assert bench.tried == len(numbers) * INPUTS.get(kind, 1)


def test_there_are_ten_thousand_inputs_of_every_kind() -> None:
    assert ALL.keys() == QUICK.keys() == KINDS.keys()
    assert sum(ALL.values()) >= 10_000  # though some numbers are several inputs


@pytest.mark.parametrize("kind", KINDS)
def test_some_inputs_of_each_kind_meet_a_designed_end(bench: Bench, kind: str) -> None:
    try_all(bench, kind, range(QUICK[kind]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_share_of_all_inputs_meets_a_designed_end(bench: Bench, kind: str) -> None:
    try_all(bench, kind, of_share(range(QUICK[kind], ALL[kind]), kind))


def test_the_watch_sees_what_a_command_must_not_do(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise all of the above would prove nothing."""
    import itopctl.cli.app as app

    def harm(prog_name: str) -> None:
        (bench.canary / "new").write_text("")
        (bench.canary / "new").rename(bench.canary / "newer")
        (bench.canary / "newer").unlink()
        (bench.results.parent / "link").symlink_to(bench.canary / "file")
        (bench.results.parent / "link").open("a").close()
        print((bench.canary / "file").read_text())

    monkeypatch.setattr("tests.fuzz.bench._COMMAND", harm)
    problems = bench.call([])
    assert [problem.split(" ")[0:1] for problem in problems[:1]] == [["shows"]]
    for event, name in (("open", "new"), ("os.rename", "new"), ("os.remove", "newer"), ("open", "link")):
        assert any(f"{event} " in problem and problem.endswith(f"/{name}") for problem in problems), (event, problems)
    assert app.app is not harm


def test_what_takes_too_long_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(prog_name: str) -> None:
        while True:
            pass

    monkeypatch.setattr("tests.fuzz.bench.CPU_SECONDS", 0.1)
    monkeypatch.setattr("tests.fuzz.bench._COMMAND", hang)
    with patience():
        assert [problem.split(":")[0] for problem in bench.call([])] == ["hangs"]
