"""A real SLURM cluster on this machine, for tests: `python -m tests.slurm.cluster up`, `down`, `status`, `env`.

munged, MariaDB, slurmdbd, slurmctld and a slurmd for each node, all as root and all in one folder: `.slurm` of the
repository, or $ITOPCTL_TEST_SLURM. `down` ends each of them and removes the folder. Several clusters, in folders of
their own, may be up at the same time: their ports are chosen when they are made.

It is for one machine and knows nothing of itopctl.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.slurm import packages
from tests.slurm.config import (
    ACCOUNT,
    CLUSTER,
    PATH,
    WITHOUT_ACCOUNTING,
    Settings,
    Site,
    command,
    daemons,
    environment,
    listening,
    slurmd,
)
from tests.slurm.daemons import PATIENCE, ClusterError, Daemons
from tests.slurm.layout import lay_out
from tests.slurm.processes import Process, daemons_with_open, job_processes, wait_until
from tests.slurm.sockets import accepts, free_ports, listens

__all__ = ["WITHOUT_ACCOUNTING", "Cluster", "ClusterError", "Settings", "default_folder"]

_REPOSITORY = Path(__file__).resolve().parents[2]
_RECORD = "cluster.json"
_LONGEST = 50  # characters of the folder's path: the path of a socket in it may have 107
_PLAIN = re.compile(r"[\w./-]+", re.ASCII)  # what a path in slurm.conf may consist of


def default_folder() -> Path:
    """$ITOPCTL_TEST_SLURM, or `.slurm` of the repository."""
    return Path(os.environ.get("ITOPCTL_TEST_SLURM") or _REPOSITORY / ".slurm")


class Cluster:
    """A cluster in a folder, whether it is up or not.

    As a context manager it is up inside and gone afterwards.

    Args:
        folder: where everything of it lies; by default `default_folder()`.
        settings: how it is to be; by default as the cluster in the folder was made, or `Settings()`.
    """

    def __init__(self, folder: Path | str | None = None, settings: Settings | None = None) -> None:
        self.folder = Path(folder if folder is not None else default_folder()).absolute()
        self._wanted = settings
        self._daemons = Daemons(self.folder)

    def __enter__(self) -> Cluster:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    @property
    def settings(self) -> Settings:
        """How it was made, or would be."""
        record = self._record()
        if record is None:
            return self._wanted or Settings()
        return Settings.loaded(record["settings"])

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of its nodes."""
        return self.settings.nodes

    @property
    def conf(self) -> Path:
        """Its slurm.conf."""
        return self._site().folder / "slurm.conf"

    @property
    def env(self) -> dict[str, str]:
        """What SLURM's commands need in their environment to speak to this cluster."""
        return {"SLURM_CONF": str(self.conf), "PATH": f"{os.environ.get('PATH', '')}:{PATH}"}

    def run(self, *command: str | Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command, one of SLURM's say, against this cluster."""
        return subprocess.run(
            [str(word) for word in command],
            env={**os.environ, **self.env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    # Up and down

    def up(self) -> None:
        """Make it, or mend it, or leave it alone if it runs; returns when every node takes jobs.

        Raises:
            ClusterError: it is up with other settings, this is not root, the folder holds something else, or a daemon
                does not start; the end of its log is in the message.
        """
        with self._locked(create=True):
            settings = self.settings
            if self._wanted not in (None, settings):
                raise ClusterError(f"{self.folder} holds a cluster with other settings: take it down first.")
            if self._record() is not None and self.running():
                return
            self._prepare(settings)
            start = {"munged": self._start_munged, "mariadbd": self._start_mariadbd, "slurmdbd": self.start_accounting}
            for daemon in daemons(settings):
                if daemon in start:
                    start[daemon]()
            self.start_controller()
            for node in settings.nodes:
                self._start(slurmd(node))
            self._revive_nodes()
            self.wait_for_nodes()

    def down(self) -> None:
        """End every process of it, jobs included, and remove the folder. Does nothing where there is no cluster.

        Raises:
            ClusterError: the folder holds something else, or a process cannot be ended.
        """
        if not self.folder.exists():
            return
        with self._locked(create=False):
            record = self._record()
            if record is None:
                if any(self.folder.iterdir()):
                    raise ClusterError(f"{self.folder} holds no test cluster: nothing removed.")
                self.folder.rmdir()  # of an `up` that could not install the packages
                return
            for daemon in reversed(daemons(self.settings)):
                self._daemons.stop(daemon, kill=True)
            if not wait_until(self._none_left, PATIENCE):
                raise ClusterError(f"processes of {self.folder} cannot be ended: {self._left()}")
            shutil.rmtree(self.folder)
            if record["link"] is not None:
                Path(record["link"]).unlink(missing_ok=True)

    def running(self) -> bool:
        """Whether every daemon runs and answers, and every node takes jobs."""
        if self._record() is None or any(self._daemons.process(daemon) is None for daemon in daemons(self.settings)):
            return False
        return self._controller_answers() and self._nodes_ready() and self._accounting_answers()

    def node_states(self) -> dict[str, str]:
        """The state of each node in SLURM's words; `*` at its end: does not answer. Empty without a controller."""
        answer = self.run("sinfo", "--noheader", "--Node", "--partition=main", "--format=%N %T")
        return dict(line.split() for line in answer.stdout.splitlines())

    def wait_for_nodes(self, timeout: float = PATIENCE) -> None:
        """Wait until every node answers and takes jobs.

        Raises:
            ClusterError: some does not in time.
        """
        if not wait_until(self._nodes_ready, timeout, every=0.1):
            raise ClusterError(f"nodes are not ready after {timeout:.0f} s: {self.node_states()}")

    # What may fail in a test

    def stop_node(self, node: str, *, kill_jobs: bool = False) -> None:
        """End a node's slurmd. Its jobs run on and can be taken up again, unless they are killed.

        Args:
            node: its name.
            kill_jobs: kill everything that runs there, too, without a word, as when a machine loses power.
        """
        self._check_node(node)
        self._daemons.stop(slurmd(node), kill=kill_jobs)
        if kill_jobs and not wait_until(lambda: not self._kill_jobs(node), PATIENCE):
            raise ClusterError(f"processes on {node} cannot be killed")

    def start_node(self, node: str, *, wait: bool = True) -> None:
        """Start a node's slurmd, and wait until the node takes jobs."""
        self._check_node(node)
        self._start(slurmd(node))
        if wait:
            self._daemons.wait(slurmd(node), lambda: _ready(self.node_states().get(node, "")))

    def stop_controller(self, *, kill: bool = False) -> None:
        """End slurmctld; it writes its state first, unless it is killed."""
        self._daemons.stop("slurmctld", kill=kill)

    def start_controller(self) -> None:
        """Start slurmctld, and wait until it answers; it may take seconds more until it knows all nodes again."""
        self._start("slurmctld")
        self._daemons.wait("slurmctld", self._controller_answers)

    def stop_accounting(self, *, kill: bool = False) -> None:
        """End slurmdbd; the database stays."""
        self._daemons.stop("slurmdbd", kill=kill)

    def start_accounting(self) -> None:
        """Start slurmdbd, and wait until it answers; the cluster and the account are made where they are missing."""
        self._start("slurmdbd")
        self._daemons.wait("slurmdbd", self._accounting_answers)
        if (
            self.run("sacctmgr", "-nP", "show", "assoc", f"cluster={CLUSTER}", f"account={ACCOUNT}").stdout.count("\n")
            < 2
        ):
            self.run("sacctmgr", "-i", "add", "cluster", CLUSTER)
            self.run("sacctmgr", "-i", "add", "account", ACCOUNT, f"cluster={CLUSTER}")
            self.run("sacctmgr", "-i", "add", "user", "root", f"account={ACCOUNT}", f"defaultaccount={ACCOUNT}")

    # How

    def _check_node(self, node: str) -> None:
        if node not in self.nodes:
            raise ValueError(f"no node {node!r}: there are {', '.join(self.nodes)}")

    @contextlib.contextmanager
    def _locked(self, *, create: bool) -> Iterator[None]:
        """One `up` or `down` at a time, by a lock on the folder itself: nothing is left of it when the folder goes."""
        while True:
            if create:
                if os.geteuid() != 0:
                    raise ClusterError("a test cluster needs root.")
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                raise ClusterError(f"{self.folder} was just removed by somebody else.") from None
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                if self.folder.exists() and os.path.samestat(os.fstat(handle), self.folder.stat()):
                    yield
                    return
            finally:
                os.close(handle)

    def _record(self) -> dict[str, Any] | None:
        try:
            record: dict[str, Any] = json.loads((self.folder / _RECORD).read_text())
        except FileNotFoundError:
            return None
        return record

    def _site(self) -> Site:
        record = self._record()
        if record is None:
            raise ClusterError(f"there is no cluster in {self.folder}.")
        return Site(Path(record["link"] or self.folder), socket.gethostname(), record["ports"])

    def _prepare(self, settings: Settings) -> None:
        """Packages, folders, keys, configuration: whatever is missing."""
        if absent := packages.missing(settings):
            packages.install(absent)
        if self._record() is None:
            if any(self.folder.iterdir()):
                raise ClusterError(f"{self.folder} is not empty and holds no test cluster.")
            link = None
            if len(str(self.folder)) > _LONGEST or not _PLAIN.fullmatch(str(self.folder)):
                link = f"/tmp/itop-slurm-{secrets.token_hex(4)}"
            record = {"link": link, "ports": free_ports(listening(settings)), "settings": asdict(settings)}
            (self.folder / _RECORD).write_text(json.dumps(record, indent=1) + "\n")
        lay_out(self.folder, settings, self._site())

    def _start(self, daemon: str) -> None:
        site = self._site()
        self._daemons.start(daemon, command(daemon, site), environment(site))

    def _start_munged(self) -> None:
        self._start("munged")
        self._daemons.wait("munged", lambda: accepts(self._site().folder / "run/munge.socket"))

    def _start_mariadbd(self) -> None:
        if not (self.folder / "database").exists():
            new = self.folder / "database.new"  # an interrupted installation does not count
            shutil.rmtree(new, ignore_errors=True)
            folder = self._site().folder
            made = self.run(
                "mariadb-install-db",
                f"--defaults-file={folder}/mariadb.cnf",
                f"--datadir={folder}/{new.name}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            )
            if made.returncode != 0:
                raise ClusterError(f"mariadb-install-db failed:\n{made.stdout[-2000:]}{made.stderr[-2000:]}")
            new.rename(self.folder / "database")
        self._start("mariadbd")
        self._daemons.wait("mariadbd", lambda: accepts(self._site().folder / "run/mariadb.socket"))

    def _controller_answers(self) -> bool:
        if not listens(self._site().ports["slurmctld"]):  # otherwise `scontrol` tries for ten seconds
            return False
        return self.run("scontrol", "ping").returncode == 0

    def _accounting_answers(self) -> bool:
        if not self.settings.accounting:
            return True
        if not listens(self._site().ports["slurmdbd"]):
            return False
        return self.run("sacctmgr", "--noheader", "show", "cluster").returncode == 0

    def _nodes_ready(self) -> bool:
        states = self.node_states()
        return all(_ready(states.get(node, "")) for node in self.nodes)

    def _revive_nodes(self) -> None:
        """Put nodes to use again that somebody drained or set down; one that just did not answer comes by itself."""
        for node, state in self.node_states().items():
            if state.rstrip("*") in ("drained", "draining", "fail", "down"):
                self.run("scontrol", "update", f"nodename={node}", "state=resume")

    def _kill_jobs(self, node: str) -> list[Process]:
        """Kill what runs for jobs on a node, and say what that was."""
        left = job_processes(self.conf, self.folder.resolve() / "log" / f"{slurmd(node)}.log", node)
        for number in (signal.SIGSTOP, signal.SIGKILL):  # or a slurmstepd would report how what it watches ended
            for process in left:
                process.send(number)
        return left

    def _left(self) -> list[Process]:
        """Daemons whose process file was lost, and what a killed daemon left."""
        return daemons_with_open(self.folder.resolve())

    def _none_left(self) -> bool:
        """Kill what still runs; whether there was nothing."""
        left = self._left()
        for process in left:
            process.send(signal.SIGKILL)
        for node in self.nodes:
            left += self._kill_jobs(node)
        return not left


def _ready(state: str) -> bool:
    return state in ("idle", "mixed", "allocated", "completing")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.slurm.cluster", description="A SLURM cluster for tests.")
    parser.add_argument("command", choices=["up", "down", "status", "env"])
    parser.add_argument("--folder", type=Path, help="where it lies (default: $ITOPCTL_TEST_SLURM or .slurm)")
    parser.add_argument("--no-accounting", action="store_true", help="up: without slurmdbd and its database")
    options = parser.parse_args()
    cluster = Cluster(options.folder, WITHOUT_ACCOUNTING if options.no_accounting else None)
    try:
        match options.command:
            case "up":
                cluster.up()
            case "down":
                cluster.down()
            case "env":
                print(f"export SLURM_CONF={shlex.quote(str(cluster.conf))}")
            case _:
                return _print_status(cluster)
    except (ClusterError, OSError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _print_status(cluster: Cluster) -> int:
    if not (cluster.folder / _RECORD).exists():
        print(f"no cluster in {cluster.folder}")
        return 1
    for daemon in daemons(cluster.settings):
        process = cluster._daemons.process(daemon)
        print(f"{daemon:12} {'down' if process is None else process.pid}")
    if cluster._controller_answers():
        for node, state in cluster.node_states().items():
            print(f"node {node:7} {state}")
    return 0 if cluster.running() else 1


if __name__ == "__main__":
    sys.exit(main())
