"""LaTeX for the tests: Debian's packages of it, and compiling a report in an `article`."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

NO_LATEX = "no LaTeX for the tests"
_PROGRAMS = {"pdflatex": "texlive-latex-base", "pdftotext": "poppler-utils"}
_STYLES = {"booktabs.sty": "texlive-latex-recommended", "siunitx.sty": "texlive-science"}
_PATIENCE = 120.0
_ARTICLE = r"""\documentclass{article}
\usepackage{booktabs}
\usepackage{siunitx}%s
\begin{document}
\input{table}
\end{document}
"""


def missing() -> str | None:
    """What the tests with LaTeX lack; None where nothing is."""
    packages = {package for program, package in _PROGRAMS.items() if shutil.which(program) is None}
    if not packages:
        packages = {package for style, package in _STYLES.items() if not _found(style)}
    return f"not installed: {', '.join(sorted(packages))} (Debian's packages)" if packages else None


def _found(style: str) -> bool:
    return subprocess.run(["kpsewhich", style], stdout=subprocess.DEVNULL).returncode == 0


@dataclass(frozen=True)
class Compiled:
    """What became of a document.

    Attributes:
        text: of its pages, as `pdftotext -layout` reads it.
        log: of the compiler.
        fonts: as `pdffonts` lists them.
    """

    text: str
    log: str
    fonts: str

    @property
    def overfull(self) -> float:
        """By how many points the widest box sticks out of its place, or the highest."""
        return max(map(float, re.findall(r"Overfull .*?\(([\d.]+)pt too", self.log)), default=0.0)

    @property
    def warnings(self) -> list[str]:
        """Those of LaTeX and its packages, but for the one that asks to run it again."""
        found = re.findall(r"^(?:LaTeX|Package \w+) Warning: .*", self.log, re.MULTILINE)
        return [line for line in found if "Rerun" not in line and "references" not in line]


def compile_latex(table: str, folder: Path, siunitx: str = "") -> Compiled:
    r"""Compile a file in an `article` that loads booktabs and siunitx, and nothing else.

    Args:
        table: the file that is `\input`.
        folder: an empty one.
        siunitx: release of the package, such as `[=v2]`.

    Raises:
        AssertionError: it does not compile; with the end of the log.
    """
    (folder / "table.tex").write_text(table, encoding="utf-8")
    (folder / "main.tex").write_text(_ARTICLE % siunitx, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "main.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=_PATIENCE)
    log = (folder / "main.log").read_text(encoding="latin-1")
    assert done.returncode == 0, log[-3000:]
    return Compiled(
        _output("pdftotext", "-layout", folder / "main.pdf", "-"), log, _output("pdffonts", folder / "main.pdf")
    )


def _output(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, check=True, timeout=_PATIENCE).stdout.decode()
