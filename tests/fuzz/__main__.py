"""`python -m tests.fuzz KIND [FIRST] [COUNT]`: try inputs of a kind by hand, and print what is wrong."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.bench import Bench, patience
from tests.fuzz.kinds import ALL, attempt


def main() -> None:
    kind = sys.argv[1]
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    count = int(sys.argv[3]) if len(sys.argv) > 3 else ALL[kind] if first == 0 else 1
    os.environ["PATH"] = ""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder, patience() as begin:
        os.chdir(folder)
        bench = Bench(Path(folder))
        began, told = time.process_time(), 0
        for number in range(first, first + count):
            begin()
            attempt(bench, kind, number)
            for problem in bench.wrong[told:]:
                print(problem, "\n", flush=True)
            told = len(bench.wrong)
        print(f"{bench.tried} inputs, {told} problems, {time.process_time() - began:.1f} s of the processor")


main()
