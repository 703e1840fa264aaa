"""What a person sees in a real terminal: a pseudo-terminal with a width, keys and colours."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from itopctl.cli.terminal_text import Printer
from tests.conftest import FinishedSweep
from tests.helpers import itopctl, write_spec
from tests.store.builders import Lab, run_id

SPEC = {
    "base": {
        "dataset": "digits", "model": "lenet-300-100", "method": "set-itop", "sparsity": 0.9, "update_interval": 5,
        "epochs": 400,
    },
    "grid": {"seed": 2},
}  # fmt: skip


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, *arguments: str | Path, columns: int = 100) -> None:
        self.screen, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "itopctl", *map(str, arguments)], stdin=inner, stdout=inner, stderr=inner,
            start_new_session=True, env={**os.environ, "TERM": "xterm-256color"},
        )  # fmt: skip
        os.close(inner)
        self.seen = self.raw = ""
        self.decoder = codecs.getincrementaldecoder("utf-8")()

    def read_until(self, wanted: Callable[[str], bool], seconds: float = 60.0) -> str:
        """Everything seen so far, once `wanted` is true of it; without control codes."""
        until = time.monotonic() + seconds
        while not wanted(self.seen):
            assert time.monotonic() < until, self.seen
            if select.select([self.screen], [], [], 0.1)[0]:
                try:
                    raw = os.read(self.screen, 65536)
                except OSError:  # the other side is closed
                    break
                self.raw += self.decoder.decode(raw)
                # Of all that came: a control code may be cut between two pieces.
                self.seen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.raw)
        return self.seen

    def end(self) -> int:
        """Wait for the end; returns the exit code."""
        self.read_until(lambda _: False)  # until the other side is closed
        os.close(self.screen)
        return self.process.wait()


def test_a_sweep_shows_a_bar_with_time_left_and_a_line_for_each_run(tmp_path: Path) -> None:
    terminal = Terminal("sweep", write_spec(tmp_path, **SPEC), "--results", tmp_path / "results")
    line = re.compile(r"set-itop 90 % ΔT 5 seed [01] +epoch \d+\.\d/400 +test \d+\.\d\d % +R_s 0\.\d\d")
    seen = terminal.read_until(lambda text: bool(line.search(text)) and " left" in text)
    assert re.search(r"runs .*0/2.*left", seen)
    os.killpg(terminal.process.pid, signal.SIGINT)
    seen = terminal.read_until(lambda text: "Run the same command again" in text)
    assert "Stopping after the current step of each run; Ctrl-C again kills them." in seen
    assert re.search(r"stopped .* after step \d+", seen)
    assert terminal.end() == 1
    assert "Traceback" not in seen


def test_watching_goes_on_until_an_interrupt(finished_sweep: FinishedSweep) -> None:
    terminal = Terminal("status", "--watch", "--results", finished_sweep.results)
    terminal.read_until(lambda text: "trial" in text and "14" in text)
    time.sleep(0.5)
    assert terminal.process.poll() is None
    os.killpg(terminal.process.pid, signal.SIGINT)
    assert terminal.end() == 0
    assert "Traceback" not in terminal.seen


def test_following_a_log_shows_a_run_until_it_ends(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, base={**SPEC["base"], "epochs": 150}, grid={"seed": 1})
    sweep = Terminal("sweep", spec, "--results", tmp_path / "results")
    runs = tmp_path / "results" / "runs"
    sweep.read_until(lambda _: any(runs.glob("*/log.txt")) if runs.exists() else False)
    (log,) = runs.glob("*/log.txt")
    followed = itopctl("logs", "--follow", log.parent.name, "--results", tmp_path / "results")
    assert followed.returncode == 0
    assert followed.stdout == log.read_text()
    assert followed.stdout.rstrip().endswith("finished after 1650 steps")
    assert sweep.end() == 0


HOSTILE = "\x1b]52;c;ZXZpbA==\x07 \x1b[2J\x1b[H \u202egnp.exe \x9b2J \x1b[31mred\x1b[0m\ta\rb"


def test_a_log_acts_on_no_terminal_but_by_colours_and_is_raw_elsewhere(tmp_path: Path) -> None:
    lab = Lab.at(tmp_path / "results")
    run, journal = lab.begun(run_id(1))
    run.log.write_text(f"{HOSTILE}\n")
    journal.write("failed", {"step": 1, "epoch": 0.1, "cause": "killed", "message": HOSTILE, "log": [HOSTILE]})
    journal.close()
    for command in ("logs", "show"):
        terminal = Terminal(command, run_id(1), "--results", lab.results.path)
        assert terminal.end() == 0
        assert not re.search("\x07|\x9b|\u202e|\x1b(?!\\[[0-9;]*m)|\r(?!\n)", terminal.raw), repr(terminal.raw)
        assert "␛]52;c;ZXZpbA==␇ ␛[2J␛[H" in terminal.seen
        assert ("\x1b[31mred\x1b[0m\ta" in terminal.raw) == (command == "logs")
    assert itopctl("logs", run_id(1), "--results", lab.results.path).stdout == HOSTILE.replace("\r", "\n") + "\n"


def test_a_colour_that_is_cut_between_two_pieces_is_whole(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    printer = Printer()
    for byte in "\x1b[31mcafé\x1b[0m\r\n\x1b[2Jend\x1b".encode():
        printer.write(bytes([byte]))
    printer.end()
    assert capsys.readouterr().out == "\x1b[31mcafé\x1b[0m\n␛[2Jend␛\x1b[0m"


def test_tables_fit_a_terminal_of_eighty_columns(finished_sweep: FinishedSweep) -> None:
    for command in (("report",), ("report", "-t", "runs"), ("status",), ("status", "--runs"), ("list", "methods")):
        terminal = Terminal(*command, "--results", finished_sweep.results, columns=80)
        assert terminal.end() == 0
        assert max(len(line) for line in terminal.seen.splitlines()) <= 80
        assert "…" not in terminal.seen
