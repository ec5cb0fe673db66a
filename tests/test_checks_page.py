"""The page of the checks lists every check and every falsification of the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.falsification.campaign import FAULTS
from tests.falsification.page import (
    FAULTS_HEAD,
    SUITES_HEAD,
    every_suite,
    faults_table,
    folded,
    replaced,
    rows_of,
    suites_table,
)

PAGE = (Path(__file__).parents[1] / "docs" / "checks.md").read_text()


def test_every_check_is_on_the_page():
    assert suites_table() in PAGE, "make falsify PAGE=docs/checks.md regenerates it"


def test_every_falsification_is_on_the_page_with_checks_that_exist():
    rows = rows_of(PAGE, FAULTS_HEAD)
    assert set(rows) == {folded(name) for name in FAULTS}
    known = {
        suite.check_name(check)
        for suites in every_suite().values()
        for suite in suites
        for check in suite.checks
        if check.severity == "critical"
    }
    for name, fault in FAULTS.items():
        named = rows[folded(name)].split("`")[1::2]
        assert set(named) <= known, name
        assert bool(named) == (fault.kind == "critical"), name


def test_what_is_seen_in_every_shard_makes_a_row():
    table = faults_table(
        [
            ("a: 30 % of shard-00000 lost", ("x", "y")),
            ("b: one", ("v", "w", "x", "y", "z")),
            ("a: 30 % of shard-00001 lost", ("z", "x")),
            ("a: a little", ()),
        ]
    )
    assert rows_of(table, FAULTS_HEAD) == {
        "a: 30 % of any shard lost": "`x`",
        "a: a little": "nothing: detectable only in statistics over 100,000 heads",
        "b: one": "`v`, `w`, `x` and 2 more",
    }
    page = f"# Page\n\n{FAULTS_HEAD}| old | `x` |\n| older | `y` |\n\nText.\n"
    assert replaced(page, [table]) == f"# Page\n\n{table}\nText.\n"
    with pytest.raises(ValueError, match="no table with the head"):
        replaced(page, [SUITES_HEAD])
