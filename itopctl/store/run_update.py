"""What the files of one run say that the database does not know yet: rows to write.

The journal tells what happened; `result.json` alone decides success; the lock tells whether a process is at it, and
the columns of its job whether one waits to be.
"""

from __future__ import annotations

import math
from typing import Any

from itopctl.schema import Source
from itopctl.store import GOES_ON, tables
from itopctl.store.files import last_lines, read_json
from itopctl.store.journal import LOG_LINES, mark_at, read_journal
from itopctl.store.locks import is_held, lock_holder
from itopctl.store.manifests import is_config
from itopctl.store.rundir import RunDirectory

Row = dict[str, Any]

LOST = {"state": "failed", "cause": "lost", "message": "its process is gone and left no result"}
_FINISHED = {"state": "done", "cause": "finished", "message": None, "log": None}  # even if it was taken for lost before
OF_JOB = tables.columns_from(tables.runs, Source.JOB)
_OF_CONFIG = tables.columns_from(tables.runs, Source.CONFIG)
_OF_RESULT = {
    name: tables.fields(tables.runs)[name].written for name in tables.columns_from(tables.runs, Source.RESULT)
}
_OF_ATTEMPT = tables.columns_from(tables.attempts, Source.JOURNAL)
_OF_EVALUATION = ("step", *tables.columns_from(tables.evaluations, Source.JOURNAL))
_OF_LAYER = tables.columns_from(tables.layers, Source.RESULT)


def new_run_row(run_id: str, config: dict[str, Any]) -> Row:
    """The row of a run of which only the config is known."""
    row: Row = {column.name: None for column in tables.runs.columns}
    row.update(run_id=run_id, state="queued", attempts=0, journal_offset=0, damaged_lines=0)
    return with_config(row, config)


def with_config(row: Row, config: dict[str, Any]) -> Row:
    """A run's row with what follows from another config of the same experiment."""
    return {**row, **config_columns(config)}


def config_columns(config: dict[str, Any]) -> Row:
    """Columns of a run that follow from its config."""
    sparsity = config.get("sparsity")
    known = isinstance(sparsity, float) and math.isfinite(sparsity)
    return {
        **{name: config.get(name) for name in _OF_CONFIG},
        "config": config,
        "density": round(1.0 - float(sparsity or 0.0), 12) if known else None,
    }


class RunUpdate:
    """Rows of one run, brought up to date with its files.

    Attributes:
        row: its row in `runs`, or None where its config cannot be read.
        changed: whether `row` differs from what the database has.
        unsaid: whether there is a result, and its attempt has not said yet that it finished.
        just_done: whether the run is finished, and was not when the database last heard of it.
        attempts: rows of `attempts` that are new or changed.
        evaluations, layers: rows to add to these tables.

    Args:
        run: its directory.
        earlier: its row in the database, if it has one.
        attempts: its attempts in the database, by number.
    """

    def __init__(self, run: RunDirectory, earlier: Row | None, attempts: dict[int, Row]) -> None:
        self.run = run
        self.attempts: list[Row] = []
        self.evaluations: list[Row] = []
        self.layers: list[Row] = []
        self._known = dict(attempts)
        self._touched: set[int] = set()
        config = (read_json(self.run.config) or {}).get("config")
        self.row = dict(earlier) if earlier else None
        self.changed = self.just_done = self.unsaid = False
        if isinstance(config, dict) and is_config(
            config
        ):  # what the run itself says goes before what a sweep says of it
            self.row = with_config(self.row or new_run_row(run.run_id, config), config)
        if self.row is None:
            return
        self._read_journal(self.row)
        self._read_result_and_lock(self.row)
        self._consider_job(self.row)
        done, offset = self.row["state"] == "done", self.row["journal_offset"]  # of what is done nothing more is read
        self.row["journal_mark"] = None if done or not offset else mark_at(self.run.journal, offset)
        self.just_done = self.row["state"] == "done" and (earlier is None or earlier["state"] != "done")
        self.row["attempts"] = max(self._known, default=0)
        self.changed = self.row != earlier
        self.attempts = [self._known[number] for number in sorted(self._touched)]

    def _read_journal(self, row: Row) -> None:
        part = read_journal(self.run.journal, row["journal_offset"])
        row["journal_offset"] = part.offset
        row["damaged_lines"] += part.damaged
        for event in part.events:
            if _is_sound(event):
                self._apply(event, row)
            else:
                row["damaged_lines"] += 1

    def _apply(self, event: Row, row: Row) -> None:
        row.update({name: event[name] for name in ("step", "epoch") if event.get(name) is not None})
        match event["event"]:
            case "started":
                self._lose_open_attempts()
                said = {name: event[name] for name in _OF_ATTEMPT if name in event}
                begun = {"state": "running", "started_at": event.get("at"), "resumed_from_step": event["step"]}
                self._set_attempt(event["attempt"], **said | begun)
                row.update(state="running", cause=None, message=None)
                row.update({name: event.get(name) for name in ("total_steps", "total_epochs")})
            case "evaluated" | "topology":
                row["current_exploration_rate"] = event.get("exploration_rate")
                if event.get("test_accuracy") is not None:
                    row["current_test_accuracy"] = event["test_accuracy"]
                self.evaluations.append({
                    "run_id": self.run.run_id, "kind": "epoch" if event["event"] == "evaluated" else "update",
                    **{name: event.get(name) for name in _OF_EVALUATION},
                })  # fmt: skip
            case "finished":
                self._set_attempt(event["attempt"], **_FINISHED, ended_at=event.get("at"))
            case "failed":
                cause, message = (_text(event.get(name)) for name in ("cause", "message"))
                state = "cancelled" if cause == "cancelled" else "failed"
                self._set_attempt(
                    event["attempt"], state=state, cause=cause, message=message, log=_log_of(event),
                    ended_at=event.get("at"),
                )  # fmt: skip
                row.update(state=_state_after(cause or "failed"), cause=cause, message=message)

    def _read_result_and_lock(self, row: Row) -> None:
        held, result = is_held(self.run), read_json(self.run.result)
        if result is not None:
            self._apply_result(result, row)
        elif row["state"] in ("running", "lost") and not held:
            damaged = "its result.json is damaged" if self.run.result.exists() else LOST["message"]
            row.update(state="lost", cause="lost", message=damaged)
        elif held and not self._is_closing():
            row.update(state="running", cause=None, message=None)
        if held:
            return
        if result is not None:
            self.unsaid = bool(self._open_attempts())
            for number in self._open_attempts():
                if number == result.get("attempt", number):
                    self._set_attempt(number, **_FINISHED, ended_at=result.get("finished_at"))
        self._lose_open_attempts()

    def _consider_job(self, row: Row) -> None:
        """What a scheduler's job says of a run that is neither finished nor at a process."""
        if row["job_phase"] is None or row["state"] in ("done", "running"):
            return
        number = max(self._known, default=0)
        ever = self._known.get(number)
        since = ever if number > (row["job_after"] or 0) else None
        live = row["job_phase"] != "ended"
        own = since is not None and since["job_id"] == row["job_id"]
        ended = "cancelled" if self.run.cancel.exists() else row["job_cause"]
        if live and (since is None or not own or since["cause"] in GOES_ON | {"lost"}):
            row.update(state="pending", cause=None, message=row["job_reason"])
        elif not live and since is None and ended is not None:
            row.update(state=_state_after(ended), cause=ended, message=row["job_message"])
        else:
            cause, message = (ever["cause"], ever["message"]) if ever is not None else (None, None)
            row.update(state=_state_after(cause), cause=cause, message=message)

    def _is_closing(self) -> bool:
        """Whether the lock is still that of the last attempt, which has said already how it ended."""
        last = self._known.get(max(self._known, default=0))
        holder = lock_holder(self.run) or {}
        same = last is not None and (last["host"], last["pid"]) == (holder.get("host"), holder.get("pid"))
        return last is not None and same and last["state"] != "running"

    def _apply_result(self, result: Row, row: Row) -> None:
        row.update({name: result.get(written) for name, written in _OF_RESULT.items()})
        row.update(
            state="done", cause="finished", message=None, step=result.get("steps"), epoch=result.get("epochs"),
            current_test_accuracy=result.get("test_accuracy"),
            current_exploration_rate=result.get("exploration_rate"),
        )  # fmt: skip
        layers = result.get("layers")
        for position, layer in enumerate(layers if isinstance(layers, list) else []):
            if isinstance(layer, dict) and isinstance(layer.get("shape"), list):
                kept = {name: layer.get(name) for name in _OF_LAYER}
                self.layers.append({"run_id": self.run.run_id, "position": position, **kept})

    def _open_attempts(self) -> list[int]:
        return [number for number, attempt in self._known.items() if attempt["state"] == "running"]

    def _lose_open_attempts(self) -> None:
        """Attempts that never said how they ended, and cannot any more."""
        for number in self._open_attempts():
            self._set_attempt(number, **LOST, log="\n".join(last_lines(self.run.log, LOG_LINES)) or None)

    def _set_attempt(self, number: int, **columns: Any) -> None:
        fresh = {"run_id": self.run.run_id, "attempt": number, **dict.fromkeys(_OF_ATTEMPT)}
        self._known[number] = self._known.get(number, fresh) | columns
        self._touched.add(number)


def _state_after(cause: str | None) -> str:
    """State of a run that nobody is at any more, by why its last attempt or job ended; None: it did not begin."""
    return {None: "queued", "cancelled": "queued", "lost": "lost"}.get(cause, "failed")


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _log_of(event: Row) -> str | None:
    lines = event.get("log")
    return "\n".join(str(line) for line in lines[-LOG_LINES:]) if isinstance(lines, list) and lines else None


def _is_sound(event: Row) -> bool:
    """Whether an event has what its rows need."""
    needs_step = event["event"] in ("started", "evaluated", "topology")
    numbers = [event.get("attempt"), *([event.get("step")] if needs_step else [])]
    return all(isinstance(n, int) and 0 <= n < 2**63 for n in numbers) and event["attempt"] < 2**31
