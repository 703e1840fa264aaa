"""Which modules are the user's own code, found without running any, and what its digest follows."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from itopctl.config import own_code
from itopctl.config.expand import expand
from itopctl.config.identity import experiment_id, run_id
from itopctl.config.own_code import OwnCode
from itopctl.config.reading import read_text
from itopctl.config.run_config import RunConfig
from itopctl.config.sweep import parse_sweep
from itopctl.errors import OtherCodeError, UserError
from tests.config.build import SPARSE, complaint_on, config, spec_text


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory; modules in it leave a mark when they are run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    return tmp_path


def write(folder: Path, **modules: str) -> None:
    """Files by name, `__` for a slash: `pkg__mod` is `pkg/mod.py`, and `pkg__` is `pkg/__init__.py`."""
    for name, source in modules.items():
        path = folder / (name.replace("__", "/") + ("__init__.py" if name.endswith("__") else ".py"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)


def digest(module: str) -> str | None:
    return OwnCode().digest(module)


def test_the_digest_of_a_known_module_is_what_it_always_was(folder: Path) -> None:
    write(folder, my_models="from my_layers import wide\n\ndef net(input_shape, classes):\n    return wide(classes)\n",
          my_layers="def wide(classes):\n    return 10 * classes\n")  # fmt: skip
    assert digest("my_models") == "30864e3352bb"


def test_a_digest_follows_the_modules_that_are_imported_and_those_that_they_import(folder: Path) -> None:
    imports = {
        "plain": "import inner", "renamed": "import inner as i", "some": "from inner import x",
        "all": "from inner import *",
        "late": "def f():\n    import inner", "tried": "try:\n    import inner\nexcept ImportError:\n    pass",
        "for_types": "if TYPE_CHECKING:\n    import inner", "through": "import plain",
    }  # fmt: skip
    write(folder, inner="x = 1", **imports)
    before = {name: digest(name) for name in imports}
    write(folder, inner="x = 1  # as before")
    assert {name: digest(name) for name in imports} == before
    write(folder, inner="x = 2")
    after = {name: digest(name) for name in imports}
    assert all(after[name] != before[name] for name in imports)
    assert len({*after.values()}) == len(imports)


def test_a_digest_follows_packages_and_relative_imports(folder: Path) -> None:
    modules = {
        "pkg__": "from . import a", "pkg__a": "from .b import x", "pkg__b": "from .sub.c import x",
        "pkg__unused": "y = 1",
        "pkg__sub__": "", "pkg__sub__c": "from ..d import x", "pkg__d": "from .. import too_far\nimport pkg.e, pkg.f",
        "pkg__e": "from pkg.listed import *", "pkg__f": "f = 1", "pkg__listed__": "__all__ = ['one']",
        "pkg__listed__one": "one = 1", "pkg__listed__two": "two = 2",
    }  # fmt: skip
    write(folder, **modules)
    before = digest("pkg.sub.c")
    assert before == digest("pkg.sub.c") is not None
    for name in modules:
        write(folder, **{name: modules[name] + "\nz = 1\n"})
        changed = digest("pkg.sub.c") != before
        assert changed == (name not in ("pkg__unused", "pkg__listed__two")), name
        write(folder, **{name: modules[name]})


def test_modules_that_import_each_other_have_a_digest(folder: Path) -> None:
    write(folder, one="import two", two="import one")
    assert digest("one") == digest("two") is not None  # both are the same two modules
    assert OwnCode().files("one") == {"one": folder / "one.py", "two": folder / "two.py"}


def test_packages_without_init_are_found_at_any_depth(folder: Path) -> None:
    write(
        folder, space__deep__models="from space.deep import other\nfrom . import other as o", space__deep__other="x = 1"
    )
    before = digest("space.deep.models")
    write(folder, space__deep__other="x = 2")
    assert before is not None and digest("space.deep.models") != before
    assert digest("space") is None


def test_nothing_is_imported_or_run_to_find_it(folder: Path) -> None:
    mark = f"open({str(folder / 'mark')!r}, 'w').close()"
    write(folder, loud__=mark, loud__models=f"import loud_other\n{mark}", loud_other=mark)
    assert len(OwnCode().files("loud.models")) == 3
    assert not (folder / "mark").exists()
    assert not {"loud", "loud.models", "loud_other"} & {*sys.modules}


def test_python_itself_installed_packages_and_itopctl_are_nobodys_own(folder: Path) -> None:
    for module in (
        "json",
        "os.path",
        "sys",
        "math",
        "numpy",
        "torch.nn",
        "yaml",
        "itopctl.errors",
        "itopctl",
        "nowhere",
        "a.b",
    ):
        assert digest(module) is None, module
    site = folder / "lib" / "site-packages"
    write(site, vendored="x = 1", vendored_package__="x = 1")
    sys.path.append(str(site))
    write(folder, mine="import vendored, vendored_package, numpy, json, itopctl.dst\nfrom torch import nn")
    assert [*OwnCode().files("mine")] == ["mine"]
    assert digest("vendored") is None


def test_a_package_that_is_installed_as_editable_is_the_users_own(folder: Path) -> None:
    site = folder / "lib" / "site-packages"
    write(folder, project__src__mine="x = 1")
    site.mkdir(parents=True)
    (site / "mine.pth").write_text(f"{folder / 'project' / 'src'}\n")
    code = (
        f"import site; site.addsitedir({str(site)!r}); from itopctl.config.own_code import OwnCode; "
        "print(OwnCode().files('mine'))"
    )
    path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd="/", env={**os.environ, **path}, check=False
    )
    assert "project/src/mine.py" in done.stdout, done.stderr


def test_a_compiled_module_has_no_digest(folder: Path) -> None:
    (folder / f"compiled{EXTENSION_SUFFIXES[0]}").write_bytes(b"\x7fELF")
    write(folder, mine="import compiled")
    assert digest("compiled") is None
    assert [*OwnCode().files("mine")] == ["mine"]


def test_the_digest_does_not_depend_on_where_the_modules_lie(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, here__models="import layers", here__layers="x = 1")
    shutil.copytree(folder / "here", folder / "elsewhere with a space")
    found = []
    for place in ("here", "elsewhere with a space"):
        monkeypatch.chdir(folder / place)
        found.append(digest("models"))
    (folder / "apart").mkdir()
    (folder / "here" / "layers.py").rename(folder / "apart" / "layers.py")
    monkeypatch.chdir(folder / "here")
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder / "apart")])
    found.append(digest("models"))
    assert found[0] is not None and len({*found}) == 1


def test_a_file_that_cannot_be_parsed_is_named_with_its_line(folder: Path) -> None:
    write(folder, mine="import broken", broken="x = 1\ndef f(:\n")
    with pytest.raises(UserError, match=r"broken\.py, line 2: invalid syntax\.$"):
        digest("mine")


def test_each_file_is_read_once_for_all_runs_of_a_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, mine="import inner\ndef net(input_shape, classes): ...", inner="x = 1")
    read: list[str] = []
    parse = own_code.parse
    monkeypatch.setattr(own_code, "parse", lambda path: (read.append(path.name), parse(path))[1])
    spec = parse_sweep(read_text(spec_text(grid={"model": ["mine:net", "lenet-5"], "seed": 20}), "spec.yaml"))
    runs = expand(spec).runs
    assert sorted(read) == ["inner.py", "mine.py"]
    assert {run.own_code is None for run in runs.values() if run.model == "lenet-5"} == {True}
    assert {(*run.own_code.items(),) for run in runs.values() if run.own_code} == {(("mine", digest("mine")),)}


def test_the_code_that_a_config_names_counts_in_its_identity(folder: Path) -> None:
    write(folder, mine="def net(input_shape, classes): ...", rules="def grow(layer): ...\ndef drop(layer): ...")
    named = {"model": "mine:net", "growth": "rules:grow", "drop": "rules:drop"}

    def planned() -> tuple[str, RunConfig]:
        (found,) = expand(parse_sweep(read_text(spec_text({**SPARSE, **named}), "spec.yaml"))).runs.items()
        return found

    ids, experiments = [], []
    for mine, rules in itertools.product(("1", "2"), repeat=2):
        write(
            folder,
            mine=f"def net(input_shape, classes): return {mine}",
            rules=f"def grow(layer): ...\ndef drop(layer): return {rules}",
        )
        id_, run = planned()
        assert run.own_code == {"mine": digest("mine"), "rules": digest("rules")} and run_id(run) == id_
        ids.append(id_)
        experiments.append(experiment_id(run))
    assert len({*ids}) == 4 and len({*experiments}) == 1
    assert experiments[0] == run_id(config(**named))  # which records no code, as before there were digests


def test_a_run_without_code_of_the_users_own_records_none() -> None:
    (run,) = expand(parse_sweep(read_text(spec_text(SPARSE), "spec.yaml"))).runs.values()
    assert run.own_code is None


def test_nobody_types_a_digest() -> None:
    assert "unknown setting 'own_code'" in complaint_on(own_code={"mine": "0123456789ab"})


def test_code_that_is_not_what_was_planned_is_named_with_file_and_digests(folder: Path) -> None:
    write(folder, mine="import inner\ndef net(): ...", inner="x = 1")
    planned = digest("mine")
    run = config(model="mine:net").model_copy(update={"own_code": {"mine": planned}})
    OwnCode().check(run)
    OwnCode().check(config(model="mine:net"))  # records no code
    write(folder, inner="x = 2")
    with pytest.raises(OtherCodeError) as caught:
        OwnCode().check(run)
    said = str(caught.value)
    assert f"Module mine ({folder / 'mine.py'}), or one of 1 module of yours that it imports, has changed" in said
    assert f"{planned} was planned, {digest('mine')} is there now" in said and "itopctl sweep SPEC" in said
    write(folder, inner="x = ")
    assert "inner.py, line 1" in OwnCode().differences(run)["mine"]
    (folder / "mine.py").unlink()
    assert "no such module is found now" in OwnCode().differences(run)["mine"]


def test_only_the_recorded_code_from_outside_of_the_results_is_trusted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = folder / "results"
    write(folder, mine="import inner\ndef net(): ...", inner="x = 1", results__planted="def net(): ...")
    run = config(model="mine:net").model_copy(update={"own_code": {"mine": digest("mine")}})
    assert OwnCode().untrusted(run, results) == set()
    assert OwnCode().untrusted(run.model_copy(update={"own_code": None}), results) == {"mine:net"}
    assert OwnCode().untrusted(run.model_copy(update={"own_code": {"mine": "0" * 12}}), results) == {"mine:net"}
    assert OwnCode().untrusted(run.model_copy(update={"model": "shutil:rmtree"}), results) == {"shutil:rmtree"}
    assert OwnCode().untrusted(run, folder) == {"mine:net"}  # the module lies in the results folder
    (folder / "inner.py").rename(results / "inner.py")
    (folder / "inner.py").symlink_to(results / "inner.py")
    assert OwnCode().untrusted(run, results) == {"mine:net"}  # a module that it imports does
    (folder / "inner.py").unlink()
    (results / "inner.py").rename(folder / "inner.py")
    assert OwnCode().untrusted(run, results) == set()
    link = folder / "link"
    link.symlink_to(results)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "path", [*sys.path, str(link)])
        assert OwnCode().untrusted(run, results) == {"mine:net"}  # what is missing elsewhere would be found there
    with monkeypatch.context() as patched:
        patched.setattr(sys, "path", [str(folder), *sys.path])
        patched.chdir(results)
        assert OwnCode().untrusted(run, results) == {"mine:net"}
