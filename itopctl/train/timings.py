"""How long layers take, masked and sparse, on this machine: measured once, and kept in a folder of the user's.

So that a run which is tried again, and every run of its kind, is computed in the same way, to the same bits, however
noisy the machine is: what was measured first counts. The folder is `ITOPCTL_CACHE`, else `itopctl` in the user's cache
folder; where it cannot be written, each process measures for itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from itopctl.dst.speed import LayerWork, measure
from itopctl.places import user_folder
from itopctl.train.measure import device_name

_VERSION = 2  # of what is measured, and how
_measured: dict[str, dict[str, float]] = {}


def timed(work: LayerWork, own_code: Mapping[str, str] | None = None) -> Mapping[str, float]:
    """Seconds of a layer's step by kind, as first measured on a machine like this one by as many threads.

    Args:
        work: of the layer.
        own_code: versions of the user's modules that the run calls. They may change settings of the process, so what
            is measured beside them counts for runs with the same ones alone.
    """
    device = torch.device(work.device)
    about = {
        "version": _VERSION, "work": asdict(work), "device": device_name(device), "torch": torch.__version__,
        "threads": torch.get_num_threads(), **({"own_code": dict(own_code)} if own_code else {}),
    }  # fmt: skip
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
    if key not in _measured:
        folder = cache_folder()
        if folder is None:
            _measured[key] = measure(work)
        else:
            path = folder / "timings" / f"{key}.json"
            _measured[key] = _read(path) or _kept(path, about, measure(work))
    return _measured[key]


def cache_folder() -> Path | None:
    """Where what can be found out again is kept between runs; None for a user without a home."""
    own = os.environ.get("ITOPCTL_CACHE")
    if own:
        return Path(own)
    base = user_folder("XDG_CACHE_HOME", ".cache")
    return None if base is None else base / "itopctl"


def _read(path: Path) -> dict[str, float] | None:
    try:
        seconds = json.loads(path.read_text())["seconds"]
        times = {kind: float(seconds[kind]) for kind in ("masked", "sparse", "turned") if kind in seconds}
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return times if times.get("masked", 0.0) > 0.0 else None


def _kept(path: Path, about: Mapping[str, object], times: dict[str, float]) -> dict[str, float]:
    """What is in the file, ours if nobody else's was first; ours, too, where nothing can be written."""
    aside: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent)
        aside = Path(name)
        with os.fdopen(descriptor, "w") as file:
            json.dump({**about, "seconds": times}, file, indent=1)
        try:
            os.link(aside, path)
        except OSError:  # somebody was first, or there are no links here
            if _read(path) is None:
                aside.replace(path)
    except OSError:
        pass
    finally:
        if aside is not None:
            aside.unlink(missing_ok=True)
    return _read(path) or times
