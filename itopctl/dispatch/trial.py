"""Making the networks of some runs before any of them is started, in processes of their own.

A user's model may end its process, hang, print, or change settings of the process: none of that reaches the command
that asks, nor the next model. One process imports torch once and forks a child for each model.

As a program it reads configs as JSON from standard input and reports JSON lines to the file descriptor it is told.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from itopctl.catalogue import ARGS, MODELS
from itopctl.config.run_config import RunConfig, calls_own_code
from itopctl.dispatch.start import same_package
from itopctl.dst.network_outline import LayerOutline, Outline
from itopctl.errors import ItopctlError, describe_exit, is_want_of_memory
from itopctl.plan.forecast import Fault, Impossible
from itopctl.train.own_code import shown_path

LIMIT_SECONDS = 120.0
"""A model that takes longer is left to its run: whether it can be made is not known."""

SURE_SPARSITY = 0.999
"""Up to it every model of this package can be made for every data set, with the density of all layers allocated."""

_QUIET_SECONDS = 5.0
_OUTLINED = {
    "model", "dataset", "sparsity", "allocation", "allocation_power", "keep_dense", "layer_density", "dense_in_budget",
    "drop", "growth", "redistribution", "also_mask", *ARGS,
}  # fmt: skip
_SURE_ALLOCATIONS = (None, "uniform", "er", "erk")
_GPU_WORDS = ("cuda", "nvidia", "no gpu", "hip gpu")

Look = Callable[[RunConfig], Outline | Impossible]


def is_sure(config: RunConfig) -> bool:
    """Whether a run's network can be made in any case: all of it is this package's own, and none of it unusual."""
    return (
        config.model in MODELS
        and not calls_own_code(config)
        and config.allocation in _SURE_ALLOCATIONS
        and config.allocation_power in (None, 1.0)
        and not config.keep_dense
        and not config.also_mask
        and not config.layer_density
        and config.sparsity <= SURE_SPARSITY
    )


def try_out(configs: Iterable[RunConfig], tell: Callable[[str], None], limit: float = LIMIT_SECONDS) -> Look:
    """Make the networks of some runs, each that is different once.

    Args:
        configs: of the runs.
        tell: gets a sentence where a model takes long.
        limit: seconds for each model.

    Returns:
        A function from each of these configs to the outline of its network, or why there is none.
    """
    by_model: dict[str, dict[str, RunConfig]] = {}
    for config in configs:
        by_model.setdefault(config.model, {})[_key(config)] = config
    found: dict[str, Outline | Impossible] = {}
    if by_model:
        for report in _reports([list(members.values()) for members in by_model.values()], tell, limit):
            if "key" in report:
                found[report["key"]] = _read(report)
            for key in by_model[report["ended"]] if "ended" in report else ():
                found.setdefault(key, _read(report))
    lost = Impossible("the process that tried to make the model has ended early.", "unknown")
    return lambda config: found.get(_key(config), lost)


def outlines_of(configs: Iterable[RunConfig], tell: Callable[[str], None]) -> Look:
    """As `try_out`, with models of this package made in this process (which imports torch), as they are asked for."""
    from itopctl.train.model_outline import outline_of

    look = try_out(filter(calls_own_code, configs), tell)
    return lambda config: look(config) if calls_own_code(config) else outline_of(config)


def _key(config: RunConfig) -> str:
    return config.model_dump_json(include=_OUTLINED)


def _read(report: dict[str, Any]) -> Outline | Impossible:
    if "problem" in report:
        return Impossible(report["problem"], report["fault"])
    outline = report["outline"]
    layers = tuple(LayerOutline(**layer) for layer in outline.pop("layers"))
    pairs = tuple((name, size) for name, size in outline["left_dense"])
    return Outline(layers, **{**outline, "starved": tuple(outline["starved"]), "left_dense": pairs})


def _reports(models: list[list[RunConfig]], tell: Callable[[str], None], limit: float) -> Iterator[dict[str, Any]]:
    """What the process reports; it, and all that it started, ends with this."""
    receive, send = os.pipe()
    process = subprocess.Popen(
        [*same_package(__name__), str(send), str(limit)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, pass_fds=(send,), start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    os.close(send)
    asked = json.dumps([[config.model_dump(mode="json") for config in members] for members in models]).encode()
    try:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(asked)
        at, told = "", ""
        for line in _lines(receive):
            report = {} if line is None else json.loads(line)
            at = report.get("begun", at)
            if line is None and at != told:
                tell(f"still making model {at!r}, to see whether it can be made. Nothing is started yet.")
                told = at
            if "over" in report:
                return
            yield report
    finally:
        os.close(receive)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _lines(descriptor: int) -> Iterator[bytes | None]:
    """Lines until the end; None each time that nothing comes for a while."""
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            if not selector.select(_QUIET_SECONDS):
                yield None
                continue
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                return
            *lines, pending = (pending + chunk).split(b"\n")
            yield from lines


# The process that tries ---------------------------------------------------------------------------------------


def main(send: int, limit: float) -> None:
    """Try the lists of configs on standard input, each of one model, each in a child of its own."""
    models = [[RunConfig.model_validate(config) for config in members] for members in json.load(sys.stdin)]
    from itopctl.train.model_outline import prepare

    prepare()
    with os.fdopen(send, "wb") as stream:

        def report(**fields: Any) -> None:
            stream.write(json.dumps(fields).encode() + b"\n")
            stream.flush()

        for members in models:
            model = members[0].model
            report(begun=model)
            child = os.fork()
            if child == 0:
                try:
                    for config in members:
                        report(key=_key(config), **_tried(config))
                finally:
                    os._exit(0)
            report(ended=model, **_end_of(child, model, limit))
        report(over=True)


def _tried(config: RunConfig) -> dict[str, Any]:
    """The outline of a run's network, or why there is none."""
    from itopctl.train.model_outline import outline_of

    try:
        return {"outline": asdict(outline_of(config))}
    except ItopctlError as error:
        return {"problem": str(error), "fault": _fault_of(error.__cause__)}


def _fault_of(error: BaseException | None) -> Fault:
    """Whose fault an exception is, as far as that can be told."""
    from itopctl.train.process_settings import UnfitSettingsError

    if error is None:
        return "model"
    if isinstance(error, UnfitSettingsError):
        return "settings"
    if is_want_of_memory(error):
        return "unknown"
    wants_gpu = any(word in str(error).lower() for word in _GPU_WORDS)
    return "machine" if wants_gpu or isinstance(error, (ImportError, OSError)) else "model"


def _end_of(child: int, model: str, limit: float) -> dict[str, Any]:
    """Wait for a child; what its end says of the configs that it has not answered."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            said = f"{_place_of(model)}{describe_exit(code)}."
            return {"problem": said, "fault": "unknown" if code == -signal.SIGKILL else "model"}
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return {"problem": f"{_place_of(model)}it was not made in {limit:g} s.", "fault": "unknown"}


def _place_of(model: str) -> str:
    """`my_models.py:12: `, where a function is defined; its module is not imported."""
    module, _, function = model.partition(":")
    for folder in (*sys.path, str(Path.cwd())):
        base = Path(folder, *module.split("."))
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            with contextlib.suppress(OSError, SyntaxError, ValueError):
                body = ast.parse(file.read_bytes()).body
                lines = [node.lineno for node in body if getattr(node, "name", None) == function]
                return f"{shown_path(file)}:{(lines or [1])[-1]}: "
    return ""


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
