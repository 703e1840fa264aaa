"""Looking after runs and results: cancelling, deleting, exporting, exchanging, checking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itopctl.api.opening import make_results
from itopctl.api.specs import Overrides, Spec, as_texts
from itopctl.api.workplace import Workplace
from itopctl.errors import EnvironmentUnfitError, UserError

if TYPE_CHECKING:
    from itopctl.api.diagnosis import Finding as Diagnosis
    from itopctl.api.exporting import Exported
    from itopctl.dispatch.cancellation import Cancellation, Ended
    from itopctl.dispatch.deletion import Forgetting
    from itopctl.store.archives import Imported
    from itopctl.store.maintenance import Finding


class Keeping(Workplace):
    """Looking after runs and results."""

    def cancel(self, *names: str) -> tuple[Cancellation, Ended]:
        """Stop runs that wait or run; what they have reached is kept, and the same sweep goes on from there.

        Jobs of others, and runs that are finished, are never touched.

        Args:
            *names: sweeps, or runs by their first digits; none: all runs.

        Returns:
            What was called off, and what became of jobs on a cluster (`Ended.certain`: none of them goes on).
        """
        planned = self.cancellation(*names)
        return planned, self.carry_out_cancellation(planned)

    def cancellation(self, *names: str) -> Cancellation:
        """What `cancel` would stop; nothing is."""
        from itopctl.dispatch.cancellation import plan_cancellation
        from itopctl.dispatch.slurm import Slurm
        from itopctl.store.queries import named_runs

        with self.opened(first=self.look, writes=True) as store:
            return plan_cancellation(self.folder, named_runs(store, names), Slurm().cluster)

    def carry_out_cancellation(self, cancellation: Cancellation) -> Ended:
        """Stop what a cancellation names.

        Raises:
            SchedulerError: SLURM did not take it; the runs are marked all the same.
        """
        from itopctl.dispatch.cancellation import Ended, carry_out
        from itopctl.dispatch.scheduler import SchedulerError
        from itopctl.dispatch.slurm import Slurm

        if not cancellation.runs:
            return Ended()
        try:
            ended = carry_out(self.folder, cancellation, Slurm())
        except SchedulerError as error:
            raise SchedulerError(
                f"{str(error).rstrip('.')}. The runs are marked, and stop when they find that; what waits in the "
                "cluster's queue needs another `itopctl cancel`."
            ) from error
        with self.opened(first=self.look, writes=True):
            return ended

    def forget(self, *names: str, yes: bool = False) -> Forgetting:
        """Delete sweeps with their runs, or runs: configs, journals, results, checkpoints, networks, rows.

        Runs that another sweep has stay. Nothing is deleted without `yes`.

        Args:
            *names: sweeps, or runs by their first digits.
            yes: delete them; else the value returned says what would be deleted.

        Raises:
            UserError: no such sweep or run, none named, a run of several sweeps, a run that is at work.
        """
        planned = self.forgetting(*names)
        return self.carry_out_forgetting(planned) if yes else planned

    def forgetting(self, *names: str) -> Forgetting:
        """What `forget` would delete; nothing is."""
        from itopctl.dispatch.deletion import plan_forgetting
        from itopctl.store.queries import named_runs, sweep_names

        if not names:
            raise UserError("name the sweeps or runs to forget.")
        with self.opened(first=self.look, writes=True) as store:
            known = set(sweep_names(store))
            sweeps = [name for name in names if name in known]
            others = [name for name in names if name not in known]
            return plan_forgetting(self.folder, sweeps, named_runs(store, others) if others else [])

    def carry_out_forgetting(self, forgetting: Forgetting) -> Forgetting:
        """Delete what a forgetting names, and nothing else. Raises UserError where a run is at work since."""
        from itopctl.dispatch.deletion import carry_out
        from itopctl.store.maintenance import forget
        from itopctl.store.queries import named_runs

        with self.opened(writes=True) as store:
            submissions = carry_out(self.folder, forgetting)
            sweeps = forgetting.sweeps
            recorded = named_runs(store, sweeps) if sweeps else []  # also of a command that was killed after the files
            runs = {run_id for run_id in recorded if run_id not in forgetting.kept} | {*forgetting.runs}
            forget(store, runs, sweeps, submissions)
        return replace(forgetting, done=True)

    def export(
        self, run: str, path: Path | str | None = None, *, format: str | None = None, dense: bool = False,
        benchmark: bool = False, trust: bool = False,
    ) -> Exported:  # fmt: skip
        """Write the trained network of a finished run to a file that is read without itopctl.

        The file is read back and compared before it is written, on the test set where that is here.

        Args:
            run: its id, or first digits.
            path: the file; by default `RUN.pt2`, `.onnx` or `.safetensors` in this folder.
            format: `torch`: a program that multiplies by nonzeros alone; `onnx`: a graph with sparse weights;
                `safetensors`: nonzeros and where they stand. By default as the ending of `path` says, else `torch`.
            dense: write weights whole, zeros included.
            benchmark: time it beside the network with whole weights in PyTorch.
            trust: run a model that these results name and that is neither itopctl's nor your own.

        Raises:
            UserError: no such run, one that is not finished or kept no network, a name that fits no format.
            EnvironmentUnfitError: a package is missing, or what the run kept is damaged.
            ItopctlError: the model cannot be written in this format.
        """
        from itopctl.api.exporting import Wanted, export

        return export(self, run, None if path is None else Path(path), Wanted(format, dense, benchmark, trust))

    def export_runs(self, archive: Path | str, *names: str) -> tuple[list[str], list[str], int]:
        """Write finished runs to one file, for others to import: configs, journals, results and logs.

        Args:
            archive: `.tar`, `.tar.gz`, `.tgz` or `.tar.xz`.
            *names: sweeps, or runs by their first digits; none: all runs.

        Returns:
            Ids of the runs that were written, names of the sweeps, and how many runs were left out as not finished.

        Raises:
            EnvironmentUnfitError: none of the runs is finished.
        """
        from itopctl.store.archives import export
        from itopctl.store.queries import named_runs, select_runs

        with self.opened() as store:
            wanted = set(named_runs(store, names))
            rows = [run for run in select_runs(store, columns=("run_id", "state", "sweep")) if run["run_id"] in wanted]
        done = [run for run in rows if run["state"] == "done"]
        if not done:
            raise EnvironmentUnfitError("none of these runs is finished: there is nothing to export.")
        sweeps = sorted({name for run in done for name in run["sweep"].split(",") if name})
        run_ids = [run["run_id"] for run in done]
        export(self.folder, Path(archive), run_ids, sweeps)
        return run_ids, sweeps, len(rows) - len(done)

    def import_runs(self, source: Path | str) -> Imported:
        """Take in somebody else's finished runs. What is finished here stays; nothing that comes in is run.

        Args:
            source: an archive that `export_runs` wrote, or a results folder.
        """
        from itopctl.store.archives import import_runs
        from itopctl.store.ingest import ingest
        from itopctl.store.maintenance import forget_runs

        if not Path(source).exists():
            raise UserError(f"there is no {source}.")
        make_results(self.folder)
        imported = import_runs(self.folder, Path(source), _identity)
        with self.opened(writes=True) as store, store.write() as connection:
            forget_runs(connection, imported.taken)  # rows of attempts that were not finished here give way
            ingest(store, self.folder)
        return imported

    def check_store(self) -> list[Finding]:
        """Compare the store with every run directory, both ways, and look for damage."""
        from itopctl.store.maintenance import check

        with self.opened() as store:
            return check(store, self.folder, _identity)

    def rebuild_store(self) -> Path | None:
        """Make the store anew from the run directories alone; nothing is lost, whatever became of the old one.

        Returns:
            Where the old file was put if it was no database of ours any more.
        """
        from itopctl.store.maintenance import rebuild

        if not self.folder.path.is_dir():
            raise EnvironmentUnfitError(f"no results in {self.folder.path}: there is nothing to rebuild a store from.")
        self.folder.check()
        store, aside = rebuild(self.folder, self.url)
        store.close()
        return aside

    def doctor(
        self, spec: Spec | Sequence[Spec] = (), *, probe: bool = False, minutes: int = 10, slurm: Overrides = ()
    ) -> list[Diagnosis]:
        """Look whether SLURM is there, which partitions and GPUs it has, and whether results and data can be reached.

        Args:
            spec: whose data sets and options to look at.
            probe: submit a one-minute test job to a compute node.
            minutes: how long to wait for that job.
            slurm: further options of jobs, as `{"mem": "32G"}` or `KEY=VALUE` texts.
        """
        from itopctl.api.diagnosis import diagnose
        from itopctl.api.specs import as_list

        return diagnose(self, as_list(spec), as_texts(slurm), probe, minutes)


def _identity(config: Any) -> str:
    """The id of a run with this config. Raises ValueError where it is none."""
    from itopctl.config.identity import run_id
    from itopctl.config.run_config import RunConfig

    return run_id(RunConfig.model_validate(config))
