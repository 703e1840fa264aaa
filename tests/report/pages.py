"""Pages with something of everything, for the tests of the page."""

from __future__ import annotations

import dataclasses
from typing import Any

from itopctl.report.page import Attempt, Environment, Figure, Page, RunEntry, Section, Spec
from itopctl.report.paper import paper_tables
from itopctl.report.runs import runs_table
from itopctl.report.table import Cell, Column, Record, Table
from itopctl.store.queries import RUN_COLUMNS
from tests.report.records import run, unfinished
from tests.report.written import cell

METHODS = ("dense", "static", "set-itop", "rigl-itop")

SPEC = """\
name: digits            # <of> "handwritten" & small
base: {dataset: digits, model: lenet-300-100, epochs: 20}
grid:
  method: [set-itop, rigl-itop]
  sparsity: [0.90, 0.95, 0.98]
  update_interval: [10, 40]
  seed: 3
"""


def svg(color: str = "#0072B2") -> str:
    """A picture as matplotlib writes them: a prolog, a style for everything, and a clip path known by an id."""
    return f"""<?xml version="1.0" encoding="utf-8" standalone="no"?>
<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">
<svg xmlns:xlink="http://www.w3.org/1999/xlink" width="241.2pt" height="160pt" viewBox="0 0 241.2 160"
 xmlns="http://www.w3.org/2000/svg" version="1.1">
 <metadata><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/></metadata>
 <defs><style type="text/css">*{{stroke-linejoin: round; stroke-linecap: butt}}</style></defs>
 <g id="figure_1">
  <path d="M 0 160 L 241.2 160 L 241.2 0 L 0 0 z" style="fill: #ffffff"/>
  <defs><path id="marker" d="M 0 3 C 4 3 4 -3 0 -3 z" style="stroke: {color}"/></defs>
  <g clip-path="url(#clip)"><use xlink:href="#marker" x="120" y="80"/>
   <path d="M 20 140 L 230 20" clip-path="url(#clip)" style="fill: none; stroke: {color}; stroke-width: 1.5"/>
  </g>
 </g>
 <defs><clipPath id="clip"><rect x="10" y="10" width="221" height="140"/></clipPath></defs>
</svg>
"""


def records() -> list[Record]:
    """Three methods and dense, two intervals, three sparsities, three seeds; some are not finished, one has failed."""
    found = []
    for method in METHODS:
        intervals: list[int | None] = [10, 1500] if "itop" in method else [None]
        for level in [0.0] if method == "dense" else [0.9, 0.95, 0.98]:
            for interval in intervals:
                for seed in range(3):
                    explored = (1 - level) * (30 / interval + 2 if interval else 1)
                    made = run(
                        method, level, seed, accuracy=0.97 - level**20 / 9 + explored / 80 + 0.002 * seed,
                        exploration_rate=explored, settings={"update_interval": interval, "growth": method[:4]},
                    )  # fmt: skip
                    if (method, level, seed) == ("static", 0.98, 2):
                        made = unfinished(method, level, seed, "failed", cause="out-of-memory",
                                          settings={"growth": method[:4]},
                                          message="no room for 3 GB\nof \"weights\" on <cuda:0>")  # fmt: skip
                    measured = {"wall_seconds": 3.5 * 10 ** (seed + level), "update_interval": interval}
                    names = {"sweep": "digits", "run_id": f"{len(found):02x}a94f21c07e"}
                    found.append({**dict.fromkeys(RUN_COLUMNS), **measured, **made, **names})
    return found


def verdicts() -> Table:
    """As a table of claims looks."""
    columns = [Column("claim"), Column("statistic", "right"), Column("95 % interval", "right"), Column("n", "right"),
               Column("p", "right"), Column("verdict")]  # fmt: skip
    rows = [
        [Cell("accuracy rises with R_s", "at sparsity 90 %"), cell("0.81"), cell("[0.42, 0.95]"), cell("9"),
         cell("0.003"), Cell("holds", style="green")],
        [Cell("dynamic beats static", "set-itop, ΔT 10"), cell("0.62"), cell("[−0.11, 1.35]"), cell("3"),
         cell("0.071"), Cell("not enough runs", "4 more seeds", style="yellow")],
        [Cell("sparse matches dense", "within 0.5 points"), cell("−2.10"), cell("[−3.02, −1.18]"), cell("3"),
         cell("< 0.001"), Cell("does not hold", style="red")],
    ]  # fmt: skip
    return Table("The paper's claims", columns, rows, [], ["p: corrected after Holm for 3 tests."])


def entries(found: list[Record]) -> list[RunEntry]:
    attempt = Attempt("local, on node17", "3d66be9+", "2026-11-24 20:01:02", "2026-11-24 20:03:40", "finished")
    log = "Traceback:\n  …\n\x1b[31mMemoryError\x1b[0m"
    return [RunEntry(record, record["settings"], [attempt], log if record["message"] else "") for record in found]


def page(found: list[Record] | None = None, **changed: Any) -> Page:
    """A page with something of everything."""
    found = records() if found is None else found
    paper = paper_tables(found, METHODS)
    made = Page(
        title="Sparse training on digits",
        made_at="2026-11-24 20:40",
        command="itopctl report digits --format html -o digits.html",
        sections=[Section("Results", paper, "Test accuracy by method and sparsity.")],
        verdicts=[verdicts()],
        figures=[
            Figure("rs-accuracy", "Accuracy against exploration", "A dot is a run.", svg(), "a,b\n1,2\n"),
            Figure("exploration", "Exploration over training", "By method.", svg("#D55E00"), "a,b\n3,4\n"),
        ],
        further=[Section("Further", [verdicts()])],
        runs_table=runs_table(found),
        runs=entries(found),
        specs=[Spec("digits", SPEC, "sweeps/my digits.yaml", ("optimizer.lr=0.1", "epochs=4"), "A demo.")],
        environment=[
            Environment("itopctl", {"0.1.0": len(found)}),
            Environment("torch", {"2.9.1+cpu": len(found) - 3, "2.8.0+cu126": 3}),
            Environment("device", {"AMD EPYC 9654 96-Core Processor, 1 thread": len(found)}),
        ],
        commit="3d66be9c0ffee3d66be9c0ffee3d66be9c0ffee0",
        version="0.1.0",
    )  # fmt: skip
    return dataclasses.replace(made, **changed)
