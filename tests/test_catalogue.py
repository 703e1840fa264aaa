"""Names and what stands behind them: light to list, exact to look up, open to a user's own functions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from itopctl.catalogue import (
    ALLOCATIONS,
    DATASETS,
    DROPS,
    GROWTHS,
    METHODS,
    MODELS,
    Catalogue,
    check_user_function,
    import_user_function,
    is_user_function,
)
from itopctl.errors import UserError

ALL = {"methods": METHODS, "allocations": ALLOCATIONS, "drops": DROPS, "growths": GROWTHS, "models": MODELS,
       "datasets": DATASETS}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory from which modules can be imported, until the test ends."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "modules", {**sys.modules})
    monkeypatch.setattr(sys, "path_importer_cache", {})
    return tmp_path


def said(name: str) -> str:
    with pytest.raises(UserError) as caught:
        check_user_function(name)
    return str(caught.value)


def small() -> Catalogue:
    catalogue = Catalogue("fruit", ())
    catalogue.declare("apple", summary="grows on a tree", source="-", colour="red")

    @catalogue.add("banana", source="a paper", colour="yellow")
    def banana() -> str:
        """grows in bunches

        and more that a list does not show
        """
        return "a banana"

    return catalogue


def test_an_entry_is_one_decorated_function_described_by_its_first_line() -> None:
    entry = small().get("banana")
    assert (entry.name, entry.summary, entry.source, entry.options) == (
        "banana", "grows in bunches", "a paper", {"colour": "yellow"},
    )  # fmt: skip
    assert small().function("banana")() == "a banana"


def test_a_declared_entry_has_options_and_no_function() -> None:
    entry = small().get("apple")
    assert (entry.options, entry.function) == ({"colour": "red"}, None)
    with pytest.raises(TypeError, match="fruit 'apple' has no function"):
        small().function("apple")


def test_names_come_in_the_order_of_declaration() -> None:
    assert small().names() == [entry.name for entry in small()] == ["apple", "banana"]
    assert "apple" in small() and "cherry" not in small()


def test_an_unknown_name_is_refused_with_the_nearest_and_all_others() -> None:
    with pytest.raises(UserError) as caught:
        small().get("bananna")
    assert str(caught.value) == "unknown fruit 'bananna'. Did you mean 'banana'? Allowed: apple, banana."


def test_a_name_declared_twice_is_a_mistake_of_the_program() -> None:
    with pytest.raises(ValueError, match="fruit 'apple' is declared twice"):
        small().declare("apple", summary="", source="")


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("methods", "dense static set rigl set-itop rigl-itop"),
        ("allocations", "uniform er erk"),
        ("drops", "magnitude"),
        ("growths", "random gradient"),
        ("datasets", "digits mnist fashion_mnist cifar10 cifar100 synthetic"),
        (
            "models",
            "lenet-300-100 lenet-5 mlp-cifar resnet18 resnet34 resnet50 vgg16-c vgg16-c-itop vgg16-d vgg19 wrn-22-2 "
            "wrn-28-10",
        ),
    ],
)
def test_the_names_that_the_documentation_promises_are_there(kind: str, names: str) -> None:
    assert {*names.split()} <= {*ALL[kind].names()}


@pytest.mark.parametrize("kind", ALL)
def test_every_entry_says_what_it_is_and_where_it_comes_from(kind: str) -> None:
    for entry in ALL[kind]:
        assert len(entry.summary) > 5 and "\n" not in entry.summary
        assert entry.source
        assert entry.function is not None or kind == "methods"


def test_names_of_a_data_set_are_enough_to_count_its_steps() -> None:
    for entry in DATASETS:
        assert entry.options["train"] > 0 and entry.options["classes"] > 1 and len(entry.options["shape"]) == 3


def test_listing_every_name_imports_neither_torch_nor_anything_as_heavy() -> None:
    code = (
        "import sys; from itopctl import catalogue as c; "
        "names = [x.names() for x in (c.METHODS, c.ALLOCATIONS, c.DROPS, c.GROWTHS, c.MODELS, c.DATASETS)]; "
        "assert all(names); print({'torch', 'numpy', 'sqlalchemy', 'matplotlib', 'sklearn'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")


@pytest.mark.parametrize("name", ["a:b", "a.b:c", "_a.b_1:C_2", "package.my_module:make_model"])
def test_module_and_function_with_a_colon_between_name_a_users_function(name: str) -> None:
    assert is_user_function(name)


@pytest.mark.parametrize("name", ["a", "a:", ":b", "a:b:c", "a.b", "1a:b", "a b:c", "a:b\n", "a-b:c", "a:b.c", ""])
def test_anything_else_does_not(name: str) -> None:
    assert not is_user_function(name)


def test_a_users_function_is_an_entry_where_the_catalogue_is_open(folder: Path) -> None:
    (folder / "own_growth.py").write_text("def grow(layer):\n    return 42\n")
    assert GROWTHS.get("own_growth:grow").name == "own_growth:grow"
    assert GROWTHS.function("own_growth:grow")(None) == 42
    with pytest.raises(UserError, match="unknown method 'own_growth:grow'"):
        METHODS.get("own_growth:grow")


def test_an_open_catalogue_says_that_a_function_of_ones_own_is_allowed() -> None:
    with pytest.raises(UserError, match=r"Allowed: .*, package\.module:function\."):
        MODELS.get("nosuch")


def test_checking_a_users_function_does_not_run_its_module(folder: Path) -> None:
    (folder / "own_heavy.py").write_text("raise SystemExit('imported')\ndef make(): ...\n")
    check_user_function("own_heavy:make")
    assert "own_heavy" not in sys.modules


@pytest.mark.parametrize(
    "source",
    [
        "def make(): ...", "class make: ...", "make = len", "from os import getcwd as make", "import os as make",
        "try:\n    import fast\nexcept ImportError:\n    def make(): ...", "if True:\n    make = len",
        "from os import *", "make: object = len", "other, make = len, len", "async def make(): ...",
    ],
)  # fmt: skip
def test_whatever_binds_the_name_at_the_top_of_the_module_is_found(folder: Path, source: str) -> None:
    (folder / "own_bound.py").write_text(source + "\n")
    check_user_function("own_bound:make")


@pytest.mark.parametrize(
    "source", ["class Net:\n    def make(self): ...", "def other():\n    make = 1", "def other():\n    def make(): ..."]
)
def test_a_name_bound_deeper_in_the_module_is_not_its_function(folder: Path, source: str) -> None:
    (folder / "own_deep.py").write_text(source + "\n")
    assert "unknown function 'make'" in said("own_deep:make")


def test_a_function_that_is_not_in_the_module_is_refused_with_the_nearest(folder: Path) -> None:
    (folder / "own_typo.py").write_text("def make_model(): ...\n")
    message = said("own_typo:make_modle")
    assert str(folder / "own_typo.py") in message
    assert "unknown function 'make_modle'. Did you mean 'make_model'?" in message


def test_a_module_that_is_not_there_is_refused_with_where_it_was_looked_for(folder: Path) -> None:
    assert said("own_nowhere:make") == (
        f"'own_nowhere:make': there is no module 'own_nowhere' on Python's path or in {folder}."
    )
    assert "there is no module 'own_nowhere.inner'" in said("own_nowhere.inner:make")


@pytest.mark.parametrize("source", [b"def make(:\n", b"def make(): ...\n\x00", b"\xff\xfe"])
def test_a_module_that_is_not_python_is_refused(folder: Path, source: bytes) -> None:
    (folder / "own_broken.py").write_bytes(source)
    assert said("own_broken:make").startswith("'own_broken:make': ")


def test_a_function_in_a_package_is_checked_without_running_the_code_of_the_package(folder: Path) -> None:
    inner = folder / "own_package" / "inner"
    inner.mkdir(parents=True)
    for place in (inner.parent, inner):
        (place / "__init__.py").write_text("raise RuntimeError('it ran')\n")
    (inner / "models.py").write_text("def make(): ...\n")
    check_user_function("own_package.inner.models:make")
    assert "Did you mean 'make'?" in said("own_package.inner.models:mak")
    assert "there is no module 'own_package.inner.other'" in said("own_package.inner.other:make")
    assert "there is no module 'own_package.inner.models.deeper'" in said("own_package.inner.models.deeper:make")
    assert not [name for name in sys.modules if name.startswith("own_package")]
    with pytest.raises(RuntimeError, match="it ran"):
        import_user_function("own_package.inner.models:make")


def test_a_function_in_a_package_without_an_init_file_is_found(folder: Path) -> None:
    inner = folder / "own_space" / "inner"
    inner.mkdir(parents=True)
    (inner / "models.py").write_text("def make():\n    return 'made'\n")
    check_user_function("own_space.inner.models:make")
    assert import_user_function("own_space.inner.models:make")() == "made"


def test_a_function_in_a_package_is_found_and_imported(folder: Path) -> None:
    (folder / "own_whole").mkdir()
    (folder / "own_whole" / "__init__.py").write_text("")
    (folder / "own_whole" / "models.py").write_text("def make():\n    return 'made'\n")
    assert import_user_function("own_whole.models:make")() == "made"
