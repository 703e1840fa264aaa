"""What jobs ask of SLURM: the options of a spec's `slurm:` section, of a site's profile and of `--slurm`, in one.

None of it changes an experiment. What excludes each other is refused here, before anything is submitted.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from itopctl.config.reading import Document, KeyPath, read_file, read_text
from itopctl.errors import UserError, quoted, unknown
from itopctl.places import user_folder

Value = str | int | float | bool


class SlurmOptions(BaseModel):
    """What a job asks of SLURM. It does not change the experiment."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    partition: str | None = Field(default=None, description="partition(s) to submit to")
    account: str | None = Field(default=None, description="account to charge")
    qos: str | None = Field(default=None, description="quality of service")
    constraint: str | None = Field(default=None, description="node features required")
    gpus_per_node: Annotated[int, Field(ge=0)] | str | None = Field(
        default=None, description="GPUs a job, such as 1 or a100:2"
    )
    cpus_per_task: int | None = Field(default=None, ge=1, description="CPU cores a process")
    mem: str | Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="memory a job, such as 16G; a number is in megabytes"
    )
    timeout_min: int | None = Field(
        default=None, ge=1, description="time limit of a job in minutes; the partition's, if not given"
    )
    array_parallelism: int | None = Field(
        default=None, ge=1, description="jobs of the sweep at one time, over all its submissions"
    )
    runs_per_job: int | None = Field(default=None, ge=1, le=100_000, description="runs that share a job")
    runs_per_gpu: int | None = Field(
        default=None, ge=1, le=1000, description="runs of a job that go at one time, on each of its GPUs if it has any"
    )
    distributed: bool | None = Field(
        default=None, description="whether a run is trained by one process on each of gpus_per_node"
    )
    max_timeouts: int | None = Field(
        default=None, ge=0, le=1000, description="times a run may reach its time limit and go on; 5 if not given"
    )
    signal_delay_s: int | None = Field(
        default=None,
        ge=1,
        le=3600,
        description="seconds before the time limit at which a run is saved; 90 if not given",
    )
    setup: list[str] | None = Field(default=None, description="shell commands run before the job")
    additional_parameters: dict[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")], Value] | None = Field(
        default=None, description="any further sbatch parameter, such as nice: 100; true for one without a value"
    )

    @property
    def gpu_count(self) -> int:
        """GPUs of a job."""
        text = str(self.gpus_per_node or 0)
        return sum(int(part.rpartition(":")[2]) if part[-1:].isdigit() else 1 for part in text.split(","))

    @property
    def processes(self) -> int:
        """Processes that train one run together."""
        return self.gpu_count if self.distributed else 1


def options_of(document: Document, path: KeyPath, data: Any) -> SlurmOptions:
    """Options as somebody wrote them at `path`. Raises UserError with file, line and key path."""
    if data is None:
        return SlurmOptions()
    if not isinstance(data, dict):
        raise document.error(path, f"a mapping expected; found {quoted(data)}.")
    for key in data:
        if key not in SlurmOptions.model_fields:
            raise document.error((*path, key), _unknown(key))
    try:
        options = SlurmOptions.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise document.error((*path, *_written_part(first["loc"])), _complaint(first)) from None
    for key, value in (options.additional_parameters or {}).items():
        complaint = _not_additional(key)
        if complaint:
            raise document.error((*path, "additional_parameters", key), complaint)
        if isinstance(value, float) and not math.isfinite(value):
            raise document.error((*path, "additional_parameters", key), f"found {quoted(value)}; a number expected.")
        if isinstance(value, str) and re.search(r"[\r\n\0\\]", value):  # sbatch reads a backslash its own way
            raise document.error((*path, "additional_parameters", key), "one line without backslashes expected.")
    for key in ("partition", "account", "qos", "constraint", "gpus_per_node", "mem"):
        value = getattr(options, key)
        if isinstance(value, str) and not re.fullmatch(r"[^\s'\"\\]+", value):
            raise document.error((*path, key), f"a word without spaces and quotes expected; found {quoted(value)}.")
    if isinstance(options.gpus_per_node, str) and not re.fullmatch(_GPUS, options.gpus_per_node):
        raise document.error((*path, "gpus_per_node"), f"found {quoted(options.gpus_per_node)}; such as 1 or a100:2.")
    if isinstance(options.mem, str) and not re.fullmatch(r"\d+[KMGT]?B?", options.mem, re.IGNORECASE):
        raise document.error((*path, "mem"), f"found {quoted(options.mem)}; such as 16G or 512M.")
    if any("\0" in line for line in options.setup or []):
        raise document.error((*path, "setup"), "a command cannot hold a null character.")
    return options


_GPUS = r"([A-Za-z0-9_.-]+:)?\d+(,([A-Za-z0-9_.-]+:)?\d+)*"


def profile_path() -> Path | None:
    """Where a site's defaults lie: `ITOPCTL_SLURM`, else `itopctl/slurm.yaml` in the user's or the machine's
    configuration folder; None where there is no such file."""
    named = os.environ.get("ITOPCTL_SLURM")
    if named:
        return Path(named)
    folders = (user_folder("XDG_CONFIG_HOME", ".config"), Path("/etc"))
    paths = [folder / "itopctl/slurm.yaml" for folder in folders if folder is not None]
    return next((path for path in paths if path.is_file()), None)


def environment_options() -> SlurmOptions:
    """What the environment asks of sbatch, where a site or a user has set it: the weakest word of all."""
    given = {name: os.environ[f"SBATCH_{name.upper()}"] for name in _TEXTS if os.environ.get(f"SBATCH_{name.upper()}")}
    reservation = os.environ.get("SBATCH_RESERVATION")
    further = {"additional_parameters": {"reservation": reservation}} if reservation else {}
    return options_of(Document("SBATCH_…", "", {**given, **further}), (), {**given, **further})


def read_profile() -> SlurmOptions:
    """The site's defaults; none where there is no profile. Raises UserError for what is wrong in it."""
    path = profile_path()
    if path is None:
        return SlurmOptions()
    document = read_file(path)
    inside = isinstance(document.data, dict) and list(document.data) == ["slurm"]  # as it stands in a spec
    return options_of(document, *((("slurm",), document.data["slurm"]) if inside else ((), document.data)))


def defaults() -> SlurmOptions:
    """What holds where neither a spec nor the command line says otherwise."""
    return merged(environment_options(), read_profile())


def parse_options(arguments: Sequence[str], source: str = "--slurm") -> SlurmOptions:
    """`KEY=VALUE` arguments; values are YAML, `additional_parameters.KEY=VALUE` gives any other parameter.

    Args:
        arguments: as they were given.
        source: what errors call the place they were given in.
    """
    data: dict[str, Any] = {}
    for argument in arguments:
        key, separator, text = argument.partition("=")
        key = key.strip()
        if not separator or not text.strip():
            raise UserError(f"{source} {argument}: KEY=VALUE expected.")
        given = text.strip()
        if key in _TEXTS - {"mem"} and given.isdigit():
            data[key] = given  # an account's number, which may begin with zeros
            continue
        try:
            value = read_text(text, f"{source} {argument}").data
        except RecursionError:
            raise UserError(f"{source} {argument}: the value is no YAML.") from None
        first, dot, rest = key.partition(".")
        if dot and first == "additional_parameters":
            further = data.get(first, {})
            if not isinstance(further, dict):
                raise UserError(f"{source} {argument}: {first} was given before, as {quoted(further)}.")
            data[first] = {**further, rest: value}
        elif key == "setup" and isinstance(value, str):
            data[key] = [value]
        else:
            as_read = key not in _TEXTS or value is None or given[0] in "'\""
            data[key] = value if as_read else given
    return options_of(Document(source, "", data), (), data)


def merged(*layers: SlurmOptions) -> SlurmOptions:
    """Options in one: what stands in a later layer replaces what stood before, further parameters one by one."""
    data: dict[str, Any] = {}
    for layer in layers:
        given = layer.model_dump(exclude_none=True)
        data = _without_what_is_replaced(data, given)
        further = {**data.get("additional_parameters", {}), **given.get("additional_parameters", {})}
        data.update(given)
        if further:
            data["additional_parameters"] = further
    return SlurmOptions.model_validate(data)


def _without_what_is_replaced(data: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Options without those that newly given ones exclude: a later layer has its way."""
    new = {key.replace("_", "-") for key in given.get("additional_parameters", {})}
    old = {key: value for key, value in data.items() if not new & _EXCLUSIVE.get(key, frozenset())}
    gone = {other for key in given for other in _EXCLUSIVE.get(key, frozenset())}
    gone |= _MEMORY_SHARES if new & _MEMORY_SHARES else frozenset()
    if "additional_parameters" in old:
        further = old["additional_parameters"].items()
        old["additional_parameters"] = {key: value for key, value in further if key.replace("_", "-") not in gone}
    return old


def check_together(options: SlurmOptions) -> None:
    """Raise UserError for options that exclude each other."""
    further = {key.replace("_", "-") for key in options.additional_parameters or {}}
    for one, others in _EXCLUSIVE.items():
        clashing = sorted(further & others)
        if getattr(options, one) is not None and clashing:
            raise UserError(f"slurm: {one} and {clashing[0]} exclude each other; keep one.")
    memory = sorted(further & _MEMORY_SHARES)
    if len(memory) > 1:
        raise UserError(f"slurm: {memory[0]} and {memory[1]} exclude each other; keep one.")
    delay, limit = options.signal_delay_s, options.timeout_min
    if delay is not None and limit is not None and delay >= 60 * limit:
        raise UserError(f"slurm: signal_delay_s is {delay} and timeout_min {limit} minutes: no time is left to train.")
    if options.distributed:
        if options.gpu_count < 1:
            raise UserError("slurm: distributed trains a run on each of gpus_per_node; give gpus_per_node, too.")
        if (options.runs_per_gpu or 1) > 1:
            raise UserError("slurm: distributed and runs_per_gpu exclude each other; a run has its GPUs for itself.")
    if (options.runs_per_gpu or 1) > 1 and (options.runs_per_job or 1) == 1:
        raise UserError(
            f"slurm: runs_per_gpu is {options.runs_per_gpu}, and a job has one run; give runs_per_job, too."
        )


_TEXTS = frozenset({"partition", "account", "qos", "constraint", "mem"})
"""Options that are text even where they look like a number."""

_MEMORY_SHARES = frozenset({"mem-per-cpu", "mem-per-gpu"})
_EXCLUSIVE: Mapping[str, frozenset[str]] = {
    "mem": _MEMORY_SHARES,
    "gpus_per_node": frozenset({"gpus", "gpus-per-task", "gpus-per-socket", "gres"}),
    "cpus_per_task": frozenset({"cpus-per-gpu"}),
}

_ELSEWHERE: Mapping[str, str] = {
    **{name.replace("_", "-"): f"write {name} itself" for name in SlurmOptions.model_fields},
    "time": "write timeout_min", "gpus-per-node": "write gpus_per_node", "array": "see array_parallelism",
    "job-name": "itopctl names its jobs", "output": "itopctl keeps the logs of its jobs",
    "error": "itopctl keeps the logs of its jobs", "open-mode": "itopctl keeps the logs of its jobs",
    "signal": "write signal_delay_s", "chdir": "jobs run in the snapshot of the code",
    "wrap": "itopctl writes the script",
    "dependency": "use --after", "kill-on-invalid-dep": "use --after", "ntasks": "see distributed",
    "ntasks-per-node": "see distributed", "nodes": "a job has one node", "wait": "use --wait",
    "parsable": "itopctl reads what sbatch says", "quiet": "itopctl reads what sbatch says",
    "clusters": "set SLURM_CLUSTERS, which all of SLURM's commands read",
    "cluster": "set SLURM_CLUSTERS, which all of SLURM's commands read",
    "test-only": "use --dry-run", "requeue": "jobs are requeued anyway",
    "no-requeue": "jobs that are preempted must be able to go on",
}  # fmt: skip


def _not_additional(key: str) -> str | None:
    hint = _ELSEWHERE.get(key.replace("_", "-"))
    return None if hint is None else f"cannot be given here: {hint}."


def _unknown(key: object) -> str:
    hint = _ELSEWHERE.get(str(key).replace("_", "-"))
    if hint is not None:
        return f"unknown key {quoted(key)}: {hint}."
    message = unknown("key", key, SlurmOptions.model_fields)
    return f"{message} Any other sbatch parameter goes under additional_parameters."


def _written_part(location: tuple[str | int, ...]) -> KeyPath:
    """Where an error is, without the names of types that pydantic puts between."""
    return location[:2] if location[:1] in (("setup",), ("additional_parameters",)) else location[:1]


def _complaint(error: Any) -> str:
    if error["loc"][:1] == ("additional_parameters",) and error["type"] == "string_pattern_mismatch":
        return f"found {quoted(error['input'])}; a name such as nice or mail-type expected."
    return f"found {quoted(error['input'])}: {error['msg'].lower()}."
