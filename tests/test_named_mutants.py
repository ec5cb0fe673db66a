"""The named wrong changes still fit the code; `python -m tests.named_mutants` makes them."""

from __future__ import annotations

import pytest

from tests.named_mutants import CHANGES
from tests.rehearsal import ROOT


@pytest.mark.parametrize("name", CHANGES)
def test_a_named_change_has_one_place_and_tests(name):
    change = CHANGES[name]
    assert (ROOT / change.path).read_text().count(change.old) == 1
    assert change.old != change.new
    assert (ROOT / change.tests).exists()
