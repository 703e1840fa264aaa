"""What a run or a job printed, on its way to somebody's terminal: text and colours, and nothing else that acts on it.

A log may come from somebody else's code or results: it may not set a clipboard or a title, clear or reorder what is
seen. What goes to a file or a pipe goes as it is.
"""

from __future__ import annotations

import codecs
import re
import sys

import typer

from itopctl.report.formats.characters import clean

_KEPT = re.compile(r"(\x1b\[[0-9;]*m|\t)")  # colours (SGR)
_UNFINISHED = re.compile(r"(?:\r|\x1b(?:\[[0-9;]*)?)\Z")
_RESET = "\x1b[0m"


def for_terminal(text: str, *, colours: bool = True) -> str:
    """Printed text without what would act on a terminal, other than colours (if those are wanted) and tabs."""
    parts = _KEPT.split(text)
    kept = [part if colours or part == "\t" else "" for part in parts[1::2]] + [""]
    return "".join(clean(part, lines=True) + mark for part, mark in zip(parts[::2], kept, strict=True))


class Printer:
    """Prints a log that comes piece by piece, cut anywhere; as it is, unless a terminal shows it."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""  # what may be the beginning of a colour
        self._coloured = False

    def write(self, data: bytes) -> None:
        """Print a piece."""
        self._print(self._decoder.decode(data))

    def end(self) -> None:
        """Print what was held back, and end what colour there is."""
        self._print(self._decoder.decode(b"", final=True), last=True)
        if self._coloured:
            typer.echo(_RESET, nl=False, color=True)

    def _print(self, text: str, last: bool = False) -> None:
        if sys.stdout.isatty():
            text = self._held + text
            unfinished = None if last else _UNFINISHED.search(text)
            self._held = unfinished[0] if unfinished else ""
            text = for_terminal(text[: len(text) - len(self._held)])
            self._coloured |= "\x1b[" in text
        typer.echo(text, nl=False, color=True)
