"""The code that jobs run: found, named by its content, and copied so that later edits do not reach it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import itopctl
from itopctl.dispatch import snapshot
from itopctl.dispatch.snapshot import Code, code_here, digest_of, find_code, git_state, modules_of, take
from itopctl.errors import EnvironmentUnfitError, UserError
from itopctl.store.files import read_json
from itopctl.store.rundir import Results
from tests.helpers import run_config

PACKAGE = Path(itopctl.__file__).parent
pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_py", ".py").replace("_txt", ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def git(folder: Path, *arguments: str) -> str:
    settings = ("-c", "user.name=me", "-c", "user.email=me@lab", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *settings, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """With one file in the commit, one that is not, and one that git ignores."""
    folder = tmp_path / "my work"
    write(folder, model_py="a = 1\n", experiments__spec_txt="x", ignored_txt="big", new_py="b = 1\n")
    write(folder, **{".gitignore": "ignored.txt\nresults/\n"})
    git(folder, "init", "-q")
    git(folder, "add", "model.py", "experiments", ".gitignore")
    git(folder, "commit", "-q", "-m", "one")
    return folder


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A folder without a repository."""
    folder = tmp_path / "my work"
    write(
        folder, **{"model.py": "a = 1\n", "mine/nets.py": "", "mine/deep/a.yaml": "", "other/x.py": "", "notes.txt": ""}
    )
    return folder


def own(folder: Path, *apart: Path, modules: tuple[str, ...] = ()) -> set[str]:
    """What of the user's is taken."""
    return {name for name in find_code(folder, apart, modules) if not name.startswith("itopctl/")}


def taken(folder: Path, **about: object) -> Code:
    return take(Results(folder / "results"), folder, folder / "data", (), **about)  # type: ignore[arg-type]


# What is taken ----------------------------------------------------------------------------------------------


def test_the_package_is_always_taken_and_its_caches_never(plain: Path) -> None:
    files = find_code(plain, [], [])
    assert files["itopctl/dispatch/job.py"] == PACKAGE / "dispatch/job.py"
    assert "itopctl/py.typed" in files
    assert not [name for name in files if "__pycache__" in name or name.endswith(".pyc")]


def test_of_a_repository_all_is_taken_that_git_knows_or_does_not_ignore(repository: Path) -> None:
    assert own(repository) == {".gitignore", "model.py", "new.py", "experiments/spec.txt"}
    assert own(repository / "experiments") == own(repository), "wherever in it the command is typed"


def test_a_file_that_was_deleted_is_not_taken(repository: Path) -> None:
    (repository / "model.py").unlink()
    assert "model.py" not in own(repository)


def test_results_and_data_are_never_taken_even_where_git_does_not_ignore_them(repository: Path) -> None:
    write(repository, **{"out/runs/a.json": "{}", "images/a.bin": "x", "outside.py": ""})
    assert {"out/runs/a.json", "images/a.bin"} <= own(repository)
    left = own(repository, repository / "out", repository / "images")
    assert not [name for name in left if name.startswith(("out/", "images/"))]
    assert "outside.py" in left


def test_a_link_is_taken_for_the_file_it_leads_to_and_others_are_left(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "shared.py").write_text("c = 1\n")
    (repository / "out").mkdir()
    (repository / "out" / "result.py").write_text("")
    for name, target in (
        ("link.py", tmp_path / "shared.py"), ("broken.py", tmp_path / "nowhere"), ("folder", tmp_path),
        ("sneaky.py", repository / "out" / "result.py"),
    ):  # fmt: skip
        (repository / name).symlink_to(target)
    found = own(repository, repository / "out")
    assert "link.py" in found
    assert not found & {"broken.py", "folder", "sneaky.py"}
    code = take(Results(repository / "out"), repository, repository / "data", ())
    assert (Path(code.snapshot or "") / "link.py").read_text() == "c = 1\n"
    assert not (Path(code.snapshot or "") / "link.py").is_symlink()


def test_names_may_be_odd(repository: Path) -> None:
    names = {"with space.py", "ünï.py", 'quo"te.py', "new\nline.py", "-dash.py"}
    for name in names:
        (repository / name).write_text("")
    assert names <= own(repository)
    assert names <= {path.name for path in Path(taken(repository).snapshot or "").iterdir()}


def test_without_a_repository_python_files_are_taken_and_packages_that_specs_name(plain: Path) -> None:
    assert own(plain) == {"model.py"}
    assert own(plain, modules=("mine", "missing")) == {"model.py", "mine/nets.py", "mine/deep/a.yaml"}


def test_specs_name_modules_of_the_users() -> None:
    config = run_config()
    configs = [config.model_copy(update={"model": model}) for model in ("lenet-5", "other:Net", "mine.nets:make")]
    assert modules_of(configs) == ("mine", "other")


# What it is called ------------------------------------------------------------------------------------------


def test_the_same_content_has_the_same_digest_and_any_change_another(repository: Path) -> None:
    def digest() -> str:
        return digest_of(find_code(repository, [], []))

    first = digest()
    assert len(first) == 12 and digest() == first
    write(repository, ignored_txt="bigger")
    assert digest() == first
    write(repository, new_py="b = 2\n")
    second = digest()
    (repository / "new.py").rename(repository / "newer.py")
    third = digest()
    git(repository, "add", "-A")
    assert digest() == third, "whether it is committed does not matter"
    assert len({first, second, third}) == 3


def test_what_moves_from_one_file_to_the_next_is_a_change(plain: Path) -> None:
    write(plain, a_py="xy", b_py="z")
    before = digest_of(find_code(plain, [], []))
    write(plain, a_py="x", b_py="yz")
    assert digest_of(find_code(plain, [], [])) != before


def test_a_repository_has_a_commit_and_is_dirty_or_not(repository: Path, tmp_path: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD").strip()
    assert git_state(repository) == (commit, True)
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "two")
    assert git_state(repository)[1] is False
    assert git_state(tmp_path) == (None, None)


def test_a_repository_without_a_commit_has_none(tmp_path: Path) -> None:
    write(tmp_path, model_py="")
    git(tmp_path, "init", "-q")
    assert git_state(tmp_path) == (None, None)
    assert own(tmp_path) == {"model.py"}


def test_without_git_the_folder_is_taken_as_one_without_a_repository(
    repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(repository) == (None, None)
    assert own(repository) == {"model.py", "new.py"}


# The copy ---------------------------------------------------------------------------------------------------


def test_a_snapshot_holds_what_was_there_and_later_edits_do_not_reach_it(repository: Path) -> None:
    code = taken(repository)
    copy = Path(code.snapshot or "")
    assert copy == repository / "results/snapshots" / code.digest
    write(repository, model_py="a = 2\n")
    assert (copy / "model.py").read_text() == "a = 1\n"
    assert (copy / "itopctl/dispatch/job.py").read_bytes() == (PACKAGE / "dispatch/job.py").read_bytes()
    record = read_json(copy / "snapshot.json") or {}
    assert (record["digest"], record["git_dirty"], record["from"]) == (code.digest, True, str(repository))
    assert record["git_commit"] == code.git_commit == git(repository, "rev-parse", "HEAD").strip()


def test_the_same_code_is_copied_once_whoever_comes(repository: Path) -> None:
    first = taken(repository)
    before = (Path(first.snapshot or "") / "model.py").stat()
    assert taken(repository) == first
    after = (Path(first.snapshot or "") / "model.py").stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (before.st_ino, before.st_mtime_ns, before.st_size)
    write(repository, model_py="a = 2\n")
    second = taken(repository)
    assert second.digest != first.digest
    assert {path.name for path in (repository / "results/snapshots").iterdir()} == {first.digest, second.digest}


def test_several_that_copy_at_once_make_one_whole_snapshot(repository: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        codes = list(pool.map(lambda _: taken(repository), range(6)))
    assert len(set(codes)) == 1
    assert [path.name for path in (repository / "results/snapshots").iterdir()] == [codes[0].digest]


def test_a_half_made_copy_does_not_count(repository: Path) -> None:
    code = taken(repository)
    snapshot = Path(code.snapshot or "")
    (snapshot / "snapshot.json").unlink()
    (snapshot / "tracked.py").unlink(missing_ok=True)
    assert taken(repository) == code
    assert (snapshot / "snapshot.json").exists()
    assert find_code(repository, [], ()).keys() == {
        str(path.relative_to(snapshot)) for path in snapshot.rglob("*") if path.is_file()
    } - {"snapshot.json"}


@pytest.mark.parametrize("planted", ["torch.py", "deep/er.pyc", "torch.so", "model.py", "itopctl/dispatch/job.py"])
def test_a_snapshot_that_somebody_put_there_is_not_taken_for_this_code(repository: Path, planted: str) -> None:
    code = taken(repository)
    place = Path(code.snapshot or "") / planted
    whole = place.read_bytes() if place.exists() else None
    place.parent.mkdir(exist_ok=True)
    place.write_text("import theirs\n")
    assert taken(repository) == code
    assert (place.read_bytes() if place.exists() else None) == whole


def test_compiled_code_and_links_that_somebody_put_into_a_snapshot_are_gone(repository: Path) -> None:
    code = taken(repository)
    snapshot = Path(code.snapshot or "")
    cache = snapshot / "__pycache__" / "model.cpython-311.pyc"
    cache.parent.mkdir()
    cache.write_bytes(b"theirs")
    assert taken(repository) == code and not cache.exists()
    (snapshot / "torch").symlink_to(repository)
    assert taken(repository) == code and not (snapshot / "torch").exists()


def test_what_jobs_wrote_into_a_snapshot_stays(repository: Path) -> None:
    code = taken(repository)
    written = Path(code.snapshot or "") / "notes" / "of my own.txt"
    written.parent.mkdir()
    written.write_text("seen")
    assert taken(repository) == code and written.read_text() == "seen"


def test_jobs_work_in_the_folder_that_the_command_was_typed_in(repository: Path) -> None:
    inner = repository / "experiments"
    code = take(Results(repository / "results"), inner, repository / "data", ())
    assert code.workdir == f"{code.snapshot}/experiments"
    empty = repository / "ignored" / "by all"
    empty.mkdir(parents=True)
    workdir = Path(take(Results(repository / "results"), empty, repository / "data", ()).workdir)
    assert workdir.is_dir() and workdir.name == "by all"


def test_where_the_folder_is_reached_by_a_link_too(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(repository / "experiments")
    code = take(Results(repository / "results"), tmp_path / "link", repository / "data", ())
    assert code.workdir == f"{code.snapshot}/experiments"


def test_who_opts_out_gets_no_copy_and_a_digest_all_the_same(repository: Path) -> None:
    code = taken(repository, copy=False)
    assert code.snapshot is None
    assert code.workdir == str(repository)
    assert code.digest == taken(repository, dry=True).digest
    assert not (repository / "results").exists()


def test_a_dry_run_says_where_the_copy_would_be_and_makes_none(repository: Path) -> None:
    code = taken(repository, dry=True)
    assert code.snapshot == str(repository / "results/snapshots" / code.digest)
    assert not (repository / "results").exists()
    assert taken(repository) == code


def test_what_is_too_large_to_be_code_is_refused_with_its_largest_file(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(repository, weights_txt="x" * 2_000_000)
    monkeypatch.setattr(snapshot, "MAX_BYTES", 1_500_000)
    with pytest.raises(
        UserError, match=r"is [2-5] MB \(at most 2\), .*weights\.txt the largest file of it\. .*--no-snapshot"
    ):
        taken(repository)
    assert not (repository / "results").exists()
    taken(repository, copy=False)


def test_a_place_that_cannot_be_written_is_no_fit_environment(repository: Path) -> None:
    (repository / "results").mkdir()
    (repository / "results/snapshots").write_text("a file where a folder should be")
    with pytest.raises(EnvironmentUnfitError, match=r"results/snapshots/\w+ cannot be written"):
        taken(repository)


# Inside it --------------------------------------------------------------------------------------------------

_SAY = (
    "import json, sys, itopctl, model\n"
    "from itopctl.dispatch.snapshot import code_here\n"
    "code = code_here([], ())\n"
    "print(json.dumps([itopctl.__file__, model.__file__, code.record()]))\n"
)


def test_a_process_that_runs_a_snapshot_knows_it_whatever_became_of_the_repository(repository: Path) -> None:
    code = taken(repository)
    write(repository, model_py="a = 3\n")
    done = subprocess.run(
        [sys.executable, "-c", _SAY], cwd=code.workdir, env={**os.environ, "PYTHONPATH": str(code.snapshot)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    package, model, here = json.loads(done.stdout)
    assert package == f"{code.snapshot}/itopctl/__init__.py"
    assert model == f"{code.snapshot}/model.py"
    assert (here["digest"], here["snapshot"]) == (code.digest, code.snapshot)
    assert (here["git_commit"], here["git_dirty"]) == (code.git_commit, True)


def test_a_process_without_a_snapshot_says_what_is_there_now(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    submitted = taken(repository, copy=False)
    apart = [repository / "results", repository / "data"]
    assert code_here(apart, ()).digest == submitted.digest
    assert code_here(apart, ()).snapshot is None
    write(repository, model_py="a = 4\n")
    assert code_here(apart, ()).digest != submitted.digest


def test_of_an_attempt_the_commit_and_the_digest_are_recorded() -> None:
    code = Code("c0ffee", True, "0123456789ab", None, "/w", ("mine",))
    assert code.of_attempt() == {"git_commit": "c0ffee", "git_dirty": True, "code": "0123456789ab"}
    assert code.record()["modules"] == ("mine",)


# Modules that lie elsewhere ---------------------------------------------------------------------------------


def test_a_package_below_the_top_of_the_repository_is_imported_from_the_snapshot(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(repository, **{"src/my_own_package/net.py": "width = 64\n"})
    monkeypatch.syspath_prepend(str(repository / "src"))
    code = take(Results(repository / "results"), repository, repository / "data", ("my_own_package",))
    assert code.imports[0] == f"{code.snapshot}/src"
    write(repository, **{"src/my_own_package/net.py": "width = 16\n"})  # edited while the job waits
    search = ":".join([*code.imports, str(code.snapshot), str(repository / "src")])
    asked = "import my_own_package.net, itopctl; print(my_own_package.net.width, itopctl.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", asked], env={**os.environ, "PYTHONPATH": search}, cwd=code.workdir, text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout.split()[0] == "64"
    assert done.stdout.split(maxsplit=1)[1].strip() == f"{code.snapshot}/itopctl/__init__.py"


@pytest.mark.parametrize("kind", ["module", "package"])
def test_a_named_module_from_elsewhere_is_copied_too(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    name = "my_lone_module" if kind == "module" else "my_other_package"
    files = {"my_lone_module.py": "a = 1\n"} if kind == "module" else {"my_other_package/net.py": "a = 1\n"}
    write(tmp_path / "a library", **files)
    monkeypatch.syspath_prepend(str(tmp_path / "a library"))
    code = take(Results(repository / "results"), repository, repository / "data", (name,))
    assert code.imports[-1] == f"{code.snapshot}/_elsewhere"
    (file,) = files
    assert Path(code.imports[-1], file).read_text() == "a = 1\n"


def test_what_is_installed_is_not_copied(repository: Path) -> None:
    code = take(Results(repository / "results"), repository, repository / "data", ("torch", "json", "nothing_at_all"))
    assert code.imports == ()


def test_a_module_that_a_snapshot_does_not_hold_is_a_difference(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = taken(repository)
    monkeypatch.setattr(snapshot, "_PACKAGE", Path(code.snapshot or "") / "itopctl")
    monkeypatch.chdir(code.workdir)
    assert code_here([], ("nothing_at_all",)).digest == code.digest
    write(tmp_path / "a library", **{"my_late_module.py": "a = 1\n"})
    monkeypatch.syspath_prepend(str(tmp_path / "a library"))
    assert code_here([], ("my_late_module",)).digest != code.digest
