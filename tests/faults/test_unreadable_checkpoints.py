"""A checkpoint that cannot be read just now is no damaged one: the attempt ends and says why, nothing is touched."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from itopctl.store.checkpoints import checkpoints, set_aside
from tests.faults.saved_run import SavedRun
from tests.faults.trials import ATTEMPT, RUN


@pytest.mark.parametrize(
    ("number", "cause"),
    [(errno.EIO, "environment"), (errno.ESTALE, "environment"), (errno.EMFILE, "environment"),
     (errno.EACCES, "not-writable"), (errno.ENOMEM, "out-of-memory")],
)  # fmt: skip
def test_what_cannot_be_read_just_now_stays_for_the_next_attempt(
    saved_run: SavedRun, tmp_path: Path, number: int, cause: str
) -> None:
    lab = saved_run.copied(tmp_path / "results")
    before = {path.name: path.read_bytes() for path in lab.results.run(RUN).path.glob("checkpoint*")}
    fate = saved_run.zygote.call(ATTEMPT, results=str(lab.results.path), unreadable=number)
    assert (fate.value["state"], fate.value["cause"]) == ("failed", cause)
    assert {path.name: path.read_bytes() for path in lab.results.run(RUN).path.glob("checkpoint*")} == before
    saved_run.check_goes_on(lab, 4)


_LOADED_WITH_LITTLE_ROOM = """
import resource, sys, torch
from itopctl.train.checkpoint import decode, encode
data = encode({"weights": torch.ones(32 << 20)})
decode(data)
pages = int(open("/proc/self/statm").read().split()[0])
room = pages * resource.getpagesize() + (8 << 20)
resource.setrlimit(resource.RLIMIT_AS, (room, resource.RLIM_INFINITY))
try:
    decode(data)
except MemoryError:
    print("no room")
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(len(decode(data)["weights"]))
"""


def test_want_of_memory_while_a_checkpoint_is_loaded_is_not_taken_for_damage() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOADED_WITH_LITTLE_ROOM], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.split("\n")[:2] == ["no room", str(32 << 20)], done.stderr


def test_what_is_set_aside_does_not_replace_what_was_set_aside_before(saved_run: SavedRun, tmp_path: Path) -> None:
    run = saved_run.copied(tmp_path / "results").results.run(RUN)
    wanted = [one.path.read_bytes() for one in checkpoints(run)]
    assert [set_aside(run, one).read_bytes() for one in checkpoints(run)] == wanted
    assert len(list(run.path.glob("checkpoint.damaged-*.pt"))) == len(wanted) == 3 and not checkpoints(run)
