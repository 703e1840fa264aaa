"""What runs in a job of SLURM: the runs of that job, by the same pool and workers as on the user's machine.

Started by the batch script with the submission's folder as its argument; which job it is, it learns from SLURM. It
writes run directories only.

SIGUSR2 comes before the time limit, SIGTERM at preemption and at scancel: each run is saved after its present step. At
the time limit the job then asks to be started again; after a preemption SLURM does so by itself.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from submitit.slurm.slurm import SlurmJobEnvironment

from itopctl.config.run_config import RunConfig, calls_own_code
from itopctl.config.slurm import SlurmOptions
from itopctl.dispatch.attempt_values import Job, Stop
from itopctl.dispatch.causes import Cause
from itopctl.dispatch.lost_attempts import has_given_up
from itopctl.dispatch.manifest import record_config
from itopctl.dispatch.pool import Outcome, Pool
from itopctl.dispatch.scheduler import SchedulerError
from itopctl.dispatch.script import signal_delay
from itopctl.dispatch.slots import Slot, available_cores, plan_slots, visible_gpus
from itopctl.dispatch.slurm import Slurm
from itopctl.dispatch.snapshot import code_here
from itopctl.errors import plural
from itopctl.store.files import read_json, write_json
from itopctl.store.journal import attempts_in, utc_now
from itopctl.store.submissions import Request, SubmissionDirectory, load_request

MAX_TIMEOUTS = 5
"""Times that a run may reach the time limit of its job and go on, as a rule."""

_AGREE_SECONDS = 600.0
_SAVING_SECONDS = 20.0  # SLURM kills what is left half a minute after SIGTERM, as a rule
_LAST_WORDS_SECONDS = 20.0
_ASK_SECONDS = 3.0  # of the half minute that SLURM leaves a job
_EARLY_SECONDS = 70.0  # SLURM looks at time limits every half minute or so, and signals up to a minute early


class JobProcess:
    """One process of a job: the runs it is to make, and what it does when it is told to end.

    Args:
        directory: of the submission.
        environment: what SLURM says of this job.
    """

    def __init__(self, directory: SubmissionDirectory, environment: SlurmJobEnvironment) -> None:
        self.directory, self.results, self.environment = directory, directory.results, environment
        self.request: Request = load_request(directory)
        self.options = SlurmOptions.model_validate(self.request.options)
        self.job_id = environment.job_id
        self.runs = self.request.jobs[int(environment.array_task_id or 0)]
        configs = read_json(directory.configs) or {}
        self.configs = {run_id: RunConfig.model_validate(configs[run_id]) for run_id in self.runs}
        self.start = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
        self.why: Stop | None = None
        self.to_requeue = False
        self.deadline = math.inf  # by the monotonic clock: when to give up waiting for runs to save themselves
        self.pool: Pool | None = None

    def run(self) -> int:
        """Make the runs; returns the exit code: 0 where all are done."""
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGCONT, signal.SIG_IGN)
        job = Job("slurm", self.job_id, self.request.cluster, self.start, self._code(), self._rank())
        runs = self._runs_to_make()
        self._say(f"job {self.job_id}, start {self.start}: {len(runs)} of {plural(len(self.runs), 'run')} to make")
        slots = self._slots()
        own_code = {run_id for run_id in runs if calls_own_code(self.configs[run_id])}
        data = Path(self.request.data_dir)
        pool = Pool(self.results, data, slots[: len(runs)], self, self._prepare, job, own_code)
        self.pool = pool
        if self.why is not None:
            pool.stop(self.why)
        outcome = pool.run(runs) if runs else Outcome()
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        if outcome.common_cause:
            self._say("stopped after repeated quick failures: " + ": ".join(outcome.common_cause))
        if self._asks_for_another_start():
            self._requeue()
        if not self.leads:
            return self._follow_out(outcome)
        write_json(self.directory.last_words(self.job_id), {"start": self.start, "stopped": outcome.stopped})
        well = all(self._is_done(run_id) or outcome.states.get(run_id) == "elsewhere" for run_id in self.runs)
        return 0 if well else 1

    # The runs ---------------------------------------------------------------------------------------------

    def _is_done(self, run_id: str) -> bool:
        return read_json(self.results.run(run_id).result) is not None

    def _is_to_run(self, run_id: str) -> bool:
        """Not what is finished, was called off, or has had its chance in an earlier start of this job."""
        run = self.results.run(run_id)
        if self._is_done(run_id) or run.cancel.exists() or has_given_up(run, self.job_id):
            return False
        own = [attempt for attempt in attempts_in(run.journal) if attempt.job_id == self.job_id]
        return sum(attempt.cause == "timeout" for attempt in own) <= self._max_timeouts

    @property
    def _max_timeouts(self) -> int:
        return MAX_TIMEOUTS if self.options.max_timeouts is None else self.options.max_timeouts

    def _prepare(self, run_id: str) -> None:
        record_config(self.results, run_id, self.configs[run_id])

    def _slots(self) -> Sequence[Slot]:
        if self.options.distributed:
            return [Slot(self.options.cpus_per_task or 1)]  # with all GPUs of the job in sight
        gpus = visible_gpus() if self.options.gpu_count else []
        together = self.options.runs_per_gpu or 1
        cores = self.options.cpus_per_task or int(os.environ.get("SLURM_CPUS_ON_NODE") or 0) or available_cores()
        return plan_slots(None if gpus else together, together, cores, gpus)

    def _code(self) -> dict[str, Any]:
        """What runs here, and what was submitted, where that is something else."""
        asked = self.request.code
        here = code_here([self.results.path, Path(self.request.data_dir)], asked.get("modules", ()))
        found = here.of_attempt()
        if here.digest != asked.get("digest"):
            self._say(f"the code has changed since it was submitted: {asked.get('digest')} then, {here.digest} now")
            found["submitted_code"] = asked.get("digest")
        return found

    # Several processes --------------------------------------------------------------------------------------

    @property
    def leads(self) -> bool:
        """Whether this is the process of its job that decides; most jobs have one alone."""
        return self.environment.global_rank == 0

    def _rank(self) -> dict[str, Any] | None:
        """Who this is among the processes that train a run together."""
        if not self.options.distributed:
            return None
        here = self.environment
        return {"index": here.global_rank, "count": here.num_tasks, "local": here.local_rank}

    def _runs_to_make(self) -> list[str]:
        """What this job has to do; several processes must agree on it, so the first tells the others."""
        agreed = self.directory.path / f"runs-{self.job_id}-{self.start}.json"
        if self.leads:
            runs = [run_id for run_id in self.runs if self._is_to_run(run_id)]
            if self.options.distributed:
                write_json(agreed, {"runs": runs})
            return runs
        until = time.monotonic() + _AGREE_SECONDS
        while (told := read_json(agreed)) is None and time.monotonic() < until and self.why is None:
            time.sleep(0.2)
        return list(told["runs"]) if told else []

    def _follow_out(self, outcome: Outcome) -> int:
        """End as a process that follows: after the first, which has more to write, and whose end is the job's."""
        if "failed" in outcome.states.values():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(_LAST_WORDS_SECONDS)
            return 1
        return 0

    # Ending early -----------------------------------------------------------------------------------------

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        # The first says it all. Whatever this process starts gets the next ones, too, unless they are ignored.
        for one in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(one, signal.SIG_IGN)
        if self.why is not None:
            return
        self.deadline = time.monotonic() + _SAVING_SECONDS
        self.why = self._reason(number)
        if self.pool is not None:
            self.pool.stop(self.why)

    def _reason(self, number: int) -> Stop:
        """Why this job is told to end: its time is up, somebody cancelled it, or others need its place."""
        told = f"job {self.job_id} was told to end ({signal.Signals(number).name})"
        try:
            job = Slurm().own_job(self.job_id, timeout=_ASK_SECONDS)
        except SchedulerError:  # no time to ask again
            self.to_requeue = number == signal.SIGUSR2
            return ("timeout" if number == signal.SIGUSR2 else "preempted"), told
        self.to_requeue = number == signal.SIGUSR2 or (job.running and job.preempted)
        left = job.seconds_left
        if job.preempted or job.restarts > self.start:
            return "preempted", told
        if number == signal.SIGUSR2:
            near = left is None or left <= signal_delay(self.options) + _EARLY_SECONDS
            if left is not None and near:
                self.deadline = time.monotonic() + max(_SAVING_SECONDS, left - _SAVING_SECONDS)
            return ("timeout", f"{told}, its time is nearly up") if near else ("preempted", told)
        if job.time_is_up or (left is not None and left <= 0):
            return "timeout", f"{told}, its time is up"
        return "cancelled", f"{told}, it was cancelled"

    def _asks_for_another_start(self) -> bool:
        """SLURM does not start a job again that ends by itself, before its limit or in the grace of a preemption."""
        return self.leads and self.to_requeue and any(self._is_to_run(run_id) for run_id in self.runs)

    def _requeue(self) -> None:
        self._say("asking for another start")
        try:
            Slurm().requeue(self.job_id)
        except SchedulerError as error:
            self._say(str(error))
        else:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(30)  # until SLURM ends this process: its exit would count as the job's

    # Observer of the pool ---------------------------------------------------------------------------------

    def event(self, event: dict[str, Any]) -> None:
        pass

    def started(self, run_id: str) -> None:
        self._say(f"run {run_id} started")

    def ended(self, run_id: str, state: str, cause: Cause | None, message: str | None, again: bool) -> None:
        self._say(f"run {run_id} {state}" + (f": {cause}: {message}" if message else "") + again * "; once more")

    def note(self, text: str) -> None:
        self._say(text)

    def tick(self) -> None:
        """What does not save itself in time is given up, while this process can still say so, and ask for a start."""
        if time.monotonic() > self.deadline and self.pool is not None:
            self.deadline = math.inf
            self._say("not all runs could be saved in time; they go on from their last checkpoints")
            self.pool.give_up()

    def _say(self, text: str) -> None:
        print(f"{utc_now()} {text}", flush=True)


def main() -> int:
    """Be the job that SLURM started."""
    return JobProcess(SubmissionDirectory(Path(sys.argv[1])), SlurmJobEnvironment()).run()


if __name__ == "__main__":
    sys.exit(main())
