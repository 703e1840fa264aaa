"""The one small family of errors that a person sees, each with its exit code; and the wording they share.

Raised where the cause is known, printed in one place (`itopctl.cli.app`). Not for programming errors: those
stay ordinary exceptions and show a traceback.
"""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable, Mapping, Sequence


class ItopctlError(Exception):
    """Base of the family. `exit_code` is what the process ends with: 1, some run failed."""

    exit_code = 1


class UserError(ItopctlError):
    """What the user typed or wrote is wrong: exit code 2.

    The message says where (file, line or key path), what was found, what is allowed.
    """

    exit_code = 2


class EnvironmentUnfitError(ItopctlError):
    """The machine is not fit for what was asked (data set missing, store locked, no SLURM): exit code 3."""

    exit_code = 3


class DiskFullError(EnvironmentUnfitError):
    """No space, or no quota, is left where something was to be written."""


class NotWritableError(EnvironmentUnfitError):
    """Something may not be written: no permission, a read-only file system."""


class DataUnfitError(EnvironmentUnfitError):
    """A data set is missing or damaged."""


class OtherCodeError(ItopctlError):
    """The user's own code is not what a run was planned with."""


_MEMORY_SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory", "alloc_cpu")


def is_want_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, of the host or a GPU, in whatever words."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or any(sign in str(error).lower() for sign in _MEMORY_SIGNS)


def nearest(word: str, allowed: Iterable[str]) -> str | None:
    """The allowed word that `word` most looks like, or None where nothing comes close."""
    candidates = list(allowed)
    matches = difflib.get_close_matches(word, candidates, n=1, cutoff=0.6)
    if not matches:
        lowered = {candidate.lower(): candidate for candidate in candidates}
        matches = [
            lowered[match]
            for match in difflib.get_close_matches(word.lower().replace("_", "-"), lowered, n=1, cutoff=0.6)
        ]
    return matches[0] if matches else None


def quoted(value: object, most: int = 200) -> str:
    """`repr`, cut to a length that a person reads; never fails, whatever the size of a number."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]  # as YAML writes them
    try:
        text = repr(value)
    except ValueError:  # more digits than Python prints
        text = "a number of thousands of digits"
    return text if len(text) <= most else f"{text[:most]}…"


def unknown(kind: str, found: object, allowed: Iterable[str]) -> str:
    """One sentence on an unknown word: what was found, what is allowed, the nearest valid one."""
    words = list(allowed)
    return f"unknown {kind} {quoted(found)}.{meant(str(found), words)} Allowed: {', '.join(words)}."


def meant(word: str, allowed: Iterable[str]) -> str:
    """` Did you mean 'x'?`, of the nearest allowed word; nothing where none comes close."""
    guess = nearest(word, allowed)
    return f" Did you mean {guess!r}?" if guess else ""


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """`1 run`, `2 runs`, `1 match`, `2 matches`."""
    return f"{count:,} {noun if count == 1 else (nouns or noun + 's')}"


def describe_exit(returncode: int) -> str:
    """How a process ended, for a person; a negative code is the signal that killed it."""
    if returncode < 0:
        try:
            return f"its process was killed by {signal.Signals(-returncode).name}"
        except ValueError:
            return f"its process was killed by signal {-returncode}"
    return f"its process ended with exit code {returncode}"


def named(names: Sequence[str], most: int = 8) -> str:
    """Some names, the first of them where there are many."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def left_dense_in_words(sizes: Mapping[str, int], trainable: int) -> str:
    """`emb.weight, pos (12.3 % of all weights)`.

    Args:
        sizes: name → size of the parameters that a training leaves dense.
        trainable: numbers that are trained in all.
    """
    return f"{named(list(sizes))} ({100 * sum(sizes.values()) / trainable:.1f} % of all weights)"
