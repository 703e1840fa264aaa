"""Break each rule in turn and see that a test fails: `python -m tests.dst.mutations [WORD…]`.

Each mutation is made in a copy of the project, and the tests of the engine are run there until one fails. Prints a
line a mutation; exits 1 where one survived. Only the mutations whose description has one of the words are tried.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.dst.mutation_list import MUTATIONS, Mutation

ROOT = Path(__file__).parents[2]


_HELPER = "\n\ndef weights_of(gradients):\n    return {layer.name: layer.weight for layer in gradients._layers}\n"


def survives(mutation: Mutation, project: Path) -> bool:
    """Whether all tests pass with this mutation; the copy is as before afterwards."""
    file = project / "itopctl" / "dst" / mutation.file
    before = file.read_text()
    if mutation.old not in before:
        raise SystemExit(f"{mutation.what}: {mutation.file} has no {mutation.old!r}")
    after = before.replace(mutation.old, mutation.new)
    if mutation.what == "only the first chunk is masked":
        after = after.replace("strict=True):\n            widened", "strict=True)][:1]:\n            widened")
    file.write_text(after + (_HELPER if "weights_of" in mutation.new else ""))
    try:
        first = sorted(str(p) for p in (project / "tests" / "dst").glob(f"test_*{mutation.tests}*.py"))
        return all(_passes(paths, project) for paths in (first, ["tests/dst"]) if paths)
    finally:
        file.write_text(before)


def _passes(paths: list[str], project: Path) -> bool:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *paths]
    return subprocess.run(command, cwd=project, capture_output=True, check=False).returncode == 0


def main() -> int:
    """Try the mutations; returns the exit code."""
    words = sys.argv[1:]
    chosen = [m for m in MUTATIONS if not words or any(word in m.what for word in words)]
    alive = 0
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        shutil.copytree(ROOT, project, ignore=shutil.ignore_patterns(".venv", ".git", "results", "data", "__pycache__"))
        for mutation in chosen:
            alive += (survived := survives(mutation, project))
            print(f"{'SURVIVED' if survived else 'found':9} {mutation.file:20} {mutation.what}", flush=True)
    print(f"{len(chosen) - alive} of {len(chosen)} found")
    return int(alive > 0)


if __name__ == "__main__":
    sys.exit(main())
