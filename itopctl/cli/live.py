"""What a person sees while a sweep runs: a bar and a line for each running run, or plain lines where nobody looks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from itopctl.api.running import Show
from itopctl.config.run_config import RunConfig, flat_settings, varying_within
from itopctl.dispatch.causes import Cause
from itopctl.report.number_text import duration, percent, rate, sparsity


def run_labels(configs: Mapping[str, RunConfig]) -> dict[str, str]:
    """Each run in a few words: what it is, and what else tells it from the others."""
    flat = {run_id: flat_settings(config.model_dump(mode="json")) for run_id, config in configs.items()}
    varying = [name for name in varying_within(flat.values(), "method") if name not in _IN_EVERY_LABEL]
    # Where runs have different optimizers, the name says more than all the settings that come with it.
    named = {name.removesuffix(".name") for name in varying if name.endswith(".name")}
    told = [n for n in varying if n.endswith((".name", ".lr")) or n.partition(".")[0] not in named]
    labels = {}
    for run_id, config in configs.items():
        parts = [run_id[:_SHORT_ID], config.method]
        parts += [str(sparsity(config.sparsity))] if config.sparsity else []
        parts += [f"ΔT {config.update_interval}"] if config.update_interval else []
        parts += [f"seed {config.seed}"]
        for name in told:
            if flat[run_id].get(name) is not None:
                words = name.removesuffix(".name").rpartition(".")[2].replace("_", " ")
                parts.append(f"{words} {flat[run_id][name]}")
        labels[run_id] = " ".join(parts)
    return labels


def _ending(state: str, cause: Cause | None, message: str | None, known: Mapping[str, Any]) -> tuple[str, str]:
    """How an attempt ended, in words, and the style for them."""
    if state == "done" and not known:
        return "by another command", ""
    if state == "done":
        return f"test {percent(known.get('test_accuracy'))} %  R_s {rate(known.get('exploration_rate'))}", ""
    if state == "failed":
        return f"{cause}: {message}", "red"
    return message or "", "yellow"


_IN_EVERY_LABEL = ("method", "sparsity", "update_interval", "seed")
_SHORT_ID = 8  # digits; enough to tell the runs of a sweep apart


class SweepDisplay:
    """Observer of a pool: live in a terminal, line by line elsewhere. A context manager.

    Args:
        console: where to write.
        show: what there is to watch.
    """

    def __init__(self, console: Console, show: Show) -> None:
        self.console, self.configs, self.on_end = console, show.configs, show.on_end
        self.labels = run_labels(show.configs)
        self.total, self.workers = len(show.to_run), show.workers
        self.running: dict[str, dict[str, Any]] = {}
        self.finished = 0
        self.failed = 0
        self.epochs_total = sum(show.configs[run_id].total_epochs for run_id in show.to_run)
        self.epochs_ended = 0.0
        self.first_step_at: float | None = None
        self.bar = Progress(
            TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"), console=console,
        )  # fmt: skip
        self.task = self.bar.add_task("runs", total=self.total, left="starting workers")
        self.warning = ""
        # No thread of its own: a display that redraws while a signal handler runs could deadlock on its lock.
        self.live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self.drawn_at = 0.0

    def __enter__(self) -> SweepDisplay:
        if self.live:
            self.live.start()
        else:
            self._line(f"{self.total:,} to run, {self.workers} at a time")
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    # Observer ---------------------------------------------------------------------------------------------

    def started(self, run_id: str) -> None:
        self.running[run_id] = {}
        if not self.live:
            self._line(f"started   {self.labels[run_id]}")

    def event(self, event: dict[str, Any]) -> None:
        known = self.running.get(event["run_id"])
        if known is None:
            return
        known.update({name: value for name, value in event.items() if value is not None})
        if event["event"] == "started" and self.first_step_at is None:
            self.first_step_at = time.monotonic()

    def ended(self, run_id: str, state: str, cause: Cause | None, message: str | None, again: bool) -> None:
        known = self.running.pop(run_id, {})
        if not again and state in ("done", "failed"):
            self.finished += 1
            self.failed += state == "failed"
            self.epochs_ended += self.configs[run_id].total_epochs
        words, style = _ending(state, cause, message, known)
        if again:
            words += "  (will be tried again)"
        shown = "stopped" if state == "cancelled" else state
        line = f"{shown:<9} {self.labels[run_id]}  {words}"
        if not self.live:
            self._line(f"{line}  [{self.finished}/{self.total}]")
        elif state != "done":
            self.live.console.print(Text(line, style=style))
        self.on_end(run_id)

    def note(self, text: str) -> None:
        if not self.live:
            self._line(text)
        else:
            self.live.console.print(Text(text, style="yellow"))

    def tick(self) -> None:
        if self.live and time.monotonic() - self.drawn_at > 0.2:
            self.drawn_at = time.monotonic()
            self.live.update(self._picture(), refresh=True)

    def stopping(self) -> None:
        """Say that an interrupt was heard."""
        again = "Killing them." if self.warning else ""
        self.warning = again or "Stopping after the current step of each run; Ctrl-C again kills them."
        self.drawn_at = 0.0  # at the next tick it is seen
        if not self.live:
            self._line(self.warning)

    # Drawing ----------------------------------------------------------------------------------------------

    def _picture(self) -> Group:
        left = self.seconds_left()
        words = (
            "starting workers" if self.first_step_at is None else f"{duration(left)} left" if left is not None else ""
        )
        if self.failed:
            words += f"  {self.failed} failed"
        self.bar.update(self.task, completed=self.finished, left=words)
        lines = Table.grid(padding=(0, 2), expand=True)
        lines.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        rows = [self._line_of(run_id, known) for run_id, known in self.running.items()]
        for texts in list(zip(*rows, strict=True))[1:]:
            lines.add_column(no_wrap=True, min_width=max(map(cell_len, texts)))
        for row in rows:
            lines.add_row(*map(Text, row))
        warning = [Text(self.warning, style="yellow")] if self.warning else []
        return Group(self.bar, lines, *warning)

    def _line_of(self, run_id: str, known: Mapping[str, Any]) -> tuple[str, str, str, str]:
        return (
            self.labels[run_id],
            f"epoch {known.get('epoch', 0.0):.1f}/{self.configs[run_id].total_epochs}",
            f"test {percent(known.get('test_accuracy'))} %",
            f"R_s {rate(known.get('exploration_rate'))}",
        )

    def seconds_left(self) -> float | None:
        """By the epochs done since the first worker began; None until there is something to go by."""
        if self.first_step_at is None:
            return None
        done = self.epochs_ended + sum(known.get("epoch", 0.0) for known in self.running.values())
        spent = time.monotonic() - self.first_step_at
        return spent / done * (self.epochs_total - done) if done > 0 and spent > 1.0 else None

    def _line(self, text: str) -> None:
        self.console.print(Text(text))
