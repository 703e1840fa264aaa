"""What a test cluster is made of and the text of its configuration files. Pure: starts nothing, writes nothing."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

CLUSTER = "itoptest"
ACCOUNT = "lab"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Settings:
    """How the cluster is to be. Times are in seconds, memory in MB.

    The times are short, so that what takes minutes on a real cluster takes seconds in a test.
    """

    accounting: bool = True
    nodes: tuple[str, ...] = ("n1", "n2")
    cpus: int = 4
    """Of each node, whatever the host has: tests run several small jobs at once."""
    memory: int = 4000
    gpus: int = 2
    max_array_size: int = 51
    """As SLURM counts it: the largest index of an array is one less."""
    min_job_age: int = 300
    """How long the controller remembers a finished job."""
    kill_wait: int = 10
    """From SIGTERM to SIGKILL."""
    grace_time: int = 0
    """How long a job in `main` may go on after the SIGTERM of a preemption before it is requeued."""
    node_timeout: int = 10
    """After this long without an answer a node is down; with the questions asked, that is 20 to 30 s after its end."""
    message_timeout: int = 5
    """How long commands try a controller that is not there."""
    requeue_delay: int = 5
    """A requeued job waits this long, twice at most: the lifetime of credentials (120 by default)."""
    kill_over_memory: bool = False
    """Kill jobs that hold more memory than they asked for. Without cgroups they are FAILED, not OUT_OF_MEMORY."""
    extra: tuple[str, ...] = ()
    """Further lines of slurm.conf."""

    @classmethod
    def loaded(cls, saved: dict[str, Any]) -> Settings:
        """As they come back from JSON, which has no tuples; of a cluster that another version made, what is known."""
        known = {field.name for field in fields(cls)} & saved.keys()
        values: dict[str, Any] = {name: tuple(it) if isinstance(it := saved[name], list) else it for name in known}
        return cls(**values)


WITHOUT_ACCOUNTING = Settings(accounting=False, nodes=("m1",))
"""The cheapest cluster: no database, and one node, whose name no other cluster here has."""


@dataclass(frozen=True)
class Site:
    """Where it lies: the folder, by a path that slurm.conf can hold, the host's name, a port for each that listens."""

    folder: Path
    host: str
    ports: dict[str, int]


def daemons(settings: Settings) -> list[str]:
    """The names of all its daemons, in the order in which they have to start."""
    accounting = ["mariadbd", "slurmdbd"] if settings.accounting else []
    return ["munged", *accounting, "slurmctld", *(slurmd(node) for node in settings.nodes)]


def slurmd(node: str) -> str:
    """The name of a node's daemon."""
    return f"slurmd-{node}"


def listening(settings: Settings) -> list[str]:
    """The daemons that need a port."""
    return [daemon for daemon in daemons(settings) if daemon not in ("munged", "mariadbd")]


def command(daemon: str, site: Site) -> list[str]:
    """The command that runs a daemon in the foreground."""
    folder = site.folder
    conf = f"{folder}/slurm.conf"
    match daemon:
        case "munged":
            return [
                "munged",
                "--foreground",
                "--force",  # the socket is for root alone, which munged takes for a mistake
                "--num-threads=10",
                f"--key-file={folder}/munge.key",
                f"--socket={folder}/run/munge.socket",
                f"--pid-file={folder}/run/munged.pid",
                f"--seed-file={folder}/run/munge.seed",
                f"--log-file={folder}/log/munged.log",
            ]
        case "mariadbd":
            return ["mariadbd", f"--defaults-file={folder}/mariadb.cnf"]
        case "slurmdbd":
            return ["slurmdbd", "-D"]
        case "slurmctld":
            return ["slurmctld", "-D", "-f", conf]
        case _:
            return ["slurmd", "-D", "-f", conf, "-N", daemon.removeprefix("slurmd-")]


def environment(site: Site) -> dict[str, str]:
    """What daemons get in their environment: little, since jobs inherit from them."""
    return {
        "PATH": PATH,
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "SLURM_CONF": f"{site.folder}/slurm.conf",
        "MYSQL_UNIX_PORT": f"{site.folder}/run/mariadb.socket",
    }


def files(settings: Settings, site: Site) -> dict[str, str]:
    """The configuration files by name."""
    made = {
        "slurm.conf": slurm_conf(settings, site),
        "gres.conf": gres_conf(settings, site),
        "cgroup.conf": "CgroupAutomount=no\n",  # found nowhere, a warning in every log
    }
    if settings.accounting:
        made |= {"slurmdbd.conf": slurmdbd_conf(site), "mariadb.cnf": mariadb_cnf(site)}
    return made


def slurm_conf(settings: Settings, site: Site) -> str:
    """slurm.conf: all nodes are this host, each with a port of its own."""
    folder = site.folder
    if settings.accounting:
        storage = f"""\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={site.ports["slurmdbd"]}
AccountingStoragePass={folder}/run/munge.socket
AccountingStorageTRES=gres/gpu"""
    else:
        storage = "AccountingStorageType=accounting_storage/none"
    nodes = "\n".join(
        f"NodeName={node} NodeHostname={site.host} NodeAddr=127.0.0.1 Port={site.ports[slurmd(node)]}"
        f" CPUs={settings.cpus} RealMemory={settings.memory} Gres=gpu:{settings.gpus}"
        for node in settings.nodes
    )
    everywhere = f"Nodes={','.join(settings.nodes)} MaxTime=INFINITE State=UP"
    extra = "".join(line + "\n" for line in settings.extra)
    return f"""\
ClusterName={CLUSTER}
SlurmctldHost={site.host}(127.0.0.1)
SlurmctldPort={site.ports["slurmctld"]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/run/munge.socket,cred_expire={settings.requeue_delay}

StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
MailProg=/bin/true

ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU={settings.memory // settings.cpus}
GresTypes=gpu
SlurmdParameters=config_overrides

PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
MaxArraySize={settings.max_array_size}
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1,bf_continue

MinJobAge={settings.min_job_age}
KillWait={settings.kill_wait}
SlurmdTimeout={settings.node_timeout}
MessageTimeout={settings.message_timeout}
ReturnToService=2
InactiveLimit=0
MpiDefault=none

JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
{"JobAcctGatherParams=OverMemoryKill" if settings.kill_over_memory else ""}
{storage}

{nodes}
PartitionName=main {everywhere} Default=YES PriorityTier=1 GraceTime={settings.grace_time}
PartitionName=urgent {everywhere} PriorityTier=10 PreemptMode=OFF
{extra}"""


def gres_conf(settings: Settings, site: Site) -> str:
    """gres.conf. GPUs have to be device files: where they are not, jobs get no CUDA_VISIBLE_DEVICES."""
    if not settings.gpus:
        return "AutoDetect=off\n"
    nodes = "".join(
        f"NodeName={node} Name=gpu File={site.folder}/gpu/{node}-[0-{settings.gpus - 1}]\n" for node in settings.nodes
    )
    return "AutoDetect=off\n" + nodes


def slurmdbd_conf(site: Site) -> str:
    """slurmdbd.conf. The database is reached by a socket, whose path slurmdbd takes from MYSQL_UNIX_PORT."""
    return f"""\
AuthType=auth/munge
AuthInfo=socket={site.folder}/run/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={site.ports["slurmdbd"]}
SlurmUser=root
PidFile={site.folder}/run/slurmdbd.pid
LogFile={site.folder}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
"""


def mariadb_cnf(site: Site) -> str:
    """my.cnf of a small database without a network, in which a crash may lose a second."""
    return f"""\
[mariadbd]
user=root
datadir={site.folder}/database
socket={site.folder}/run/mariadb.socket
pid-file={site.folder}/run/mariadbd.pid
tmpdir={site.folder}/run
skip-networking
skip-log-bin
innodb_log_file_size=8M
innodb_buffer_pool_size=64M
innodb_flush_log_at_trx_commit=0
innodb_lock_wait_timeout=900
"""
