"""What `mutations.py` would break is still there to be broken."""

from __future__ import annotations

import pytest

from tests.dst.mutation_list import MUTATIONS, Mutation
from tests.dst.mutations import ROOT


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.what)
def test_a_mutation_finds_its_place_and_changes_it(mutation: Mutation) -> None:
    source = (ROOT / "itopctl" / "dst" / mutation.file).read_text()
    assert mutation.old in source
    assert source.replace(mutation.old, mutation.new) != source


def test_every_mutation_is_in_the_list_that_people_read() -> None:
    said = (ROOT / "tests" / "README.md").read_text()
    assert [mutation.what for mutation in MUTATIONS if mutation.what not in said] == []
