"""The example notebook runs from its first cell to its last, and shows what it promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook.ipynb"


@pytest.mark.slow
def test_the_example_runs_in_a_kernel(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    counts, outcome, frame, table, figure = [shown(cell) for cell in notebook.cells if cell.get("outputs")]
    assert counts["text/plain"].startswith("{'new': 12, 'done': 0")
    assert outcome["text/plain"] == "(12, [])"
    assert "set-itop" in frame["text/html"] and "exploration_rate" in frame["text/html"]
    assert "R_s" in table["text/html"] and "static" in table["text/html"]
    assert figure["image/png"]


def test_it_is_stored_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not [cell for cell in notebook.cells if cell.get("outputs")]


def shown(cell: Any) -> dict[str, str]:
    """What a cell shows, by kind of content."""
    (output,) = [output for output in cell.outputs if output.output_type in ("execute_result", "display_data")]
    data: dict[str, str] = output.data
    return data
