"""`python -m benchmarks [NAME…]`: measure, print a table, exit 1 where a figure misses its goal.

Short things are repeated and their median is given; the sweep and the ingest are measured once. Since machines
differ, each figure stands beside something simple that was measured in the same run.
"""

from __future__ import annotations

import argparse
import platform
import sys

from benchmarks.agreement import masked_and_sparse
from benchmarks.cluster import thousand_on_a_cluster
from benchmarks.engine import steps, topology_updates
from benchmarks.growth import growth
from benchmarks.inference import inference
from benchmarks.measure import Figure
from benchmarks.memory import peak_memory
from benchmarks.planning import expand_and_plan, status_of_many
from benchmarks.reporting import reports_and_figures
from benchmarks.sparse import whole_steps
from benchmarks.startup import help_text
from benchmarks.training import fashion_sweep

BENCHMARKS = {
    "help": help_text,
    "plan": expand_and_plan,
    "status": status_of_many,
    "report": reports_and_figures,
    "cluster": thousand_on_a_cluster,
    "update": topology_updates,
    "step": steps,
    "sparse": whole_steps,
    "agreement": masked_and_sparse,
    "memory": peak_memory,
    "growth": growth,
    "inference": inference,
    "sweep": fashion_sweep,
}


def main() -> int:
    """Run the chosen benchmarks; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the figures of the README.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(BENCHMARKS)}; all if none")
    names = parser.parse_args().names or list(BENCHMARKS)
    for name in names:
        if name not in BENCHMARKS:
            parser.error(f"unknown benchmark {name!r}; allowed: {', '.join(BENCHMARKS)}")
    print(f"Python {platform.python_version()} on {platform.machine()}\n")
    print("| what | measured | goal | beside it |")
    print("| --- | --: | --: | --- |")
    missed = False
    for name in names:
        for figure in BENCHMARKS[name]():
            print(_line(figure), flush=True)
            missed |= figure.missed
    return int(missed)


def _line(figure: Figure) -> str:
    goal = f"≤ {figure.goal:g} s" if figure.goal is not None else figure.wanted
    mark = " **missed**" if figure.missed else ""
    return f"| {figure.what} | {_seconds(figure.seconds)}{mark} | {goal} | {figure.beside} |"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds * 1e3:.1f} ms"


if __name__ == "__main__":
    sys.exit(main())
