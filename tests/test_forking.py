"""Child processes: what they give back, and that they leave nothing else behind."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import NoReturn

import pytest

from itopctl.errors import EnvironmentUnfitError, UserError
from itopctl.forking import fork, value_from_child


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_value_comes_from_a_child_and_nothing_else_changes_here(capfd: pytest.CaptureFixture[str]) -> None:
    def change() -> int:
        os.environ["ITOPCTL_TEST_CHILD"] = "1"
        sys.setrecursionlimit(500)
        print("said in the child")
        return os.getpid()

    print("said before")
    limit = sys.getrecursionlimit()
    assert value_from_child(change) != os.getpid()
    assert "ITOPCTL_TEST_CHILD" not in os.environ
    assert sys.getrecursionlimit() == limit
    assert capfd.readouterr().out == "said before\nsaid in the child\n"


def test_an_error_of_a_child_is_raised_here() -> None:
    class OwnError(UserError):
        """A class that this process may not know."""

    def fail() -> NoReturn:
        raise EnvironmentUnfitError("no such place")

    def fail_in_ones_own_way() -> NoReturn:
        raise OwnError("so it is")

    with pytest.raises(EnvironmentUnfitError, match=r"^no such place$"):
        value_from_child(fail)
    with pytest.raises(UserError, match=r"^so it is$") as raised:
        value_from_child(fail_in_ones_own_way)
    assert raised.type is UserError


def test_a_child_that_ends_without_a_value_is_an_error_that_says_how(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="its process was killed by SIGKILL"):
        value_from_child(lambda: os.kill(os.getpid(), 9))
    with pytest.raises(UserError, match="its process ended with exit code 7"):
        value_from_child(lambda: os._exit(7))
    with pytest.raises(UserError, match="its process ended with exit code 1"):
        value_from_child(lambda: 1 / 0)
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_child_ends_with_its_body_whatever_threads_are_left() -> None:
    began = time.monotonic()
    assert exit_code(fork(lambda: threading.Thread(target=time.sleep, args=(60,)).start())) == 0
    assert time.monotonic() - began < 30


def test_a_large_value_comes_whole() -> None:
    assert value_from_child(lambda: "x" * 1_000_000) == "x" * 1_000_000


def test_nobody_waits_for_what_a_child_leaves_running() -> None:
    def leave_one() -> int:
        left = os.fork()
        if not left:
            time.sleep(60)
            os._exit(0)
        return left

    began = time.monotonic()
    left = value_from_child(leave_one)
    assert time.monotonic() - began < 30
    os.kill(left, 9)
