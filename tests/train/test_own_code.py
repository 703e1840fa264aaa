"""Which line of a traceback is the user's own."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from itopctl.train.own_code import definition_of, in_words, place_of
from itopctl.train.setup import rules_of


def raised(function: object) -> BaseException:
    with pytest.raises(Exception) as caught:
        function()  # type: ignore[operator]
    return caught.value


def test_code_installed_below_the_users_folder_is_not_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / ".venv" / "lib" / "python3.12" / "site-packages"
    installed.mkdir(parents=True)
    (installed / "their_layers.py").write_text("def layer():\n    raise ValueError('too\\n wide')\n")
    (tmp_path / "our_nets.py").write_text("import their_layers\n\ndef net():\n    return their_layers.layer()\n")
    monkeypatch.syspath_prepend(installed)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    net, layer = (getattr(importlib.import_module(m), f) for m, f in (("our_nets", "net"), ("their_layers", "layer")))
    error = raised(net)
    assert (place_of(error, net), in_words(error)) == ("our_nets.py:4", "ValueError: too wide")
    assert place_of(raised(layer), layer).endswith("site-packages/their_layers.py:2")  # they named that one themselves
    assert definition_of(net) == "our_nets.py:3"
    monkeypatch.chdir("/")
    assert definition_of(net) == f"{str(tmp_path).lstrip('/')}/our_nets.py:3"


def test_this_packages_own_code_has_no_place() -> None:
    error = raised(rules_of)
    error.__traceback__ = None
    assert place_of(error, rules_of) == definition_of(rules_of) == ""
