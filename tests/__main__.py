"""All tests, side by side where they can be: `python -m tests`, which `make test` calls.

1. Tests marked `slurm` mostly wait for jobs. They run beside 2, in processes of their own. What they print comes at
   the end of 2.
2. All other tests, on as many processes as `--jobs` says, with a lower priority: jobs of 1 come first.
3. Tests marked `alone`, which want the machine or the cluster for themselves, run one by one after the others.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from typing import IO

from tests.share import VARIABLE, chosen

_NOTHING_TO_RUN = 5  # pytest's exit code


def main() -> int:
    """Run them; 0 where all passed."""
    parser = argparse.ArgumentParser(prog="python -m tests", description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=2, help="processes for the tests that compute")
    parser.add_argument("--fast", action="store_true", help="without the slow tests")
    parser.add_argument("--all", action="store_true", help="every exhaustive case, not a share of them")
    asked = parser.parse_args()
    if asked.all:
        os.environ[VARIABLE] = "all"
    print(f"{VARIABLE}={chosen()}", flush=True)
    quick = " and not slow" * asked.fast
    with tempfile.TemporaryFile("w+") as said:
        slurm = _start("slurm and not alone" + quick, 2, nice=0, to=said)
        rest = _start("not slurm and not alone" + quick, asked.jobs, nice=10)
        codes = [rest.wait(), slurm.wait()]
        said.seek(0)
        print("\nTests on SLURM, which ran beside those above:\n", said.read(), sep="", flush=True)
    codes.append(_start("alone" + quick, 0, nice=0).wait())
    return int(any(code not in (0, _NOTHING_TO_RUN) for code in codes))


def _start(which: str, processes: int, nice: int, to: IO[str] | None = None) -> subprocess.Popen[bytes]:
    """Start pytest on the tests of these markers; one thread for each process where there are several."""
    several = ["-n", str(processes), "--dist", "loadfile", "--no-loadscope-reorder"] if processes else []
    environment = {**os.environ, **({"OMP_NUM_THREADS": "1"} if processes else {})}
    return subprocess.Popen(
        ["nice", "-n", str(nice), sys.executable, "-m", "pytest", "-m", which, *several],
        stdout=to, stderr=subprocess.STDOUT if to else None, env=environment,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
