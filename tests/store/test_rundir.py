from __future__ import annotations

from pathlib import Path

from itopctl.store.files import write_json
from itopctl.store.rundir import Results


def test_run_ids_are_the_run_folders_and_nothing_else(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for name in ("bbbbbbbbbbbb", "0123456789ab", "0123456789AB", "0123456789a", "0123456789abc", ".aaaaaaaaaaaa", "x"):
        (results.runs / name).mkdir(parents=True)
    assert results.run_ids() == ["0123456789ab", "bbbbbbbbbbbb"]


def test_a_file_with_the_name_of_a_run_is_no_run(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.runs.mkdir()
    (results.runs / "0123456789ab").write_text("")
    assert results.run_ids() == []


def test_a_folder_without_results_has_no_runs_and_no_sweeps(tmp_path: Path) -> None:
    results = Results(tmp_path / "nowhere")
    assert results.run_ids() == [] and results.manifests() == []


def test_manifests_come_by_name_and_half_written_ones_are_passed_over(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for name in ("b", "a", ".a.json.x1"):
        write_json(results.manifest(name), {})
    (results.sweeps / "notes.txt").write_text("")
    assert [path.stem for path in results.manifests()] == ["a", "b"]
    assert results.manifest("a") == results.manifests()[0]
