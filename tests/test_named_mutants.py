"""The named wrong changes still fit the code; `python -m tests.named_mutants` makes them."""

from __future__ import annotations

import pytest

from tests import mutants
from tests.named_mutants import CHANGES
from tests.rehearsal import ROOT


@pytest.mark.parametrize("name", CHANGES)
def test_a_named_change_has_one_place_and_tests(name):
    change = CHANGES[name]
    assert (ROOT / change.path).read_text().count(change.old) == 1
    assert change.old != change.new
    path, _, test = change.tests.partition("::")
    assert f"def {test}(" in (ROOT / path).read_text()


@pytest.mark.parametrize(("least", "code"), [("0.66", 0), ("0.67", 1)])
def test_a_group_below_the_asked_score_fails(monkeypatch, least, code):
    found = {"a": "killed", "b": "timeout", "c": "survived", "d": "not checked"}
    monkeypatch.setattr(mutants, "mutate", lambda *given: found)
    monkeypatch.setattr("sys.argv", ["mutants", "--only", "checks", "--at-least", least])
    assert mutants.main() == code
